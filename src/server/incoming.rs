//! Where connections come from, and what they say first.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sys::control::{Listener, Stream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::PREAMBLE_LIMIT;
use crate::error::{Failure, Side};
use crate::link::{self, Link, NoPreamble, read_preamble};
use crate::protocol::message::Message;
use crate::protocol::preamble::Role;
use crate::protocol::secret::JoinSecret;
use crate::protocol::version::{Version, Versions, agree};

/// A source of connections.
pub enum Incoming {
    /// From the network.
    Network(Listener),
    /// From a client in the same process, for a copy within one host.
    Local(UnboundedReceiver<UnixStream>),
}

/// A connection that has said what it is.
pub(super) enum Introduced {
    /// A client that wants a session.
    Control { version: Version, stream: Stream },
    /// A client that wants its session back.
    Return { secret: JoinSecret, stream: Stream },
    /// A data connection of some session, as a blocking descriptor.
    Lane { lane: u16, secret: JoinSecret, fd: OwnedFd },
}

/// After an error of accept(2), most of which are about a connection that is gone or descriptors
/// that have run out, the next attempt waits this long.
const AFTER_ERROR: Duration = Duration::from_millis(100);

impl Incoming {
    /// The next connection and the name of its other end; `None` when no more can come.
    pub(super) async fn next(&mut self) -> Option<(Stream, String)> {
        match self {
            Incoming::Network(listener) => loop {
                match listener.accept().await {
                    Ok((stream, peer)) => return Some((stream, peer.to_string())),
                    Err(error) => {
                        tracing::warn!(%error, "accept a connection");
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                }
            },
            Incoming::Local(sockets) => loop {
                match Stream::from_unix(sockets.recv().await?) {
                    Ok(stream) => return Some((stream, "this host".to_owned())),
                    Err(error) => tracing::warn!(%error, "take over a socket pair"),
                }
            },
        }
    }
}

/// Hears what a connection is. A stranger is told nothing and costs one line in the log.
pub(super) async fn introduce(stream: Stream, peer: &str) -> Option<Introduced> {
    if let Err(error) = link::prepare(&stream) {
        tracing::warn!(peer, %error, "socket options are not set");
    }
    let preamble = match tokio::time::timeout(PREAMBLE_LIMIT, read_preamble(&stream)).await {
        Ok(Ok(preamble)) => preamble,
        Ok(Err(NoPreamble::Broken(error))) => {
            tracing::debug!(peer, %error, "a connection went away");
            return None;
        }
        Ok(Err(stranger)) => {
            tracing::warn!(peer, %stranger, "refused a connection");
            return None;
        }
        Err(_elapsed) => {
            tracing::warn!(peer, "refused a connection that did not say what it is in time");
            return None;
        }
    };
    match preamble.role {
        Role::Control => match agree(Versions::OURS, preamble.versions) {
            Ok(version) => Some(Introduced::Control { version, stream }),
            Err(mismatch) => {
                refuse(Link::new(stream), mismatch.failure(Side::Target), peer).await;
                None
            }
        },
        Role::Return { secret } => Some(Introduced::Return { secret, stream }),
        Role::Data { lane, secret } => match stream.into_fd() {
            Ok(fd) => Some(Introduced::Lane { lane, secret, fd }),
            Err(error) => {
                tracing::warn!(peer, %error, "take over a data connection");
                None
            }
        },
    }
}

/// Tells a client why it is not served, if it still listens.
pub(super) async fn refuse(mut link: Link, failure: Failure, peer: &str) {
    tracing::warn!(peer, %failure, "refused a client");
    let _ = link.send(&Message::Refused(failure)).await;
    link.close().await;
}
