//! How long to wait before the next attempt: longer each time, and never at the same moment as
//! everybody else. For a client that lost its server, and for a job that failed.
//!
//! Pure: it neither sleeps nor asks a clock, and its chance comes from a seed.

use std::time::Duration;

/// Waits that double from attempt to attempt, each shortened by chance to between half and all of
/// it: clients that lost the same server shall not all come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    chance: u64,
}

impl Backoff {
    /// Waits from `first` to `longest`; two with different seeds keep apart.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Backoff {
        Backoff { first, longest, next: first.min(longest), chance: seed }
    }

    /// How long to wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.longest);
        // 32 bits are finer than any timer.
        let share = u32::try_from(self.draw() >> 32).unwrap_or(u32::MAX);
        whole / 2 + (whole / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    /// An attempt came through: the next wait is short again.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }

    /// `SplitMix64`: no secret, and every seed is a good one.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.chance ^ (self.chance >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let mut backoff = Backoff::new(FIRST, LONGEST, 7);
        for whole in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let (wait, whole) = (backoff.wait(), Duration::from_millis(whole));
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }

    #[test]
    fn seeds_keep_clients_apart() {
        let waits = |seed| {
            let mut backoff = Backoff::new(FIRST, LONGEST, seed);
            (0..4).map(|_| backoff.wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    proptest! {
        #[test]
        fn no_wait_is_beyond_its_bounds(
            first in 0..u64::MAX, longest in 0..u64::MAX, seed in any::<u64>(),
        ) {
            let longest = Duration::from_nanos(longest);
            let mut backoff = Backoff::new(Duration::from_nanos(first), longest, seed);
            for _ in 0..70 {
                prop_assert!(backoff.wait() <= longest);
            }
        }
    }
}
