//! What the receiver has taken of the stream, in order, with the CRC32 of all of it.
//!
//! For whoever keeps records: how far the stream is safe in the receiver's hands. A part of the
//! stage that deals frames, which hears the credit.

use crate::breakpoint::keeper::Reached;
use crate::breakpoint::record::Mark;
use crate::engine::block::{Frame, RunningCrc};
use crate::engine::fault::advance;
use crate::engine::progress::Progress;
use crate::protocol::frame::Header;
use crate::units::{StreamOffset, TransferId};

/// How far the current transfer was taken.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    transfer: TransferId,
    to: StreamOffset,
    crc: RunningCrc,
}

impl Acknowledged {
    /// Adds frames that were taken just now: all up to a number, told in any order.
    pub fn advance(&mut self, taken: &[Frame], progress: &Progress) {
        let mut headers: Vec<&Header> = taken.iter().map(|frame| &frame.header).collect();
        headers.sort_unstable_by_key(|header| header.sequence);
        for header in &headers {
            self.append(header);
        }
        if let Some(last) = headers.last() {
            let mark = Mark { to: self.to, crc32: self.crc.value() };
            let next_frame = last.sequence.next();
            progress.set_reached(self.transfer, Reached { mark, next_frame });
        }
    }

    fn append(&mut self, header: &Header) {
        if header.transfer != self.transfer {
            let (to, crc) = (StreamOffset(0), RunningCrc::default());
            *self = Acknowledged { transfer: header.transfer, to, crc };
        }
        assert_eq!(header.offset, self.to, "a frame was taken before the one in front of it");
        let length = header.plain_bytes as usize;
        self.crc.append(header.crc32, length);
        self.to = advance(self.to, length);
    }
}
