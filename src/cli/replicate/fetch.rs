//! `zferry replicate HOST:POOL/DATASET POOL/DATASET`: another host sends, and we receive.
//!
//! We listen, give out a ticket, and have ssh start `zferry deliver` on that host with it; the data
//! come past ssh, or through it. What that tells of the copy is shown here. An ssh that is lost in
//! the middle is started again. What must never happen: that anything goes on there when we have
//! ended, and that a copy counts as done that the other host has not called so.

mod following;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use sys::control::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use self::following::Following;
use super::Arguments;
use crate::cli::attend::CONNECTIONS_MAX;
use crate::cli::copied::Copied;
use crate::cli::errand::Errand;
use crate::cli::far::own_addresses;
use crate::cli::ports::{bind, everywhere};
use crate::cli::signals::Halt;
use crate::cli::target::{Target, below_pool};
use crate::cli::{Loudness, machine, security, state, usage};
use crate::client::retry::{Attempts, Next};
use crate::client::ssh::Ssh;
use crate::client::{Stop, TreeWatch};
use crate::dataset::{DatasetName, typed};
use crate::error::{Class, Failure, Side};
use crate::protocol::ticket::Ticket;
use crate::server::{Destination, Incoming, Lasts, Only, Options, Pool, Stopping, serve};
use crate::zfs::Zfs;

/// What became of a copy: the snapshot that the target holds, and how it went.
type Told = Result<Copied, Failure>;

/// One copy that is fetched.
struct Fetch<'a> {
    arguments: &'a Arguments,
    ssh: Ssh,
    /// What is fetched.
    dataset: DatasetName,
    /// What ssh starts.
    command: String,
    /// What to send, and how.
    words: Vec<String>,
    pool: Pool,
    options: Options,
}

/// What one ssh, and what it had started, came to.
enum Ended {
    /// What was told.
    Told(Told),
    /// It died before it told what became of the copy.
    Lost { failure: Failure, began: bool, moved: Option<Instant> },
}

/// Demands what can be known to be right before anything is done.
pub(super) fn check(
    arguments: &Arguments,
    host: &str,
    dataset: &DatasetName,
) -> Result<(), Failure> {
    local(arguments, host, dataset)?;
    check_flags(arguments)
}

pub(super) fn fetch(
    arguments: &Arguments,
    (host, dataset): (&str, &DatasetName),
    loudness: Loudness,
    halt: Halt,
    watch: &dyn TreeWatch,
) -> Result<Copied, Failure> {
    let target = local(arguments, host, dataset)?;
    check_flags(arguments)?;
    let (root, below) = below_pool(&target)?;
    let ssh = arguments.ssh.to(host)?;
    let zfs = Zfs::find().map_err(|error| error.on(Side::Target))?;
    let settings = arguments.engine.settings(Side::Target)?;
    let engine = security::encrypted_by_ssh(Side::Target, settings)?;
    arguments.sending.check(engine.clone())?;
    let mut words = vec![
        format!("--source={dataset}"),
        format!("--target={}", below.as_str()),
        format!("--target-text={}:{target}", own_name()),
    ];
    words.extend(flags_for_far(arguments)?);
    words.extend(way(arguments, &ssh));
    let backend = engine.backend;
    let records = state::records(Side::Target, arguments.state.as_deref(), backend)?;
    let runtime = Runtime::new(backend)
        .map_err(|error| machine(Side::Target, "start the receiving side", &error))?;
    let is_tree = arguments.is_tree();
    let fetch = Fetch {
        arguments,
        dataset: dataset.clone(),
        ssh,
        command: format!("{} deliver", arguments.ssh.program(loudness)),
        words,
        pool: Pool { zfs, root, only: Some(Only { dataset: below, is_tree }) },
        options: Options {
            engine,
            connections_max: CONNECTIONS_MAX,
            // Until what ssh has started is done.
            lasts: Lasts::Forever,
            grace: arguments.reach.retry_for(),
            records,
            onlooker: None,
        },
    };
    let copied = runtime.block_on(async {
        let stop =
            halt.listen().map_err(|error| machine(Side::Target, "listen for signals", &error))?;
        fetch.through(watch, &mut Stop::new(stop)).await
    })?;
    Ok(Copied { holds: format!("{host}:{}", copied.holds), ..copied })
}

/// The target, which must be on this host.
fn local(arguments: &Arguments, host: &str, dataset: &DatasetName) -> Result<DatasetName, Failure> {
    match Target::parse(&arguments.target)? {
        Target::Local(target) => Ok(target),
        Target::Ssh { .. } | Target::Server { .. } => {
            let (source, target) = (typed(dataset.as_str()), typed(&arguments.target));
            let what = "neither the source nor the target is on this host";
            Err(usage(Side::Source, what).with_remedy(format!(
                "run it on one of them: on {host}, zferry replicate {source} {target}"
            )))
        }
    }
}

/// Demands that every flag has something to say about a copy that another host sends.
fn check_flags(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.plain {
        let what = "with ssh there is a ticket, so nothing has to come in clear";
        return Err(usage(Side::Source, what).with_remedy("leave out --plain"));
    }
    if arguments.sending.is_limited() && arguments.ssh.via_ssh() {
        let what = "--bwlimit limits our own connections, and --via-ssh has none";
        return Err(usage(Side::Source, what).with_remedy("leave out one of them"));
    }
    Ok(())
}

/// What was typed of how to send.
fn flags_for_far(arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let mut words = arguments.choice.for_far();
    words.extend(arguments.tree.for_far());
    words.extend(arguments.keeping.for_far());
    words.extend(arguments.reach.for_far());
    words.extend(arguments.engine.for_far(arguments.ssh.engine()));
    words.extend(arguments.sending.for_far()?);
    Ok(words)
}

/// How the data come here, for the other host.
fn way(arguments: &Arguments, ssh: &Ssh) -> Vec<String> {
    if !arguments.ssh.via_ssh() {
        let own = own_addresses(ssh).into_iter();
        return own.map(|address| format!("--address={address}")).collect();
    }
    let ports = arguments.ssh.ports();
    let ports = ports.map(|ports| format!("--ports={}-{}", ports.first, ports.last));
    ports.into_iter().chain(["--through-ssh".to_owned()]).collect()
}

/// What this host is called, for the tag of holds on the other one: the same in every run.
fn own_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fits = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let name: String = name.trim().chars().filter(fits).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

impl Fetch<'_> {
    /// Goes on until the copy is done, by as many runs of ssh as it takes.
    async fn through(&self, watch: &dyn TreeWatch, stop: &mut Stop) -> Told {
        let seed = getrandom::u64().unwrap_or_default();
        let retry_for = self.arguments.reach.retry_for();
        let mut attempts = Attempts::new(retry_for, seed, Instant::now());
        let mut was_reached = false;
        loop {
            let (failure, moved) = match self.attempt(watch, stop).await? {
                Ended::Told(told) => return told,
                Ended::Lost { failure, began, moved } => {
                    was_reached |= began;
                    (failure, moved)
                }
            };
            attempts.moved(moved, moved);
            // A host that was never reached is most likely a mistake of whoever typed its name.
            let next = attempts.after(&failure, Instant::now());
            let Next::Again { wait, .. } = next else { return Err(failure) };
            if !was_reached {
                return Err(failure);
            }
            tracing::warn!("interrupted, tried again in {:.1} s: {failure}", wait.as_secs_f32());
            watch.dataset(&self.dataset).tried_again(&failure);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.pulled() => return Err(stopped()),
            }
        }
    }

    /// One run of ssh, from its start to the end of what it has started, and the server that takes
    /// what comes of it.
    async fn attempt(&self, watch: &dyn TreeWatch, stop: &mut Stop) -> Result<Ended, Failure> {
        let (sockets, handed) = unbounded_channel();
        let (incoming, ticket) = self.open(handed)?;
        let errand = Errand::new(&ticket, self.words.clone()).encode()?;
        let (mut far, lines) = self.ssh.send_for(&self.command, &errand)?;
        let (tell, stopping) = watch::channel(Stopping::No);
        let as_json = self.arguments.telling.as_json();
        let mut following = Following::new(&self.ssh, sockets, watch, as_json);
        let followed = async {
            let told = following.follow(&mut far, lines, stop).await;
            let done = matches!(told, Some(Ok(_)));
            tell.send_replace(if done { Stopping::Drained } else { Stopping::Now });
            told
        };
        let destination = Destination::Pool(self.pool.clone());
        let serving = serve(incoming, destination, self.options.clone(), stopping);
        let (told, served) = tokio::join!(followed, serving);
        let (began, moved) = (following.began(), following.moved());
        let Some(told) = told else {
            if stop.is_pulled() {
                // An ssh that has not let go by now waits for a password, or for a dead line.
                drop(far);
                return Ok(Ended::Told(Err(stopped())));
            }
            let failure = blocking(move || far.lost(began)).await?;
            return Ok(Ended::Lost { failure, began, moved });
        };
        served?;
        blocking(move || far.end()).await?;
        Ok(Ended::Told(told))
    }

    /// Where the data come in, and what lets them in.
    fn open(&self, sockets: UnboundedReceiver<UnixStream>) -> Result<(Incoming, Ticket), Failure> {
        if self.arguments.ssh.via_ssh() {
            // Nobody dials it.
            let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
            let (door, ticket) = security::give_out(nowhere)?;
            let peer = format!("{} by ssh", self.ssh.host());
            return Ok((Incoming::Handed { sockets, peer, door }, ticket));
        }
        let listener = bind(Side::Target, everywhere(), self.arguments.ssh.ports())?;
        let (door, ticket) = security::give_out(listener.local_addr())?;
        Ok((Incoming::Network { listener, door }, ticket))
    }
}

/// The end of a copy that is not wanted any more.
fn stopped() -> Failure {
    let what = "stopped by a signal; what has arrived stays, and the next run goes on from it";
    Failure::new(Side::Target, Class::Interrupted, what)
}

/// Waits for a process on another thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|panicked| {
        Failure::new(Side::Target, Class::Internal, format!("wait for ssh: {panicked}"))
    })
}
