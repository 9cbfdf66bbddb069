//! All of a stream before a place: how long it is, and the CRC32 of it.
//!
//! Put together from the CRC32s of its blocks, in order, so that nobody reads the bytes again.

use super::record::Mark;
use crate::units::{Bytes, StreamOffset};

/// The front of a stream, growing block by block.
#[derive(Clone, Debug, Default)]
pub struct Prefix {
    to: StreamOffset,
    crc: crc32fast::Hasher,
}

impl Prefix {
    /// Adds the block that follows: its CRC32 and its length.
    pub fn append(&mut self, crc32: u32, length: Bytes) {
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(crc32, length.0));
        // Headers are decoded so that no block ends behind the last possible byte.
        self.to = self.to.after(length).unwrap_or(StreamOffset(u64::MAX));
    }

    /// Where it ends.
    pub fn to(&self) -> StreamOffset {
        self.to
    }

    /// Its end, and the proof of it.
    pub fn mark(&self) -> Mark {
        Mark { to: self.to, crc32: self.crc.clone().finalize() }
    }
}

impl From<Mark> for Prefix {
    fn from(Mark { to, crc32 }: Mark) -> Prefix {
        Prefix { to, crc: crc32fast::Hasher::new_with_initial_len(crc32, to.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_of_a_stream_is_that_of_its_blocks_together_wherever_it_goes_on() {
        let stream: Vec<u8> = (0..100_000u32).map(|i| (i * 7 / 8).to_le_bytes()[0]).collect();
        let mut prefix = Prefix::default();
        assert_eq!(prefix.mark(), Mark::default());
        for block in stream.chunks(1234) {
            prefix = Prefix::from(prefix.mark());
            prefix.append(crc32fast::hash(block), block.len().into());
        }
        let whole = Mark { to: StreamOffset(100_000), crc32: crc32fast::hash(&stream) };
        assert_eq!(prefix.mark(), whole);
    }
}
