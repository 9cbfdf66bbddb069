//! Where a stage waits: one thread's reads, receives and sends, and its bell, in one place.
//!
//! Two backends do the work behind one seam: a ring (`io_uring`) and a crew (plain system calls on
//! helper threads), so that no stage knows which of them the machine allows. A third moves bays,
//! which neither could do as well. What goes over a connection with a cipher is done by a scribe
//! of its own instead, whatever the backend. An operation owns its slot until it ends. At most one
//! operation per descriptor and direction is in flight, for the kernel completes several in any
//! order: reads on a pipe came back exactly reversed, sends on a socket interleaved (both shown in
//! `tests/kernel.rs`). Those on places of a file say where their bytes belong, and may be many.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::arena::Arena;
use crate::backend::Backend;
use crate::cipher::{Conduit, Parts};
use crate::crew::Crew;
use crate::operation::Direction;
pub use crate::operation::{Act, Completion, Request};
use crate::poller::Poller;
use crate::ring::Ring;
use crate::scribes::Scribes;
use crate::wake::Waker;

/// One thread's operations. Made on the thread that uses it.
///
/// Dropped with operations in flight it ends them: a pipe loses nothing that was not read yet, a
/// socket is shut down, for half a frame is no use to either side. No slot goes home before the
/// kernel has let go of it.
#[derive(Debug)]
pub struct Port {
    backend: Inner,
    scribes: Scribes,
    in_flight: Vec<(u32, RawFd, Direction)>,
}

#[derive(Debug)]
enum Inner {
    Ring(Box<Ring>),
    Crew(Crew),
    Poller(Poller),
}

impl Inner {
    fn submit(&mut self, request: Request) -> io::Result<()> {
        match self {
            Inner::Ring(ring) => ring.submit(request),
            Inner::Crew(crew) => crew.submit(request),
            Inner::Poller(poller) => poller.submit(request),
        }
    }
}

impl Port {
    /// Opens a port for about `depth` operations at once on slots of `arena`; more cost a system
    /// call each.
    ///
    /// With [`Backend::Uring`] slots are registered with the new ring as they are first read into,
    /// where the limit on locked memory allows it (`RLIMIT_MEMLOCK`); fails where no ring can be
    /// made at all.
    pub fn new(
        backend: Backend,
        arena: &Arc<Arena>,
        waker: &Arc<Waker>,
        depth: u32,
    ) -> io::Result<Port> {
        let backend = match backend {
            Backend::Uring => Inner::Ring(Box::new(Ring::new(arena, waker, depth)?)),
            Backend::Threads => Inner::Crew(Crew::new(waker)),
        };
        Ok(Port::over(backend, waker))
    }

    /// Opens a port that moves bays, and receives into slots: the same on every machine.
    pub fn for_bays(waker: &Arc<Waker>) -> Port {
        Port::over(Inner::Poller(Poller::new(waker)), waker)
    }

    fn over(backend: Inner, waker: &Arc<Waker>) -> Port {
        Port { backend, scribes: Scribes::new(waker), in_flight: Vec::new() }
    }

    /// Takes a connection in; what is sent and received on its socket goes through its cipher.
    ///
    /// Panics where it has a cipher and the port moves bays, which are never seen by us.
    pub fn join(&mut self, connection: Conduit) -> io::Result<Arc<OwnedFd>> {
        let Parts { socket, cipher, brake } = connection.into_parts();
        let socket = Arc::new(socket);
        if let Some(cipher) = cipher {
            assert!(!self.moves_bays(), "what has a cipher cannot stay in the kernel");
            self.scribes.join(&socket, cipher, brake)?;
        }
        Ok(socket)
    }

    fn moves_bays(&self) -> bool {
        matches!(self.backend, Inner::Poller(_))
    }

    /// Hands over an operation; it starts with the next [`Port::wait`] at the latest.
    ///
    /// Panics where the range does not lie in the slot or is empty, or where the descriptor has an
    /// operation of that direction in flight already, or where the port is not made for it: all
    /// would be mistakes of ours. Operations at
    /// places of a file have no direction.
    pub fn submit(&mut self, request: Request) -> io::Result<()> {
        let lane = (request.fd.as_raw_fd(), request.act.direction());
        assert!(request.act.fits_its_slot(), "operation {} leaves its slot", request.key);
        assert!(
            self.in_flight.iter().all(|&(key, fd, way)| {
                key != request.key && ((fd, way) != lane || way == Direction::Place)
            }),
            "operation {} is the second in flight on descriptor {}",
            request.key,
            lane.0
        );
        assert!(
            self.moves_bays() || !request.act.is_of_bay(),
            "operation {} moves a bay",
            request.key
        );
        self.in_flight.push((request.key, lane.0, lane.1));
        let request = match self.scribes.take(request) {
            Ok(taken) => return taken,
            Err(request) => request,
        };
        self.backend.submit(request)
    }

    /// Asks a read to end early. Its completion comes in any case: with `ECANCELED`, or with the
    /// bytes that were faster.
    pub fn cancel(&mut self, key: u32) -> io::Result<()> {
        match &mut self.backend {
            Inner::Ring(ring) => ring.cancel(key),
            Inner::Crew(crew) => {
                crew.cancel(key);
                Ok(())
            }
            Inner::Poller(poller) => {
                poller.cancel(key);
                Ok(())
            }
        }
    }

    /// Sleeps until an operation ends, the bell rings, or `timeout` has passed, and appends what
    /// ended to `completions`. May return with nothing after a signal.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let first = completions.len();
        match &mut self.backend {
            Inner::Ring(ring) => ring.wait(timeout, completions)?,
            Inner::Crew(crew) => crew.wait(timeout, completions)?,
            Inner::Poller(poller) => poller.wait(timeout, completions)?,
        }
        self.scribes.finished(completions);
        for completion in &completions[first..] {
            match completion {
                Completion::Filled { key: ended, .. }
                | Completion::Drawn { key: ended, .. }
                | Completion::Sent { key: ended, .. }
                | Completion::Written { key: ended, .. }
                | Completion::Watched { key: ended, .. } => {
                    self.in_flight.retain(|(key, ..)| key != ended);
                }
                Completion::Released { .. } => {}
            }
        }
        Ok(())
    }

    /// Whether reads go to registered buffers, as far as the limit on locked memory allows it.
    pub fn registered(&self) -> bool {
        matches!(&self.backend, Inner::Ring(ring) if ring.registered())
    }
}

#[cfg(test)]
mod tests;
