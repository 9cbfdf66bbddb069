//! `zferry keys revoke`: a client that may not send any more, a server that is not known any more.

use std::fmt::Write as _;
use std::io;

use clap::{Args, Subcommand};

use super::{ConfigFolder, List, RELOAD};
use crate::cli::show;
use crate::error::{Class, Failure, Side};
use crate::trust::edit;
use crate::trust::servers::Authority;

/// Take back what was said by `zferry keys trust`
#[derive(Debug, Subcommand)]
pub(super) enum Whom {
    Client(ClientArguments),
    Server(ServerArguments),
}

/// Stop a client from sending to this host
///
/// All of its grants go, and the comment that stands right above it. What it has sent stays.
#[derive(Args, Debug)]
pub(super) struct ClientArguments {
    /// Its name, or its key's fingerprint, as `zferry keys show` prints them
    #[arg(value_name = "NAME|SHA256:...")]
    who: String,
}

/// Forget a server
///
/// Nothing is sent to it until it is trusted again, perhaps by another key.
#[derive(Args, Debug)]
pub(super) struct ServerArguments {
    /// The server as it stands in the URL
    #[arg(value_name = "HOST:PORT")]
    address: Authority,
}

pub(super) fn run(config: &ConfigFolder, whom: &Whom) -> Result<(), Failure> {
    let (list, who, known) = match whom {
        Whom::Client(ClientArguments { who }) => {
            let folder = config.folder(Side::Target)?;
            let clients = List::of_clients(&folder);
            let known = clients.change(&folder, |text| edit::revoke_client(text, who))?;
            (clients, format!("client {who}"), known)
        }
        Whom::Server(ServerArguments { address }) => {
            let folder = config.folder(Side::Source)?;
            let servers = List::of_servers(&folder);
            let known = servers.change(&folder, |text| edit::revoke_server(text, address))?;
            (servers, format!("server {address}"), known)
        }
    };
    let path = list.path.display();
    if !known {
        let what = format!("nobody of this name or key is in {path}");
        let failure = Failure::new(list.side, Class::Usage, what);
        return Err(failure.with_remedy("see who is: zferry keys show"));
    }
    let mut words = format!("{who} is trusted no more, says {path}");
    if list.side == Side::Target {
        let _ = write!(words, "\nnext: {RELOAD}");
    }
    show::say(&mut io::stdout().lock(), &words);
    Ok(())
}
