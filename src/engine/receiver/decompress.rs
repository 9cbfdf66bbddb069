//! Payload -> block: unpacks what was packed and proves that the bytes are those that were sent.
//!
//! Second on the receiver's way, on pinned threads; what travelled raw is only proved, and that by
//! `splice`, which is about to touch every byte anyway. A payload unpacks into a slot of the
//! declared size or not at all: one zstd frame that names exactly that size, nothing before or
//! behind it.

use crossbeam_channel::{Receiver, Sender};
use sys::loan::Loan;
use zstd_safe::DCtx;

use super::arrivals::{Arrivals, Origin};
use super::splice::Delivery;
use crate::engine::block::{Block, HEADROOM};
use crate::engine::fault::Fault;
use crate::protocol::frame::Header;

/// A frame as it came off the wire, with the slot that it may be unpacked into.
#[derive(Debug)]
pub(super) struct Packed {
    pub origin: Origin,
    pub header: Header,
    pub loan: Loan,
    pub spare: Option<Loan>,
}

/// One worker.
pub(super) struct Decompressor {
    pub packed: Receiver<Packed>,
    pub arrivals: Arrivals,
    pub deliveries: Sender<Delivery>,
}

impl Decompressor {
    /// Turns frames into proved blocks until no more come; what does not unpack to what was sent is
    /// thrown away, and asked for again.
    pub fn run(self) {
        let mut context = DCtx::create();
        for packed in &self.packed {
            let (origin, sequence) = (packed.origin, packed.header.sequence);
            match unpack(&mut context, packed) {
                Ok(block) => self.arrivals.put(block),
                Err(fault) => self.arrivals.reject(sequence, origin, fault),
            }
            if self.deliveries.send(Delivery::Unpacked).is_err() {
                break;
            }
        }
    }
}

fn unpack(context: &mut DCtx<'_>, packed: Packed) -> Result<Block, Fault> {
    let Packed { header, loan, spare, .. } = packed;
    let Some(mut spare) = spare else {
        let reason = "a packed block came although none was agreed".to_owned();
        return Err(Fault::Unpack { offset: header.offset, reason });
    };
    let payload = &loan[HEADROOM..HEADROOM + header.payload_bytes as usize];
    let block = &mut spare[HEADROOM..HEADROOM + header.plain_bytes as usize];
    unpack_zstd(context, payload, block)
        .map_err(|reason| Fault::Unpack { offset: header.offset, reason })?;
    Block::prove(header, spare)
}

/// Unpacks exactly one frame into exactly `block`. The checks in front matter: zstd by itself would
/// also take several frames, skippable ones, and one that asks for a window of gigabytes.
fn unpack_zstd(context: &mut DCtx<'_>, payload: &[u8], block: &mut [u8]) -> Result<(), String> {
    let frame = zstd_safe::find_frame_compressed_size(payload).map_err(name)?;
    if frame != payload.len() {
        return Err(format!("the frame ends after {frame} of {} bytes", payload.len()));
    }
    let declared = zstd_safe::get_frame_content_size(payload).map_err(|e| e.to_string())?;
    if declared != Some(block.len() as u64) {
        return Err(format!("it declares {declared:?} bytes, its header {}", block.len()));
    }
    let unpacked = context.decompress(block, payload).map_err(name)?;
    if unpacked != block.len() {
        return Err(format!("{unpacked} bytes came out of it instead of {}", block.len()));
    }
    Ok(())
}

fn name(code: usize) -> String {
    zstd_safe::get_error_name(code).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0; zstd_safe::compress_bound(bytes.len())];
        let count = zstd_safe::compress(&mut out[..], bytes, 3).unwrap();
        out.truncate(count);
        out
    }

    fn unpack(payload: &[u8], length: usize) -> Result<Vec<u8>, String> {
        let mut block = vec![0; length];
        unpack_zstd(&mut DCtx::create(), payload, &mut block).map(|()| block)
    }

    #[test]
    fn one_frame_of_the_declared_size_unpacks() {
        let bytes = vec![7; 100_000];
        assert_eq!(unpack(&packed(&bytes), bytes.len()).unwrap(), bytes);
    }

    #[test]
    fn anything_else_than_one_frame_of_the_declared_size_is_refused() {
        let bytes = vec![7; 1000];
        let frame = packed(&bytes);
        let twice = [frame.clone(), frame.clone()].concat();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], &frame[..]].concat();
        assert!(unpack(&frame, 999).is_err(), "smaller than it declares");
        assert!(unpack(&frame, 1001).is_err(), "larger than it declares");
        assert!(unpack(&twice, 2000).is_err(), "two frames");
        assert!(unpack(&skippable, 1000).is_err(), "a skippable frame in front");
        assert!(unpack(&frame[..frame.len() - 1], 1000).is_err(), "cut");
        assert!(unpack(b"not zstd at all", 1000).is_err(), "garbage");
        assert!(unpack(&[], 1).is_err(), "nothing");
    }
}
