//! What one slot of a ring holds, taken by itself.
//!
//! Eight copies of one record, if all is well. Where a write was cut, the front copies are of the
//! new record and the others of the old one, with at most one in between that is neither; the
//! newest whole copy counts. What else may be there, and from where, is said and not believed.

use serde::Serialize;

use super::identity::{FileId, RecordSequence, RingSlots, SlotIndex};
use super::layout;
use super::record::{COPIES, RECORD_BYTES, Record, RecordError, SLOT_BYTES};

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "holds", rename_all = "kebab-case")]
pub enum Slot {
    /// Zeros, as when the file was made.
    Blank,
    /// One record, in all copies.
    Whole {
        /// It.
        record: Record,
    },
    /// A record of which not all copies are left.
    Partly {
        /// The newest of those that are whole.
        record: Record,
        /// How many copies of it there are.
        copies: usize,
        /// What is wrong with the first of the others.
        flaw: Flaw,
    },
    /// No record that belongs here.
    Nothing {
        /// What is wrong with the first copy.
        flaw: Flaw,
    },
}

/// Why a copy does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "flaw", rename_all = "kebab-case")]
pub enum Flaw {
    /// It is no record that could be believed.
    #[error("{error}")]
    Bytes {
        /// Why.
        error: RecordError,
    },
    /// It belongs to another file: the disk mixed up two writes, or a person two files.
    #[error("it belongs to file {file}")]
    Foreign {
        /// The one that it names.
        file: FileId,
    },
    /// It belongs to another slot, or to a ring of another size.
    #[error("it belongs to slot {slot} of {slots}")]
    Misplaced {
        /// The slot that it names.
        slot: SlotIndex,
        /// The size of its ring.
        slots: u32,
    },
    /// It is whole, and older than the copies in front of it: the write was cut behind those.
    #[error("it is record {sequence}, which was being replaced")]
    Older {
        /// The record that it is.
        sequence: RecordSequence,
    },
}

/// The place that a slot has, and whose it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file that we look at.
    pub file: FileId,
    /// Its ring.
    pub ring: RingSlots,
    /// The slot in it.
    pub slot: SlotIndex,
}

impl Slot {
    /// Looks at the bytes of one slot.
    pub fn read(bytes: &[u8; SLOT_BYTES], place: Place) -> Slot {
        if *bytes == [0; SLOT_BYTES] {
            return Slot::Blank;
        }
        let copies = read_copies(bytes, place);
        let whole = copies.iter().filter_map(|copy| copy.as_ref().ok());
        let Some(&record) = whole.max_by_key(|record| record.sequence) else {
            let flaw = copies.into_iter().find_map(Result::err);
            return Slot::Nothing {
                flaw: flaw.unwrap_or_else(|| unreachable!("no copy is whole")),
            };
        };
        let others = copies.iter().filter(|copy| **copy != Ok(record));
        let flaws = others.clone().map(|copy| match copy {
            Ok(other) => Flaw::Older { sequence: other.sequence },
            Err(flaw) => flaw.clone(),
        });
        let copies = COPIES - others.count();
        match flaws.into_iter().next() {
            None => Slot::Whole { record },
            Some(flaw) => Slot::Partly { record, copies, flaw },
        }
    }

    /// The newest record that is whole and belongs here.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Slot::Whole { record } | Slot::Partly { record, .. } => Some(record),
            Slot::Blank | Slot::Nothing { .. } => None,
        }
    }
}

/// Each copy by itself. Most equal the one before them, and need not be read again.
fn read_copies(bytes: &[u8; SLOT_BYTES], place: Place) -> Vec<Result<Record, Flaw>> {
    let mut copies: Vec<Result<Record, Flaw>> = Vec::with_capacity(COPIES);
    let raw = bytes.as_chunks::<RECORD_BYTES>().0;
    for (index, copy) in raw.iter().enumerate() {
        let same = index > 0 && raw[index - 1] == *copy;
        let read = if same { copies[index - 1].clone() } else { read_copy(copy, place) };
        copies.push(read);
    }
    copies
}

fn read_copy(copy: &[u8; RECORD_BYTES], place: Place) -> Result<Record, Flaw> {
    let record = Record::decode(copy).map_err(|error| Flaw::Bytes { error })?;
    if record.file != place.file {
        return Err(Flaw::Foreign { file: record.file });
    }
    if record.ring != place.ring || record.slot() != place.slot {
        return Err(Flaw::Misplaced { slot: record.slot(), slots: record.ring.get() });
    }
    Ok(record)
}

/// The highest sequence that some copy in these bytes bears, even one that is cut off.
pub(super) fn highest_remains(bytes: &[u8; SLOT_BYTES], place: Place) -> Option<RecordSequence> {
    let copies = bytes.as_chunks::<RECORD_BYTES>().0.iter();
    let remains = copies.filter_map(|copy| layout::sequence_of_remains(copy, place.file));
    remains.filter(|sequence| sequence.slot(place.ring) == place.slot).max()
}
