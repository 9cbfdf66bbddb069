//! A control connection as messages: what the machines of `protocol` say and hear, on a socket.
//!
//! Stands between `sys::control` and the two loops that drive the machines, the server's and the
//! client's. A [`Link`] is one connection; it keeps the signs of life: a peer that is silent too
//! long is given up, so that nothing waits for ever; a peer that is slow is not. A [`Line`] is what
//! a session talks over: it outlives its links.

mod line;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sys::control::Stream;

use crate::error::{Class, Failure, Side};
use crate::protocol::envelope::{Decoder, MessageError, encode};
use crate::protocol::liveness::{Action, Liveness, Settings};
use crate::protocol::message::Message;
use crate::protocol::misbehaved::PeerMisbehaved;
use crate::protocol::preamble::{PREAMBLE_BYTES, Preamble, PreambleError};
use crate::protocol::standing::{Return, Returned};
use crate::tls;

pub use self::line::Line;
pub use self::wire::{HandshakeError, Wire};

/// A sign of life is sent when nothing else was for this long.
pub const PING_EVERY: Duration = Duration::from_secs(5);
/// A peer that was not heard for this long is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How much is read at once; a longer message takes several reads.
const READ_BYTES: usize = 16 << 10;

/// How long last words may take to reach a peer that is closing.
const LINGER: Duration = Duration::from_secs(2);

/// One end of a control connection.
#[derive(Debug)]
pub struct Link {
    wire: Wire,
    decoder: Decoder,
    inbox: Vec<u8>,
    taken: usize,
    liveness: Liveness,
    opened: Instant,
}

/// What came of waiting.
#[derive(Debug)]
enum Heard {
    /// The peer said this.
    Message(Message),
    /// Nothing was said by us for a while: it is time for a sign of life.
    PingDue,
}

/// Why no more messages come.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed the connection, or its process died.
    #[error("it was closed by the other side")]
    Closed,
    /// The connection broke.
    #[error("{0}")]
    Broken(io::Error),
    /// The server does not trust our key.
    #[error("the server does not trust our key")]
    NotTrusted,
    /// Nothing was heard for too long.
    #[error("nothing was heard for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// What came was no message.
    #[error("{0}")]
    Garbled(#[from] MessageError),
    /// What came contradicts what was said before.
    #[error("{0}")]
    Contradicted(#[from] PeerMisbehaved),
}

/// Why a connection was not opened by a preamble.
#[derive(Debug, thiserror::Error)]
pub enum NoPreamble {
    /// The connection ended or broke before it was whole.
    #[error("it ended before it said what it is: {0}")]
    Broken(#[from] io::Error),
    /// It is none.
    #[error(transparent)]
    Stranger(#[from] PreambleError),
}

impl Link {
    /// Takes over a connection whose preamble has passed.
    pub fn new(wire: Wire) -> Link {
        let settings =
            Settings::new(PING_EVERY, SILENCE_MAX).expect("5 s are at most half of 20 s");
        Link {
            wire,
            decoder: Decoder::default(),
            inbox: Vec::new(),
            taken: 0,
            liveness: Liveness::new(settings, Duration::ZERO),
            opened: Instant::now(),
        }
    }

    /// Says something. A peer that takes nothing for as long as it may be silent is gone.
    pub async fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        tracing::trace!(message = message.name(), "say");
        let writing = self.wire.write_all(encode(message));
        match tokio::time::timeout(SILENCE_MAX, writing).await {
            Ok(written) => written?,
            Err(_elapsed) => return Err(LinkError::Silent(SILENCE_MAX)),
        }
        self.liveness.sent(self.opened.elapsed());
        Ok(())
    }

    /// Waits for the next message, or for the time to give a sign of life. Dropping the future
    /// loses nothing.
    async fn next(&mut self) -> Result<Heard, LinkError> {
        loop {
            let mut rest = &self.inbox[self.taken..];
            let found = self.decoder.take(&mut rest)?;
            self.taken = self.inbox.len() - rest.len();
            if let Some(message) = found {
                tracing::trace!(message = message.name(), "hear");
                return Ok(Heard::Message(message));
            }
            let now = self.opened.elapsed();
            let patience = match self.liveness.next(now) {
                Action::Ping => return Ok(Heard::PingDue),
                Action::WaitUntil(then) => then.saturating_sub(now),
                // What came while this process stood still was not read yet: look once more.
                Action::Dead { silent_for } if !self.read(Duration::ZERO).await? => {
                    return Err(LinkError::Silent(silent_for));
                }
                Action::Dead { .. } => continue,
            };
            self.read(patience).await?;
        }
    }

    /// The next message that is no sign of life.
    async fn next_message(&mut self) -> Result<Message, LinkError> {
        loop {
            match self.next().await? {
                // Whoever waits here has just said something.
                Heard::PingDue => self.liveness.sent(self.opened.elapsed()),
                Heard::Message(Message::Ping { .. }) => {}
                Heard::Message(message) => return Ok(message),
            }
        }
    }

    /// Says farewell: ends our direction once all is said, and waits a little for the peer to end
    /// its own, for a connection closed with unread bytes would take our last words with it.
    pub async fn close(mut self) {
        if self.wire.finish().await.is_err() {
            return;
        }
        let until = Instant::now() + LINGER;
        while let Ok(true) = self.read(until.saturating_duration_since(Instant::now())).await {
            self.inbox.clear();
        }
    }

    /// Reads once. `false`: nothing came in time.
    async fn read(&mut self, patience: Duration) -> Result<bool, LinkError> {
        let reading = self.wire.read(READ_BYTES);
        let Ok(bytes) = tokio::time::timeout(patience, reading).await else {
            return Ok(false);
        };
        let bytes = bytes?;
        if bytes.is_empty() {
            return Err(LinkError::Closed);
        }
        self.inbox = bytes;
        self.taken = 0;
        self.liveness.heard(self.opened.elapsed());
        Ok(true)
    }
}

impl From<io::Error> for LinkError {
    /// A client's key is judged when the client takes the handshake for done: it hears of it here.
    fn from(error: io::Error) -> LinkError {
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match refused {
            Some(rustls::Error::AlertReceived(alert)) if tls::is_of_trust(*alert) => {
                LinkError::NotTrusted
            }
            _ => LinkError::Broken(error),
        }
    }
}

impl LinkError {
    /// Whether the connection was lost, and not what came over it wrong.
    pub fn is_loss(&self) -> bool {
        !matches!(self, LinkError::Garbled(_) | LinkError::Contradicted(_) | LinkError::NotTrusted)
    }

    /// Whether the peer was lost without a word: then nothing else reaches it either.
    pub fn is_silence(&self) -> bool {
        match self {
            LinkError::Silent(_) => true,
            LinkError::Broken(error) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// The failure of the connection to `peer`, a name or an address.
    pub fn failure(&self, peer: &str) -> Failure {
        let class = match self {
            LinkError::Garbled(_) | LinkError::Contradicted(_) => Class::Peer,
            LinkError::NotTrusted => return Failure::new(
                Side::Target,
                Class::Refused,
                format!("{peer} does not trust our key"),
            )
            .with_remedy(
                "show it with `zferry keys show` here, and there: zferry keys trust client NAME \
                 FINGERPRINT --root POOL/DS",
            ),
            _ => Class::Interrupted,
        };
        let failure = Failure::new(
            Side::Network,
            class,
            format!("the connection to {peer} was lost: {self}"),
        );
        match self {
            LinkError::Garbled(_) => failure.with_remedy(
                "check the address and port; both sides must run zferry and agree on --plain",
            ),
            _ => failure,
        }
    }
}

/// Reads the preamble of a connection and not a byte more: what follows on a data connection
/// belongs to the engine.
pub async fn read_preamble(wire: &mut Wire) -> Result<Preamble, NoPreamble> {
    let mut bytes = Vec::with_capacity(PREAMBLE_BYTES);
    while bytes.len() < PREAMBLE_BYTES {
        let part = wire.read(PREAMBLE_BYTES - bytes.len()).await?;
        if part.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        bytes.extend_from_slice(&part);
        // A stranger is known by its first bytes, and may never send 32.
        if bytes.len() >= 8 && bytes.len() < PREAMBLE_BYTES {
            let mut padded = [0; PREAMBLE_BYTES];
            padded[..bytes.len()].copy_from_slice(&bytes);
            if let Err(stranger @ PreambleError::Stranger { .. }) = Preamble::decode(&padded) {
                return Err(stranger.into());
            }
        }
    }
    let whole: &[u8; PREAMBLE_BYTES] = bytes.as_slice().try_into().expect("32 bytes were read");
    Ok(Preamble::decode(whole)?)
}

/// Server: reads what a client knows that comes back.
pub async fn hear_return(link: &mut Link) -> Result<Return, LinkError> {
    match link.next_message().await? {
        Message::Return(client) => Ok(client),
        other => {
            Err(PeerMisbehaved::Unexpected { state: "ExpectReturn", message: other.name() }.into())
        }
    }
}

/// Client: says what it knows, and reads the same from the server.
pub async fn say_return(link: &mut Link, client: Return) -> Result<Answer, LinkError> {
    link.send(&Message::Return(client)).await?;
    match link.next_message().await? {
        Message::Returned(server) => Ok(Answer::Returned(server)),
        Message::Refused(failure) => Ok(Answer::Refused(failure)),
        other => {
            Err(PeerMisbehaved::Unexpected { state: "ExpectReturned", message: other.name() }
                .into())
        }
    }
}

/// What a server says to a client that comes back.
#[derive(Debug)]
pub enum Answer {
    /// The session goes on; this is what it knows.
    Returned(Returned),
    /// It does not, and why.
    Refused(Failure),
}

/// Sets what every socket of a session needs; nothing of it applies to a pair within one host.
///
/// The kernel, too, shall notice that the other host has vanished. It also counts the time in which
/// the other end has no room for more, although it answers: on a data connection that does not
/// happen, however long `zfs receive` pauses, for nothing is sent that has no slot at the receiver.
pub fn prepare(stream: &Stream) -> io::Result<()> {
    sys::socket::set_nodelay(stream, true)?;
    sys::socket::set_user_timeout(stream, SILENCE_MAX)
}

/// Connects over TCP within `limit`.
pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<Stream> {
    match tokio::time::timeout(limit, Stream::connect(address)).await {
        Ok(connected) => {
            let stream = connected?;
            prepare(&stream)?;
            Ok(stream)
        }
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use sys::backend::Backend;
    use sys::control::Runtime;

    use super::*;

    #[test]
    fn bytes_that_nobody_acknowledges_have_a_limit_on_every_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connected = connect(address, Duration::from_secs(10));
        let stream = Runtime::new(Backend::Threads).unwrap().block_on(connected).unwrap();
        assert_eq!(sys::socket::user_timeout(&stream).unwrap(), SILENCE_MAX);
    }
}
