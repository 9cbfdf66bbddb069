//! Whether a copy that failed is tried again, and when.
//!
//! Pure: the caller has the clock. A new attempt lists and plans anew, so it is right wherever the
//! failure was no decision of anybody's. What must never happen here: an attempt without a wait
//! before it, and one after a failure that a person has to mend.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::error::{Class, Failure};

/// How soon the first attempt follows, and how much later the latest ones.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(10);

/// How often to look whether there is room again on a target that was full.
const ROOM_EVERY: Duration = Duration::from_secs(60);

/// How long a dataset may be busy with what our own last attempt has left there: its server waits
/// up to 60 s for a `zfs receive` to keep what it has.
const BUSY_LIMIT: Duration = Duration::from_secs(60);

/// What `zfs` and our server say of a dataset that somebody still has.
const BUSY_TEXTS: [&str; 2] = ["dataset is busy", "partially-complete state"];

/// The attempts of one copy.
#[derive(Debug)]
pub struct Attempts {
    /// For how long without progress.
    limit: Duration,
    backoff: Backoff,
    room: Backoff,
    /// When the target was last seen to have more than before, or when the copy began.
    proved: Instant,
    /// Where the stream stood still that was cut first since then. Bytes that `zfs receive` took
    /// need not be kept: one that fails at the same place for ever takes them again and again.
    first_cut: Option<Instant>,
    /// Since when the dataset is busy.
    busy: Option<Instant>,
    /// An attempt of this copy was cut, and its session may not be over yet.
    was_cut: bool,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait so long, and try again. A `quiet` one is nothing to tell anybody.
    Again {
        /// How long.
        wait: Duration,
        /// Nobody need be told.
        quiet: bool,
    },
    /// Tell it.
    GiveUp,
}

/// What a failure is to a copy that could be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The session or the stream is gone, and nobody has decided anything.
    Cut,
    /// Somebody has the dataset, for a moment as a rule.
    Busy,
    /// The target has no room.
    Full,
    /// Somebody has to act.
    Final,
}

impl Attempts {
    /// None yet. There is no second attempt once `limit` has passed without progress.
    pub fn new(limit: Duration, seed: u64, now: Instant) -> Attempts {
        Attempts {
            limit,
            backoff: Backoff::new(SOONEST, LATEST, seed),
            room: Backoff::new(ROOM_EVERY, ROOM_EVERY, seed),
            proved: now,
            first_cut: None,
            busy: None,
            was_cut: false,
        }
    }

    /// A stream was cut that had moved until `moved`; at `proved`, the target was last seen to keep
    /// more than before.
    pub fn moved(&mut self, moved: Option<Instant>, proved: Option<Instant>) {
        if let Some(proved) = proved.filter(|&proved| proved > self.proved) {
            self.proved = proved;
            self.first_cut = None;
            self.backoff.reset();
        }
        self.first_cut = self.first_cut.or(moved);
    }

    /// The last moment that counts as progress.
    fn progress(&self) -> Instant {
        self.first_cut.unwrap_or(self.proved).max(self.proved)
    }

    /// What follows from `failure`, which happened `now`.
    pub fn after(&mut self, failure: &Failure, now: Instant) -> Next {
        let kind = Kind::of(failure);
        if kind != Kind::Busy {
            self.busy = None;
        }
        self.was_cut |= kind == Kind::Cut;
        let (wait, until) = match kind {
            Kind::Final => return Next::GiveUp,
            // Another copy is running.
            Kind::Busy if failure.class == Class::Busy && !self.was_cut => return Next::GiveUp,
            Kind::Cut => (self.backoff.wait(), self.progress() + self.limit),
            Kind::Full => (self.room.wait(), self.progress() + self.limit),
            Kind::Busy => {
                let since = *self.busy.get_or_insert(now);
                (self.backoff.wait(), since + self.limit.min(BUSY_LIMIT))
            }
        };
        if now + wait > until {
            return Next::GiveUp;
        }
        Next::Again { wait, quiet: kind == Kind::Busy }
    }
}

impl Kind {
    fn of(failure: &Failure) -> Kind {
        let says_busy = || BUSY_TEXTS.iter().any(|text| failure.what.contains(text));
        match failure.class {
            Class::Busy => Kind::Busy,
            Class::Wait | Class::Refused if says_busy() => Kind::Busy,
            Class::Wait => Kind::Full,
            Class::Interrupted => Kind::Cut,
            _ => Kind::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Side;

    const HOUR: Duration = Duration::from_secs(3600);

    fn failure(class: Class, what: &str) -> Failure {
        Failure::new(Side::Target, class, what)
    }

    fn cut() -> Failure {
        failure(Class::Interrupted, "the connection to a:1 was lost")
    }

    #[test]
    fn only_what_no_person_has_to_mend_is_tried_again() {
        use Class::{
            Busy, Internal, Interrupted, Machine, Peer, Refused, Usage, Wait, Zfs as OfZfs,
        };
        let again = |class, what: &str| {
            let mut attempts = Attempts::new(HOUR, 1, Instant::now());
            attempts.after(&cut(), Instant::now());
            match attempts.after(&failure(class, what), Instant::now()) {
                Next::Again { quiet, .. } => Some(quiet),
                Next::GiveUp => None,
            }
        };
        for class in [Usage, Refused, Peer, Machine, OfZfs, Internal] {
            assert_eq!(again(class, "out of space"), None, "{class:?}");
        }
        assert_eq!(again(Interrupted, "incomplete stream"), Some(false));
        assert_eq!(again(Wait, "out of space"), Some(false));
        assert_eq!(again(Busy, "backup/a is being received from 10.0.0.1:5 already"), Some(true));
        assert_eq!(again(Wait, "zfs receive: dataset is busy"), Some(true));
        assert_eq!(again(Refused, "backup/a contains partially-complete state"), Some(true));
    }

    #[test]
    fn the_last_attempt_is_made_before_the_limit_without_progress() {
        let begun = Instant::now();
        let mut attempts = Attempts::new(Duration::from_secs(30), 1, begun);
        let mut now = begun;
        let mut count = 0;
        while let Next::Again { wait, .. } = attempts.after(&cut(), now) {
            now += wait;
            count += 1;
            assert!(now - begun <= Duration::from_secs(30));
        }
        assert!((8..20).contains(&count), "{count} attempts");
        attempts.moved(Some(now), Some(now));
        let Next::Again { wait, .. } = attempts.after(&cut(), now) else { panic!("gave up") };
        assert!(wait <= SOONEST, "{wait:?}: the waits did not start anew");
    }

    #[test]
    fn a_long_stream_that_is_cut_is_tried_again_but_not_one_that_stands_still() {
        let (begun, limit) = (Instant::now(), Duration::from_secs(60));
        let mut attempts = Attempts::new(limit, 1, begun);
        // Hours without a proof are no reason to give up what has moved all the time.
        let mut now = begun + HOUR;
        attempts.moved(Some(now), None);
        let cut_first = now;
        // From then on bytes move in each attempt, and none of them is kept.
        while let Next::Again { wait, .. } = attempts.after(&cut(), now) {
            now += wait + Duration::from_secs(1);
            attempts.moved(Some(now), Some(begun));
        }
        assert!(now - cut_first <= limit + Duration::from_secs(1), "{:?}", now - cut_first);
        attempts.moved(Some(now), Some(now));
        assert_ne!(attempts.after(&cut(), now), Next::GiveUp);
    }

    #[test]
    fn without_a_limit_nothing_is_tried_again() {
        let now = Instant::now();
        for failure in [cut(), failure(Class::Busy, ""), failure(Class::Wait, "")] {
            let mut attempts = Attempts::new(Duration::ZERO, 1, now);
            assert_eq!(attempts.after(&failure, now), Next::GiveUp, "{failure}");
        }
    }

    #[test]
    fn a_dataset_may_be_busy_for_a_minute_and_no_longer() {
        let begun = Instant::now();
        let mut attempts = Attempts::new(HOUR, 1, begun);
        let busy = failure(Class::Busy, "busy");
        assert_eq!(attempts.after(&busy, begun), Next::GiveUp, "another copy has it");
        attempts.after(&cut(), begun);
        let mut now = begun;
        while let Next::Again { wait, quiet } = attempts.after(&busy, now) {
            assert!(quiet);
            now += wait;
        }
        let waited = now - begun;
        assert!(waited <= BUSY_LIMIT && waited > BUSY_LIMIT / 2, "{waited:?}");
        // Another failure in between, and the minute starts anew.
        assert_ne!(attempts.after(&cut(), now), Next::GiveUp);
        assert_ne!(attempts.after(&busy, now), Next::GiveUp);
    }

    #[test]
    fn a_full_target_is_looked_at_once_in_a_while() {
        let now = Instant::now();
        let mut attempts = Attempts::new(HOUR, 1, now);
        let full = failure(Class::Wait, "out of space");
        for _ in 0..3 {
            let Next::Again { wait, .. } = attempts.after(&full, now) else { panic!("gave up") };
            assert!(wait >= ROOM_EVERY / 2, "{wait:?}");
        }
    }
}
