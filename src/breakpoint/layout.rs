//! Where each field of a record stands in its 512 bytes: little-endian, every byte accounted for.
//!
//! Read in the order of suspicion: is anything there, is it a record, is it whole, is it of our
//! version, and only then what does it say. Reserved bytes are zero, so that a later version can
//! give them a meaning that this one refuses.

use std::ops::Range;

use super::identity::{BootId, FileId, RecordSequence, RingSlots, SessionId};
use super::record::{
    Cargo, Checksum, Job, Mark, Progress, RECORD_BYTES, Record, RecordError, Role, SLOT_BYTES,
    SegmentNumber, SpoolExtent, State,
};
use crate::dataset::Guid;
use crate::error::Class;
use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

type Raw = [u8; RECORD_BYTES];

// The order: what recognizes, which one it is, what it is about, how far that is, what people
// like to know. Every number lies at a multiple of its size.
const MAGIC: Range<usize> = 0..8;
const VERSION: Range<usize> = 8..10;
const LENGTH: Range<usize> = 10..12;
const ROLE: Range<usize> = 12..13;
const STATE: Range<usize> = 13..14;
const FLAGS: Range<usize> = 14..15;
const LAST_ERROR: Range<usize> = 15..16;
const FILE: Range<usize> = 16..32;
const SLOT: Range<usize> = 32..36;
const SLOTS: Range<usize> = 36..40;
const SEQUENCE: Range<usize> = 40..48;
const PARENT: Range<usize> = 48..52;
const EPOCH: Range<usize> = 52..56;
const SESSION: Range<usize> = 56..72;
const TRANSFER: Range<usize> = 72..76;
const PREFIX_CRC32: Range<usize> = 76..80;
const GUID_TO: Range<usize> = 80..88;
const GUID_FROM: Range<usize> = 88..96;
const RECEIVED: Range<usize> = 96..104;
const SPOOLED: Range<usize> = 104..112;
const FED: Range<usize> = 112..120;
const ACKNOWLEDGED: Range<usize> = 120..128;
const NEXT_FRAME: Range<usize> = 128..136;
const END_TOTAL: Range<usize> = 136..144;
const END_CRC32: Range<usize> = 144..148;
const SEGMENT_BYTES: Range<usize> = 148..152;
const FIRST_SEGMENT: Range<usize> = 152..156;
const LAST_SEGMENT: Range<usize> = 156..160;
const SPOOL_LOW: Range<usize> = 160..168;
const SPOOL_HIGH: Range<usize> = 168..176;
const BOOT: Range<usize> = 176..192;
const WALL_CLOCK_MS: Range<usize> = 192..200;
const RESERVED: Range<usize> = 200..508;
const CHECKSUM: Range<usize> = 508..512;

/// Every field in its order.
#[rustfmt::skip]
const FIELDS: [Range<usize>; 34] = [
    MAGIC, VERSION, LENGTH, ROLE, STATE, FLAGS, LAST_ERROR, FILE, SLOT, SLOTS, SEQUENCE, PARENT,
    EPOCH, SESSION, TRANSFER, PREFIX_CRC32, GUID_TO, GUID_FROM, RECEIVED, SPOOLED, FED,
    ACKNOWLEDGED, NEXT_FRAME, END_TOTAL, END_CRC32, SEGMENT_BYTES, FIRST_SEGMENT, LAST_SEGMENT,
    SPOOL_LOW, SPOOL_HIGH, BOOT, WALL_CLOCK_MS, RESERVED, CHECKSUM,
];

// No gap, no overlap, no number across its own alignment.
const _: () = {
    let mut at = 0;
    let mut index = 0;
    while index < FIELDS.len() {
        let Range { start, end } = FIELDS[index];
        assert!(start == at && end > start);
        let bytes = end - start;
        assert!(bytes > 8 || start.is_multiple_of(bytes));
        at = end;
        index += 1;
    }
    assert!(at == RECORD_BYTES);
};

/// A byte that is not ASCII in front, so that no text looks like a record.
const MAGIC_VALUE: [u8; 8] = *b"\xf0zfBREAK";

/// Version 1: the first.
const VERSION_VALUE: u16 = 1;

const LENGTH_VALUE: u16 = 512;
const _: () = assert!(LENGTH_VALUE as usize == RECORD_BYTES);

/// What `END_TOTAL` says while the end is unknown.
const END_UNKNOWN: u64 = u64::MAX;

/// What is there at all, and what kind it is of. A field without its flag is zero.
mod flag {
    pub const SNAPSHOT: u8 = 1;
    pub const INCREMENTAL: u8 = 1 << 1;
    pub const RAW: u8 = 1 << 2;
    pub const RESUMED: u8 = 1 << 3;
    pub const SPOOL: u8 = 1 << 4;
    pub const PARENT: u8 = 1 << 5;
    pub const ALL: u8 = (1 << 6) - 1;
}

/// Numbers of the roles, states and classes of failures: these never change their meaning.
const ROLES: [(u8, Role); 2] = [(1, Role::Client), (2, Role::Server)];
const STATES: [(u8, State); 4] =
    [(1, State::Streaming), (2, State::Ended), (3, State::Applied), (4, State::Abandoned)];
const CLASSES: [(u8, Option<Class>); 10] = [
    (0, None),
    (1, Some(Class::Usage)),
    (2, Some(Class::Refused)),
    (3, Some(Class::Busy)),
    (4, Some(Class::Interrupted)),
    (5, Some(Class::Wait)),
    (6, Some(Class::Peer)),
    (7, Some(Class::Machine)),
    (8, Some(Class::Zfs)),
    (9, Some(Class::Internal)),
];

impl Record {
    /// Its bytes.
    ///
    /// # Panics
    ///
    /// When its fields contradict each other: that is our own mistake, and must not reach a disk.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        assert_eq!(self.check(), Ok(()), "a record of our own is wrong: {self:?}");
        encode(self)
    }

    /// The bytes of its whole slot: as many copies as fit.
    pub fn encode_slot(&self) -> [u8; SLOT_BYTES] {
        let record = self.encode();
        let mut slot = [0; SLOT_BYTES];
        for copy in slot.as_chunks_mut::<RECORD_BYTES>().0 {
            *copy = record;
        }
        slot
    }

    /// The record in `bytes`, every field checked.
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<Record, RecordError> {
        let record = decode(bytes)?;
        record.check()?;
        Ok(record)
    }

    /// What the next record names as its parent.
    pub fn checksum(&self) -> Checksum {
        checksum(&self.encode())
    }
}

/// The bytes of a record.
fn encode(record: &Record) -> Raw {
    let mut bytes = [0; RECORD_BYTES];
    bytes[MAGIC].copy_from_slice(&MAGIC_VALUE);
    bytes[VERSION].copy_from_slice(&VERSION_VALUE.to_le_bytes());
    bytes[LENGTH].copy_from_slice(&LENGTH_VALUE.to_le_bytes());
    bytes[FLAGS].copy_from_slice(&[flags(record)]);
    bytes[FILE].copy_from_slice(&record.file.0);
    bytes[SLOT].copy_from_slice(&record.slot().0.to_le_bytes());
    bytes[SLOTS].copy_from_slice(&record.ring.get().to_le_bytes());
    bytes[SEQUENCE].copy_from_slice(&record.sequence.get().to_le_bytes());
    let parent = record.parent.map_or(0, |parent| parent.0);
    bytes[PARENT].copy_from_slice(&parent.to_le_bytes());
    encode_job(&mut bytes, &record.job);
    encode_progress(&mut bytes, &record.progress);
    bytes[BOOT].copy_from_slice(&record.boot.0);
    bytes[WALL_CLOCK_MS].copy_from_slice(&record.wall_clock_ms.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..CHECKSUM.start]);
    bytes[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn encode_job(bytes: &mut Raw, job: &Job) {
    bytes[ROLE].copy_from_slice(&[number_of(&ROLES, &job.role)]);
    bytes[SESSION].copy_from_slice(&job.session.0);
    bytes[TRANSFER].copy_from_slice(&job.transfer.0.to_le_bytes());
    bytes[EPOCH].copy_from_slice(&job.epoch.to_le_bytes());
    if let Cargo::Snapshot { to, from, .. } = job.cargo {
        bytes[GUID_TO].copy_from_slice(&to.0.to_le_bytes());
        bytes[GUID_FROM].copy_from_slice(&from.map_or(0, |from| from.0).to_le_bytes());
    }
}

fn encode_progress(bytes: &mut Raw, progress: &Progress) {
    bytes[STATE].copy_from_slice(&[number_of(&STATES, &progress.state)]);
    bytes[LAST_ERROR].copy_from_slice(&[number_of(&CLASSES, &progress.last_error)]);
    bytes[RECEIVED].copy_from_slice(&progress.received.0.to_le_bytes());
    bytes[SPOOLED].copy_from_slice(&progress.spooled.0.to_le_bytes());
    bytes[FED].copy_from_slice(&progress.fed.0.to_le_bytes());
    bytes[ACKNOWLEDGED].copy_from_slice(&progress.acknowledged.to.0.to_le_bytes());
    bytes[PREFIX_CRC32].copy_from_slice(&progress.acknowledged.crc32.to_le_bytes());
    bytes[NEXT_FRAME].copy_from_slice(&progress.next_frame.0.to_le_bytes());
    let (total, crc32) = progress.end.map_or((END_UNKNOWN, 0), |end| (end.to.0, end.crc32));
    bytes[END_TOTAL].copy_from_slice(&total.to_le_bytes());
    bytes[END_CRC32].copy_from_slice(&crc32.to_le_bytes());
    if let Some(spool) = progress.spool {
        let segment_bytes = u32::try_from(spool.segment_bytes.0).unwrap_or(0);
        bytes[SEGMENT_BYTES].copy_from_slice(&segment_bytes.to_le_bytes());
        bytes[FIRST_SEGMENT].copy_from_slice(&spool.first_segment.0.to_le_bytes());
        bytes[LAST_SEGMENT].copy_from_slice(&spool.last_segment.0.to_le_bytes());
        bytes[SPOOL_LOW].copy_from_slice(&spool.low.0.to_le_bytes());
        bytes[SPOOL_HIGH].copy_from_slice(&spool.high.0.to_le_bytes());
    }
}

fn flags(record: &Record) -> u8 {
    let when = |is_so: bool, flag: u8| if is_so { flag } else { 0 };
    let cargo = match record.job.cargo {
        Cargo::Pipe => 0,
        Cargo::Snapshot { from, raw, resumed, .. } => {
            flag::SNAPSHOT
                | when(from.is_some(), flag::INCREMENTAL)
                | when(raw, flag::RAW)
                | when(resumed, flag::RESUMED)
        }
    };
    cargo
        | when(record.progress.spool.is_some(), flag::SPOOL)
        | when(record.parent.is_some(), flag::PARENT)
}

/// What the bytes say; whether the fields go together is asked elsewhere.
fn decode(bytes: &Raw) -> Result<Record, RecordError> {
    check_envelope(bytes)?;
    let ring = RingSlots::new(u32_at(bytes, SLOTS)).ok_or(contradiction("slot count"))?;
    let sequence = RecordSequence::new(u64_at(bytes, SEQUENCE));
    let record = Record {
        file: FileId(bytes_at(bytes, FILE)),
        ring,
        sequence: sequence.ok_or(contradiction("sequence"))?,
        parent: has(bytes, flag::PARENT).then_some(Checksum(u32_at(bytes, PARENT))),
        job: decode_job(bytes)?,
        progress: decode_progress(bytes)?,
        boot: BootId(bytes_at(bytes, BOOT)),
        wall_clock_ms: u64_at(bytes, WALL_CLOCK_MS),
    };
    // Whatever is not said is zero, and nothing is said twice: one record has one form.
    if encode(&record) == *bytes { Ok(record) } else { Err(contradiction("form")) }
}

/// Magic before CRC32, so that a stranger is called a stranger and not damage; CRC32 before every
/// field, so that damage is called damage and not a contradiction.
fn check_envelope(bytes: &Raw) -> Result<(), RecordError> {
    if *bytes == [0; RECORD_BYTES] {
        return Err(RecordError::Blank);
    }
    if !begins_as_record(bytes) {
        return Err(RecordError::Magic);
    }
    let (expected, got) = (checksum(bytes).0, crc32fast::hash(&bytes[..CHECKSUM.start]));
    if got != expected {
        return Err(RecordError::Torn { expected, got });
    }
    let version = u16::from_le_bytes(bytes_at(bytes, VERSION));
    if version != VERSION_VALUE {
        return Err(RecordError::Version { expected: VERSION_VALUE, got: version });
    }
    Ok(())
}

fn decode_job(bytes: &Raw) -> Result<Job, RecordError> {
    let snapshot = Cargo::Snapshot {
        to: Guid(u64_at(bytes, GUID_TO)),
        from: has(bytes, flag::INCREMENTAL).then_some(Guid(u64_at(bytes, GUID_FROM))),
        raw: has(bytes, flag::RAW),
        resumed: has(bytes, flag::RESUMED),
    };
    Ok(Job {
        role: meaning_of(&ROLES, bytes[ROLE.start]).ok_or(contradiction("role"))?,
        session: SessionId(bytes_at(bytes, SESSION)),
        transfer: TransferId(u32_at(bytes, TRANSFER)),
        epoch: u32_at(bytes, EPOCH),
        cargo: if has(bytes, flag::SNAPSHOT) { snapshot } else { Cargo::Pipe },
    })
}

fn decode_progress(bytes: &Raw) -> Result<Progress, RecordError> {
    let end = Mark { to: stream_offset(bytes, END_TOTAL), crc32: u32_at(bytes, END_CRC32) };
    let acknowledged =
        Mark { to: stream_offset(bytes, ACKNOWLEDGED), crc32: u32_at(bytes, PREFIX_CRC32) };
    let last_error = meaning_of(&CLASSES, bytes[LAST_ERROR.start]);
    Ok(Progress {
        state: meaning_of(&STATES, bytes[STATE.start]).ok_or(contradiction("state"))?,
        received: stream_offset(bytes, RECEIVED),
        spooled: stream_offset(bytes, SPOOLED),
        fed: stream_offset(bytes, FED),
        acknowledged,
        next_frame: Sequence(u64_at(bytes, NEXT_FRAME)),
        end: (end.to.0 != END_UNKNOWN).then_some(end),
        spool: has(bytes, flag::SPOOL).then(|| decode_spool(bytes)),
        last_error: last_error.ok_or(contradiction("last error"))?,
    })
}

fn decode_spool(bytes: &Raw) -> SpoolExtent {
    SpoolExtent {
        first_segment: SegmentNumber(u32_at(bytes, FIRST_SEGMENT)),
        last_segment: SegmentNumber(u32_at(bytes, LAST_SEGMENT)),
        segment_bytes: Bytes(u64::from(u32_at(bytes, SEGMENT_BYTES))),
        low: stream_offset(bytes, SPOOL_LOW),
        high: stream_offset(bytes, SPOOL_HIGH),
    }
}

/// The checksum that a record carries, right or wrong.
fn checksum(bytes: &Raw) -> Checksum {
    Checksum(u32_at(bytes, CHECKSUM))
}

/// Whether the bytes begin as a record does, whole or not.
pub(super) fn begins_as_record(bytes: &Raw) -> bool {
    bytes[MAGIC] == MAGIC_VALUE
}

/// The sequence in bytes that begin as a record of `file` does, whole or not. Not to be believed:
/// only to be kept from being used again.
pub(super) fn sequence_of_remains(bytes: &Raw, file: FileId) -> Option<RecordSequence> {
    let ours = begins_as_record(bytes) && bytes[FILE] == file.0;
    ours.then(|| RecordSequence::new(u64_at(bytes, SEQUENCE))).flatten()
}

fn contradiction(field: &'static str) -> RecordError {
    RecordError::Contradiction { field }
}

fn has(bytes: &Raw, flag: u8) -> bool {
    bytes[FLAGS.start] & flag & flag::ALL != 0
}

fn number_of<T: PartialEq>(numbers: &[(u8, T)], meaning: &T) -> u8 {
    let found = numbers.iter().find(|(_, other)| other == meaning);
    found.map_or_else(|| unreachable!("every meaning has a number"), |(number, _)| *number)
}

fn meaning_of<T: Copy>(numbers: &[(u8, T)], got: u8) -> Option<T> {
    numbers.iter().find(|(number, _)| *number == got).map(|(_, meaning)| *meaning)
}

fn stream_offset(bytes: &Raw, at: Range<usize>) -> StreamOffset {
    StreamOffset(u64_at(bytes, at))
}

fn u32_at(bytes: &Raw, at: Range<usize>) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &Raw, at: Range<usize>) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

fn bytes_at<const N: usize>(bytes: &Raw, at: Range<usize>) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at]);
    field
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::super::record::tests::full_record;
    use super::*;

    /// `full_record` with one field overwritten and its checksum made right again: what only a
    /// stranger or another version could have written.
    fn forged(at: Range<usize>, field: &[u8]) -> Result<Record, RecordError> {
        let mut bytes = full_record().encode();
        bytes[at].copy_from_slice(field);
        seal(&mut bytes);
        Record::decode(&bytes)
    }

    fn seal(bytes: &mut Raw) {
        let sum = crc32fast::hash(&bytes[..CHECKSUM.start]);
        bytes[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }

    #[test]
    fn what_is_encoded_is_what_is_decoded() {
        let record = full_record();
        assert_eq!(Record::decode(&record.encode()), Ok(record));
        assert_eq!(record.checksum(), checksum(&record.encode()));
    }

    /// The front of `full_record` in version 1, written down: its files must be readable for ever.
    const VERSION_1: [&str; 13] = [
        "f07a66425245414b0100000202023705",
        "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
        "02000000400000008200000000000000",
        "0403020108000000b2b2b2b2b2b2b2b2",
        "b2b2b2b2b2b2b2b207000000efbeadde",
        "8877665544332211ffffffffffffffff",
        "00000040020000000000000002000000",
        "000000c0010000000000008001000000",
        "00240000000000000000008002000000",
        "0df00d60000000040300000005000000",
        "00000040010000000000000002000000",
        "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3",
        "7b5e56eea1010000",
    ];

    #[test]
    fn the_layout_of_version_1_does_not_change() {
        let bytes = full_record().encode();
        let mut hex = String::new();
        for byte in &bytes[..RESERVED.start] {
            write!(hex, "{byte:02x}").unwrap();
        }
        assert_eq!(hex, VERSION_1.concat());
    }

    #[test]
    fn every_flipped_bit_is_caught() {
        let good = full_record().encode();
        for bit in 0..RECORD_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bytes).is_err(), "bit {bit} went unseen");
        }
    }

    #[test]
    fn blank_strange_torn_and_newer_bytes_are_told_apart() {
        assert_eq!(Record::decode(&[0; RECORD_BYTES]), Err(RecordError::Blank));
        assert_eq!(Record::decode(&[b'x'; RECORD_BYTES]), Err(RecordError::Magic));
        let mut torn = full_record().encode();
        torn[300..].fill(0);
        assert!(matches!(Record::decode(&torn), Err(RecordError::Torn { .. })));
        let newer = forged(VERSION, &2_u16.to_le_bytes());
        assert_eq!(newer, Err(RecordError::Version { expected: 1, got: 2 }));
    }

    #[test]
    fn every_field_of_a_forged_record_is_checked() {
        let refused = |at: Range<usize>, field: &[u8], name| {
            assert_eq!(forged(at, field), Err(contradiction(name)), "{field:?}");
        };
        refused(ROLE, &[0], "role");
        refused(ROLE, &[3], "role");
        refused(STATE, &[0], "state");
        refused(STATE, &[5], "state");
        refused(LAST_ERROR, &[10], "last error");
        refused(SLOTS, &1_u32.to_le_bytes(), "slot count");
        refused(SEQUENCE, &0_u64.to_le_bytes(), "sequence");
        refused(SEQUENCE, &u64::MAX.to_le_bytes(), "sequence");
        refused(LENGTH, &513_u16.to_le_bytes(), "form");
        refused(SLOT, &3_u32.to_le_bytes(), "form");
        refused(FLAGS, &[0xff], "form");
        refused(RESERVED.start..RESERVED.start + 1, &[1], "form");
        refused(RESERVED.end - 1..RESERVED.end, &[1], "form");
        refused(TRANSFER, &[0; 4], "transfer");
        refused(FED, &u64::MAX.to_le_bytes(), "fed watermark");
    }

    #[test]
    fn a_field_without_its_flag_is_zero() {
        let all = flags(&full_record());
        for flag in [flag::SNAPSHOT, flag::INCREMENTAL, flag::SPOOL, flag::PARENT] {
            assert_eq!(forged(FLAGS, &[all & !flag]), Err(contradiction("form")), "{flag:#b}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_in_a_right_envelope_are_refused_or_mean_one_thing(
            noise in proptest::collection::vec((0..RESERVED.start, any::<u8>()), 0..6),
        ) {
            let mut bytes = full_record().encode();
            for (at, byte) in noise {
                bytes[at] = byte;
            }
            seal(&mut bytes);
            if let Ok(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
