//! A child's process group, killed on any kernel: a pidfd reaches groups from Linux 6.9 on alone.
//!
//! By number, which is the leader's pid, and only while that is nobody else's. What must never
//! happen here: a signal to a group whose leader was waited for.

use std::io;
use std::process::Child;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Kills (`SIGKILL`) a child and the group that it leads. One that has ended already is a success,
/// and its group is left alone.
pub fn kill(leader: &mut Child) -> io::Result<()> {
    // Whoever has the child alone can wait for it: if it has not ended now, nobody else gets its
    // number before we return.
    if leader.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = i32::try_from(leader.id()).map_err(|_| Errno::ESRCH)?;
    match killpg(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => Ok(()),
        // It leads none.
        Err(Errno::ESRCH) => leader.kill(),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_leader_and_one_that_leads_nobody_are_killed_and_one_that_has_ended_is_not() {
        for leads in [true, false] {
            let mut command = Command::new("sleep");
            command.arg("60");
            if leads {
                command.process_group(0);
            }
            let mut child = command.spawn().unwrap();
            kill(&mut child).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            kill(&mut child).unwrap();
        }
    }
}
