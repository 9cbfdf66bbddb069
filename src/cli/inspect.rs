//! `zferry inspect`: what a record file or a breakpoint file holds, and what of it is damaged.
//!
//! Reads, judges ([`report`]), prints ([`text`]). What must never happen here: a change to the
//! file, or a wait for whoever has it open. Its bytes may be anybody's.

mod report;
mod text;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use self::report::Report;
pub(super) use self::report::Verdict;
use super::machine;
use crate::error::{Class, Failure, Side};
use crate::units::Bytes;

/// Four times the length of a segment: no file of ours is longer.
const FILE_BYTES_MAX: Bytes = Bytes(256 << 20);

/// Show what a record file or a breakpoint file says, and name what in it is damaged
///
/// A record says how far a transfer is safe; the newest that is whole counts, and an older one only
/// costs bytes that are sent again. Changes nothing, and may look at a file that a running transfer
/// has open: what is just being written may then seem cut.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 sound, 1 damaged but of use, 2 of no use or not read.

A write that was cut short by a crash is no damage: the record before it counts.")]
pub(super) struct Arguments {
    /// A file of records, or a segment of breakpoint files, as they lie in the folder of `--state`
    /// or `--spool`
    file: PathBuf,
    /// Show every record or block, not only what counts
    #[arg(long)]
    all: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let path = &arguments.file;
    let bytes = read(path)?;
    let report = Report::of(&bytes).ok_or_else(|| {
        let what = format!("{} is neither a record file nor a breakpoint file", path.display());
        Failure::new(Side::Source, Class::Refused, what)
    })?;
    // A reader that has gone needs no report; the exit code is for others.
    let _ = print(arguments, &report, &mut io::stdout().lock());
    Ok(report.verdict())
}

fn print(arguments: &Arguments, report: &Report, to: &mut impl Write) -> io::Result<()> {
    if arguments.json {
        serde_json::to_writer(&mut *to, &report.json(&arguments.file, arguments.all))?;
        writeln!(to)?;
    } else {
        text::write(&arguments.file, report, arguments.all, to)?;
    }
    to.flush()
}

/// All of a file, if it is a file and not longer than ours are.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: &io::Error| {
        machine(Side::Source, &format!("read {}", path.display()), error)
            .with_remedy("check the path, and whether this user may read it")
    };
    // Before it is opened: to open a pipe is to wait for its writer.
    let metadata = fs::metadata(path).map_err(|error| failed(&error))?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX.0 {
        let what = format!(
            "{} is no file of at most {FILE_BYTES_MAX}, which all record files and breakpoint \
             files are",
            path.display()
        );
        return Err(Failure::new(Side::Source, Class::Refused, what));
    }
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    // It may have grown since.
    let read = file.take(FILE_BYTES_MAX.0).read_to_end(&mut bytes);
    read.map_err(|error| failed(&error))?;
    Ok(bytes)
}
