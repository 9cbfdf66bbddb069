//! What really happened, as no process knows it: by this every step is judged.

use std::rc::Rc;

use zferry::breakpoint::identity::{RecordSequence, SessionId};
use zferry::units::{StreamOffset, TransferId};

#[derive(Debug, Default)]
pub struct Truth {
    epochs: Vec<Epoch>,
    /// The highest sequence that each end has given to a record.
    pub sequences: [Option<RecordSequence>; 2],
    /// An error has ended the use of this end's record file.
    pub retired: [bool; 2],
    /// What the server has called durable last.
    pub told: Option<(SessionId, TransferId, StreamOffset)>,
}

/// One run of `zfs send` and `zfs receive`.
#[derive(Debug)]
pub struct Epoch {
    session: SessionId,
    transfer: TransferId,
    pub stream: Rc<[u8]>,
    /// How far the client has read it.
    pub read: usize,
    /// How far the pipe of the receive has taken it.
    fed: usize,
    /// The same, of whichever receive of it had most.
    pub fed_most: usize,
}

impl Truth {
    /// Whether a stream has begun.
    pub fn has_begun(&self) -> bool {
        !self.epochs.is_empty()
    }

    pub fn begin(&mut self, session: SessionId, transfer: TransferId, stream: &Rc<[u8]>) {
        assert!(self.epoch(session, transfer).is_none(), "two runs of zfs send for one transfer");
        let stream = Rc::clone(stream);
        self.epochs.push(Epoch { session, transfer, stream, read: 0, fed: 0, fed_most: 0 });
    }

    pub fn epoch(&self, session: SessionId, transfer: TransferId) -> Option<&Epoch> {
        self.epochs.iter().find(|epoch| epoch.session == session && epoch.transfer == transfer)
    }

    fn epoch_mut(&mut self, session: SessionId, transfer: TransferId) -> &mut Epoch {
        let found = self
            .epochs
            .iter_mut()
            .find(|epoch| (epoch.session, epoch.transfer) == (session, transfer));
        found.expect("a stream that was begun")
    }

    pub fn read(&mut self, session: SessionId, transfer: TransferId, to: usize) {
        self.epoch_mut(session, transfer).read = to;
    }

    /// Bytes went into the pipe of a receive: they are those of the same epoch, each once.
    pub fn fed(&mut self, session: SessionId, transfer: TransferId, at: u64, bytes: &[u8]) {
        let epoch = self.epoch_mut(session, transfer);
        assert_eq!(at, epoch.fed as u64, "fed from another place than behind the last byte");
        let stands = epoch.stream.get(epoch.fed..epoch.fed + bytes.len());
        assert_eq!(stands, Some(bytes), "fed other bytes than those of this epoch");
        epoch.fed += bytes.len();
        epoch.fed_most = epoch.fed_most.max(epoch.fed);
    }

    /// Another receive takes the stream from byte 0, if there is any of it.
    pub fn feed_again(&mut self, session: SessionId, transfer: TransferId) {
        if self.epoch(session, transfer).is_some() {
            self.epoch_mut(session, transfer).fed = 0;
        }
    }
}
