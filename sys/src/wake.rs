//! A bell that one thread sleeps on and any thread may ring: an eventfd.
//!
//! Rings that come while the sleeper has not looked yet count as one, so a stage is woken once
//! for a burst of blocks. A ring is never lost: whoever rings first puts the work where the
//! sleeper looks, and the sleeper clears the bell before it looks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The bell. Share it in an `Arc`.
#[derive(Debug)]
pub struct Waker {
    bell: EventFd,
    rung: AtomicBool,
}

impl Waker {
    /// Makes a bell that has not been rung.
    pub fn new() -> io::Result<Waker> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        Ok(Waker { bell, rung: AtomicBool::new(false) })
    }

    /// Wakes the sleeper, now or as soon as it goes to sleep.
    pub fn wake(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // An eventfd of a process that is not out of descriptors takes a 1 at any time: its
            // counter stands at 0 or 1.
            let written = self.bell.write(1);
            debug_assert!(written.is_ok());
        }
    }

    /// Sleeps until the bell rings (`true`) or `timeout` has passed (`false`).
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, poll_timeout(timeout)) {
            Ok(0) | Err(Errno::EINTR) => Ok(false),
            Ok(_) => {
                self.bell.read()?;
                self.clear();
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says that the counter was read: a ring after this is a new one.
    pub(crate) fn clear(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// `timeout` for poll(2): rounded up to milliseconds, so that no one spins in the last one.
pub(crate) fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    let Some(timeout) = timeout else { return PollTimeout::NONE };
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis)
        .ok()
        .and_then(|ms| PollTimeout::try_from(ms).ok())
        .unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_sleep_is_not_lost() {
        let waker = Waker::new().unwrap();
        waker.wake();
        assert!(waker.wait(Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn many_rings_are_one_and_a_later_one_counts_again() {
        let waker = Waker::new().unwrap();
        (0..1000).for_each(|_| waker.wake());
        assert!(waker.wait(Some(Duration::ZERO)).unwrap());
        assert!(!waker.wait(Some(Duration::ZERO)).unwrap());
        waker.wake();
        assert!(waker.wait(Some(Duration::ZERO)).unwrap());
    }
}
