//! The sender's window: every frame that the receiver has not taken, and where it went.

use std::collections::BTreeMap;

use super::{Arrived, Credit, Receipt};
use crate::units::{Bytes, Sequence};

/// Frames of type `T`, which is cheap to copy where it is dealt twice.
///
/// New frames are dealt in the order of their numbers, lost ones before them. Bounded by whatever
/// the frames occupy: one that is kept gives nothing back.
#[derive(Debug)]
pub struct SendWindow<T> {
    credit: Credit,
    /// What the receiver has out of order, as it said last.
    arrived: Arrived,
    /// Every number below has been dealt once at least, or taken.
    next: Sequence,
    /// Every number below may have been dealt by a process before this one.
    dealt_before: Sequence,
    /// Not dealt yet, or dealt to a lane that was lost.
    waiting: BTreeMap<Sequence, Kept<T>>,
    dealt: BTreeMap<Sequence, (u32, Kept<T>)>,
    /// Dealt to a lane that was lost, and arrived all the same.
    parked: BTreeMap<Sequence, Kept<T>>,
    resent: Resent,
}

#[derive(Debug)]
struct Kept<T> {
    item: T,
    bytes: Bytes,
}

/// A frame to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deal<'a, T> {
    /// The frame.
    pub item: &'a T,
    /// Whether another lane had it before.
    pub again: bool,
}

/// What was sent more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    /// Frames.
    pub frames: u64,
    /// Their bytes on the wire.
    pub bytes: Bytes,
}

/// A credit that no honest receiver gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreditError {
    /// It takes back what was given, or contradicts itself.
    #[error(
        "it gave room for blocks up to {} having taken those up to {}, after {} and {}",
        to.room, to.taken, from.room, from.taken
    )]
    FellBack {
        /// What it had given.
        from: Credit,
        /// What it gave then.
        to: Credit,
    },
    /// It took what nobody sent.
    #[error("it took the blocks up to {got} when those up to {dealt} were sent")]
    BeyondDealt {
        /// How far we sent.
        dealt: Sequence,
        /// What it says to have taken.
        got: Sequence,
    },
}

impl<T> SendWindow<T> {
    /// An empty window that may deal nothing before the first credit.
    pub fn new() -> SendWindow<T> {
        SendWindow {
            credit: Credit::default(),
            arrived: Arrived::default(),
            next: Sequence(0),
            dealt_before: Sequence(0),
            waiting: BTreeMap::new(),
            dealt: BTreeMap::new(),
            parked: BTreeMap::new(),
            resent: Resent::default(),
        }
    }

    /// The window of a process that takes over where the receiver stands: frames are put from
    /// `credit.taken` on. What the process before had on its way may still arrive and be taken.
    pub fn restored(receipt: impl Into<Receipt>) -> SendWindow<T> {
        let Receipt { credit, arrived } = receipt.into();
        let (next, dealt_before) = (credit.taken, credit.room);
        SendWindow { credit, arrived, next, dealt_before, ..SendWindow::new() }
    }

    /// Keeps a frame of `bytes` on the wire; frames come in any order. Gives back one that a
    /// receiver took from a process before this one: nobody needs it any more.
    ///
    /// # Panics
    ///
    /// When a number comes for the second time: numbers are ours to give.
    pub fn put(&mut self, sequence: Sequence, bytes: Bytes, item: T) -> Option<T> {
        if sequence < self.credit.taken && sequence < self.dealt_before {
            return Some(item);
        }
        let taken_in = self.next > sequence || self.waiting.contains_key(&sequence);
        assert!(!taken_in, "block {sequence} was numbered twice");
        let kept = Kept { item, bytes };
        if sequence < self.dealt_before && self.arrived.contains(sequence) {
            self.parked.insert(sequence, kept);
            self.skip_parked();
        } else {
            self.waiting.insert(sequence, kept);
        }
        None
    }

    /// The frame that `lane` is to send next: the oldest that no lane has, if there is room for
    /// it.
    pub fn deal(&mut self, lane: u32) -> Option<Deal<'_, T>> {
        let (&sequence, _) = self.waiting.first_key_value()?;
        if sequence > self.next || sequence >= self.credit.room {
            return None;
        }
        let kept = self.waiting.remove(&sequence)?;
        let again = sequence < self.next;
        if again {
            self.resent.frames += 1;
            self.resent.bytes.0 += kept.bytes.0;
        } else {
            self.next = sequence.next();
            self.skip_parked();
        }
        let (_, kept) = self.dealt.entry(sequence).or_insert((lane, kept));
        Some(Deal { item: &kept.item, again })
    }

    /// Has all that `lane` was dealt, and that the receiver does not have, dealt again. Returns how
    /// many frames that are.
    pub fn lost(&mut self, lane: u32) -> usize {
        let before = self.waiting.len();
        for (sequence, (of, kept)) in std::mem::take(&mut self.dealt) {
            if of != lane {
                self.dealt.insert(sequence, (of, kept));
            } else if self.arrived.contains(sequence) {
                self.parked.insert(sequence, kept);
            } else {
                self.waiting.insert(sequence, kept);
            }
        }
        self.waiting.len() - before
    }

    /// Takes what the receiver says, and gives back the frames that nobody needs any more.
    pub fn credit(&mut self, receipt: impl Into<Receipt>) -> Result<Vec<T>, CreditError> {
        let receipt = receipt.into();
        let credit = receipt.credit;
        if !credit.follows(self.credit) {
            return Err(CreditError::FellBack { from: self.credit, to: credit });
        }
        self.follow(receipt)
    }

    /// Takes where a receiver stands that may have lost what it had not taken, and the connections
    /// with it: all of that waits to be dealt again. Room may have fallen back.
    pub fn stands(&mut self, receipt: impl Into<Receipt>) -> Result<Vec<T>, CreditError> {
        let receipt = receipt.into();
        let credit = receipt.credit;
        let least = Credit { room: credit.taken, ..self.credit };
        if !credit.follows(least) {
            return Err(CreditError::FellBack { from: self.credit, to: credit });
        }
        let dealt = std::mem::take(&mut self.dealt);
        self.waiting.extend(dealt.into_iter().map(|(sequence, (_, kept))| (sequence, kept)));
        self.follow(receipt)
    }

    fn follow(&mut self, receipt: Receipt) -> Result<Vec<T>, CreditError> {
        let Receipt { credit, arrived } = receipt;
        let dealt = self.next.max(self.dealt_before);
        if credit.taken > dealt {
            return Err(CreditError::BeyondDealt { dealt, got: credit.taken });
        }
        (self.credit, self.arrived) = (credit, arrived);
        self.next = self.next.max(credit.taken);
        self.park();
        let dealt = take_before(&mut self.dealt, credit.taken).map(|(_, kept)| kept);
        let waiting = take_before(&mut self.waiting, credit.taken);
        let parked = take_before(&mut self.parked, credit.taken);
        Ok(dealt.chain(waiting).chain(parked).map(|kept| kept.item).collect())
    }

    /// Has those of the frames without a lane dealt again that the newest report does not list.
    fn park(&mut self) {
        let fresh = self.waiting.split_off(&self.next.max(self.dealt_before));
        let mut laneless = std::mem::replace(&mut self.waiting, fresh);
        laneless.append(&mut self.parked);
        let has_arrived = |(sequence, _): &(Sequence, _)| self.arrived.contains(*sequence);
        let (parked, missing): (BTreeMap<_, _>, BTreeMap<_, _>) =
            laneless.into_iter().partition(has_arrived);
        self.parked = parked;
        self.waiting.extend(missing);
        self.skip_parked();
    }

    /// What is parked was dealt once, be it by a process before this one.
    fn skip_parked(&mut self) {
        while self.parked.contains_key(&self.next) {
            self.next = self.next.next();
        }
    }

    /// The first number that was never dealt.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// How many more frames the receiver has room for.
    pub fn room(&self) -> usize {
        let room = self.credit.room.0.saturating_sub(self.next.0);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Whether the receiver has all that was dealt and is not to be dealt again, and must make room
    /// for what comes next.
    pub fn waits_for_room(&self) -> bool {
        let next = self.waiting.first_key_value();
        self.dealt.is_empty() && next.is_some_and(|(&sequence, _)| sequence >= self.credit.room)
    }

    /// How many frames have a lane.
    pub fn dealt(&self) -> usize {
        self.dealt.len()
    }

    /// How many frames are kept.
    pub fn kept(&self) -> usize {
        self.waiting.len() + self.dealt.len() + self.parked.len()
    }

    /// How many of them no lane has, because they have arrived.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// What was dealt more than once.
    pub fn resent(&self) -> Resent {
        self.resent
    }
}

impl<T> Default for SendWindow<T> {
    fn default() -> SendWindow<T> {
        SendWindow::new()
    }
}

/// Takes out all that is numbered below `end`.
fn take_before<V>(
    map: &mut BTreeMap<Sequence, V>,
    end: Sequence,
) -> impl Iterator<Item = V> + use<V> {
    let rest = map.split_off(&end);
    std::mem::replace(map, rest).into_values()
}
