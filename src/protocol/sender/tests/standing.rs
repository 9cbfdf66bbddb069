//! After one end has lost its memory.

use super::*;

fn at(received: u64) -> Watermarks {
    let received = StreamOffset(received);
    Watermarks { received, spooled: received, fed: StreamOffset(0) }
}

fn standing(reached: u64, credit: Credit, ended: bool) -> Standing {
    let (transfer, reached, arrived) = (TransferId(1), at(reached), Arrived::default());
    Standing { transfer, reached, credit, arrived, ended }
}

/// What a client says that sent 9 bytes and ended, and was told this.
fn ended(told: Credit) -> Sender {
    let (machine, _) = step(streaming(), Input::Sent(StreamOffset(9)));
    let (machine, _) = step(machine, Input::Received(ack(at(6), told)));
    step(machine, Input::StreamEnded { total: StreamOffset(9), crc32: 5 }).0
}

fn end() -> Output {
    let ending = Ending::Complete { total: StreamOffset(9), crc32: 5 };
    Output::Send(Message::End { transfer: TransferId(1), ending })
}

fn result() -> Input {
    let outcome = Outcome::Applied(Applied { guid: None, bytes: Bytes(9), millis: 1 });
    Input::Received(Message::Result { transfer: TransferId(1), outcome })
}

fn take_over(standing: &Standing) -> Result<(Sender, Vec<Output>), PeerMisbehaved> {
    let agreed = Agreed { version: crate::protocol::version::Version::V1, limits: limits(2) };
    let (transfer, total) = (TransferId(1), StreamOffset(9));
    let whole = WholeStream { transfer, stream: Stream::Pipe, total, crc32: 5 };
    let mut output = Vec::new();
    let machine = Sender::restored(agreed, whole, standing, &mut output)?;
    Ok((machine, output))
}

fn blamed(machine: Sender, standing: Standing) -> PeerMisbehaved {
    machine.handle(Input::Stands(standing), &mut Vec::new()).unwrap_err()
}

#[test]
fn marks_and_room_may_fall_back_with_the_memory_of_a_server() {
    let (machine, _) = step(streaming(), Input::Sent(StreamOffset(9)));
    let (machine, _) = step(machine, Input::Received(ack(at(6), credit(2, 10))));
    let (machine, output) = step(machine, Input::Stands(standing(4, credit(2, 6), false)));
    assert_eq!(output, [Output::Stands(at(4), credit(2, 6).into())]);
    // From there everything rises as ever.
    let (machine, output) = step(machine, Input::Received(ack(at(5), credit(3, 7))));
    assert_eq!(output, [Output::Reached(at(5), credit(3, 7).into())]);
    let heard = Input::Received(ack(at(4), credit(3, 7)));
    let blamed = machine.handle(heard, &mut Vec::new()).unwrap_err();
    assert_eq!(blamed, PeerMisbehaved::AckFellBack { from: at(5), to: at(4) });
}

#[test]
fn what_was_acknowledged_does_not_fall_back() {
    let lost = blamed(ended(credit(2, 10)), standing(6, credit(1, 10), false));
    let (told, got) = (Sequence(2), Sequence(1));
    assert_eq!(lost, PeerMisbehaved::TakenIsGone { told, got });
    let lost = blamed(ended(credit(2, 10)), standing(6, credit(3, 2), false));
    assert!(matches!(lost, PeerMisbehaved::CreditFellBack { .. }), "{lost}");
}

#[test]
fn an_end_that_a_server_has_not_heard_or_forgotten_is_said_again() {
    for (heard, said) in [(false, vec![end()]), (true, vec![])] {
        let stands = standing(6, credit(2, 10), heard);
        let (machine, output) = step(ended(credit(2, 10)), Input::Stands(stands));
        assert_eq!(output[0], Output::Stands(at(6), credit(2, 10).into()));
        assert_eq!(output[1..], said);
        let (machine, _) = step(machine, result());
        assert!(machine.is_idle());
    }
}

#[test]
fn a_transfer_that_stands_was_opened() {
    let (machine, _) = step(welcomed_with(1, limits(2)).unwrap(), Input::Open(request()));
    let stands = Input::Stands(standing(0, credit(0, 8), false));
    let (machine, output) = step(machine, stands);
    let (transfer, start, credit) = (TransferId(1), Start::FromStart, credit(0, 8));
    assert_eq!(output, [Output::Stream { transfer, start, credit }]);
    let (_, output) = step(machine, Input::StreamEnded { total: StreamOffset(0), crc32: 0 });
    assert!(matches!(output[..], [Output::Send(Message::End { .. })]));
}

#[test]
fn a_standing_that_cannot_be_is_a_lie() {
    let opening = || step(welcomed_with(1, limits(2)).unwrap(), Input::Open(request())).0;
    let idle = || welcomed_with(1, limits(2)).unwrap();
    let fits = || standing(0, credit(0, 8), false);
    let over = || standing(0, credit(0, 8), true);
    let other = || Standing { transfer: TransferId(2), ..fits() };
    let never_said = PeerMisbehaved::EndNeverSaid { transfer: TransferId(1) };
    assert_eq!(blamed(streaming(), over()), never_said);
    assert_eq!(blamed(opening(), over()), never_said);
    for machine in [streaming(), opening(), ended(credit(0, 8))] {
        let lie = blamed(machine, other());
        assert!(matches!(lie, PeerMisbehaved::OtherTransfer { message: "returned", .. }), "{lie}");
    }
    let beyond = blamed(ended(credit(0, 8)), standing(10, credit(0, 8), false));
    assert!(matches!(beyond, PeerMisbehaved::AckBeyondSent { .. }), "{beyond}");
    let beyond = blamed(opening(), standing(1, credit(0, 8), false));
    assert!(matches!(beyond, PeerMisbehaved::AckBeyondSent { .. }), "{beyond}");
    let arrived = Arrived::of([Sequence(0)..Sequence(9)]);
    let lie = blamed(streaming(), Standing { arrived, ..fits() });
    assert!(matches!(lie, PeerMisbehaved::ArrivedElsewhere(_)), "{lie}");
    let lie = blamed(idle(), fits());
    assert_eq!(lie, PeerMisbehaved::Unexpected { state: "Idle", message: "returned" });
}

#[test]
fn a_process_that_takes_over_says_the_end_and_expects_the_result() {
    for (heard, said) in [(false, vec![end()]), (true, vec![])] {
        let (machine, output) = take_over(&standing(6, credit(2, 10), heard)).unwrap();
        assert_eq!(output[0], Output::Stands(at(6), credit(2, 10).into()));
        assert_eq!(output[1..], said);
        let (machine, _) = step(machine, Input::Received(ack(at(9), credit(3, 11))));
        let (machine, output) = step(machine, result());
        assert!(machine.is_idle() && matches!(output[..], [Output::Applied(_)]));
        // And goes on with the next one.
        let (_, output) = step(machine, Input::Open(request()));
        let [Output::Send(Message::Open(open))] = &output[..] else { panic!("{output:?}") };
        assert_eq!(open.transfer, TransferId(2));
    }
}

#[test]
fn a_process_takes_over_nothing_that_it_does_not_have() {
    let beyond = take_over(&standing(10, credit(2, 10), true)).unwrap_err();
    assert!(matches!(beyond, PeerMisbehaved::AckBeyondSent { .. }), "{beyond}");
    let other = Standing { transfer: TransferId(2), ..standing(6, credit(2, 10), true) };
    let other = take_over(&other).unwrap_err();
    assert!(matches!(other, PeerMisbehaved::OtherTransfer { .. }), "{other}");
}
