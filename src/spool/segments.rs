//! Breakpoint files: made, placed, opened, deleted.
//!
//! Those for what the cache has no room for live as long as the process, so nothing in them is
//! made durable; `inspect` reads them all the same, for an entry looks as it always does. A file
//! is deleted as soon as all that stands in it has been read back. Those of a stream that shall
//! outlive its process stay until the records of that stream do not claim them any more. No number
//! is ever given again. The bytes themselves are moved by whoever asks where: from and to the
//! slots of the cache, without a copy.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sys::direct::{BulkFile, space};

use super::folder::{Folder, SEGMENT_PREFIX};
use super::share::Account;
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

/// Where breakpoint files go, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// What goes to them.
    pub when: When,
    /// The folder that they are made in, those of each stream or process in one of its own.
    pub folder: PathBuf,
    /// How large one is.
    pub segment: SegmentPages,
    /// What they may take together; `None`: all but a twentieth of the file system.
    pub max: Option<Bytes>,
    /// Of a room that others share, besides.
    pub account: Option<Arc<Account>>,
}

/// Which blocks are written to breakpoint files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Those that the cache has no room for.
    Full,
    /// All, durably: the stream outlives the process.
    Always,
}

/// The breakpoint files in one folder.
#[derive(Debug)]
pub struct Segments {
    folder: Folder,
    size: SegmentPages,
    max: Option<Bytes>,
    account: Option<Arc<Account>>,
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
        Ok(Segments::within(Folder::create(parent)?, size, max))
    }

    /// The files in a folder, none so far: of a stream that outlives its process, if the folder
    /// does; otherwise as [`Segments::create`].
    pub fn within(folder: Folder, size: SegmentPages, max: Option<Bytes>) -> Segments {
        let (live, writing, reading) = (VecDeque::new(), None, None);
        Segments { folder, size, max, account: None, next: START, live, writing, reading }
    }

    /// The same, whose room is on an account; what is there counts.
    #[must_use]
    pub fn on(mut self, account: Option<Arc<Account>>) -> Segments {
        if let Some(account) = &account {
            self.live.iter().for_each(|_| account.count(self.size.bytes()));
        }
        self.account = account;
        self
    }

    /// The same where a dead process has left files, of which those of an `extent` count, from a
    /// segment on and up to a position: what stands there otherwise is removed, and what is written
    /// now goes to a new file.
    ///
    /// Fails where it cannot be removed: then it could be taken for what is written now.
    pub fn go_on(
        folder: Folder,
        size: SegmentPages,
        max: Option<Bytes>,
        extent: Option<(SegmentNumber, Position)>,
    ) -> io::Result<Segments> {
        let found = numbers(folder.path())?;
        let highest = found.last().copied();
        let Some(highest) = highest.max(extent.map(|(_, end)| end.segment)) else {
            return Ok(Segments::within(folder, size, max));
        };
        let is_claimed = |number: &SegmentNumber| {
            extent.is_some_and(|(first, end)| (first..=end.segment).contains(number))
        };
        let (counts, not): (Vec<_>, Vec<_>) = found.into_iter().partition(is_claimed);
        for number in not {
            fs::remove_file(path_in(folder.path(), number))?;
        }
        if let Some((_, end)) = extent {
            let last = fs::File::options().write(true).open(path_in(folder.path(), end.segment))?;
            last.set_len(end.file_offset().0)?;
            last.sync_all()?;
        }
        let left = |number| Live { number, direct: false, entries: 0 };
        let live = counts.into_iter().map(left).collect();
        let next = Position { segment: highest, page: size.get() };
        let (writing, reading) = (None, None);
        Ok(Segments { folder, size, max, account: None, next, live, writing, reading })
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
            if self.account.as_ref().is_some_and(|account| !account.take(self.size.bytes())) {
                return Ok(None);
            }
            self.begin(at.segment).inspect_err(|_| self.give_back())?;
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

    /// The folder that they stand in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether they stay when this process ends.
    pub fn outlive(&self) -> bool {
        self.folder.outlives()
    }

    /// Deletes the files before one: no record claims them any more.
    pub fn trim(&mut self, before: SegmentNumber) {
        while self.live.front().is_some_and(|first| first.number < before) {
            let Some(first) = self.live.pop_front() else { return };
            self.delete(first.number);
        }
    }

    /// An entry of a segment is of no more use to this process: it was read back, or never written.
    pub fn release(&mut self, segment: SegmentNumber) {
        if let Some(live) = self.live.iter_mut().find(|live| live.number == segment) {
            live.entries = live.entries.saturating_sub(1);
        }
        self.delete_read();
    }

    /// The file of a segment.
    pub fn path(&self, segment: SegmentNumber) -> PathBuf {
        path_in(self.folder.path(), segment)
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
        if self.folder.outlives() {
            return;
        }
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
        match fs::remove_file(&path) {
            Ok(()) => self.give_back(),
            Err(error) => tracing::warn!("remove {}: {error}", path.display()),
        }
    }

    /// The room of one file.
    fn give_back(&self) {
        if let Some(account) = &self.account {
            account.give_back(self.size.bytes());
        }
    }
}

/// The file of a segment in a folder.
pub(super) fn path_in(folder: &Path, segment: SegmentNumber) -> PathBuf {
    folder.join(format!("{SEGMENT_PREFIX}{:08}", segment.0))
}

/// The segments that have a file in a folder, in order.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<SegmentNumber>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(SEGMENT_PREFIX)?.parse().ok());
        numbers.extend(number.map(SegmentNumber));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breakpoint::identity::FileId;
    use crate::spool::share::Share;

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
    fn streams_that_share_room_take_no_more_than_it_together() {
        let share = Arc::new(Share::new(Some(Bytes(3 * 4 * 4096))));
        let parent = tempfile::tempdir().unwrap();
        let sharing = || segments(parent.path(), None).on(Some(share.account()));
        let (mut first, mut second) = (sharing(), sharing());
        let take = |segments: &mut Segments| std::iter::from_fn(|| place(segments)).count();
        assert_eq!((place(&mut second), take(&mut first)), (Some((1, 0)), 4));
        assert_eq!(take(&mut second), 1, "the rest of its file");
        drop(first);
        assert_eq!(take(&mut second), 4, "what is gone makes room");
    }

    #[test]
    fn files_of_a_stream_stay_until_they_are_trimmed_and_go_on_behind_those_of_the_dead() {
        let parent = tempfile::tempdir().unwrap();
        let path = Folder::of_stream(parent.path(), FileId([3; 16]));
        let folder = Folder::create_for_stream(&path).unwrap();
        let mut first = Segments::within(folder, SMALL, None);
        for _ in 0..5 {
            place(&mut first).unwrap();
        }
        (1..=3).for_each(|number| first.release(SegmentNumber(number)));
        first.trim(SegmentNumber(2));
        drop(first);
        let folder = Folder::open_stream(&path).unwrap();
        fs::write(path.join("segment-00000004"), b"never recorded").unwrap();
        let (first, end) = (SegmentNumber(2), Position { segment: SegmentNumber(3), page: 2 });
        let max = Some(Bytes(3 * 4 * 4096));
        let mut second = Segments::go_on(folder, SMALL, max, Some((first, end))).unwrap();
        assert_eq!(files(&second), ["segment-00000002", "segment-00000003"]);
        assert_eq!(fs::metadata(path.join("segment-00000003")).unwrap().len(), 2 * 4096);
        assert_eq!((place(&mut second), place(&mut second)), (Some((5, 0)), Some((5, 2))));
        assert_eq!(place(&mut second), None, "the limit counts what was left");
        second.trim(SegmentNumber(5));
        assert_eq!(files(&second), ["segment-00000005"]);
        assert_eq!(place(&mut second), Some((6, 0)));
        assert!(second.reader(SegmentNumber(5)).is_ok());
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
