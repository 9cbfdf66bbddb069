//! A block on its way: a slot, the place of its bytes in the stream, and nothing else.
//!
//! A slot is one page of headroom and then the block: the header of a frame is written right in
//! front of the payload, so that both leave in one send, and the payload stands at a page, so
//! that it can enter a pipe without a copy. A block of the splice lane has no slot: its bytes stay
//! in the kernel, in a bay, and no stage ever sees them.

use std::ops::Range;
use std::sync::Arc;

use sys::arena::PAGE_BYTES;
use sys::bay::Bay;
use sys::loan::Loan;

use crate::engine::fault::Fault;
use crate::protocol::frame::{Codec, HEADER_BYTES, Header};
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
    /// CRC32 of the bytes; 0 where nobody takes any.
    pub crc32: u32,
}

/// A block as it arrives at the receiver.
#[derive(Debug)]
pub(super) enum Arrived {
    InSlot(Block),
    InBay(Place, Bay),
}

/// Header and payload, ready for the wire: as often as it takes, so its bytes never change again.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub header: Header,
    pub payload: Payload,
}

/// Where the bytes of a frame are.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// In this part of a slot, behind their header.
    InSlot(Arc<Loan>, Range<usize>),
    /// In the kernel, and without their header.
    InBay(Arc<Bay>),
}

impl Block {
    /// A block as it came off the wire, if its bytes are those that were sent.
    pub fn prove(header: Header, loan: Loan) -> Result<Block, Fault> {
        let Header { offset, crc32, .. } = header;
        let length = header.plain_bytes as usize;
        let got = crc32fast::hash(&loan[HEADROOM..HEADROOM + length]);
        if got != crc32 {
            return Err(Fault::Corrupt { offset, expected: crc32, got });
        }
        Ok(Block { place: Place::of(&header), loan, length, crc32 })
    }

    /// A block whose bytes nobody proves.
    pub fn bare(header: &Header, loan: Loan) -> Block {
        let length = header.plain_bytes as usize;
        Block { place: Place::of(header), loan, length, crc32: header.crc32 }
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
        Frame { header, payload: Payload::InSlot(Arc::new(loan), range) }
    }

    /// A frame whose payload is in a bay.
    pub fn in_bay(header: Header, bay: Bay) -> Frame {
        Frame { header, payload: Payload::InBay(Arc::new(bay)) }
    }

    /// What it takes on the wire.
    pub fn wire_bytes(&self) -> usize {
        HEADER_BYTES + self.header.payload_bytes as usize
    }

    /// The slot of a frame of the block lane, and where the frame stands in it.
    ///
    /// # Panics
    ///
    /// When it is in a bay: `Settings` have no files beside the splice lane.
    pub fn slot(&mut self) -> (&mut Arc<Loan>, Range<usize>) {
        match &mut self.payload {
            Payload::InSlot(loan, range) => (loan, range.clone()),
            Payload::InBay(_) => unreachable!("a block in a bay was to go to a file"),
        }
    }
}

impl Place {
    /// Where a frame's block belongs.
    pub fn of(header: &Header) -> Place {
        let &Header { transfer, epoch, sequence, offset, .. } = header;
        Place { transfer, epoch, sequence, offset }
    }

    /// The header of a block that is sent as it was read.
    pub fn header(self, codec: Codec, length: usize, crc32: u32) -> Header {
        let Place { transfer, epoch, sequence, offset } = self;
        let length = wire_length(length);
        let (plain_bytes, payload_bytes) = (length, length);
        Header { transfer, epoch, sequence, offset, codec, plain_bytes, payload_bytes, crc32 }
    }
}

/// A length for the header; a block fits by far, for its size was agreed within `u32`.
pub(super) fn wire_length(length: usize) -> u32 {
    u32::try_from(length).expect("a block is smaller than 4 GiB: Settings caps block_bytes")
}

/// Where a frame's header stands in its slot.
pub(super) fn header_range() -> Range<usize> {
    HEADROOM - HEADER_BYTES..HEADROOM
}
