//! Where clients knock.
//!
//! First on the server's way: what it accepts becomes a control or a data connection. A dropped
//! `accept` must never lose the connection that it would have returned: see `parked`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use super::parked::Parked;
use super::running;
use super::stream::Stream;
use super::transport::{Acceptor, Socket};
use crate::socket::shutdown_both;

/// A listening TCP socket; stays on the thread of its runtime.
pub struct Listener {
    acceptor: Rc<Acceptor>,
    local_addr: SocketAddr,
    accepting: Parked<io::Result<(Socket, SocketAddr)>>,
}

impl Listener {
    /// Listens at `addr`; port 0 asks the kernel for a free one. A port in use is an error.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        let backend = running()?;
        let socket = TcpListener::bind(addr)?;
        let local_addr = socket.local_addr()?;
        let acceptor = Rc::new(Acceptor::from_std(backend, socket)?);
        Ok(Listener { acceptor, local_addr, accepting: Parked::new() })
    }

    /// The address it listens at, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next connection. May be dropped and called again: no connection is lost.
    ///
    /// `EMFILE` and its kin leave the listener usable, but at once and again: pause before the
    /// next call.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let acceptor = Rc::clone(&self.acceptor);
        let (socket, peer) =
            self.accepting.resume_or(async move || acceptor.accept().await).await??;
        Ok((Stream::over(socket), peer))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// An accept that goes on would keep the port, and take a connection that nobody will answer.
impl Drop for Listener {
    fn drop(&mut self) {
        if self.accepting.is_left() {
            let _ = shutdown_both(&*self.acceptor);
        }
    }
}
