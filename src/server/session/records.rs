//! The records that a server keeps of what it receives.
//!
//! The epoch of a transfer is durable before the client hears that it may send.

use super::Session;
use crate::breakpoint::record::{Cargo, Job, Role};
use crate::error::Class;
use crate::protocol::message::{Open, Stream};
use crate::spool::keeping::{Keeping, Over};
use crate::spool::names::Names;

impl Session {
    /// What begins the records of a transfer, on a thread that may wait for the disk.
    pub(super) fn begin_records(
        &self,
        open: &Open,
    ) -> impl FnOnce() -> Option<Keeping> + Send + use<> {
        let begun = self.job_of(open).zip(self.shared.options.records.clone());
        let progress = self.engine.as_ref().map(|engine| engine.progress().clone());
        let transfer = open.transfer;
        move || {
            let (((job, names), folder), progress) = begun.zip(progress)?;
            folder.begin(job, names, Box::new(move || progress.reached(transfer)))
        }
    }

    /// `None` for what no record could be of.
    fn job_of(&self, open: &Open) -> Option<(Job, Names)> {
        let Open { transfer, request } = open;
        let (role, cargo) = (Role::Server, Cargo::of(&request.stream)?);
        let (transfer, epoch) = (*transfer, request.epoch);
        let job = Job { role, session: self.id, transfer, epoch, cargo };
        let dataset = self.shared.destination.dataset_of(&request.stream).ok()?;
        let dataset = dataset.map_or("a pipe".to_owned(), |dataset| dataset.to_string());
        let transfer = match &request.stream {
            Stream::Dataset(stream) => format!("{dataset}@{} from {}", stream.snapshot, self.peer),
            Stream::Pipe => format!("a stream from {}", self.peer),
        };
        Some((job, Names::new(role, dataset, transfer)))
    }

    /// Has the records of a transfer that failed say so.
    pub(super) async fn close_records(&self, records: Option<Keeping>) {
        let Some(records) = records else { return };
        let class = self.failure.as_ref().map_or(Class::Interrupted, |failure| failure.class);
        let _panicked =
            tokio::task::spawn_blocking(move || records.over(Over::Failed(class))).await;
    }
}
