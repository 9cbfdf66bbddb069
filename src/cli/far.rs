//! Hosts that ssh reaches: what is started there, and how the data get there or come from there.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Loudness;
use super::engine::FarEngine;
use super::ports::Ports;
use super::target::below_pool;
use super::{security, usage};
use crate::client::ssh::{FarSide, Ssh, Wanted};
use crate::client::{Dial, Origin};
use crate::dataset::DatasetName;
use crate::error::{Failure, Side};
use crate::protocol::message::RelativeName;
use crate::protocol::ticket::Ticket;

/// How ssh is used, for a source or a target `[USER@]HOST:POOL/DATASET`.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Other hosts by ssh")]
pub(super) struct SshFlags {
    /// Send the data through ssh as well: where no other port is open. Slower, by what ssh can
    /// encrypt
    #[arg(long)]
    via_ssh: bool,
    /// The ports that the host with the target may listen on for this one copy; its firewall must
    /// let the other host reach them [default: any]
    #[arg(long, value_name = "FIRST-LAST")]
    ports: Option<Ports>,
    /// How zferry is called on the other host, such as 'sudo zferry' [default: zferry]
    #[arg(long, value_name = "WORDS")]
    far_command: Option<String>,
    #[command(flatten)]
    engine: FarEngine,
    /// A port of sshd [default: what ssh's configuration says]
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,
    /// A private key for ssh [default: what ssh's configuration says]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// An option of ssh, as its -o takes it; may be given again
    #[arg(long, value_name = "OPTION")]
    ssh_option: Vec<String>,
}

/// A target that ssh has made ready.
pub(super) struct Reached {
    pub dial: Dial,
    pub dataset: RelativeName,
    pub far: FarSide,
}

impl SshFlags {
    /// Demands that none is given, for a copy that ssh has nothing to do with.
    pub fn require_none(&self) -> Result<(), Failure> {
        let is_given = self.via_ssh
            || self.ports.is_some()
            || self.far_command.is_some()
            || self.engine.is_given()
            || self.ssh_port.is_some()
            || self.identity.is_some()
            || !self.ssh_option.is_empty();
        if is_given {
            return Err(usage(Side::Source, "this copy does not go by ssh").with_remedy(
                "leave out the flags for ssh, or name the source or the target HOST:POOL/DATASET",
            ));
        }
        Ok(())
    }

    /// Whether the data go through ssh.
    pub fn via_ssh(&self) -> bool {
        self.via_ssh
    }

    /// The ports to listen on.
    pub fn ports(&self) -> Option<Ports> {
        self.ports
    }

    /// What is said of the engine at the other end.
    pub fn engine(&self) -> &FarEngine {
        &self.engine
    }

    /// How a host is reached.
    pub fn to(&self, host: &str) -> Result<Ssh, Failure> {
        Ssh::new(host, self.for_ssh()).map_err(|error| usage(Side::Source, error.to_string()))
    }

    /// How zferry is called there.
    pub fn program(&self, loudness: Loudness) -> String {
        let program = self.far_command.as_deref().unwrap_or("zferry");
        match loudness.for_far() {
            Some(word) => format!("{program} {word}"),
            None => program.to_owned(),
        }
    }

    /// Starts what receives on a host, and comes back with the way to it.
    pub fn reach(
        &self,
        host: &str,
        dataset: &DatasetName,
        limit: Duration,
        (loudness, flags): (Loudness, Vec<String>),
    ) -> Result<Reached, Failure> {
        let (root, dataset) = below_pool(dataset)?;
        let ssh = self.to(host)?;
        let wanted = Wanted {
            program: self.program(loudness),
            root,
            ports: self.ports.map(|ports| (ports.first, ports.last)),
            through_ssh: self.via_ssh,
            flags,
        };
        let (far, ticket) = ssh.start(&wanted)?;
        let manner = security::with_ticket(&ticket, Origin::Ssh)?;
        let dial = if self.via_ssh {
            Dial::Tunnel { ssh, address: ticket.address, limit, manner }
        } else {
            let addresses = addresses(&ssh, &ticket);
            Dial::Network { name: host.to_owned(), addresses, limit, manner }
        };
        Ok(Reached { dial, dataset, far })
    }

    fn for_ssh(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = Vec::new();
        if let Some(port) = self.ssh_port {
            flags.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(identity) = &self.identity {
            flags.extend(["-i".into(), identity.into()]);
        }
        for option in &self.ssh_option {
            flags.extend(["-o".into(), option.into()]);
        }
        flags
    }
}

/// Where the other host says that ssh has reached it; behind that, for hosts that are known outside
/// by another address, what its name stands for here.
fn addresses(ssh: &Ssh, ticket: &Ticket) -> Vec<SocketAddr> {
    let told = Some(ticket.address).filter(|address| !address.ip().is_unspecified());
    let named = (ssh.host_alone(), ticket.address.port()).to_socket_addrs();
    let mut all: Vec<SocketAddr> = told.into_iter().collect();
    // A name that ssh alone knows has none.
    for address in named.into_iter().flatten() {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// Our own addresses on the way to a host, for one that does not see us as we are.
pub(super) fn own_addresses(ssh: &Ssh) -> Vec<IpAddr> {
    let mut all = Vec::new();
    // Nothing is sent, so any port will do. A name that ssh alone knows leads nowhere.
    for there in (ssh.host_alone(), 9).to_socket_addrs().into_iter().flatten() {
        let any: IpAddr = match there {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let here = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(there)?;
            socket.local_addr()
        });
        if let Ok(here) = here
            && !all.contains(&here.ip())
        {
            all.push(here.ip());
        }
    }
    all
}
