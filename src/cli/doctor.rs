//! `zferry doctor`: what this machine offers to zferry, and how to mend what it does not.
//!
//! Reads facts, has them judged ([`judge`]) and prints the findings. What must never happen here:
//! a change to the machine, or a fact that cannot be read and hides the others.

mod asked;
mod finding;
mod grants;
mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::asked::Asked;
pub use self::asked::Elsewhere;
pub use self::finding::{Finding, Mark};
pub use self::grants::{Asks, Duty, Use};
pub use self::judge::{Facts, judge};
use super::config::{CONFIG, ConfigFile};
use super::config_folder::ConfigFolder;
use super::usage;
use crate::dataset::DatasetName;
use crate::dataset::property::PropertyName;
use crate::error::{Class, Failure, Side};
use crate::trust::clients::Clients;
use crate::zfs::Zfs;

/// The door between the `zfs` command and its kernel module.
const DEVICE: &str = "/dev/zfs";

/// Tell what this machine offers, what that means for transfers, and how to mend what is missing
///
/// Changes nothing. Fails only where zferry cannot replicate at all; warnings cost speed or
/// caution.
#[derive(Args, Debug, Default)]
pub(super) struct Arguments {
    /// Tell as well whether this user may replicate or send from this dataset, and the `zfs allow`
    /// that is missing; may be given several times
    #[arg(long, value_name = "POOL/DS")]
    source: Vec<DatasetName>,
    /// The same of a dataset that is to be the --root of a server, or that streams are received
    /// below; may be given several times
    #[arg(long, value_name = "POOL/DS")]
    target: Vec<DatasetName>,
    /// Of each --source and --target, tell as well whether snapshots may be destroyed there, for
    /// --keep, --keep-target and `zferry prune`
    #[arg(long)]
    prune: bool,
    /// Of each --target, tell as well whether these properties may be set there, for --properties
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "target")]
    properties: Vec<PropertyName>,
    /// Tell the same of every job of a scheduler's configuration, by what it asks for; of what is
    /// on other hosts, where to ask [default: /etc/zferry/zferry.toml if no FILE is named]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = CONFIG)]
    jobs: Option<PathBuf>,
    /// Tell the same of the root of every client of a server, by what clients.toml grants there
    #[arg(long)]
    clients: bool,
    #[command(flatten)]
    config: ConfigFolder,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.prune && arguments.source.is_empty() && arguments.target.is_empty() {
        return Err(usage(Side::Source, "--prune is about datasets that are named").with_remedy(
            "add --source POOL/DATASET or --target POOL/DATASET; jobs say it themselves",
        ));
    }
    let findings = judge(&read(arguments));
    // A reader that has gone needs no report; the exit code is for others.
    let _ = print(&findings, arguments.json, &mut io::stdout().lock());
    let obstacles: Vec<&str> = of_mark(&findings, Mark::Fail).map(|found| found.topic).collect();
    if obstacles.is_empty() {
        return Ok(());
    }
    let what = format!("this host cannot replicate: see {} above", obstacles.join(", "));
    Err(Failure::new(Side::Source, Class::Machine, what))
}

/// Asks the machine. None of the facts fails the others.
fn read(arguments: &Arguments) -> Facts {
    let mut asked = named(arguments);
    let jobs = arguments.jobs.as_ref().map_or(Ok(()), |file| add_jobs(file.clone(), &mut asked));
    let clients = if arguments.clients { add_clients(arguments, &mut asked) } else { Ok(()) };
    let lists = [("jobs", jobs), ("clients", clients)];
    Facts {
        machine: sys::probe::Facts::read(),
        zfs: Zfs::find().and_then(|zfs| zfs.version()),
        device: File::options().read(true).write(true).open(DEVICE).map(drop),
        uses: asked
            .here
            .into_iter()
            .map(|((duty, dataset), asks)| read_use(duty, dataset, asks))
            .collect(),
        elsewhere: asked.elsewhere,
        unread: lists.into_iter().filter_map(|(of, read)| Some((of, read.err()?))).collect(),
    }
}

/// What is asked by flags.
fn named(arguments: &Arguments) -> Asked {
    let Arguments { source, target, prune, properties, .. } = arguments;
    let mut asked = Asked::default();
    for dataset in source {
        let asks = Asks { prunes: *prune, snapshots: true, ..Asks::default() };
        asked.add(Duty::Source, dataset.clone(), asks);
    }
    for dataset in target {
        let properties: BTreeSet<_> = properties.iter().cloned().collect();
        let asks = Asks { prunes: *prune, properties, ..Asks::default() };
        asked.add(Duty::Target, dataset.clone(), asks);
    }
    asked
}

/// What the jobs of a scheduler ask.
fn add_jobs(file: PathBuf, asked: &mut Asked) -> Result<(), Failure> {
    let mut of_jobs = Asked::default();
    for job in &ConfigFile::at(file).look()?.jobs {
        of_jobs.add_job(job)?;
    }
    for ((duty, dataset), asks) in of_jobs.here {
        // A target is made by its first copy, and what is granted above it counts.
        let dataset = if duty == Duty::Target { nearest(dataset) } else { dataset };
        asked.add(duty, dataset, asks);
    }
    asked.elsewhere = of_jobs.elsewhere;
    Ok(())
}

/// What is granted to the clients of a server.
fn add_clients(arguments: &Arguments, asked: &mut Asked) -> Result<(), Failure> {
    let list = arguments.config.folder(Side::Target)?.clients_path();
    if !list.exists() {
        let what = format!("there is no {}", list.display());
        return Err(usage(Side::Target, what).with_remedy("name its folder: --config DIR"));
    }
    asked.add_clients(&Clients::load(&list).map_err(|error| error.on(Side::Target))?);
    Ok(())
}

/// The dataset, or where it is not yet, what it will lie in.
fn nearest(dataset: DatasetName) -> DatasetName {
    let Ok(zfs) = Zfs::find() else { return dataset };
    let mut nearest = dataset.clone();
    while let Ok(None) = zfs.dataset_guid(&nearest) {
        let Some(parent) = nearest.parent() else { return dataset };
        nearest = parent;
    }
    nearest
}

fn read_use(duty: Duty, dataset: DatasetName, asks: Asks) -> Use {
    let allowed = Zfs::find().and_then(|zfs| zfs.allowed(&dataset));
    Use { duty, asks, allowed: allowed.map_err(|error| error.on(duty.side())), dataset }
}

/// Writes the findings as text for people, or as one JSON object.
pub fn print(findings: &[Finding], json: bool, to: &mut impl Write) -> io::Result<()> {
    if json {
        #[derive(Serialize)]
        struct Report<'a> {
            failed: bool,
            findings: &'a [Finding],
        }
        let failed = of_mark(findings, Mark::Fail).next().is_some();
        serde_json::to_writer(&mut *to, &Report { failed, findings })?;
        writeln!(to)?;
        return to.flush();
    }
    for Finding { mark, topic, fact, meaning, remedy } in findings {
        let mark = match mark {
            Mark::Ok => " ok ",
            Mark::Warn => "warn",
            Mark::Fail => "FAIL",
        };
        writeln!(to, "[{mark}] {topic}: {fact}")?;
        writeln!(to, "       {meaning}")?;
        if let Some(remedy) = remedy {
            writeln!(to, "       to mend it: {remedy}")?;
        }
    }
    let count = |mark| of_mark(findings, mark).count();
    let (ok, warn, fail) = (count(Mark::Ok), count(Mark::Warn), count(Mark::Fail));
    writeln!(to, "{ok} ok, {warn} to improve, {fail} in the way")?;
    to.flush()
}

fn of_mark(findings: &[Finding], mark: Mark) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(move |finding| finding.mark == mark)
}
