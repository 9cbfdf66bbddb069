//! Breakpoint files for what the cache has no room for: made, placed, opened, deleted.
//!
//! They live as long as the process, so nothing in them is made durable; `inspect` reads them all
//! the same, for an entry looks as it always does. A file is deleted as soon as all that stands in
//! it has been read back, and its number is never given again. The bytes themselves are moved by
//! whoever asks where: from and to the slots of the cache, without a copy.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sys::direct::{BulkFile, space};

use super::folder::{Folder, SEGMENT_PREFIX};
use crate::breakpoint::record::SegmentNumber;
use crate::breakpoint::segment::{
    ENTRY_HEADER, ENTRY_HEADER_BYTES, Entry, EntryError, PAGE_BYTES, Position, SegmentPages,
};
use crate::protocol::frame::Header;
use crate::units::Bytes;

/// The part of the file system that is left free where no limit was given: a twentieth.
const LEFT_FREE: u64 = 20;

/// Where the first entry goes.
pub const START: Position = Position { segment: SegmentNumber(1), page: 0 };

/// The breakpoint files of one process. Dropped, they are removed.
#[derive(Debug)]
pub struct Segments {
    folder: Folder,
    size: SegmentPages,
    max: Option<Bytes>,
    next: Position,
    /// In the order of their numbers, without a gap; the last one is being written.
    live: VecDeque<Live>,
    writing: Option<BulkFile>,
    reading: Option<(SegmentNumber, Arc<OwnedFd>)>,
}

/// One file.
#[derive(Debug)]
struct Live {
    number: SegmentNumber,
    direct: bool,
    /// Entries that have not been read back.
    entries: u32,
}

/// Room for one entry.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it goes.
    pub at: Position,
    /// The file.
    pub fd: Arc<OwnedFd>,
}

impl Segments {
    /// Makes a folder for files of `size` inside of `parent`. They take `max` bytes together; where
    /// there is no such limit, all but a twentieth of the file system.
    pub fn create(parent: &Path, size: SegmentPages, max: Option<Bytes>) -> io::Result<Segments> {
        let folder = Folder::create(parent)?;
        let (live, writing, reading) = (VecDeque::new(), None, None);
        Ok(Segments { folder, size, max, next: START, live, writing, reading })
    }

    /// Takes the next place for an entry. `None`: the limit is reached, until files are deleted.
    ///
    /// Fails where a file cannot be made.
    pub fn place(&mut self, payload_bytes: u32) -> io::Result<Option<Place>> {
        let no_place = || io::Error::other("a block is larger than a breakpoint file");
        let (at, next) = self.next.place(payload_bytes, self.size).ok_or_else(no_place)?;
        let is_new = self.live.back().is_none_or(|last| last.number != at.segment);
        if is_new {
            if !self.has_room()? {
                return Ok(None);
            }
            self.begin(at.segment)?;
        }
        let (Some(live), Some(file)) = (self.live.back_mut(), &self.writing) else {
            unreachable!("the last file is open for writing");
        };
        live.entries += 1;
        self.next = next;
        Ok(Some(Place { at, fd: Arc::clone(file.fd()) }))
    }

    /// The file to read an entry of a segment from.
    pub fn reader(&mut self, segment: SegmentNumber) -> io::Result<Arc<OwnedFd>> {
        if let Some((open, fd)) = &self.reading
            && *open == segment
        {
            return Ok(Arc::clone(fd));
        }
        let direct = self.live.iter().any(|live| live.number == segment && live.direct);
        let fd = BulkFile::open(&self.path(segment), direct)?;
        self.reading = Some((segment, Arc::clone(&fd)));
        Ok(fd)
    }

    /// An entry of a segment is of no more use there: it was read back, or never written.
    pub fn release(&mut self, segment: SegmentNumber) {
        if let Some(live) = self.live.iter_mut().find(|live| live.number == segment) {
            live.entries = live.entries.saturating_sub(1);
        }
        self.delete_read();
    }

    /// The file of a segment.
    pub fn path(&self, segment: SegmentNumber) -> PathBuf {
        self.folder.path().join(format!("{SEGMENT_PREFIX}{:08}", segment.0))
    }

    /// The header of an entry, for [`ENTRY_HEADER`] of its first page.
    pub fn stamp(&self, entry: &Entry) -> [u8; ENTRY_HEADER_BYTES] {
        entry.encode(self.folder.id())
    }

    /// The frame in `bytes`, which were read at `at`: header and payload as they were written.
    pub fn prove(
        &self,
        bytes: &[u8],
        at: Position,
        block_bytes_max: Bytes,
    ) -> Result<Header, EntryError> {
        let header = bytes.get(ENTRY_HEADER).and_then(|header| header.try_into().ok());
        let header = header.ok_or(EntryError::Magic)?;
        let entry = Entry::decode(header, self.folder.id(), at, block_bytes_max)?;
        let payload = PAGE_BYTES..PAGE_BYTES + entry.frame.payload_bytes as usize;
        let left = u32::try_from(bytes.len() / PAGE_BYTES).unwrap_or(u32::MAX);
        let past_end = EntryError::PastEnd { pages: entry.pages(), left };
        entry.check_payload(bytes.get(payload).ok_or(past_end)?)?;
        Ok(entry.frame)
    }

    fn has_room(&self) -> io::Result<bool> {
        let bytes = self.size.bytes().0;
        if let Some(Bytes(max)) = self.max {
            let taken = bytes.saturating_mul(self.live.len() as u64 + 1);
            return Ok(taken <= max);
        }
        let space = space(self.folder.path())?;
        Ok(space.available.saturating_sub(bytes) >= space.total / LEFT_FREE)
    }

    fn begin(&mut self, number: SegmentNumber) -> io::Result<()> {
        let path = self.path(number);
        let file = BulkFile::create(&path, self.size.bytes().0).map_err(|error| {
            io::Error::new(error.kind(), format!("make {}: {error}", path.display()))
        })?;
        self.live.push_back(Live { number, direct: file.is_direct(), entries: 0 });
        self.writing = Some(file);
        // All of the one before may have been read back while it was the last.
        self.delete_read();
        Ok(())
    }

    /// Deletes the files at the front of which all has been read back; the last is being written.
    fn delete_read(&mut self) {
        while self.live.len() > 1 && self.live.front().is_some_and(|first| first.entries == 0) {
            let Some(first) = self.live.pop_front() else { return };
            self.delete(first.number);
        }
    }

    fn delete(&mut self, number: SegmentNumber) {
        if self.reading.as_ref().is_some_and(|(open, _)| *open == number) {
            self.reading = None;
        }
        let path = self.path(number);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!("remove {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: SegmentPages = SegmentPages::new(4).unwrap();

    fn segments(parent: &Path, max: Option<Bytes>) -> Segments {
        Segments::create(parent, SMALL, max).unwrap()
    }

    /// An entry of two pages, of which a small segment has room for two.
    fn place(segments: &mut Segments) -> Option<(u32, u32)> {
        let place = segments.place(100).unwrap()?;
        Some((place.at.segment.0, place.at.page))
    }

    fn files(segments: &Segments) -> Vec<String> {
        let entries = fs::read_dir(segments.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_goes_when_all_of_it_was_read_and_its_name_is_not_given_again() {
        let parent = tempfile::tempdir().unwrap();
        let mut segments = segments(parent.path(), None);
        let placed: Vec<_> = (0..5).map(|_| place(&mut segments).unwrap()).collect();
        assert_eq!(placed, [(1, 0), (1, 2), (2, 0), (2, 2), (3, 0)]);
        segments.release(SegmentNumber(2));
        segments.release(SegmentNumber(1));
        assert_eq!(files(&segments).len(), 3);
        segments.release(SegmentNumber(1));
        assert_eq!(files(&segments), ["segment-00000002", "segment-00000003"]);
        segments.release(SegmentNumber(2));
        segments.release(SegmentNumber(3));
        assert_eq!(files(&segments), ["segment-00000003"], "the last is being written");
        assert_eq!((place(&mut segments), place(&mut segments)), (Some((3, 2)), Some((4, 0))));
        segments.release(SegmentNumber(3));
        assert_eq!(files(&segments), ["segment-00000004"]);
        drop(segments);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_limit_holds_until_a_file_has_gone() {
        let parent = tempfile::tempdir().unwrap();
        let mut segments = segments(parent.path(), Some(Bytes(2 * 4 * 4096 + 5)));
        let placed = std::iter::from_fn(|| place(&mut segments)).count();
        assert_eq!(placed, 4);
        segments.release(SegmentNumber(1));
        assert_eq!(place(&mut segments), None);
        segments.release(SegmentNumber(1));
        assert_eq!(place(&mut segments), Some((3, 0)));
    }

    #[test]
    fn a_file_has_its_blocks_and_only_its_owner_may_read_it() {
        use std::os::unix::fs::MetadataExt;
        let parent = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut segments = segments(parent.path(), None);
        place(&mut segments).unwrap();
        let metadata = fs::metadata(segments.path(SegmentNumber(1))).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, 4 * 4096));
        assert!(metadata.blocks() * 512 >= 4 * 4096);
    }
}
