//! The sender's connections: who is free, who is busy, and who is gone but not yet let go of.
//!
//! A lane is a place that connections follow each other in. Each connection has an id of its own,
//! so that what the kernel still tells of an old one is not taken for news of the new. One that
//! was lost is shut down at once and kept until its operations have ended.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sys::cipher::Conduit;
use sys::port::{Act, Port, Request};

use crate::engine::block::{Frame, Payload};
use crate::engine::settings::ZeroCopy;
use crate::units::Rate;

/// All connections of a session.
pub(super) struct Lanes {
    zero_copy: ZeroCopy,
    connections: BTreeMap<u32, Connection>,
    /// Ids of the connections that could send; the one that has waited longest first.
    idle: VecDeque<u32>,
    next_id: u32,
    /// Of all of them together.
    limit: Option<Rate>,
    /// Whether what the kernel cannot send yet shall wait with us.
    keeps_unsent: bool,
}

/// What may wait in a socket all the same: bridges 80 µs at 100 Gbit/s.
const UNSENT_MAX: u32 = 1 << 20;

/// One socket, and what it has in hand.
struct Connection {
    lane: u32,
    fd: Arc<OwnedFd>,
    sending: Option<Frame>,
    /// Its watch has not ended.
    watched: bool,
    lost: bool,
    zero_copy: ZeroCopy,
}

/// Which of a connection's two operations a key of the port stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Send,
    Watch,
}

/// What the end of a send means.
pub(super) enum Outcome {
    /// The connection is free, or gone.
    Done,
    /// This is still to be sent.
    Rest(Frame),
    /// The connection is broken, or closed where there is no error.
    Broken(Option<io::Error>),
}

impl Operation {
    fn key(self, id: u32) -> u32 {
        id << 1 | u32::from(self == Operation::Watch)
    }
}

/// The connection that a key of the port stands for.
pub(super) fn id_of(key: u32) -> u32 {
    key >> 1
}

impl Lanes {
    /// With `keeps_unsent` frames wait here, where they are counted, and not in the sockets. That
    /// costs a few percent of speed.
    pub fn new(zero_copy: ZeroCopy, keeps_unsent: bool) -> Lanes {
        Lanes {
            zero_copy,
            connections: BTreeMap::new(),
            idle: VecDeque::new(),
            next_id: 0,
            limit: None,
            keeps_unsent,
        }
    }

    /// Takes a connection in and watches it for its end.
    pub fn join(&mut self, lane: u32, connection: Conduit, port: &mut Port) -> io::Result<()> {
        if self.keeps_unsent {
            sys::socket::set_notsent_lowat(&connection, UNSENT_MAX)?;
        }
        let id = self.next_id;
        // Half of what a key can hold: nobody reconnects as often within one session.
        self.next_id = (id + 1) % (u32::MAX >> 1);
        let zero_copy = self.zero_copy_on(&connection);
        let fd = port.join(connection)?;
        let key = Operation::Watch.key(id);
        port.submit(Request { key, fd: Arc::clone(&fd), act: Act::Watch })?;
        let connection =
            Connection { lane, fd, sending: None, watched: true, lost: false, zero_copy };
        self.connections.insert(id, connection);
        self.idle.push_back(id);
        self.share_limit();
        Ok(())
    }

    /// All connections together send no more than this from now on.
    pub fn limit(&mut self, limit: Option<Rate>) {
        if limit.is_none() {
            self.pace(None);
        }
        self.limit = limit;
        self.share_limit();
    }

    /// Each connection gets its part of the limit.
    fn share_limit(&self) {
        if let Some(limit) = self.limit {
            let present = self.connections.values().filter(|one| !one.lost).count();
            self.pace(Some(limit.shared_by(present)));
        }
    }

    /// By the kernel: it sends evenly, and counts what it sends again.
    fn pace(&self, each: Option<Rate>) {
        for Connection { lane, fd, .. } in self.connections.values() {
            let rate = each.map(|rate| rate.per_second().0);
            if let Err(error) = sys::socket::set_pacing_rate(fd, rate) {
                tracing::warn!(lane, %error, "cannot limit the rate of a data connection");
            }
        }
    }

    /// On loopback the kernel always copies, later and colder than a plain send would. What is
    /// encrypted is copied by that.
    fn zero_copy_on(&self, connection: &Conduit) -> ZeroCopy {
        if !connection.is_plain() {
            return ZeroCopy::Off;
        }
        let local = sys::socket::peer_is_loopback(connection).unwrap_or(false);
        if self.zero_copy == ZeroCopy::Auto && local { ZeroCopy::Off } else { self.zero_copy }
    }

    /// The connection of a lane.
    pub fn present(&self, lane: u32) -> Option<u32> {
        let found = self.connections.iter().find(|(_, one)| one.lane == lane && !one.lost);
        found.map(|(&id, _)| id)
    }

    /// The connection that shall send next, and its lane.
    pub fn idle(&self) -> Option<(u32, u32)> {
        let id = *self.idle.front()?;
        Some((id, self.connections.get(&id)?.lane))
    }

    /// Has a connection send; from then on it is busy.
    pub fn send(&mut self, id: u32, frame: Frame, port: &mut Port) -> io::Result<()> {
        self.idle.retain(|&idle| idle != id);
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.sending = Some(frame.clone());
        let act = match (frame.payload, connection.zero_copy) {
            (Payload::InSlot(loan, range), ZeroCopy::Off) => Act::Send(loan, range),
            (Payload::InSlot(loan, range), _) => Act::SendZeroCopy(loan, range),
            (Payload::InBay(bay), _) => Act::SendBay(Box::new(frame.header.encode()), bay),
        };
        let fd = Arc::clone(&connection.fd);
        port.submit(Request { key: Operation::Send.key(id), fd, act })
    }

    /// A send has ended. What a zero-copy send could not take, for the limit on locked memory or a
    /// socket that has no such thing, is sent as a copy, and all after it.
    pub fn sent(&mut self, id: u32, result: io::Result<usize>) -> Outcome {
        let Some(connection) = self.connections.get_mut(&id) else { return Outcome::Done };
        let Some(Frame { header, payload }) = connection.sending.take() else {
            return Outcome::Done;
        };
        if connection.lost {
            self.forget(id);
            return Outcome::Done;
        }
        let zero_copy = connection.zero_copy != ZeroCopy::Off;
        let (slot, rest) = match (payload, result) {
            (Payload::InSlot(slot, range), Ok(count)) => (slot, range.start + count..range.end),
            (Payload::InSlot(slot, range), Err(error)) if zero_copy && is_no_zero_copy(&error) => {
                (slot, range)
            }
            (Payload::InBay(_), Ok(_)) => {
                self.idle.push_back(id);
                return Outcome::Done;
            }
            (_, Err(error)) => return Outcome::Broken(Some(error)),
        };
        if rest.is_empty() {
            self.idle.push_back(id);
            return Outcome::Done;
        }
        if !zero_copy {
            return Outcome::Broken(None);
        }
        tracing::debug!(lane = connection.lane, "no zero-copy sends here; sending copies");
        connection.zero_copy = ZeroCopy::Off;
        Outcome::Rest(Frame { header, payload: Payload::InSlot(slot, rest) })
    }

    /// The kernel has let go of a zero-copy send's slot.
    pub fn released(&mut self, id: u32, copied: bool) {
        if let Some(connection) = self.connections.get_mut(&id)
            && copied
            && connection.zero_copy == ZeroCopy::Auto
        {
            tracing::debug!(lane = connection.lane, "the kernel copies; zero-copy is off");
            connection.zero_copy = ZeroCopy::Off;
        }
    }

    /// A watch has ended. The reason, if that is news.
    pub fn ended(&mut self, id: u32) -> Outcome {
        let Some(connection) = self.connections.get_mut(&id) else { return Outcome::Done };
        connection.watched = false;
        if connection.lost {
            self.forget(id);
            return Outcome::Done;
        }
        Outcome::Broken(sys::socket::take_error(&connection.fd).unwrap_or_else(Some))
    }

    /// Gives a connection up. Its lane, unless it was given up before.
    pub fn lose(&mut self, id: u32) -> Option<u32> {
        let connection = self.connections.get_mut(&id).filter(|connection| !connection.lost)?;
        connection.lost = true;
        let lane = connection.lane;
        // Ends its operations. One that cannot be shut down has ended already.
        let _already_gone = sys::socket::shutdown_both(&connection.fd);
        self.idle.retain(|&idle| idle != id);
        self.forget(id);
        self.share_limit();
        Some(lane)
    }

    /// Drops a lost connection once the kernel has no operation on it: its number may be given to
    /// another socket then.
    fn forget(&mut self, id: u32) {
        let ended = |one: &Connection| one.lost && !one.watched && one.sending.is_none();
        if self.connections.get(&id).is_some_and(ended) {
            self.connections.remove(&id);
        }
    }
}

/// Whether an error says that the kernel would take the bytes as a copy: pages over
/// `RLIMIT_MEMLOCK` (`ENOMEM`), or a socket without zero-copy sends (`EOPNOTSUPP`).
fn is_no_zero_copy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::Unsupported)
}
