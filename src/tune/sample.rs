//! The bytes that are measured with: some of the user's own, or a mix that we make.
//!
//! How far a stream shrinks depends on nothing but its bytes, so figures of packing are worth as
//! much as the sample is like the stream. Ours is half text and half noise, and says so.

use std::io::{self, Read};
use std::sync::Arc;

/// The most that is taken of a stream: it must fit into memory, beside the cache.
pub const SAMPLE_BYTES_MAX: u64 = 256 << 20;

/// How much we make: several blocks for each worker, and more than a core's cache holds.
const MADE_BYTES: usize = 32 << 20;

/// Text and noise take turns after so many bytes, so that every block has some of both.
const TURN_BYTES: usize = 64 << 10;

/// Never empty.
#[derive(Clone, Debug)]
pub struct Sample {
    bytes: Arc<[u8]>,
    is_made: bool,
}

impl Sample {
    /// Half words in no order, half noise: shrinks to about two thirds.
    pub fn made() -> Sample {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut bytes = Vec::with_capacity(MADE_BYTES + TURN_BYTES);
        while bytes.len() < MADE_BYTES {
            let end = bytes.len() + TURN_BYTES;
            while bytes.len() < end {
                let words = WORDS.len() as u64;
                let word = usize::try_from(random.next() % words).unwrap_or_default();
                bytes.extend_from_slice(WORDS[word].as_bytes());
                bytes.push(b' ');
            }
            for _ in 0..TURN_BYTES / size_of::<u64>() {
                bytes.extend_from_slice(&random.next().to_le_bytes());
            }
        }
        Sample { bytes: bytes.into(), is_made: true }
    }

    /// The first bytes of a stream, [`SAMPLE_BYTES_MAX`] at most. An empty one is an error.
    pub fn of(stream: impl Read) -> io::Result<Sample> {
        let mut bytes = Vec::new();
        stream.take(SAMPLE_BYTES_MAX).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty"));
        }
        Ok(Sample { bytes: bytes.into(), is_made: false })
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fills `to` with what stands at a place of the sample, which is repeated without an end.
    pub(super) fn fill(&self, at: usize, to: &mut [u8]) {
        let mut at = at % self.bytes.len();
        let mut filled = 0;
        while filled < to.len() {
            let count = (self.bytes.len() - at).min(to.len() - filled);
            to[filled..filled + count].copy_from_slice(&self.bytes[at..at + count]);
            filled += count;
            at = 0;
        }
    }

    /// Whether it is ours.
    pub fn is_made(&self) -> bool {
        self.is_made
    }
}

/// Words of a text, long and short.
const WORDS: [&str; 24] = [
    "the", "snapshot", "of", "a", "dataset", "is", "sent", "to", "another", "host", "and", "what",
    "was", "read", "in", "blocks", "arrives", "there", "as", "it", "has", "been", "written",
    "before",
];

/// Xorshift: good enough for bytes that nothing shrinks.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_make_shrinks_by_half_of_itself_at_most() {
        let sample = Sample::made();
        let block = &sample.bytes()[..1 << 20];
        let mut packed = vec![0; zstd_safe::compress_bound(block.len())];
        let length = zstd_safe::compress(&mut packed[..], block, 3).unwrap();
        // The noise stays; of the text about a quarter does.
        assert!((block.len() / 2..block.len() * 3 / 4).contains(&length), "{length}");
        assert!(sample.is_made());
    }

    #[test]
    fn a_sample_shorter_than_a_block_is_repeated() {
        let sample = Sample::of(&b"abc"[..]).unwrap();
        let mut block = [0; 8];
        sample.fill(7, &mut block);
        assert_eq!(&block, b"bcabcabc");
    }

    #[test]
    fn a_stream_of_the_users_is_taken_as_it_is_and_no_further_than_memory_allows() {
        let sample = Sample::of(&b"bytes"[..]).unwrap();
        assert_eq!((sample.bytes(), sample.is_made()), (&b"bytes"[..], false));
        assert!(Sample::of(&b""[..]).is_err());
        let endless = Sample::of(io::repeat(7)).unwrap();
        assert_eq!(endless.bytes().len() as u64, SAMPLE_BYTES_MAX);
    }
}
