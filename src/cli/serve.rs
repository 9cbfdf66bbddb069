//! `zferry serve`: the resident server beside the backup pool.

mod figures;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use sys::control::{self, Listener, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use self::figures::Figures;
use super::config_folder::ConfigFolder;
use super::engine::Flags;
use super::ports::everywhere;
use super::security::{agreement, encrypted};
use super::spool::{KeepFlags, state_beside};
use super::target::PORT;
use super::{duration, http, machine, show, signals, state};
use crate::dataset::DatasetName;
use crate::engine::settings::Settings;
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::server::onlooker::Onlooker;
use crate::server::{Destination, Door, Granted, Incoming, Lasts, Options, Pool, Stopping, serve};
use crate::trust::Book;
use crate::zfs::Zfs;

/// The most data connections that a client gets.
const CONNECTIONS_MAX: u16 = 64;

/// Receive datasets from clients, each below its own root, until a signal comes
///
/// Clients are known by their keys, and may do what is granted to them: see `zferry keys`. SIGHUP:
/// the list of clients is read again, and sessions of those it does not name any more end. What
/// was asked of it, and how that ended, is written to stderr whatever the verbosity.
///
/// SIGTERM or Ctrl-C: no new transfers; those that run are finished. A second one: stop now; ZFS
/// keeps what it has of a transfer.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The address and port to listen on: 10.0.0.1:7001, [::]:7002; port 0 takes any free one
    /// [default: port 7001 of all addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// With --plain: the dataset that all datasets land below; nothing else is ever touched.
    /// Without, each client has its own (see `zferry keys trust client`)
    #[arg(long, value_name = "POOL/DS", requires = "plain", required_if_eq("plain", "true"))]
    root: Option<DatasetName>,
    /// Talk without encryption: anybody who reaches the port can send, and read along
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    config: ConfigFolder,
    /// A folder of the server's own, held while it runs: a second server with the same one stops.
    /// Breakpoint records are kept there while a stream comes in: how far it is, for `zferry status
    /// --state` and after a crash [default: none are kept]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long a transfer waits for a client whose connection was lost. Then it ends, and what
    /// ZFS has of it stays
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    grace: Duration,
    /// Tell Prometheus what clients have sent, by HTTP at this address: /metrics. A port alone is
    /// of this host alone [default: nobody is told]
    #[arg(long, value_name = "ADDR:PORT", value_parser = http::address)]
    metrics: Option<SocketAddr>,
    #[command(flatten)]
    engine: Flags,
    #[command(flatten)]
    keep: KeepFlags,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let state = arguments.state.as_deref();
    let hold = |state| state::hold(Side::Target, state, "lock", "a server");
    let _lock = state.map(hold).transpose()?;
    let zfs = Zfs::find().map_err(|error| error.on(Side::Target))?;
    let spool = arguments.keep.place()?;
    let engine = Settings { spool, ..arguments.engine.settings(Side::Target)? };
    let engine = if arguments.plain { engine } else { encrypted(Side::Target, engine)? };
    let access = match arguments.root {
        Some(root) => Access::to_all(zfs, root)?,
        None => Access::by_keys(zfs, &arguments.config)?,
    };
    let backend = engine.backend;
    let beside = state_beside(state, engine.spool.as_ref());
    let records = state::records(Side::Target, beside, backend)?;
    let onlooker = arguments.metrics.map(counted).transpose()?;
    let runtime =
        Runtime::new(backend).map_err(|error| machine(Side::Target, "start the server", &error))?;
    runtime.block_on(async {
        // Before the port is told: whoever reads it may send a signal next.
        let stop = signals::listen(Stopping::Drained)
            .map_err(|error| machine(Side::Target, "listen for signals", &error))?;
        let Access { door, destination, book } = access;
        read_again_on_hangup(book)
            .map_err(|error| machine(Side::Target, "listen for signals", &error))?;
        let address = arguments.listen.unwrap_or_else(|| (everywhere(), PORT).into());
        let listener = listen(address).await?;
        let options = Options {
            engine,
            connections_max: CONNECTIONS_MAX,
            lasts: Lasts::Forever,
            grace: arguments.grace,
            records,
            onlooker,
        };
        let incoming = Incoming::Network { listener, door };
        serve(incoming, destination, options, stop).await
    })
}

/// Counts, and tells whoever asks at this address.
fn counted(address: SocketAddr) -> Result<Arc<dyn Onlooker>, Failure> {
    let figures = Figures::new();
    http::listen(Side::Target, address, figures.clone())?;
    Ok(Arc::new(figures))
}

/// How long a port may be in use by a server that was killed just now: the kernel ends the ring
/// that accepts its connections some time after the process (seen on 6.18).
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// How often to try to get it meanwhile.
const PORT_EVERY: Duration = Duration::from_millis(20);

/// Opens the port and says so.
pub(super) async fn listen(address: SocketAddr) -> Result<Listener, Failure> {
    let until = Instant::now() + PORT_PATIENCE;
    let bound = loop {
        match Listener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(PORT_EVERY).await;
            }
            bound => break bound,
        }
    };
    let listener = bound.map_err(|error| {
        machine(Side::Target, &format!("listen on {address}"), &error).with_remedy(format!(
            "choose another --listen, or see who has it: ss -ltnp | grep :{}",
            address.port()
        ))
    })?;
    show::say(&mut std::io::stderr(), &format!("listening on {}", listener.local_addr()));
    Ok(listener)
}

/// Who may come, and to what.
struct Access {
    door: Door,
    destination: Destination,
    /// The list of clients, where there is one.
    book: Option<Arc<Book>>,
}

impl Access {
    fn to_all(zfs: Zfs, root: DatasetName) -> Result<Access, Failure> {
        check_root(&zfs, &root)?;
        let destination = Destination::Pool(Pool { zfs, root, only: None });
        Ok(Access { door: Door::Plain, destination, book: None })
    }

    fn by_keys(zfs: Zfs, config: &ConfigFolder) -> Result<Access, Failure> {
        let folder = config.folder(Side::Target)?;
        let key = folder.key(Side::Target)?;
        let book = Arc::new(Book::open(folder.clone())?);
        if book.clients().is_empty() {
            let list = folder.clients_path();
            tracing::warn!(
                "nobody may come yet: {} names no client; see `zferry keys trust client`",
                list.display()
            );
        }
        let agreement = agreement(Side::Target, &key, Arc::clone(&book) as _)?;
        let destination = Destination::Granted(Granted::new(zfs, Arc::clone(&book)));
        Ok(Access { door: Door::Keys(agreement), destination, book: Some(book) })
    }
}

/// Whoever changes the list says so by a signal. Where there is none, that is no reason to die.
fn read_again_on_hangup(book: Option<Arc<Book>>) -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    control::spawn(async move {
        while hangups.recv().await.is_some() {
            match book.as_ref().map(|book| book.reload()) {
                Some(Ok(clients)) => {
                    let count = clients.iter().count();
                    tracing::info!(count, "read the list of clients again");
                }
                Some(Err(failure)) => tracing::error!(%failure, "the former list of clients stays"),
                None => tracing::info!("there is nothing to be read again"),
            }
        }
    });
    Ok(())
}

fn check_root(zfs: &Zfs, root: &DatasetName) -> Result<(), Failure> {
    match zfs.target_state(root).map_err(|error| error.on(Side::Target))? {
        TargetState::Present { .. } => Ok(()),
        TargetState::Absent => {
            let name = crate::dataset::typed(root.as_str());
            let what = format!("the root {root} does not exist");
            Err(Failure::new(Side::Target, Class::Refused, what)
                .with_remedy(format!("zfs create -o canmount=off -o mountpoint=none {name}")))
        }
    }
}
