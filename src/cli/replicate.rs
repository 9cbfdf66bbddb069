//! `zferry replicate`: one copy of one dataset, by command.
//!
//! Here is what this host sends; what another host sends to us is in `fetch`.

mod fetch;

use std::num::NonZeroU16;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use sys::control::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use super::choice::Choice;
use super::config_folder::ConfigFolder;
use super::copied::Copied;
use super::engine::{Flags, SendFlags};
use super::events::Telling;
use super::far::{Reached, SshFlags};
use super::hooks::Hooks;
use super::keeping::KeepFlags;
use super::show;
use super::signals::Halt;
use super::spool::state_beside;
use super::target::{Reach, Source, Target, below_pool, resolve};
use super::tree::TreeFlags;
use super::{Loudness, duration, machine, security, state, usage};
use crate::board::Errand;
use crate::client::around::Around;
use crate::client::job::{Job, Wanted};
use crate::client::prune::Retention;
use crate::client::ssh::FarSide;
use crate::client::{Dial, Manner, Options, Stop, TreeWatch};
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, SnapName};
use crate::engine::settings::Settings;
use crate::error::{Failure, Side};
use crate::protocol::message::RelativeName;
use crate::server::{self, Destination, Door, Incoming, Lasts, Pool, Stopping};
use crate::units::Bytes;
use crate::zfs::snapshot::is_name_taken;
use crate::zfs::written::Without;
use crate::zfs::{Zfs, ZfsError};

/// How long a receiver waits at most for a client that went away: after a client that was killed
/// nobody else can have the dataset before.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// Make a target hold a snapshot of a dataset: in full the first time, then what is new
///
/// Nothing is destroyed or rolled back on either side. Encrypted datasets are sent raw.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The filesystem or volume to copy: POOL/DATASET of this host, or [USER@]HOST:POOL/DATASET,
    /// for a target on this host (ssh starts zferry there, and the data come past it, encrypted)
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to: [USER@]HOST:POOL/DATASET (in the same way), zferry://HOST:PORT/DATASET (below the
    /// root of a server; without :PORT it is 7001), or POOL/DATASET of this host
    #[arg(value_name = "DST")]
    target: String,
    /// Talk without encryption: anybody on the way can read along
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    tree: TreeFlags,
    #[command(flatten)]
    keeping: KeepFlags,
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
    /// What a scheduler's job does around its snapshot.
    #[arg(skip)]
    around: Option<Arc<dyn Around>>,
}

pub(super) fn run(arguments: &Arguments, loudness: Loudness) -> Result<(), Failure> {
    let telling = arguments.telling;
    let watch = telling.onlooker_of(&arguments.root()?, loudness.quiet);
    let copied = copy(arguments, None, loudness, Halt::BySignal, watch.as_ref());
    drop(watch);
    let copied = copied.inspect_err(|failure| telling.failed(failure))?;
    if telling.as_json() {
        // Of what another host sends, that has told.
        if arguments.local_source().is_some() {
            copied.tell_program();
        }
    } else if !loudness.quiet && !arguments.choice.is_rehearsal() {
        tell("", arguments, &copied);
    }
    copied.missing.map_or(Ok(()), Err)
}

/// Makes one copy. One that goes on with what is owed since then carries the snapshot of this host
/// that was taken for it, if there is one.
pub(super) fn copy(
    arguments: &Arguments,
    owed_since: Option<Timestamp>,
    loudness: Loudness,
    halt: Halt,
    watch: &dyn TreeWatch,
) -> Result<Copied, Failure> {
    match Source::parse(&arguments.source)? {
        Source::Ssh { host, dataset } => {
            fetch::fetch(arguments, (&host, &dataset), loudness, halt, watch)
        }
        Source::Local(dataset) => send(arguments, (&dataset, owed_since), loudness, &halt, watch),
    }
}

/// How many names are tried for a snapshot that is to be taken, each a second on: as many copies of
/// one dataset may begin at once.
const NAMES_MOST: u64 = 10;

/// Sends from this host. A name that another copy's snapshot has got in the same second is no
/// trouble of anybody's.
fn send(
    arguments: &Arguments,
    what: (&DatasetName, Option<Timestamp>),
    loudness: Loudness,
    halt: &Halt,
    watch: &dyn TreeWatch,
) -> Result<Copied, Failure> {
    let named = |seconds| {
        let ahead = Duration::from_secs(seconds);
        send_named(arguments, what, ahead, (loudness, halt.clone()), watch)
    };
    let mut copied = named(0);
    for seconds in 1..NAMES_MOST {
        if !copied.as_ref().is_err_and(is_name_taken) {
            break;
        }
        tracing::debug!("the next second's name is tried");
        copied = named(seconds);
    }
    copied
}

/// The same with the name of a snapshot that would be taken so long from now.
fn send_named(
    arguments: &Arguments,
    (source, owed_since): (&DatasetName, Option<Timestamp>),
    ahead: Duration,
    (loudness, halt): (Loudness, Halt),
    watch: &dyn TreeWatch,
) -> Result<Copied, Failure> {
    let target = Target::parse(&arguments.target)?;
    check_flags(arguments, &target)?;
    let zfs = Zfs::find().map_err(|error| error.on(Side::Source))?;
    let engine = arguments.sending.apply(arguments.engine.settings(Side::Source)?)?;
    let engine = match target {
        Target::Server { .. } if arguments.plain => engine,
        Target::Ssh { .. } => security::encrypted_by_ssh(Side::Source, engine)?,
        Target::Server { .. } => security::encrypted(Side::Source, engine)?,
        Target::Local(_) => engine,
    };
    let state = state_beside(arguments.state.as_deref(), engine.spool.as_ref());
    let records = state::records(Side::Source, state, engine.backend)?;
    let connections = arguments.sending.connections(&engine);
    let runtime = Runtime::new(engine.backend)
        .map_err(|error| machine(Side::Source, "start the client", &error))?;
    let limit = arguments.sending.limit()?;
    arguments.tree.check_cache(&engine, connections)?;
    // Behind whatever else can be a mistake: it starts a process on another host.
    let (route, dataset) =
        route(target, (&zfs, &engine), connections.most(), (arguments, loudness))?;
    let wanted = arguments.wanted((owed_since, ahead), &zfs, source)?;
    let job = Job {
        source: source.clone(),
        target: dataset,
        target_text: arguments.target.clone(),
        wanted,
        intermediates: arguments.choice.intermediates(),
        chosen: arguments.choice.chosen(),
        retention: arguments.retention(),
        on_dead_token: arguments.choice.on_dead_token(),
        clone_of: None,
        properties: arguments.properties(),
        around: arguments.around.clone(),
    };
    let options = Options {
        engine,
        connections,
        congestion: arguments.sending.congestion(),
        limit: limit.told(),
        sharers: NonZeroU16::MIN,
        retry_for: arguments.reach.retry_for(),
        stall_timeout: arguments.reach.stall_timeout(),
        records,
    };
    let copied = runtime.block_on(async {
        let stop = halt
            .listen()
            .and_then(|stop| limit.listen().map(|()| stop))
            .map_err(|error| machine(Side::Source, "listen for signals", &error))?;
        let (what, is_rehearsal) = ((&zfs, &job), arguments.choice.is_rehearsal());
        let (tree, mut stop) = (&arguments.tree, Stop::new(stop));
        tree.carry_out(is_rehearsal, what, &route.dial, options, watch, &mut stop).await
    });
    match route.beside {
        Beside::Nothing => {}
        // After a failure there is nothing left to finish.
        Beside::Here(server) if copied.is_err() => server.join(Stopping::Now),
        Beside::Here(server) => server.join(Stopping::Drained),
        Beside::There(far) => far.end(),
    }
    copied
}

impl Arguments {
    /// Whether all below the source is copied too.
    pub fn is_tree(&self) -> bool {
        self.tree.is_tree()
    }

    /// How much was written to what is copied of a source on this host, since a snapshot.
    pub fn written_since(
        &self,
        zfs: &Zfs,
        source: &DatasetName,
        snapshot: &SnapName,
    ) -> Result<Option<Bytes>, ZfsError> {
        if !self.tree.is_tree() {
            return zfs.written_since(source, snapshot);
        }
        let without = if self.takes_one() { Without::All } else { Without::Nothing };
        let is_left_out = |dataset: &DatasetName| self.tree.leaves_out(source, dataset);
        zfs.written_below(source, snapshot, without, is_left_out)
    }

    /// The source, on whichever host.
    pub fn root(&self) -> Result<DatasetName, Failure> {
        match Source::parse(&self.source)? {
            Source::Ssh { dataset, .. } | Source::Local(dataset) => Ok(dataset),
        }
    }

    /// The source, if it is on this host.
    pub fn local_source(&self) -> Option<DatasetName> {
        match Source::parse(&self.source) {
            Ok(Source::Local(dataset)) => Some(dataset),
            _ => None,
        }
    }

    /// Whether it begins with a new snapshot of a dataset of this host.
    pub fn takes_snapshot_here(&self) -> bool {
        self.local_source().is_some() && self.takes_one()
    }

    /// Whether it begins with a new snapshot.
    pub fn takes_one(&self) -> bool {
        self.choice.takes_one()
    }

    /// Which snapshot the target shall hold in the end: where one is to be taken, the one that an
    /// earlier run of the same copy has taken, if it is owed since then.
    fn wanted(
        &self,
        (owed_since, ahead): (Option<Timestamp>, Duration),
        zfs: &Zfs,
        source: &DatasetName,
    ) -> Result<Wanted, Failure> {
        if let Some(since) = owed_since.filter(|_| self.takes_one()) {
            let all = zfs.candidates(source).map_err(|error| error.on(Side::Source))?;
            if let Some(name) = self.keeping.taken_since(since, &all) {
                return Ok(Wanted::Named(name.clone()));
            }
        }
        self.choice.wanted(|| self.keeping.name(ahead))
    }

    /// What stays on each side.
    pub fn retention(&self) -> Retention {
        self.keeping.retention(self.choice.is_rehearsal())
    }

    /// Which properties are taken along.
    pub fn properties(&self) -> Vec<PropertyName> {
        self.choice.properties()
    }

    /// Has these commands run around it.
    pub fn run_around_the_snapshot(&mut self, hooks: &Arc<Hooks>) {
        if hooks.has_around() {
            self.around = Some(Arc::<Hooks>::clone(hooks));
        }
    }

    /// What is copied where, as it was typed.
    pub fn errand(&self) -> Errand {
        Errand { source: self.source.clone(), target: self.target.clone() }
    }

    /// Demands what can be known to be right before anything is done.
    pub fn check(&self) -> Result<(), Failure> {
        match Source::parse(&self.source)? {
            Source::Ssh { host, dataset } => fetch::check(self, &host, &dataset),
            Source::Local(_) => check_flags(self, &Target::parse(&self.target)?),
        }
    }

    /// What the receiver is told that ssh starts: it waits for us no longer than we try.
    fn for_attendant(&self) -> Vec<String> {
        let grace = self.reach.retry_for().min(GRACE_MAX);
        let mut words = self.engine.for_far(self.ssh.engine());
        words.push(format!("--grace={}", duration::typed(grace)));
        words
    }
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
        Target::Local(_) if arguments.plain => {
            let what = "--plain is for what goes over a network; the target is on this host";
            Err(usage(Side::Source, what).with_remedy("leave it out"))
        }
        Target::Server { .. } | Target::Local(_) => arguments.ssh.require_none(),
    }
}

/// The line at the end, behind `before`.
pub(super) fn tell(before: &str, arguments: &Arguments, copied: &Copied) {
    let Copied { holds, summary, .. } = copied;
    let target = &arguments.target;
    let line = match summary.streams {
        0 if summary.pruned > 0 => {
            format!("{before}{holds}: {target} holds it, {} snapshots pruned", summary.pruned)
        }
        0 => format!("{before}{holds}: nothing to do, {target} holds it"),
        1 => show::summary(&format!("{before}{holds} -> {target}, 1 stream"), summary),
        streams => {
            show::summary(&format!("{before}{holds} -> {target}, {streams} streams"), summary)
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
    (zfs, engine): (&Zfs, &Settings),
    connections: u16,
    (arguments, loudness): (&Arguments, Loudness),
) -> Result<(Route, RelativeName), Failure> {
    let limit = arguments.reach.limit();
    match target {
        Target::Ssh { host, dataset } => {
            let how = (loudness, arguments.for_attendant());
            let Reached { dial, dataset, far } =
                arguments.ssh.reach(&host, &dataset, limit, how)?;
            Ok((Route { dial, beside: Beside::There(far) }, dataset))
        }
        Target::Server { authority, dataset } => {
            let addresses = resolve(&authority)?;
            let manner = if arguments.plain {
                Manner::Plain
            } else {
                security::with_keys(&arguments.config, &authority)?
            };
            let dial = Dial::Network { name: authority.to_string(), addresses, limit, manner };
            Ok((Route { dial, beside: Beside::Nothing }, dataset))
        }
        Target::Local(name) => {
            let (root, below) = below_pool(&name)?;
            let (sockets, incoming) = unbounded_channel();
            let pool = Pool { zfs: zfs.clone(), root, only: None };
            let engine = engine.one_of(arguments.tree.sessions(), 0);
            let server = LocalServer::start(incoming, pool, engine, connections)
                .map_err(|error| machine(Side::Source, "start the receiving side", &error))?;
            Ok((Route { dial: Dial::Local(sockets), beside: Beside::Here(server) }, below))
        }
    }
}

impl LocalServer {
    fn start(
        sockets: UnboundedReceiver<UnixStream>,
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
                        onlooker: None,
                    };
                    let destination = Destination::Pool(pool);
                    let (peer, door) = ("this host".to_owned(), Door::Plain);
                    let incoming = Incoming::Handed { sockets, peer, door };
                    runtime.block_on(server::serve(incoming, destination, options, stopping))
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
