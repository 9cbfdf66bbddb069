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
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, vmsplice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::loan::Loan;

nix::ioctl_read_bad!(fionread, libc::FIONREAD, libc::c_int);

/// The write end of a pipe, and the slots whose pages are in it.
#[derive(Debug)]
pub struct Splicer {
    pipe: OwnedFd,
    fed_bytes: u64,
    /// Slots lent to the pipe, each with the value of `fed_bytes` at its end; oldest first.
    lent: VecDeque<(u64, Loan)>,
}

impl Splicer {
    /// Takes the write end of a pipe, or any descriptor if only [`Splicer::write`] is used.
    pub fn new(pipe: OwnedFd) -> Splicer {
        Splicer { pipe, fed_bytes: 0, lent: VecDeque::new() }
    }

    /// Bytes that the descriptor has taken so far.
    pub fn fed_bytes(&self) -> u64 {
        self.fed_bytes
    }

    /// How many slots the pipe still holds pages of.
    pub fn lent(&self) -> usize {
        self.lent.len()
    }

    /// Puts the pages of `range` into the pipe; blocks until all are in. `range.start` should
    /// stand at a page: every page that is touched takes one of the pipe's places.
    ///
    /// Fails with `EPIPE` when the reader is gone; the slot goes home then, for nobody reads it.
    pub fn splice(&mut self, loan: Loan, range: Range<usize>) -> io::Result<()> {
        let mut rest = &loan[range];
        while !rest.is_empty() {
            match vmsplice(&self.pipe, &[IoSlice::new(rest)], SpliceFFlags::empty()) {
                Ok(count) => {
                    self.fed_bytes += count as u64;
                    rest = &rest[count..];
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.lent.push_back((self.fed_bytes, loan));
        self.reclaim()
    }

    /// Copies bytes into the descriptor; blocks until all are in.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.pipe, bytes) {
                Ok(count) => {
                    self.fed_bytes += count as u64;
                    bytes = &bytes[count..];
                }
                Err(Errno::EINTR) => {}
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

/// Whether no process has the read end open any more.
fn reader_is_gone(pipe: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A descriptor that somebody else has set to `O_NONBLOCK`, as an inherited stdout may be.
fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use crate::loan::Pool;
    use crate::pipe::Pipe;
    use crate::wake::Waker;
    use std::io::Read;
    use std::sync::Arc;

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
        let mut splicer = Splicer::new(pipe.writer);
        for block in 0..512usize {
            let mut loan = loop {
                splicer.reclaim().unwrap();
                match pool.take() {
                    Some([loan]) => break loan,
                    None => drop(waker.wait(Some(Duration::from_millis(1))).unwrap()),
                }
            };
            loan.fill(u8::try_from(block % 251).unwrap());
            splicer.splice(loan, 0..SLOT).unwrap();
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
        let mut splicer = Splicer::new(pipe.writer);
        let [loan] = pool.take().unwrap();
        splicer.splice(loan, 0..SLOT).unwrap();
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
    fn a_reader_that_is_gone_ends_the_wait() {
        let (pool, _) = pool(1);
        let pipe = Pipe::new(1 << 20).unwrap();
        let mut splicer = Splicer::new(pipe.writer);
        let [loan] = pool.take().unwrap();
        splicer.splice(loan, 0..SLOT).unwrap();
        drop(pipe.reader);
        assert!(!splicer.drain(|| true).unwrap());
        assert_eq!(splicer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
