//! Integers that cannot be mixed: bytes, places in a stream, numbers of blocks and transfers.
//!
//! Every part of zferry counts something; these types keep one count from being taken for
//! another. Nothing here may know what is counted, only what the count means.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A number of bytes per second, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(NonZeroU64);

/// A place in the uncompressed stream of one `zfs send` run: 0 is before its first byte.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StreamOffset(pub u64);

/// The number of a block within its session, counted from 0 over all transfers; never reused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// The number of a transfer within its session, counted from 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TransferId(pub u32);

impl Bytes {
    /// 1024 bytes.
    pub const KIB: Bytes = Bytes(1 << 10);
    /// 1024 KiB.
    pub const MIB: Bytes = Bytes(1 << 20);
    /// 1024 MiB.
    pub const GIB: Bytes = Bytes(1 << 30);

    /// The count as a length in memory; saturates on machines with small pointers.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The rate at which these bytes passed; `Bytes(0)` per second when no time went by.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    #[must_use]
    pub fn per_second(self, taken: Duration) -> Bytes {
        let seconds = taken.as_secs_f64();
        if seconds > 0.0 { Bytes((self.0 as f64 / seconds) as u64) } else { Bytes(0) }
    }
}

impl Rate {
    /// The bytes of one second.
    pub fn per_second(self) -> Bytes {
        Bytes(self.0.get())
    }

    /// How long so many bytes take.
    pub fn takes(self, bytes: Bytes) -> Duration {
        let millis = u128::from(bytes.0) * 1000 / u128::from(self.0.get());
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// What each of so many gets of it.
    #[must_use]
    pub fn shared_by(self, count: usize) -> Rate {
        let share = self.0.get() / count.max(1) as u64;
        Rate(NonZeroU64::new(share).unwrap_or(NonZeroU64::MIN))
    }
}

impl From<usize> for Bytes {
    fn from(count: usize) -> Bytes {
        Bytes(count as u64)
    }
}

impl StreamOffset {
    /// The place `length` bytes further on, or `None` where no stream can reach.
    pub fn after(self, length: Bytes) -> Option<StreamOffset> {
        self.0.checked_add(length.0).map(StreamOffset)
    }

    /// All bytes before this place.
    pub fn bytes_before(self) -> Bytes {
        Bytes(self.0)
    }
}

impl Sequence {
    /// The number of the next block. 2^64 blocks of 4 KiB are `64 ZiB`: it does not wrap.
    #[must_use]
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

impl fmt::Display for Bytes {
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 { write!(f, "{} B", self.0) } else { write!(f, "{value:.1} {}", UNITS[unit]) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.per_second())
    }
}

impl fmt::Display for StreamOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a text is not a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseBytesError {
    /// No digits at the front.
    #[error("a size starts with a number, as in 256MiB")]
    NoNumber,
    /// A suffix that is not one of ours.
    #[error("'{0}' is not a unit: use B, K, M, G or T (or KiB, MiB, GiB, TiB), powers of 1024")]
    UnknownUnit(String),
    /// More than 2^64 bytes.
    #[error("the size does not fit in 64 bits")]
    TooLarge,
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    /// Reads `4096`, `64K`, `1MiB`, `2g`: all suffixes are powers of 1024, in any case.
    fn from_str(text: &str) -> Result<Bytes, ParseBytesError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(ParseBytesError::NoNumber);
        }
        let number: u64 = number.parse().map_err(|_| ParseBytesError::TooLarge)?;
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(ParseBytesError::UnknownUnit(unit.trim().to_owned())),
        };
        number.checked_mul(1 << shift).map(Bytes).ok_or(ParseBytesError::TooLarge)
    }
}

/// Why a text is not a rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRateError {
    /// Not even a size.
    #[error(transparent)]
    Size(#[from] ParseBytesError),
    /// Nothing would ever move.
    #[error("a rate is at least 1 byte per second")]
    Nothing,
}

impl FromStr for Rate {
    type Err = ParseRateError;

    /// Reads a size as [`Bytes`] does, with or without `/s` behind it.
    fn from_str(text: &str) -> Result<Rate, ParseRateError> {
        let text = text.trim();
        let Bytes(bytes) = text.strip_suffix("/s").unwrap_or(text).parse()?;
        NonZeroU64::new(bytes).map(Rate).ok_or(ParseRateError::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65536), ("1MiB", 1 << 20), (" 2g ", 2 << 30)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn sizes_that_make_no_sense_say_why() {
        assert_eq!("".parse::<Bytes>(), Err(ParseBytesError::NoNumber));
        assert_eq!("MiB".parse::<Bytes>(), Err(ParseBytesError::NoNumber));
        assert_eq!("-1".parse::<Bytes>(), Err(ParseBytesError::NoNumber));
        assert_eq!("1 apple".parse::<Bytes>(), Err(ParseBytesError::UnknownUnit("apple".into())));
        assert_eq!("99999999999999999999".parse::<Bytes>(), Err(ParseBytesError::TooLarge));
        assert_eq!("18446744073709551615T".parse::<Bytes>(), Err(ParseBytesError::TooLarge));
    }

    #[test]
    fn sizes_are_shown_for_people() {
        assert_eq!(Bytes(999).to_string(), "999 B");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "16.0 EiB");
    }

    #[test]
    fn a_rate_is_a_size_each_second_and_never_nothing() {
        for text in ["64KiB", "65536", "64K/s", " 64 kib/s "] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!((rate.per_second(), rate.to_string()), (Bytes(65536), "64.0 KiB/s".into()));
        }
        assert_eq!("0".parse::<Rate>(), Err(ParseRateError::Nothing));
        assert_eq!("/s".parse::<Rate>(), Err(ParseRateError::Size(ParseBytesError::NoNumber)));
    }

    #[test]
    fn however_many_share_a_rate_each_gets_something() {
        let rate: Rate = "1000".parse().unwrap();
        for (count, share) in [(0, 1000), (1, 1000), (3, 333), (5000, 1)] {
            assert_eq!(rate.shared_by(count).per_second(), Bytes(share), "{count}");
        }
    }

    #[test]
    fn what_takes_how_long_follows_from_the_rate() {
        let rate: Rate = "20KiB".parse().unwrap();
        assert_eq!(rate.takes(Bytes::MIB), Duration::from_millis(51_200));
        let least: Rate = "1".parse().unwrap();
        assert_eq!(least.takes(Bytes(u64::MAX)), Duration::from_millis(u64::MAX), "no overflow");
    }

    #[test]
    fn an_offset_cannot_pass_the_end_of_all_streams() {
        assert_eq!(StreamOffset(1).after(Bytes(2)), Some(StreamOffset(3)));
        assert_eq!(StreamOffset(u64::MAX).after(Bytes(1)), None);
    }
}
