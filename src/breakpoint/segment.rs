//! A breakpoint file: blocks as they would go over the wire, page after page.
//!
//! Segments of one size, each a file of its own, preallocated and written from the front. An entry
//! is one page with a header at its very end, and the payload behind it, padded to whole pages:
//! so a slot of the cache, which keeps a page free in front of its block, is written as it lies,
//! in one aligned write. What stands in the rest of the header's page and in the padding is
//! whatever was in the slot, and never looked at.
//!
//! After a crash a segment is read from the front to the first entry that is not whole; what may
//! stand behind that is not believed, for writes end in any order.

#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::Serialize;

use super::identity::FileId;
use super::record::SegmentNumber;
use crate::protocol::frame::{FrameError, HEADER_BYTES, Header};
use crate::units::{Bytes, StreamOffset};

/// The unit of every place and length in a segment.
pub const PAGE_BYTES: usize = 4096;

/// The length of an entry's header: the stamp of the file, and the frame's own header behind it.
pub const ENTRY_HEADER_BYTES: usize = 96;

/// Where the header stands in the entry's first page: at its end, in front of the payload.
pub const ENTRY_HEADER: Range<usize> = PAGE_BYTES - ENTRY_HEADER_BYTES..PAGE_BYTES;

const MAGIC: Range<usize> = 0..8;
const FILE: Range<usize> = 8..24;
const SEGMENT: Range<usize> = 24..28;
const PAGE: Range<usize> = 28..32;
const PAYLOAD_CRC32: Range<usize> = 32..36;
const RESERVED: Range<usize> = 36..44;
const CHECKSUM: Range<usize> = 44..48;
const FRAME: Range<usize> = 48..96;
/// The last field of the frame's header.
const FRAME_CRC32: Range<usize> = 92..96;

const _: () = {
    assert!(MAGIC.start == 0 && MAGIC.end == FILE.start);
    assert!(FILE.end == SEGMENT.start && SEGMENT.end == PAGE.start);
    assert!(PAGE.end == PAYLOAD_CRC32.start && PAYLOAD_CRC32.end == RESERVED.start);
    assert!(RESERVED.end == CHECKSUM.start && CHECKSUM.end == FRAME.start);
    assert!(FRAME.end - FRAME.start == HEADER_BYTES && FRAME.end == ENTRY_HEADER_BYTES);
    assert!(FRAME_CRC32.end == FRAME.end);
};

/// A byte that is not ASCII in front, so that no text looks like an entry.
const MAGIC_VALUE: [u8; 8] = *b"\xf0zfSPOOL";

/// How many pages a segment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SegmentPages(u32);

/// A page among all segments of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The segment.
    pub segment: SegmentNumber,
    /// The page within it, counted from 0.
    pub page: u32,
}

/// A block in a segment, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its first page stands.
    pub at: Position,
    /// The block, as its frame says.
    pub frame: Header,
    /// CRC32 of the payload as it is stored: says whether it is whole without unpacking it.
    pub payload_crc32: u32,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The entries from its front, one continuing the other.
    pub entries: Vec<Entry>,
    /// Why there are no more.
    pub end: End,
}

/// Why a scan stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The segment is full.
    #[error("it is full")]
    Full,
    /// Nothing was ever written there.
    #[error("nothing was written from page {page} on")]
    Blank {
        /// The first page that is free.
        page: u32,
    },
    /// What stands there is no entry that could be believed.
    #[error("page {page}: {error}")]
    Broken {
        /// Where.
        page: u32,
        /// Why.
        error: EntryError,
        /// How many headers of entries stand behind it: of no use, but they were written.
        behind: usize,
    },
}

/// Why an entry is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Something else stands there.
    #[error("it does not begin as an entry does")]
    Magic,
    /// The header was damaged.
    #[error("its header's CRC32 is {expected:#010x}, but its bytes give {got:#010x}")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What its bytes give.
        got: u32,
    },
    /// Bytes that this version leaves zero.
    #[error("its reserved bytes are not zero: a newer zferry may have written it")]
    Reserved,
    /// It belongs to another transfer.
    #[error("it belongs to file {file}")]
    Foreign {
        /// The one that it names.
        file: FileId,
    },
    /// It belongs elsewhere: an older use of the segment, or a mix-up of the disk.
    #[error("it belongs to segment {}, page {}", .at.segment.0, .at.page)]
    Misplaced {
        /// The place that it names.
        at: Position,
    },
    /// The frame's header is wrong.
    #[error("its frame is wrong: {0}")]
    Frame(FrameError),
    /// It does not fit into what is left of the segment.
    #[error("it has {pages} pages, and {left} are left")]
    PastEnd {
        /// How long it says to be.
        pages: u32,
        /// What there is.
        left: u32,
    },
    /// Its payload was cut off or damaged.
    #[error("its payload's CRC32 is {expected:#010x}, but the bytes give {got:#010x}")]
    Payload {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        got: u32,
    },
    /// It does not continue the one before it.
    #[error("it begins at {got} of the stream, and the one before it ends at {expected}")]
    Order {
        /// Where the one before it ends.
        expected: StreamOffset,
        /// Where it begins.
        got: StreamOffset,
    },
    /// It is of another transfer or epoch than the one before it.
    #[error("it is of another transfer or epoch than the one before it")]
    Stream,
}

impl SegmentPages {
    /// 64 MiB: large enough that making files costs nothing, small enough to give space back soon.
    pub const STANDARD: SegmentPages = SegmentPages(16384);

    /// Segments of `pages` pages: two at least, for the smallest entry.
    pub const fn new(pages: u32) -> Option<SegmentPages> {
        if pages >= 2 { Some(SegmentPages(pages)) } else { None }
    }

    /// The number of pages.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The length of a segment.
    pub fn bytes(self) -> Bytes {
        Bytes(u64::from(self.0) * PAGE_BYTES as u64)
    }
}

impl Position {
    /// Where an entry with this payload goes if everything before this position is taken, and the
    /// position behind it. It goes to the next segment where it does not fit into this one.
    /// `None` for a payload larger than a segment, and at the end of all segments.
    pub fn place(self, payload_bytes: u32, size: SegmentPages) -> Option<(Position, Position)> {
        let pages = entry_pages(payload_bytes);
        if pages > size.0 {
            return None;
        }
        let fits = self.page.checked_add(pages).is_some_and(|end| end <= size.0);
        let at = if fits { self } else { self.next_segment()? };
        Some((at, Position { page: at.page + pages, ..at }))
    }

    fn next_segment(self) -> Option<Position> {
        Some(Position { segment: SegmentNumber(self.segment.0.checked_add(1)?), page: 0 })
    }

    /// Where the page begins in its segment's file.
    pub fn file_offset(self) -> Bytes {
        Bytes(u64::from(self.page) * PAGE_BYTES as u64)
    }
}

/// How many pages an entry with this payload takes: its header's and the payload's.
pub fn entry_pages(payload_bytes: u32) -> u32 {
    // At most 2^20 + 1.
    1 + payload_bytes.div_ceil(PAGE_BYTES_U32)
}

const PAGE_BYTES_U32: u32 = 4096;
const _: () = assert!(PAGE_BYTES_U32 as usize == PAGE_BYTES);

impl Entry {
    /// How many pages it takes.
    pub fn pages(&self) -> u32 {
        entry_pages(self.frame.payload_bytes)
    }

    /// Where its payload stands in the bytes of its segment.
    pub fn payload(&self) -> Range<usize> {
        let start = (self.at.page as usize + 1) * PAGE_BYTES;
        start..start + self.frame.payload_bytes as usize
    }

    /// The header's bytes, for [`ENTRY_HEADER`] of the entry's first page.
    ///
    /// # Panics
    ///
    /// When the frame's fields contradict each other: that is our own mistake.
    pub fn encode(&self, file: FileId) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        bytes[MAGIC].copy_from_slice(&MAGIC_VALUE);
        bytes[FILE].copy_from_slice(&file.0);
        bytes[SEGMENT].copy_from_slice(&self.at.segment.0.to_le_bytes());
        bytes[PAGE].copy_from_slice(&self.at.page.to_le_bytes());
        bytes[PAYLOAD_CRC32].copy_from_slice(&self.payload_crc32.to_le_bytes());
        bytes[FRAME].copy_from_slice(&self.frame.encode());
        let sum = checksum(&bytes);
        bytes[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The entry whose header this is, every field checked against the place where it was read.
    /// The payload is not looked at.
    pub fn decode(
        bytes: &[u8; ENTRY_HEADER_BYTES],
        file: FileId,
        at: Position,
        block_bytes_max: Bytes,
    ) -> Result<Entry, EntryError> {
        let (named, named_at) = check_stamp(bytes)?;
        if named != file {
            return Err(EntryError::Foreign { file: named });
        }
        if named_at != at {
            return Err(EntryError::Misplaced { at: named_at });
        }
        let frame = Header::decode(&bytes_at(bytes, FRAME), block_bytes_max);
        let frame = frame.map_err(EntryError::Frame)?;
        Ok(Entry { at, frame, payload_crc32: u32_at(bytes, PAYLOAD_CRC32) })
    }

    /// Whether these bytes are its payload as it was stored.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), EntryError> {
        let (expected, got) = (self.payload_crc32, crc32fast::hash(payload));
        if got == expected { Ok(()) } else { Err(EntryError::Payload { expected, got }) }
    }

    /// Whether this one goes on where `before` ends.
    fn check_order(&self, before: &Entry) -> Result<(), EntryError> {
        let (this, that) = (self.frame, before.frame);
        if (this.transfer, this.epoch) != (that.transfer, that.epoch) {
            return Err(EntryError::Stream);
        }
        let expected = that.offset.after(Bytes(u64::from(that.plain_bytes)));
        match expected {
            Some(expected) if expected != this.offset => {
                Err(EntryError::Order { expected, got: this.offset })
            }
            _ => Ok(()),
        }
    }
}

/// Reads a segment from the front. `bytes` may end early; no block is larger than
/// `block_bytes_max`.
pub fn scan(bytes: &[u8], file: FileId, segment: SegmentNumber, block_bytes_max: Bytes) -> Scan {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = Position { segment, page: 0 };
    loop {
        let read = read_entry(bytes, file, at, block_bytes_max);
        let read = read.and_then(|entry| match (entry, entries.last()) {
            (Some(entry), Some(before)) => entry.check_order(before).map(|()| Some(entry)),
            (entry, _) => Ok(entry),
        });
        let page = at.page;
        let end = match read {
            Ok(Some(entry)) => {
                at.page += entry.pages();
                entries.push(entry);
                continue;
            }
            Ok(None) if page >= pages_of(bytes) => End::Full,
            Ok(None) => End::Blank { page },
            Err(error) => {
                let behind = count_behind(bytes, file, at, block_bytes_max);
                End::Broken { page, error, behind }
            }
        };
        return Scan { entries, end };
    }
}

/// The file and the segment that the first header which is whole names: for a reader who was told
/// neither.
pub fn identify(bytes: &[u8]) -> Option<(FileId, SegmentNumber)> {
    let (file, at) = headers(bytes).find_map(|header| check_stamp(header).ok())?;
    Some((file, at.segment))
}

/// Whether anything in these bytes begins as an entry does.
pub fn looks_like_segment(bytes: &[u8]) -> bool {
    headers(bytes).any(|header| header[MAGIC] == MAGIC_VALUE)
}

fn headers(bytes: &[u8]) -> impl Iterator<Item = &[u8; ENTRY_HEADER_BYTES]> {
    bytes.as_chunks::<PAGE_BYTES>().0.iter().filter_map(|page| page.last_chunk())
}

/// The entry at a page, whole; `None` where nothing was written or the bytes end.
fn read_entry(
    bytes: &[u8],
    file: FileId,
    at: Position,
    block_bytes_max: Bytes,
) -> Result<Option<Entry>, EntryError> {
    let Some(header) = header_at(bytes, at.page) else { return Ok(None) };
    if *header == [0; ENTRY_HEADER_BYTES] {
        return Ok(None);
    }
    let entry = Entry::decode(header, file, at, block_bytes_max)?;
    let left = pages_of(bytes) - at.page;
    if entry.pages() > left {
        return Err(EntryError::PastEnd { pages: entry.pages(), left });
    }
    entry.check_payload(&bytes[entry.payload()])?;
    Ok(Some(entry))
}

/// Payloads are not looked at: hostile ones could lie across each other, and cost hours.
fn count_behind(bytes: &[u8], file: FileId, broken: Position, block_bytes_max: Bytes) -> usize {
    let headers = (broken.page + 1..pages_of(bytes)).filter(|&page| {
        let decoded = header_at(bytes, page).map(|header| {
            let at = Position { page, ..broken };
            Entry::decode(header, file, at, block_bytes_max)
        });
        matches!(decoded, Some(Ok(_)))
    });
    headers.count()
}

fn pages_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() / PAGE_BYTES).unwrap_or(u32::MAX)
}

fn header_at(bytes: &[u8], page: u32) -> Option<&[u8; ENTRY_HEADER_BYTES]> {
    let page = bytes.as_chunks::<PAGE_BYTES>().0.get(page as usize)?;
    page.last_chunk()
}

/// Magic before CRC32, CRC32 before every field; then what the header says about itself.
fn check_stamp(bytes: &[u8; ENTRY_HEADER_BYTES]) -> Result<(FileId, Position), EntryError> {
    if bytes[MAGIC] != MAGIC_VALUE {
        return Err(EntryError::Magic);
    }
    let (expected, got) = (u32_at(bytes, CHECKSUM), checksum(bytes));
    if got != expected {
        return Err(EntryError::Checksum { expected, got });
    }
    if bytes[RESERVED] != [0; 8] {
        return Err(EntryError::Reserved);
    }
    let segment = SegmentNumber(u32_at(bytes, SEGMENT));
    Ok((FileId(bytes_at(bytes, FILE)), Position { segment, page: u32_at(bytes, PAGE) }))
}

/// CRC32 of the stamp and of the frame's own CRC32: a stamp that is right in front of the frame of
/// another write does not count. Not of the whole frame: CRC32 over bytes that end with their own
/// CRC32 is the same for all bytes.
fn checksum(bytes: &[u8; ENTRY_HEADER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CHECKSUM.start]);
    hasher.update(&bytes[FRAME_CRC32]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8; ENTRY_HEADER_BYTES], at: Range<usize>) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn bytes_at<const N: usize>(bytes: &[u8; ENTRY_HEADER_BYTES], at: Range<usize>) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at]);
    field
}
