//! `zferry status`: jobs and what is on its way; or what interrupted copies have left on this host.
//!
//! It only looks, unless it is told to release holds.

pub(super) mod board;
mod look;
mod transfers;

use std::io;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::schedule::{socket, usual_state};
use super::{show, usage};
use crate::board::{Document, State};
use crate::client::orphans::{self, HeldSnapshot, Orphans, PartlyReceived, Running};
use crate::dataset::{DatasetName, typed};
use crate::error::{Failure, Side};
use crate::zfs::Zfs;

/// Show jobs and transfers, or what interrupted copies have left on this host; let go of it
///
/// Without flags: the jobs of this host's scheduler, with what is on its way, when each target last
/// had all of it and when the next run is due; where no scheduler runs, what the last one has left.
///
/// While a snapshot is on its way, it and the snapshot that it builds on are held (zfs hold), so
/// that nothing destroys them before the target has the whole. If a copy is cut off the holds stay,
/// for the next run goes on from what the target has. A copy that is never run again leaves them
/// for ever: --orphans lists them, and they can be released. Datasets of this host that have a part
/// of a snapshot are listed too. For that zfs reads every snapshot, which takes its time.
///
/// Copies that run on this host are seen by their command lines, and those of its scheduler by
/// asking it. What another host fetches by ssh is not seen: while it does, whatever is held for a
/// target HOST:POOL/DATASET counts as being copied. Copies in containers are not seen at all.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags are given or not")]
pub(super) struct Arguments {
    /// Look at this dataset and all below it [default: all of this host]
    #[arg(value_name = "DATASET")]
    datasets: Vec<String>,
    /// List the holds of zferry and the partly received datasets
    #[arg(long)]
    orphans: bool,
    /// List the holds of zferry and release them, on the datasets that are named or with --all. A
    /// copy that was cut off loses what it has sent if its snapshot is destroyed afterwards. Holds
    /// of others and of copies that are running are left alone
    #[arg(long)]
    release: bool,
    /// With --release: on all datasets of this host
    #[arg(long, requires = "release", conflicts_with = "datasets")]
    all: bool,
    /// Look into this folder, which a scheduler, a copy or a server was given with --state: the
    /// jobs there, and the transfers that have breakpoint records there, those that run and those
    /// that were interrupted, and how far they came [default: /var/lib/zferry, or schedule in it]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["orphans", "release", "datasets"])]
    state: Option<PathBuf>,
    /// Ask the scheduler at this socket [default: zferry.sock in the state folder]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Look again every second until Ctrl-C, for jobs and transfers
    #[arg(long, conflicts_with_all = ["orphans", "release", "datasets"])]
    watch: bool,
    /// Print one JSON object instead of text (with --watch: one a line)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !arguments.orphans && !arguments.release && arguments.datasets.is_empty() {
        return look::run(arguments);
    }
    let within = datasets(arguments)?;
    let scheduled = scheduled(arguments)?;
    let zfs = Zfs::find().map_err(|error| error.on(Side::Source))?;
    let orphans = find(&zfs, &within, scheduled.as_ref())?;
    if !arguments.release {
        tell(&orphans, arguments.json);
        return Ok(());
    }
    let mut released = Vec::new();
    let mut failed = None;
    for orphan in orphans.held.iter().filter(|orphan| orphan.running == Running::No) {
        match orphans::release(&zfs, &orphan.held) {
            Ok(()) => released.push(&orphan.held),
            Err(error) => failed = failed.or(Some(error.on(Side::Source))),
        }
    }
    let is_released = |orphan: &HeldSnapshot| released.contains(&&orphan.held);
    tell_released(&orphans, &is_released, arguments.json);
    failed.map_or(Ok(()), Err)
}

impl Arguments {
    fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(usual_state)
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| socket::beside(&self.state()))
    }
}

/// Where to look; nothing for the whole host.
fn datasets(arguments: &Arguments) -> Result<Vec<DatasetName>, Failure> {
    if arguments.release && !arguments.all && arguments.datasets.is_empty() {
        return Err(usage(Side::Source, "--release needs to know where")
            .with_remedy("look with --orphans first, then name datasets, or say --all"));
    }
    let parsed = arguments.datasets.iter().map(|name| name.parse());
    let parsed: Result<Vec<DatasetName>, _> = parsed.collect();
    parsed.map_err(|error| usage(Side::Source, format!("dataset {error}")))
}

/// The scheduler's jobs. To be asked before the holds: a copy that ends meanwhile has taken its own
/// off.
fn scheduled(arguments: &Arguments) -> Result<Option<Document>, Failure> {
    match board::asked(&arguments.socket()) {
        // Nobody knows which copies run. Whoever only looks may be content with the others.
        Err(_) if !arguments.release => Ok(None),
        asked => asked,
    }
}

fn find(
    zfs: &Zfs,
    within: &[DatasetName],
    scheduled: Option<&Document>,
) -> Result<Orphans, Failure> {
    let on_this_host = |error: crate::zfs::ZfsError| error.on(Side::Source);
    let mut all = Orphans { held: Vec::new(), partly: Vec::new() };
    if within.is_empty() {
        all = orphans::find(zfs, None).map_err(on_this_host)?;
    }
    for dataset in within {
        let found = orphans::find(zfs, Some(dataset)).map_err(on_this_host)?;
        add_new(&mut all.held, found.held);
        add_new(&mut all.partly, found.partly);
    }
    let jobs = scheduled.into_iter().flat_map(|document| &document.jobs);
    for job in jobs.filter(|job| job.state == State::Running) {
        for orphan in &mut all.held {
            if orphans::is_of(&orphan.held, &job.source, &job.target) {
                orphan.running = Running::Yes;
            }
        }
    }
    Ok(all)
}

/// One dataset may lie below another that was named too.
fn add_new<T: PartialEq>(all: &mut Vec<T>, found: Vec<T>) {
    for one in found {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

fn tell(orphans: &Orphans, json: bool) {
    if json {
        return print_json(&Report::of(orphans, &|_| false));
    }
    print_lines(&lines_of(orphans), NO_ORPHANS);
}

const NO_ORPHANS: &str = "no snapshot is held by zferry, and no dataset is partly received";

fn lines_of(orphans: &Orphans) -> Vec<String> {
    let held = orphans
        .held
        .iter()
        .map(|orphan| format!("{}{}", held_line(orphan), running(orphan.running)));
    held.chain(orphans.partly.iter().map(partly_line)).collect()
}

fn tell_released(orphans: &Orphans, is_released: &dyn Fn(&HeldSnapshot) -> bool, json: bool) {
    if json {
        return print_json(&Report::of(orphans, is_released));
    }
    let line = |orphan| {
        let became = match (is_released(orphan), orphan.running) {
            (true, _) => "released",
            (false, Running::No) => "not released",
            (false, Running::Perhaps | Running::Yes) => "left alone",
        };
        format!("{became}: {}{}", held_line(orphan), running(orphan.running))
    };
    let lines: Vec<String> = orphans.held.iter().map(line).collect();
    print_lines(&lines, "no snapshot is held by zferry");
}

fn running(running: Running) -> &'static str {
    match running {
        Running::No => "",
        Running::Perhaps => ", and may be what another host fetches just now (zferry deliver runs)",
        Running::Yes => ", and is being copied",
    }
}

fn held_line(orphan: &HeldSnapshot) -> String {
    let held = &orphan.held;
    let name = held.dataset.at(&held.snapshot);
    format!("{name} is held for {} since {}", held.tag.transfer(), held.since)
}

fn partly_line(partly: &PartlyReceived) -> String {
    let dataset = typed(partly.dataset.as_str());
    let part = match &partly.token {
        Ok(token) => {
            let name = token.to_dataset.at(&token.to_snapshot);
            format!("{} of {name} (guid {})", token.bytes, token.to)
        }
        Err(error) => format!("a part of a snapshot whose resume token cannot be read: {error}"),
    };
    format!("{} has {part}; to give it up: zfs receive -A {dataset}", partly.dataset)
}

fn print_lines(lines: &[String], nothing: &str) {
    let out = &mut io::stdout().lock();
    if lines.is_empty() {
        show::say(out, nothing);
    }
    for line in lines {
        show::say(out, line);
    }
}

fn print_json(report: &impl Serialize) {
    // Strings and numbers: it cannot fail.
    let text = serde_json::to_string(report).unwrap_or_default();
    show::say(&mut io::stdout().lock(), &text);
}

#[derive(Serialize)]
struct Report {
    held: Vec<HeldReport>,
    partly_received: Vec<PartlyReport>,
}

#[derive(Serialize)]
struct HeldReport {
    dataset: String,
    snapshot: String,
    tag: String,
    target: String,
    since: String,
    running: bool,
    released: bool,
}

#[derive(Serialize)]
struct PartlyReport {
    dataset: String,
    snapshot: Option<String>,
    guid: Option<u64>,
    bytes: Option<u64>,
}

impl Report {
    fn of(orphans: &Orphans, is_released: &dyn Fn(&HeldSnapshot) -> bool) -> Report {
        let held = orphans.held.iter().map(|orphan| HeldReport {
            dataset: orphan.held.dataset.to_string(),
            snapshot: orphan.held.snapshot.to_string(),
            tag: orphan.held.tag.to_string(),
            target: orphan.held.tag.transfer().to_owned(),
            since: orphan.held.since.clone(),
            running: orphan.running != Running::No,
            released: is_released(orphan),
        });
        let partly = orphans.partly.iter().map(|partly| {
            let token = partly.token.as_ref().ok();
            PartlyReport {
                dataset: partly.dataset.to_string(),
                snapshot: token.map(|token| token.to_dataset.at(&token.to_snapshot)),
                guid: token.map(|token| token.to.0),
                bytes: token.map(|token| token.bytes.0),
            }
        });
        Report { held: held.collect(), partly_received: partly.collect() }
    }
}
