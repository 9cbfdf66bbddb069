//! A line of so many bytes a second. Pure: the caller has the clock.

use std::time::{Duration, Instant};

/// How late the caller may be without the line being slower for it: timers are late by a
/// millisecond or two.
const LATE_MAX: Duration = Duration::from_millis(10);

/// When the bytes that follow may pass.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Bytes in a second; not 0.
    rate: u64,
    free: Instant,
}

impl Throttle {
    /// A line that is free from `now` on.
    pub fn new(rate: u64, now: Instant) -> Throttle {
        Throttle { rate, free: now }
    }

    /// So many bytes pass `now`: when the next may.
    pub fn pass(&mut self, bytes: usize, now: Instant) -> Instant {
        let idle = now.saturating_duration_since(self.free).saturating_sub(LATE_MAX);
        self.free += idle + Duration::from_secs(1).mul_f64(self.share(bytes));
        self.free
    }

    /// A hundredth of a second's bytes: the rate shall be even.
    pub fn bytes_at_once(&self) -> usize {
        usize::try_from((self.rate / 100).max(1)).unwrap_or(usize::MAX)
    }

    /// The part of a second that `bytes` take.
    #[allow(clippy::cast_precision_loss, reason = "a millionth more or less does not matter")]
    fn share(&self, bytes: usize) -> f64 {
        bytes as f64 / self.rate as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long 1000 bytes take at 1000 bytes a second, ten at once, with a caller that is so late.
    fn seconds(late: Duration) -> f64 {
        let began = Instant::now();
        let mut throttle = Throttle::new(1000, began);
        let mut now = began;
        for _ in 0..100 {
            now = throttle.pass(throttle.bytes_at_once(), now) + late;
        }
        (now - began).as_secs_f64()
    }

    #[test]
    fn who_is_a_little_late_is_not_slower_for_it() {
        assert!((seconds(Duration::ZERO) - 1.0).abs() < 0.001);
        assert!((seconds(Duration::from_millis(2)) - 1.0).abs() < 0.003);
    }

    #[test]
    fn a_line_that_nobody_used_does_not_make_up_for_it() {
        assert!((seconds(Duration::from_millis(30)) - 3.0).abs() < 0.031);
    }
}
