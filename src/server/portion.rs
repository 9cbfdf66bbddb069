//! What one client has of this host below one root: all of its transfers there share it.
//!
//! How fast their bytes may come, and how much of the spool they may take. The threads that take
//! bytes off connections ask the [`Pace`], so it is the lock of a moment. What must never happen
//! here: that more comes in than was granted, however many connections and transfers bring it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sys::cipher::Brake;

use crate::dataset::DatasetName;
use crate::protocol::negotiate::BLOCK_BYTES_MIN;
use crate::spool::share::Share;
use crate::trust::Fingerprint;
use crate::trust::grants::Limits;
use crate::units::{Bytes, Rate};

/// What may come at once beyond the rate: time that was not used, for a thread that overslept must
/// be able to make up for it.
const UNUSED_MAX: Duration = Duration::from_millis(200);

/// In how many pieces the bytes of a second are taken off connections: many, so that none of
/// several connections waits long for its turn.
const PIECES_A_SECOND: u64 = 32;

/// No piece is smaller: each costs a system call.
const PIECE_BYTES_MIN: u64 = 1 << 10;

/// What each of several connections has at least of a rate that is shared: with less, a block would
/// be on its way so long that the client takes its connection for a broken one.
const CONNECTION_RATE_MIN: Bytes = Bytes(512 << 10);

/// For the same reason no block of a connection takes longer.
const BLOCK_SECONDS_MAX: u64 = 4;

/// The portions of all clients that have transfers, or had until now.
#[derive(Debug, Default)]
pub(super) struct Portions(RefCell<BTreeMap<(Fingerprint, DatasetName), Weak<Portion>>>);

/// That of one client below one root.
#[derive(Debug)]
pub(super) struct Portion {
    pace: Mutex<Pace>,
    /// Of the spool.
    pub spool: Arc<Share>,
}

/// How fast bytes may come: each makes the next wait for as long as it takes at that rate.
#[derive(Debug)]
struct Pace {
    /// `None` is no limit.
    rate: Option<Rate>,
    /// When all that came would have come at that rate.
    until: Instant,
}

/// The brake of all connections of one session, which has one transfer at a time.
#[derive(Debug, Default)]
pub(super) struct SessionBrake(Mutex<Option<Arc<Portion>>>);

impl Portions {
    /// The portion of a client below a root, by the limits that are in force.
    pub fn of(&self, key: Fingerprint, root: &DatasetName, limits: Limits) -> Arc<Portion> {
        let mut portions = self.0.borrow_mut();
        portions.retain(|_, portion| portion.strong_count() > 0);
        let place = (key, root.clone());
        let portion = portions.get(&place).and_then(Weak::upgrade).unwrap_or_else(|| {
            let portion = Arc::new(Portion::new());
            portions.insert(place, Arc::downgrade(&portion));
            portion
        });
        portion.limit(limits);
        portion
    }

    /// Has new limits hold at once, for transfers that run too. Those that nobody grants any more
    /// are left as they were.
    pub fn renew(&self, limits: impl Fn(&Fingerprint, &DatasetName) -> Option<Limits>) {
        for ((key, root), portion) in self.0.borrow().iter() {
            if let (Some(portion), Some(limits)) = (portion.upgrade(), limits(key, root)) {
                portion.limit(limits);
            }
        }
    }
}

impl Portion {
    fn new() -> Portion {
        let pace = Mutex::new(Pace { rate: None, until: Instant::now() });
        Portion { pace, spool: Arc::new(Share::new(None)) }
    }

    fn limit(&self, limits: Limits) {
        lock(&self.pace).rate = limits.bandwidth;
        self.spool.limit(limits.spool);
    }
}

/// What a session is offered whose bytes may not come faster than `slowest`: as many connections
/// and as large blocks as that is enough for, out of those that it would have had.
pub(super) fn offer(slowest: Rate, connections: u16, block_bytes: Bytes) -> (u16, Bytes) {
    let rate = slowest.per_second().0;
    let enough_for = u16::try_from(rate / CONNECTION_RATE_MIN.0).unwrap_or(u16::MAX);
    let connections = connections.min(enough_for.max(1));
    let bytes = rate.saturating_mul(BLOCK_SECONDS_MAX) / u64::from(connections);
    let pages = bytes / BLOCK_BYTES_MIN.0 * BLOCK_BYTES_MIN.0;
    (connections, block_bytes.min(Bytes(pages)).max(BLOCK_BYTES_MIN))
}

impl Pace {
    fn most(&self) -> usize {
        self.rate.map_or(usize::MAX, |rate| {
            let piece = (rate.per_second().0 / PIECES_A_SECOND).max(PIECE_BYTES_MIN);
            Bytes(piece).as_usize()
        })
    }

    /// How long nothing more may be taken by whoever took so many bytes now.
    fn took(&mut self, bytes: usize, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(rate.per_second().0);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let unused_since = now.checked_sub(UNUSED_MAX).unwrap_or(now);
        self.until = self.until.max(unused_since) + takes;
        self.until.saturating_duration_since(now)
    }
}

impl SessionBrake {
    /// From now on the session's bytes come out of this portion.
    pub fn set(&self, portion: Option<Arc<Portion>>) {
        *lock(&self.0) = portion;
    }
}

impl Brake for SessionBrake {
    fn most(&self) -> usize {
        lock(&self.0).as_ref().map_or(usize::MAX, |portion| lock(&portion.pace).most())
    }

    fn took(&self, bytes: usize) -> Duration {
        let portion = lock(&self.0).clone();
        portion.map_or(Duration::ZERO, |portion| lock(&portion.pace).took(bytes, Instant::now()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bandwidth: &str) -> Limits {
        Limits { bandwidth: Some(bandwidth.parse().unwrap()), ..Limits::default() }
    }

    /// How long so many connections take to bring so many pieces each, with threads that oversleep.
    fn taken(pace: &mut Pace, connections: usize, pieces: usize, oversleep: Duration) -> Duration {
        let begun = pace.until;
        let mut free = vec![begun; connections];
        for _ in 0..connections * pieces {
            let next = free.iter_mut().min().unwrap();
            let wait = pace.took(pace.most(), *next);
            *next += if wait.is_zero() { wait } else { wait + oversleep };
        }
        free.into_iter().max().unwrap() - begun
    }

    #[test]
    fn bytes_come_as_fast_as_is_granted_whatever_brings_them() {
        for connections in [1, 4, 64] {
            for oversleep in [0, 1, 10].map(Duration::from_millis) {
                let rate = Some("8MiB".parse().unwrap());
                let mut pace = Pace { rate, until: Instant::now() };
                let taken = taken(&mut pace, connections, 320 / connections, oversleep);
                // The 32nd part of a second's bytes at a time.
                let off = (taken.as_secs_f64() / 10.0 - 1.0).abs();
                assert!(off < 0.02, "{taken:?} over {connections}, late by {oversleep:?}");
            }
        }
    }

    #[test]
    fn what_is_slow_gets_few_connections_and_small_blocks() {
        let offered = |rate: &str| {
            let (connections, Bytes(block)) = offer(rate.parse().unwrap(), 64, Bytes(16 << 20));
            (connections, block >> 10)
        };
        assert_eq!(offered("1GiB"), (64, 16 << 10));
        assert_eq!(offered("8MiB"), (16, 2 << 10));
        assert_eq!(offered("1MiB"), (2, 2 << 10));
        assert_eq!(offered("96KiB"), (1, 384));
        assert_eq!(offered("1"), (1, 4));
        assert_eq!(offer("1GiB".parse().unwrap(), 1, Bytes::MIB), (1, Bytes::MIB));
    }

    #[test]
    fn time_that_was_not_used_is_not_saved_up() {
        let now = Instant::now();
        let mut pace = Pace { rate: Some("1MiB".parse().unwrap()), until: now };
        let later = now + Duration::from_secs(60);
        let wait = pace.took(1 << 20, later);
        assert_eq!(wait + UNUSED_MAX, Duration::from_secs(1));
    }

    #[test]
    fn transfers_of_one_client_below_one_root_share_and_others_do_not() {
        let (portions, root) = (Portions::default(), "backup/a".parse().unwrap());
        let (a, b) = (Fingerprint::of(b"a"), Fingerprint::of(b"b"));
        let first = portions.of(a, &root, limits("1MiB"));
        assert!(Arc::ptr_eq(&first, &portions.of(a, &root, limits("1MiB"))));
        let others = [
            portions.of(b, &root, limits("1MiB")),
            portions.of(a, &"x".parse().unwrap(), limits("2MiB")),
        ];
        assert!(others.iter().all(|other| !Arc::ptr_eq(&first, other)));
        portions.renew(|key, _| (*key == a).then(|| limits("5MiB")));
        let rates = [&first, &others[0], &others[1]].map(|one| lock(&one.pace).rate.unwrap());
        assert_eq!(rates, ["5MiB", "1MiB", "5MiB"].map(|rate| rate.parse().unwrap()));
        drop((first, others));
        portions.of(b, &root, Limits::default());
        assert_eq!(portions.0.borrow().len(), 1, "what nobody has is forgotten");
    }

    #[test]
    fn connections_of_a_session_without_a_limit_are_not_held_back() {
        let brake = SessionBrake::default();
        assert_eq!((brake.most(), brake.took(1 << 40)), (usize::MAX, Duration::ZERO));
        let portion =
            Portions::default().of(Fingerprint::of(b"a"), &"x".parse().unwrap(), limits("1MiB"));
        brake.set(Some(portion));
        assert_eq!(brake.most(), 32 << 10);
        assert!(brake.took(1 << 20) > Duration::from_millis(900));
        brake.set(None);
        assert_eq!(brake.took(1 << 20), Duration::ZERO);
    }
}
