//! `zferry keys`: this host's key, and who is trusted by which.
//!
//! Shows ([`show`]), adds ([`trust`]) and takes away ([`revoke`]). What must never happen here: a
//! list written that would not be read, or one that trusts more than was typed.

mod revoke;
mod show;
mod trust;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::config_folder::ConfigFolder;
use super::machine;
use crate::error::{Class, Failure, Side};
use crate::trust::Folder;
use crate::trust::clients::Clients;
use crate::trust::edit::EditError;
use crate::trust::list::{self, ListError, Mistake};
use crate::trust::servers::Servers;

/// Show this host's key; say who may send to it, and which servers it knows
///
/// Every host has one key, made on its first use, and is known to others by its fingerprint. A
/// server has a list of the clients that may send to it, each below a dataset of its own; a client
/// has a list of the servers that it sends to. Whoever is on no list is turned away.
#[derive(Args, Debug)]
#[command(after_help = "To let a client send to a server:
  on the client:  zferry keys show
  on the server:  zferry keys trust client NAME SHA256:... --root POOL/DATASET
  on the server:  zferry keys show
  on the client:  zferry keys trust server HOST:PORT SHA256:...")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    config: ConfigFolder,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Arguments),
    #[command(subcommand)]
    Trust(trust::Whom),
    #[command(subcommand)]
    Revoke(revoke::Whom),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Show(show) => show::run(&arguments.config.folder(Side::Source)?, show),
        Command::Trust(whom) => trust::run(&arguments.config, whom),
        Command::Revoke(whom) => revoke::run(&arguments.config, whom),
    }
}

/// One of the two lists, to be changed.
struct List {
    side: Side,
    path: PathBuf,
    parse: fn(&str) -> Result<(), Mistake>,
}

impl List {
    fn of_clients(folder: &Folder) -> List {
        let parse = |text: &str| Clients::parse(text).map(drop);
        List { side: Side::Target, path: folder.clients_path(), parse }
    }

    fn of_servers(folder: &Folder) -> List {
        let parse = |text: &str| Servers::parse(text).map(drop);
        List { side: Side::Source, path: folder.servers_path(), parse }
    }

    /// Changes the list, if `change` says how; whoever else does so waits. `None` leaves it alone.
    fn change(
        &self,
        folder: &Folder,
        change: impl FnOnce(&str) -> Result<Option<String>, EditError>,
    ) -> Result<bool, Failure> {
        let _lock = lock(folder, self.side)?;
        let text = list::read(&self.path).map_err(|error| error.on(self.side))?;
        self.check(&text)?;
        let changed = change(&text).map_err(|error| self.refuse(&error))?;
        let Some(changed) = changed else { return Ok(false) };
        (self.parse)(&changed).map_err(|mistake| {
            // The line is one of a text that nobody has: it is not told.
            Failure::new(self.side, Class::Usage, mistake.what)
                .with_remedy(format!("change the flags, or edit {}", self.path.display()))
        })?;
        list::replace(&self.path, &changed).map_err(|error| error.on(self.side))?;
        Ok(true)
    }

    fn check(&self, text: &str) -> Result<(), Failure> {
        (self.parse)(text)
            .map_err(|mistake| ListError::Wrong { path: self.path.clone(), mistake }.on(self.side))
    }

    fn refuse(&self, error: &EditError) -> Failure {
        let failure = Failure::new(self.side, Class::Refused, error.to_string());
        let kind = if self.side == Side::Target { "client" } else { "server" };
        match error {
            EditError::OtherKey { name, .. } => failure.with_remedy(format!(
                "if it has a new key, and you know why: zferry keys revoke {kind} {name}, and \
                 then trust the new one"
            )),
            EditError::OtherName { name, .. } => failure.with_remedy(format!(
                "use that name, or: zferry keys revoke {kind} {name}, and then trust it anew"
            )),
            EditError::OtherRoot { name, .. } => failure.with_remedy(format!(
                "see which of the two is meant; to grant this one: zferry keys revoke client \
                 {name}, and then trust it anew"
            )),
            EditError::OtherForm(_) | EditError::NoToml(_) => {
                failure.with_remedy(format!("edit {} by hand", self.path.display()))
            }
        }
    }
}

/// Held as long as the file lives.
fn lock(folder: &Folder, side: Side) -> Result<File, Failure> {
    let path = folder.path();
    let failed = |error| machine(side, &format!("use the folder {}", path.display()), &error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let file = File::open(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// What has to happen before a change of the list of clients counts.
const RELOAD: &str = "a server that runs learns of it by `systemctl reload zferry-serve`, or by \
                      kill -HUP and its process id";
