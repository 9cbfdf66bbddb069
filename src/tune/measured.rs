//! What was measured: one value, of which the table, the JSON and the advice are made.
//!
//! Plain data. A rate is bytes of the stream per second, uncompressed, unless its name says
//! otherwise; what was not measured is not there, and never a zero.

use std::time::Duration;

use serde::Serialize;

use crate::units::Bytes;

/// All that is known of this machine, or of this one and another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Cores that we may use.
    pub cores: usize,
    /// The memory for blocks on their way that was measured with (`--cache`).
    pub cache: Bytes,
    /// Each part of the way by itself.
    pub parts: Vec<Part>,
    /// zstd by level, ascending, with all workers.
    pub levels: Vec<Level>,
    /// zstd at its fastest, by the number of workers, ascending.
    #[serde(rename = "by_workers")]
    pub workers: Vec<Workers>,
    /// Whole transfers, in the order in which they were tried; the first is as without any flag.
    pub transfers: Vec<Transfer>,
    /// The other host, if there is one.
    pub far: Option<Far>,
}

/// One part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Which.
    pub name: PartName,
    /// What it moves in a second.
    pub bytes_per_second: Bytes,
}

/// The parts of the way, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartName {
    /// The pipe of `zfs send` into a slot, with the CRC32.
    Read,
    /// A slot into a socket.
    Send,
    /// A socket into a slot, and its CRC32 proved.
    Receive,
    /// A slot's pages into the pipe of a reader that copies, as `zfs receive` does.
    Splice,
    /// A slot into a breakpoint file.
    Spool,
}

/// zstd at one level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Level {
    /// From 1.
    pub level: i32,
    /// What all workers together pack in a second.
    pub bytes_per_second: Bytes,
    /// Bytes of the sample for one that is left of it; at least 1.
    pub ratio: f64,
}

/// So many workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Workers {
    /// How many.
    pub workers: usize,
    /// What they pack together in a second.
    pub bytes_per_second: Bytes,
}

/// How a transfer was made: what the flags of the command line would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// `--compress zstd:LEVEL`; `None` for blocks as they are.
    pub zstd: Option<i32>,
    /// `--connections`.
    pub connections: u16,
    /// `--block-size`.
    pub block_bytes: Bytes,
    /// `--congestion`; `None` for the machine's own.
    pub congestion: Option<String>,
}

/// A transfer by the whole program: over the network, or over loopback to ourselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// How it was made.
    #[serde(flatten)]
    pub choice: Choice,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Outcome {
    /// It went through.
    Carried {
        /// Bytes of the stream that the far side took in a second.
        bytes_per_second: Bytes,
        /// Bytes on the wire in a second.
        wire_bytes_per_second: Bytes,
    },
    /// It could not be made; the others could.
    Refused {
        /// Why.
        refused: String,
    },
}

/// What is known of the way to the other host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Far {
    /// As it was typed.
    pub host: String,
    /// The round trip.
    #[serde(rename = "round_trip_micros", serialize_with = "micros")]
    pub round_trip: Duration,
    /// The most that this kernel gives the window of one connection (`net.ipv4.tcp_wmem`).
    pub socket_bytes_max: Option<Bytes>,
}

impl Measured {
    /// The rate of one part, where it was measured.
    pub fn part(&self, name: PartName) -> Option<Bytes> {
        self.parts.iter().find(|part| part.name == name).map(|part| part.bytes_per_second)
    }

    /// How much the sample shrinks at a level.
    pub fn ratio(&self, zstd: Option<i32>) -> f64 {
        let level = self.levels.iter().find(|level| Some(level.level) == zstd);
        level.map_or(1.0, |level| level.ratio.max(1.0))
    }
}

impl Choice {
    /// What a transfer does that is told nothing.
    pub fn plain() -> Choice {
        Choice { zstd: None, connections: 1, block_bytes: Bytes::MIB, congestion: None }
    }

    /// The flags that make it.
    pub fn flags(&self) -> Vec<String> {
        let usual = Choice::plain();
        let mut flags = Vec::new();
        let mut say = |flag: &str, value: String| flags.extend([flag.to_owned(), value]);
        if let Some(level) = self.zstd {
            say("--compress", format!("zstd:{level}"));
        }
        if self.connections != usual.connections {
            say("--connections", self.connections.to_string());
        }
        if self.block_bytes != usual.block_bytes {
            say("--block-size", typed(self.block_bytes));
        }
        if let Some(name) = &self.congestion {
            say("--congestion", name.clone());
        }
        flags
    }
}

impl Outcome {
    /// Bytes of the stream in a second, if it went through.
    pub fn rate(&self) -> Option<Bytes> {
        match self {
            Outcome::Carried { bytes_per_second, .. } => Some(*bytes_per_second),
            Outcome::Refused { .. } => None,
        }
    }
}

impl Transfer {
    /// Bytes of the stream in a second, if it went through.
    pub fn rate(&self) -> Option<Bytes> {
        self.outcome.rate()
    }

    /// Bytes on the wire in a second, if it went through.
    pub fn wire(&self) -> Option<Bytes> {
        match self.outcome {
            Outcome::Carried { wire_bytes_per_second, .. } => Some(wire_bytes_per_second),
            Outcome::Refused { .. } => None,
        }
    }
}

/// A size as it is typed: exact, in the largest unit that it is a whole number of.
pub(super) fn typed(bytes: Bytes) -> String {
    for (unit, name) in [(Bytes::GIB, "GiB"), (Bytes::MIB, "MiB"), (Bytes::KIB, "KiB")] {
        if bytes.0 > 0 && bytes.0.is_multiple_of(unit.0) {
            return format!("{}{name}", bytes.0 / unit.0);
        }
    }
    bytes.0.to_string()
}

fn micros<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
