//! Single pages into a file past the page cache, through a ring that has nothing else to do.
//!
//! The page lies in a buffer that is registered once, so that the kernel need not look it up and
//! pin it for each write; one write is in flight at a time, and it is durable when it completes.
//! The buffer must never be touched or freed before that: a ring that fails while it has the page
//! keeps it for good.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, opcode, types};

use super::{AlignedBuffer, DirectFile, PageIndex, write_whole};
use crate::backend::Backend;

/// A file and the page that is next written to it.
pub struct PageWriter {
    // Before the file and the page: closed first.
    ring: Option<PageRing>,
    file: DirectFile,
    page: Box<AlignedBuffer>,
}

/// How the pages of a [`PageWriter`] get to their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `IORING_OP_WRITE_FIXED`, from a registered buffer.
    Registered,
    /// `IORING_OP_WRITE`, where the limit on locked memory has no room for the buffer.
    Ring,
    /// `pwrite`.
    Call,
}

impl PageWriter {
    /// Takes a file. With [`Backend::Uring`] a ring is made for it; not on ZFS, where a write of
    /// a registered buffer may spin for ever (openzfs#16133), and not where none can be had: then
    /// a call does the same.
    pub fn new(file: DirectFile, backend: Backend) -> io::Result<PageWriter> {
        let page = Box::new(AlignedBuffer::zeroed(1));
        let wanted = backend == Backend::Uring && !file.on_zfs()?;
        let ring = wanted.then(|| PageRing::new(&page)).and_then(|ring| {
            let told = |error: &io::Error| tracing::debug!(%error, "no ring; pages go by pwrite");
            ring.inspect_err(told).ok()
        });
        Ok(PageWriter { ring, file, page })
    }

    /// The file, to read from.
    pub fn file(&self) -> &DirectFile {
        &self.file
    }

    /// The page that [`PageWriter::write`] writes.
    pub fn page_mut(&mut self) -> &mut [u8] {
        &mut self.page
    }

    /// Which way pages go.
    pub fn way(&self) -> Way {
        match &self.ring {
            Some(ring) if ring.registered => Way::Registered,
            Some(_) => Way::Ring,
            None => Way::Call,
        }
    }

    /// Writes the page over the one at `at`; it is durable when this returns. As with
    /// [`DirectFile::write_at`], nothing is written any more after an error.
    pub fn write(&mut self, at: PageIndex) -> io::Result<()> {
        let PageWriter { ring: Some(ring), file, page } = self else {
            return self.file.write_at(&self.page, at);
        };
        let offset = file.writable(page.pages(), at)?;
        let fd = file.file.as_raw_fd();
        let write = |bytes: &[u8], offset| {
            // Of one page nothing is ever done in part.
            assert_eq!(bytes.as_ptr(), page.as_ptr(), "a page is written whole");
            ring.write(fd, page, offset)
        };
        let written = write_whole(write, page, offset);
        let written = file.settle(written);
        if self.ring.as_ref().is_some_and(|ring| ring.stuck) {
            self.abandon();
        }
        written
    }

    /// The kernel may still read the page: memory that is lost can do no harm.
    fn abandon(&mut self) {
        tracing::warn!("io_uring did not let go of a page; leaking it");
        std::mem::forget(self.ring.take());
        std::mem::forget(std::mem::replace(&mut self.page, Box::new(AlignedBuffer::zeroed(1))));
    }
}

impl std::fmt::Debug for PageWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageWriter")
            .field("file", &self.file)
            .field("way", &self.way())
            .finish_non_exhaustive()
    }
}

/// A ring for one page and one write at a time.
struct PageRing {
    uring: IoUring,
    registered: bool,
    /// A write was handed over, and the kernel could not be asked what became of it.
    stuck: bool,
}

impl PageRing {
    /// Makes a ring and registers `page`, which the caller keeps until after the ring is closed.
    fn new(page: &AlignedBuffer) -> io::Result<PageRing> {
        let uring = IoUring::builder().dontfork().build(1)?;
        let iovec = libc::iovec { iov_base: page.as_ptr().cast_mut().cast(), iov_len: page.len() };
        // SAFETY: `PageWriter` declares its ring before its page, which is boxed and neither moved
        // nor freed before the ring is closed; `abandon` leaks both.
        let registered = unsafe { uring.submitter().register_buffers(&[iovec]) };
        let told = |error: &io::Error| tracing::debug!(%error, "the page is not registered");
        let registered = registered.inspect_err(told).is_ok();
        Ok(PageRing { uring, registered, stuck: false })
    }

    /// Writes the page at `offset` of `fd`, and waits for it; returns how many bytes were written.
    fn write(&mut self, fd: RawFd, page: &AlignedBuffer, offset: u64) -> io::Result<usize> {
        let (fd, start) = (types::Fd(fd), page.as_ptr());
        let length = u32::try_from(page.len()).unwrap_or_else(|_| unreachable!("one page"));
        let entry = if self.registered {
            opcode::WriteFixed::new(fd, start, length, 0).offset(offset).build()
        } else {
            opcode::Write::new(fd, start, length).offset(offset).build()
        };
        // SAFETY: the page and the file are the `PageWriter`'s, which is borrowed until the write
        // has completed; where that cannot be learnt, `abandon` gives the page up for good.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::other("a ring of one write has no room for one"))?;
        let result = self.complete()?;
        let written = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))?;
        Ok(written)
    }

    /// Waits for the one completion.
    fn complete(&mut self) -> io::Result<i32> {
        loop {
            let waited = self.uring.submit_and_wait(1);
            if let Some(completion) = self.uring.completion().next() {
                return Ok(completion.result());
            }
            match waited {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.stuck = true;
                    return Err(error);
                }
            }
        }
    }
}
