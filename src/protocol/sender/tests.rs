//! The client's half of the conversation, case by case; `tests/protocol` plays whole ones.

mod standing;

use super::*;
use crate::error::{Class, Side};
use crate::protocol::frame::Codec;
use crate::protocol::message::Stream;
use crate::protocol::window::Arrived;
use crate::units::{Bytes, Sequence};

fn limits(connections: u16) -> Limits {
    let codecs = [Codec::Raw].into_iter().collect();
    Limits { block_bytes_max: Bytes::MIB, connections, codecs }
}

fn request() -> Request {
    Request {
        stream: Stream::Pipe,
        epoch: 1,
        estimated_bytes: None,
        block_bytes: Bytes::MIB,
        codec: Codec::Raw,
        interrupted_at: None,
    }
}

/// A client that asked for four connections, and hears this.
fn welcomed_with(version: u16, limits_granted: Limits) -> Result<Sender, PeerMisbehaved> {
    let hello = Hello { software: String::new(), limits: limits(4) };
    let secret = JoinSecret::new([0; 16]);
    let welcome = Welcome { software: String::new(), version, limits: limits_granted, secret };
    Sender::start(Versions::OURS, hello, &mut Vec::new())
        .handle(Input::Received(Message::Welcome(welcome)), &mut Vec::new())
}

fn step(machine: Sender, input: Input) -> (Sender, Vec<Output>) {
    let mut output = Vec::new();
    (machine.handle(input, &mut output).unwrap(), output)
}

fn credit(taken: u64, room: u64) -> Credit {
    Credit { taken: Sequence(taken), room: Sequence(room) }
}

fn ack(reached: Watermarks, credit: Credit) -> Message {
    Message::Ack { transfer: TransferId(1), reached, credit, arrived: Arrived::default() }
}

fn streaming() -> Sender {
    let (machine, _) = step(welcomed_with(1, limits(2)).unwrap(), Input::Open(request()));
    let (transfer, start, credit) = (TransferId(1), Start::FromStart, credit(0, 8));
    let opened = Message::Opened { transfer, start, credit };
    step(machine, Input::Received(opened)).0
}

#[test]
fn a_welcome_grants_nothing_that_was_not_asked_for() {
    assert!(welcomed_with(1, limits(4)).unwrap().is_idle());
    let blamed = welcomed_with(1, limits(5)).unwrap_err();
    assert_eq!(blamed, PeerMisbehaved::WelcomeBeyondHello);
    let blamed = welcomed_with(2, limits(1)).unwrap_err();
    let offered = Versions::OURS;
    assert_eq!(blamed, PeerMisbehaved::VersionNotOffered { offered, got: 2 });
}

#[test]
fn a_failure_is_told_in_the_words_of_the_moment() {
    let failure = || Failure::new(Side::Source, Class::Zfs, "pool I/O is suspended");
    let ended = Input::StreamEnded { total: StreamOffset(0), crc32: 0 };
    let idle = welcomed_with(1, limits(1)).unwrap();
    for machine in [idle, step(streaming(), ended).0] {
        let (machine, output) = step(machine, Input::Failed(failure()));
        assert_eq!(output, [Output::Send(Message::Refused(failure())), Output::Close]);
        assert!(machine.is_closed());
    }
    let (machine, output) = step(streaming(), Input::Failed(failure()));
    let end = Message::End { transfer: TransferId(1), ending: Ending::Failed(failure()) };
    assert_eq!(output, [Output::Send(end), Output::Close]);
    assert!(machine.is_closed());
}

#[test]
fn blocks_may_be_told_in_any_order_and_after_the_end() {
    let (machine, _) = step(streaming(), Input::Sent(StreamOffset(8)));
    let (machine, _) = step(machine, Input::Sent(StreamOffset(4)));
    let end = Input::StreamEnded { total: StreamOffset(9), crc32: 0 };
    let (machine, _) = step(machine, end);
    let (machine, _) = step(machine, Input::Sent(StreamOffset(9)));
    let reached = Watermarks { received: StreamOffset(9), ..Watermarks::default() };
    let (machine, output) = step(machine, Input::Received(ack(reached, credit(2, 10))));
    assert_eq!(output, [Output::Reached(reached, credit(2, 10).into())]);
    let ended = Applied { guid: None, bytes: Bytes(9), millis: 1 };
    let outcome = Outcome::Applied(ended);
    let result = Message::Result { transfer: TransferId(1), outcome };
    let (machine, _) = step(machine, Input::Received(result));
    let (machine, _) = step(machine, Input::Open(request()));
    // Blocks are numbered through all transfers of a session, and so goes the credit.
    let opened = |credit| {
        let (transfer, start) = (TransferId(2), Start::FromStart);
        Input::Received(Message::Opened { transfer, start, credit })
    };
    let blamed = machine.handle(opened(credit(0, 8)), &mut Vec::new()).unwrap_err();
    let (from, to) = (credit(2, 10), credit(0, 8));
    assert_eq!(blamed, PeerMisbehaved::CreditFellBack { from, to });
}

#[test]
fn room_that_was_given_is_not_taken_back() {
    let reached = Watermarks::default();
    for bad in [credit(0, 7), credit(9, 8)] {
        let machine = streaming();
        let heard = Input::Received(ack(reached, bad));
        let blamed = machine.handle(heard, &mut Vec::new()).unwrap_err();
        assert_eq!(blamed, PeerMisbehaved::CreditFellBack { from: credit(0, 8), to: bad });
    }
    let (_, output) = step(streaming(), Input::Received(ack(reached, credit(3, 11))));
    assert_eq!(output, [Output::Reached(reached, credit(3, 11).into())]);
}

#[test]
fn what_cannot_have_arrived_is_a_lie() {
    let heard = |from, to| {
        let arrived = Arrived::of([Sequence(from)..Sequence(to)]);
        let (transfer, reached, credit) = (TransferId(1), Watermarks::default(), credit(3, 11));
        Input::Received(Message::Ack { transfer, reached, credit, arrived })
    };
    let receipt = |from, to| {
        let arrived = Arrived::of([Sequence(from)..Sequence(to)]);
        Receipt { credit: credit(3, 11), arrived }
    };
    let (_, output) = step(streaming(), heard(3, 11));
    assert_eq!(output, [Output::Reached(Watermarks::default(), receipt(3, 11))]);
    for (from, to) in [(2, 5), (3, 12)] {
        let blamed = streaming().handle(heard(from, to), &mut Vec::new()).unwrap_err();
        assert_eq!(blamed, PeerMisbehaved::ArrivedElsewhere(receipt(from, to)));
    }
}

#[test]
#[should_panic(expected = "a request beyond what was agreed")]
fn a_request_beyond_the_agreement_is_our_own_mistake() {
    let request = Request { codec: Codec::Zstd, ..request() };
    step(welcomed_with(1, limits(1)).unwrap(), Input::Open(request));
}

#[test]
#[should_panic(expected = "makes no sense in Streaming")]
fn a_wish_out_of_place_is_our_own_mistake() {
    step(streaming(), Input::Bye);
}
