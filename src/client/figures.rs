//! How far a stream is, and what a copy took.

use std::time::Duration;

use crate::engine::sender::Level;
use crate::engine::settings::Route;
use crate::protocol::stall::Culprit;
use crate::units::Bytes;

/// How far a stream is at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Bytes that came out of the source.
    pub read: Bytes,
    /// Bytes that went out on the wire.
    pub wire: Bytes,
    /// Bytes that the target has taken.
    pub fed: Bytes,
    /// Bytes that went by way of breakpoint files, for the cache was full.
    pub spooled: Bytes,
    /// How many data connections it has.
    pub connections: u16,
    /// How far blocks are packed now, where that is found on the way.
    pub level: Option<Level>,
    /// How blocks go through this side.
    pub route: Route,
    /// The part of the way that stands still, once that is sure.
    pub stands_still: Option<Culprit>,
}

/// What became of a copy: one stream or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many streams.
    pub streams: u32,
    /// Bytes of the streams, uncompressed.
    pub bytes: Bytes,
    /// Bytes on the wire.
    pub wire: Bytes,
    /// Bytes of the streams that earlier runs had sent, and that were not sent again.
    pub kept: Bytes,
    /// Bytes of the streams that went by way of breakpoint files.
    pub spooled: Bytes,
    /// Snapshots that went again on both sides, for they need not be kept.
    pub pruned: u64,
    /// From the first opening to the last result.
    pub taken: Duration,
}

impl Summary {
    /// Adds a stream.
    pub fn add(&mut self, moment: Moment, bytes: Bytes) {
        self.streams += 1;
        self.bytes = Bytes(self.bytes.0 + bytes.0);
        self.wire = Bytes(self.wire.0 + moment.wire.0);
        self.spooled = Bytes(self.spooled.0 + moment.spooled.0);
    }

    /// Adds what became of another dataset. The time is not added, for they go on side by side.
    pub fn join(&mut self, other: &Summary) {
        self.streams += other.streams;
        self.pruned += other.pruned;
        for (all, more) in [
            (&mut self.bytes, other.bytes),
            (&mut self.wire, other.wire),
            (&mut self.kept, other.kept),
            (&mut self.spooled, other.spooled),
        ] {
            all.0 = all.0.saturating_add(more.0);
        }
    }
}
