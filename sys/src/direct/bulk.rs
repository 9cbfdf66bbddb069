//! Files for blocks: past the page cache, and durable when somebody asks for that.
//!
//! Their space is reserved when they are made, so that no write finds the disk full. Nothing is
//! synced by itself: most of what they hold is of no use to anybody once the process has ended.
//! What must never happen here: a file of somebody else opened or overwritten.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statvfs::statvfs;

use super::{AlignedBuffer, set_direct};

/// A file that was made here, open for writing.
#[derive(Clone, Debug)]
pub struct BulkFile {
    fd: Arc<OwnedFd>,
    direct: bool,
}

/// The room of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What may still be written by those who are not root.
    pub available: u64,
}

impl BulkFile {
    /// Makes a file of `bytes` bytes, a multiple of a page, under a name that is free; only its
    /// owner may read it. One that could not be made whole is removed again.
    ///
    /// Fails with `AlreadyExists` where the name is taken, with `StorageFull` where there is no
    /// room.
    pub fn create(path: &Path, bytes: u64) -> io::Result<BulkFile> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(path)?;
        match prepare(&file, bytes) {
            Ok(direct) => Ok(BulkFile { fd: Arc::new(file.into()), direct }),
            Err(error) => {
                // The reason that it could not be made is the one to tell.
                let _ = fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// The descriptor, for operations of a port on whole pages.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Whether reads and writes pass by the page cache: some file systems cannot.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Opens a file that [`BulkFile::create`] made, to read whole pages of it; `direct` as it was
    /// then.
    pub fn open(path: &Path, direct: bool) -> io::Result<Arc<OwnedFd>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
        set_direct(&file, direct)?;
        Ok(Arc::new(file.into()))
    }
}

/// Returns when all that was written to a file is durable, with its place on the disk.
///
/// After an error nobody knows what the disk has, and a second call may say that all is well
/// (<https://lwn.net/Articles/752063/>): then nothing of the file may be relied on.
pub fn sync(file: impl AsFd) -> io::Result<()> {
    loop {
        match nix::unistd::fdatasync(file.as_fd()) {
            Err(Errno::EINTR) => {}
            ended => return Ok(ended?),
        }
    }
}

/// Reserves the space of a new file, and turns `O_DIRECT` on if a page can be written with it.
fn prepare(file: &File, bytes: u64) -> io::Result<bool> {
    let length = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            // Then a write may find the disk full, and says so.
            Err(Errno::EOPNOTSUPP | Errno::EINVAL) => {
                file.set_len(bytes)?;
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !set_direct(file, true)? {
        return Ok(false);
    }
    match file.write_all_at(&AlignedBuffer::zeroed(1), 0) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => set_direct(file, false),
        Err(error) => Err(error),
    }
}

/// The room of the file system that a file or folder lies on.
pub fn space(path: &Path) -> io::Result<Space> {
    let found = statvfs(path)?;
    // As wide as the machine's words; on some they are 32 bits.
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Ok(Space { total: bytes(found.blocks()), available: bytes(found.blocks_available()) })
}
