//! A block on its way: a slot, the place of its bytes in the stream, and nothing else.
//!
//! A slot is one page of headroom and then the block: the header of a frame is written right in
//! front of the payload, so that both leave in one send, and the payload stands at a page, so
//! that it can enter a pipe without a copy.

use std::ops::Range;
use std::sync::Arc;

use sys::arena::PAGE_BYTES;
use sys::loan::Loan;

use crate::engine::fault::Fault;
use crate::protocol::frame::{HEADER_BYTES, Header};
use crate::units::{Sequence, StreamOffset, TransferId};

/// Where the block begins in its slot.
pub(super) const HEADROOM: usize = PAGE_BYTES;

/// Where a block belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub transfer: TransferId,
    pub epoch: u32,
    pub sequence: Sequence,
    pub offset: StreamOffset,
}

/// Uncompressed bytes, at [`HEADROOM`] of their slot.
#[derive(Debug)]
pub(super) struct Block {
    pub place: Place,
    pub loan: Loan,
    pub length: usize,
    /// CRC32 of the bytes.
    pub crc32: u32,
}

/// Header and payload, ready for the wire: as often as it takes, so its bytes never change again.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub header: Header,
    pub loan: Arc<Loan>,
    pub range: Range<usize>,
}

impl Block {
    /// A block as it came off the wire, if its bytes are those that were sent.
    pub fn prove(header: Header, loan: Loan) -> Result<Block, Fault> {
        let Header { transfer, epoch, sequence, offset, crc32, .. } = header;
        let length = header.plain_bytes as usize;
        let got = crc32fast::hash(&loan[HEADROOM..HEADROOM + length]);
        if got != crc32 {
            return Err(Fault::Corrupt { offset, expected: crc32, got });
        }
        Ok(Block { place: Place { transfer, epoch, sequence, offset }, loan, length, crc32 })
    }

    /// Where the bytes stand in the slot.
    pub fn range(&self) -> Range<usize> {
        HEADROOM..HEADROOM + self.length
    }
}

impl Frame {
    /// Writes the header in front of a payload that stands at [`HEADROOM`] of its slot.
    pub fn seal(header: Header, mut loan: Loan) -> Frame {
        let range = header_range().start..HEADROOM + header.payload_bytes as usize;
        loan[header_range()].copy_from_slice(&header.encode());
        Frame { header, loan: Arc::new(loan), range }
    }
}

/// Where a frame's header stands in its slot.
pub(super) fn header_range() -> Range<usize> {
    HEADROOM - HEADER_BYTES..HEADROOM
}
