//! `zferry attend`: receives for one client, who has started this through ssh.
//!
//! Not for people to type: the client reads the ticket off our stdout. We have the rights of the
//! user who was let in by ssh, and end with the session.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Args;
use sys::control::Runtime;

use super::engine::MachineFlags;
use super::ports::{Ports, bind, everywhere};
use super::{duration, machine, security, signals};
use crate::dataset::DatasetName;
use crate::error::{Failure, Side};
use crate::server::{Destination, Incoming, Lasts, Options, Pool, Stopping, serve};
use crate::zfs::Zfs;

/// The most data connections that the client gets.
pub(super) const CONNECTIONS_MAX: u16 = 64;

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
    engine: MachineFlags,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let zfs = Zfs::find().map_err(|error| error.on(Side::Target))?;
    let engine =
        security::encrypted_by_ssh(Side::Target, arguments.engine.settings(Side::Target)?)?;
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Target, "start the receiving side", &error))?;
    let connection = std::env::var("SSH_CONNECTION").ok();
    let here = address(arguments.within_host, connection.as_deref());
    runtime.block_on(async {
        let stop = signals::listen(Stopping::Now)
            .map_err(|error| machine(Side::Target, "listen for signals", &error))?;
        let listener = bind(Side::Target, here, arguments.ports)?;
        let (door, ticket) = security::give_out(listener.local_addr())?;
        // Whoever started us is gone if it cannot be written.
        let mut stdout = std::io::stdout();
        stdout
            .write_all(ticket.encode().as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| machine(Side::Target, "say the ticket", &error))?;
        let options = Options {
            engine,
            connections_max: CONNECTIONS_MAX,
            lasts: Lasts::OneClient(FIRST_WORD_LIMIT),
            grace: arguments.grace,
            records: None,
            onlooker: None,
        };
        let destination = Destination::Pool(Pool { zfs, root: arguments.root, only: None });
        serve(Incoming::Network { listener, door }, destination, options, stop).await
    })
}

/// Where the client can reach us: at the address that its ssh has reached.
fn address(within_host: bool, ssh_connection: Option<&str>) -> IpAddr {
    if within_host {
        return Ipv4Addr::LOCALHOST.into();
    }
    let reached = ssh_connection.and_then(|words| words.split(' ').nth(2)?.parse().ok());
    reached.unwrap_or_else(everywhere)
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
            assert!(address(false, odd).is_unspecified());
        }
    }
}
