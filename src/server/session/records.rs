//! The records that a server keeps of what it receives, and where it keeps the stream itself.
//!
//! The epoch of a transfer is durable before the client hears that it may send.

use super::{Asked, Session};
use crate::breakpoint::record::{Cargo, Job, Role};
use crate::engine::receiver::{self, Receiver as Engine};
use crate::engine::settings::Spool;
use crate::error::Class;
use crate::protocol::message::{Open, Stream};
use crate::server::kept::Kept;
use crate::spool::handover::Handover;
use crate::spool::keeping::{Keeping, Over};
use crate::spool::names::Names;

impl Session {
    /// What begins the records of a transfer, on a thread that may wait for the disk.
    pub(super) fn begin_records(
        &self,
        asked: &Asked,
    ) -> impl FnOnce() -> Option<Kept> + Send + use<> {
        let open = &asked.open;
        let begun = self.job_of(asked).zip(self.shared.options.records.clone());
        let progress = self.engine.as_ref().map(|engine| engine.progress().clone());
        let spool = self.shared.options.keeps_in().map(|spool| self.portion_of(spool));
        let keep = spool.zip(self.handover(open)).zip(self.engine.as_ref().map(Engine::follow));
        let (transfer, room) =
            (open.transfer, keep.as_ref().and_then(|((spool, _), _)| spool.account.clone()));
        move || {
            let (((job, names), folder), progress) = begun.zip(progress)?;
            let look = Box::new(move || progress.reached(transfer));
            let Some(((spool, handover), follow)) = keep else {
                return Some(Kept {
                    records: folder.begin(job, names, look)?,
                    stream: None,
                    room: None,
                });
            };
            let begun = folder.begin_kept(job, names, handover, look, &spool, follow);
            let (records, stream) = begun?;
            let stream = Some(receiver::KeptStream { stream, found: None });
            Some(Kept { records, stream, room })
        }
    }

    /// A spool, of which the client has no more than is granted to it.
    pub(super) fn portion_of(&self, spool: &Spool) -> Spool {
        let account = self.portion.as_ref().map(|portion| portion.spool.account());
        Spool { account, ..spool.clone() }
    }

    fn handover(&self, open: &Open) -> Option<Handover> {
        let (terms, engine) = (self.terms.as_ref()?, self.engine.as_ref()?);
        let (peer, open) = ((self.peer.clone(), self.key), open.clone());
        Some(Handover::new(peer, self.secret, terms, open, engine.taken()))
    }

    /// `None` for what no record could be of.
    fn job_of(&self, Asked { open, target }: &Asked) -> Option<(Job, Names)> {
        let Open { transfer, request } = open;
        let (role, cargo) = (Role::Server, Cargo::of(&request.stream)?);
        let (transfer, epoch) = (*transfer, request.epoch);
        let job = Job { role, session: self.id, transfer, epoch, cargo };
        let place = target.place();
        let transfer = match &request.stream {
            Stream::Dataset(stream) => format!("{place}@{} from {}", stream.snapshot, self.peer),
            Stream::Pipe => format!("a stream from {}", self.peer),
        };
        Some((job, Names::new(role, place.to_string(), transfer)))
    }

    /// Has the records of a transfer that failed say so.
    pub(super) async fn close_records(&self, records: Option<Keeping>) {
        let Some(records) = records else { return };
        let class = self.failure.as_ref().map_or(Class::Interrupted, |failure| failure.class);
        let _panicked =
            tokio::task::spawn_blocking(move || records.over(Over::Failed(class))).await;
    }
}
