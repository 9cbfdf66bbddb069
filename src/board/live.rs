//! One stream on its way, as far as its run has told.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::document::TransferView;
use super::throughput::Sample;
use crate::client::Moment;
use crate::schedule::Now;
use crate::units::Bytes;

/// Over how long the rate is taken, and how often it is looked at for that.
const RATE_OVER: Duration = Duration::from_secs(10);
const RATE_EVERY: Duration = Duration::from_secs(1);

/// A stream.
#[derive(Debug)]
pub(super) struct Live {
    what: String,
    estimated: Option<Bytes>,
    since: Timestamp,
    moment: Moment,
    /// How much had been read when, oldest first: a point a second, and one that is older than the
    /// rate is taken over.
    points: VecDeque<(Duration, Bytes)>,
}

impl Live {
    /// It begins.
    pub fn new(what: &str, estimated: Option<Bytes>, now: Now) -> Live {
        Live {
            what: what.to_owned(),
            estimated,
            since: now.wall,
            moment: Moment::default(),
            points: [(now.up, Bytes(0))].into(),
        }
    }

    /// It is so far; gives back what has moved since it was told last.
    pub fn moment(&mut self, moment: Moment, now: Now) -> Sample {
        let moved = Sample {
            read: moment.read.0.saturating_sub(self.moment.read.0),
            wire: moment.wire.0.saturating_sub(self.moment.wire.0),
        };
        self.moment = moment;
        let newest = self.points.back().map_or(Duration::ZERO, |&(at, _)| at);
        if now.up.saturating_sub(newest) >= RATE_EVERY {
            self.points.push_back((now.up, moment.read));
            self.forget(now.up);
        }
        moved
    }

    fn forget(&mut self, up: Duration) {
        let is_old = |point: Option<&(Duration, Bytes)>| {
            point.is_some_and(|&(at, _)| up.saturating_sub(at) >= RATE_OVER)
        };
        while is_old(self.points.get(1)) {
            self.points.pop_front();
        }
    }

    fn rate(&self, up: Duration) -> Bytes {
        let is_young = |&&(at, _): &&(Duration, Bytes)| up.saturating_sub(at) <= RATE_OVER;
        // Where nothing was heard for so long, nothing moves.
        let Some(&(at, read)) = self.points.iter().find(is_young).or(self.points.back()) else {
            return Bytes(0);
        };
        let moved = self.moment.read.0.saturating_sub(read.0);
        Bytes(moved).per_second(up.saturating_sub(at))
    }

    /// For whoever looks.
    pub fn view(&self, now: Now) -> TransferView {
        let Moment { read, wire, fed, spooled, connections, level, route, stands_still } =
            self.moment;
        let rate = self.rate(now.up);
        let rest = self.estimated.map(|all| all.0.saturating_sub(read.0));
        TransferView {
            what: self.what.clone(),
            since: self.since,
            estimated: self.estimated,
            read,
            wire,
            fed,
            spooled,
            rate,
            eta_seconds: rest.and_then(|rest| rest.checked_div(rate.0)),
            connections,
            level: level.map(u8::from),
            lane: route,
            stands_still,
        }
    }
}
