//! The sender's window: every frame that the receiver has not taken, and where it went.

use std::collections::BTreeMap;

use super::Credit;
use crate::units::{Bytes, Sequence};

/// Frames of type `T`, which is cheap to copy where it is dealt twice.
///
/// New frames are dealt in the order of their numbers, lost ones before them. Bounded by whatever
/// the frames occupy: one that is kept gives nothing back.
#[derive(Debug)]
pub struct SendWindow<T> {
    credit: Credit,
    /// Every number below has been dealt once at least, or taken.
    next: Sequence,
    /// Every number below may have been dealt by a process before this one.
    dealt_before: Sequence,
    /// Not dealt yet, or dealt to a lane that was lost.
    waiting: BTreeMap<Sequence, Kept<T>>,
    dealt: BTreeMap<Sequence, (u32, Kept<T>)>,
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
            next: Sequence(0),
            dealt_before: Sequence(0),
            waiting: BTreeMap::new(),
            dealt: BTreeMap::new(),
            resent: Resent::default(),
        }
    }

    /// The window of a process that takes over where the receiver stands: frames are put from
    /// `credit.taken` on. What the process before had on its way may still be taken.
    pub fn restored(credit: Credit) -> SendWindow<T> {
        let (next, dealt_before) = (credit.taken, credit.room);
        SendWindow { credit, next, dealt_before, ..SendWindow::new() }
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
        self.waiting.insert(sequence, Kept { item, bytes });
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
        }
        let (_, kept) = self.dealt.entry(sequence).or_insert((lane, kept));
        Some(Deal { item: &kept.item, again })
    }

    /// Has all that `lane` was dealt, and that the receiver has not taken, dealt again. Returns how
    /// many frames that are.
    pub fn lost(&mut self, lane: u32) -> usize {
        let before = self.waiting.len();
        for (sequence, (of, kept)) in std::mem::take(&mut self.dealt) {
            if of == lane {
                self.waiting.insert(sequence, kept);
            } else {
                self.dealt.insert(sequence, (of, kept));
            }
        }
        self.waiting.len() - before
    }

    /// Takes what the receiver says, and gives back the frames that nobody needs any more.
    pub fn credit(&mut self, credit: Credit) -> Result<Vec<T>, CreditError> {
        if !credit.follows(self.credit) {
            return Err(CreditError::FellBack { from: self.credit, to: credit });
        }
        self.follow(credit)
    }

    /// Takes where a receiver stands that may have lost what it had not taken, and the connections
    /// with it: all of that waits to be dealt again. Room may have fallen back.
    pub fn stands(&mut self, credit: Credit) -> Result<Vec<T>, CreditError> {
        let least = Credit { room: credit.taken, ..self.credit };
        if !credit.follows(least) {
            return Err(CreditError::FellBack { from: self.credit, to: credit });
        }
        let dealt = std::mem::take(&mut self.dealt);
        self.waiting.extend(dealt.into_iter().map(|(sequence, (_, kept))| (sequence, kept)));
        self.follow(credit)
    }

    fn follow(&mut self, credit: Credit) -> Result<Vec<T>, CreditError> {
        let dealt = self.next.max(self.dealt_before);
        if credit.taken > dealt {
            return Err(CreditError::BeyondDealt { dealt, got: credit.taken });
        }
        self.credit = credit;
        self.next = self.next.max(credit.taken);
        let dealt = take_before(&mut self.dealt, credit.taken).map(|(_, kept)| kept);
        let waiting = take_before(&mut self.waiting, credit.taken);
        Ok(dealt.chain(waiting).map(|kept| kept.item).collect())
    }

    /// The first number that was never dealt.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// How many frames are kept.
    pub fn kept(&self) -> usize {
        self.waiting.len() + self.dealt.len()
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
