//! Options of the sockets that carry a session, and why each is set.
//!
//! Called once per connection, before its first byte. A copy within one host runs over an
//! `AF_UNIX` pair, to which TCP's options mean nothing: there they all succeed and change nothing.
//! Nothing here may read or write the stream.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    setsockopt, shutdown, sockopt,
};

use option::{MaxPacingRate, NotsentLowat};

/// Names that any process may ask for; others need `CAP_NET_ADMIN`, and perhaps a module.
pub(crate) const CONGESTION_AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// The options that nix does not have; its macro would make the types public.
mod option {
    use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// Bytes that may wait unsent in the socket before it stops being writable.
        NotsentLowat,
        Both,
        libc::IPPROTO_TCP,
        libc::TCP_NOTSENT_LOWAT,
        u32
    );

    sockopt_impl!(
        /// The most bytes per second that leave the socket; all bits set for no limit.
        MaxPacingRate,
        Both,
        libc::SOL_SOCKET,
        libc::SO_MAX_PACING_RATE,
        u64
    );
}

/// Sends small segments at once: a message of the conversation must not wait for an
/// acknowledgement of the one before (40 ms with delayed acknowledgements).
pub fn set_nodelay(socket: impl AsFd, on: bool) -> io::Result<()> {
    on_tcp(socket, |socket| setsockopt(socket, sockopt::TcpNoDelay, &on))
}

/// How long sent bytes may stay unacknowledged before the connection fails (`TCP_USER_TIMEOUT`).
///
/// Without it a silent peer is noticed after a quarter of an hour. In whole milliseconds, at least
/// one: 0 would mean the system's default again.
pub fn set_user_timeout(socket: impl AsFd, timeout: Duration) -> io::Result<()> {
    let longest = u32::MAX >> 1; // the kernel takes a positive `int`
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(longest).clamp(1, longest);
    on_tcp(socket, |socket| setsockopt(socket, sockopt::TcpUserTimeout, &timeout_ms))
}

/// How long bytes may wait for an acknowledgement, as [`set_user_timeout`] set it; zero for the
/// system's default, and where it is no TCP socket.
pub fn user_timeout(socket: impl AsFd) -> io::Result<Duration> {
    if is_unix(&socket)? {
        return Ok(Duration::ZERO);
    }
    Ok(Duration::from_millis(getsockopt(&socket, sockopt::TcpUserTimeout)?.into()))
}

/// How many bytes may wait unsent in the socket (`TCP_NOTSENT_LOWAT`).
///
/// What waits there cannot be reordered, compressed or counted any more, and is sent once more
/// after a reconnect: small keeps the bytes with us. The default of the kernel is no limit.
pub fn set_notsent_lowat(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    on_tcp(socket, |socket| setsockopt(socket, NotsentLowat, &bytes))
}

/// The most bytes per second that the kernel lets leave the socket, what is sent again included,
/// and headers where the queueing discipline is fq; `None` for no limit (`SO_MAX_PACING_RATE`, of
/// 64 bits since Linux 4.20).
///
/// Segments then leave evenly, whatever the congestion control and without a queueing discipline
/// that knows of pacing (since Linux 4.13).
pub fn set_pacing_rate(socket: impl AsFd, bytes_per_second: Option<u64>) -> io::Result<()> {
    let rate = bytes_per_second.unwrap_or(u64::MAX);
    on_tcp(socket, |socket| setsockopt(socket, MaxPacingRate, &rate))
}

/// Chooses the congestion control by name, and reads it back.
///
/// An unknown name is told with the names that are there; one that only root may ask for
/// (`tcp_allowed_congestion_control`) is [`io::ErrorKind::PermissionDenied`].
pub fn set_congestion_control(socket: impl AsFd, name: &str) -> io::Result<()> {
    on_tcp(&socket, |socket| setsockopt(socket, sockopt::TcpCongestion, &OsString::from(name)))
        .map_err(|error| congestion_refused(name, &error))?;
    match congestion_control(socket)? {
        Some(got) if got != name => {
            Err(io::Error::other(format!("asked for congestion control {name}, got {got}")))
        }
        _ => Ok(()),
    }
}

/// The congestion control of a connection; `None` where there is none (`AF_UNIX`).
pub fn congestion_control(socket: impl AsFd) -> io::Result<Option<String>> {
    if is_unix(&socket)? {
        return Ok(None);
    }
    let padded = getsockopt(&socket, sockopt::TcpCongestion)?;
    let name = padded.to_string_lossy();
    Ok(Some(name.trim_end_matches('\0').to_owned()))
}

/// The congestion controls that this kernel has loaded.
pub fn available_congestion_controls() -> io::Result<Vec<String>> {
    let names = fs::read_to_string(CONGESTION_AVAILABLE)?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn congestion_refused(name: &str, error: &io::Error) -> io::Error {
    let offered = available_congestion_controls().unwrap_or_default().join(", ");
    let text = format!("congestion control {name}: {error} (this kernel offers {offered})");
    io::Error::new(error.kind(), text)
}

/// Whether the bytes never leave this host: a socket pair, `127.0.0.0/8`, `::1`, or one of our
/// own addresses. There a zero-copy send copies all the same, later and colder.
pub fn peer_is_loopback(socket: impl AsFd) -> io::Result<bool> {
    let fd = socket.as_fd().as_raw_fd();
    if is_unix(&socket)? {
        return Ok(true);
    }
    let peer = inet(&getpeername(fd)?).map(|addr| addr.ip().to_canonical());
    let own = inet(&getsockname(fd)?).map(|addr| addr.ip().to_canonical());
    Ok(peer.is_some_and(|ip| ip.is_loopback()) || (peer.is_some() && peer == own))
}

fn inet(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}

/// Why a connection is broken, told once: to the next operation on it or, if none came, here.
/// `None` where it is whole or was closed in order.
pub fn take_error(socket: impl AsFd) -> io::Result<Option<io::Error>> {
    match getsockopt(&socket, sockopt::SocketError)? {
        0 => Ok(None),
        number => Ok(Some(io::Error::from_raw_os_error(number))),
    }
}

/// Ends both directions: every pending operation returns, the peer reads the end.
///
/// A connection that is gone already (`ENOTCONN`) is as ended as it can be.
pub fn shutdown_both(socket: impl AsFd) -> io::Result<()> {
    end(socket, Shutdown::Both)
}

/// Ends our direction: the peer reads the end, and may still answer.
pub fn shutdown_write(socket: impl AsFd) -> io::Result<()> {
    end(socket, Shutdown::Write)
}

fn end(socket: impl AsFd, how: Shutdown) -> io::Result<()> {
    match shutdown(socket.as_fd().as_raw_fd(), how) {
        Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Applies `option` unless the socket is no TCP socket by its family.
fn on_tcp<S: AsFd>(socket: S, option: impl FnOnce(&S) -> nix::Result<()>) -> io::Result<()> {
    if is_unix(&socket)? {
        return Ok(());
    }
    Ok(option(&socket)?)
}

fn is_unix(socket: impl AsFd) -> io::Result<bool> {
    let addr: SockaddrStorage = getsockname(socket.as_fd().as_raw_fd())?;
    Ok(addr.family() == Some(AddressFamily::Unix))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn tcp_pair(at: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(at).expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (client, listener.accept().expect("accept").0)
    }

    #[test]
    fn what_is_set_can_be_read_back() {
        let (socket, _peer) = tcp_pair("127.0.0.1:0");
        set_nodelay(&socket, true).expect("nodelay");
        assert!(socket.nodelay().expect("read back"));
        set_user_timeout(&socket, Duration::from_secs(30)).expect("user timeout");
        assert_eq!(getsockopt(&socket, sockopt::TcpUserTimeout), Ok(30_000));
        set_notsent_lowat(&socket, 1 << 20).expect("lowat");
        assert_eq!(getsockopt(&socket, NotsentLowat), Ok(1 << 20));
        set_pacing_rate(&socket, Some(1 << 40)).expect("pacing rate");
        assert_eq!(getsockopt(&socket, MaxPacingRate), Ok(1 << 40));
        set_pacing_rate(&socket, None).expect("no pacing rate");
        assert_eq!(getsockopt(&socket, MaxPacingRate), Ok(u64::MAX));
    }

    #[test]
    fn a_user_timeout_is_never_the_systems_default_by_accident() {
        let (socket, _peer) = tcp_pair("127.0.0.1:0");
        set_user_timeout(&socket, Duration::ZERO).expect("user timeout");
        assert_eq!(getsockopt(&socket, sockopt::TcpUserTimeout), Ok(1));
        set_user_timeout(&socket, Duration::MAX).expect("user timeout");
        assert_eq!(getsockopt(&socket, sockopt::TcpUserTimeout), Ok(u32::MAX >> 1));
    }

    #[test]
    fn every_congestion_control_on_offer_can_be_chosen() {
        let (socket, _peer) = tcp_pair("127.0.0.1:0");
        let offered = available_congestion_controls().expect("list");
        assert!(!offered.is_empty());
        for name in offered {
            match set_congestion_control(&socket, &name) {
                Ok(()) => {
                    let got = congestion_control(&socket).expect("read back");
                    assert_eq!(got.as_deref(), Some(name.as_str()));
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}"),
            }
        }
    }

    #[test]
    fn an_unknown_congestion_control_is_told_with_those_on_offer() {
        let (socket, _peer) = tcp_pair("127.0.0.1:0");
        let text = set_congestion_control(&socket, "warp").expect_err("unknown").to_string();
        let offered = available_congestion_controls().expect("list");
        assert!(text.contains("warp") && text.contains(&offered[0]), "{text}");
    }

    #[test]
    fn on_a_socket_pair_the_options_of_tcp_do_nothing() {
        let (socket, mut peer) = UnixStream::pair().expect("pair");
        set_nodelay(&socket, true).expect("nodelay");
        set_user_timeout(&socket, Duration::from_secs(1)).expect("user timeout");
        set_notsent_lowat(&socket, 1).expect("lowat");
        set_congestion_control(&socket, "warp").expect("congestion control");
        assert_eq!(congestion_control(&socket).expect("read back"), None);
        assert!(peer_is_loopback(&socket).expect("peer"));
        shutdown_both(&socket).expect("shutdown");
        assert_eq!(peer.read(&mut [0]).expect("read"), 0);
    }

    #[test]
    fn a_peer_on_this_host_is_known_as_such() {
        for at in ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            if TcpListener::bind(at).is_err() {
                eprintln!("NOT CHECKED: cannot listen at {at}");
                continue;
            }
            let (client, server) = tcp_pair(at);
            assert!(peer_is_loopback(&client).expect("peer"), "{at}");
            assert!(peer_is_loopback(&server).expect("peer"), "{at}");
        }
    }

    #[test]
    fn a_connection_that_is_gone_can_be_shut_down_again() {
        let (client, mut server) = tcp_pair("127.0.0.1:0");
        shutdown_both(&client).expect("shutdown");
        assert_eq!(server.read(&mut [0]).expect("read"), 0);
        shutdown_both(&server).expect("shutdown");
        shutdown_both(&client).expect("shutdown again");
        shutdown_write(&client).expect("shutdown again");
    }
}
