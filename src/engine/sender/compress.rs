//! Block -> frame: packs where it pays, and writes the header.
//!
//! Second on the sender's way, on as many pinned threads as there are workers. Without compression
//! there is nothing to do here that is worth a change of core: then `read` seals its blocks itself.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use sys::loan::Loan;
use zstd_safe::{CCtx, CParameter};

use super::pressure::Pressure;
use super::send::{Inbox, ToSend};
use crate::engine::block::{Block, Frame, HEADROOM, wire_length};
use crate::engine::fault::Fault;
use crate::protocol::frame::{Codec, Header};

/// A block as it was read, with the slot that it may be packed into.
#[derive(Debug)]
pub(super) struct Plain {
    pub block: Block,
    pub spare: Loan,
}

/// One worker.
pub(super) struct Compressor {
    pub blocks: Receiver<Plain>,
    pub send: Inbox,
    pub packing: Packing,
}

/// How far blocks are packed.
#[derive(Clone, Debug)]
pub(super) enum Packing {
    /// All at one level of zstd.
    Fixed(i32),
    /// As far as costs no speed at the moment.
    Following(Arc<Pressure>),
}

/// A sample of a block that is left with more than so much of it tells that the block is not worth
/// a worker's time.
const WORTH_PACKING: (usize, usize) = (31, 32);

/// Pieces that a block is sampled in, and the part of the block that they are at most.
const PIECES: usize = 4;
const SAMPLED: usize = 16;

impl Compressor {
    /// Turns blocks into frames until no more come.
    pub fn run(self) -> Result<(), Fault> {
        let mut packer = Packer::new()?;
        for plain in &self.blocks {
            let frame = self.frame(&mut packer, plain)?;
            self.send.put(ToSend::Frame(frame));
        }
        Ok(())
    }

    fn frame(&self, packer: &mut Packer, plain: Plain) -> Result<Frame, Fault> {
        let pressure = match &self.packing {
            &Packing::Fixed(level) => return packer.pack(plain, level),
            Packing::Following(pressure) => pressure,
        };
        let level = pressure.follow(self.blocks.len());
        pressure.count_packed();
        match level.zstd() {
            Some(level) if packer.is_worth(&plain.block)? => packer.pack(plain, level),
            _ => Ok(seal(plain.block, Codec::Raw)),
        }
    }
}

/// zstd's working memory, made once for each worker.
struct Packer {
    context: CCtx<'static>,
    level: i32,
    scratch: Vec<u8>,
}

/// The fastest that packs letters as well as repetitions: those below 1 do not.
const SAMPLING_LEVEL: i32 = 1;

impl Packer {
    fn new() -> Result<Packer, Fault> {
        let mut context =
            CCtx::try_create().ok_or_else(|| Fault::Pack("no memory for zstd".to_owned()))?;
        // Our own CRC stands in the header; a second one inside would be paid for twice.
        context.set_parameter(CParameter::ChecksumFlag(false)).map_err(refused)?;
        let mut packer = Packer { context, level: 0, scratch: Vec::new() };
        packer.set_level(SAMPLING_LEVEL)?;
        Ok(packer)
    }

    fn set_level(&mut self, level: i32) -> Result<(), Fault> {
        if level != self.level {
            self.context.set_parameter(CParameter::CompressionLevel(level)).map_err(refused)?;
            self.level = level;
        }
        Ok(())
    }

    /// Whether a block seems to shrink, by a sample of it.
    fn is_worth(&mut self, block: &Block) -> Result<bool, Fault> {
        self.set_level(SAMPLING_LEVEL)?;
        let bytes = &block.loan[block.range()];
        let length = bytes.len() / (SAMPLED * PIECES);
        self.scratch.resize(zstd_safe::compress_bound(length), 0);
        let mut left = 0;
        for piece in 0..PIECES {
            let from = piece * (bytes.len() / PIECES);
            let sample = &bytes[from..from + length];
            left += self.context.compress2(&mut self.scratch[..], sample).map_err(refused)?;
        }
        let (most, whole) = WORTH_PACKING;
        Ok(left * whole <= PIECES * length * most)
    }

    fn pack(&mut self, plain: Plain, level: i32) -> Result<Frame, Fault> {
        self.set_level(level)?;
        let Plain { block, mut spare } = plain;
        let range = block.range();
        // One byte of room less than the block: what does not shrink does not fit, and goes raw.
        let room = HEADROOM..range.end - 1;
        Ok(match self.context.compress2(&mut spare[room], &block.loan[range]) {
            Ok(count) => {
                let header = block.place.header(Codec::Zstd, block.length, block.crc32);
                Frame::seal(Header { payload_bytes: wire_length(count), ..header }, spare)
            }
            Err(_no_room) => seal(block, Codec::Raw),
        })
    }
}

fn refused(code: usize) -> Fault {
    Fault::Pack(zstd_safe::get_error_name(code).to_owned())
}

/// The frame of a block that is sent as it was read: raw or bare.
pub(super) fn seal(block: Block, codec: Codec) -> Frame {
    Frame::seal(block.place.header(codec, block.length, block.crc32), block.loan)
}

#[cfg(test)]
mod tests {
    use sys::arena::{Arena, PAGE_BYTES};
    use sys::loan::Pool;
    use sys::wake::Waker;

    use super::*;
    use crate::engine::block::Place;
    use crate::units::{Sequence, StreamOffset, TransferId};

    const BYTES: usize = 1 << 20;

    fn block(content: impl Iterator<Item = u8>) -> Block {
        let arena = Arena::new(BYTES + PAGE_BYTES, 1).unwrap();
        let pool = Pool::split(&arena, 1, &Arc::new(Waker::new().unwrap())).remove(0);
        let [mut loan] = pool.take().unwrap();
        let place = Place {
            transfer: TransferId(1),
            epoch: 1,
            sequence: Sequence(0),
            offset: StreamOffset(0),
        };
        for (byte, value) in loan[HEADROOM..HEADROOM + BYTES].iter_mut().zip(content) {
            *byte = value;
        }
        Block { place, loan, length: BYTES, crc32: 0 }
    }

    fn noise() -> impl Iterator<Item = u8> {
        let next = |state: &u64| Some(state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1));
        std::iter::successors(Some(1_u64), next).map(|state| (state >> 56) as u8)
    }

    #[test]
    fn a_sample_tells_what_shrinks_from_what_does_not() {
        let mut packer = Packer::new().unwrap();
        let mut is_worth = |block| packer.is_worth(&block).unwrap();
        assert!(is_worth(block(std::iter::repeat(0))));
        assert!(is_worth(block(b"a line of text\n".iter().copied().cycle())));
        assert!(!is_worth(block(noise())));
        // Nothing is repeated, but a quarter of each byte says nothing.
        assert!(is_worth(block(noise().map(|byte| byte % 64))));
        // A part that shrinks is found wherever it is.
        for quarter in 0..4 {
            let text = |at: usize| at / (BYTES / 4) == quarter;
            let mixed = noise().enumerate().map(|(at, byte)| if text(at) { b'x' } else { byte });
            assert!(is_worth(block(mixed)), "{quarter}");
        }
    }
}
