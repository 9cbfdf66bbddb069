//! Connections that the server's side makes to us, when we call for them.
//!
//! For a client that ssh has started where no port leads back: its server sits at the other end of
//! that ssh, and can only send connections this way (`ssh -W`). Each call brings one; which of them
//! answers which call does not matter, for each is told by its client what it is for. Whoever else
//! of this host comes in does not get through the handshake, and costs another call.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sys::control::{self, Listener, Stream};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::link;

/// After an error of accept(2) the next attempt waits this long.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// A place where called connections arrive.
#[derive(Clone)]
pub struct Called {
    here: SocketAddr,
    call: Rc<RefCell<dyn FnMut(SocketAddr)>>,
    arrivals: Rc<Mutex<UnboundedReceiver<Stream>>>,
}

impl Called {
    /// Takes connections at a listener; `call` asks the other side for one to its address. To be
    /// made in a control runtime.
    pub fn at(listener: Listener, call: impl FnMut(SocketAddr) + 'static) -> Called {
        let here = listener.local_addr();
        let (tell, arrivals) = unbounded_channel();
        control::spawn(async move {
            while !tell.is_closed() {
                match listener.accept().await {
                    // Nobody takes it where nobody calls any more.
                    Ok((stream, _peer)) => drop(tell.send(stream)),
                    Err(error) => {
                        tracing::warn!(%error, "accept a connection");
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                }
            }
        });
        Called { here, call: Rc::new(RefCell::new(call)), arrivals: Rc::new(Mutex::new(arrivals)) }
    }

    /// Calls for a connection, and takes the next that comes.
    pub(super) async fn connect(&self, limit: Duration) -> io::Result<Stream> {
        (self.call.borrow_mut())(self.here);
        let arrived = async { self.arrivals.lock().await.recv().await };
        let arrived = tokio::time::timeout(limit, arrived).await;
        let stream = arrived.ok().flatten().ok_or(io::ErrorKind::TimedOut)?;
        link::prepare(&stream)?;
        Ok(stream)
    }
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Called").field("here", &self.here).finish_non_exhaustive()
    }
}
