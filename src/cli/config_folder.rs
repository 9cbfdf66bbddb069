//! `--config DIR`: where a host's key and its lists of others lie.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Failure, Side};
use crate::trust::Folder;

/// For every command that needs to know who is who.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ConfigFolder {
    /// The folder with this host's key (key.pem) and the lists of who may send to it
    /// (clients.toml) and of the servers that it knows (servers.toml) [default: /etc/zferry for
    /// root, ~/.config/zferry for others]
    #[arg(
        long = "config",
        value_name = "DIR",
        env = "ZFERRY_CONFIG",
        hide_env_values = true,
        global = true,
        display_order = super::LAST - 1
    )]
    config: Option<PathBuf>,
}

impl ConfigFolder {
    /// The folder that was named, or the usual one.
    pub fn folder(&self, here: Side) -> Result<Folder, Failure> {
        match &self.config {
            Some(path) => Ok(Folder::at(path)),
            None => Folder::usual(here),
        }
    }
}
