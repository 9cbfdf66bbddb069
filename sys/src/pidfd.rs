//! A process that is held by a descriptor, so that a signal cannot hit a stranger.
//!
//! A pid may be given to another process as soon as its owner was waited for; a pidfd goes on
//! meaning the first one. It serves whoever must stop a child from another thread than the one
//! that waits for it. What must never happen here: a signal by bare pid.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Child;

use nix::errno::Errno;

/// A handle on one process. Each is closed on exec.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

/// How a process is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// `SIGTERM`: the process may put things in order.
    Terminate,
    /// `SIGKILL`: it may not.
    Kill,
}

/// Signal all processes of the group that the target leads (`PIDFD_SIGNAL_PROCESS_GROUP`,
/// since Linux 6.9; neither libc nor nix know its name yet).
const PROCESS_GROUP: libc::c_uint = 1 << 2;

impl PidFd {
    /// Takes hold of `child`, which must not have been waited for: until then its pid is its own,
    /// even when it has ended.
    pub fn of(child: &Child) -> io::Result<PidFd> {
        let pid = libc::pid_t::try_from(child.id()).map_err(|_| Errno::ESRCH)?;
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Signals the process and, from Linux 6.9 on, all of the group that it leads; older kernels
    /// reach the process alone. A process that has ended already is a success.
    pub fn stop(&self, signal: StopSignal) -> io::Result<()> {
        let sent = match self.send(signal, PROCESS_GROUP) {
            Err(Errno::EINVAL) => self.send(signal, 0),
            sent => sent,
        };
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&self, signal: StopSignal, flags: libc::c_uint) -> nix::Result<()> {
        let signal = match signal {
            StopSignal::Terminate => libc::SIGTERM,
            StopSignal::Kill => libc::SIGKILL,
        };
        let no_info = std::ptr::null::<libc::siginfo_t>();
        let fd = self.0.as_raw_fd();
        // SAFETY: `fd` is open as long as `self` is; the kernel takes a null `siginfo_t` for "fill
        // it in yourself", so it reads no memory of ours.
        let done =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, flags) };
        Errno::result(done).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_gets_the_signal_that_was_asked_for() {
        for (signal, number) in [(StopSignal::Terminate, 15), (StopSignal::Kill, 9)] {
            let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
            PidFd::of(&child).unwrap().stop(signal).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(number));
        }
    }

    #[test]
    fn a_process_that_was_waited_for_is_not_mistaken_for_another() {
        let mut child = Command::new("true").process_group(0).spawn().unwrap();
        let pidfd = PidFd::of(&child).unwrap();
        child.wait().unwrap();
        pidfd.stop(StopSignal::Kill).unwrap();
    }
}
