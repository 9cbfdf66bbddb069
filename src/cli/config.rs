//! `zferry config check`, and where the configuration of a scheduler lies.

mod parse;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

pub(super) use self::parse::{Config, Job};
use super::{show, usage};
use crate::error::{Failure, Side};
use crate::trust::list::{self, ListError, Mistake};

/// Check the configuration of `zferry schedule`
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell every mistake, each with its line and column; nothing is run
    Check(ConfigFile),
}

/// Where it lies unless another is named.
pub(super) const CONFIG: &str = "/etc/zferry/zferry.toml";

/// The configuration of a scheduler.
#[derive(Args, Clone, Debug)]
pub(super) struct ConfigFile {
    /// The jobs
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Check(file) = &arguments.command;
    let jobs = match file.look()?.jobs.len() {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    };
    let line = format!("{}: {jobs}, no mistake", file.config.display());
    show::say(&mut std::io::stdout(), &line);
    Ok(())
}

impl ConfigFile {
    /// The one at `path`.
    pub fn at(path: PathBuf) -> ConfigFile {
        ConfigFile { config: path }
    }

    /// Reads it. It names commands and targets: whoever may write it has our rights.
    pub fn load(&self) -> Result<Config, Failure> {
        self.read_by(list::read)
    }

    /// Reads it for whoever only wants to know what it says.
    pub fn look(&self) -> Result<Config, Failure> {
        self.read_by(list::read_for_its_owner)
    }

    fn read_by(&self, read: fn(&Path) -> Result<String, ListError>) -> Result<Config, Failure> {
        let shown = self.config.display();
        if !self.config.exists() {
            return Err(usage(Side::Source, format!("there is no {shown}"))
                .with_remedy("write one (see docs/zferry.toml), or name another: --config FILE"));
        }
        let text = read(&self.config).map_err(|error| error.on(Side::Source))?;
        Config::parse(&text).map_err(|mistakes| self.told(&mistakes))
    }

    /// All of them, as compilers do.
    fn told(&self, mistakes: &[Mistake]) -> Failure {
        let shown = self.config.display();
        let count = match mistakes.len() {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        let lines: Vec<_> =
            mistakes.iter().map(|mistake| format!("\n  {shown}:{mistake}")).collect();
        usage(Side::Source, format!("{shown} has {count}:{}", lines.concat()))
    }
}
