//! The records that a client keeps of its streams.
//!
//! The epoch of a stream is durable before the server is asked to take it, and so before its
//! `zfs send` is started. No epoch of a job is used twice for as long as its records are there.

use std::sync::Arc;

use super::{Cargo, Carrying, Session};
use crate::breakpoint::identity::SessionId;
use crate::breakpoint::record::{self, Job, Role};
use crate::error::Failure;
use crate::listing::TargetState;
use crate::protocol::message::InterruptedAt;
use crate::spool::keeping::{Look, Over};
use crate::spool::names::Names;
use crate::spool::transfers::{Past, Transfers};
use crate::units::TransferId;

/// What a session knows of the records of its transfers.
pub(super) struct Bookkeeping {
    folder: Option<Transfers>,
    session: SessionId,
    /// The transfer that was asked for last.
    transfer: TransferId,
    epoch: u32,
}

impl Bookkeeping {
    /// Of a session in which nothing was asked for yet.
    pub fn new(folder: Option<Transfers>) -> Bookkeeping {
        let mut session = [0; 16];
        // Without chance a session has no name, and everything else is as it is.
        let _ = getrandom::fill(&mut session);
        Bookkeeping { folder, session: SessionId(session), transfer: TransferId(0), epoch: 0 }
    }
}

impl Session {
    /// Finds out where the same stream was last interrupted, and begins the records of a new one.
    /// Returns its epoch.
    pub(super) async fn keep_records(
        &mut self,
        cargo: &Cargo<'_>,
        carrying: &mut Carrying,
    ) -> (u32, Option<InterruptedAt>) {
        let books = &mut self.records;
        books.transfer.0 += 1;
        books.epoch += 1;
        carrying.epoch = books.epoch;
        let (transfer, least, session) = (books.transfer, books.epoch, books.session);
        let kept = books.folder.clone().zip(record::Cargo::of(&cargo.stream));
        let Some((folder, carried)) = kept else { return (least, None) };
        let names = Names::new(Role::Client, cargo.job.clone(), cargo.what.clone());
        let progress = Arc::clone(&carrying.progress);
        let look: Look = Box::new(move || progress.reached(transfer));
        let prepare = move || {
            let past = folder.past(Role::Client, &names.job, carried);
            let epoch = least.max(past.epoch.saturating_add(1));
            let job = Job { role: Role::Client, session, transfer, epoch, cargo: carried };
            (epoch, past, folder.begin(job, names, look))
        };
        let begun = self.conversation.meanwhile(tokio::task::spawn_blocking(prepare)).await;
        // A panic there is told by itself, and costs the records alone.
        let Ok((epoch, past, records)) = begun else { return (least, None) };
        self.records.epoch = epoch;
        (carrying.epoch, carrying.records) = (epoch, records);
        (epoch, tell(&cargo.what, past))
    }

    /// Removes what earlier runs of a job have left of snapshots that the target is seen to hold.
    pub(in crate::client) async fn forget_arrived(&mut self, job: String, target: &TargetState) {
        let Some(folder) = self.records.folder.clone() else { return };
        let target = target.clone();
        let forget = move || folder.forget_arrived(Role::Client, &job, &target);
        let _panicked = self.conversation.meanwhile(tokio::task::spawn_blocking(forget)).await;
    }

    /// Has the records say what became of the stream, or removes those that nobody needs.
    pub(super) async fn close_records(
        &mut self,
        carrying: &mut Carrying,
        failure: Option<&Failure>,
    ) {
        let Some(records) = carrying.records.take() else { return };
        let over = failure.map_or(Over::Applied, |failure| Over::Failed(failure.class));
        let closing = tokio::task::spawn_blocking(move || records.over(over));
        let _panicked = self.conversation.meanwhile(closing).await;
    }
}

fn tell(what: &str, past: Past) -> Option<InterruptedAt> {
    let at = past.interrupted_at?;
    let bytes = at.offset.bytes_before();
    tracing::info!("{what}: the last copy was interrupted at {bytes} of its stream");
    Some(at)
}
