//! Ends that are lied to: no message at any moment makes them panic or claim what did not happen.
//!
//! `pair` checks in every step that no success comes without the stream's end and that
//! acknowledgements rise; here the lies are drawn, among honest steps, so that they strike in
//! every state.

use proptest::prelude::*;
use zferry::dataset::Guid;
use zferry::error::{Class, Side};
use zferry::protocol::message::{Applied, Ending, Message, Outcome, Start, Watermarks};
use zferry::protocol::misbehaved::PeerMisbehaved;
use zferry::protocol::standing::{Return, Returned};
use zferry::protocol::window::{Arrived, Credit};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

use crate::arbitrary;
use crate::pair::{BLOCKS, Job, Pair, Step, target};

const JOBS: &[Job] = &[
    Job::List,
    Job::ListTree,
    Job::Abort,
    Job::Prune,
    Job::Send { bytes: 50, dataset: true },
    Job::Send { bytes: 0, dataset: false },
    Job::Send { bytes: 90, dataset: false },
];

/// Lies that fit the jobs: the transfers, lengths and guid that an honest end would name.
fn fitting_lie() -> impl Strategy<Value = Message> {
    let number = 1..4_u32;
    let bytes = prop_oneof![Just(0_u64), Just(30), Just(50), Just(90)];
    (number, bytes.clone(), bytes, any::<Option<()>>(), 0..4_u8).prop_map(
        |(number, bytes, fewer, guid, kind)| match kind {
            0 => end(number, bytes),
            1 => ack(number, bytes, fewer),
            2 => opened(number),
            _ => applied(number, guid.map(|()| 7), bytes),
        },
    )
}

fn lie() -> impl Strategy<Value = Step> {
    let message = prop_oneof![arbitrary::message(), fitting_lie()];
    let said = (message, any::<bool>()).prop_map(|(message, to_server)| {
        if to_server { Step::LieToServer(message) } else { Step::LieToClient(message) }
    });
    prop_oneof![6 => said, 1 => arbitrary::standing().prop_map(Step::LieOfStanding)]
}

fn honest_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::ToServer(usize::MAX)),
        Just(Step::ToClient(usize::MAX)),
        (1..60_u64).prop_map(Step::ClientActs),
        (1..60_u64).prop_map(Step::ServerActs),
    ]
}

/// So many honest steps that a lie strikes anywhere between the greeting and the farewell.
fn script() -> impl Strategy<Value = Vec<Step>> {
    let honest = prop::collection::vec(honest_step(), 0..140);
    let mixed = prop::collection::vec(prop_oneof![3 => honest_step(), 1 => lie()], 0..40);
    (honest, mixed).prop_map(|(honest, mixed)| [honest, mixed].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_lie_makes_an_end_panic_or_claim_success(script in script()) {
        let mut pair = Pair::new(JOBS, target(130));
        for step in script {
            pair.step(step);
        }
        for misbehaved in &pair.misbehaved {
            // What a server has lost, a disk may have lost for it: the copy goes on by ZFS's token.
            let class = match misbehaved {
                PeerMisbehaved::TakenIsGone { .. } => Class::Interrupted,
                _ => Class::Peer,
            };
            prop_assert_eq!(misbehaved.failure(Side::Target).class, class);
        }
    }
}

/// A pair whose first transfer of 50 bytes runs; `sent` of them are sent and none is fed.
fn streaming(sent: u64) -> Pair {
    let mut pair = Pair::new(&[Job::Send { bytes: 50, dataset: true }], target(0));
    while !pair.is_streaming() {
        pair.step(Step::ToServer(usize::MAX));
        pair.step(Step::ServerActs(1));
        pair.step(Step::ToClient(usize::MAX));
        if !pair.is_streaming() {
            pair.step(Step::ClientActs(1));
        }
    }
    if sent > 0 {
        pair.step(Step::ClientActs(sent));
    }
    pair
}

/// What an honest end gives when nothing was taken.
fn credit() -> Credit {
    Credit { taken: Sequence(0), room: Sequence(BLOCKS) }
}

fn opened(transfer: u32) -> Message {
    let (transfer, start) = (TransferId(transfer), Start::FromStart);
    Message::Opened { transfer, start, credit: credit() }
}

fn ack(transfer: u32, received: u64, fed: u64) -> Message {
    let reached = Watermarks {
        received: StreamOffset(received),
        spooled: StreamOffset(0),
        fed: StreamOffset(fed),
    };
    let (transfer, credit) = (TransferId(transfer), credit());
    Message::Ack { transfer, reached, credit, arrived: Arrived::default() }
}

fn applied(transfer: u32, guid: Option<u64>, bytes: u64) -> Message {
    let applied = Applied { guid: guid.map(Guid), bytes: Bytes(bytes), millis: 1 };
    Message::Result { transfer: TransferId(transfer), outcome: Outcome::Applied(applied) }
}

fn end(transfer: u32, total: u64) -> Message {
    let ending = Ending::Complete { total: StreamOffset(total), crc32: 0 };
    Message::End { transfer: TransferId(transfer), ending }
}

fn client_blames(mut pair: Pair, lies: &[Message]) -> String {
    for lie in lies {
        assert_eq!(pair.misbehaved, []);
        pair.step(Step::LieToClient(lie.clone()));
    }
    pair.misbehaved.pop().expect("the lie was believed").to_string()
}

fn server_blames(mut pair: Pair, lie: Message) -> PeerMisbehaved {
    pair.step(Step::LieToServer(lie));
    pair.misbehaved.pop().expect("the lie was believed")
}

#[test]
fn acknowledgements_never_fall_back_nor_run_ahead() {
    let told = client_blames(streaming(30), &[ack(1, 31, 0)]);
    assert_eq!(told, "it acknowledged 31 bytes when 30 were sent");
    let told = client_blames(streaming(30), &[ack(1, 30, 20), ack(1, 30, 19)]);
    assert!(told.starts_with("it acknowledged Watermarks"), "{told}");
    let told = client_blames(streaming(30), &[ack(1, 20, 20), ack(1, 19, 19)]);
    assert!(told.starts_with("it acknowledged Watermarks"), "{told}");
    let told = client_blames(streaming(30), &[ack(1, 20, 21)]);
    assert!(told.starts_with("it acknowledged Watermarks"), "{told}");
}

#[test]
fn a_success_before_the_end_is_a_lie() {
    let told = client_blames(streaming(30), &[applied(1, Some(7), 30)]);
    assert_eq!(told, "it said result while this end was in Streaming");
}

#[test]
fn a_success_over_something_else_is_a_lie() {
    let ended = |sent| {
        let mut pair = streaming(sent);
        pair.step(Step::ClientActs(8));
        pair
    };
    for (sent, guid, bytes) in [(50, 8, 50), (50, 7, 49), (20, 7, 50), (20, 7, 20)] {
        let told = client_blames(ended(sent), &[applied(1, Some(guid), bytes)]);
        assert!(told.starts_with("it reported"), "{told}");
    }
    let mut pair = ended(50);
    pair.step(Step::LieToClient(applied(1, Some(7), 50)));
    assert_eq!(pair.client.applied, [TransferId(1)], "the truth was not believed");
}

#[test]
fn transfers_are_counted_one_by_one() {
    let mut pair = Pair::new(&[Job::Send { bytes: 1, dataset: false }], target(0));
    for _ in 0..2 {
        pair.step(Step::ToServer(usize::MAX));
        pair.step(Step::ToClient(usize::MAX));
        pair.step(Step::ClientActs(1));
    }
    let told = client_blames(pair, &[opened(2)]);
    assert_eq!(told, "its opened is for transfer 2, where transfer 1 is next or running");
    let blamed = server_blames(streaming(1), end(2, 1));
    assert!(matches!(blamed, PeerMisbehaved::OtherTransfer { .. }), "{blamed}");
}

#[test]
fn an_end_before_what_came_already_is_a_lie() {
    let mut pair = streaming(30);
    pair.step(Step::ServerActs(30));
    let blamed = server_blames(pair, end(1, 29));
    assert_eq!(blamed.to_string(), "it sent 30 bytes of a stream that ends at 29");
}

#[test]
fn more_of_a_tree_is_let_on_only_from_where_it_stands() {
    let said = |pages| {
        let dataset = "a".parse().unwrap();
        let mut pair = Pair::new(&[], target(0));
        pair.step(Step::ToServer(usize::MAX));
        pair.step(Step::LieToServer(Message::ListTree { dataset, pages: 1 }));
        pair.step(Step::LieToServer(Message::ListOn { pages }));
        pair.misbehaved
    };
    // It is still being read.
    assert!(matches!(said(2)[..], [PeerMisbehaved::Unexpected { state: "LookingUpTree", .. }]));
    let told = |asked, on| {
        let dataset = "a".parse().unwrap();
        let mut pair = Pair::new(&[], target(3000));
        pair.step(Step::ToServer(usize::MAX));
        pair.step(Step::LieToServer(Message::ListTree { dataset, pages: asked }));
        pair.step(Step::ServerActs(1));
        pair.step(Step::LieToServer(Message::ListOn { pages: on }));
        pair.misbehaved
    };
    let ahead = |wanted, told| vec![PeerMisbehaved::TreeAhead { wanted, told }];
    assert_eq!(told(257, 0), ahead(257, 0));
    assert_eq!(told(2, 258), []);
    assert_eq!(told(2, 259), ahead(259, 2));
    // All was told by then.
    assert_eq!(told(256, u32::MAX), []);
}

#[test]
fn blocks_behind_the_end_are_noticed() {
    let mut pair = streaming(30);
    pair.step(Step::LieToServer(end(1, 29)));
    pair.step(Step::ServerActs(30));
    assert!(matches!(pair.misbehaved[..], [PeerMisbehaved::DataBeyondEnd { .. }]));
}

#[test]
fn nothing_is_said_before_the_greeting() {
    let pair = || Pair::new(&[], target(0));
    for message in [Message::Return(Return::default()), Message::Bye, end(1, 1)] {
        let blamed = server_blames(pair(), message);
        assert!(matches!(blamed, PeerMisbehaved::Unexpected { state: "ExpectHello", .. }));
    }
    let told = client_blames(pair(), &[Message::Returned(Returned::default())]);
    assert_eq!(told, "it said returned while this end was in ExpectWelcome");
}
