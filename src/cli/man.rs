//! `zferry man`: the manual, a page for each command, made from the flags themselves.
//!
//! For those who make packages, so it is hidden from help. No page of it is in the source: it would
//! be of another version sooner or later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use jiff::Zoned;
use jiff::civil::Date;

use super::machine;
use crate::error::{Failure, Side};

/// Write the manual into a folder: zferry.1, and a page for each command
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Made if it is not there
    folder: PathBuf,
    /// The date that the pages bear, as YYYY-MM-DD [default: today]
    #[arg(long)]
    date: Option<Date>,
}

pub(super) fn run(arguments: &Arguments, command: Command) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let date = arguments.date.unwrap_or_else(|| Zoned::now().date());
    // Or each command with commands of its own would have a page about their help.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    fs::create_dir_all(folder)
        .and_then(|()| write_pages(&command, None, date, folder))
        .map_err(|error| machine(Side::Source, &format!("write into {}", folder.display()), &error))
}

/// The page of a command, and those of its commands.
fn write_pages(
    command: &Command,
    parent: Option<&str>,
    date: Date,
    folder: &Path,
) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    fs::write(folder.join(format!("{name}.1")), page(command, parent, date)?)?;
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| write_pages(below, Some(name), date, folder))
}

fn page(command: &Command, parent: Option<&str>, date: Date) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .date(date.to_string())
        .source(concat!("zferry ", env!("CARGO_PKG_VERSION")))
        .manual("zferry manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut ending = Roff::new();
    if let Some(text) = command.get_after_help() {
        // As it stands in the help: its columns mean something.
        ending.control("SH", ["NOTES"]).control("nf", []);
        for line in text.to_string().lines() {
            ending.text([roman(line)]);
        }
        ending.control("fi", []);
    }
    if let Some(parent) = parent {
        ending.control("SH", ["SEE ALSO"]).text([roman(format!("{parent}(1)"))]);
    }
    ending.to_writer(&mut page)?;
    Ok(page)
}
