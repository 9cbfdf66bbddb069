//! Which part of a stream's way stands still, and since when.
//!
//! Pure. The source may be slow, the network may be gone without a word, `zfs receive` may wait for
//! its disks: from far away all three look alike, and only one of them can be mended from here. A
//! slow part must never be taken for one that stands still: any byte that reaches the far end, and
//! any for which there is room at last, is progress.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::StreamOffset;

/// A part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Culprit {
    /// Nothing comes out of `zfs send`.
    #[serde(rename = "source read")]
    SourceRead,
    /// What was sent does not arrive, or nobody hears that it did.
    Wire,
    /// What has arrived is not taken, or what was taken is not finished.
    Receive,
}

/// How far a stream is along its way, as the sending side knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// What came out of the source.
    pub read: StreamOffset,
    /// The source has ended.
    pub ended: bool,
    /// What was given to a connection; the rest waits for room at the receiver, or for its turn.
    pub sent: StreamOffset,
    /// Whether nothing of it is under way, and the next block waits for room at the receiver. One
    /// that stands anew has lost what was sent to it, and may have no room for that yet.
    pub waits_for_room: bool,
    /// Whether there is a connection to the other side at all.
    pub connected: bool,
    /// What the receiver has got.
    pub received: StreamOffset,
    /// What its sink has taken.
    pub fed: StreamOffset,
    /// How long a block is on the wire at its limit; nothing else moves meanwhile.
    pub block_takes: Duration,
}

/// How much longer than the timeout a wire is left alone at most.
const PATIENCE_MAX: u32 = 32;

/// What is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing has reached the far end for so long, and this part is to blame.
    StandsStill {
        /// Which.
        culprit: Culprit,
        /// For how long.
        since: Duration,
        /// It is a wire that is there, and it is time to connect it anew.
        renew: bool,
    },
    /// It moves again.
    Moves {
        /// After how long.
        after: Duration,
    },
}

/// Watches one stream.
#[derive(Clone, Debug)]
pub struct Watchdog {
    timeout: Duration,
    fed: StreamOffset,
    sent: StreamOffset,
    moved: Duration,
    block_takes: Duration,
    /// What stands still, and when that was said last.
    blamed: Option<(Culprit, Duration)>,
    /// How long a wire may stand still before it is connected anew.
    patience: Duration,
}

impl Watchdog {
    /// Watches a stream that begins at `now`, the time since any fixed moment; speaks when nothing
    /// has moved for `timeout`.
    pub fn new(timeout: Duration, now: Duration) -> Watchdog {
        let start = StreamOffset(0);
        Watchdog {
            timeout,
            fed: start,
            sent: start,
            moved: now,
            block_takes: Duration::ZERO,
            blamed: None,
            patience: timeout,
        }
    }

    /// Looks at the stream at `now`. A stall is told again whenever it has lasted as long again.
    pub fn look(&mut self, now: Duration, way: Way) -> Option<News> {
        let since = now.saturating_sub(self.moved);
        // What can be sent now had room made for it, and has yet to show whether it arrives.
        if way.fed > self.fed || way.sent > self.sent {
            (self.fed, self.sent, self.moved) = (way.fed, way.sent, now);
            self.block_takes = way.block_takes;
            self.patience = twice(since, self.timeout_of(way));
            return self.blamed.take().map(|_| News::Moves { after: since });
        }
        if self.block_takes != way.block_takes && self.blamed.is_none() {
            // The block under way is a matter of neither the old rate nor the new one.
            (self.block_takes, self.moved) = (way.block_takes, now);
            return None;
        }
        let (culprit, timeout) = (way.culprit(), self.timeout_of(way));
        let is_known =
            self.blamed.is_some_and(|(known, said)| known == culprit && now < said + timeout);
        if since < timeout || is_known {
            return None;
        }
        self.blamed = Some((culprit, now));
        let renew = culprit == Culprit::Wire && way.connected && since >= self.patience;
        if renew {
            self.patience = twice(since, timeout);
        }
        Some(News::StandsStill { culprit, since, renew })
    }

    /// A source that is silent says so at once; whatever is behind it may wait for a block.
    fn timeout_of(&self, way: Way) -> Duration {
        match way.culprit() {
            Culprit::SourceRead => self.timeout,
            Culprit::Wire | Culprit::Receive => self.timeout.saturating_add(way.block_takes),
        }
    }

    /// What stands still at this moment.
    pub fn blamed(&self) -> Option<Culprit> {
        self.blamed.map(|(culprit, _)| culprit)
    }
}

/// A line may be so slow that a block takes longer than the timeout, and over a new connection it
/// begins again: so each is left alone for twice as long as the one before.
fn twice(since: Duration, timeout: Duration) -> Duration {
    since.saturating_mul(2).clamp(timeout, timeout.saturating_mul(PATIENCE_MAX))
}

impl Way {
    /// The part to blame, if nothing moves.
    fn culprit(self) -> Culprit {
        if !self.connected {
            Culprit::Wire
        } else if self.fed == self.read && !self.ended {
            Culprit::SourceRead
        } else if self.sent == self.received || self.received > self.fed || self.waits_for_room {
            // All that was sent has arrived. For the rest the receiver has no room.
            Culprit::Receive
        } else {
            Culprit::Wire
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Culprit::SourceRead => "source read",
            Culprit::Wire => "wire",
            Culprit::Receive => "receive",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn way(read: u64, received: u64, fed: u64) -> Way {
        Way {
            read: StreamOffset(read),
            ended: false,
            sent: StreamOffset(read),
            waits_for_room: false,
            connected: true,
            received: StreamOffset(received),
            fed: StreamOffset(fed),
            block_takes: Duration::ZERO,
        }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_part_that_stands_still_is_named() {
        for (way, culprit) in [
            (way(5, 5, 5), Culprit::SourceRead),
            (way(0, 0, 0), Culprit::SourceRead),
            (way(9, 6, 5), Culprit::Receive),
            (Way { ended: true, ..way(5, 5, 5) }, Culprit::Receive),
            (way(9, 5, 5), Culprit::Wire),
            (Way { sent: StreamOffset(5), ..way(9, 5, 5) }, Culprit::Receive),
            (Way { sent: StreamOffset(7), ..way(9, 5, 5) }, Culprit::Wire),
            (Way { ended: true, ..way(9, 5, 5) }, Culprit::Wire),
            (Way { waits_for_room: true, ..way(9, 5, 5) }, Culprit::Receive),
            (Way { connected: false, ..way(9, 6, 5) }, Culprit::Wire),
        ] {
            assert_eq!(way.culprit(), culprit, "{way:?}");
        }
    }

    #[test]
    fn a_stall_is_told_every_so_often_and_so_is_its_end() {
        let mut dog = Watchdog::new(TIMEOUT, s(90));
        assert_eq!(dog.look(s(100), way(9, 0, 0)), None);
        assert_eq!(dog.look(s(129), way(9, 0, 0)), None);
        let told = News::StandsStill { culprit: Culprit::Wire, since: s(30), renew: true };
        assert_eq!(dog.look(s(130), way(9, 0, 0)), Some(told));
        assert_eq!(dog.look(s(131), way(9, 0, 0)), None);
        let told = News::StandsStill { culprit: Culprit::Wire, since: s(60), renew: true };
        assert_eq!(dog.look(s(160), way(9, 0, 0)), Some(told));
        assert_eq!(dog.blamed(), Some(Culprit::Wire));
        let told = News::StandsStill { culprit: Culprit::Receive, since: s(65), renew: false };
        assert_eq!(dog.look(s(165), way(9, 1, 0)), Some(told));
        assert_eq!(dog.look(s(170), way(9, 1, 1)), Some(News::Moves { after: s(70) }));
        assert_eq!(dog.blamed(), None);
        assert_eq!(dog.look(s(171), way(9, 9, 9)), None);
    }

    /// After how many seconds a wire is connected anew that stands still for ten minutes, and stood
    /// still at `from` already.
    fn renewals(dog: &mut Watchdog, from: u64, way: Way) -> Vec<u64> {
        dog.look(s(from), way);
        let renews = |news| matches!(news, Some(News::StandsStill { renew: true, .. }));
        (1..=600).filter(|&later| renews(dog.look(s(from + later), way))).collect()
    }

    #[test]
    fn a_wire_that_is_connected_anew_is_left_alone_for_longer_each_time() {
        let mut dog = Watchdog::new(TIMEOUT, s(0));
        assert_eq!(renewals(&mut dog, 0, way(9, 0, 0)), [30, 60, 120, 240, 480]);
    }

    #[test]
    fn a_wire_that_was_slow_is_left_alone_for_as_long_again_and_one_that_is_fast_is_not() {
        let mut dog = Watchdog::new(TIMEOUT, s(0));
        assert_eq!(renewals(&mut dog, 0, way(9, 0, 0)).len(), 5);
        assert_eq!(renewals(&mut dog, 601, way(9, 1, 1)), [0; 0]);
        assert!(dog.look(s(1202), way(9, 2, 2)).is_some(), "it moves");
        assert_eq!(renewals(&mut dog, 1203, way(9, 3, 3)), [30, 60, 120, 240, 480]);
    }

    /// What is said of a wire or a receiver where a block takes 50 seconds, of which so many have
    /// passed.
    fn limited(at: u64, way: Way) -> Option<News> {
        let way = Way { block_takes: s(50), ..way };
        let mut dog = Watchdog::new(TIMEOUT, s(0));
        assert_eq!(dog.look(s(0), Way { sent: StreamOffset(1), ..way }), None);
        dog.look(s(at), Way { sent: StreamOffset(1), ..way })
    }

    #[test]
    fn what_a_block_takes_at_its_limit_is_no_stall_and_what_comes_after_it_is() {
        for (way, culprit, at) in [
            (way(9, 0, 0), Culprit::Wire, 80),
            // It has just arrived.
            (way(9, 1, 0), Culprit::Receive, 80),
            (way(0, 0, 0), Culprit::SourceRead, 30),
        ] {
            assert_eq!(limited(at - 1, way), None, "{culprit}");
            let renew = culprit == Culprit::Wire;
            let told = News::StandsStill { culprit, since: s(at), renew };
            assert_eq!(limited(at, way), Some(told));
        }
    }

    #[test]
    fn a_limit_that_changes_is_waited_for_anew() {
        let mut dog = Watchdog::new(TIMEOUT, s(0));
        let slow = Way { block_takes: s(50), ..way(9, 0, 0) };
        assert_eq!(dog.look(s(0), slow), None);
        assert_eq!(dog.look(s(60), slow), None);
        assert_eq!(dog.look(s(61), way(9, 0, 0)), None, "the rest of the block is under way");
        assert!(dog.look(s(91), way(9, 0, 0)).is_some());
        assert_eq!(dog.look(s(92), slow), None, "but one that was blamed has to move first");
        assert_eq!(dog.blamed(), Some(Culprit::Wire));
    }

    #[test]
    fn a_slow_stream_is_never_blamed() {
        let mut dog = Watchdog::new(TIMEOUT, s(0));
        for step in 1..100 {
            assert_eq!(dog.look(s(29 * step), way(200, step, step)), None);
        }
    }
}
