//! What is typed behind the flags of an engine: cores, a number of connections, compression.

use std::fmt;
use std::str::FromStr;

use crate::engine::settings::Compression;

/// Which cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Pin {
    Auto,
    Off,
    Cores(Vec<usize>),
}

/// What is typed behind `--connections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Stripes {
    Fixed(u16),
    Auto,
}

/// What is typed behind `--compress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Compress(pub(super) Compression);

impl Stripes {
    /// With which it begins.
    pub fn least(self) -> u16 {
        match self {
            Stripes::Fixed(count) => count,
            Stripes::Auto => 1,
        }
    }
}

impl fmt::Display for Stripes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stripes::Fixed(count) => write!(f, "{count}"),
            Stripes::Auto => f.write_str("auto"),
        }
    }
}

impl fmt::Display for Compress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Compression::None => f.write_str("none"),
            Compression::Zstd { level } => write!(f, "zstd:{level}"),
            Compression::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Stripes {
    type Err = String;

    fn from_str(text: &str) -> Result<Stripes, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Stripes::Auto),
            (_, Ok(count @ 1..=64)) => Ok(Stripes::Fixed(count)),
            _ => Err(format!("'{text}' is neither auto nor a number from 1 to 64")),
        }
    }
}

impl FromStr for Compress {
    type Err = String;

    fn from_str(text: &str) -> Result<Compress, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Compress(Compression::None)),
            ("auto", None) => Ok(Compress(Compression::Auto)),
            ("zstd", None) => Ok(Compress(Compression::Zstd { level: 1 })),
            ("zstd", Some(level)) => match level.parse() {
                Ok(level @ 1..=19) => Ok(Compress(Compression::Zstd { level })),
                _ => Err(format!("'{level}' is not a zstd level from 1 to 19")),
            },
            _ => Err(format!("'{text}' is not none, zstd[:LEVEL] or auto")),
        }
    }
}

impl FromStr for Pin {
    type Err = String;

    /// Reads `auto`, `off`, or cores and ranges of them: `0,2-5`.
    fn from_str(text: &str) -> Result<Pin, String> {
        match text {
            "auto" => return Ok(Pin::Auto),
            "off" => return Ok(Pin::Off),
            _ => {}
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
                (Ok(first), Ok(last)) if first <= last => {
                    cores.extend((first..=last).map(usize::from));
                }
                _ => return Err(format!("'{part}' is neither a core nor a range such as 2-5")),
            }
        }
        Ok(Pin::Cores(cores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_lists_and_ranges() {
        assert_eq!("auto".parse(), Ok(Pin::Auto));
        assert_eq!("off".parse(), Ok(Pin::Off));
        assert_eq!("0,2-4".parse(), Ok(Pin::Cores(vec![0, 2, 3, 4])));
        for nonsense in ["", "a", "3-1", "1,", "-1", "1-", "70000"] {
            assert!(nonsense.parse::<Pin>().is_err(), "{nonsense:?} was taken for cores");
        }
    }

    #[test]
    fn connections_are_a_number_or_found_on_the_way() {
        assert_eq!("1".parse(), Ok(Stripes::Fixed(1)));
        assert_eq!("64".parse(), Ok(Stripes::Fixed(64)));
        assert_eq!("auto".parse(), Ok(Stripes::Auto));
        for nonsense in ["0", "65", "-1", "many", ""] {
            assert!(nonsense.parse::<Stripes>().is_err(), "{nonsense:?} was taken for a number");
        }
    }

    #[test]
    fn compression_is_none_or_zstd_with_a_level() {
        assert_eq!("none".parse(), Ok(Compress(Compression::None)));
        assert_eq!("auto".parse(), Ok(Compress(Compression::Auto)));
        assert_eq!("zstd".parse(), Ok(Compress(Compression::Zstd { level: 1 })));
        assert_eq!("zstd:19".parse(), Ok(Compress(Compression::Zstd { level: 19 })));
        for nonsense in ["zstd:", "zstd:0", "zstd:20", "zstd:x", "lz4", "none:1", "auto:3", ""] {
            assert!(nonsense.parse::<Compress>().is_err(), "{nonsense:?} was taken");
        }
    }
}
