//! A stream on its way: how far it was sent, and what the server may say of it.

use crate::dataset::Guid;
use crate::protocol::message::{Applied, Stream, Watermarks};
use crate::protocol::misbehaved::PeerMisbehaved;
use crate::units::StreamOffset;

#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) stream: Stream,
    pub(super) sent: StreamOffset,
    pub(super) reached: Watermarks,
}

impl Transfer {
    pub(super) fn of(stream: Stream) -> Transfer {
        Transfer { stream, sent: StreamOffset(0), reached: Watermarks::default() }
    }

    /// Connections finish their blocks in any order, so an offset may come late.
    pub(super) fn sent_to(self, offset: StreamOffset) -> Transfer {
        Transfer { sent: self.sent.max(offset), ..self }
    }

    pub(super) fn acknowledged(self, reached: Watermarks) -> Result<Transfer, PeerMisbehaved> {
        if !reached.follows(self.reached) {
            return Err(PeerMisbehaved::AckFellBack { from: self.reached, to: reached });
        }
        if reached.received > self.sent {
            let (sent, got) = (self.sent, reached.received);
            return Err(PeerMisbehaved::AckBeyondSent { sent, got });
        }
        Ok(Transfer { reached, ..self })
    }

    /// Whether the success that was reported is that of this stream, all of it.
    pub(super) fn check_applied(
        &self,
        applied: Applied,
        total: StreamOffset,
    ) -> Result<(), PeerMisbehaved> {
        let whole = self.sent == total && applied.bytes == total.bytes_before();
        if whole && self.stream.is_proved_by(applied.guid) {
            return Ok(());
        }
        Err(PeerMisbehaved::AppliedOther {
            sent: self.sent,
            total,
            expected_guid: self.guid(),
            got_bytes: applied.bytes,
            got_guid: applied.guid,
        })
    }

    fn guid(&self) -> Option<Guid> {
        match &self.stream {
            Stream::Dataset(stream) => Some(stream.to),
            Stream::Pipe => None,
        }
    }
}
