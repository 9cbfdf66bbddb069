//! How a session's connections are made: over the network, or within this process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sys::control::Stream;
use tokio::sync::mpsc::UnboundedSender;

use crate::error::{Class, Failure, Side};
use crate::link;
use crate::protocol::preamble::{Preamble, Role};
use crate::protocol::secret::JoinSecret;
use crate::protocol::version::Versions;

/// How long the server of this process may take to answer: it starts beside us.
const LOCAL_LIMIT: Duration = Duration::from_secs(10);

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
    },
    /// In this process: it takes the other ends of socket pairs.
    Local(UnboundedSender<UnixStream>),
}

impl Dial {
    /// What messages call the server.
    pub fn name(&self) -> &str {
        match self {
            Dial::Network { name, .. } => name,
            Dial::Local(_) => "this host",
        }
    }

    /// How long the server may take to answer.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Dial::Network { limit, .. } => *limit,
            Dial::Local(_) => LOCAL_LIMIT,
        }
    }

    /// Opens the control connection. Afterwards only the address that worked is dialled.
    pub(super) async fn control(&mut self) -> Result<Stream, Failure> {
        let preamble = Preamble { versions: Versions::OURS, role: Role::Control };
        let stream = match self {
            Dial::Network { name, addresses, limit } => {
                let (stream, address) = connect_first(name, addresses, *limit).await?;
                *addresses = vec![address];
                stream
            }
            Dial::Local(server) => pair(server).map_err(|error| self.broken(&error))?,
        };
        self.introduce(stream, preamble).await
    }

    /// Opens a control connection that takes the place of a lost one.
    pub(super) async fn control_again(&self, secret: JoinSecret) -> Result<Stream, Failure> {
        let preamble = Preamble { versions: Versions::OURS, role: Role::Return { secret } };
        let stream = match self {
            Dial::Network { name, addresses, limit } => {
                connect_first(name, addresses, *limit).await?.0
            }
            Dial::Local(server) => pair(server).map_err(|error| self.broken(&error))?,
        };
        self.introduce(stream, preamble).await
    }

    /// Says what a connection is for.
    async fn introduce(&self, stream: Stream, preamble: Preamble) -> Result<Stream, Failure> {
        let written = stream.write_all(preamble.encode().to_vec()).await;
        written.map_err(|error| self.broken(&error))?;
        Ok(stream)
    }

    /// Opens a data connection and gives it away as a blocking descriptor. The congestion control
    /// is ours to choose: only the side that sends has a use for one.
    pub(super) async fn lane(
        &self,
        lane: u16,
        secret: JoinSecret,
        congestion: Option<&str>,
    ) -> Result<OwnedFd, Failure> {
        let preamble = Preamble { versions: Versions::OURS, role: Role::Data { lane, secret } };
        let opened = async {
            let stream = match self {
                Dial::Network { addresses, limit, .. } => {
                    let &address = addresses.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
                    link::connect(address, *limit).await?
                }
                Dial::Local(server) => pair(server)?,
            };
            stream.write_all(preamble.encode().to_vec()).await?;
            stream.into_fd()
        };
        let fd = opened.await.map_err(|error: io::Error| {
            let what = format!("open data connection {lane} to {}: {error}", self.name());
            Failure::new(Side::Network, Class::Interrupted, what)
        })?;
        match congestion {
            Some(name) => sys::socket::set_congestion_control(&fd, name).map_err(|error| {
                Failure::new(Side::Source, Class::Machine, error.to_string()).with_remedy(
                    "use one of those, as root where it is not in \
                     net.ipv4.tcp_allowed_congestion_control",
                )
            })?,
            None => leave_unpaced_within_host(&fd),
        }
        Ok(fd)
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let what = format!("the connection to {} was lost: {error}", self.name());
        Failure::new(Side::Network, Class::Interrupted, what)
    }
}

/// Within one host there is no line that could be overfilled, and pacing halves the rate (`bbr`
/// against `cubic`, measured). Where another may not be chosen, the machine's own does as well.
fn leave_unpaced_within_host(fd: &OwnedFd) {
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
