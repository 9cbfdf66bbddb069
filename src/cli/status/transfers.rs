//! `zferry status --state DIR`: the transfers that have records there, and how far they came.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::breakpoint::record::{Progress, Record, Role, State};
use crate::cli::machine;
use crate::error::{Failure, Side};
use crate::spool::transfers::{Entry, list};
use crate::units::Bytes;

/// All that there are; changes nothing.
pub(super) fn all(state: &Path) -> Result<Vec<Transfer>, Failure> {
    let entries = list(state).map_err(|error| {
        machine(Side::Source, &format!("read the state folder {}", state.display()), &error)
            .with_remedy("name the folder that the copy or the server was given with --state")
    })?;
    Ok(entries.iter().map(Transfer::of).collect())
}

/// What is told of one transfer.
#[derive(Serialize)]
pub(super) struct Transfer {
    running: bool,
    role: Option<Role>,
    job: Option<String>,
    carries: Option<String>,
    state: Option<State>,
    /// What is surely at the far end, or was given to the pipe there: bytes of the stream.
    bytes: Option<Bytes>,
    /// The stream's length, once it is known.
    total: Option<Bytes>,
    epoch: Option<u32>,
    written_ms: Option<u64>,
    file: String,
}

impl Transfer {
    fn of(entry: &Entry) -> Transfer {
        let names = entry.names.as_ref();
        let newest = entry.newest.as_ref();
        let progress = newest.map(|record| &record.progress);
        Transfer {
            running: entry.running,
            role: names.map(|names| names.role),
            job: names.map(|names| names.job.clone()),
            carries: names.map(|names| names.transfer.clone()),
            state: progress.map(|progress| progress.state),
            bytes: newest.map(reached),
            total: progress.and_then(|progress| Some(progress.end?.to.bytes_before())),
            epoch: newest.map(|record| record.job.epoch),
            written_ms: newest.map(|record| record.wall_clock_ms),
            file: entry.path.display().to_string(),
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        let mut line = match (self.running, self.role) {
            (true, Some(Role::Client)) => "sending: ",
            (true, _) => "receiving: ",
            (false, _) => "interrupted: ",
        }
        .to_owned();
        line += self.carries.as_deref().unwrap_or("a transfer whose names are lost");
        if self.role == Some(Role::Client)
            && let Some(job) = &self.job
        {
            let _infallible = write!(line, ", {job}");
        }
        let _infallible = match (self.bytes, self.total) {
            (Some(bytes), Some(total)) => write!(line, ": {bytes} of {total}"),
            (Some(bytes), None) => write!(line, ": {bytes}"),
            (None, _) => write!(line, ": nothing that counts is recorded"),
        };
        if !self.running {
            let _infallible = write!(line, "; to see its records: zferry inspect {}", self.file);
        }
        line
    }
}

/// How far it came, as the side says that keeps the records.
fn reached(record: &Record) -> Bytes {
    let Progress { fed, acknowledged, .. } = record.progress;
    let to = match record.job.role {
        Role::Client => acknowledged.to,
        Role::Server => fed,
    };
    to.bytes_before()
}
