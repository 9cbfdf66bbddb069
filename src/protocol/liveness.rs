//! When to send a sign of life, and when to give the other end up.
//!
//! Stands beside one connection of either side: told what passed, it says what to do next and when
//! to ask again. It has no clock; `now` is the time since any fixed moment, from a clock that never
//! goes back. A slow end must never be taken for a dead one: whatever is heard counts as life.

use std::time::Duration;

/// How often to speak and how long to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    ping_every: Duration,
    silence_max: Duration,
}

/// Settings under which a healthy connection would die or spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a sign of life every {ping_every:?} and death after {silence_max:?} of silence: \
     the first must be above zero and at most half of the second"
)]
pub struct SettingsError {
    /// What was asked for.
    pub ping_every: Duration,
    /// What was asked for.
    pub silence_max: Duration,
}

/// What one end knows of the other.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    settings: Settings,
    heard: Duration,
    sent: Duration,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing was said for a while: say [`Ping`](super::message::Message::Ping), then call
    /// [`Liveness::sent`].
    Ping,
    /// The other end was silent for too long.
    Dead {
        /// How long.
        silent_for: Duration,
    },
    /// Nothing until then; ask again at that time or after whatever passes earlier.
    WaitUntil(Duration),
}

impl Settings {
    /// A sign of life whenever nothing was said for `ping_every`; dead after `silence_max`.
    pub fn new(ping_every: Duration, silence_max: Duration) -> Result<Settings, SettingsError> {
        if ping_every.is_zero() || ping_every > silence_max / 2 {
            return Err(SettingsError { ping_every, silence_max });
        }
        Ok(Settings { ping_every, silence_max })
    }
}

impl Liveness {
    /// A connection that opened at `now`.
    pub fn new(settings: Settings, now: Duration) -> Liveness {
        Liveness { settings, heard: now, sent: now }
    }

    /// Bytes came in: any bytes, not only whole messages.
    pub fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
    }

    /// A message went out.
    pub fn sent(&mut self, now: Duration) {
        self.sent = self.sent.max(now);
    }

    /// What to do at `now`. After a pause of this process (a stopped machine), first read what
    /// waits on the connection and call [`heard`](Liveness::heard), or the pause looks like death.
    pub fn next(&self, now: Duration) -> Action {
        let silent_for = now.saturating_sub(self.heard);
        let dead_at = self.heard.saturating_add(self.settings.silence_max);
        let ping_at = self.sent.saturating_add(self.settings.ping_every);
        if now >= dead_at {
            Action::Dead { silent_for }
        } else if now >= ping_at {
            Action::Ping
        } else {
            Action::WaitUntil(dead_at.min(ping_at))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn liveness() -> Liveness {
        Liveness::new(Settings::new(s(5), s(30)).unwrap(), s(100))
    }

    #[test]
    fn an_end_that_has_nothing_to_say_pings() {
        let mut us = liveness();
        assert_eq!(us.next(s(100)), Action::WaitUntil(s(105)));
        assert_eq!(us.next(s(105)), Action::Ping);
        us.sent(s(105));
        assert_eq!(us.next(s(105)), Action::WaitUntil(s(110)));
    }

    #[test]
    fn an_end_that_speaks_anyway_does_not_ping() {
        let mut us = liveness();
        us.sent(s(104));
        assert_eq!(us.next(s(105)), Action::WaitUntil(s(109)));
    }

    #[test]
    fn silence_is_death_and_any_byte_is_life() {
        let mut us = liveness();
        us.sent(s(129));
        assert_eq!(us.next(s(129)), Action::WaitUntil(s(130)));
        assert_eq!(us.next(s(130)), Action::Dead { silent_for: s(30) });
        us.heard(s(129));
        assert_eq!(us.next(s(130)), Action::WaitUntil(s(134)));
    }

    #[test]
    fn a_clock_that_steps_back_kills_nobody() {
        let mut us = liveness();
        us.heard(s(50));
        assert_eq!(us.next(s(20)), Action::WaitUntil(s(105)));
    }

    #[test]
    fn settings_under_which_a_healthy_connection_dies_are_refused() {
        for (ping_every, silence_max) in [(0, 30), (0, 0), (30, 30), (16, 30)] {
            assert!(Settings::new(s(ping_every), s(silence_max)).is_err(), "{ping_every}");
        }
    }

    proptest! {
        /// Two idle ends, each woken only when it asked to be, with a delay on the line and late
        /// wake-ups: neither ever takes the other for dead, and neither spins.
        #[test]
        fn two_idle_ends_keep_each_other_alive(delay_ms in 0..4000_u64, late_ms in 0..2000_u64) {
            let [delay, late] = [delay_ms, late_ms].map(Duration::from_millis);
            let settings = Settings::new(s(5), s(12)).unwrap();
            let mut ends = [Liveness::new(settings, s(0)); 2];
            let mut wake = [s(0); 2];
            let mut steps = 0;
            while wake[0].min(wake[1]) < s(600) {
                let me = usize::from(wake[1] < wake[0]);
                let now = wake[me];
                steps += 1;
                match ends[me].next(now) {
                    Action::Ping => {
                        ends[me].sent(now);
                        ends[1 - me].heard(now + delay);
                    }
                    Action::WaitUntil(then) => {
                        prop_assert!(then > now, "told to wait for a time that has passed");
                        wake[me] = then + late;
                    }
                    Action::Dead { silent_for } => prop_assert!(false, "dead after {silent_for:?}"),
                }
            }
            prop_assert!(steps < 1000);
        }
    }
}
