//! How many data connections are worth having: one more as long as each makes the stream faster.
//!
//! Pure. A connection may be limited by its window, by loss, or by a core at either end; whether
//! another helps, only trying tells. What a machine does besides, and a window that opens slowly,
//! may hide it: so it is measured for longer before it is said to be of no use. One that was is
//! kept all the same: to give it up would send again what is on its way.

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
    Measuring { since: Duration, wire: Bytes, lasting: Duration },
    /// The newest connection was of no use.
    Content { until: Duration },
}

/// A window for 100 ms and 10 Gbit/s is open after thirteen round trips.
const SETTLE: Duration = Duration::from_millis(1500);

/// The first measurement of a connection takes so long; each that sees no use in it is followed by
/// one of twice the length, until that would be longer than the last may be.
const MEASURE: Duration = Duration::from_secs(1);
const MEASURE_MAX: Duration = Duration::from_secs(4);

/// In percent of the rate before, the least that a connection must come to.
const WORTH_IT: u64 = 105;

/// When one was of no use, how long until another is tried, and by how much longer each time. The
/// first pause is short, for noise may have hidden the use.
const PATIENCE: Duration = Duration::from_secs(15);
const PATIENCE_GROWS: u32 = 4;

impl Connections {
    /// How many there may be.
    pub fn most(self) -> u16 {
        match self {
            Connections::Fixed(count) | Connections::UpTo(count) => count,
        }
    }

    /// How many there are at first.
    pub fn least(self) -> u16 {
        match self {
            Connections::Fixed(count) => count,
            Connections::UpTo(_) => 1,
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
    /// While the newest is being `opened`, there is nothing to be seen of it.
    pub fn look(&mut self, now: Duration, wire: Bytes, opening: bool) -> bool {
        match self.phase {
            Phase::Settling { .. } if opening => {
                self.phase = Phase::Settling { until: now + SETTLE };
                false
            }
            Phase::Settling { until } | Phase::Content { until } => {
                if now >= until {
                    self.phase = Phase::Measuring { since: now, wire, lasting: MEASURE };
                }
                false
            }
            // Another stream, or one that stands still: of that a connection is not the cure.
            Phase::Measuring { wire: before, lasting, .. } if wire <= before => {
                self.phase = Phase::Measuring { since: now, wire, lasting };
                false
            }
            Phase::Measuring { since, wire: before, lasting } => {
                let taken = now.saturating_sub(since);
                let rate = Bytes(wire.0 - before.0).per_second(taken);
                taken >= lasting && self.judge(now, wire, rate, lasting)
            }
        }
    }

    /// What to do after so long a measurement.
    fn judge(&mut self, now: Duration, wire: Bytes, rate: Bytes, lasting: Duration) -> bool {
        let least = |before: Bytes| before.0.saturating_mul(WORTH_IT) / 100;
        if self.before.is_none_or(|before| rate.0 >= least(before)) {
            self.before = Some(rate);
            self.phase = Phase::Settling { until: now + SETTLE };
            return true;
        }
        let lasting = 2 * lasting;
        if lasting <= MEASURE_MAX {
            self.phase = Phase::Measuring { since: now, wire, lasting };
            return false;
        }
        self.before = None;
        self.phase = Phase::Content { until: now + self.patience };
        self.patience *= PATIENCE_GROWS;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections there are after so many seconds, if so many send at such a rate.
    fn after(seconds: u32, mut rate: impl FnMut(u64) -> u64) -> u64 {
        let tick = Duration::from_millis(200);
        let mut stripes = Stripes::new(Duration::ZERO);
        let (mut count, mut wire) = (1, 0);
        for at in 1..=seconds * 5 {
            wire += rate(count) / 5;
            count += u64::from(stripes.look(at * tick, Bytes(wire), false));
        }
        count
    }

    #[test]
    fn connections_are_added_until_one_does_not_help() {
        // Each carries 100 MB/s, a gigabyte goes through all: the eleventh is one too many.
        assert_eq!(after(40, |count| (count * 100_000_000).min(1_000_000_000)), 11);
        // By 5 percent or less: from 20 to 21.
        assert_eq!(after(70, |count| count * 1_000_000), 22);
    }

    /// A rate that other work on the machine makes up to `percent` higher or lower, in each second
    /// anew. Looked at five times a second.
    fn noisy(seed: u64, percent: u64, rate: impl Fn(u64) -> u64) -> impl FnMut(u64) -> u64 {
        let (mut chance, mut looks, mut factor) = (seed, 0, 100);
        move |count| {
            if looks % 5 == 0 {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                factor = 100 - percent + (chance >> 33) % (2 * percent + 1);
            }
            looks += 1;
            rate(count) * factor / 100
        }
    }

    /// The least, the middle and the most of what a hundred seeds come to.
    fn of_seeds(come_to: impl Fn(u64) -> u64) -> (u64, u64, u64) {
        let mut all: Vec<_> = (0..100).map(come_to).collect();
        all.sort_unstable();
        (all[0], all[50], all[99])
    }

    #[test]
    fn noise_does_not_end_the_search_where_connections_help() {
        // Eight fill the line; the last of them is worth a seventh.
        let line = |count: u64| (count * 6_000_000).min(48_000_000);
        let (least, middle, _) = of_seeds(|seed| after(30, noisy(seed, 15, line)));
        assert!(least >= 6 && middle >= 8, "{least}, {middle}");
        let (least, ..) = of_seeds(|seed| after(60, noisy(seed, 15, line)));
        assert!(least >= 8, "{least}");
    }

    #[test]
    fn noise_alone_makes_few_connections() {
        let (_, middle, most) = of_seeds(|seed| after(60, noisy(seed, 15, |_| 48_000_000)));
        assert!(middle <= 4 && most <= 8, "{middle}, {most}");
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
                if stripes.look(now, Bytes(wire), false) {
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
        // The first that is too much is the last for a while.
        assert_eq!(path.after(30), (4, 100));
        // Where it is so long that a window is not open when it is measured, more are tried.
        let round_trip = Duration::from_millis(600);
        let path = Path { round_trip, line: 75_000_000, buffer: 4 << 20 };
        let (count, full) = path.after(60);
        assert!((18..=22).contains(&count) && full == 100, "{count}, {full}");
    }

    #[test]
    fn a_connection_is_measured_when_it_is_there_and_no_sooner() {
        let mut stripes = Stripes::new(Duration::ZERO);
        let second = |at: u32| (at * Duration::from_secs(1), Bytes(u64::from(at) * 1_000_000));
        let mut look = |at: u32, opening| {
            let (now, wire) = second(at);
            stripes.look(now, wire, opening)
        };
        assert!(!look(2, false));
        assert!(look(3, false), "the second");
        // It takes a minute to be opened.
        assert!((4..60).all(|at| !look(at, true)));
        let more = |at: u32| Bytes(u64::from(at) * 2_000_000);
        let tried = (60..64).find(|&at| stripes.look(at * Duration::from_secs(1), more(at), false));
        assert_eq!(tried, Some(62), "the third");
    }

    #[test]
    fn a_source_that_is_the_limit_gets_one_to_try() {
        assert_eq!(after(20, |_| 5_000_000), 2);
    }

    #[test]
    fn a_stream_that_stands_still_gets_none() {
        assert_eq!(after(600, |_| 0), 1);
    }

    #[test]
    fn it_is_tried_again_later_and_ever_more_seldom() {
        // One after a quarter of a minute, a minute, four, sixteen.
        assert_eq!(after(600, |_| 5_000_000), 5);
    }

    #[test]
    fn another_stream_is_measured_for_itself() {
        let mut stripes = Stripes::new(Duration::ZERO);
        let s = Duration::from_secs;
        assert!(!stripes.look(s(2), Bytes(100), false));
        assert!(!stripes.look(s(3), Bytes(7), false), "begun anew");
        assert!(stripes.look(s(4), Bytes(107), false));
    }
}
