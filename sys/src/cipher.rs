//! What stands between plain bytes and a socket, for those that others can listen to.
//!
//! This crate moves bytes and knows no cryptography: whoever opens a connection gives it a
//! [`Cipher`] along, or none. What must never happen: that a socket with a cipher is written to, or
//! read from, past it.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Both directions of one connection.
pub trait Cipher: Send + fmt::Debug {
    /// Writes to `wire` all that `plain` travels as, in few large calls.
    fn encrypt(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<()>;

    /// Takes bytes off the front of `wire` and fills `plain` with what they mean, until one of both
    /// is used up. Fails for good on bytes that the peer has not sent so.
    fn decrypt(&mut self, wire: &mut &[u8], plain: &mut [u8]) -> io::Result<Decrypted>;
}

/// What came of bytes off the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decrypted {
    /// So many plain bytes.
    pub bytes: usize,
    /// The peer has said that these are its last.
    pub ended: bool,
}

/// A connected socket, in clear or with its cipher.
#[derive(Debug)]
pub struct Conduit {
    socket: OwnedFd,
    cipher: Option<Box<dyn Cipher>>,
}

impl Conduit {
    /// A socket whose bytes travel as they are.
    pub fn plain(socket: OwnedFd) -> Conduit {
        Conduit { socket, cipher: None }
    }

    /// A socket that is only ever spoken on through a cipher.
    pub fn enciphered(socket: OwnedFd, cipher: Box<dyn Cipher>) -> Conduit {
        Conduit { socket, cipher: Some(cipher) }
    }

    /// Whether its bytes travel as they are.
    pub fn is_plain(&self) -> bool {
        self.cipher.is_none()
    }

    /// Both parts: for [`crate::port::Port::join`].
    pub(crate) fn into_parts(self) -> (OwnedFd, Option<Box<dyn Cipher>>) {
        (self.socket, self.cipher)
    }
}

/// For options: see [`crate::socket`].
impl AsFd for Conduit {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<UnixStream> for Conduit {
    fn from(socket: UnixStream) -> Conduit {
        Conduit::plain(socket.into())
    }
}
