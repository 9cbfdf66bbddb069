//! Both windows, case by case, and against each other in `model`.

mod model;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::units::Bytes;

/// A window with `count` frames, and room for `room` of them.
fn sender(count: u64, room: u64) -> SendWindow<u64> {
    let mut window = SendWindow::new();
    for number in 0..count {
        window.put(Sequence(number), Bytes(10), number);
    }
    window.credit(credit(0, room)).unwrap();
    window
}

fn credit(taken: u64, room: u64) -> Credit {
    Credit { taken: Sequence(taken), room: Sequence(room) }
}

fn dealt(window: &mut SendWindow<u64>, lane: u32) -> Vec<u64> {
    std::iter::from_fn(|| window.deal(lane).map(|deal| *deal.item)).collect()
}

#[test]
fn nothing_is_dealt_without_room() {
    let mut window = sender(5, 0);
    assert_eq!(window.deal(0), None);
    window.credit(credit(0, 2)).unwrap();
    assert_eq!(dealt(&mut window, 0), [0, 1]);
    window.credit(credit(1, 3)).unwrap();
    assert_eq!(dealt(&mut window, 0), [2]);
}

#[test]
fn frames_are_dealt_in_order_however_they_came() {
    let mut window = SendWindow::new();
    window.credit(credit(0, 10)).unwrap();
    window.put(Sequence(1), Bytes(1), 1);
    assert_eq!(window.deal(0), None);
    window.put(Sequence(0), Bytes(1), 0);
    assert_eq!(dealt(&mut window, 0), [0, 1]);
}

#[test]
fn what_a_lost_lane_had_is_dealt_again_and_first() {
    let mut window = sender(6, 6);
    for lane in [0, 1, 0, 1] {
        window.deal(lane).unwrap();
    }
    assert_eq!(window.lost(0), 2);
    assert_eq!(window.next(), Sequence(4));
    let again: Vec<_> =
        std::iter::from_fn(|| window.deal(1).map(|deal| (*deal.item, deal.again))).collect();
    assert_eq!(again, [(0, true), (2, true), (4, false), (5, false)]);
    assert_eq!(window.resent(), Resent { frames: 2, bytes: Bytes(20) });
    assert_eq!((window.lost(0), window.lost(1)), (0, 6));
}

#[test]
fn what_was_taken_is_forgotten_and_never_dealt_again() {
    let mut window = sender(4, 4);
    window.deal(0).unwrap();
    window.deal(1).unwrap();
    window.deal(0).unwrap();
    window.lost(1);
    assert_eq!(window.credit(credit(2, 4)).unwrap(), [0, 1]);
    assert_eq!(window.kept(), 2);
    assert_eq!(window.lost(0), 1);
    assert_eq!(dealt(&mut window, 1), [2, 3]);
}

#[test]
fn a_credit_that_falls_back_or_runs_ahead_is_refused() {
    let mut window = sender(4, 4);
    dealt(&mut window, 0);
    window.credit(credit(2, 4)).unwrap();
    for bad in [credit(1, 4), credit(2, 3), credit(3, 2)] {
        let from = credit(2, 4);
        assert_eq!(window.credit(bad), Err(CreditError::FellBack { from, to: bad }));
    }
    let beyond = CreditError::BeyondDealt { dealt: Sequence(4), got: Sequence(5) };
    assert_eq!(window.credit(credit(5, 9)), Err(beyond));
    assert_eq!(window.credit(credit(4, 9)).unwrap(), [2, 3]);
}

#[test]
#[should_panic(expected = "block #1 was numbered twice")]
fn a_number_is_given_once() {
    let mut window = sender(2, 1);
    window.put(Sequence(1), Bytes(1), 1);
}

#[test]
fn blocks_leave_in_order_once_they_are_proved() {
    let mut window = ReceiveWindow::new(4);
    for number in [1, 0, 2] {
        assert_eq!(window.arrive(Sequence(number), 0), Arrival::New);
    }
    window.put(Sequence(1), 1);
    assert_eq!(window.take(), None);
    window.put(Sequence(0), 0);
    assert_eq!((window.take(), window.take(), window.take()), (Some(0), Some(1), None));
    assert_eq!(window.credit(), credit(2, 4));
}

#[test]
fn room_grows_when_a_slot_is_at_home_again_and_not_before() {
    let mut window = ReceiveWindow::new(2);
    for number in 0..2 {
        window.arrive(Sequence(number), 0);
        window.put(Sequence(number), ());
        window.take().unwrap();
    }
    assert_eq!(window.credit(), credit(2, 2));
    assert_eq!(window.admit(Sequence(2)), Err(BeyondRoom { room: Sequence(2), got: Sequence(2) }));
    window.hold(1);
    assert_eq!(window.credit(), credit(2, 3));
    assert_eq!(window.admit(Sequence(2)), Ok(()));
}

#[test]
fn what_is_here_already_is_not_wanted_again() {
    let mut window = ReceiveWindow::new(4);
    window.arrive(Sequence(1), 0);
    assert_eq!(window.arrive(Sequence(1), 0), Arrival::Again);
    window.put(Sequence(1), ());
    assert_eq!(window.arrive(Sequence(1), 1), Arrival::Again);
    window.arrive(Sequence(0), 0);
    window.put(Sequence(0), ());
    window.take().unwrap();
    assert_eq!(window.arrive(Sequence(0), 1), Arrival::Again);
    assert_eq!(window.duplicates(), 3);
}

#[test]
fn a_rejected_block_names_the_lanes_whose_copies_went_with_it() {
    let mut window = ReceiveWindow::new(4);
    window.arrive(Sequence(0), 0);
    for lane in [2, 1, 2] {
        assert_eq!(window.arrive(Sequence(0), lane), Arrival::Again);
    }
    assert_eq!(window.reject(Sequence(0)), BTreeSet::from([1, 2]));
    assert_eq!(window.arrive(Sequence(0), 1), Arrival::New);
    window.put(Sequence(0), ());
    assert!(window.take().is_some());
}

#[test]
fn growth_is_counted_from_what_was_told() {
    let mut window = ReceiveWindow::new(4);
    assert_eq!(window.untold(), 0);
    window.arrive(Sequence(0), 0);
    window.put(Sequence(0), ());
    window.take().unwrap();
    assert_eq!((window.untold(), window.tell().credit), (1, credit(1, 4)));
    assert_eq!(window.untold(), 0);
    window.hold(0);
    assert_eq!((window.untold(), window.tell().credit), (1, credit(1, 5)));
}

#[test]
fn what_is_not_durable_is_not_told_as_taken_and_gives_room_all_the_same() {
    let mut window = ReceiveWindow::new(4);
    let take = |window: &mut ReceiveWindow<()>, number| {
        window.arrive(Sequence(number), 0);
        window.put(Sequence(number), ());
        window.take().unwrap();
    };
    take(&mut window, 0);
    window.hold_back();
    assert_eq!(window.tell().credit, credit(1, 4));
    take(&mut window, 1);
    take(&mut window, 2);
    assert_eq!((window.credit(), window.untold()), (credit(1, 4), 0));
    window.hold(0);
    assert_eq!((window.untold(), window.tell().credit), (3, credit(1, 7)));
    window.durable(Sequence(2));
    window.durable(Sequence(1));
    window.hold_back();
    assert_eq!((window.untold(), window.tell().credit), (1, credit(2, 7)));
    window.durable(Sequence(9));
    assert_eq!(window.credit(), credit(3, 7));
    take(&mut window, 3);
    window.let_go();
    window.durable(Sequence(2));
    assert_eq!(window.credit(), credit(4, 7));
}

#[test]
fn a_window_that_takes_over_wants_the_first_block_that_was_not_taken() {
    let mut window = ReceiveWindow::restored(4, Sequence(7));
    assert_eq!((window.tell().credit, window.untold()), (credit(7, 11), 0));
    assert_eq!(window.admit(Sequence(11)).unwrap_err().room, Sequence(11));
    assert_eq!(window.arrive(Sequence(6), 0), Arrival::Again);
    assert_eq!(window.arrive(Sequence(7), 0), Arrival::New);
    window.put(Sequence(7), 7);
    assert_eq!((window.take(), window.credit().taken), (Some(7), Sequence(8)));
}

#[test]
fn what_a_receiver_has_lost_is_dealt_again_to_any_lane() {
    let mut window = sender(6, 6);
    for lane in [0, 1, 0, 1] {
        window.deal(lane).unwrap();
    }
    assert_eq!(window.stands(credit(1, 3)).unwrap(), [0]);
    assert_eq!(dealt(&mut window, 2), [1, 2]);
    window.credit(credit(1, 6)).unwrap();
    assert_eq!(dealt(&mut window, 2), [3, 4, 5]);
    assert_eq!(window.resent().frames, 3);
    assert_eq!((window.lost(0), window.lost(1), window.lost(2)), (0, 0, 5));
}

#[test]
fn a_standing_gives_back_nothing_that_was_taken() {
    let mut window = sender(4, 4);
    dealt(&mut window, 0);
    window.credit(credit(2, 4)).unwrap();
    for bad in [credit(1, 4), credit(3, 2)] {
        let from = credit(2, 4);
        assert_eq!(window.stands(bad), Err(CreditError::FellBack { from, to: bad }));
    }
    let beyond = CreditError::BeyondDealt { dealt: Sequence(4), got: Sequence(5) };
    assert_eq!(window.stands(credit(5, 9)), Err(beyond));
}

#[test]
fn a_window_that_takes_over_knows_what_its_predecessor_may_have_sent() {
    let mut window = SendWindow::restored(credit(3, 6));
    assert_eq!(window.put(Sequence(3), Bytes(10), 3), None);
    // Taken over a connection of the process before, which had them on their way.
    assert_eq!(window.credit(credit(5, 8)).unwrap(), [3]);
    assert_eq!(window.put(Sequence(4), Bytes(10), 4), Some(4));
    for number in 5..9 {
        assert_eq!(window.put(Sequence(number), Bytes(10), number), None);
    }
    assert_eq!(dealt(&mut window, 0), [5, 6, 7]);
    let beyond = CreditError::BeyondDealt { dealt: Sequence(8), got: Sequence(9) };
    assert_eq!(window.credit(credit(9, 9)), Err(beyond));
    assert_eq!(window.resent(), Resent::default());
}

/// A credit, and blocks that have arrived.
fn receipt(taken: u64, room: u64, arrived: &[u64]) -> Receipt {
    let single = |&number: &u64| Sequence(number)..Sequence(number + 1);
    Receipt { credit: credit(taken, room), arrived: Arrived::of(arrived.iter().map(single)) }
}

#[test]
fn what_has_arrived_is_not_dealt_again_with_the_lane_that_it_came_over() {
    let mut window = sender(8, 8);
    for lane in [0, 1, 0, 1, 0, 1] {
        window.deal(lane).unwrap();
    }
    // Block 1 is missing; 3 came over the lane that is lost before the report, 5 behind it.
    window.credit(receipt(1, 8, &[2, 3, 4])).unwrap();
    assert_eq!(window.lost(1), 2);
    window.credit(receipt(1, 8, &[2, 3, 4, 5])).unwrap();
    assert_eq!(dealt(&mut window, 0), [1, 6, 7]);
    assert_eq!(window.resent().frames, 1);
    assert_eq!((window.kept(), window.lost(0)), (7, 3));
    assert_eq!(window.credit(credit(6, 8)).unwrap().len(), 5);
    assert_eq!(dealt(&mut window, 0), [6, 7]);
}

#[test]
fn what_a_later_report_does_not_list_is_dealt_again() {
    let mut window = sender(4, 4);
    dealt(&mut window, 0);
    window.credit(receipt(0, 4, &[1, 2, 3])).unwrap();
    assert_eq!(window.lost(0), 1);
    assert_eq!(dealt(&mut window, 1), [0]);
    // It proved corrupt, and its lane was lost long ago.
    window.credit(receipt(0, 4, &[1, 3])).unwrap();
    assert_eq!(dealt(&mut window, 1), [2]);
    // What a lane has is left to it, whatever is listed.
    window.credit(receipt(0, 4, &[])).unwrap();
    assert_eq!(dealt(&mut window, 1), [1, 3]);
}

#[test]
fn a_receiver_that_lost_its_memory_has_nothing_out_of_order() {
    let mut window = sender(4, 4);
    dealt(&mut window, 0);
    window.credit(receipt(0, 4, &[1, 2, 3])).unwrap();
    window.lost(0);
    window.stands(receipt(1, 4, &[3])).unwrap();
    assert_eq!(dealt(&mut window, 1), [1, 2]);
}

#[test]
fn a_window_that_takes_over_sends_nothing_that_arrived_from_its_predecessor() {
    let mut window = SendWindow::restored(receipt(2, 6, &[2, 4]));
    for number in 2..8 {
        assert_eq!(window.put(Sequence(number), Bytes(10), number), None);
    }
    assert_eq!(dealt(&mut window, 0), [3, 5]);
    // It proved corrupt.
    window.credit(receipt(2, 8, &[2, 3])).unwrap();
    assert_eq!(dealt(&mut window, 0), [4, 6, 7]);
    assert_eq!(window.next(), Sequence(8));
    assert_eq!(window.credit(credit(8, 8)).unwrap().len(), 6);
}

#[test]
fn a_report_lists_what_waits_and_what_is_held_back() {
    let mut window = ReceiveWindow::new(8);
    window.hold_back();
    for number in [0, 1, 3, 4, 6] {
        window.arrive(Sequence(number), 0);
    }
    for number in [0, 1, 3] {
        window.put(Sequence(number), ());
    }
    while window.take().is_some() {}
    window.durable(Sequence(1));
    assert_eq!(window.tell(), receipt(1, 8, &[1, 3, 4, 6]));
    assert!(window.tell().is_possible());
    window.reject(Sequence(4));
    assert_eq!(window.arrived(), receipt(1, 8, &[1, 3, 6]).arrived);
    window.let_go();
    assert_eq!(window.tell(), receipt(2, 8, &[3, 6]));
}

proptest! {
    #[test]
    fn a_lane_that_is_cut_costs_no_more_than_it_had(room in 1..20_u64, lost in 0..20_u64) {
        let mut window = sender(20, room);
        let all = dealt(&mut window, 0);
        prop_assert_eq!(all.len() as u64, room);
        let taken = lost.min(room);
        window.credit(credit(taken, room)).unwrap();
        window.lost(0);
        prop_assert_eq!(dealt(&mut window, 1), (taken..room).collect::<Vec<_>>());
        prop_assert_eq!(window.resent().frames, room - taken);
    }
}
