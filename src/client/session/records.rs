//! The records that a client keeps of its streams.
//!
//! The epoch of a stream is durable before the server is asked to take it, and so before its
//! `zfs send` is started. No epoch of a job is used twice for as long as its records are there.

use std::sync::Arc;

use super::{Cargo, Carrying, Session};
use crate::breakpoint::identity::SessionId;
use crate::breakpoint::record::{self, Job, Role};
use crate::engine::settings::{Spool, When};
use crate::error::Failure;
use crate::listing::TargetState;
use crate::protocol::message::{InterruptedAt, Open, Request};
use crate::spool::handover::Handover;
use crate::spool::keeping::{Look, Over};
use crate::spool::names::Names;
use crate::spool::transfers::Transfers;
use crate::units::{Sequence, TransferId};

/// What a session knows of the records of its transfers.
pub(super) struct Bookkeeping {
    folder: Option<Transfers>,
    /// Where streams go that shall outlive this process.
    spool: Option<Spool>,
    session: SessionId,
    /// The transfer that was asked for last.
    transfer: TransferId,
    epoch: u32,
}

impl Bookkeeping {
    /// Of a session in which nothing was asked for yet.
    pub fn new(folder: Option<Transfers>, spool: Option<&Spool>) -> Bookkeeping {
        let spool = spool.filter(|spool| spool.when == When::Always).cloned();
        let mut session = [0; 16];
        // Without chance a session has no name, and everything else is as it is.
        let _ = getrandom::fill(&mut session);
        let (session, transfer) = (SessionId(session), TransferId(0));
        Bookkeeping { folder, spool, session, transfer, epoch: 0 }
    }
}

impl Bookkeeping {
    /// Of a session that a process before this one began.
    pub fn resumed(
        folder: Option<Transfers>,
        session: SessionId,
        transfer: TransferId,
        epoch: u32,
    ) -> Bookkeeping {
        Bookkeeping { folder, spool: None, session, transfer, epoch }
    }
}

impl Session {
    /// Finds out where the same stream was last interrupted, and begins the records of a new one,
    /// with its breakpoint files where it shall outlive this process. Returns the request with all
    /// of that.
    pub(super) async fn keep_records(
        &mut self,
        request: Request,
        cargo: &Cargo<'_>,
        carrying: &mut Carrying,
    ) -> Request {
        let books = &mut self.records;
        books.transfer.0 += 1;
        books.epoch += 1;
        carrying.epoch = books.epoch;
        let (transfer, least, session) = (books.transfer, books.epoch, books.session);
        let request = Request { epoch: least, ..request };
        let kept = books.folder.clone().zip(record::Cargo::of(&cargo.stream));
        let Some((folder, carried)) = kept else { return request };
        let names = Names::new(Role::Client, cargo.job.clone(), cargo.what.clone());
        let progress = Arc::clone(&carrying.progress);
        let look: Look = Box::new(move || progress.reached(transfer));
        let keep = books.spool.clone().map(|spool| (spool, self.engine.follow()));
        let (server, (agreed, secret)) =
            (self.conversation.server().to_owned(), self.terms.clone());
        // Nobody asks for it where all of the stream has to be there.
        let (asked, next_frame) = (request.clone(), Sequence(0));
        let prepare = move || {
            let past = folder.past(Role::Client, &names.job, carried);
            let epoch = least.max(past.epoch.saturating_add(1));
            let request = Request { epoch, interrupted_at: past.interrupted_at, ..asked };
            let job = Job { role: Role::Client, session, transfer, epoch, cargo: carried };
            let Some((spool, follow)) = keep else {
                return (request, folder.begin(job, names, look), None);
            };
            let open = Open { transfer, request: request.clone() };
            let handover = Handover::new((server, None), secret, &agreed, open, next_frame);
            let begun = folder.begin_kept(job, names, handover, look, &spool, follow);
            let (records, stream) = begun.unzip();
            (request, records, stream)
        };
        let begun = self.conversation.meanwhile(tokio::task::spawn_blocking(prepare)).await;
        // A panic there is told by itself, and costs the records alone.
        let Ok((request, records, stream)) = begun else { return request };
        self.records.epoch = request.epoch;
        carrying.epoch = request.epoch;
        (carrying.records, carrying.stream) = (records, stream);
        tell(&cargo.what, request.interrupted_at);
        request
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

fn tell(what: &str, interrupted_at: Option<InterruptedAt>) {
    if let Some(at) = interrupted_at {
        let bytes = at.offset.bytes_before();
        tracing::info!("{what}: the last copy was interrupted at {bytes} of its stream");
    }
}
