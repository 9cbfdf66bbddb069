//! One connection of the control plane, over TCP or between two processes of one host.
//!
//! Carries the conversation, and the first words of a data connection before that leaves through
//! [`Stream::into_fd`]. A future dropped half way must never cost a byte: see `parked`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::parked::{Parked, detached};
use super::running;
use super::transport::Socket;
use crate::socket::{shutdown_both, shutdown_write};

/// A connected stream of bytes; stays on the thread of its runtime.
///
/// One task may read while another writes. Its methods panic outside `Runtime::block_on`.
pub struct Stream {
    socket: Rc<Socket>,
    reading: Parked<(io::Result<usize>, Vec<u8>)>,
    writing: Parked<io::Result<()>>,
}

impl Stream {
    /// Connects over TCP. Without a bound of its own: wrap it in a timeout.
    pub async fn connect(addr: SocketAddr) -> io::Result<Stream> {
        let backend = running()?;
        detached(Socket::connect(backend, addr)).await.map(Stream::over)
    }

    /// Takes over one end of a socket pair; a copy within one host talks over such a pair.
    pub fn from_unix(socket: UnixStream) -> io::Result<Stream> {
        Socket::from_unix(running()?, socket).map(Stream::over)
    }

    /// Both ends of a fresh socket pair.
    pub fn pair() -> io::Result<(Stream, Stream)> {
        let (left, right) = UnixStream::pair()?;
        Ok((Stream::from_unix(left)?, Stream::from_unix(right)?))
    }

    pub(super) fn over(socket: Socket) -> Stream {
        Stream { socket: Rc::new(socket), reading: Parked::new(), writing: Parked::new() }
    }

    /// Reads once, up to the capacity of `buffer`; the vector that returns holds just what came.
    ///
    /// `Ok(0)` is the end of the stream. What `buffer` held before is gone. When the future of an
    /// earlier read was dropped, that read's bytes come first, in that read's vector.
    pub async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        if buffer.capacity() == 0 {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "no room to read into");
            return (Err(error), buffer);
        }
        let socket = Rc::clone(&self.socket);
        let fresh = async move || socket.read(buffer).await;
        match self.reading.resume_or(fresh).await {
            Ok(done) => done,
            Err(error) => (Err(error), Vec::new()),
        }
    }

    /// Writes all of `buffer`, after what an earlier, dropped `write_all` has still to write.
    ///
    /// A dropped call is finished, not undone: its bytes go out whole.
    pub async fn write_all(&self, buffer: Vec<u8>) -> io::Result<()> {
        if let Some(earlier) = self.writing.resume().await? {
            earlier?;
        }
        let socket = Rc::clone(&self.socket);
        self.writing.resume_or(async move || socket.write_all(buffer).await).await?
    }

    /// Ends both directions: a pending read returns 0, the peer reads the end.
    pub fn shutdown(&self) -> io::Result<()> {
        shutdown_both(&*self.socket)
    }

    /// Says that nothing more will be written; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        shutdown_write(&*self.socket)
    }

    /// Gives the connection away, as a blocking descriptor for the data plane.
    ///
    /// What was read already does not travel with it: read exactly what belongs to the control
    /// plane. Refused while an operation goes on whose future was dropped, for that would steal
    /// the data plane's bytes; the connection is then closed.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        if self.is_abandoned() {
            let text = "an unfinished read or write still uses the connection";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        let fd = self.socket.as_fd().try_clone_to_owned()?;
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        Ok(fd)
    }

    /// Whether an operation goes on that nobody waits for.
    fn is_abandoned(&self) -> bool {
        self.reading.is_left() || self.writing.is_left()
    }
}

/// For options: see [`crate::socket`].
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("fd", &self.as_fd()).finish_non_exhaustive()
    }
}

/// An operation that goes on keeps the socket open, so that the peer would wait for ever.
impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_abandoned() {
            let _ = self.shutdown();
        }
    }
}
