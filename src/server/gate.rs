//! Stands before `zfs receive`, which is not started before a stream has begun as it was announced.
//!
//! `zfs receive` obeys the stream: it takes the snapshot's name, the dataset's kind, and in a
//! package whole trees and their properties from it. What a client may send was decided by what it
//! announced, so the stream must be that. What must never happen here: a process for a stream of
//! which only the announcement is known.

use std::fmt;

use super::beside::{Beside, Origin};
use crate::dataset::DatasetName;
use crate::engine::receiver::{Feed, Guard, Sink};
use crate::error::{Class, Failure, Side};
use crate::process::Process;
use crate::protocol::message::DatasetStream;
use crate::stream::{Admitted, Announced, Begin, Refusal, judge};
use crate::zfs::Zfs;
use crate::zfs::receive::Receive;

/// The `zfs receive` that one stream is for, not started yet.
#[derive(Debug)]
pub(super) struct Gate {
    zfs: Zfs,
    dataset: DatasetName,
    announced: Announced,
    beside: Beside,
}

/// Told of the process as soon as it is started.
type Started = Box<dyn FnOnce(Process) + Send>;

/// The gate of a stream that comes.
struct Gatekeeper {
    gate: Gate,
    /// Whose stream it is.
    peer: String,
    started: Option<Started>,
}

impl Gate {
    /// Before the `zfs receive` that puts `stream` into `dataset`.
    pub fn new(zfs: Zfs, dataset: DatasetName, stream: &DatasetStream, beside: Beside) -> Gate {
        let announced = Announced {
            kind: stream.dataset,
            snapshot: stream.snapshot.clone(),
            to: stream.to,
            from: stream.from,
            raw: stream.raw,
            resumed: stream.resumed,
            clone: stream.origin.is_some(),
        };
        Gate { zfs, dataset, announced, beside }
    }

    /// Watches over the stream that comes from `peer`; `started` gets the process.
    pub fn watched(self, peer: String, started: Started) -> Box<dyn Guard> {
        Box::new(Gatekeeper { gate: self, peer, started: Some(started) })
    }
}

impl Gatekeeper {
    /// What to start; `None` as long as record and payload are not whole. They go to ZFS together.
    fn look(&self, beginning: &[u8]) -> Result<Option<Admitted>, Refusal> {
        let Some(begin) = Begin::read(beginning)? else { return Ok(None) };
        let admitted = judge(&begin, &self.gate.announced)?;
        Ok((beginning.len() >= begin.length()).then_some(admitted))
    }

    fn start(&mut self, admitted: Admitted) -> Result<Sink, Failure> {
        let Gate { zfs, dataset, beside, .. } = &self.gate;
        let receive = Receive {
            dataset: dataset.clone(),
            kind: admitted.kind,
            makes_dataset: admitted.makes_dataset,
            origin: beside.origin.as_ref().map(Origin::name),
            properties: beside.properties.clone(),
        };
        let (process, fd) = zfs.receive(&receive).map_err(|error| error.on(Side::Target))?;
        let Some(started) = self.started.take() else {
            let what = format!("zfs receive into {dataset} was to be started twice");
            return Err(Failure::new(Side::Target, Class::Internal, what));
        };
        started(process);
        // ZFS copies what it reads from the pipe (kernel_read), so its pages may be lent.
        Ok(Sink { fd, feed: Feed::Splice })
    }

    fn turn_away(&self, refusal: &Refusal) -> Failure {
        let (peer, dataset, announced) = (&self.peer, &self.gate.dataset, &self.gate.announced);
        let reason = refusal.to_string().escape_debug().to_string();
        tracing::warn!(
            peer, %dataset, announced.snapshot = %announced.snapshot, announced.to = %announced.to,
            reason, "turned a stream away before zfs receive was started"
        );
        let what = format!(
            "the stream for {dataset} was turned away before `zfs receive` was started: {refusal}"
        );
        Failure::new(Side::Source, refusal.class(), what).with_remedy(refusal.remedy())
    }
}

impl Guard for Gatekeeper {
    fn admit(&mut self, beginning: &[u8]) -> Result<Option<Sink>, Failure> {
        match self.look(beginning) {
            Ok(Some(admitted)) => self.start(admitted).map(Some),
            Ok(None) => Ok(None),
            Err(refusal) => Err(self.turn_away(&refusal)),
        }
    }

    fn too_short(&self, beginning: &[u8]) -> Failure {
        self.turn_away(&Refusal::CutShort(beginning.len()))
    }
}

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gatekeeper { gate, peer, started: _ } = self;
        f.debug_struct("Gatekeeper").field("gate", gate).field("peer", peer).finish_non_exhaustive()
    }
}
