//! What stands between plain bytes and a socket, for those that others can listen to.
//!
//! This crate moves bytes and knows no cryptography: whoever opens a connection gives it a
//! [`Cipher`] along, or none. What must never happen: that a socket with a cipher is written to, or
//! read from, past it.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Both directions of one connection.
pub trait Cipher: Send + fmt::Debug {
    /// Writes to `wire` all that `plain` travels as, in few large calls.
    fn encrypt(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<()>;

    /// Takes bytes off the front of `wire` and fills `plain` with what they mean, until one of both
    /// is used up. Fails for good on bytes that the peer has not sent so.
    fn decrypt(&mut self, wire: &mut &[u8], plain: &mut [u8]) -> io::Result<Decrypted>;
}

/// Holds connections back that bring more than they may: all that have the same one count together.
pub trait Brake: Send + Sync + fmt::Debug {
    /// The most that is taken off a socket at once.
    fn most(&self) -> usize;

    /// So many bytes were taken; for so long nothing more is taken off the socket that brought
    /// them. TCP tells the other end to wait.
    fn took(&self, bytes: usize) -> Duration;
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
    brake: Option<Arc<dyn Brake>>,
}

/// A connection in its parts.
pub(crate) struct Parts {
    pub socket: OwnedFd,
    pub cipher: Option<Box<dyn Cipher>>,
    pub brake: Option<Arc<dyn Brake>>,
}

impl Conduit {
    /// A socket whose bytes travel as they are.
    pub fn plain(socket: OwnedFd) -> Conduit {
        Conduit { socket, cipher: None, brake: None }
    }

    /// A socket that is only ever spoken on through a cipher.
    pub fn enciphered(socket: OwnedFd, cipher: Box<dyn Cipher>) -> Conduit {
        Conduit { socket, cipher: Some(cipher), brake: None }
    }

    /// The same, which takes bytes off its socket no faster than a brake allows. One in clear does
    /// not mind: whoever is not known has no limit of his own.
    #[must_use]
    pub fn braked(mut self, brake: Arc<dyn Brake>) -> Conduit {
        self.brake = Some(brake);
        self
    }

    /// Whether its bytes travel as they are.
    pub fn is_plain(&self) -> bool {
        self.cipher.is_none()
    }

    /// All parts: for [`crate::port::Port::join`].
    pub(crate) fn into_parts(self) -> Parts {
        let Conduit { socket, cipher, brake } = self;
        Parts { socket, cipher, brake }
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
