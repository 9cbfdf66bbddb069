//! Where we listen for one other process: on all addresses or within this host, on some ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use sys::control::Listener;

use super::machine;
use crate::error::{Failure, Side};

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub first: u16,
    pub last: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse().ok().filter(|&port: &u16| port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Ports { first, last }),
            _ => Err("ports are FIRST-LAST, such as 7100-7199".to_owned()),
        }
    }
}

/// All addresses of this host: IPv6 and with it IPv4; the latter alone, where there is no other.
pub(super) fn everywhere() -> IpAddr {
    let has_ipv6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// Listens on the first of some ports that is free; on any, where none are named.
pub(super) fn bind(side: Side, here: IpAddr, ports: Option<Ports>) -> Result<Listener, Failure> {
    let Ports { first, last } = ports.unwrap_or(Ports { first: 0, last: 0 });
    let mut refused = None;
    for port in first..=last {
        match Listener::bind(SocketAddr::new(here, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
    Err(machine(side, &format!("listen on {here}, ports {first} to {last}"), &error)
        .with_remedy("name others by --ports, or have the data go through ssh: --via-ssh"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_range() {
        assert_eq!("7100-7199".parse(), Ok(Ports { first: 7100, last: 7199 }));
        assert_eq!("7100".parse(), Ok(Ports { first: 7100, last: 7100 }));
        for text in ["", "-", "0", "9-8", "1-70000", "a-b"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }
}
