//! Pipes between us and a process: made at the right size, filled without copying.
//!
//! A pipe is sized while it is empty and before the process is spawned, and never again: resizing
//! a pipe that holds data can lose the writer's wake-up (kernel bugzilla 212295, openzfs#13232).
//! `O_NONBLOCK` is never set on an end that a process gets, for `zfs` takes `EAGAIN` for failure.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Both ends of a fresh pipe; each is closed on exec unless it is handed to a child as its stdio.
#[derive(Debug)]
pub struct Pipe {
    /// The end that bytes come out of.
    pub reader: OwnedFd,
    /// The end that bytes go into.
    pub writer: OwnedFd,
    /// What the kernel granted, in bytes: a pipe of an unprivileged user over its soft limit
    /// (`pipe-user-pages-soft`) keeps less than asked, down to 8192 bytes.
    pub capacity: usize,
}

impl Pipe {
    /// Makes a pipe of `wanted` bytes, or of as many as the kernel grants.
    ///
    /// Asks for `wanted` once and for half as long as that is refused with `EPERM` (over
    /// `/proc/sys/fs/pipe-max-size` without `CAP_SYS_RESOURCE`, or over the user's soft limit).
    pub fn new(wanted: usize) -> io::Result<Pipe> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let capacity = enlarge(&writer, wanted)?;
        Ok(Pipe { reader, writer, capacity })
    }
}

/// Grows an empty pipe towards `wanted` bytes; returns what it holds in the end.
fn enlarge(pipe: impl AsFd, wanted: usize) -> io::Result<usize> {
    let mut wanted = wanted;
    let mut held = capacity(&pipe)?;
    while wanted > held {
        let request = i32::try_from(wanted).unwrap_or(i32::MAX);
        match fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(request)) {
            Ok(_) => held = capacity(&pipe)?,
            // Or there are not so many places in one piece.
            Err(Errno::EPERM | Errno::ENOMEM) => wanted /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(held)
}

/// How many bytes the pipe behind `end` can hold (`F_GETPIPE_SZ`).
pub fn capacity(end: impl AsFd) -> io::Result<usize> {
    let bytes = fcntl(end, FcntlArg::F_GETPIPE_SZ)?;
    usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}
