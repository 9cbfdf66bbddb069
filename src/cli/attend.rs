//! `zferry attend`: receives for one client, who has started this through ssh.
//!
//! Not for people to type: the client reads the ticket off our stdout. We have the rights of the
//! user who was let in by ssh, and end with the session.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sys::control::{Listener, Runtime};

use super::engine::Flags;
use super::{duration, machine, security, signals};
use crate::dataset::DatasetName;
use crate::error::{Failure, Side};
use crate::server::{Destination, Incoming, Lasts, Options, Pool, Stopping, serve};
use crate::zfs::Zfs;

/// The most data connections that the client gets.
const CONNECTIONS_MAX: u16 = 64;

/// A ticket that nobody shows for so long is of no more use.
const FIRST_WORD_LIMIT: Duration = Duration::from_secs(60);

/// Receive for the client that started this through ssh
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The dataset that the client's datasets land below
    #[arg(long, value_name = "POOL/DS")]
    root: DatasetName,
    /// Listen on the first of these ports that is free [default: any]
    #[arg(long, value_name = "FIRST-LAST")]
    ports: Option<Ports>,
    /// Listen within this host alone: the client comes through ssh
    #[arg(long)]
    within_host: bool,
    /// How long a transfer waits for the client when its connection was lost
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    grace: Duration,
    #[command(flatten)]
    engine: Flags,
}

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

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let zfs = Zfs::find().map_err(|error| error.on(Side::Target))?;
    let engine = security::encrypted(Side::Target, arguments.engine.settings(Side::Target)?)?;
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Target, "start the receiving side", &error))?;
    let connection = std::env::var("SSH_CONNECTION").ok();
    let here = address(arguments.within_host, connection.as_deref());
    runtime.block_on(async {
        let stop = signals::listen(Stopping::Now)
            .map_err(|error| machine(Side::Target, "listen for signals", &error))?;
        let listener = bind(here, arguments.ports)?;
        let (door, ticket) = security::give_out(&listener)?;
        // Whoever started us is gone if it cannot be written.
        let mut stdout = std::io::stdout();
        stdout
            .write_all(ticket.encode().as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| machine(Side::Target, "say the ticket", &error))?;
        let options = Options {
            engine,
            connections_max: CONNECTIONS_MAX,
            lasts: Lasts::OneSession(FIRST_WORD_LIMIT),
            grace: arguments.grace,
            records: None,
        };
        let destination = Destination::Pool(Pool { zfs, root: arguments.root });
        serve(Incoming::Network { listener, door }, destination, options, stop).await
    })
}

/// Where the client can reach us: at the address that its ssh has reached.
fn address(within_host: bool, ssh_connection: Option<&str>) -> IpAddr {
    if within_host {
        return Ipv4Addr::LOCALHOST.into();
    }
    let reached = ssh_connection.and_then(|words| words.split(' ').nth(2)?.parse().ok());
    reached.unwrap_or(Ipv6Addr::UNSPECIFIED.into())
}

fn bind(here: IpAddr, ports: Option<Ports>) -> Result<Listener, Failure> {
    let Ports { first, last } = ports.unwrap_or(Ports { first: 0, last: 0 });
    let mut refused = None;
    for port in first..=last {
        match Listener::bind(SocketAddr::new(here, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
    Err(machine(Side::Target, &format!("listen on {here}, ports {first} to {last}"), &error)
        .with_remedy("name others by --ports, or have the data go through ssh: --via-ssh"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_awaited_where_its_ssh_arrived() {
        let connection = Some("10.0.0.9 50000 10.0.0.1 22");
        assert_eq!(address(false, connection).to_string(), "10.0.0.1");
        assert_eq!(address(true, connection).to_string(), "127.0.0.1");
        for odd in [None, Some(""), Some("a b c d")] {
            assert_eq!(address(false, odd).to_string(), "::");
        }
    }

    #[test]
    fn ports_are_a_range() {
        assert_eq!("7100-7199".parse(), Ok(Ports { first: 7100, last: 7199 }));
        assert_eq!("7100".parse(), Ok(Ports { first: 7100, last: 7100 }));
        for text in ["", "-", "0", "9-8", "1-70000", "a-b"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }
}
