//! Files that are written past the page cache, whole pages at whole offsets, durable on return.
//!
//! Breakpoint records live here. A file gets all its blocks, filled with zeros, before it is used:
//! later writes neither extend it nor find the disk full, and each costs one durable write and
//! nothing else. Never may two processes write one file (it is locked while open), and never may
//! a file be written again after a write has failed: what it holds then is unknown.

mod bulk;
mod writer;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, Flock, FlockArg, OFlag, fallocate, fcntl};
use nix::sys::statfs::{FsType, fstatfs};

pub use self::bulk::{BulkFile, Space, space, sync};
pub use self::writer::{PageWriter, Way};

/// The unit of every length and place: no disk, and no page cache of a machine with 4 KiB pages,
/// asks for a coarser alignment.
pub const PAGE_BYTES: usize = 4096;

const PAGE_BYTES_U64: u64 = PAGE_BYTES as u64;

/// Pages of zeros that are written at once while a file is made.
const ZEROS_PAGES: usize = 64;

/// What `statfs` says of a ZFS file system.
const ZFS_SUPER_MAGIC: FsType = FsType(0x2fc1_2fc1);

/// The number of a page within a file, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u64);

/// Zeroed memory of whole pages that begins on a page: the only thing a file reads or writes.
pub struct AlignedBuffer {
    memory: Box<[u8]>,
    start: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// Room for `pages` pages, filled with zeros.
    pub fn zeroed(pages: usize) -> AlignedBuffer {
        let bytes = pages * PAGE_BYTES;
        let memory = vec![0; bytes + PAGE_BYTES].into_boxed_slice();
        let start = memory.as_ptr().align_offset(PAGE_BYTES);
        assert!(start < PAGE_BYTES, "an allocation of more than a page contains a page's start");
        AlignedBuffer { memory, start, bytes }
    }

    /// How many pages it holds.
    pub fn pages(&self) -> usize {
        self.bytes / PAGE_BYTES
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.bytes]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.bytes]
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("pages", &self.pages()).finish_non_exhaustive()
    }
}

/// What [`DirectFile::create`] does with a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Fail with [`io::ErrorKind::AlreadyExists`].
    Refuse,
    /// Forget what it holds, unless somebody has it open.
    Overwrite,
}

/// An open file of whole pages, locked until it is dropped.
#[derive(Debug)]
pub struct DirectFile {
    file: Flock<File>,
    path: PathBuf,
    pages: u64,
    direct: bool,
    retired: bool,
}

impl DirectFile {
    /// Makes a file of `pages` pages of zeros; when this returns, its blocks and its name are
    /// durable. A file that could not be made whole is removed again.
    pub fn create(path: &Path, pages: u64, existing: Existing) -> io::Result<DirectFile> {
        let mut options = options();
        match existing {
            Existing::Refuse => options.create_new(true),
            Existing::Overwrite => options.create(true).truncate(false), // locked first
        };
        let mut file = Self::lock(options.open(path)?, path, pages)?;
        let filled = file.fill().and_then(|()| sync_directory(path));
        if let Err(error) = filled {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(file)
    }

    /// Opens a file that [`DirectFile::create`] made.
    ///
    /// One whose making was cut short may hold fewer pages than were asked for: compare.
    pub fn open(path: &Path) -> io::Result<DirectFile> {
        let file = options().open(path)?;
        let pages = file.metadata()?.len() / PAGE_BYTES_U64;
        let mut file = Self::lock(file, path, pages)?;
        // The length may have changed while another held the lock.
        file.pages = file.file.metadata()?.len() / PAGE_BYTES_U64;
        file.try_direct(|file| match file.pages {
            0 => Ok(()),
            _ => file.read_at(&mut AlignedBuffer::zeroed(1), PageIndex(0)),
        })?;
        Ok(file)
    }

    /// How many pages the file has.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether reads and writes pass by the page cache; if not, writes are durable all the same.
    ///
    /// Some file systems do not have `O_DIRECT`, and ZFS may take it and not follow it.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether the file lies on ZFS, where `WRITE_FIXED` must not be used (openzfs#16133).
    pub fn on_zfs(&self) -> io::Result<bool> {
        on_zfs(&*self.file)
    }

    /// Fills `buffer` from the pages at `at`; what lies behind the end is an error.
    pub fn read_at(&self, buffer: &mut AlignedBuffer, at: PageIndex) -> io::Result<()> {
        let offset = self.offset(buffer.pages(), at)?;
        let read = |bytes: &mut [u8], offset| self.file.read_at(bytes, offset);
        read_whole(read, buffer, offset).map_err(|error| self.named("read", &error))
    }

    /// Writes `buffer` over the pages at `at`; they are durable when this returns.
    ///
    /// After an error every later write is refused: the kernel tells of a lost page once, so that a
    /// second success would prove nothing.
    pub fn write_at(&mut self, buffer: &AlignedBuffer, at: PageIndex) -> io::Result<()> {
        let offset = self.writable(buffer.pages(), at)?;
        let write = |bytes: &[u8], offset| self.file.write_at(bytes, offset);
        let written = write_whole(write, buffer, offset);
        self.settle(written)
    }

    /// Where page `at` begins, if `pages` pages may be written there.
    fn writable(&self, pages: usize, at: PageIndex) -> io::Result<u64> {
        let offset = self.offset(pages, at)?;
        if self.retired {
            return Err(self.named("write", &io::Error::other("an earlier write failed")));
        }
        Ok(offset)
    }

    /// Takes note of how a write went: the first error retires the file.
    fn settle(&mut self, written: io::Result<()>) -> io::Result<()> {
        self.retired = written.is_err();
        written.map_err(|error| self.named("write", &error))
    }

    /// Locks a file just opened; refuses what another holds, what is no file, what has no name.
    fn lock(file: File, path: &Path, pages: u64) -> io::Result<DirectFile> {
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            let text = match errno {
                Errno::EWOULDBLOCK => "another process, or another job of this one, has it open",
                other => other.desc(),
            };
            io::Error::new(io::ErrorKind::ResourceBusy, format!("lock {}: {text}", path.display()))
        })?;
        let file = DirectFile { file, path: path.to_owned(), pages, direct: false, retired: false };
        let metadata = file.file.metadata()?;
        if !metadata.is_file() {
            return Err(file.named("open", &io::Error::other("not a regular file")));
        }
        if metadata.nlink() == 0 {
            let gone = io::Error::new(io::ErrorKind::NotFound, "removed while it was opened");
            return Err(file.named("open", &gone));
        }
        Ok(file)
    }

    /// Gives the file its blocks and its zeros, whatever it held.
    fn fill(&mut self) -> io::Result<()> {
        let bytes = self.pages.checked_mul(PAGE_BYTES_U64).and_then(|n| i64::try_from(n).ok());
        let bytes = bytes.ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.set_len(0)?;
        match fallocate(&*self.file, FallocateFlags::empty(), 0, bytes) {
            // Without it the zeros below claim the blocks.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EINVAL) => {}
            Err(error) => return Err(self.named("allocate", &error.into())),
        }
        self.try_direct(DirectFile::write_zeros)?;
        self.file.sync_all().map_err(|error| self.named("sync", &error))
    }

    fn write_zeros(&mut self) -> io::Result<()> {
        let zeros = AlignedBuffer::zeroed(ZEROS_PAGES);
        let single = AlignedBuffer::zeroed(1);
        let mut at = 0;
        while at < self.pages {
            let whole_run = self.pages - at >= ZEROS_PAGES as u64;
            let next = if whole_run { &zeros } else { &single };
            self.write_at(next, PageIndex(at))?;
            at += next.pages() as u64;
        }
        Ok(())
    }

    /// Turns `O_DIRECT` on and proves it by `trial`; off again where either says `EINVAL`.
    ///
    /// A file system may refuse the flag at once, or only the transfers: ZFS does where its pages
    /// are larger than ours.
    fn try_direct(
        &mut self,
        mut trial: impl FnMut(&mut DirectFile) -> io::Result<()>,
    ) -> io::Result<()> {
        self.direct = set_direct(&self.file, true)?;
        match trial(self) {
            Err(error) if self.direct && error.kind() == io::ErrorKind::InvalidInput => {
                set_direct(&self.file, false)?;
                (self.direct, self.retired) = (false, false);
                trial(self)
            }
            done => done,
        }
    }

    /// Where page `at` begins, if `pages` pages lie there: a file never grows.
    fn offset(&self, pages: usize, at: PageIndex) -> io::Result<u64> {
        let end = at.0.checked_add(pages as u64);
        if end.is_none_or(|end| end > self.pages) {
            let text = format!("{pages} pages at page {} of {}", at.0, self.pages);
            let beyond = io::Error::new(io::ErrorKind::UnexpectedEof, text);
            return Err(self.named("reach", &beyond));
        }
        Ok(at.0 * PAGE_BYTES_U64)
    }

    fn named(&self, verb: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{verb} {}: {error}", self.path.display()))
    }
}

/// Whether a file or directory lies on ZFS.
pub fn on_zfs(file: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == ZFS_SUPER_MAGIC)
}

/// Turns `O_DIRECT` on or off, and returns whether it is now on.
fn set_direct(file: &File, on: bool) -> io::Result<bool> {
    let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_DIRECT, on);
    match fcntl(file, FcntlArg::F_SETFL(flags)) {
        Ok(_) => Ok(on),
        Err(Errno::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// `O_DSYNC` from the start, for it cannot be set later; `O_DIRECT` can.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlag::O_DSYNC | OFlag::O_NOFOLLOW;
    options.read(true).write(true).mode(0o600).custom_flags(flags.bits());
    options
}

/// Makes the name of a new file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Writes all of `bytes`; what was written in part goes on at the start of its page.
///
/// A short write ends at a sector, which need not be a page; to write the rest of that page once
/// more changes nothing. Nothing written, or not even a page twice in a row, is an error.
fn write_whole(
    mut write: impl FnMut(&[u8], u64) -> io::Result<usize>,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    let mut stalled = false;
    while !bytes.is_empty() {
        let written = match write(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let whole = whole_pages(written, bytes.len());
        if written == 0 || (whole == 0 && stalled) {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "the device takes no more"));
        }
        stalled = whole == 0;
        bytes = &bytes[whole..];
        offset += whole as u64;
    }
    Ok(())
}

/// Reads all of `bytes`, as [`write_whole`] writes them.
fn read_whole(
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    mut bytes: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    let mut stalled = false;
    while !bytes.is_empty() {
        let count = match read(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let whole = whole_pages(count, bytes.len());
        if count == 0 || (whole == 0 && stalled) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends too early"));
        }
        stalled = whole == 0;
        bytes = &mut bytes[whole..];
        offset += whole as u64;
    }
    Ok(())
}

/// How much of `done` bytes lies in pages that are done whole.
fn whole_pages(done: usize, asked: usize) -> usize {
    assert!(done <= asked, "{done} bytes done of {asked}");
    done - done % PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Calls of a device that answers from a script, as (bytes asked, offset).
    fn scripted(answers: &[io::Result<usize>]) -> (io::Result<()>, Vec<(usize, u64)>) {
        let calls = RefCell::new(Vec::new());
        let buffer = AlignedBuffer::zeroed(3);
        let write = |bytes: &[u8], offset: u64| {
            calls.borrow_mut().push((bytes.len(), offset));
            match answers.get(calls.borrow().len() - 1) {
                Some(Ok(written)) => Ok(*written),
                Some(Err(error)) => Err(error.kind().into()),
                None => panic!("called too often"),
            }
        };
        let result = write_whole(write, &buffer, 8192);
        (result, calls.into_inner())
    }

    #[test]
    fn a_buffer_begins_on_a_page_and_is_zeroed() {
        for pages in [0, 1, 2, 63, 64] {
            let buffer = AlignedBuffer::zeroed(pages);
            assert_eq!(buffer.as_ptr().align_offset(PAGE_BYTES), 0);
            assert_eq!((buffer.len(), buffer.pages()), (pages * PAGE_BYTES, pages));
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_short_write_goes_on_at_the_page_it_broke_in() {
        let (result, calls) = scripted(&[Ok(4096 + 512), Ok(4096), Ok(4096)]);
        result.expect("written");
        assert_eq!(calls, [(12288, 8192), (8192, 12288), (4096, 16384)]);
        let (result, calls) = scripted(&[Ok(512), Ok(12288)]);
        result.expect("written");
        assert_eq!(calls, [(12288, 8192), (12288, 8192)]);
    }

    #[test]
    fn a_device_that_takes_nothing_is_an_error_and_no_loop() {
        for answers in [&[Ok(0)][..], &[Ok(512), Ok(512)], &[Ok(4096), Ok(0)]] {
            let error = scripted(answers).0.expect_err("no progress");
            assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        }
    }

    #[test]
    fn a_signal_does_not_fail_a_write() {
        let (result, calls) = scripted(&[Err(io::ErrorKind::Interrupted.into()), Ok(12288)]);
        result.expect("written");
        assert_eq!(calls.len(), 2);
    }

    #[test]
    fn any_other_error_of_a_write_is_passed_on() {
        let (result, _) = scripted(&[Ok(4096), Err(io::ErrorKind::StorageFull.into())]);
        assert_eq!(result.expect_err("full").kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_short_read_goes_on_and_an_early_end_is_an_error() {
        let mut buffer = AlignedBuffer::zeroed(2);
        let read = |bytes: &mut [u8], offset: u64| {
            let count = if offset == 0 { 4096 + 512 } else { bytes.len() };
            bytes[..count].fill(if offset == 0 { b'a' } else { b'b' });
            Ok(count)
        };
        read_whole(read, &mut buffer, 0).expect("read");
        assert_eq!((buffer[4095], buffer[4096], buffer[8191]), (b'a', b'b', b'b'));
        let error = read_whole(|_, _| Ok(0), &mut buffer, 0).expect_err("early end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    /// As on ZFS with pages larger than ours: the flag is taken, the transfers are refused.
    #[test]
    fn a_file_system_that_refuses_direct_transfers_is_written_the_other_way() {
        let directory = tempfile::tempdir_in("/var/tmp").expect("temporary directory");
        let path = directory.path().join("records");
        let mut file = DirectFile::create(&path, 1, Existing::Refuse).expect("create");
        let refuse_direct = |file: &mut DirectFile| {
            assert!(file.direct || !file.retired, "a refused trial retired the file");
            file.retired = file.direct;
            if file.direct { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
        };
        file.try_direct(refuse_direct).expect("buffered works");
        assert!(!file.is_direct());
        let flags = fcntl(&*file.file, FcntlArg::F_GETFL).expect("flags");
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_DIRECT));
        assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_DSYNC));
        file.write_at(&AlignedBuffer::zeroed(1), PageIndex(0)).expect("write");
    }
}
