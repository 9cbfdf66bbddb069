//! What every measurement has: the engine's settings, the sample, and an end of its time.
//!
//! A measurement looks at the clock after each block, and so does the thread at its other end, so
//! that neither a figure nor Ctrl-C waits for more than a block.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::sample::Sample;
use crate::engine::settings::Settings;
use crate::process::PIPE_BYTES;
use crate::units::Bytes;

/// What `zfs send` writes at once, as its pipe sees it.
const WRITE_BYTES: usize = 128 << 10;

/// How and for how long to measure.
#[derive(Debug)]
pub struct Rig {
    /// How the engine is built.
    pub settings: Settings,
    /// How many cores we may use, whatever the number of workers.
    pub cores: usize,
    /// What is carried.
    pub sample: Sample,
    /// How long each figure may take.
    pub time: Duration,
    /// The folder whose disk a spool would lie on.
    pub spool: Option<PathBuf>,
    /// Turned on when nobody wants the figures any more.
    pub given_up: Arc<AtomicBool>,
}

/// The end of one measurement.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    until: Instant,
    given_up: Arc<AtomicBool>,
}

impl Rig {
    /// The time of one figure begins.
    pub(super) fn begin(&self) -> Deadline {
        self.begin_for(self.time)
    }

    /// The same for another time.
    pub(super) fn begin_for(&self, time: Duration) -> Deadline {
        Deadline { until: Instant::now() + time, given_up: Arc::clone(&self.given_up) }
    }
}

impl Deadline {
    pub fn is_over(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

/// Writes the sample over and over, as `zfs send` would, until the time is over or nobody reads.
pub(super) fn write_sample(to: OwnedFd, sample: &Sample, deadline: &Deadline) {
    let mut to = File::from(to);
    while !deadline.is_over() {
        for piece in sample.bytes().chunks(WRITE_BYTES) {
            if deadline.is_over() || to.write_all(piece).is_err() {
                return;
            }
        }
    }
}

/// Reads all that comes and throws it away, copying it as `zfs receive` does; how much it was.
pub(super) fn read_out(mut from: impl Read) -> Bytes {
    let mut buffer = vec![0; PIPE_BYTES.as_usize()];
    let mut bytes = 0;
    // Whoever broke it off tells why.
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        bytes += count as u64;
    }
    Bytes(bytes)
}
