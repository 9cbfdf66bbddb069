//! A breakpoint record: one statement of how far a transfer is safe, 512 bytes on disk.
//!
//! Written by the [`keeper`](super::keeper) when what it says has become true, and only then: a
//! record is a lower bound, so that every older one may be believed too. The layout of its bytes
//! is the neighbouring file; here is what a record can say, and what it cannot.

use serde::{Deserialize, Serialize};

use super::identity::{BootId, FileId, RecordSequence, RingSlots, SessionId, SlotIndex};
use crate::dataset::Guid;
use crate::error::Class;
use crate::protocol::message::{DatasetStream, Stream};
use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

/// The length of a record: one sector, the most that a disk writes whole or not at all.
pub const RECORD_BYTES: usize = 512;

/// The length of a slot: one page, the least that can be written past the page cache.
pub const SLOT_BYTES: usize = 4096;

/// How often a record stands in its slot. The page is written anyway, and wherever a write is cut,
/// one whole copy is left: of the new record or of the old one.
pub const COPIES: usize = SLOT_BYTES / RECORD_BYTES;

/// CRC32 of a record's bytes, as it stands at their end: by it the next record knows this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Checksum(pub u32);

/// What one record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The file that it belongs to.
    pub file: FileId,
    /// The ring that it goes around in.
    pub ring: RingSlots,
    /// Its number in the file; also tells its slot.
    pub sequence: RecordSequence,
    /// The record just before it; `None` for the first one and for the first after a crash, which
    /// leaves a number out.
    pub parent: Option<Checksum>,
    /// What is carried.
    pub job: Job,
    /// How far it came.
    pub progress: Progress,
    /// The boot that it was written in: a pipe of another boot is gone.
    pub boot: BootId,
    /// Milliseconds since 1970, for people; clocks jump, so nothing is decided by it.
    pub wall_clock_ms: u64,
}

/// What is carried, and by whom: the same in all records of one keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The side that writes the file.
    pub role: Role,
    /// The session that the transfer belongs to.
    pub session: SessionId,
    /// The transfer's number in the session, from 1.
    pub transfer: TransferId,
    /// The run of `zfs send` and `zfs receive`; no offset means anything in another one.
    pub epoch: u32,
    /// What the stream holds.
    pub cargo: Cargo,
}

/// The side that writes a record file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It holds the snapshot.
    Client,
    /// It wants the snapshot.
    Server,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Cargo {
    /// Bytes between two pipes, of which nothing is known.
    Pipe,
    /// One snapshot.
    Snapshot {
        /// The snapshot that is carried.
        to: Guid,
        /// The one that it builds on; `None` for a full stream.
        from: Option<Guid>,
        /// Blocks travel as they lie on disk, encrypted ones encrypted.
        raw: bool,
        /// The stream was begun with a resume token.
        resumed: bool,
    },
}

/// How far a transfer came. Every number is a lower bound of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Where the transfer stands in its life.
    pub state: State,
    /// Everything before it was in this process's memory: read from `zfs send`, or received.
    pub received: StreamOffset,
    /// Everything of the spool before it is durable; 0 where nothing is spooled.
    pub spooled: StreamOffset,
    /// Everything before it was taken: by the sockets at a client, by the pipe at a server.
    pub fed: StreamOffset,
    /// What the server may acknowledge because of this record, or what the client heard
    /// acknowledged; with the CRC32 that proves it is the same stream.
    pub acknowledged: Mark,
    /// The number of the next frame of the session.
    pub next_frame: Sequence,
    /// The stream's end, once it is known.
    pub end: Option<Mark>,
    /// What lies in breakpoint files.
    pub spool: Option<SpoolExtent>,
    /// Why the transfer was last in trouble; for people.
    pub last_error: Option<Class>,
}

/// A place in a stream, and the proof of all that stands before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Mark {
    /// The place.
    pub to: StreamOffset,
    /// CRC32 of the stream's bytes from 0 to there.
    pub crc32: u32,
}

/// A contiguous part of the stream in the breakpoint files: `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SpoolExtent {
    /// The segment that holds the byte at `low`.
    pub first_segment: SegmentNumber,
    /// The segment that holds the byte before `high`.
    pub last_segment: SegmentNumber,
    /// The length of each segment: whole pages.
    pub segment_bytes: Bytes,
    /// The first byte that is still there.
    pub low: StreamOffset,
    /// Behind the last byte that is durable.
    pub high: StreamOffset,
}

/// The number of a segment among a transfer's breakpoint files: growing, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SegmentNumber(pub u32);

/// Where a transfer stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its end is not in sight.
    Streaming,
    /// `zfs send` has ended well, and the length of the stream is known.
    Ended,
    /// The target holds the snapshot: its guid was read back.
    Applied,
    /// Given up; nothing goes on from here.
    Abandoned,
}

/// Why 512 bytes are not a record that we could believe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum RecordError {
    /// Nothing was ever written there.
    #[error("it is blank")]
    Blank,
    /// Something else stands there.
    #[error("it does not begin as a record does")]
    Magic,
    /// It was cut off or damaged.
    #[error("its CRC32 is {expected:#010x}, but its bytes give {got:#010x}")]
    Torn {
        /// What the record says.
        expected: u32,
        /// What its bytes give.
        got: u32,
    },
    /// Another zferry wrote it.
    #[error("it has version {got}; this zferry reads version {expected}")]
    Version {
        /// Ours.
        expected: u16,
        /// What stood there.
        got: u16,
    },
    /// A whole record whose fields contradict each other: no zferry wrote that.
    #[error("its {field} cannot be")]
    Contradiction {
        /// The first field that is wrong.
        field: &'static str,
    },
}

impl Record {
    /// The slot that it belongs to.
    pub fn slot(&self) -> SlotIndex {
        self.sequence.slot(self.ring)
    }

    /// Whether the fields go together: asked where we write and where we read.
    pub(super) fn check(&self) -> Result<(), RecordError> {
        let Record { sequence, parent, job, progress, .. } = self;
        let first = *sequence == RecordSequence::FIRST;
        let rules = [
            ("parent", !(first && parent.is_some())),
            ("transfer", job.transfer != TransferId(0)),
            ("guids", job.cargo.is_consistent()),
        ];
        let broken = rules.into_iter().chain(progress.rules()).find(|(_, kept)| !kept);
        match broken {
            Some((field, _)) => Err(RecordError::Contradiction { field }),
            None => Ok(()),
        }
    }
}

impl Cargo {
    /// What a stream is said to hold; `None` where no two snapshots of ZFS could have its guids.
    pub fn of(stream: &Stream) -> Option<Cargo> {
        let cargo = match stream {
            Stream::Pipe => Cargo::Pipe,
            &Stream::Dataset(DatasetStream { to, from, raw, resumed, .. }) => {
                Cargo::Snapshot { to, from, raw, resumed }
            }
        };
        cargo.is_consistent().then_some(cargo)
    }

    /// ZFS gives no snapshot the guid 0, and no snapshot builds on itself.
    fn is_consistent(&self) -> bool {
        match self {
            Cargo::Pipe => true,
            Cargo::Snapshot { to, from, .. } => {
                *to != Guid(0) && *from != Some(Guid(0)) && *from != Some(*to)
            }
        }
    }
}

impl Progress {
    /// Before the first byte.
    pub const BEGUN: Progress = Progress {
        state: State::Streaming,
        received: StreamOffset(0),
        spooled: StreamOffset(0),
        fed: StreamOffset(0),
        acknowledged: Mark { to: StreamOffset(0), crc32: 0 },
        next_frame: Sequence(0),
        end: None,
        spool: None,
        last_error: None,
    };

    fn rules(&self) -> [(&'static str, bool); 6] {
        let Progress { state, received, acknowledged, end, spool, .. } = *self;
        let end_is_far_enough = end.is_none_or(|end| received <= end.to);
        // The CRC32 of nothing is 0.
        let proof = acknowledged.to != StreamOffset(0) || acknowledged.crc32 == 0;
        let spooled = spool.map_or(StreamOffset(0), |spool| spool.high);
        [
            ("spooled watermark", self.spooled <= received && self.spooled == spooled),
            ("fed watermark", self.fed <= received),
            ("acknowledged watermark", acknowledged.to <= received && proof),
            ("end of the stream", end_is_far_enough),
            ("state", end.is_some() || matches!(state, State::Streaming | State::Abandoned)),
            ("spool", spool.is_none_or(|spool| spool.is_consistent())),
        ]
    }
}

impl SpoolExtent {
    fn is_consistent(&self) -> bool {
        let bytes = self.segment_bytes.0;
        self.first_segment <= self.last_segment
            && self.low <= self.high
            && bytes > 0
            && bytes.is_multiple_of(SLOT_BYTES as u64)
            && u32::try_from(bytes).is_ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn sequence(number: u64) -> RecordSequence {
        RecordSequence::new(number).unwrap()
    }

    /// A record in which every field has a value that is nowhere else.
    pub fn full_record() -> Record {
        Record {
            file: FileId([0xa1; 16]),
            ring: RingSlots::STANDARD,
            sequence: sequence(130),
            parent: Some(Checksum(0x0102_0304)),
            job: Job {
                role: Role::Server,
                session: SessionId([0xb2; 16]),
                transfer: TransferId(7),
                epoch: 8,
                cargo: Cargo::Snapshot {
                    to: Guid(0x1122_3344_5566_7788),
                    from: Some(Guid(u64::MAX)),
                    raw: true,
                    resumed: false,
                },
            },
            progress: Progress {
                state: State::Ended,
                received: StreamOffset(9 << 30),
                spooled: StreamOffset(8 << 30),
                fed: StreamOffset(7 << 30),
                acknowledged: Mark { to: StreamOffset(6 << 30), crc32: 0xdead_beef },
                next_frame: Sequence(9216),
                end: Some(Mark { to: StreamOffset(10 << 30), crc32: 0x600d_f00d }),
                spool: Some(SpoolExtent {
                    first_segment: SegmentNumber(3),
                    last_segment: SegmentNumber(5),
                    segment_bytes: Bytes(64 << 20),
                    low: StreamOffset(5 << 30),
                    high: StreamOffset(8 << 30),
                }),
                last_error: Some(Class::Wait),
            },
            boot: BootId([0xc3; 16]),
            wall_clock_ms: 1_795_000_000_123,
        }
    }

    /// What `check` says after a change to a good record.
    fn changed(change: impl FnOnce(&mut Record)) -> Result<(), RecordError> {
        let mut record = full_record();
        change(&mut record);
        record.check()
    }

    fn contradiction(field: &'static str) -> Result<(), RecordError> {
        Err(RecordError::Contradiction { field })
    }

    #[test]
    fn fields_that_contradict_each_other_are_named() {
        assert_eq!(changed(|_| ()), Ok(()));
        let parent = changed(|record| record.sequence = RecordSequence::FIRST);
        assert_eq!(parent, contradiction("parent"));
        let transfer = changed(|record| record.job.transfer = TransferId(0));
        assert_eq!(transfer, contradiction("transfer"));
        for (to, from) in [(0, None), (1, Some(0)), (1, Some(1))] {
            let (to, from) = (Guid(to), from.map(Guid));
            let cargo = Cargo::Snapshot { to, from, raw: false, resumed: false };
            assert_eq!(changed(|record| record.job.cargo = cargo), contradiction("guids"));
        }
    }

    #[test]
    fn no_watermark_passes_what_was_received() {
        let beyond = StreamOffset((9 << 30) + 1);
        let spooled = changed(|record| record.progress.spooled = beyond);
        assert_eq!(spooled, contradiction("spooled watermark"));
        let fed = changed(|record| record.progress.fed = beyond);
        assert_eq!(fed, contradiction("fed watermark"));
        let acknowledged = changed(|record| record.progress.acknowledged.to = beyond);
        assert_eq!(acknowledged, contradiction("acknowledged watermark"));
        let received = changed(|record| record.progress.received = StreamOffset(u64::MAX));
        assert_eq!(received, contradiction("end of the stream"));
    }

    #[test]
    fn the_crc32_of_nothing_is_zero() {
        let mark = Mark { to: StreamOffset(0), crc32: 1 };
        let proof = changed(|record| record.progress.acknowledged = mark);
        assert_eq!(proof, contradiction("acknowledged watermark"));
    }

    #[test]
    fn a_stream_has_ended_only_when_its_length_is_known() {
        for (state, kept) in [
            (State::Streaming, true),
            (State::Ended, false),
            (State::Applied, false),
            (State::Abandoned, true),
        ] {
            let told = changed(|record| {
                record.progress.end = None;
                record.progress.state = state;
            });
            assert_eq!(told.is_ok(), kept, "{state:?}");
        }
    }

    #[test]
    fn a_spool_ends_where_the_watermark_says_and_begins_before() {
        let none = changed(|record| record.progress.spool = None);
        assert_eq!(none, contradiction("spooled watermark"));
        let changes: [fn(&mut SpoolExtent); 5] = [
            |spool| spool.low = StreamOffset(spool.high.0 + 1),
            |spool| spool.first_segment = SegmentNumber(6),
            |spool| spool.segment_bytes = Bytes(0),
            |spool| spool.segment_bytes = Bytes(4097),
            |spool| spool.segment_bytes = Bytes(1 << 32),
        ];
        for change in changes {
            let told = changed(|record| change(record.progress.spool.as_mut().unwrap()));
            assert_eq!(told, contradiction("spool"));
        }
    }

    #[test]
    #[should_panic(expected = "a record of our own is wrong")]
    fn a_contradiction_of_our_own_does_not_reach_a_disk() {
        let mut record = full_record();
        record.progress.fed = StreamOffset(u64::MAX);
        let _ = record.encode();
    }

    #[test]
    fn a_slot_is_full_of_copies() {
        let record = full_record();
        let slot = record.encode_slot();
        assert_eq!(COPIES, 8);
        assert!(slot.as_chunks::<RECORD_BYTES>().0.iter().all(|copy| *copy == record.encode()));
    }
}
