//! Whether a command line, or the jobs of a scheduler, can mean what they say.
//!
//! For what shows people what to type: the documents are held to the very parser that the program
//! has. Nothing is run here, looked up or written.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use super::config::Config;
use super::{Arguments, Command};

/// Why a command line cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// It says nothing wrong, and not enough.
    #[error("{0}")]
    Unfinished(String),
    /// It says something that is not understood, or makes no sense.
    #[error("{0}")]
    Wrong(String),
}

/// Understands a command line, the program's name first.
pub fn command_line(words: impl IntoIterator<Item = OsString>) -> Result<(), Mistake> {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => return told(&error),
    };
    match arguments.command {
        Command::Replicate(copy) => {
            copy.check().map_err(|failure| Mistake::Wrong(failure.to_string()))
        }
        _ => Ok(()),
    }
}

/// Understands the configuration of a scheduler; tells how many jobs it has, or all its mistakes.
pub fn jobs(text: &str) -> Result<usize, Vec<String>> {
    let tell = |mistakes: Vec<_>| mistakes.iter().map(ToString::to_string).collect();
    Config::parse(text).map(|config| config.jobs.len()).map_err(tell)
}

fn told(error: &clap::Error) -> Result<(), Mistake> {
    use ErrorKind::{
        DisplayHelpOnMissingArgumentOrSubcommand, MissingRequiredArgument, MissingSubcommand,
    };
    let text = error.render().to_string();
    match error.kind() {
        DisplayHelpOnMissingArgumentOrSubcommand | MissingRequiredArgument | MissingSubcommand => {
            Err(Mistake::Unfinished(text))
        }
        // Help, and the version: what was asked for is all there is.
        _ if !error.use_stderr() => Ok(()),
        _ => Err(Mistake::Wrong(text)),
    }
}
