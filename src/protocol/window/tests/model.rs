//! Both windows against each other: lanes are cut anywhere, and processes die.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::*;
use crate::units::Bytes;

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
    /// What was told is lost with its connection; over the next one the newest is told again.
    TellAgain,
    /// The receiver's end of a lane is gone, and what was on its way with it.
    Cut(usize),
    /// The sender sees that a lane is gone, for whatever reason; what it sent may still come.
    Notice(usize),
    /// A lost lane is back.
    Rejoin(usize),
    /// What was taken reaches the receiver's disk.
    Sync,
    /// The receiver's process dies, and another goes on with what is durable.
    ReceiverDies,
    /// The sender's process dies, and another goes on with its breakpoint files.
    SenderDies,
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
        1 => Just(Step::TellAgain),
        1 => lane().prop_map(Step::Cut),
        1 => lane().prop_map(Step::Notice),
        2 => lane().prop_map(Step::Rejoin),
        2 => Just(Step::Sync),
        1 => Just(Step::ReceiverDies),
        1 => Just(Step::SenderDies),
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
    credits: VecDeque<Receipt>,
    delivered: Vec<u64>,
    /// How many of them are durable, where that matters.
    durable: Option<usize>,
    /// What the sender was told of that last.
    told: u64,
    lent: usize,
    cuts: u64,
}

impl Model {
    fn new(blocks: u64, sender_slots: u64, durable: bool) -> Model {
        let lane = || Lane { wire: Some(VecDeque::new()), known: true };
        let mut receiver = ReceiveWindow::new(blocks);
        if durable {
            receiver.hold_back();
        }
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
            durable: durable.then_some(0),
            told: 0,
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
            Step::TellAgain => {
                self.credits.clear();
                self.credits.push_back(self.receiver.tell());
            }
            Step::Hear => {
                if let Some(receipt) = self.credits.pop_front() {
                    assert!(receipt.is_possible(), "{receipt:?}");
                    self.told = receipt.credit.taken.0;
                    self.sender.credit(receipt).unwrap();
                }
            }
            Step::Cut(lane) => self.cut(lane),
            Step::Notice(lane) => self.notice(lane),
            Step::Rejoin(lane) => {
                self.notice(lane);
                self.lanes[lane] = Lane { wire: Some(VecDeque::new()), known: true };
            }
            Step::Sync => {
                self.durable = self.durable.map(|_| self.delivered.len());
                self.receiver.durable(Sequence(self.delivered.len() as u64));
            }
            Step::ReceiverDies => self.receiver_dies(),
            Step::SenderDies => self.sender_dies(),
        }
        if let Some(durable) = self.durable {
            assert!(self.told <= durable as u64, "told before it was durable");
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

    /// All of the receiver's memory is gone. The sender hears where the new one stands when it has
    /// a connection again, and so before anything else.
    fn receiver_dies(&mut self) {
        let Some(durable) = self.durable else { return };
        self.delivered.truncate(durable);
        self.unproved.clear();
        self.lent = 0;
        (0..LANES).for_each(|lane| self.cut(lane));
        self.receiver = ReceiveWindow::restored(self.receiver.blocks(), Sequence(durable as u64));
        self.receiver.hold_back();
        self.credits.clear();
        self.sender.stands(self.receiver.tell()).unwrap();
    }

    /// The sender's memory is gone, but not its files; what it sent may still come.
    fn sender_dies(&mut self) {
        self.credits.clear();
        let receipt = self.receiver.tell();
        self.told = receipt.credit.taken.0;
        self.sender = SendWindow::restored(receipt);
        for number in self.told..self.given {
            assert_eq!(self.sender.put(Sequence(number), Bytes(1), number), None);
        }
        self.lanes.iter_mut().for_each(|lane| lane.known = false);
        self.cuts += 1;
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
            for step in [Step::Prove, Step::Take, Step::Release, Step::Sync, Step::Tell] {
                self.step(step);
            }
            self.step(Step::Hear);
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
        durable in any::<bool>(),
        steps in prop::collection::vec(step(), 0..400),
        survivor in 0..LANES,
    ) {
        let mut model = Model::new(blocks, sender_slots, durable);
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
}
