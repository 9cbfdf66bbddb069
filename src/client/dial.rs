//! How a session's connections are made: over the network, or within this process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sys::cipher::Conduit;
use sys::control::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::called::Called;
use super::ssh::Ssh;
use crate::error::{Class, Failure, Side};
use crate::link::{self, HandshakeError, Wire};
use crate::protocol::preamble::{Preamble, Role};
use crate::protocol::secret::{JoinSecret, Proof};
use crate::protocol::version::Versions;
use crate::tls::{self, Agreement};
use crate::trust::Fingerprint;

/// How long the server of this process may take to answer: it starts beside us.
const LOCAL_LIMIT: Duration = Duration::from_secs(10);

const DOOR_PATIENCE: Duration = Duration::from_secs(2);

/// How a client talks to a server over a network.
#[derive(Clone, Debug)]
pub enum Manner {
    /// In clear, to whichever server answers.
    Plain,
    /// To the server that this trusts, as the client that it is.
    Keys(Agreement),
    /// The same, with a ticket's secret to show.
    Ticket(Agreement, JoinSecret, Origin),
}

/// Where a ticket came from: what goes wrong with one is mended there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file that `zferry receive` wrote.
    File,
    /// The receiver that ssh has started for us.
    Ssh,
    /// The other end of the ssh that has started us.
    Asker,
}

impl Manner {
    fn agreement(&self) -> Option<&Agreement> {
        match self {
            Manner::Plain => None,
            Manner::Keys(agreement) | Manner::Ticket(agreement, ..) => Some(agreement),
        }
    }

    /// What may be the matter where nobody answers.
    fn nobody_there(&self) -> &'static str {
        match self {
            Manner::Plain | Manner::Keys(_) => {
                "check that `zferry serve` (or `zferry receive`) listens there and that no \
                 firewall is in between"
            }
            Manner::Ticket(_, _, Origin::File) => {
                "check that the `zferry receive` which wrote the ticket still listens, and that no \
                 firewall is in between; where its host has another address seen from here: \
                 zferry send HOST:PORT --ticket FILE"
            }
            Manner::Ticket(_, _, Origin::Ssh | Origin::Asker) => {
                "have a firewall in between let some ports through and name them, --ports \
                 FIRST-LAST, or have the data go through ssh: --via-ssh"
            }
        }
    }

    /// What may be the matter with a server that does not speak TLS as we do.
    fn stranger_there(&self) -> &'static str {
        match self {
            Manner::Plain | Manner::Keys(_) => {
                "check the address and port, and that it is a zferry that listens there without \
                 --plain"
            }
            Manner::Ticket(_, _, Origin::File) => {
                "check the address and port, and that it is the `zferry receive` which wrote the \
                 ticket that listens there, without --plain"
            }
            Manner::Ticket(_, _, Origin::Ssh | Origin::Asker) => {
                "something else answers at that port, or stands in between: name other ports, \
                 --ports FIRST-LAST, or have the data go through ssh: --via-ssh"
            }
        }
    }

    /// What to do about a server with another key than it should have.
    fn other_key(&self, name: &str, key: Fingerprint) -> String {
        match self {
            Manner::Plain | Manner::Keys(_) => format!(
                "compare it with `zferry keys show` on the server itself; if it is the server's: \
                 zferry keys trust server {name} {key}"
            ),
            Manner::Ticket(_, _, Origin::File) => {
                "each start of `zferry receive --ticket-out` makes another key and another ticket: \
                 bring the newest here"
                    .to_owned()
            }
            Manner::Ticket(_, _, Origin::Ssh | Origin::Asker) => self.stranger_there().to_owned(),
        }
    }
}

/// Where the server is.
#[derive(Clone, Debug)]
pub enum Dial {
    /// At one of these addresses, which all belong to `name`.
    Network {
        /// As the user typed it: `host:port`.
        name: String,
        /// What it resolved to, in the order to try.
        addresses: Vec<SocketAddr>,
        /// How long it may take to accept a connection, and to answer on it.
        limit: Duration,
        /// How we talk to it.
        manner: Manner,
    },
    /// There, and only ssh comes through.
    Tunnel {
        /// How ssh gets there.
        ssh: Ssh,
        /// Where it listens, as its own host sees it.
        address: SocketAddr,
        /// How long it may take to answer on a connection, ssh's own beginning included.
        limit: Duration,
        /// How we talk to it.
        manner: Manner,
    },
    /// There, and only it can connect to us.
    Called {
        /// How it is asked to.
        called: Called,
        /// How long it may take to connect, and to answer.
        limit: Duration,
        /// How we talk to it.
        manner: Manner,
    },
    /// In this process: it takes the other ends of socket pairs.
    Local(UnboundedSender<UnixStream>),
}

impl Dial {
    /// What messages call the server.
    pub fn name(&self) -> &str {
        match self {
            Dial::Network { name, .. } => name,
            Dial::Tunnel { ssh, .. } => ssh.host(),
            Dial::Called { .. } => "the host that asked for the copy",
            Dial::Local(_) => "this host",
        }
    }

    /// Whether the server ends when no session is left, so that there is none after the last.
    pub(super) fn is_for_one_session(&self) -> bool {
        matches!(self.manner(), Some(Manner::Ticket(_, _, Origin::File | Origin::Ssh)))
    }

    /// How long the server may take to answer.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Dial::Network { limit, .. }
            | Dial::Tunnel { limit, .. }
            | Dial::Called { limit, .. } => *limit,
            Dial::Local(_) => LOCAL_LIMIT,
        }
    }

    /// How it is talked to, where it is not in this process.
    fn manner(&self) -> Option<&Manner> {
        match self {
            Dial::Network { manner, .. }
            | Dial::Tunnel { manner, .. }
            | Dial::Called { manner, .. } => Some(manner),
            Dial::Local(_) => None,
        }
    }

    /// The secret to let us in with.
    fn ticket(&self) -> Option<JoinSecret> {
        match self.manner() {
            Some(Manner::Ticket(_, secret, _)) => Some(*secret),
            _ => None,
        }
    }

    /// How long a connection that was closed before the welcome is tried again: the server may have
    /// given its place at a crowded door to another. Longer would hide what a user has to mend.
    pub(super) fn door_patience(&self) -> Duration {
        match self {
            Dial::Network { limit, .. } => DOOR_PATIENCE.min(*limit),
            _ => Duration::ZERO,
        }
    }

    /// Connects to the server. Afterwards only the address that worked is dialled.
    pub(super) async fn connect(&mut self) -> Result<Stream, Failure> {
        match self {
            Dial::Network { name, addresses, limit, manner } => {
                let (stream, address) = connect_first(name, addresses, *limit, manner).await?;
                *addresses = vec![address];
                Ok(stream)
            }
            _ => self.connect_nearer().await.map_err(|error| self.unreachable(&error)),
        }
    }

    /// Makes a fresh connection the control connection.
    pub(super) async fn control(&self, stream: Stream) -> Result<Wire, Failure> {
        let mut wire = self.secure(stream).await?;
        let proof = self.ticket().map(|secret| self.proof(&wire, secret));
        let proof = proof.transpose()?.unwrap_or(Proof::NONE);
        self.introduce(&mut wire, Role::Control { proof }).await?;
        Ok(wire)
    }

    /// Opens a control connection that takes the place of a lost one.
    pub(super) async fn control_again(&self, secret: JoinSecret) -> Result<Wire, Failure> {
        let stream = match self {
            Dial::Network { name, addresses, limit, manner } => {
                connect_first(name, addresses, *limit, manner).await?.0
            }
            nearer => nearer.connect_nearer().await.map_err(|error| self.unreachable(&error))?,
        };
        let mut wire = self.secure(stream).await?;
        let role = Role::Return { proof: self.proof(&wire, secret)? };
        self.introduce(&mut wire, role).await?;
        Ok(wire)
    }

    /// A connection that begins within this host.
    async fn connect_nearer(&self) -> io::Result<Stream> {
        match self {
            Dial::Network { .. } => Err(io::ErrorKind::Unsupported.into()),
            Dial::Tunnel { ssh, address, .. } => Stream::from_unix(ssh.connect(*address, ())?),
            Dial::Called { called, limit, .. } => called.connect(*limit).await,
            Dial::Local(server) => pair(server),
        }
    }

    /// Learns whether it is the server that we want, and proves who we are.
    async fn secure(&self, stream: Stream) -> Result<Wire, Failure> {
        let Some(agreement) = self.manner().and_then(Manner::agreement) else {
            return Ok(Wire::plain(stream));
        };
        let limit = self.limit();
        let session = agreement.connect().map_err(|error| self.no_agreement(&error.into()))?;
        match tokio::time::timeout(limit, Wire::secure(stream, session)).await {
            Ok(secured) => secured.map_err(|error| self.no_agreement(&error)),
            Err(_elapsed) => {
                let what = format!("{} said nothing within {} s", self.name(), limit.as_secs());
                let remedy = self.manner().map_or("", Manner::stranger_there);
                Err(Failure::new(Side::Network, Class::Interrupted, what).with_remedy(remedy))
            }
        }
    }

    fn proof(&self, wire: &Wire, secret: JoinSecret) -> Result<Proof, Failure> {
        let binding = wire.binding().map_err(|error| self.no_agreement(&error.into()))?;
        Ok(secret.proof(binding.as_ref().map(|exported| exported.bytes().as_slice())))
    }

    /// Says what a connection is for.
    async fn introduce(&self, wire: &mut Wire, role: Role) -> Result<(), Failure> {
        let preamble = Preamble { versions: Versions::OURS, role };
        let written = wire.write_all(preamble.encode().to_vec()).await;
        written.map_err(|error| self.broken(&error))
    }

    /// Opens a data connection. The congestion control is ours to choose: only the side that sends
    /// has a use for one.
    pub(super) async fn lane(
        &self,
        lane: u16,
        secret: JoinSecret,
        congestion: Option<&str>,
    ) -> Result<Conduit, Failure> {
        let opened = async {
            match self {
                Dial::Network { addresses, limit, .. } => {
                    let &address = addresses.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
                    link::connect(address, *limit).await
                }
                nearer => nearer.connect_nearer().await,
            }
        };
        let failed = |error: io::Error| {
            let what = format!("open data connection {lane} to {}: {error}", self.name());
            Failure::new(Side::Network, Class::Interrupted, what)
        };
        let mut wire = self.secure(opened.await.map_err(failed)?).await?;
        let role = Role::Data { lane, proof: self.proof(&wire, secret)? };
        self.introduce(&mut wire, role).await?;
        let connection = wire.into_conduit().map_err(failed)?;
        match congestion {
            Some(name) => {
                sys::socket::set_congestion_control(&connection, name).map_err(|error| {
                    Failure::new(Side::Source, Class::Machine, error.to_string()).with_remedy(
                        "use one of those, as root where it is not in \
                         net.ipv4.tcp_allowed_congestion_control",
                    )
                })?;
            }
            None => leave_unpaced_within_host(&connection),
        }
        Ok(connection)
    }

    /// A handshake that failed.
    fn no_agreement(&self, error: &HandshakeError) -> Failure {
        let (name, manner) = (self.name(), self.manner().unwrap_or(&Manner::Plain));
        let (class, what, remedy) = match error {
            HandshakeError::Broken(_) | HandshakeError::Closed => (
                Class::Interrupted,
                format!("the connection to {name} was lost: {error}"),
                manner.stranger_there().to_owned(),
            ),
            HandshakeError::Refused(error) => match tls::untrusted(error) {
                Some(key) => (
                    Class::Refused,
                    format!(
                        "{name} shows the key {key}, which is not the one that it is known by: \
                         somebody may sit in between, or the server has a new key"
                    ),
                    manner.other_key(name, key),
                ),
                None => (
                    Class::Peer,
                    format!("no agreement with {name} on how to talk: {error}"),
                    manner.stranger_there().to_owned(),
                ),
            },
        };
        // Somebody of this host may have come in before the one who was called: call again.
        let class = if matches!(self, Dial::Called { .. }) { Class::Interrupted } else { class };
        Failure::new(Side::Network, class, what).with_remedy(remedy)
    }

    /// A connection within this host, or through ssh, that does not come to be.
    fn unreachable(&self, error: &io::Error) -> Failure {
        let what = format!("no connection to {}: {error}", self.name());
        let failure = Failure::new(Side::Network, Class::Interrupted, what);
        match self {
            Dial::Tunnel { .. } | Dial::Called { .. } => failure.with_remedy(
                "see that sshd on the other host has AllowTcpForwarding, or leave out --via-ssh",
            ),
            Dial::Network { .. } | Dial::Local(_) => failure,
        }
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let what = format!("the connection to {} was lost: {error}", self.name());
        Failure::new(Side::Network, Class::Interrupted, what)
    }
}

/// Within one host there is no line that could be overfilled, and pacing halves the rate (`bbr`
/// against `cubic`, measured). Where another may not be chosen, the machine's own does as well.
fn leave_unpaced_within_host(fd: &impl AsFd) {
    let paced = || -> io::Result<bool> {
        let name = sys::socket::congestion_control(fd)?;
        let paces = name.is_some_and(|name| name.starts_with("bbr"));
        Ok(paces && sys::socket::peer_is_loopback(fd)?)
    };
    if paced().unwrap_or(false)
        && let Err(error) = sys::socket::set_congestion_control(fd, "cubic")
    {
        tracing::debug!(%error, "a connection within this host is paced");
    }
}

async fn connect_first(
    name: &str,
    addresses: &[SocketAddr],
    limit: Duration,
    manner: &Manner,
) -> Result<(Stream, SocketAddr), Failure> {
    let mut refusals = Vec::new();
    for &address in addresses {
        match link::connect(address, limit).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                refusals.push(format!("{address}: no answer in {} s", limit.as_secs()));
            }
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    let what = format!("no connection to {name} ({})", refusals.join("; "));
    let failure = Failure::new(Side::Network, Class::Interrupted, what);
    Err(failure.with_remedy(manner.nobody_there()))
}

/// Gives the server one end of a socket pair.
fn pair(server: &UnboundedSender<UnixStream>) -> io::Result<Stream> {
    let (ours, theirs) = UnixStream::pair()?;
    server.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
    Stream::from_unix(ours)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::*;
    use crate::trust::OwnKey;

    fn to_nobody(manner: Manner) -> String {
        // Bound, and nobody listens.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = vec![socket.local_addr().unwrap()];
        let limit = Duration::from_secs(5);
        let mut dial = Dial::Network { name: "there".to_owned(), addresses, limit, manner };
        let runtime = sys::control::Runtime::new(sys::backend::Backend::Threads).unwrap();
        let failure = runtime.block_on(dial.connect()).unwrap_err();
        assert!(failure.what.contains("no connection to there"), "{failure}");
        failure.remedy.unwrap()
    }

    #[test]
    fn what_is_to_be_done_is_said_to_those_who_can_do_it() {
        let key = OwnKey::generate().unwrap();
        let agreement = Agreement::new(&key, Arc::new(tls::Anybody)).unwrap();
        let ticket = |origin| Manner::Ticket(agreement.clone(), JoinSecret::new([7; 16]), origin);
        let others = key.fingerprint();
        for (manner, nobody, other_key) in [
            (Manner::Plain, "`zferry serve`", "zferry keys trust server there"),
            (Manner::Keys(agreement.clone()), "`zferry serve`", "zferry keys trust server there"),
            (ticket(Origin::File), "which wrote the ticket still", "bring the newest"),
            (ticket(Origin::Ssh), "--via-ssh", "--via-ssh"),
            (ticket(Origin::Asker), "--via-ssh", "--via-ssh"),
        ] {
            assert!(manner.other_key("there", others).contains(other_key), "{manner:?}");
            let speaks_of_serve = manner.stranger_there().contains("--plain");
            let by_ssh = nobody == "--via-ssh";
            assert_eq!(speaks_of_serve, !by_ssh, "{manner:?}: ssh is never in clear");
            let remedy = to_nobody(manner);
            assert!(remedy.contains(nobody), "{remedy}");
        }
    }

    #[test]
    fn a_connection_within_one_host_is_not_paced_whatever_the_machine_prefers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let offered = sys::socket::available_congestion_controls().unwrap();
        let before = offered.iter().find(|name| *name == "bbr").unwrap_or(&offered[0]);
        sys::socket::set_congestion_control(&fd, before).unwrap();
        leave_unpaced_within_host(&fd);
        let after = sys::socket::congestion_control(&fd).unwrap().unwrap();
        assert_eq!(&after, if before == "bbr" { "cubic" } else { before });
    }
}
