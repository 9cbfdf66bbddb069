//! The server's half of the conversation, case by case; `tests/protocol` plays whole ones.

use super::*;
use crate::error::{Class, Side};
use crate::protocol::frame::Codec;
use crate::protocol::message::{Applied, Ending, Request, Stream};
use crate::protocol::negotiate::NoAgreement;
use crate::protocol::window::Arrived;
use crate::units::{Bytes, Sequence};

fn limits() -> Limits {
    let codecs = [Codec::Raw].into_iter().collect();
    Limits { block_bytes_max: Bytes::MIB, connections: 1, codecs }
}

fn open(transfer: u32) -> Open {
    let request = Request {
        stream: Stream::Pipe,
        epoch: 1,
        estimated_bytes: None,
        block_bytes: Bytes::MIB,
        codec: Codec::Raw,
        interrupted_at: None,
    };
    Open { transfer: TransferId(transfer), request }
}

fn step(machine: Receiver, input: Input) -> (Receiver, Vec<Output>) {
    let mut output = Vec::new();
    (machine.handle(input, &mut output).unwrap(), output)
}

fn said(machine: Receiver, message: Message) -> Result<Receiver, PeerMisbehaved> {
    machine.handle(Input::Received(message), &mut Vec::new())
}

fn idle() -> Receiver {
    let machine = Receiver::new(Offer {
        software: String::new(),
        version: Version::V1,
        limits: limits(),
        secret: JoinSecret::new([0; 16]),
    });
    said(machine, Message::Hello(Hello { software: String::new(), limits: limits() })).unwrap()
}

fn receiving() -> Receiver {
    let machine = said(idle(), Message::Open(open(1))).unwrap();
    step(machine, Input::Prepared(Start::FromStart, credit(0))).0
}

/// After an `End` at `total` bytes, of which `fed` were fed.
fn applying(total: u64, fed: u64) -> (Receiver, Ended) {
    let (machine, _) = step(receiving(), Input::Progress(at(fed), receipt(0)));
    let ending = Ending::Complete { total: StreamOffset(total), crc32: 5 };
    let end = Message::End { transfer: TransferId(1), ending };
    let (machine, mut output) = step(machine, Input::Received(end));
    let Some(Output::Finish(ended)) = output.pop() else { panic!("{output:?}") };
    assert_eq!((ended.total(), ended.crc32()), (StreamOffset(total), 5));
    (machine, ended)
}

fn credit(taken: u64) -> Credit {
    Credit { taken: Sequence(taken), room: Sequence(taken + 8) }
}

fn receipt(taken: u64) -> Receipt {
    credit(taken).into()
}

fn at(fed: u64) -> Watermarks {
    let fed = StreamOffset(fed);
    Watermarks { received: fed, spooled: StreamOffset(0), fed }
}

fn result(output: &[Output]) -> &Outcome {
    let [Output::Send(Message::Result { outcome, .. }), ..] = output else { panic!("{output:?}") };
    outcome
}

#[test]
fn a_transfer_out_of_turn_is_not_opened() {
    for got in [0, 2, u32::MAX] {
        let blamed = said(idle(), Message::Open(open(got))).unwrap_err();
        let (expected, got) = (TransferId(1), TransferId(got));
        assert_eq!(blamed, PeerMisbehaved::OtherTransfer { message: "open", expected, got });
    }
}

#[test]
fn a_request_beyond_the_agreement_is_not_opened() {
    let mut large = open(1);
    large.request.block_bytes = Bytes(2 << 20);
    let mut packed = open(1);
    packed.request.codec = Codec::Zstd;
    for beyond in [large, packed] {
        let blamed = said(idle(), Message::Open(beyond)).unwrap_err();
        assert!(matches!(blamed, PeerMisbehaved::NoAgreement { message: "open", .. }));
    }
    let hello = Hello { software: String::new(), limits: Limits { connections: 0, ..limits() } };
    let offer = Offer {
        software: String::new(),
        version: Version::V1,
        limits: limits(),
        secret: JoinSecret::new([0; 16]),
    };
    let blamed = said(Receiver::new(offer), Message::Hello(hello)).unwrap_err();
    let why = NoAgreement::NoConnection;
    assert_eq!(blamed, PeerMisbehaved::NoAgreement { message: "hello", why });
}

#[test]
fn only_progress_is_acknowledged() {
    let ack = |fed, taken| {
        let (transfer, Receipt { credit, arrived }) = (TransferId(1), receipt(taken));
        Output::Send(Message::Ack { transfer, reached: at(fed), credit, arrived })
    };
    let (machine, output) = step(receiving(), Input::Progress(at(5), receipt(1)));
    assert_eq!(output, [ack(5, 1)]);
    let (machine, output) = step(machine, Input::Progress(at(5), receipt(1)));
    assert_eq!(output, []);
    // Counts that were taken earlier and told later.
    let (machine, output) = step(machine, Input::Progress(at(4), receipt(0)));
    assert_eq!(output, []);
    // The pipe gave slots back: the client may go on.
    let (_, output) = step(machine, Input::Progress(at(4), receipt(2)));
    assert_eq!(output, [ack(5, 2)]);
}

#[test]
fn what_arrived_is_told_as_it_was_seen_last() {
    let arrived = |from, to| Arrived::of([Sequence(from)..Sequence(to)]);
    let told = |output: &[Output]| match output {
        [Output::Send(Message::Ack { credit, arrived, .. })] => {
            Some(Receipt { credit: *credit, arrived: arrived.clone() })
        }
        _ => None,
    };
    let seen = |taken, from, to| Receipt { credit: credit(taken), arrived: arrived(from, to) };
    let (machine, output) = step(receiving(), Input::Progress(at(0), seen(0, 2, 5)));
    assert_eq!(told(&output), Some(seen(0, 2, 5)));
    let (machine, output) = step(machine, Input::Progress(at(0), seen(0, 2, 5)));
    assert_eq!(output, []);
    // One of them proved corrupt.
    let (machine, output) = step(machine, Input::Progress(at(0), seen(0, 2, 4)));
    assert_eq!(told(&output), Some(seen(0, 2, 4)));
    let (machine, _) = step(machine, Input::Progress(at(5), seen(3, 5, 6)));
    // Seen before, and told late: not together with what was taken since.
    let (machine, output) = step(machine, Input::Progress(at(0), seen(0, 2, 5)));
    assert_eq!(output, []);
    let (_, output) = step(machine, Input::Returned);
    assert_eq!(told(&output), Some(seen(3, 5, 6)));
}

#[test]
fn success_is_reported_once_all_is_fed_and_proved() {
    let (machine, ended) = applying(9, 9);
    let (machine, output) = step(machine, Input::Applied { ended, guid: None, millis: 3 });
    let applied = Applied { guid: None, bytes: Bytes(9), millis: 3 };
    assert_eq!(*result(&output), Outcome::Applied(applied));
    assert!(machine.is_idle());
}

#[test]
fn a_success_that_this_side_contradicts_is_reported_as_a_failure() {
    for (fed, guid, doubt) in
        [(8, None, "only 8 of 9 bytes were fed"), (9, Some(Guid(1)), "holds guid Some(Guid(1))")]
    {
        let (machine, ended) = applying(9, fed);
        let (machine, output) = step(machine, Input::Applied { ended, guid, millis: 3 });
        let Outcome::Failed(failure) = result(&output) else { panic!("{output:?}") };
        assert!(failure.what.contains(doubt), "{failure}");
        assert!(machine.is_closed());
    }
}

#[test]
fn a_failure_is_told_in_the_words_of_the_moment() {
    let failure = || Failure::new(Side::Target, Class::Wait, "out of space");
    let preparing = said(idle(), Message::Open(open(1))).unwrap();
    let looking_up = said(idle(), Message::List { dataset: "a".parse().unwrap() }).unwrap();
    for machine in [idle(), preparing, looking_up] {
        let (machine, output) = step(machine, Input::Failed(failure()));
        assert_eq!(output, [Output::Send(Message::Refused(failure())), Output::Close]);
        assert!(machine.is_closed());
    }
    for machine in [receiving(), applying(9, 9).0] {
        let (machine, output) = step(machine, Input::Failed(failure()));
        assert_eq!(*result(&output), Outcome::Failed(failure()));
        assert!(machine.is_closed() && output.last() == Some(&Output::Close));
    }
}

#[test]
fn a_transfer_stands_where_it_was_told_to_be_from_its_opening_to_the_next() {
    let standing = |fed, taken, ended| {
        let (transfer, Receipt { credit, arrived }) = (TransferId(1), receipt(taken));
        Some(Standing { transfer, reached: at(fed), credit, arrived, ended })
    };
    assert_eq!(idle().standing(), None);
    let preparing = said(idle(), Message::Open(open(1))).unwrap();
    assert_eq!(preparing.standing(), None);
    let (machine, _) = step(preparing, Input::Prepared(Start::FromStart, credit(0)));
    assert_eq!(machine.standing(), standing(0, 0, false));
    let (machine, _) = step(machine, Input::Progress(at(5), receipt(1)));
    assert_eq!(machine.standing(), standing(5, 1, false));
    let (machine, ended) = applying(9, 9);
    assert_eq!(machine.standing(), standing(9, 0, true));
    let (machine, _) = step(machine, Input::Applied { ended, guid: None, millis: 3 });
    assert_eq!(machine.standing(), standing(9, 0, true));
    let next = said(machine, Message::Open(open(2))).unwrap();
    assert_eq!(next.standing(), None);
    let failure = Failure::new(Side::Target, Class::Wait, "out of space");
    let (failed, _) = step(receiving(), Input::Failed(failure));
    assert_eq!(failed.standing(), None);
}

#[test]
fn a_server_that_takes_over_receives_from_what_was_durable() {
    let agreed = Agreed { version: Version::V1, limits: limits() };
    let machine = Receiver::restored(agreed, open(3), at(5), credit(1));
    let (transfer, reached, ended) = (TransferId(3), at(5), false);
    let Receipt { credit, arrived } = receipt(1);
    let stands = Standing { transfer, reached, credit, arrived, ended };
    assert_eq!(machine.standing(), Some(stands));
    let (machine, output) = step(machine, Input::Returned);
    assert!(matches!(output[..], [Output::Send(Message::Ack { .. })]));
    // Fed again from its files, it is no further than it was.
    let (machine, output) = step(machine, Input::Progress(at(3), receipt(1)));
    assert_eq!(output, []);
    let ending = Ending::Complete { total: StreamOffset(5), crc32: 5 };
    let end = Message::End { transfer, ending };
    let (machine, mut output) = step(machine, Input::Received(end));
    let Some(Output::Finish(ended)) = output.pop() else { panic!("{output:?}") };
    let (machine, output) = step(machine, Input::Applied { ended, guid: None, millis: 3 });
    assert!(matches!(result(&output), Outcome::Applied(_)));
    said(machine, Message::Open(open(4))).unwrap();
}

#[test]
#[should_panic(expected = "makes no sense in Idle")]
fn news_out_of_place_are_our_own_mistake() {
    step(idle(), Input::Progress(at(1), receipt(0)));
}
