//! `zferry completions`: what a shell needs to complete our words, made from the flags themselves.
//!
//! No file of it is in the source: it would be of another version sooner or later.

use std::io::{self, Write};

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use super::machine;
use crate::error::{Failure, Side};

/// Print what a shell needs to complete zferry's commands and flags
///
/// Packages bring these files along. By hand:
///   bash  zferry completions bash >~/.local/share/bash-completion/completions/zferry
///   zsh   zferry completions zsh >DIR/_zferry, with DIR in $fpath
///   fish  zferry completions fish >~/.config/fish/completions/zferry.fish
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// For which shell
    shell: For,
}

/// The shells that are asked for and tried.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(arguments: &Arguments, command: &Command) -> Result<(), Failure> {
    let shell = match arguments.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    // Into memory first: its writer panics where the reader has gone.
    let mut script = Vec::new();
    generate(shell, &mut visible(command), "zferry", &mut script);
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&script)
        .and_then(|()| stdout.flush())
        .map_err(|error| machine(Side::Source, "write the completions", &error))
}

/// The command line without what help does not name: completions would.
fn visible(whole: &Command) -> Command {
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("zferry")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments())
        .subcommands(commands)
}
