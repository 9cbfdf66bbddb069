//! Which record of a ring to believe after a crash, and what happened to the others.
//!
//! The bytes of the whole ring go in, the newest record that can be believed comes out. Believed
//! is what is whole, belongs to this file and this slot, and names the record before it rightly
//! where that is still there. Nothing else needs to be true, because a record never says more than
//! is: an older one only costs bytes that are sent again. So damage is told and never fatal, and
//! the one thing that must not happen is that a sequence is used twice.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;

use super::identity::{FileId, RecordSequence, RingSlots, SlotIndex};
use super::layout;
use super::record::{RECORD_BYTES, Record, SLOT_BYTES};
use super::slot::{Flaw, Place, Slot, highest_remains};
use crate::units::Bytes;

/// What is left of a record file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// The newest record that can be believed.
    pub newest: Option<Record>,
    /// The sequence to go on with: above every one that was ever given out.
    pub next_sequence: RecordSequence,
    /// What else was found; empty after an orderly end.
    pub damage: Vec<Damage>,
}

/// Something in a ring that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "damage", rename_all = "kebab-case")]
pub enum Damage {
    /// The last write before a crash was cut: what crashes do.
    #[error("slot {slot}: a write was cut short by a crash ({flaw})")]
    Torn {
        /// Where.
        slot: SlotIndex,
        /// What was found there.
        flaw: Flaw,
    },
    /// A slot that no crash explains: the medium, or somebody else's hand.
    #[error("slot {slot}: damaged ({flaw})")]
    Damaged {
        /// Where.
        slot: SlotIndex,
        /// What was found there.
        flaw: Flaw,
    },
    /// The next record says that this one was written, and it is not there: the disk said "done"
    /// and did nothing, or the slot was put back to an older state.
    #[error("slot {slot}: record {expected} was written and is lost")]
    Lost {
        /// Where it should be.
        slot: SlotIndex,
        /// The record that is missing.
        expected: RecordSequence,
    },
    /// Two records that follow each other are not of one history: two writers shared the file, or
    /// a part of it was put back. The newer one is not believed.
    #[error("slot {slot}: record {sequence} does not follow the one before it")]
    Forked {
        /// Where.
        slot: SlotIndex,
        /// The record that is not believed.
        sequence: RecordSequence,
    },
    /// The file is longer or shorter than its ring: its making was cut short, or it is no record
    /// file.
    #[error("the file has {} bytes instead of {}", .got.0, .expected.0)]
    Length {
        /// What its ring needs.
        expected: Bytes,
        /// What there is.
        got: Bytes,
    },
}

impl Damage {
    /// Whether a crash alone explains it, with a disk that keeps its promises.
    pub fn is_ordinary(&self) -> bool {
        matches!(self, Damage::Torn { .. })
    }
}

/// Finds the newest record in the bytes of a ring.
pub fn recover(image: &[u8], ring: RingSlots, file: FileId) -> Recovered {
    let slots = survey(image, ring, file);
    let mut recovered = judge(&slots, highest_remains_of(image, ring, file, &slots));
    let (expected, got) = (Bytes(u64::from(ring.get()) * SLOT_BYTES as u64), image.len().into());
    if got != expected {
        recovered.damage.push(Damage::Length { expected, got });
    }
    recovered
}

/// What each slot holds. Slots behind the end of the bytes are blank.
pub fn survey(image: &[u8], ring: RingSlots, file: FileId) -> Vec<Slot> {
    let mut slots: Vec<Slot> =
        places(image, ring, file).map(|(bytes, place)| Slot::read(bytes, place)).collect();
    slots.resize(ring.get() as usize, Slot::Blank);
    slots
}

/// The file that most whole records in these bytes say they belong to: for a reader who was not
/// told.
pub fn identify(image: &[u8]) -> Option<FileId> {
    let mut votes: HashMap<FileId, usize> = HashMap::new();
    for copy in image.as_chunks::<RECORD_BYTES>().0 {
        if let Ok(record) = Record::decode(copy) {
            *votes.entry(record.file).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|&(file, count)| (count, file)).map(|(file, _)| file)
}

/// Whether anything in these bytes begins as a record does.
pub fn looks_like_records(image: &[u8]) -> bool {
    let copies = image.as_chunks::<RECORD_BYTES>().0;
    copies.iter().any(layout::begins_as_record)
}

fn places(
    image: &[u8],
    ring: RingSlots,
    file: FileId,
) -> impl Iterator<Item = (&[u8; SLOT_BYTES], Place)> {
    let slots = image.as_chunks::<SLOT_BYTES>().0.iter();
    slots.zip((0..ring.get()).map(move |index| Place { file, ring, slot: SlotIndex(index) }))
}

/// Without one whole record to compare with: more records than a file gets in a century.
const REMAINS_MAX: u64 = 1 << 32;

/// The highest sequence of this file seen anywhere, cut off or not. A number in a damaged copy may
/// be anything: it counts as far as one turn of the ring above the newest whole record.
fn highest_remains_of(
    image: &[u8],
    ring: RingSlots,
    file: FileId,
    slots: &[Slot],
) -> Option<RecordSequence> {
    let newest = highest(slots).map(|record| record.sequence);
    let limit = newest.map_or(REMAINS_MAX, |newest| newest.get() + u64::from(ring.get()));
    let plausible = |remains: &RecordSequence| remains.get() <= limit;
    let remains = places(image, ring, file)
        .filter_map(|(bytes, place)| highest_remains(bytes, place).filter(plausible));
    remains.max().max(newest)
}

fn highest(slots: &[Slot]) -> Option<&Record> {
    slots.iter().filter_map(Slot::record).max_by_key(|record| record.sequence)
}

/// The rules, over slots that were looked at one by one.
fn judge(slots: &[Slot], highest_seen: Option<RecordSequence>) -> Recovered {
    let next_sequence = highest_seen.map_or(RecordSequence::FIRST, RecordSequence::after_crash);
    let ring = Ring { slots };
    let Some(highest) = highest(slots) else {
        // Where nothing was ever whole, a crash may have cut the first write of all.
        let damage = ring.indexed().filter_map(|(slot, held)| {
            told(slot, held, u64::from(slot.0) == RecordSequence::FIRST.get())
        });
        return Recovered { newest: None, next_sequence, damage: damage.collect() };
    };
    let (newest, mut damage) = ring.believe(highest);
    for (slot, held) in ring.indexed() {
        damage.extend(told(slot, held, ring.may_be_torn(slot, highest)));
        damage.extend(ring.lost(slot, highest));
    }
    Recovered { newest: Some(*newest), next_sequence, damage }
}

/// What to say about a slot's own bytes.
fn told(slot: SlotIndex, held: &Slot, may_be_torn: bool) -> Option<Damage> {
    match held {
        Slot::Blank | Slot::Whole { .. } => None,
        Slot::Partly { flaw, .. } | Slot::Nothing { flaw } => {
            let flaw = flaw.clone();
            Some(if may_be_torn {
                Damage::Torn { slot, flaw }
            } else {
                Damage::Damaged { slot, flaw }
            })
        }
    }
}

/// Slots that know where each record belongs.
struct Ring<'a> {
    slots: &'a [Slot],
}

impl<'a> Ring<'a> {
    fn indexed(&self) -> impl Iterator<Item = (SlotIndex, &'a Slot)> {
        (0..).map(SlotIndex).zip(self.slots)
    }

    /// The record with this sequence, if it is there.
    fn at(&self, sequence: RecordSequence) -> Option<&'a Record> {
        let index = sequence.get() % self.slots.len() as u64;
        let held = self.slots.get(usize::try_from(index).ok()?)?;
        held.record().filter(|record| record.sequence == sequence)
    }

    fn before(&self, record: &Record) -> Option<&'a Record> {
        self.at(record.sequence.previous()?)
    }

    /// From the highest record down to the first that follows the one before it.
    fn believe(&self, highest: &'a Record) -> (&'a Record, Vec<Damage>) {
        let (mut newest, mut damage) = (highest, Vec::new());
        while let Some(before) = self.before(newest)
            && newest.parent.is_some_and(|parent| parent != before.checksum())
        {
            damage.push(Damage::Forked { slot: newest.slot(), sequence: newest.sequence });
            newest = before;
        }
        (newest, damage)
    }

    /// The sequence that a slot held last, if the ring has come around to it.
    fn expected(&self, slot: SlotIndex, highest: &Record) -> Option<RecordSequence> {
        let turn = self.slots.len() as u64;
        let behind = (highest.sequence.get() + turn - u64::from(slot.0)) % turn;
        RecordSequence::new(highest.sequence.get().checked_sub(behind)?)
    }

    /// Whether a crash may have cut a write to this slot: the highest record itself, the one that
    /// follows it or would after a crash, or one before an earlier crash. Of those between a record
    /// and the next that is there, where that begins anew, each was cut, or never given out and
    /// what it would have covered was.
    fn may_be_torn(&self, slot: SlotIndex, highest: &Record) -> bool {
        let Record { sequence, ring, .. } = *highest;
        let last = [sequence, sequence.next(), sequence.after_crash()];
        last.map(|sequence| sequence.slot(ring)).contains(&slot)
            || self.next_there(slot, highest).is_some_and(|record| record.parent.is_none())
    }

    /// The first record that is there of those behind the one that this slot should hold.
    fn next_there(&self, slot: SlotIndex, highest: &Record) -> Option<&'a Record> {
        let behind = std::iter::successors(self.expected(slot, highest), |it| Some(it.next()));
        behind.skip(1).take_while(|it| *it <= highest.sequence).find_map(|it| self.at(it))
    }

    /// The record behind the one that this slot should hold.
    fn after(&self, slot: SlotIndex, highest: &Record) -> Option<&'a Record> {
        self.at(self.expected(slot, highest)?.next())
    }

    /// A record that its successor knew and that is not there. Only where nothing else explains
    /// it: the slot holds something whole and older, or nothing at all.
    fn lost(&self, slot: SlotIndex, highest: &Record) -> Option<Damage> {
        let expected = self.expected(slot, highest)?;
        let held = &self.slots[slot.0 as usize];
        let claimed = self.after(slot, highest).is_some_and(|after| after.parent.is_some());
        let missing = match held {
            Slot::Blank => true,
            Slot::Nothing { .. } => false,
            Slot::Whole { record } | Slot::Partly { record, .. } => record.sequence != expected,
        };
        (claimed && missing).then_some(Damage::Lost { slot, expected })
    }
}
