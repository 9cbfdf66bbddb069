//! Commands of the operator's own that a job runs: around its snapshot, and when a run has ended.
//!
//! No shell: a command is a list of words. What must never happen here: that one outlives its
//! limit, or that a snapshot is taken although the command before it has failed.

use std::process::Command;
use std::time::Duration;

use super::copied::Copied;
use crate::board::Errand;
use crate::client::around::Around;
use crate::error::{Class, Failure, Side};
use crate::process::{Patience, Process, Stderr};
use crate::protocol::text::printable;
use crate::schedule::JobName;

/// Where programs are that are not named by their paths, if we were not told either.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a command is told of a failure.
const ERROR_BYTES_MAX: usize = 4096;

/// What is told of what a command has said.
const WORDS_BYTES_MAX: usize = 1000;

/// A program and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argv(Vec<String>);

/// What a configuration says.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    pub on_success: Option<Argv>,
    pub on_failure: Option<Argv>,
    pub pre_snapshot: Option<Argv>,
    pub post_snapshot: Option<Argv>,
    /// How long each may take.
    pub limit: Duration,
}

/// The commands of one job.
#[derive(Debug)]
pub(super) struct Hooks {
    commands: Commands,
    job: JobName,
    errand: Errand,
}

/// What a command is told: its environment.
type Told = Vec<(&'static str, String)>;

impl Argv {
    /// `None` where it is no command; a program that is not in a list is named by its whole path,
    /// so that a line for a shell is not taken for one.
    pub fn new(words: Vec<String>, is_list: bool) -> Option<Argv> {
        let program = words.first()?;
        let is_named = !program.is_empty() && (is_list || program.starts_with('/'));
        let is_fine = is_named && !words.iter().any(|word| word.contains('\0'));
        is_fine.then_some(Argv(words))
    }
}

impl Commands {
    /// Those of a job.
    pub fn of(self, job: JobName, errand: Errand) -> Hooks {
        Hooks { commands: self, job, errand }
    }
}

impl Hooks {
    /// Whether there is something to run around a snapshot.
    pub fn has_around(&self) -> bool {
        self.commands.pre_snapshot.is_some() || self.commands.post_snapshot.is_some()
    }

    /// A run has ended; what its commands do is told and changes nothing.
    pub fn ended(&self, outcome: &Result<Copied, Failure>) {
        let outcome = outcome.as_ref().and_then(|copied| copied.all().map(|()| copied));
        let (event, command, told) = match outcome {
            Ok(copied) => ("success", &self.commands.on_success, of_success(copied)),
            Err(failure) => ("failure", &self.commands.on_failure, vec![error(failure)]),
        };
        if let Some(Err(failure)) = command.as_ref().map(|argv| self.run(argv, event, told)) {
            tracing::error!(job = %self.job, "{failure}");
        }
    }

    fn run(&self, argv: &Argv, event: &'static str, told: Told) -> Result<(), Failure> {
        let Some((program, words)) = argv.0.split_first() else { return Ok(()) };
        tracing::info!(job = %self.job, event, program, "runs a command");
        let failed = |how: &str| {
            let what = format!("the command for {event} of job {}, {program}, {how}", self.job);
            Failure::new(Side::Source, Class::Machine, what)
        };
        let mut command = Command::new(program);
        command.args(words).env_clear().current_dir("/");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()));
        command.env("ZFERRY_EVENT", event).env("ZFERRY_JOB", self.job.as_str());
        command.env("ZFERRY_SOURCE", &self.errand.source);
        command.env("ZFERRY_TARGET", &self.errand.target);
        command.envs(told);
        let limit = self.commands.limit;
        let (process, stdin) = Process::reading(command, Stderr::Kept)
            .map_err(|error| failed(&format!("cannot be started: {error}")))?;
        // There is nothing to read.
        drop(stdin);
        match process.wait_for(limit) {
            Ok(Patience::Ended(ended)) if ended.success() => Ok(()),
            Ok(Patience::Ended(ended)) => {
                Err(failed(&format!("failed: {ended}{}", said(&ended.stderr))))
            }
            Ok(Patience::OutOfIt(ended)) => {
                let seconds = limit.as_secs();
                let how = format!("was killed after {seconds} s{}", said(&ended.stderr));
                Err(failed(&how).with_remedy("give it more time: hook-timeout"))
            }
            Err(error) => Err(failed(&format!("cannot be waited for: {error}"))),
        }
    }
}

impl Around for Hooks {
    fn before(&self, snapshot: &str) -> Result<(), Failure> {
        let Some(argv) = &self.commands.pre_snapshot else { return Ok(()) };
        self.run(argv, "pre-snapshot", vec![("ZFERRY_SNAPSHOT", snapshot.to_owned())])
    }

    fn after(&self, snapshot: &str, failure: Option<&Failure>) {
        let Some(argv) = &self.commands.post_snapshot else { return };
        let mut told = vec![("ZFERRY_SNAPSHOT", snapshot.to_owned())];
        told.extend(failure.map(error));
        if let Err(failure) = self.run(argv, "post-snapshot", told) {
            tracing::error!(job = %self.job, "{failure}");
        }
    }
}

fn of_success(copied: &Copied) -> Told {
    let summary = &copied.summary;
    vec![
        ("ZFERRY_SNAPSHOT", copied.holds.clone()),
        ("ZFERRY_STREAMS", summary.streams.to_string()),
        ("ZFERRY_BYTES", summary.bytes.0.to_string()),
        ("ZFERRY_WIRE_BYTES", summary.wire.0.to_string()),
        ("ZFERRY_SECONDS", summary.taken.as_secs().to_string()),
    ]
}

/// With nothing in it that an environment cannot hold.
fn error(failure: &Failure) -> (&'static str, String) {
    ("ZFERRY_ERROR", printable(&failure.to_string(), ERROR_BYTES_MAX))
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        words => format!("; it said: {}", printable(words, WORDS_BYTES_MAX)),
    }
}
