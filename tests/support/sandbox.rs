//! Runs the real binary where `io_uring` is forbidden, as in most containers.
#![allow(dead_code, reason = "each test crate uses its own part")]

use std::process::Stdio;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::host::{Running, zferry};

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

fn filter() -> BpfProgram {
    let forbidden = [(IO_URING_SETUP, Vec::new())].into();
    let (others, these) = (SeccompAction::Allow, SeccompAction::Errno(EPERM));
    let machine = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(forbidden, others, these, machine).unwrap().try_into().unwrap()
}
