//! The streams that `ci/bench` sends: the same bytes in every run, made while they are asked for.
//!
//! What is made lies in memory and repeats, from so far away that no compressor finds it again. It
//! is made late because a child's peak RSS, by the kernel's count, begins with that of its parent.
//! What must never happen here: two pieces alike where one of them in the wrong place matters.

use std::fs::File;
use std::io::{self, Read, Seek};

/// As large as the writes of `zfs send` of datasets with the default record size.
pub const PIECE_BYTES: usize = 128 << 10;

/// Noise is never found again, however near it is.
const NOISE_BYTES: usize = 4 << 20;
/// Text is: this is more than the window of any level that is measured.
const TEXT_BYTES: usize = 16 << 20;
/// So long `mixed` is of one kind: no block that is measured is longer.
const RUN_BYTES: usize = 4 << 20;
/// Of so many pieces of `zeros` one is noise.
const ZEROS_IN: usize = 4;

/// In the order of how often they are chosen.
const WORDS: &str = include_str!("words.txt");

/// What is sent; `named` takes a name, or else the path of a file.
pub struct Data {
    choice: Choice,
    noise: Vec<u8>,
    text: Vec<u8>,
    writer: Writer,
    /// A piece of the file, or zeros.
    piece: Vec<u8>,
}

enum Choice {
    Noise,
    Text,
    Zeros,
    /// Runs of noise, text and zeros in turn.
    Mixed,
    /// Begun again where it is shorter. Its pieces differ by themselves and are left alone.
    File(File),
}

impl Data {
    pub fn named(name: &str) -> io::Result<Data> {
        let choice = match name {
            "noise" => Choice::Noise,
            "text" => Choice::Text,
            "zeros" => Choice::Zeros,
            "mixed" => Choice::Mixed,
            path => match File::open(path)? {
                file if file.metadata()?.len() == 0 => {
                    return Err(io::Error::other("an empty file is no stream"));
                }
                file => Choice::File(file),
            },
        };
        let (noise, text, piece) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Data { choice, noise, text, writer: Writer::new(), piece })
    }

    /// The bytes at `at`, a multiple of [`PIECE_BYTES`]: a piece, or its first `most` bytes. To be
    /// asked for one after the other.
    pub fn piece(&mut self, at: usize, most: usize) -> io::Result<&[u8]> {
        let length = PIECE_BYTES.min(most);
        let turn = at / PIECE_BYTES;
        match &mut self.choice {
            Choice::Noise => Ok(self.noise(at, length)),
            Choice::Text => Ok(self.text(at, length)),
            Choice::Zeros if turn.is_multiple_of(ZEROS_IN) => Ok(self.noise(at, length)),
            Choice::Zeros => Ok(self.zeros(length)),
            Choice::Mixed => match at / RUN_BYTES % 3 {
                0 => Ok(self.noise(at, length)),
                1 => Ok(self.text(at, length)),
                _ => Ok(self.zeros(length)),
            },
            Choice::File(file) => {
                self.piece.resize(length, 0);
                fill_around(file, &mut self.piece)?;
                Ok(&self.piece)
            }
        }
    }

    fn noise(&mut self, at: usize, length: usize) -> &[u8] {
        if self.noise.is_empty() {
            let mut chance = Chance::default();
            let words = std::iter::repeat_with(|| chance.next().to_le_bytes());
            self.noise.extend(words.take(NOISE_BYTES / 8).flatten());
        }
        stamped(&mut self.noise[at % NOISE_BYTES..][..length], at)
    }

    fn text(&mut self, at: usize, length: usize) -> &[u8] {
        let from = at % TEXT_BYTES;
        while self.text.len() < from + PIECE_BYTES {
            self.writer.sentence(&mut self.text);
        }
        stamped(&mut self.text[from..][..length], at)
    }

    fn zeros(&mut self, length: usize) -> &[u8] {
        self.piece.resize(length, 0);
        &self.piece
    }
}

/// So that no two pieces are the same, and one in the wrong place is seen.
fn stamped(piece: &mut [u8], at: usize) -> &[u8] {
    if let Some(stamp) = piece.first_chunk_mut() {
        *stamp = at.to_le_bytes();
    }
    piece
}

/// Fills all of `piece`, from the beginning again where the file ends.
fn fill_around(file: &mut File, piece: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..])? {
            0 => file.rewind()?,
            count => filled += count,
        }
    }
    Ok(())
}

/// xorshift64: bytes that no compressor shortens, the same ones every time.
struct Chance(u64);

impl Default for Chance {
    fn default() -> Chance {
        Chance(0x9e37_79b9_7f4a_7c15)
    }
}

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `limit`; the upper bits are the better ones.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or_default() % limit
    }
}

/// Makes sentences of [`WORDS`], the n-th of them 1/n as often as the first, as in real ones.
struct Writer {
    chance: Chance,
    /// Each word as often as it is to be chosen.
    urn: Vec<&'static str>,
}

impl Writer {
    fn new() -> Writer {
        const FIRST: usize = 2000;
        let ranked = WORDS.split_whitespace().zip(1..);
        let urn = ranked.flat_map(|(word, rank)| std::iter::repeat_n(word, FIRST / rank));
        Writer { chance: Chance::default(), urn: urn.collect() }
    }

    fn sentence(&mut self, text: &mut Vec<u8>) {
        let first = text.len();
        for _ in 0..6 + self.chance.below(14) {
            text.extend(self.urn[self.chance.below(self.urn.len())].bytes());
            text.push(b' ');
        }
        text[first].make_ascii_uppercase();
        text.pop();
        text.extend(if self.chance.below(6) == 0 { b".\n" } else { b". " });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(name: &str, bytes: usize) -> Vec<u8> {
        let mut data = Data::named(name).unwrap();
        let mut stream = Vec::new();
        while stream.len() < bytes {
            let most = bytes - stream.len();
            let at = stream.len();
            stream.extend_from_slice(data.piece(at, most).unwrap());
        }
        stream
    }

    /// How many times shorter `zstd` makes it.
    fn ratio(stream: &[u8], level: i32) -> f64 {
        let mut packed = vec![0; zstd_safe::compress_bound(stream.len())];
        let length = zstd_safe::compress(&mut packed[..], stream, level).unwrap();
        f64::from(u32::try_from(stream.len()).unwrap()) / f64::from(u32::try_from(length).unwrap())
    }

    #[test]
    fn noise_does_not_shrink() {
        assert!(ratio(&all("noise", 3 << 20), 1) < 1.001);
    }

    #[test]
    fn text_shrinks_to_about_a_third() {
        let block = ratio(&all("text", 1 << 20), 1);
        assert!((2.7..3.3).contains(&block), "{block}");
    }

    #[test]
    fn text_that_repeats_is_not_found_again() {
        let (once, twice) = (all("text", TEXT_BYTES), all("text", 2 * TEXT_BYTES));
        let (once, twice) = (ratio(&once, 9), ratio(&twice, 9));
        assert!((0.99..1.01).contains(&(twice / once)), "{once}, then {twice}");
    }

    #[test]
    fn of_zeros_three_quarters_are_zeros() {
        let block = ratio(&all("zeros", 1 << 20), 1);
        assert!((3.9..4.01).contains(&block), "{block}");
    }

    #[test]
    fn mixed_is_noise_then_text_then_zeros_then_noise() {
        let stream = all("mixed", 4 * RUN_BYTES);
        let ratios: Vec<f64> = stream.chunks(RUN_BYTES).map(|run| ratio(run, 1)).collect();
        assert!(ratios[0] < 1.001 && ratios[3] < 1.001, "{ratios:?}");
        assert!(ratios[1] > 2.7 && ratios[2] > 1000.0, "{ratios:?}");
    }

    #[test]
    fn pieces_of_noise_and_text_differ_however_far_apart() {
        for (name, period) in [("noise", NOISE_BYTES), ("text", TEXT_BYTES)] {
            let stream = all(name, period + PIECE_BYTES);
            assert_ne!(stream[..PIECE_BYTES], stream[period..], "{name}");
            assert_eq!(stream[8..PIECE_BYTES], stream[period + 8..], "{name}");
        }
    }

    #[test]
    fn a_short_file_begins_again_and_is_not_changed() {
        let path = std::env::temp_dir().join(format!("zferry-pump-{}", std::process::id()));
        std::fs::write(&path, b"stream").unwrap();
        let stream = all(path.to_str().unwrap(), 2 * PIECE_BYTES + 5);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(stream.len(), 2 * PIECE_BYTES + 5);
        assert!(stream.iter().zip(b"stream".iter().cycle()).all(|(byte, meant)| byte == meant));
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(Data::named("/dev/null").is_err());
    }
}
