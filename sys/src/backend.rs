//! Which way the kernel is asked for input and output: through `io_uring`, or by plain calls.
//!
//! Chosen once, at start, by trying: version numbers lie (distributions backport, sandboxes
//! forbid). What was tried and refused must never vanish: a fall back carries its reason, so that
//! the caller can say it once.

use std::fmt;
use std::fs;
use std::io;

use io_uring::IoUring;
use nix::errno::Errno;

/// 0 lets everybody make a ring, 1 only the privileged, 2 nobody; absent before Linux 6.6.
pub(crate) const DISABLED_KNOB: &str = "/proc/sys/kernel/io_uring_disabled";

/// Entries of a ring that is made only to see whether it can be made.
pub(crate) const TRIAL_ENTRIES: u32 = 8;

/// The way that input and output take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Submission and completion rings shared with the kernel.
    Uring,
    /// Blocking system calls on threads of their own, and epoll for the control plane.
    Threads,
}

/// What was asked for: `--io auto|uring|threads`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// `io_uring` where it works, threads where it does not.
    #[default]
    Auto,
    /// `io_uring` or nothing.
    Uring,
    /// Threads, whatever the kernel offers.
    Threads,
}

/// A choice after the kernel was asked.
#[derive(Debug)]
pub struct Resolved {
    /// The backend to use.
    pub backend: Backend,
    /// Why [`Choice::Auto`] did not get `io_uring`; say it once.
    pub fell_back: Option<WhyNot>,
}

/// Why this process cannot have a ring.
#[derive(Debug)]
pub enum WhyNot {
    /// `kernel.io_uring_disabled` forbids it; holds the knob's value.
    Disabled(u8),
    /// `EPERM` although the knob does not forbid it: a seccomp filter (container, unit) does.
    Forbidden,
    /// `ENOSYS`: the kernel was built without `io_uring`, or a seccomp filter says so.
    Missing,
    /// `ENOMEM`: before Linux 5.12 the ring itself counts against `RLIMIT_MEMLOCK`.
    NoMemory,
    /// Anything else, as the kernel put it.
    Other(io::Error),
}

impl Choice {
    /// Asks the kernel where the choice depends on it.
    ///
    /// Fails only for [`Choice::Uring`], with the reason.
    pub fn resolve(self) -> Result<Resolved, WhyNot> {
        let found = |backend| Resolved { backend, fell_back: None };
        match self {
            Choice::Threads => Ok(found(Backend::Threads)),
            Choice::Uring => probe().map(|()| found(Backend::Uring)),
            Choice::Auto => Ok(match probe() {
                Ok(()) => found(Backend::Uring),
                Err(why) => Resolved { backend: Backend::Threads, fell_back: Some(why) },
            }),
        }
    }
}

/// Entries of the ring that [`probe`] makes: it takes more locked memory than the control plane's
/// ring and the data plane's together, so that a limit which would stop one of those is found now.
const PROBE_ENTRIES: u32 = 1024;

/// Tries to make a ring, and closes it again.
///
/// A small ring would prove too little: a user with a limit of 64 KiB on locked memory gets one of
/// 8 entries and not one of 256 (seen on 6.18).
pub fn probe() -> Result<(), WhyNot> {
    match IoUring::new(PROBE_ENTRIES) {
        Ok(_ring) => Ok(()),
        Err(error) => Err(WhyNot::from_setup(error)),
    }
}

/// The value of `kernel.io_uring_disabled`; `None` where the kernel has no such knob.
pub(crate) fn disabled_knob() -> Option<u8> {
    fs::read_to_string(DISABLED_KNOB).ok()?.trim().parse().ok()
}

impl WhyNot {
    /// Names the error that `io_uring_setup` returned.
    fn from_setup(error: io::Error) -> WhyNot {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => match disabled_knob() {
                Some(value) if value > 0 => WhyNot::Disabled(value),
                _ => WhyNot::Forbidden,
            },
            Some(Errno::ENOSYS) => WhyNot::Missing,
            Some(Errno::ENOMEM) => WhyNot::NoMemory,
            _ => WhyNot::Other(error),
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::Disabled(value) => {
                write!(f, "kernel.io_uring_disabled is {value}: set it to 0 to allow io_uring")
            }
            WhyNot::Forbidden => f.write_str(
                "a seccomp filter forbids io_uring: allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container or unit",
            ),
            WhyNot::Missing => f.write_str("this kernel has no io_uring"),
            WhyNot::NoMemory => f.write_str(
                "not enough lockable memory for a ring: raise RLIMIT_MEMLOCK (LimitMEMLOCK=)",
            ),
            WhyNot::Other(error) => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for WhyNot {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WhyNot::Other(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Uring => "uring",
            Backend::Threads => "threads",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `work` on a thread for which `io_uring_setup` fails with `errno`, as in a sandbox.
    fn without_io_uring<T: Send + 'static>(
        errno: Errno,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let sandboxed = move || {
            forbid_io_uring(errno);
            work()
        };
        std::thread::spawn(sandboxed).join().expect("join the sandboxed thread")
    }

    /// Installs a filter on this thread: `io_uring_setup` fails, everything else is allowed.
    fn forbid_io_uring(errno: Errno) {
        let statement = |code: u32, k: u32| libc::sock_filter {
            code: u16::try_from(code).expect("filter codes have 16 bits"),
            jt: 0,
            jf: 0,
            k,
        };
        let setup = u32::try_from(libc::SYS_io_uring_setup).expect("call numbers are small");
        let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(errno as i32).expect("positive");
        let mut jump = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup);
        jump.jf = 1;
        let mut filter = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
            jump,
            statement(libc::BPF_RET | libc::BPF_K, refusal),
            statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: these options take integers only.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: `program` and the four statements it points to live until the call returns,
        // which copies them.
        let rc = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn auto_in_a_container_that_forbids_rings_falls_back_and_says_why() {
        let resolved = without_io_uring(Errno::EPERM, || Choice::Auto.resolve());
        let resolved = resolved.expect("auto never fails");
        assert_eq!(resolved.backend, Backend::Threads);
        let reason = resolved.fell_back.expect("a reason").to_string();
        assert!(reason.contains("seccomp") || reason.contains("io_uring_disabled"), "{reason}");
    }

    #[test]
    fn a_kernel_without_io_uring_is_named_as_such() {
        let probed = without_io_uring(Errno::ENOSYS, probe);
        assert!(matches!(probed, Err(WhyNot::Missing)), "{probed:?}");
        let probed = without_io_uring(Errno::ENOMEM, probe);
        assert!(matches!(probed, Err(WhyNot::NoMemory)), "{probed:?}");
    }

    #[test]
    fn an_unexpected_error_keeps_its_text() {
        let probed = without_io_uring(Errno::EMFILE, probe);
        let why = probed.expect_err("no ring");
        assert!(why.to_string().contains("Too many open files"), "{why}");
    }

    #[test]
    fn uring_that_was_asked_for_by_name_is_never_replaced() {
        let resolved = without_io_uring(Errno::EPERM, || Choice::Uring.resolve());
        assert!(resolved.is_err());
    }

    #[test]
    fn threads_ask_the_kernel_nothing() {
        let resolved = Choice::Threads.resolve().expect("always there");
        assert_eq!(resolved.backend, Backend::Threads);
        assert!(resolved.fell_back.is_none());
    }
}
