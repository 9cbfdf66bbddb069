//! Reads a BEGIN record: 312 bytes in the byte order of the sending machine.
//!
//! Its payload is an nvlist of the kernel's. All that a single snapshot has there is where a rest
//! goes on and the wrapped keys of a raw stream, which the receiving kernel checks against what it
//! has; the snapshot's identity is in the record. So of the payload only the length counts here.

use crate::dataset::{Guid, Kind};
use crate::units::Bytes;

/// Of this record and of every other in a stream.
const RECORD_BYTES: usize = 312;

/// The longest payload that is let in. A single snapshot has some hundred bytes; the lists of
/// packages, which are not let in, may have 64 MiB.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;

const MAGIC: u64 = 0x2_f5ba_cbac;

/// `dmu_replay_record_type`: others follow in a stream, and none may come first.
const BEGIN: u32 = 0;

/// `dmu_objset_type`.
const FILESYSTEM: u32 = 2;
const VOLUME: u32 = 3;

/// `DRR_FLAG_CLONE`.
const CLONE: u32 = 1;

/// Where the name of the snapshot stands, up to the end of the record.
const NAME_AT: usize = 56;

/// How a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Whether it is of one snapshot.
    pub form: Form,
    /// What it takes to understand it.
    pub features: Features,
    /// When the snapshot was taken, in seconds since 1970, by the clock over there.
    pub created: u64,
    /// What the snapshot is of.
    pub content: Content,
    /// Whether it builds on a snapshot of another dataset, of which it is a clone.
    pub clone: bool,
    /// The snapshot.
    pub to: Guid,
    /// The snapshot that it builds on.
    pub from: Option<Guid>,
    /// The full name that the snapshot has over there. A stranger's text: shown only escaped.
    pub to_name: String,
    /// The length of the payload behind the record.
    pub payload: Bytes,
}

/// Of how many snapshots a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One, and nothing else (`DMU_SUBSTREAM`).
    Single,
    /// Streams in a row, with a list of what to make of them: datasets, properties, holds
    /// (`DMU_COMPOUNDSTREAM`).
    Package,
    /// None that ZFS knows.
    Unknown(u8),
}

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Of what can be replicated.
    Dataset(Kind),
    /// Of something inside of ZFS, by its number.
    Other(u32),
}

/// The features of a stream, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub u64);

/// Why bytes are no beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// It is something else.
    #[error("it does not begin as a stream of `zfs send` does")]
    NoStream,
    /// It is the middle of a stream.
    #[error("it begins with a record of type {0} and not with the BEGIN record of a stream")]
    Middle(u32),
    /// A list that no single snapshot needs.
    #[error("its BEGIN record announces a list of {0} bytes; at most {PAYLOAD_BYTES_MAX} are read")]
    Payload(u32),
    /// The name has no end, or nothing is in front of it.
    #[error("the name in its BEGIN record is none")]
    Name,
}

impl Features {
    /// `DMU_BACKUP_FEATURE_DEDUP` and `DEDUPPROPS`.
    pub const DEDUPLICATED: Features = Features(1 | 1 << 1);
    /// `DMU_BACKUP_FEATURE_RESUMING`: the rest of a stream.
    pub const RESUMING: Features = Features(1 << 20);
    /// `DMU_BACKUP_FEATURE_REDACTED`: parts are left out.
    pub const REDACTED: Features = Features(1 << 21);
    /// `DMU_BACKUP_FEATURE_RAW`: blocks as they are on the source's disks, encrypted.
    pub const RAW: Features = Features(1 << 24);

    /// Whether one of these is among them.
    pub fn any_of(self, others: Features) -> bool {
        self.0 & others.0 != 0
    }

    /// Those that are not among `others`.
    #[must_use]
    pub fn without(self, others: Features) -> Features {
        Features(self.0 & !others.0)
    }
}

impl Begin {
    /// Reads the record that `stream` begins with; `None` as long as it is not whole.
    pub fn read(stream: &[u8]) -> Result<Option<Begin>, BeginError> {
        let Some(record) = stream.first_chunk::<RECORD_BYTES>() else { return Ok(None) };
        let record = Record::of(record)?;
        let kind = record.u32_at(0);
        if kind != BEGIN {
            return Err(BeginError::Middle(kind));
        }
        let payload = record.u32_at(4);
        if payload > PAYLOAD_BYTES_MAX {
            return Err(BeginError::Payload(payload));
        }
        let version = record.u64_at(16);
        let form = match version & 3 {
            1 => Form::Single,
            2 => Form::Package,
            other => Form::Unknown(u8::try_from(other).unwrap_or(u8::MAX)),
        };
        let content = match record.u32_at(32) {
            FILESYSTEM => Content::Dataset(Kind::Filesystem),
            VOLUME => Content::Dataset(Kind::Volume),
            other => Content::Other(other),
        };
        let from = record.u64_at(48);
        Ok(Some(Begin {
            form,
            // Up to the highest bit: those that nobody uses yet must not pass unseen.
            features: Features(version >> 2),
            created: record.u64_at(24),
            content,
            clone: record.u32_at(36) & CLONE != 0,
            to: Guid(record.u64_at(40)),
            from: (from != 0).then_some(Guid(from)),
            to_name: record.name().ok_or(BeginError::Name)?,
            payload: Bytes(payload.into()),
        }))
    }

    /// How many bytes of a stream the record and its payload are.
    pub fn length(&self) -> usize {
        RECORD_BYTES.saturating_add(self.payload.as_usize())
    }

    /// The part of the snapshot's name behind the `@`; empty where there is none.
    pub fn snapshot(&self) -> &str {
        self.to_name.split_once('@').map_or("", |(_, snapshot)| snapshot)
    }
}

/// A record whose byte order is known.
struct Record<'a> {
    bytes: &'a [u8; RECORD_BYTES],
    big_endian: bool,
}

impl Record<'_> {
    fn of(bytes: &[u8; RECORD_BYTES]) -> Result<Record<'_>, BeginError> {
        [false, true]
            .map(|big_endian| Record { bytes, big_endian })
            .into_iter()
            .find(|record| record.u64_at(8) == MAGIC)
            .ok_or(BeginError::NoStream)
    }

    fn u32_at(&self, at: usize) -> u32 {
        let bytes = self.bytes_at(at);
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u64_at(&self, at: usize) -> u64 {
        let bytes = self.bytes_at(at);
        if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }

    /// `at` is a place of this file's, never one of the stream's.
    fn bytes_at<const COUNT: usize>(&self, at: usize) -> [u8; COUNT] {
        std::array::from_fn(|index| self.bytes[at + index])
    }

    /// Text with an end, and only that.
    fn name(&self) -> Option<String> {
        let field = self.bytes.get(NAME_AT..)?;
        let end = field.iter().position(|&byte| byte == 0)?;
        let name = str::from_utf8(field.get(..end)?).ok()?;
        (!name.is_empty()).then(|| name.to_owned())
    }
}
