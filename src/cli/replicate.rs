//! `zferry replicate`: one copy of one dataset, by command.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::{Args, ValueEnum};
use sys::control::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use super::config_folder::ConfigFolder;
use super::engine::{Flags, SendFlags};
use super::events::{self, Telling};
use super::far::{Reached, SshFlags};
use super::show;
use super::spool::state_beside;
use super::target::{Reach, Target, below_pool, resolve};
use super::{machine, security, signals, state, usage};
use crate::client::job::{Job, OnDeadToken, Outcome, Wanted};
use crate::client::replicate::replicate;
use crate::client::ssh::FarSide;
use crate::client::{Dial, Manner, Options, Stop, Summary};
use crate::dataset::{DatasetName, SnapName};
use crate::engine::settings::Settings;
use crate::error::{Failure, Side};
use crate::protocol::message::RelativeName;
use crate::server::{self, Destination, Incoming, Lasts, Pool, Stopping};
use crate::zfs::{Zfs, snapshot};

/// Make a target hold a snapshot of a dataset: in full the first time, then what is new
///
/// Nothing is destroyed or rolled back on either side. Encrypted datasets are sent raw.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The filesystem or volume to copy
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to: [USER@]HOST:POOL/DATASET (ssh starts zferry there, and the data go past it,
    /// encrypted), zferry://HOST:PORT/DATASET (below the root of a server), or POOL/DATASET of this
    /// host
    #[arg(value_name = "DST")]
    target: String,
    /// Talk without encryption: anybody on the way can read along
    #[arg(long)]
    plain: bool,
    /// Copy up to this snapshot, which exists [default: take one, @zferry_<UTC time>]
    #[arg(long, value_name = "NAME", conflicts_with = "no_snapshot")]
    snapshot: Option<SnapName>,
    /// Copy up to the newest snapshot that exists, and take none
    #[arg(long)]
    no_snapshot: bool,
    /// Leave out the snapshots between the last common one and the one to copy
    #[arg(long)]
    newest_only: bool,
    /// What to do with the part of a snapshot that the target has, if the snapshot or its base was
    /// destroyed on the source since, so that it can never be finished. 'ask' stops and shows the
    /// commands. 'abort-and-restart' has the target give that part up (zfs receive -A) and copies
    /// anew from the newest snapshot that both have: what had been sent of it is lost, and after an
    /// interrupted first copy the copy begins at nothing. No snapshot is ever destroyed by it
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = DeadToken::Ask)]
    on_dead_token: DeadToken,
    /// Keep breakpoint records in this folder while a stream is on its way: how far it came, for
    /// `zferry status --state` and for the next run after a crash. Several copies may share it
    /// [default: none are kept]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    engine: Flags,
    #[command(flatten)]
    sending: SendFlags,
    #[command(flatten)]
    ssh: SshFlags,
    #[command(flatten)]
    config: ConfigFolder,
}

/// How [`OnDeadToken`] is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeadToken {
    Ask,
    AbortAndRestart,
}

impl From<DeadToken> for OnDeadToken {
    fn from(typed: DeadToken) -> OnDeadToken {
        match typed {
            DeadToken::Ask => OnDeadToken::Ask,
            DeadToken::AbortAndRestart => OnDeadToken::AbortAndRestart,
        }
    }
}

pub(super) fn run(arguments: &Arguments, quiet: bool) -> Result<(), Failure> {
    let telling = arguments.telling;
    copy(arguments, quiet).inspect_err(|failure| telling.failed(failure))
}

fn copy(arguments: &Arguments, quiet: bool) -> Result<(), Failure> {
    let target = Target::parse(&arguments.target)?;
    check_flags(arguments, &target)?;
    let source: DatasetName =
        arguments.source.parse().map_err(|error| usage(Side::Source, format!("source {error}")))?;
    let zfs = Zfs::find().map_err(|error| error.on(Side::Source))?;
    let engine = arguments.sending.apply(arguments.engine.settings(Side::Source)?)?;
    let engine = match target {
        Target::Server { .. } if arguments.plain => engine,
        Target::Ssh { .. } | Target::Server { .. } => security::encrypted(Side::Source, engine)?,
        Target::Local(_) => engine,
    };
    let state = state_beside(arguments.state.as_deref(), engine.spool.as_ref());
    let records = state::records(Side::Source, state, engine.backend)?;
    let wanted = match (&arguments.snapshot, arguments.no_snapshot) {
        (Some(name), _) => Wanted::Named(name.clone()),
        (None, true) => Wanted::Newest,
        (None, false) => Wanted::Taken(snapshot::name_at(jiff::Timestamp::now())),
    };
    let connections = arguments.sending.connections(&engine);
    let (route, dataset) = route(target, &zfs, &engine, connections.most(), arguments)?;
    let job = Job {
        source,
        target: dataset,
        target_text: arguments.target.clone(),
        wanted,
        intermediates: !arguments.newest_only,
        on_dead_token: arguments.on_dead_token.into(),
    };
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Source, "start the client", &error))?;
    let limit = arguments.sending.limit()?;
    let options = Options {
        engine,
        connections,
        congestion: arguments.sending.congestion(),
        limit: limit.told(),
        retry_for: arguments.reach.retry_for(),
        stall_timeout: arguments.reach.stall_timeout(),
        records,
    };
    let copied = runtime.block_on(async {
        let stop = signals::listen(Stopping::Now)
            .and_then(|stop| limit.listen().map(|()| stop))
            .map_err(|error| machine(Side::Source, "listen for signals", &error))?;
        let mut watch = arguments.telling.onlooker(quiet);
        let dial = route.dial;
        replicate(&zfs, &job, dial, &options, watch.as_mut(), &mut Stop::new(stop)).await
    });
    match route.beside {
        Beside::Nothing => {}
        // After a failure there is nothing left to finish.
        Beside::Here(server) if copied.is_err() => server.join(Stopping::Now),
        Beside::Here(server) => server.join(Stopping::Drained),
        Beside::There(far) => far.end(),
    }
    let outcome = copied?;
    if arguments.telling.as_json() {
        let (snapshot, summary) = match outcome {
            Outcome::UpToDate(snapshot) => (snapshot, Summary::default()),
            Outcome::Done(snapshot, summary) => (snapshot, summary),
        };
        events::done(Some(job.source.at(&snapshot.name).as_str()), &summary);
    } else if !quiet {
        tell(&job, outcome);
    }
    Ok(())
}

/// Demands that every flag has something to say about this target.
fn check_flags(arguments: &Arguments, target: &Target) -> Result<(), Failure> {
    let limited = arguments.sending.is_limited();
    match target {
        Target::Ssh { .. } if arguments.plain => {
            Err(usage(Side::Source, "with ssh there is a ticket, so nothing has to go in clear")
                .with_remedy("leave out --plain"))
        }
        Target::Ssh { .. } if limited && arguments.ssh.via_ssh() => {
            let what = "--bwlimit limits our own connections, and --via-ssh has none";
            Err(usage(Side::Source, what).with_remedy("leave out one of them"))
        }
        Target::Ssh { .. } => Ok(()),
        Target::Local(_) if limited => {
            let what = "--bwlimit limits what goes over a network; the target is on this host";
            Err(usage(Side::Source, what).with_remedy("leave it out"))
        }
        Target::Server { .. } | Target::Local(_) => arguments.ssh.require_none(),
    }
}

fn tell(job: &Job, outcome: Outcome) {
    let line = match outcome {
        Outcome::UpToDate(snapshot) => {
            let name = job.source.at(&snapshot.name);
            format!("{name}: nothing to do, {} holds it", job.target_text)
        }
        Outcome::Done(snapshot, summary) => {
            let name = job.source.at(&snapshot.name);
            let streams = match summary.streams {
                1 => "1 stream".to_owned(),
                streams => format!("{streams} streams"),
            };
            show::summary(&format!("{name} -> {}, {streams}", job.target_text), &summary)
        }
    };
    show::say(&mut std::io::stdout(), &line);
}

/// How to reach a target.
struct Route {
    dial: Dial,
    beside: Beside,
}

/// What runs for this copy alone.
enum Beside {
    Nothing,
    /// The server of this host.
    Here(LocalServer),
    /// What ssh has started.
    There(FarSide),
}

/// A server in this process, for as long as the copy takes.
struct LocalServer {
    stop: watch::Sender<Stopping>,
    thread: JoinHandle<()>,
}

fn route(
    target: Target,
    zfs: &Zfs,
    engine: &Settings,
    connections: u16,
    arguments: &Arguments,
) -> Result<(Route, RelativeName), Failure> {
    let limit = arguments.reach.limit();
    match target {
        Target::Ssh { host, dataset } => {
            let Reached { dial, dataset, far } = arguments.ssh.reach(&host, &dataset, limit)?;
            Ok((Route { dial, beside: Beside::There(far) }, dataset))
        }
        Target::Server { authority, dataset } => {
            let addresses = resolve(&authority)?;
            let manner = if arguments.plain {
                Manner::Plain
            } else {
                security::with_keys(&arguments.config, &authority)?
            };
            let dial = Dial::Network { name: authority, addresses, limit, manner };
            Ok((Route { dial, beside: Beside::Nothing }, dataset))
        }
        Target::Local(name) => {
            let (root, below) = below_pool(&name)?;
            let (sockets, incoming) = unbounded_channel();
            let pool = Pool { zfs: zfs.clone(), root };
            let server = LocalServer::start(incoming, pool, engine.clone(), connections)
                .map_err(|error| machine(Side::Source, "start the receiving side", &error))?;
            Ok((Route { dial: Dial::Local(sockets), beside: Beside::Here(server) }, below))
        }
    }
}

impl LocalServer {
    fn start(
        incoming: UnboundedReceiver<UnixStream>,
        pool: Pool,
        engine: Settings,
        connections_max: u16,
    ) -> std::io::Result<LocalServer> {
        let (stop, stopping) = watch::channel(Stopping::No);
        let thread =
            std::thread::Builder::new().name("zferry-server".to_owned()).spawn(move || {
                let served = Runtime::new(engine.backend).map(|runtime| {
                    let options = server::Options {
                        // What dies with this process cannot outlive it.
                        engine: Settings { spool: None, ..engine },
                        connections_max,
                        lasts: Lasts::Forever,
                        // Within one process nobody goes away and comes back.
                        grace: Duration::ZERO,
                        // Those of the client say all there is to say.
                        records: None,
                    };
                    let destination = Destination::Pool(pool);
                    runtime.block_on(server::serve(
                        Incoming::Local(incoming),
                        destination,
                        options,
                        stopping,
                    ))
                });
                if let Err(error) = served {
                    tracing::error!(%error, "start the receiving side");
                }
            })?;
        Ok(LocalServer { stop, thread })
    }

    fn join(self, urgency: Stopping) {
        self.stop.send_replace(urgency);
        let _panicked = self.thread.join();
    }
}
