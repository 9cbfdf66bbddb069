//! Block -> frame: packs where it pays, and writes the header.
//!
//! Second on the sender's way, on as many pinned threads as there are workers. Without compression
//! there is nothing to do here that is worth a change of core: then `read` seals its blocks itself.

use crossbeam_channel::Receiver;
use sys::loan::Loan;
use zstd_safe::{CCtx, CParameter};

use super::send::{Inbox, ToSend};
use crate::engine::block::{Block, Frame, HEADROOM, Place};
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
    pub level: i32,
}

impl Compressor {
    /// Turns blocks into frames until no more come.
    pub fn run(self) -> Result<(), Fault> {
        let mut packer = Packer::new(self.level)?;
        for plain in &self.blocks {
            self.send.put(ToSend::Frame(packer.pack(plain)));
        }
        Ok(())
    }
}

/// zstd's working memory, made once for each worker.
struct Packer {
    context: CCtx<'static>,
}

impl Packer {
    fn new(level: i32) -> Result<Packer, Fault> {
        let refused = |code| Fault::Pack(zstd_safe::get_error_name(code).to_owned());
        let mut context =
            CCtx::try_create().ok_or_else(|| Fault::Pack("no memory for zstd".to_owned()))?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(refused)?;
        // Our own CRC stands in the header; a second one inside would be paid for twice.
        context.set_parameter(CParameter::ChecksumFlag(false)).map_err(refused)?;
        Ok(Packer { context })
    }

    fn pack(&mut self, plain: Plain) -> Frame {
        let Plain { block, mut spare } = plain;
        let range = block.range();
        // One byte of room less than the block: what does not shrink does not fit, and goes raw.
        let room = HEADROOM..range.end - 1;
        match self.context.compress2(&mut spare[room], &block.loan[range]) {
            Ok(count) => {
                let header =
                    Header { codec: Codec::Zstd, payload_bytes: wire_length(count), ..raw(&block) };
                Frame::seal(header, spare)
            }
            Err(_no_room) => seal_raw(block),
        }
    }
}

/// The frame of a block that is sent as it was read.
pub(super) fn seal_raw(block: Block) -> Frame {
    Frame::seal(raw(&block), block.loan)
}

fn raw(block: &Block) -> Header {
    let Place { transfer, epoch, sequence, offset } = block.place;
    let length = wire_length(block.length);
    Header {
        transfer,
        epoch,
        sequence,
        offset,
        codec: Codec::Raw,
        plain_bytes: length,
        payload_bytes: length,
        crc32: block.crc32,
    }
}

/// A length for the header; a block fits by far, for its size was agreed within `u32`.
fn wire_length(length: usize) -> u32 {
    u32::try_from(length).expect("a block is smaller than 4 GiB: Settings caps block_bytes")
}
