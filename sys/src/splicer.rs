//! Feeds a process without copying: pages of our slots become the pages of its pipe.
//!
//! After vmsplice(2) a page belongs to both sides: written again too early, it changes under the
//! reader (without the rule below 107 of 134 MB arrived corrupt, `tests/kernel.rs`). The rule: a
//! slot goes home when the bytes fed less the bytes unread (`FIONREAD`, exact under the pipe's
//! lock) have passed its end. It holds for a reader that copies, as `zfs receive` does; one that
//! splices the pages on (pv, some cats) would break it, so only a reader that we know may be fed
//! like this. All others get [`Splicer::write`].

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, open, vmsplice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::bay::Bay;
use crate::loan::Loan;

nix::ioctl_read_bad!(
    /// Bytes in a pipe that nobody has read.
    fionread,
    libc::FIONREAD,
    libc::c_int
);

/// The write end of a pipe, and the slots whose pages are in it.
#[derive(Debug)]
pub struct Splicer {
    pipe: OwnedFd,
    /// Whether the pipe is of our own making, so that pages may be lent to it.
    ours: bool,
    fed_bytes: u64,
    /// Slots lent to the pipe, each with the value of `fed_bytes` at its end; oldest first.
    lent: VecDeque<(u64, Arc<Loan>)>,
}

impl Splicer {
    /// Takes the write end of a pipe of our own making. It becomes `O_NONBLOCK`, so that a reader
    /// that stands still cannot hold us; the reader's end is another open file and stays blocking.
    pub fn new(pipe: OwnedFd) -> io::Result<Splicer> {
        let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL)?);
        fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Splicer { pipe, ours: true, fed_bytes: 0, lent: VecDeque::new() })
    }

    /// Takes a descriptor that others share, as an inherited stdout; only [`Splicer::write`] may be
    /// used on it, and its settings are left alone. A pipe is opened anew, so that a reader that
    /// stands still cannot hold us; anything else blocks as the descriptor does.
    pub fn foreign(fd: OwnedFd) -> Splicer {
        let pipe = reopened(&fd).unwrap_or(fd);
        Splicer { pipe, ours: false, fed_bytes: 0, lent: VecDeque::new() }
    }

    /// Bytes that the descriptor has taken so far.
    pub fn fed_bytes(&self) -> u64 {
        self.fed_bytes
    }

    /// How many slots the pipe still holds pages of.
    pub fn lent(&self) -> usize {
        self.lent.len()
    }

    /// Puts the pages of `range` into the pipe; sleeps while it is full, as long as `wanted` says
    /// so. `range.start` should stand at a page: every page touched takes one of the pipe's places.
    ///
    /// Fails with `BrokenPipe` when the reader is gone, with `Interrupted` when the bytes were no
    /// longer wanted. The slot stays lent in any case until [`Splicer::reclaim`] proves it read, or
    /// `self` is dropped; others may read it meanwhile, but nobody can write it.
    pub fn splice(
        &mut self,
        loan: Arc<Loan>,
        range: Range<usize>,
        wanted: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        assert!(self.ours, "pages are lent only to a pipe of our own");
        let spliced = self.put_all(&loan[range], wanted, |pipe, rest| {
            vmsplice(pipe, &[IoSlice::new(rest)], SpliceFFlags::SPLICE_F_NONBLOCK)
        });
        self.lent.push_back((self.fed_bytes, loan));
        spliced?;
        self.reclaim()
    }

    /// Copies bytes into the descriptor; sleeps and fails as [`Splicer::splice`] does.
    pub fn write(&mut self, bytes: &[u8], wanted: &dyn Fn() -> bool) -> io::Result<()> {
        self.put_all(bytes, wanted, |pipe, rest| nix::unistd::write(pipe, rest))
    }

    /// Moves the pages of a bay into the descriptor, whoever reads it: nobody can write them any
    /// more. Sleeps and fails as [`Splicer::splice`] does. What nothing can be spliced into, as a
    /// file that is appended to, gets a copy.
    pub fn pour(&mut self, mut bay: Bay, wanted: &dyn Fn() -> bool) -> io::Result<()> {
        while !bay.is_empty() {
            match bay.pour(&self.pipe) {
                Ok(count) => self.fed_bytes += count as u64,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock if !wanted() => {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    io::ErrorKind::WouldBlock => wait_writable(self.pipe.as_fd())?,
                    io::ErrorKind::InvalidInput => return self.write(&bay.read_out()?, wanted),
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn put_all(
        &mut self,
        mut rest: &[u8],
        wanted: &dyn Fn() -> bool,
        put: impl Fn(BorrowedFd<'_>, &[u8]) -> nix::Result<usize>,
    ) -> io::Result<()> {
        while !rest.is_empty() {
            match put(self.pipe.as_fd(), rest) {
                Ok(count) => {
                    self.fed_bytes += count as u64;
                    rest = &rest[count..];
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if !wanted() => return Err(io::ErrorKind::Interrupted.into()),
                Err(Errno::EAGAIN) => wait_writable(self.pipe.as_fd())?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends home all slots whose bytes the reader has taken.
    pub fn reclaim(&mut self) -> io::Result<()> {
        if self.lent.is_empty() {
            return Ok(());
        }
        let taken = self.fed_bytes - self.unread()?;
        while self.lent.front().is_some_and(|&(end, _)| end <= taken) {
            self.lent.pop_front();
        }
        Ok(())
    }

    /// Waits until the reader has taken every page, as long as `wanted` says so. `false`: it was
    /// no longer wanted, or the reader is gone; the caller must end the reader before the slots
    /// are used again, and keeps `self` until then.
    pub fn drain(&mut self, wanted: impl Fn() -> bool) -> io::Result<bool> {
        let mut pause = Duration::from_micros(50);
        loop {
            self.reclaim()?;
            if self.lent.is_empty() {
                return Ok(true);
            }
            if !wanted() || reader_is_gone(self.pipe.as_fd())? {
                return Ok(false);
            }
            // The kernel tells nobody that a pipe ran empty; a reader that is at work takes its
            // 1 MiB within microseconds, one in a transaction group's stall within seconds.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    fn unread(&self) -> io::Result<u64> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, and `bytes` is one.
        unsafe { fionread(self.pipe.as_raw_fd(), &raw mut bytes)? };
        u64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }
}

/// Another open file for the same pipe, of which a full pipe says so instead of putting us to
/// sleep: `O_NONBLOCK` on the one that we share would surprise those we share it with. `None` for
/// what is no pipe, and for one that may not be opened.
fn reopened(fd: &OwnedFd) -> Option<OwnedFd> {
    let kind = SFlag::from_bits_truncate(fstat(fd).ok()?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFIFO {
        return None;
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty()).ok()
}

/// Whether no process has the read end open any more.
fn reader_is_gone(pipe: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sleeps until the descriptor takes bytes, or for as long as it takes to ask again whether they
/// are still wanted.
fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::from(100u8)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use crate::bay::{Bays, Wanted};
    use crate::loan::Pool;
    use crate::pipe::Pipe;
    use crate::wake::Waker;
    use std::io::Read;

    const SLOT: usize = 256 << 10;

    fn pool(slots: u32) -> (Pool, Arc<Waker>) {
        let waker = Arc::new(Waker::new().unwrap());
        let arena = Arena::new(SLOT, slots).unwrap();
        (Pool::split(&arena, 1, &waker).remove(0), waker)
    }

    /// 128 MiB through 8 slots that are rewritten as soon as the rule lets them: the reader checks
    /// every byte. `tests/kernel.rs` shows that the same run without the rule corrupts.
    #[test]
    fn a_slot_is_not_used_again_before_its_bytes_are_read() {
        let (pool, waker) = pool(8);
        let pipe = Pipe::new(1 << 20).unwrap();
        let mut reader = std::fs::File::from(pipe.reader);
        let check = std::thread::spawn(move || {
            let (mut buffer, mut offset) = (vec![0u8; 100_000], 0usize);
            loop {
                let count = reader.read(&mut buffer).unwrap();
                for (index, &byte) in buffer[..count].iter().enumerate() {
                    assert_eq!(usize::from(byte), (offset + index) / SLOT % 251, "at {offset}");
                }
                offset += count;
                if count == 0 {
                    break offset;
                }
            }
        });
        let mut splicer = Splicer::new(pipe.writer).unwrap();
        for block in 0..512usize {
            let mut loan = loop {
                splicer.reclaim().unwrap();
                match pool.take() {
                    Some([loan]) => break loan,
                    None => drop(waker.wait(Some(Duration::from_millis(1))).unwrap()),
                }
            };
            loan.fill(u8::try_from(block % 251).unwrap());
            splicer.splice(loan.into(), 0..SLOT, &|| true).unwrap();
        }
        assert!(splicer.drain(|| true).unwrap());
        assert_eq!((splicer.fed_bytes(), pool.free()), (512 * SLOT as u64, 8));
        drop(splicer);
        assert_eq!(check.join().unwrap(), 512 * SLOT);
    }

    #[test]
    fn bytes_nobody_has_read_keep_their_slot() {
        let (pool, _) = pool(2);
        let pipe = Pipe::new(1 << 20).unwrap();
        let mut splicer = Splicer::new(pipe.writer).unwrap();
        let [loan] = pool.take().unwrap();
        splicer.splice(loan.into(), 0..SLOT, &|| true).unwrap();
        assert_eq!((pool.free(), splicer.lent()), (1, 1));
        assert!(!splicer.drain(|| false).unwrap());
        assert_eq!(pool.free(), 1, "a slot went home with its pages still in the pipe");
        let mut reader = std::fs::File::from(pipe.reader);
        reader.read_exact(&mut vec![0; SLOT - 1]).unwrap();
        splicer.reclaim().unwrap();
        assert_eq!(pool.free(), 1, "one byte is still unread");
        reader.read_exact(&mut [0]).unwrap();
        splicer.reclaim().unwrap();
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn a_reader_that_stands_still_does_not_hold_us() {
        let (pool, _) = pool(6);
        let pipe = Pipe::new(1 << 20).unwrap();
        let mut splicer = Splicer::new(pipe.writer).unwrap();
        let blocked = std::iter::from_fn(|| pool.take::<1>())
            .find_map(|[loan]| splicer.splice(loan.into(), 0..SLOT, &|| false).err());
        assert_eq!(blocked.map(|error| error.kind()), Some(io::ErrorKind::Interrupted));
        drop(pipe.reader);
    }

    #[test]
    fn a_pipe_that_is_shared_holds_nobody_and_stays_as_it_was() {
        let pipe = Pipe::new(1 << 16).unwrap();
        let shared = pipe.writer.try_clone().unwrap();
        let mut splicer = Splicer::foreign(pipe.writer);
        let blocked = splicer.write(&vec![7; 1 << 20], &|| false).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::Interrupted);
        assert_eq!(splicer.fed_bytes(), 1 << 16);
        let flags = OFlag::from_bits_retain(fcntl(&shared, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        drop((splicer, shared));
        let mut all = Vec::new();
        std::fs::File::from(pipe.reader).read_to_end(&mut all).unwrap();
        assert_eq!(all, vec![7; 1 << 16]);
    }

    #[test]
    fn what_is_no_pipe_is_written_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = std::fs::File::create(&path).unwrap();
        io::Write::write_all(&mut file, b"before ").unwrap();
        let mut splicer = Splicer::foreign(file.into());
        splicer.write(b"after", &|| true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"before after");
    }

    /// A bay with these bytes.
    fn filled(bytes: &[u8]) -> Bay {
        let waker = Arc::new(Waker::new().unwrap());
        let mut bay =
            Bays::new(Wanted { count: 1, bytes: SLOT, ways: 0 }, &waker).unwrap().take().unwrap();
        let source = Pipe::new(SLOT).unwrap();
        nix::unistd::write(&source.writer, bytes).unwrap();
        bay.fill(&source.reader, bytes.len()).unwrap();
        bay
    }

    #[test]
    fn a_bay_is_moved_into_whatever_takes_bytes() {
        let bytes = vec![5; 100_000];
        let pipe = Pipe::new(SLOT).unwrap();
        Splicer::new(pipe.writer).unwrap().pour(filled(&bytes), &|| true).unwrap();
        let mut got = Vec::new();
        std::fs::File::from(pipe.reader).read_to_end(&mut got).unwrap();
        assert_eq!(got, bytes);
        let folder = tempfile::tempdir().unwrap();
        for appends in [false, true] {
            let path = folder.path().join(format!("appends {appends}"));
            let mut options = std::fs::OpenOptions::new();
            let file = options.create(true).write(!appends).append(appends).open(&path).unwrap();
            Splicer::foreign(file.into()).pour(filled(&bytes), &|| true).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "appends: {appends}");
        }
    }

    #[test]
    fn a_reader_that_stands_still_does_not_hold_what_is_of_bay() {
        let pipe = Pipe::new(1 << 16).unwrap();
        let mut splicer = Splicer::new(pipe.writer).unwrap();
        let stopped = splicer.pour(filled(&vec![5; 100_000]), &|| false).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
        drop(pipe.reader);
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_wait() {
        let (pool, _) = pool(1);
        let pipe = Pipe::new(1 << 20).unwrap();
        let mut splicer = Splicer::new(pipe.writer).unwrap();
        let [loan] = pool.take().unwrap();
        splicer.splice(loan.into(), 0..SLOT, &|| true).unwrap();
        drop(pipe.reader);
        assert!(!splicer.drain(|| true).unwrap());
        assert_eq!(splicer.write(b"x", &|| true).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
