//! Options of the sockets that carry a session, and why each is set.
//!
//! Called once per connection, before its first byte. A copy within one host runs over an
//! `AF_UNIX` pair, to which TCP's options mean nothing: there they all succeed and change nothing.
//! Nothing here may read or write the stream.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

/// Ends both directions: every pending operation returns, the peer reads the end.
///
/// A connection that is gone already (`ENOTCONN`) is as ended as it can be.
pub fn shutdown_both(socket: impl AsFd) -> io::Result<()> {
    end(socket, Shutdown::Both)
}

/// Ends our direction: the peer reads the end, and may still answer.
pub fn shutdown_write(socket: impl AsFd) -> io::Result<()> {
    end(socket, Shutdown::Write)
}

fn end(socket: impl AsFd, how: Shutdown) -> io::Result<()> {
    match shutdown(socket.as_fd().as_raw_fd(), how) {
        Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
