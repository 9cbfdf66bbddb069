//! Runs the real binary where `io_uring` is forbidden, as in most containers, or out of reach.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use tempfile::TempDir;

use super::executable;
use super::host::{Running, zferry};

/// The number of `io_uring_setup`, the same on every architecture.
const IO_URING_SETUP: i64 = 425;

const EPERM: u32 = 1;

/// Starts `zferry` with a pipe as its stdin; every attempt to make a ring fails with `EPERM`.
pub fn start_without_io_uring(words: &[&str]) -> Running {
    // Children inherit the filter of the thread that starts them, and no other thread has it.
    thread::scope(|scope| {
        let sandboxed = scope.spawn(|| {
            apply_filter(&filter()).unwrap();
            Running::start(zferry(words).stdin(Stdio::piped()))
        });
        sandboxed.join().unwrap()
    })
}

/// Starts `zferry` with a pipe as its stdin, as a user who may lock so many bytes of memory.
/// Limits do not hold root, who becomes nobody for it. The folder holds
/// a program that nobody may run; it must live as long.
pub fn start_with_lockable_memory(bytes: u64, words: &[&str]) -> (Running, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("zferry");
    executable::copy(Path::new(env!("CARGO_BIN_EXE_zferry")), &program);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("prlimit");
    command.arg(format!("--memlock={bytes}:{bytes}"));
    if fs::metadata(folder.path()).unwrap().uid() == 0 {
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg(&program).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    (Running::start(&mut command), folder)
}

fn filter() -> BpfProgram {
    let forbidden = [(IO_URING_SETUP, Vec::new())].into();
    let (others, these) = (SeccompAction::Allow, SeccompAction::Errno(EPERM));
    let machine = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(forbidden, others, these, machine).unwrap().try_into().unwrap()
}
