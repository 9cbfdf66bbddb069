//! What a person types: one file per command, text into types, outcome into words and exit code.
//!
//! No work is done here but to understand, to start, and to tell. What the exit codes mean stands
//! in [`Exit`].

mod attend;
pub mod check;
mod choice;
mod completions;
mod config;
mod config_folder;
mod copied;
mod deliver;
pub mod doctor;
mod duration;
mod engine;
mod errand;
mod events;
mod far;
mod hooks;
mod http;
mod inspect;
mod keeping;
mod keys;
mod limit;
mod man;
mod monitor;
mod ports;
mod prometheus;
mod prune;
mod receive;
mod replicate;
mod schedule;
mod security;
mod send;
mod serve;
mod show;
mod signals;
mod spool;
mod state;
mod status;
mod target;
mod tree;
mod tune;
mod typed;

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::error::{Class, Exit, Failure, Side};

/// Behind the flags of every command.
const LAST: usize = 1000;

/// Replicates ZFS snapshots from one Linux host to another as fast as the machine allows.
///
/// Beside the backup pool, run `zferry serve`; beside the local pool, `zferry replicate`. To carry
/// any other stream between two hosts, use `zferry send` and `zferry receive`.
#[derive(Debug, Parser)]
#[command(name = "zferry", version, max_term_width = 100)]
#[command(after_help = exit_codes())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Say more: once for what happens, twice for how, three times for every message
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = LAST)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = LAST)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replicate(Box<replicate::Arguments>),
    Serve(serve::Arguments),
    Schedule(schedule::Arguments),
    Config(config::Arguments),
    Send(send::Arguments),
    Receive(receive::Arguments),
    Prune(prune::Arguments),
    Keys(keys::Arguments),
    Status(status::Arguments),
    Monitor(monitor::Arguments),
    Doctor(doctor::Arguments),
    Tune(tune::Arguments),
    Inspect(inspect::Arguments),
    Completions(completions::Arguments),
    #[command(hide = true)]
    Man(man::Arguments),
    #[command(hide = true)]
    Attend(attend::Arguments),
    #[command(hide = true)]
    Deliver(deliver::Arguments),
}

/// Runs the command line and returns the exit code.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed stderr is no reason for another exit code.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.code();
        }
    };
    log_to_stderr(&arguments);
    if let Err(error) = sys::descriptors::raise_limit() {
        tracing::debug!(%error, "the limit on descriptors stays as it is");
    }
    let quiet = arguments.quiet;
    let loudness = Loudness { quiet, verbose: arguments.verbose };
    let done = match arguments.command {
        Command::Replicate(arguments) => replicate::run(&arguments, loudness),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Schedule(arguments) => schedule::run(arguments, loudness),
        Command::Config(arguments) => config::run(&arguments),
        Command::Send(arguments) => send::run(arguments, quiet),
        Command::Receive(arguments) => receive::run(arguments),
        Command::Prune(arguments) => match prune::run(&arguments, quiet) {
            // Of a tree a part may have been pruned.
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        // Its verdict has the exit codes of those who ask.
        Command::Monitor(arguments) => return monitor::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Attend(arguments) => attend::run(arguments),
        // It tells its failure to the host that has started it.
        Command::Deliver(arguments) => return deliver::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, &Arguments::command()),
        Command::Man(arguments) => man::run(&arguments, Arguments::command()),
        Command::Tune(arguments) => tune::run(&arguments, quiet),
        Command::Inspect(arguments) => match inspect::run(&arguments) {
            // Its verdict is of a file, and has an exit code of its own.
            Ok(verdict) => return verdict.exit_code(),
            Err(failure) => Err(failure),
        },
    };
    match done {
        Ok(()) => Exit::Done.code(),
        Err(failure) => {
            show::failure(&failure);
            failure.exit_code()
        }
    }
}

/// How much is said, here and by what ssh starts elsewhere.
#[derive(Clone, Copy, Debug)]
struct Loudness {
    quiet: bool,
    verbose: u8,
}

impl Loudness {
    /// As a word for another host.
    fn for_far(self) -> Option<String> {
        match self {
            Loudness { quiet: true, .. } => Some("-q".to_owned()),
            Loudness { verbose: 0, .. } => None,
            Loudness { verbose, .. } => Some(format!("-{}", "v".repeat(verbose.into()))),
        }
    }
}

fn exit_codes() -> String {
    let codes = Exit::ALL.map(|exit| format!("{} {}", exit.code(), exit.name()));
    format!("Exit codes: {}.", codes.join(", "))
}

fn log_to_stderr(arguments: &Arguments) {
    let level = match (arguments.quiet, arguments.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("ZFERRY_LOG")
        .from_env_lossy();
    // Not a matter of how much somebody wants to read.
    let audit = format!("{}=info", crate::server::audit::TARGET).parse();
    let filter = audit.into_iter().fold(filter, EnvFilter::add_directive);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours would be noise in a journal or a file.
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Whoever read it may be gone; to complain about that would be a panic.
        .log_internal_errors(false)
        .without_time();
    // Only a second call in one process could fail.
    let _ = subscriber.try_init();
}

fn usage(here: Side, what: impl Into<String>) -> Failure {
    Failure::new(here, Class::Usage, what)
}

fn machine(here: Side, what: &str, error: &std::io::Error) -> Failure {
    Failure::new(here, Class::Machine, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
