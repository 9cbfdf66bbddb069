//! The decision: what of a dataset's snapshots stays, and why.
//!
//! Of each period the *first* snapshot stays, by the order in which they came to this pool. Whoever
//! is the first of a day is so for ever: nothing that comes later takes its place, so a decision
//! made every hour keeps what one made once at the end would have kept, and nothing that was
//! promised is ever lost. (With the last of each period, as some do it, the choice moves with every
//! snapshot, and whoever may send one takes the place of those before it.) A rule counts periods
//! that have a snapshot, the newest first; that one is missing costs none of the others.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Candidate, Far, Floor, Keep, Rule, Rules, Ruling, Template, Verdict, Why};

/// What becomes of each snapshot of a dataset, oldest first.
///
/// `snapshots` are all of them: which one is the newest is seen from them alone. With a floor only
/// that goes which its rules would let go as well.
pub fn decide(
    snapshots: &[Candidate],
    rules: &Rules,
    far: Far,
    floor: Option<&Floor>,
) -> Vec<Verdict> {
    let mut snapshots = snapshots.to_vec();
    snapshots.sort_by_key(|candidate| candidate.snapshot.createtxg);
    let ours = times(&snapshots, &rules.template);
    let wished = by_rules(&ours, &rules.keep, None);
    let newest_of_ours = ours.iter().rposition(Option::is_some);
    let common = common(&snapshots, far);
    let floor = floor.map(|floor| kept_by_floor(&snapshots, floor));
    let last = snapshots.len().saturating_sub(1);
    let ruling = |place: usize, candidate: &Candidate| {
        let floor = floor.as_ref().and_then(|floor| floor[place]);
        let reasons = [
            (ours[place].is_none() || floor == Some(Why::NotOurs)).then_some(Why::NotOurs),
            (candidate.holds > 0).then_some(Why::Held),
            candidate.cloned.then_some(Why::Cloned),
            (common == Common::At(place)).then_some(Why::NewestCommon),
            (place == last || Some(place) == newest_of_ours).then_some(Why::Newest),
            wished[place],
            common.leaves_open(place).then_some(Why::NotConfirmed),
            floor,
        ];
        let why = reasons.into_iter().flatten().next();
        why.map_or(Ruling::Destroy, Ruling::Keep)
    };
    let rulings: Vec<Ruling> =
        snapshots.iter().enumerate().map(|(place, one)| ruling(place, one)).collect();
    let verdict = |(candidate, ruling)| Verdict { candidate, ruling };
    snapshots.into_iter().zip(rulings).map(verdict).collect()
}

/// Where the newest snapshot stands that both sides have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Common {
    /// Nobody asks.
    Unasked,
    At(usize),
    Nowhere,
}

impl Common {
    /// Whether the other side has neither this snapshot nor anything later.
    fn leaves_open(self, place: usize) -> bool {
        match self {
            Common::Unasked => false,
            Common::At(common) => place > common,
            Common::Nowhere => true,
        }
    }
}

fn common(snapshots: &[Candidate], far: Far) -> Common {
    match far {
        Far::Unasked => Common::Unasked,
        Far::Nothing => Common::Nowhere,
        Far::Holds(guid) => {
            let is_it = |candidate: &Candidate| candidate.snapshot.guid == guid;
            snapshots.iter().rposition(is_it).map_or(Common::Nowhere, Common::At)
        }
    }
}

/// The times that the names of our snapshots tell.
fn times(snapshots: &[Candidate], template: &Template) -> Vec<Option<Timestamp>> {
    snapshots.iter().map(|candidate| template.time_of(&candidate.snapshot.name)).collect()
}

/// Why the floor keeps a snapshot, if it does.
fn kept_by_floor(snapshots: &[Candidate], floor: &Floor) -> Vec<Option<Why>> {
    let Floor { rules, now } = floor;
    let times = times(snapshots, &rules.template);
    let kept = by_rules(&times, &rules.keep, Some(*now));
    let why = |(time, kept): (&Option<Timestamp>, Option<Why>)| match (time, kept) {
        (None, _) => Some(Why::NotOurs),
        (Some(_), Some(_)) => Some(Why::Floor),
        (Some(_), None) => None,
    };
    times.iter().zip(kept).map(why).collect()
}

/// By which rule a snapshot stays, if it does: the one that keeps it longest. Oldest first, `None`
/// for what is not ours. With a time, the periods before that time are kept as well, whether any
/// came later or not.
pub(super) fn by_rules(
    times: &[Option<Timestamp>],
    keep: &Keep,
    now: Option<Timestamp>,
) -> Vec<Option<Why>> {
    let mut why = vec![None; times.len()];
    for rule in Rule::ALL {
        let count = usize::from(keep.count(rule));
        for place in firsts(times, rule).into_iter().rev().take(count) {
            why[place] = Some(rule.into());
        }
        let Some(current) = now.and_then(|now| rule.period(now)) else { continue };
        let oldest = current.saturating_sub(i64::from(keep.count(rule)));
        for place in firsts(times, rule) {
            if times[place].and_then(|time| rule.period(time)) > Some(oldest) && count > 0 {
                why[place] = Some(rule.into());
            }
        }
    }
    why
}

/// The first snapshot of each period, in the order in which they were made; for a rule without
/// periods, all of them.
fn firsts(times: &[Option<Timestamp>], rule: Rule) -> Vec<usize> {
    let ours = times.iter().enumerate().filter_map(|(place, time)| Some((place, (*time)?)));
    let mut firsts = BTreeMap::new();
    let mut all = Vec::new();
    for (place, time) in ours {
        match rule.period(time) {
            Some(period) => drop(firsts.entry(period).or_insert(place)),
            None => all.push(place),
        }
    }
    // Not by their periods: where a clock went back, what came later counts as newer all the same.
    all.extend(firsts.into_values());
    all.sort_unstable();
    all
}
