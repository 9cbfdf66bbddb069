//! `zferry keys trust`: one more client that may send, one more server that is known.

use std::fmt::Write as _;
use std::io;
use std::num::NonZeroU32;

use clap::{Args, Subcommand};

use super::show::grant_line;
use super::{ConfigFolder, List, RELOAD};
use crate::cli::show;
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, Guid, typed};
use crate::error::{Failure, Side};
use crate::retention::{Keep, Template};
use crate::trust::Fingerprint;
use crate::trust::edit::{self, NewGrant};
use crate::trust::grants::{ClientName, Operation, Prefix};
use crate::trust::servers::Authority;
use crate::units::{Bytes, Rate};
use crate::zfs::Zfs;

/// Trust a client, or a server
#[derive(Debug, Subcommand)]
pub(super) enum Whom {
    Client(ClientArguments),
    Server(ServerArguments),
}

/// Let a client send to this host, below a dataset
///
/// Without --allow it may only add: datasets, snapshots, the rest of what was interrupted. Nothing
/// that it can say then destroys anything or rolls it back. Said again for the same client and the
/// same root, it changes what is named and leaves the rest as it is.
#[derive(Args, Debug)]
pub(super) struct ClientArguments {
    /// What to call it: up to 64 of letters, digits and -, _ or ., in messages and in the log
    #[arg(value_name = "NAME")]
    name: ClientName,
    /// Its key's fingerprint, which `zferry keys show` prints on the client
    #[arg(value_name = "SHA256:...")]
    fingerprint: Fingerprint,
    /// The dataset of this host that all of its datasets land below. Its guid is noted, so that a
    /// dataset that gets the name later is not taken for it
    #[arg(long, value_name = "POOL/DS")]
    root: DatasetName,
    /// What the client puts in front of its names for this root; needed as soon as a client has
    /// more than one root
    #[arg(long, value_name = "WORD")]
    prefix: Option<Prefix>,
    /// What it may do, separated by commas: receive-full, receive-incremental, resume,
    /// create-parents, abort-partial, prune. There is no word for rolling back, for destroying what
    /// a client names or for streams that hold several: no client can ask for those; prune needs
    /// --keep, too [default for a new grant:
    /// receive-full,receive-incremental,resume,create-parents]
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    allow: Option<Vec<Operation>>,
    /// Take nothing but raw streams of encrypted datasets, which this host cannot read
    #[arg(long)]
    raw_only: bool,
    /// Which properties its streams may set, separated by commas: compression,com.example:owner
    /// [default for a new grant: none]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    properties: Option<Vec<PropertyName>>,
    /// The most datasets that may be below the root, those included that are being made
    #[arg(long, value_name = "COUNT")]
    datasets: Option<NonZeroU32>,
    /// The most transfers that may run at once
    #[arg(long, value_name = "COUNT")]
    transfers: Option<NonZeroU32>,
    /// The most that its streams may take of the server's spool together, in files of 64MiB: 100GiB
    #[arg(long, value_name = "SIZE")]
    spool: Option<Bytes>,
    /// The most bytes that its streams may bring in a second, all together: 50MiB
    #[arg(long, value_name = "RATE")]
    bandwidth: Option<Rate>,
    /// What stays of each dataset below the root, however much less the client wants to keep:
    /// last=7,daily=30. It counts for clients that may prune (--allow); nothing is pruned by itself
    #[arg(long, value_name = "RULES")]
    keep: Option<Keep>,
    /// How the snapshots are called that the client may have pruned; all others stay
    /// [default for a new grant: zferry_%Y-%m-%dT%H:%M:%SZ]
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<Template>,
}

/// Know a server by its key
///
/// A server that has another key than the one said here is never spoken to.
#[derive(Args, Debug)]
pub(super) struct ServerArguments {
    /// The server as it stands in the URL: backup.example:7001, 10.0.0.7:7001
    #[arg(value_name = "HOST:PORT")]
    address: Authority,
    /// Its key's fingerprint, which `zferry keys show` prints on the server
    #[arg(value_name = "SHA256:...")]
    fingerprint: Fingerprint,
}

pub(super) fn run(config: &ConfigFolder, whom: &Whom) -> Result<(), Failure> {
    match whom {
        Whom::Client(arguments) => client(config, arguments),
        Whom::Server(arguments) => server(config, arguments),
    }
}

fn client(config: &ConfigFolder, arguments: &ClientArguments) -> Result<(), Failure> {
    let folder = config.folder(Side::Target)?;
    let clients = List::of_clients(&folder);
    let (root_guid, remark) = guid_of(&arguments.root);
    let grant = arguments.grant(root_guid);
    let (name, key) = (&arguments.name, arguments.fingerprint);
    clients.change(&folder, |text| edit::trust_client(text, name, key, &grant).map(Some))?;
    let mut words = format!("client {name} may send to this host, says {}", clients.path.display());
    let known = folder.clients()?.find(&key);
    for granted in known.iter().flat_map(|client| client.grants()) {
        let _ = write!(words, "\n  {}", grant_line(granted));
    }
    if let Some(remark) = remark {
        let _ = write!(words, "\n{remark}");
    }
    let _ = write!(
        words,
        "\nnext: {RELOAD};\n  and the client must know this server: `zferry keys show` here prints \
         the fingerprint for\n  `zferry keys trust server HOST:PORT FINGERPRINT` there"
    );
    show::say(&mut io::stdout().lock(), &words);
    Ok(())
}

impl ClientArguments {
    fn grant(&self, root_guid: Option<Guid>) -> NewGrant {
        NewGrant {
            prefix: self.prefix.clone(),
            root: self.root.clone(),
            root_guid,
            allow: self.allow.as_ref().map(|words| words.iter().copied().collect()),
            raw_only: self.raw_only,
            properties: self.properties.as_ref().map(|names| names.iter().cloned().collect()),
            datasets: self.datasets,
            transfers: self.transfers,
            spool: self.spool,
            bandwidth: self.bandwidth,
            keep: self.keep,
            template: self.template.clone(),
        }
    }
}

/// Which dataset the root is, or why that is not noted.
fn guid_of(root: &DatasetName) -> (Option<Guid>, Option<String>) {
    let remark = match Zfs::find().and_then(|zfs| zfs.dataset_guid(root)) {
        Ok(Some(guid)) => return (Some(guid), None),
        Ok(None) => format!(
            "{root} does not exist yet, so its guid is not noted: zfs create -o canmount=off -o \
             mountpoint=none {}, and say this again",
            typed(root.as_str())
        ),
        Err(error) => {
            format!("the guid of {root} is not noted, for it cannot be read here: {error}")
        }
    };
    (None, Some(remark))
}

fn server(config: &ConfigFolder, arguments: &ServerArguments) -> Result<(), Failure> {
    let folder = config.folder(Side::Source)?;
    let servers = List::of_servers(&folder);
    let (at, key) = (&arguments.address, arguments.fingerprint);
    servers.change(&folder, |text| edit::trust_server(text, at, key).map(Some))?;
    let words = format!(
        "{at} is known by its key {key}, says {}\nnext: zferry replicate POOL/DATASET \
         zferry://{at}/DATASET",
        servers.path.display()
    );
    show::say(&mut io::stdout().lock(), &words);
    Ok(())
}
