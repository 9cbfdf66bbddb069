//! Where connections come from, and what they say first.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use sys::cipher::Conduit;
use sys::control::{Listener, Stream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::PREAMBLE_LIMIT;
use super::doorman::Source;
use super::roster::Shown;
use crate::error::{Class, Failure, Side};
use crate::link::{self, HandshakeError, Link, NoPreamble, Wire, read_preamble};
use crate::protocol::message::Message;
use crate::protocol::preamble::Role;
use crate::protocol::secret::{JoinSecret, Proof};
use crate::protocol::version::{Version, Versions, agree};
use crate::tls::{self, Agreement};
use crate::trust::Fingerprint;

/// A source of connections.
pub enum Incoming {
    /// From the network.
    Network {
        /// Where they come in.
        listener: Listener,
        /// Who is let in.
        door: Door,
    },
    /// Through socket pairs that somebody in this process hands over: a client for a copy within
    /// one host, or an ssh that a client at its other end asked for.
    Handed {
        /// Our ends.
        sockets: UnboundedReceiver<UnixStream>,
        /// What messages call the client.
        peer: String,
        /// Who is let in.
        door: Door,
    },
}

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Door {
    /// Everybody, in clear.
    Plain,
    /// Those whose keys are trusted.
    Keys(Agreement),
    /// Whoever shows this ticket first.
    Ticket(Rc<OneTicket>),
}

/// A ticket that was given out.
#[derive(Debug)]
pub struct OneTicket {
    agreement: Agreement,
    secret: JoinSecret,
    /// The key of whoever showed it first: it is theirs, also if their connection is lost.
    owner: Cell<Option<Fingerprint>>,
}

impl OneTicket {
    /// For whoever proves to know `secret`; `agreement` trusts every key.
    pub fn new(agreement: Agreement, secret: JoinSecret) -> OneTicket {
        OneTicket { agreement, secret, owner: Cell::new(None) }
    }

    fn admits(&self, shown: &Shown) -> bool {
        let binding = shown.binding.as_ref().map(|exported| exported.bytes().as_slice());
        let is_owner = self.owner.get().is_none_or(|owner| shown.key == Some(owner));
        let admitted = is_owner && self.secret.proof(binding) == shown.proof;
        if admitted {
            self.owner.set(shown.key);
        }
        admitted
    }
}

impl Door {
    fn agreement(&self) -> Option<&Agreement> {
        match self {
            Door::Plain => None,
            Door::Keys(agreement) => Some(agreement),
            Door::Ticket(ticket) => Some(&ticket.agreement),
        }
    }

    /// Whether a client may open a session.
    fn admits(&self, shown: &Shown) -> bool {
        match self {
            Door::Plain | Door::Keys(_) => true,
            Door::Ticket(ticket) => ticket.admits(shown),
        }
    }
}

/// A connection that has said what it is.
pub(super) enum Introduced {
    /// A client that wants a session.
    Control { version: Version, wire: Wire },
    /// A client that wants its session back.
    Return { shown: Shown, wire: Wire },
    /// A data connection of some session.
    Lane { lane: u16, shown: Shown, connection: Conduit },
}

/// A connection, and who it is from as far as anybody knows yet.
pub(super) struct Stranger {
    pub stream: Stream,
    pub peer: String,
    /// `None` for this process.
    pub source: Option<Source>,
    pub door: Door,
}

/// After an error of accept(2), most of which are about a connection that is gone or descriptors
/// that have run out, the next attempt waits this long.
const AFTER_ERROR: Duration = Duration::from_millis(100);

impl Incoming {
    /// The next connection; `None` when no more can come.
    pub(super) async fn next(&mut self) -> Option<Stranger> {
        match self {
            Incoming::Network { listener, door } => loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let source = Some(Source::of(peer.ip()));
                        let (peer, door) = (peer.to_string(), door.clone());
                        return Some(Stranger { stream, peer, source, door });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept a connection");
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                }
            },
            Incoming::Handed { sockets, peer, door } => loop {
                match Stream::from_unix(sockets.recv().await?) {
                    Ok(stream) => {
                        let (peer, door) = (peer.clone(), door.clone());
                        return Some(Stranger { stream, peer, source: None, door });
                    }
                    Err(error) => tracing::warn!(%error, "take over a socket pair"),
                }
            },
        }
    }
}

/// Hears what a connection is. A stranger is told nothing and costs one line in the log.
pub(super) async fn introduce(stranger: Stranger) -> Option<Introduced> {
    let Stranger { stream, peer, door, .. } = stranger;
    if let Err(error) = link::prepare(&stream) {
        tracing::warn!(peer, %error, "socket options are not set");
    }
    let hearing = async {
        let mut wire = greet(stream, &door).await.map_err(Unknown::Handshake)?;
        let preamble = read_preamble(&mut wire).await.map_err(Unknown::Preamble)?;
        Ok::<_, Unknown>((wire, preamble.versions, preamble.role))
    };
    let (wire, versions, role) = match tokio::time::timeout(PREAMBLE_LIMIT, hearing).await {
        Ok(Ok(heard)) => heard,
        Ok(Err(unknown)) => {
            unknown.log(&peer);
            return None;
        }
        Err(_elapsed) => {
            tracing::warn!(peer, "refused a connection that did not say what it is in time");
            return None;
        }
    };
    match role {
        Role::Control { proof } if !door.admits(&shown(&wire, proof, &peer)?) => {
            tracing::warn!(peer, "refused a client that has not the ticket, or came second");
            let what = "the ticket was used already, or is another's";
            let failure = Failure::new(Side::Target, Class::Refused, what).with_remedy(
                "have `zferry receive --ticket-out` make a new one; by ssh, run the same command \
                 again",
            );
            refuse(Link::new(wire), failure, &peer).await;
            None
        }
        Role::Control { .. } => match agree(Versions::OURS, versions) {
            Ok(version) => Some(Introduced::Control { version, wire }),
            Err(mismatch) => {
                refuse(Link::new(wire), mismatch.failure(Side::Target), &peer).await;
                None
            }
        },
        Role::Return { proof } => {
            let shown = shown(&wire, proof, &peer)?;
            Some(Introduced::Return { shown, wire })
        }
        Role::Data { lane, proof } => {
            let shown = shown(&wire, proof, &peer)?;
            match wire.into_conduit() {
                Ok(connection) => Some(Introduced::Lane { lane, shown, connection }),
                Err(error) => {
                    tracing::warn!(peer, %error, "take over a data connection");
                    None
                }
            }
        }
    }
}

/// Learns who is there, where that is wanted.
async fn greet(stream: Stream, door: &Door) -> Result<Wire, HandshakeError> {
    match door.agreement() {
        None => Ok(Wire::plain(stream)),
        Some(agreement) => Wire::secure(stream, agreement.accept()?).await,
    }
}

fn shown(wire: &Wire, proof: Proof, peer: &str) -> Option<Shown> {
    match wire.binding() {
        Ok(binding) => Some(Shown { proof, binding, key: wire.peer() }),
        Err(error) => {
            tracing::error!(peer, %error, "nothing to bind a proof to");
            None
        }
    }
}

/// Why a connection stays a stranger's.
enum Unknown {
    Handshake(HandshakeError),
    Preamble(NoPreamble),
}

impl Unknown {
    /// One line, for whoever wonders why nothing comes.
    fn log(&self, peer: &str) {
        match self {
            Unknown::Handshake(HandshakeError::Broken(error))
            | Unknown::Preamble(NoPreamble::Broken(error)) => {
                tracing::debug!(peer, %error, "a connection went away");
            }
            Unknown::Handshake(HandshakeError::Refused(error)) => {
                let key = tls::untrusted(error).map(tracing::field::display);
                tracing::warn!(peer, key, %error, "refused a connection");
            }
            Unknown::Handshake(closed @ HandshakeError::Closed) => {
                tracing::debug!(peer, %closed, "a connection went away");
            }
            Unknown::Preamble(stranger) => tracing::warn!(peer, %stranger, "refused a connection"),
        }
    }
}

/// Tells a client why it is not served, if it still listens.
pub(super) async fn refuse(mut link: Link, failure: Failure, peer: &str) {
    tracing::warn!(peer, %failure, "refused a client");
    let _ = link.send(&Message::Refused(failure)).await;
    link.close().await;
}
