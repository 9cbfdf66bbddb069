//! How many data connections are worth having: one more as long as each makes the stream faster.
//!
//! Pure. A connection may be limited by its window, by loss, or by a core at either end; whether
//! another helps, only trying tells. One that was of no use is kept all the same: to give it up
//! would send again what is on its way.

use std::time::Duration;

use crate::units::Bytes;

/// How many data connections a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// So many.
    Fixed(u16),
    /// As many as help, and no more than these.
    UpTo(u16),
}

/// Watches one session, and says when to have another connection.
#[derive(Clone, Debug)]
pub(super) struct Stripes {
    phase: Phase,
    /// Bytes per second with one connection less.
    before: Option<Bytes>,
    patience: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The newest connection gets going: what is sent now tells nothing.
    Settling { until: Duration },
    /// So much had been sent when it began.
    Measuring { since: Duration, wire: Bytes },
    /// The newest connection was of no use.
    Content { until: Duration },
}

/// A window for 100 ms and 10 Gbit/s is open after thirteen round trips.
const SETTLE: Duration = Duration::from_millis(1500);
const MEASURE: Duration = Duration::from_secs(1);

/// In percent of the rate before, the least that a connection must come to.
const WORTH_IT: u64 = 105;

/// When one was of no use, how long until another is tried; doubles each time.
const PATIENCE: Duration = Duration::from_secs(60);

impl Connections {
    /// How many there may be.
    pub fn most(self) -> u16 {
        match self {
            Connections::Fixed(count) | Connections::UpTo(count) => count,
        }
    }
}

impl Stripes {
    /// Begins at `now`, the time since any fixed moment, with one connection.
    pub fn new(now: Duration) -> Stripes {
        let phase = Phase::Settling { until: now + SETTLE };
        Stripes { phase, before: None, patience: PATIENCE }
    }

    /// Looks at what went out on the wire so far; `true`: it is time for another connection.
    pub fn look(&mut self, now: Duration, wire: Bytes) -> bool {
        match self.phase {
            Phase::Settling { until } | Phase::Content { until } => {
                if now >= until {
                    self.phase = Phase::Measuring { since: now, wire };
                }
                false
            }
            // Another stream, or one that stands still: of that a connection is not the cure.
            Phase::Measuring { wire: before, .. } if wire <= before => {
                self.phase = Phase::Measuring { since: now, wire };
                false
            }
            Phase::Measuring { since, wire: before } => {
                let taken = now.saturating_sub(since);
                taken >= MEASURE && self.judge(now, Bytes(wire.0 - before.0).per_second(taken))
            }
        }
    }

    fn judge(&mut self, now: Duration, rate: Bytes) -> bool {
        let least = |before: Bytes| before.0.saturating_mul(WORTH_IT) / 100;
        if self.before.take().is_some_and(|before| rate.0 < least(before)) {
            self.phase = Phase::Content { until: now + self.patience };
            self.patience *= 2;
            return false;
        }
        self.before = Some(rate);
        self.phase = Phase::Settling { until: now + SETTLE };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections there are after so many seconds, if so many send at such a rate.
    fn after(seconds: u32, rate: impl Fn(u64) -> u64) -> u64 {
        let tick = Duration::from_millis(200);
        let mut stripes = Stripes::new(Duration::ZERO);
        let (mut count, mut wire) = (1, 0);
        for at in 1..=seconds * 5 {
            wire += rate(count) / 5;
            count += u64::from(stripes.look(at * tick, Bytes(wire)));
        }
        count
    }

    #[test]
    fn connections_are_added_until_one_does_not_help() {
        // Each carries 100 MB/s, a gigabyte goes through all: the eleventh is one too many.
        assert_eq!(after(60, |count| (count * 100_000_000).min(1_000_000_000)), 11);
        // By 5 percent or less: from 20 to 21.
        assert_eq!(after(100, |count| count * 1_000_000), 22);
    }

    /// Connections over a long line: each begins with ten segments, sends twice as many after each
    /// round trip, and no more than its buffers hold.
    struct Path {
        round_trip: Duration,
        /// What the line holds in one round trip, and what the buffers of one connection do.
        line: u64,
        buffer: u64,
    }

    impl Path {
        /// How many connections there are after so many seconds, and how many percent of the line
        /// are full.
        fn after(&self, seconds: u64) -> (usize, u64) {
            const FIRST_WINDOW: u64 = 14_480;
            let mut stripes = Stripes::new(Duration::ZERO);
            let (mut windows, mut wire, mut sent, mut now) =
                (vec![FIRST_WINDOW], 0, 0, Duration::ZERO);
            while now < Duration::from_secs(seconds) {
                now += self.round_trip;
                sent = windows.iter().sum::<u64>().min(self.line);
                wire += sent;
                windows = windows.iter().map(|window| self.buffer.min(2 * window)).collect();
                if stripes.look(now, Bytes(wire)) {
                    windows.push(FIRST_WINDOW);
                }
            }
            (windows.len(), 100 * sent / self.line)
        }
    }

    #[test]
    fn a_long_line_is_full_although_the_buffers_of_one_connection_are_too_small_for_it() {
        // 100 ms and a Gbit/s hold 12.5 MB, the kernel's own buffers for a connection 4 MiB.
        let round_trip = Duration::from_millis(100);
        let path = Path { round_trip, line: 12_500_000, buffer: 4 << 20 };
        assert_eq!(path.after(2), (1, 33));
        assert_eq!(path.after(7), (3, 100));
        // The first that is too much is the last for a minute.
        assert_eq!(path.after(60), (4, 100));
        // Where it is so long that a window is not open when it is measured, more are tried.
        let round_trip = Duration::from_millis(600);
        let path = Path { round_trip, line: 75_000_000, buffer: 4 << 20 };
        let (count, full) = path.after(60);
        assert!((18..=22).contains(&count) && full == 100, "{count}, {full}");
    }

    #[test]
    fn a_source_that_is_the_limit_gets_one_to_try() {
        assert_eq!(after(60, |_| 5_000_000), 2);
    }

    #[test]
    fn a_stream_that_stands_still_gets_none() {
        assert_eq!(after(600, |_| 0), 1);
    }

    #[test]
    fn it_is_tried_again_later_and_ever_more_seldom() {
        // One after each minute, two, four, eight.
        assert_eq!(after(600, |_| 5_000_000), 5);
    }

    #[test]
    fn another_stream_is_measured_for_itself() {
        let mut stripes = Stripes::new(Duration::ZERO);
        let s = Duration::from_secs;
        assert!(!stripes.look(s(2), Bytes(100)));
        assert!(!stripes.look(s(3), Bytes(7)), "begun anew");
        assert!(stripes.look(s(4), Bytes(107)));
    }
}
