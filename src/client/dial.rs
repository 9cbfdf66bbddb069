//! How a session's connections are made: over the network, or within this process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sys::cipher::Conduit;
use sys::control::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::ssh::Ssh;
use crate::error::{Class, Failure, Side};
use crate::link::{self, HandshakeError, Wire};
use crate::protocol::preamble::{Preamble, Role};
use crate::protocol::secret::{JoinSecret, Proof};
use crate::protocol::version::Versions;
use crate::tls::{self, Agreement};

/// How long the server of this process may take to answer: it starts beside us.
const LOCAL_LIMIT: Duration = Duration::from_secs(10);

const DOOR_PATIENCE: Duration = Duration::from_secs(2);

/// What may be the matter with a server that does not speak TLS.
const PLAIN_THERE: &str = "check the address and port, and that it is a zferry that listens there \
                           without --plain";

/// How a client talks to a server over a network.
#[derive(Clone, Debug)]
pub enum Manner {
    /// In clear, to whichever server answers.
    Plain,
    /// To the server that this trusts, as the client that it is.
    Keys(Agreement),
    /// The same, with a ticket's secret to show.
    Ticket(Agreement, JoinSecret),
}

impl Manner {
    fn agreement(&self) -> Option<&Agreement> {
        match self {
            Manner::Plain => None,
            Manner::Keys(agreement) | Manner::Ticket(agreement, _) => Some(agreement),
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
    /// In this process: it takes the other ends of socket pairs.
    Local(UnboundedSender<UnixStream>),
}

impl Dial {
    /// What messages call the server.
    pub fn name(&self) -> &str {
        match self {
            Dial::Network { name, .. } => name,
            Dial::Tunnel { ssh, .. } => ssh.host(),
            Dial::Local(_) => "this host",
        }
    }

    /// How long the server may take to answer.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Dial::Network { limit, .. } | Dial::Tunnel { limit, .. } => *limit,
            Dial::Local(_) => LOCAL_LIMIT,
        }
    }

    /// The secret to let us in with.
    fn ticket(&self) -> Option<JoinSecret> {
        match self {
            Dial::Network { manner: Manner::Ticket(_, secret), .. }
            | Dial::Tunnel { manner: Manner::Ticket(_, secret), .. } => Some(*secret),
            _ => None,
        }
    }

    /// How long a connection that was closed before the welcome is tried again: the server may have
    /// given its place at a crowded door to another. Longer would hide what a user has to mend.
    pub(super) fn door_patience(&self) -> Duration {
        match self {
            Dial::Network { limit, .. } => DOOR_PATIENCE.min(*limit),
            Dial::Tunnel { .. } | Dial::Local(_) => Duration::ZERO,
        }
    }

    /// Connects to the server. Afterwards only the address that worked is dialled.
    pub(super) async fn connect(&mut self) -> Result<Stream, Failure> {
        match self {
            Dial::Network { name, addresses, limit, .. } => {
                let (stream, address) = connect_first(name, addresses, *limit).await?;
                *addresses = vec![address];
                Ok(stream)
            }
            Dial::Tunnel { .. } | Dial::Local(_) => {
                self.connect_nearer().map_err(|error| self.broken(&error))
            }
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
            Dial::Network { name, addresses, limit, .. } => {
                connect_first(name, addresses, *limit).await?.0
            }
            nearer => nearer.connect_nearer().map_err(|error| self.broken(&error))?,
        };
        let mut wire = self.secure(stream).await?;
        let role = Role::Return { proof: self.proof(&wire, secret)? };
        self.introduce(&mut wire, role).await?;
        Ok(wire)
    }

    /// A connection that begins as a socket pair of this host.
    fn connect_nearer(&self) -> io::Result<Stream> {
        match self {
            Dial::Network { .. } => Err(io::ErrorKind::Unsupported.into()),
            Dial::Tunnel { ssh, address, .. } => Stream::from_unix(ssh.connect(*address)?),
            Dial::Local(server) => pair(server),
        }
    }

    /// Learns whether it is the server that we want, and proves who we are.
    async fn secure(&self, stream: Stream) -> Result<Wire, Failure> {
        let (agreement, limit) = match self {
            Dial::Network { manner, limit, .. } | Dial::Tunnel { manner, limit, .. } => {
                (manner.agreement(), limit)
            }
            Dial::Local(_) => (None, &LOCAL_LIMIT),
        };
        let Some(agreement) = agreement else { return Ok(Wire::plain(stream)) };
        let session = agreement.connect().map_err(|error| self.no_agreement(&error.into()))?;
        match tokio::time::timeout(*limit, Wire::secure(stream, session)).await {
            Ok(secured) => secured.map_err(|error| self.no_agreement(&error)),
            Err(_elapsed) => {
                let what = format!("{} said nothing within {} s", self.name(), limit.as_secs());
                Err(Failure::new(Side::Network, Class::Interrupted, what).with_remedy(PLAIN_THERE))
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
                nearer => nearer.connect_nearer(),
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
        let name = self.name();
        let (class, what, remedy) = match error {
            HandshakeError::Broken(_) | HandshakeError::Closed => (
                Class::Interrupted,
                format!("the connection to {name} was lost: {error}"),
                PLAIN_THERE.to_owned(),
            ),
            HandshakeError::Refused(error) => match tls::untrusted(error) {
                Some(key) => (
                    Class::Refused,
                    format!(
                        "{name} shows the key {key}, which is not the one that it is known by: \
                         somebody may sit in between, or the server has a new key"
                    ),
                    format!(
                        "compare it with `zferry keys show` on the server itself; if it is the \
                         server's: zferry keys trust server {name} {key}"
                    ),
                ),
                None => (
                    Class::Peer,
                    format!("no agreement with {name} on how to talk: {error}"),
                    PLAIN_THERE.to_owned(),
                ),
            },
        };
        Failure::new(Side::Network, class, what).with_remedy(remedy)
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
    Err(Failure::new(Side::Network, Class::Interrupted, what).with_remedy(
        "check that `zferry serve` (or `zferry receive`) listens there and that no firewall is \
         in between",
    ))
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

    use super::*;

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
