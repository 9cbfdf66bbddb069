//! What the receiver has taken of the stream, in order, with the CRC32 of all of it.
//!
//! For whoever keeps records: how far the stream is safe in the receiver's hands. A part of the
//! stage that deals frames, which hears the credit.

use crate::breakpoint::keeper::Reached;
use crate::breakpoint::prefix::Prefix;
use crate::breakpoint::record::Mark;
use crate::engine::block::Frame;
use crate::engine::progress::Progress;
use crate::protocol::frame::Header;
use crate::units::TransferId;

/// How far the current transfer was taken.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    transfer: TransferId,
    prefix: Prefix,
}

impl Acknowledged {
    /// Of a transfer of which so much was taken before.
    pub fn from(transfer: TransferId, taken: Mark) -> Acknowledged {
        Acknowledged { transfer, prefix: taken.into() }
    }

    /// Adds frames that were taken just now: all up to a number, told in any order.
    pub fn advance(&mut self, taken: &[Frame], progress: &Progress) {
        let mut headers: Vec<&Header> = taken.iter().map(|frame| &frame.header).collect();
        headers.sort_unstable_by_key(|header| header.sequence);
        for header in &headers {
            self.append(header);
        }
        if let Some(last) = headers.last() {
            let (mark, next_frame) = (self.prefix.mark(), last.sequence.next());
            progress.set_reached(self.transfer, Reached { mark, next_frame });
        }
    }

    fn append(&mut self, header: &Header) {
        if header.transfer != self.transfer {
            *self = Acknowledged { transfer: header.transfer, prefix: Prefix::default() };
        }
        let to = self.prefix.to();
        assert_eq!(header.offset, to, "a frame was taken before the one in front of it");
        self.prefix.append(header.crc32, header.length());
    }
}
