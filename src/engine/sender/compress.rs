//! Block -> frame: checks, packs where it pays, and writes the header.
//!
//! Second on the sender's way, on as many pinned threads as there are workers. The CRC is taken
//! here, over the bytes as they came out of the source, while they are still in the core's cache.

use crossbeam_channel::Receiver;
use sys::loan::Loan;
use zstd_safe::{CCtx, CParameter};

use super::send::{Inbox, ToSend};
use crate::engine::block::{Frame, HEADROOM, Place};
use crate::engine::fault::Fault;
use crate::engine::settings::Compression;
use crate::protocol::frame::{Codec, Header};

/// A block as it was read, with the slot that it may be packed into.
#[derive(Debug)]
pub(super) struct Plain {
    pub place: Place,
    pub loan: Loan,
    pub length: usize,
    pub spare: Option<Loan>,
}

/// One worker.
pub(super) struct Compressor {
    pub blocks: Receiver<Plain>,
    pub send: Inbox,
    pub compression: Compression,
}

impl Compressor {
    /// Turns blocks into frames until no more come.
    pub fn run(self) -> Result<(), Fault> {
        let mut packer = Packer::new(self.compression)?;
        for plain in &self.blocks {
            self.send.put(ToSend::Frame(packer.pack(plain)));
        }
        Ok(())
    }
}

/// zstd's working memory, made once for each worker.
struct Packer {
    context: Option<CCtx<'static>>,
}

impl Packer {
    fn new(compression: Compression) -> Result<Packer, Fault> {
        let Compression::Zstd { level } = compression else {
            return Ok(Packer { context: None });
        };
        let refused = |code| Fault::Pack(zstd_safe::get_error_name(code).to_owned());
        let mut context =
            CCtx::try_create().ok_or_else(|| Fault::Pack("no memory for zstd".to_owned()))?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(refused)?;
        // Our own CRC stands in the header; a second one inside would be paid for twice.
        context.set_parameter(CParameter::ChecksumFlag(false)).map_err(refused)?;
        Ok(Packer { context: Some(context) })
    }

    fn pack(&mut self, plain: Plain) -> Frame {
        let Plain { place, loan, length, spare } = plain;
        let bytes = &loan[HEADROOM..HEADROOM + length];
        let crc32 = crc32fast::hash(bytes);
        let packed = match (&mut self.context, spare) {
            // One byte of room less than the block: what does not shrink does not fit, and goes raw.
            (Some(context), Some(mut spare)) => context
                .compress2(&mut spare[HEADROOM..HEADROOM + length - 1], bytes)
                .ok()
                .map(|count| (spare, count)),
            _ => None,
        };
        let (codec, loan, payload) = match packed {
            Some((spare, count)) => (Codec::Zstd, spare, count),
            None => (Codec::Raw, loan, length),
        };
        let header = Header {
            transfer: place.transfer,
            epoch: place.epoch,
            sequence: place.sequence,
            offset: place.offset,
            codec,
            plain_bytes: wire_length(length),
            payload_bytes: wire_length(payload),
            crc32,
        };
        Frame::seal(header, loan)
    }
}

/// A length for the header; a block fits by far, for its size was agreed within `u32`.
fn wire_length(length: usize) -> u32 {
    u32::try_from(length).expect("a block is smaller than 4 GiB: Settings caps block_bytes")
}
