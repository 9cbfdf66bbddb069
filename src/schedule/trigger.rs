//! What makes a job due.

use std::time::Duration;

use cronexpr::Crontab;
use jiff::{SignedDuration, Timestamp};

use crate::units::Bytes;

/// What makes a job due: its rhythm, what was written, or whichever is first. Without either it
/// runs when it is told to, and again after a failure.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// By the clock.
    pub rhythm: Option<Rhythm>,
    /// By what was written to the source.
    pub written: Option<Written>,
    /// A run by rhythm begins up to so much later, each time by another part of it: jobs of many
    /// hosts with one rhythm shall not all begin at once.
    pub jitter: Duration,
}

/// Moments that follow from a clock on a wall.
#[derive(Clone, Debug)]
pub enum Rhythm {
    /// So long after the last run began; at once if there was none.
    Every(Duration),
    /// At the moments of a cron expression, in its time zone.
    Cron(Box<Crontab>),
}

/// Enough new data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// So much since the last snapshot that the target has.
    pub least: Bytes,
    /// How often to look.
    pub check: Duration,
}

impl Trigger {
    /// When the run after one that began at `base` is due by rhythm, where `is_first` says that
    /// there was none and `base` is only when the job was heard of. `seed` tells jobs apart.
    pub(super) fn due(&self, base: Timestamp, is_first: bool, seed: u64) -> Option<Timestamp> {
        let due = match self.rhythm.as_ref()? {
            Rhythm::Every(_) if is_first => base,
            Rhythm::Every(pause) => later(base, *pause),
            Rhythm::Cron(moments) => moments.find_next(base).ok()?.timestamp(),
        };
        let share = mix(seed ^ due.as_second().cast_unsigned());
        Some(later(due, part(self.jitter, share)))
    }
}

/// A time after another, or the last of all times.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// A part of `whole` that is as large as `share` is among all numbers.
fn part(whole: Duration, share: u64) -> Duration {
    // 32 bits are finer than any timer.
    let share = u32::try_from(share >> 32).unwrap_or(u32::MAX);
    whole.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

/// `SplitMix64`: no secret, and every seed is a good one.
fn mix(seed: u64) -> u64 {
    let sum = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (sum ^ (sum >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
