//! The receiver's window: what has come, what is due, and how much more may come.

use std::collections::{BTreeMap, BTreeSet};

use super::{Arrived, Credit, Receipt};
use crate::units::Sequence;

/// Blocks of type `T` between their arrival and the stream.
///
/// A block arrives, is proved, and is taken in order. It counts against the room from its arrival
/// until [`ReceiveWindow::hold`] says that its slot is at home again.
#[derive(Debug)]
pub struct ReceiveWindow<T> {
    /// How many blocks there are slots for, beside those that the lanes wait with.
    blocks: u64,
    taken: Sequence,
    /// Of the blocks that were taken, how many still occupy their slots.
    held: u64,
    /// Where only what is durable may be told as taken: all below is.
    durable: Option<Sequence>,
    places: BTreeMap<Sequence, Place<T>>,
    told: Credit,
    duplicates: u64,
}

#[derive(Debug)]
enum Place<T> {
    /// It came whole, but nobody has looked at its bytes. `copies` came over these lanes since and
    /// were thrown away.
    Arrived {
        copies: BTreeSet<u32>,
    },
    Proved(T),
}

/// What a block that came is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Wanted: to be proved, and then [`ReceiveWindow::put`] or [`ReceiveWindow::reject`]ed.
    New,
    /// Here already: to be thrown away. A sender that lost a connection cannot know what came over
    /// it, and may notice the loss long before this end does.
    Again,
}

/// A block came that nobody gave room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {got} came where there was room for those before {room}")]
pub struct BeyondRoom {
    /// The first number without room.
    pub room: Sequence,
    /// What came.
    pub got: Sequence,
}

impl<T> ReceiveWindow<T> {
    /// A window with room for so many blocks, at least one.
    pub fn new(blocks: u64) -> ReceiveWindow<T> {
        ReceiveWindow::restored(blocks, Sequence(0))
    }

    /// The window of a process that takes over from one that had taken every block before `first`.
    pub fn restored(blocks: u64, first: Sequence) -> ReceiveWindow<T> {
        assert!(blocks > 0, "without room nothing ever comes");
        let room = Sequence(first.0.saturating_add(blocks));
        ReceiveWindow {
            blocks,
            taken: first,
            held: 0,
            durable: None,
            places: BTreeMap::new(),
            told: Credit { taken: first, room },
            duplicates: 0,
        }
    }

    /// From now on a block is told as taken only when it is [`ReceiveWindow::durable`]; those taken
    /// so far count as that. Room is given as ever: what was taken needs no slot.
    pub fn hold_back(&mut self) {
        self.durable.get_or_insert(self.taken);
    }

    /// Every block numbered below `upto` is durable, whether it was taken or not. Of no meaning
    /// unless they are held back.
    pub fn durable(&mut self, upto: Sequence) {
        self.durable = self.durable.map(|durable| durable.max(upto));
    }

    /// Holds nothing back any more: whatever was taken is told.
    pub fn let_go(&mut self) {
        self.durable = None;
    }

    /// Whether a block of this number may come: asked before its payload is let in.
    pub fn admit(&self, got: Sequence) -> Result<(), BeyondRoom> {
        let room = self.credit().room;
        if got < room { Ok(()) } else { Err(BeyondRoom { room, got }) }
    }

    /// A block that was admitted came whole over `lane`.
    pub fn arrive(&mut self, sequence: Sequence, lane: u32) -> Arrival {
        let place = self.places.get_mut(&sequence);
        if sequence >= self.taken && place.is_none() {
            self.places.insert(sequence, Place::Arrived { copies: BTreeSet::new() });
            return Arrival::New;
        }
        self.duplicates += 1;
        if let Some(Place::Arrived { copies }) = place {
            copies.insert(lane);
        }
        Arrival::Again
    }

    /// How many blocks have come, but for those that were rejected. Grows with every new block,
    /// however slow the sink is.
    pub fn here(&self) -> u64 {
        self.taken.0.saturating_add(self.places.len() as u64)
    }

    /// A block that arrived is what was sent.
    ///
    /// # Panics
    ///
    /// When it did not arrive, or was put already.
    pub fn put(&mut self, sequence: Sequence, item: T) {
        let before = self.places.insert(sequence, Place::Proved(item));
        assert!(matches!(before, Some(Place::Arrived { .. })), "block {sequence} never arrived");
    }

    /// A block that arrived is not what was sent: as if it had not come.
    ///
    /// Returns the lanes over which copies of it came meanwhile. They are gone as well, and the
    /// sender takes them for delivered as long as it has those lanes: they must be dropped like
    /// the lane that the bad one came over.
    pub fn reject(&mut self, sequence: Sequence) -> BTreeSet<u32> {
        match self.places.remove(&sequence) {
            Some(Place::Arrived { copies }) => copies,
            Some(Place::Proved(_)) | None => panic!("block {sequence} was proved or never arrived"),
        }
    }

    /// The block that is due, if it has come and is proved. Its slot counts as held.
    pub fn take(&mut self) -> Option<T> {
        let first = self.places.first_entry().filter(|first| *first.key() == self.taken)?;
        if matches!(first.get(), Place::Arrived { .. }) {
            return None;
        }
        let Place::Proved(item) = first.remove() else { return None };
        self.taken = self.taken.next();
        self.held += 1;
        Some(item)
    }

    /// Says how many of the blocks that were taken still occupy their slots: the others' must be
    /// at home by now.
    pub fn hold(&mut self, held: usize) {
        let held = held as u64;
        debug_assert!(held <= self.held, "{held} slots held of {} taken", self.held);
        self.held = held.min(self.held);
    }

    /// Every block numbered below has been taken, whether that may be told or not.
    pub fn taken(&self) -> Sequence {
        self.taken
    }

    /// What the sender may forget, and how far it may go.
    pub fn credit(&self) -> Credit {
        let freed = self.taken.0 - self.held;
        let taken = self.durable.map_or(self.taken, |durable| durable.min(self.taken));
        Credit { taken, room: Sequence(freed.saturating_add(self.blocks)) }
    }

    /// What is here already: of what was taken the part that is held back, and whatever waits for
    /// the block that is due. A block that is rejected vanishes from it.
    pub fn arrived(&self) -> Arrived {
        let held_back = self.credit().taken..self.taken;
        let waiting = self.places.keys().map(|&sequence| sequence..sequence.next());
        Arrived::of(std::iter::once(held_back).chain(waiting))
    }

    /// All of it, to be told to the sender now.
    pub fn tell(&mut self) -> Receipt {
        self.told = self.credit();
        Receipt { credit: self.told, arrived: self.arrived() }
    }

    /// How much the credit has grown since it was told: by how many blocks taken, or given room,
    /// whichever is more.
    pub fn untold(&self) -> u64 {
        let Credit { taken, room } = self.credit();
        (taken.0 - self.told.taken.0).max(room.0 - self.told.room.0)
    }

    /// How many blocks it has room for at once.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many blocks came that were here already.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// How many blocks occupy slots: those that wait, and those that are held.
    pub fn occupied(&self) -> u64 {
        self.places.len() as u64 + self.held
    }
}
