//! How long to wait before the next attempt.
//!
//! Pure. Doubles from attempt to attempt up to a limit, and never by the clock alone: a thousand
//! clients whose server was restarted shall not all come back at the same moment.

use std::time::Duration;

/// The wait before the first attempt that follows a failed one.
const FIRST: Duration = Duration::from_millis(10);

/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(10);

/// The waits of one series of attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    random: u64,
}

impl Backoff {
    /// A series of its own for each `seed`.
    pub fn new(seed: u64) -> Backoff {
        Backoff { next: FIRST, random: seed | 1 }
    }

    /// The next wait: between half and the whole of what is due.
    pub fn next(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(LONGEST);
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let share = u32::try_from(self.random >> 40).unwrap_or(0);
        due / 2 + (due / 2) * (share >> 8) / (1 << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_differ_between_clients() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            std::iter::repeat_with(|| backoff.next()).take(20).collect::<Vec<_>>()
        };
        let mut due = FIRST;
        for wait in waits(7) {
            assert!(due / 2 <= wait && wait <= due, "{wait:?} of {due:?}");
            due = (due * 2).min(LONGEST);
        }
        assert_ne!(waits(7), waits(8));
        assert_eq!(waits(7), waits(7));
    }
}
