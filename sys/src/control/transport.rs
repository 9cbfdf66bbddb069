//! The two backends' sockets as one: the only file that names tokio-uring's types.
//!
//! Stands below `stream` and `listener`, which add what both backends owe their callers. Each
//! method is the bare operation of the backend: nothing here may be dropped half way by a caller.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::net as by_epoll;
use tokio_uring::net as by_ring;

use crate::backend::Backend;

/// A connected socket.
pub(super) enum Socket {
    RingTcp(by_ring::TcpStream),
    RingUnix(by_ring::UnixStream),
    EpollTcp(by_epoll::TcpStream),
    EpollUnix(by_epoll::UnixStream),
}

/// A listening socket.
pub(super) enum Acceptor {
    Ring(by_ring::TcpListener),
    Epoll(by_epoll::TcpListener),
}

impl Socket {
    pub(super) async fn connect(backend: Backend, addr: SocketAddr) -> io::Result<Socket> {
        match backend {
            Backend::Uring => by_ring::TcpStream::connect(addr).await.map(Socket::RingTcp),
            Backend::Threads => by_epoll::TcpStream::connect(addr).await.map(Socket::EpollTcp),
        }
    }

    /// The ring waits inside the kernel and needs a blocking socket; epoll needs the opposite.
    pub(super) fn from_unix(backend: Backend, socket: UnixStream) -> io::Result<Socket> {
        match backend {
            Backend::Uring => {
                socket.set_nonblocking(false)?;
                Ok(Socket::RingUnix(by_ring::UnixStream::from_std(socket)))
            }
            Backend::Threads => {
                socket.set_nonblocking(true)?;
                by_epoll::UnixStream::from_std(socket).map(Socket::EpollUnix)
            }
        }
    }

    /// Reads once into the front of `buffer`, up to its capacity; its length is what was read.
    pub(super) async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        buffer.clear();
        match self {
            Socket::RingTcp(socket) => socket.read(buffer).await,
            Socket::RingUnix(socket) => socket.read(buffer).await,
            Socket::EpollTcp(socket) => {
                let read = || socket.try_read_buf(&mut buffer);
                (socket.async_io(Interest::READABLE, read).await, buffer)
            }
            Socket::EpollUnix(socket) => {
                let read = || socket.try_read_buf(&mut buffer);
                (socket.async_io(Interest::READABLE, read).await, buffer)
            }
        }
    }

    pub(super) async fn write_all(&self, buffer: Vec<u8>) -> io::Result<()> {
        match self {
            Socket::RingTcp(socket) => socket.write_all(buffer).await.0,
            Socket::RingUnix(socket) => socket.write_all(buffer).await.0,
            Socket::EpollTcp(socket) => {
                let write = async |rest: &[u8]| {
                    socket.async_io(Interest::WRITABLE, || socket.try_write(rest)).await
                };
                write_whole(&buffer, write).await
            }
            Socket::EpollUnix(socket) => {
                let write = async |rest: &[u8]| {
                    socket.async_io(Interest::WRITABLE, || socket.try_write(rest)).await
                };
                write_whole(&buffer, write).await
            }
        }
    }
}

/// Calls `write` until nothing is left.
async fn write_whole(
    mut rest: &[u8],
    write: impl AsyncFn(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    while !rest.is_empty() {
        match write(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => rest = &rest[written..],
        }
    }
    Ok(())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            // SAFETY: the stream owns its descriptor until it is dropped, and `self` is borrowed
            // for as long as the answer.
            Socket::RingTcp(socket) => unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) },
            // SAFETY: as above.
            Socket::RingUnix(socket) => unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) },
            Socket::EpollTcp(socket) => socket.as_fd(),
            Socket::EpollUnix(socket) => socket.as_fd(),
        }
    }
}

impl Acceptor {
    /// Takes over a listening socket; as for [`Socket::from_unix`], blocking suits the ring only.
    pub(super) fn from_std(backend: Backend, socket: TcpListener) -> io::Result<Acceptor> {
        match backend {
            Backend::Uring => {
                socket.set_nonblocking(false)?;
                Ok(Acceptor::Ring(by_ring::TcpListener::from_std(socket)))
            }
            Backend::Threads => {
                socket.set_nonblocking(true)?;
                by_epoll::TcpListener::from_std(socket).map(Acceptor::Epoll)
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Acceptor::Ring(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Socket::RingTcp(stream), peer))
            }
            Acceptor::Epoll(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Socket::EpollTcp(stream), peer))
            }
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            // SAFETY: the listener owns its descriptor until it is dropped, and `self` is borrowed
            // for as long as the answer.
            Acceptor::Ring(socket) => unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) },
            Acceptor::Epoll(socket) => socket.as_fd(),
        }
    }
}
