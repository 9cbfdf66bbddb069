//! Both windows, alone and against each other over lanes that are cut anywhere.

use std::collections::{BTreeSet, VecDeque};

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
    assert_eq!((window.untold(), window.tell()), (1, credit(1, 4)));
    assert_eq!(window.untold(), 0);
    window.hold(0);
    assert_eq!((window.untold(), window.tell()), (1, credit(1, 5)));
}

/// What may happen next in the model; numbers choose a lane.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The source gives a frame; they leave the workers two by two in the wrong order.
    Give,
    Deal(usize),
    /// A frame comes out of a lane; one in five has been changed on its way.
    Deliver(usize, bool),
    /// The worker looks at the block that came first.
    Prove,
    Take,
    /// The reader of the pipe takes what was lent to it.
    Release,
    /// The receiver tells its credit; it arrives later.
    Tell,
    Hear,
    /// The receiver's end of a lane is gone, and what was on its way with it.
    Cut(usize),
    /// The sender sees that a lane is gone, for whatever reason; what it sent may still come.
    Notice(usize),
    /// A lost lane is back.
    Rejoin(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let lane = || 0..LANES;
    prop_oneof![
        4 => Just(Step::Give),
        6 => lane().prop_map(Step::Deal),
        6 => (lane(), prop::bool::weighted(0.2)).prop_map(|(lane, bad)| Step::Deliver(lane, bad)),
        3 => Just(Step::Prove),
        4 => Just(Step::Take),
        2 => Just(Step::Release),
        2 => Just(Step::Tell),
        2 => Just(Step::Hear),
        1 => lane().prop_map(Step::Cut),
        1 => lane().prop_map(Step::Notice),
        2 => lane().prop_map(Step::Rejoin),
    ]
}

const LANES: usize = 3;

/// One lane number, and the connections that bear it at either end.
#[derive(Default)]
struct Lane {
    /// What is on its way to the receiver; `None`: its end is gone.
    wire: Option<VecDeque<u64>>,
    /// The sender deals to it.
    known: bool,
}

struct Model {
    sender: SendWindow<u64>,
    receiver: ReceiveWindow<u64>,
    lanes: Vec<Lane>,
    given: u64,
    sender_slots: u64,
    /// Blocks that wait for their proof: number, lane, whether they were changed.
    unproved: VecDeque<(u64, usize, bool)>,
    credits: VecDeque<Credit>,
    delivered: Vec<u64>,
    lent: usize,
    cuts: u64,
}

impl Model {
    fn new(blocks: u64, sender_slots: u64) -> Model {
        let lane = || Lane { wire: Some(VecDeque::new()), known: true };
        let mut receiver = ReceiveWindow::new(blocks);
        let credits = VecDeque::from([receiver.tell()]);
        Model {
            sender: SendWindow::new(),
            receiver,
            lanes: std::iter::repeat_with(lane).take(LANES).collect(),
            given: 0,
            sender_slots,
            unproved: VecDeque::new(),
            credits,
            delivered: Vec::new(),
            lent: 0,
            cuts: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Give => self.give(),
            Step::Deal(lane) if self.lanes[lane].known => {
                if let Some(deal) = self.sender.deal(u32::try_from(lane).unwrap())
                    && let Some(wire) = &mut self.lanes[lane].wire
                {
                    wire.push_back(*deal.item);
                }
            }
            Step::Deal(_) => {}
            Step::Deliver(lane, bad) => self.deliver(lane, bad),
            Step::Prove => self.prove(),
            Step::Take => {
                if let Some(block) = self.receiver.take() {
                    self.delivered.push(block);
                    self.lent += 1;
                }
            }
            Step::Release => {
                self.lent /= 2;
                self.receiver.hold(self.lent);
            }
            Step::Tell => self.credits.push_back(self.receiver.tell()),
            Step::Hear => {
                if let Some(credit) = self.credits.pop_front() {
                    self.sender.credit(credit).unwrap();
                }
            }
            Step::Cut(lane) => self.cut(lane),
            Step::Notice(lane) => self.notice(lane),
            Step::Rejoin(lane) => {
                self.notice(lane);
                self.lanes[lane] = Lane { wire: Some(VecDeque::new()), known: true };
            }
        }
        assert!(self.receiver.occupied() <= self.receiver.blocks(), "a lane waits for a slot");
        assert!(self.sender.kept() as u64 <= self.sender_slots);
    }

    fn give(&mut self) {
        if self.sender.kept() as u64 + 2 <= self.sender_slots {
            for number in [self.given + 1, self.given] {
                self.sender.put(Sequence(number), Bytes(1), number);
            }
            self.given += 2;
        }
    }

    fn deliver(&mut self, lane: usize, bad: bool) {
        let Some(block) = self.lanes[lane].wire.as_mut().and_then(VecDeque::pop_front) else {
            return;
        };
        self.receiver.admit(Sequence(block)).unwrap();
        match self.receiver.arrive(Sequence(block), u32::try_from(lane).unwrap()) {
            Arrival::New => self.unproved.push_back((block, lane, bad)),
            Arrival::Again => {}
        }
    }

    fn prove(&mut self) {
        match self.unproved.pop_front() {
            Some((block, lane, true)) => {
                let copies = self.receiver.reject(Sequence(block));
                self.cut(lane);
                for lane in copies {
                    self.cut(lane as usize);
                }
            }
            Some((block, _, false)) => self.receiver.put(Sequence(block), block),
            None => {}
        }
    }

    fn cut(&mut self, lane: usize) {
        self.lanes[lane].wire = None;
        self.cuts += 1;
    }

    fn notice(&mut self, lane: usize) {
        if std::mem::take(&mut self.lanes[lane].known) {
            self.sender.lost(u32::try_from(lane).unwrap());
            self.cuts += 1;
        }
    }

    /// All faults stop; one lane comes back, and those that still stand go on. Everything given
    /// must get through.
    fn settle(&mut self, survivor: usize) {
        for _ in 0..10 * (self.given + 10) {
            if self.delivered.len() as u64 == self.given && self.sender.kept() == 0 {
                return;
            }
            for lane in 0..LANES {
                self.mend(lane, survivor);
                self.step(Step::Deal(lane));
                self.step(Step::Deliver(lane, false));
            }
            for step in [Step::Prove, Step::Take, Step::Release, Step::Tell, Step::Hear] {
                self.step(step);
            }
        }
    }

    /// What is gone at one end is seen at the other; only the survivor comes back.
    fn mend(&mut self, lane: usize, survivor: usize) {
        if self.lanes[lane].wire.is_none() {
            self.step(Step::Notice(lane));
        }
        if lane == survivor && !self.lanes[lane].known {
            self.step(Step::Rejoin(lane));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_block_gets_through_once_and_in_order_whatever_is_lost(
        blocks in 1..6_u64,
        sender_slots in 2..12_u64,
        steps in prop::collection::vec(step(), 0..400),
        survivor in 0..LANES,
    ) {
        let mut model = Model::new(blocks, sender_slots);
        for step in steps {
            model.step(step);
        }
        model.settle(survivor);
        prop_assert_eq!(&model.delivered, &(0..model.given).collect::<Vec<_>>());
        prop_assert_eq!(model.sender.kept(), 0);
        if model.cuts == 0 {
            prop_assert_eq!(model.receiver.duplicates(), 0);
            prop_assert_eq!(model.sender.resent(), Resent::default());
        }
    }

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
