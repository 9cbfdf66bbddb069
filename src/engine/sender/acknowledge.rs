//! What the receiver has taken of the stream, in order, with the CRC32 of all of it.
//!
//! For whoever keeps records: how far the stream is safe in the receiver's hands. A part of the
//! stage that deals frames, which hears the credit.

use std::collections::BTreeMap;

use crate::breakpoint::keeper::Reached;
use crate::breakpoint::prefix::Prefix;
use crate::breakpoint::record::Mark;
use crate::engine::block::Frame;
use crate::engine::progress::Progress;
use crate::protocol::frame::Header;
use crate::units::{Sequence, TransferId};

/// How far the current transfer was taken.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    transfer: TransferId,
    prefix: Prefix,
    next: Sequence,
    /// Taken as well, but behind one that is still being read back from a file: it was on its way
    /// when the process died that sent it.
    ahead: BTreeMap<Sequence, Header>,
}

impl Acknowledged {
    /// Of a transfer of which all before `next` was taken: so much of the stream.
    pub fn from(transfer: TransferId, taken: Mark, next: Sequence) -> Acknowledged {
        Acknowledged { transfer, prefix: taken.into(), next, ahead: BTreeMap::new() }
    }

    /// Adds frames that were taken just now, told in any order.
    pub fn advance(&mut self, taken: &[Frame], progress: &Progress) {
        let headers = taken.iter().map(|frame| (frame.header.sequence, frame.header));
        if let Some(mark) = self.take(headers) {
            progress.set_reached(self.transfer, Reached { mark, next_frame: self.next });
        }
    }

    /// How far it was taken, if that is news.
    fn take(&mut self, headers: impl Iterator<Item = (Sequence, Header)>) -> Option<Mark> {
        self.ahead.extend(headers);
        let before = self.next;
        while let Some(header) = self.ahead.remove(&self.next) {
            self.append(&header);
            self.next = self.next.next();
        }
        (self.next > before).then(|| self.prefix.mark())
    }

    fn append(&mut self, header: &Header) {
        if header.transfer != self.transfer {
            (self.transfer, self.prefix) = (header.transfer, Prefix::default());
        }
        let to = self.prefix.to();
        assert_eq!(header.offset, to, "a frame does not begin where the one in front of it ends");
        self.prefix.append(header.crc32, header.length());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::Codec;
    use crate::units::StreamOffset;

    const BLOCK: u32 = 1000;

    /// The frame of a number: the first has 7, and ten make a stream.
    fn header(sequence: u64) -> (Sequence, Header) {
        let (transfer, block) = ((sequence - 7) / 10, (sequence - 7) % 10);
        let header = Header {
            transfer: TransferId(1 + u32::try_from(transfer).unwrap()),
            epoch: 1,
            sequence: Sequence(sequence),
            offset: StreamOffset(block * u64::from(BLOCK)),
            codec: Codec::Raw,
            plain_bytes: BLOCK,
            payload_bytes: BLOCK,
            crc32: u32::try_from(sequence).unwrap(),
        };
        (Sequence(sequence), header)
    }

    fn begun() -> Acknowledged {
        Acknowledged::from(TransferId(1), Mark::default(), Sequence(7))
    }

    #[test]
    fn what_was_taken_ahead_counts_once_all_in_front_of_it_was() {
        let mut acknowledged = begun();
        let ahead = acknowledged.take([header(9), header(8)].into_iter());
        assert_eq!(ahead, None, "7 is still in its file");
        let mark = acknowledged.take([header(7)].into_iter()).unwrap();
        let in_order = begun().take((7..10).map(header)).unwrap();
        assert_eq!((mark, mark.to.0), (in_order, 3 * u64::from(BLOCK)));
    }

    #[test]
    fn the_next_stream_begins_at_its_own_front() {
        let mut acknowledged = begun();
        let mark = acknowledged.take((7..19).map(header)).unwrap();
        assert_eq!((mark.to.0, acknowledged.transfer), (2 * u64::from(BLOCK), TransferId(2)));
    }
}
