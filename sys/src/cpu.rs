//! Which cores we may use, and keeping a thread on one of them.
//!
//! The workers that compress are pinned, one to a core, so that their tables stay in its caches.
//! A core that the operator withheld (`taskset`, cpuset, `CPUAffinity=`) must never be used: the
//! kernel would allow it after `taskset`, we do not.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, getpid};

/// The cores that this process was started with, ascending.
///
/// Asks for the main thread's, which is never pinned: a pinned thread sees only its own core. On a
/// machine of more than 1024 cores the kernel answers `EINVAL`.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(getpid())?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core) == Ok(true)).collect())
}

/// Keeps the calling thread on `core` from now on.
pub fn pin_current_thread(core: usize) -> io::Result<()> {
    let allowed = allowed()?;
    if !allowed.contains(&core) {
        let text = format!("core {core} is not one we may use: {}", ranges(&allowed));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Ascending cores as the kernel writes them: `0-3,6`.
pub fn ranges(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|left, right| left + 1 == *right);
    let text = |run: &[usize]| match run {
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use nix::sched::sched_getcpu;

    use super::*;

    #[test]
    fn a_pinned_thread_runs_on_its_core_and_nowhere_else() {
        for core in allowed().expect("cores") {
            let pinned = move || {
                pin_current_thread(core).expect("pin");
                let set = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
                let own = (0..CpuSet::count()).filter(|&n| set.is_set(n) == Ok(true));
                assert_eq!(own.collect::<Vec<_>>(), [core]);
                assert_eq!(sched_getcpu(), Ok(core));
            };
            std::thread::spawn(pinned).join().expect("join");
        }
    }

    #[test]
    fn a_pinned_thread_still_knows_the_cores_of_the_process() {
        let before = allowed().expect("cores");
        let pinned = move || {
            pin_current_thread(before[0]).expect("pin");
            assert_eq!(allowed().expect("cores"), before);
            pin_current_thread(before[before.len() - 1]).expect("pin elsewhere");
        };
        std::thread::spawn(pinned).join().expect("join");
    }

    #[test]
    fn a_core_that_is_not_ours_is_refused_with_those_that_are() {
        let ours = ranges(&allowed().expect("cores"));
        for core in [CpuSet::count() - 1, CpuSet::count(), usize::MAX] {
            let text = pin_current_thread(core).expect_err("not ours").to_string();
            assert!(text.contains(&core.to_string()) && text.contains(&ours), "{text}");
        }
    }

    #[test]
    fn cores_are_written_as_the_kernel_writes_them() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 3, 6, 8, 9]), "0-3,6,8-9");
    }
}
