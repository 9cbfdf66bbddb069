//! `zferry doctor`: what this machine offers to zferry, and how to mend what it does not.
//!
//! Reads facts, has them judged ([`judge`]) and prints the findings. What must never happen here:
//! a change to the machine, or a fact that cannot be read and hides the others.

mod finding;
mod grants;
mod judge;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

pub use self::finding::{Finding, Mark};
pub use self::grants::{Duty, Use};
pub use self::judge::{Facts, judge};
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::zfs::Zfs;

/// The door between the `zfs` command and its kernel module.
const DEVICE: &str = "/dev/zfs";

/// Tell what this machine offers, what that means for transfers, and how to mend what is missing
///
/// Changes nothing. Fails only where zferry cannot replicate at all; warnings cost speed or
/// caution.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Tell as well whether this user may replicate or send from this dataset, and the `zfs allow`
    /// that is missing; may be given several times
    #[arg(long, value_name = "POOL/DS")]
    source: Vec<DatasetName>,
    /// The same of a dataset that is to be the --root of a server, or that streams are received
    /// below; may be given several times
    #[arg(long, value_name = "POOL/DS")]
    target: Vec<DatasetName>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
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
    let uses = |duty: Duty, datasets: &[DatasetName]| -> Vec<Use> {
        datasets.iter().map(|dataset| read_use(duty, dataset.clone())).collect()
    };
    let mut wanted = uses(Duty::Source, &arguments.source);
    wanted.extend(uses(Duty::Target, &arguments.target));
    Facts {
        machine: sys::probe::Facts::read(),
        zfs: Zfs::find().and_then(|zfs| zfs.version()),
        device: File::options().read(true).write(true).open(DEVICE).map(drop),
        uses: wanted,
    }
}

fn read_use(duty: Duty, dataset: DatasetName) -> Use {
    let allowed = Zfs::find().and_then(|zfs| zfs.allowed(&dataset));
    Use { duty, allowed: allowed.map_err(|error| error.on(duty.side())), dataset }
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
