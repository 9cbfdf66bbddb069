//! The decision against its promises: what is never destroyed, and what no order of pruning loses.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::decide::by_rules;
use super::{Candidate, Far, Floor, Keep, Rule, Rules, Ruling, Template, Verdict, Why};
use super::{decide, doomed, kept};
use crate::dataset::Guid;
use crate::listing::Snapshot;

const YEAR_SECONDS: i64 = 365 * 86_400;

/// 2026-08-01, a Saturday.
fn begin() -> Timestamp {
    "2026-08-01T00:30:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    begin() + SignedDuration::from_secs(seconds)
}

fn rules(keep: &str) -> Rules {
    Rules { keep: keep.parse().unwrap(), template: Template::default() }
}

/// The snapshot that is made as the `number`th, at this time.
fn snapshot(number: u64, time: Timestamp) -> Candidate {
    let name = Template::default().name_at(time).unwrap();
    let snapshot = Snapshot { name, guid: Guid(1000 + number), createtxg: 10 * number };
    Candidate { snapshot, created: time, holds: 0, cloned: false }
}

fn foreign(number: u64, name: &str) -> Candidate {
    let mut made = snapshot(number, begin());
    made.snapshot.name = name.parse().unwrap();
    made
}

/// One every so many hours.
fn every(hours: i64, count: u64) -> Vec<Candidate> {
    (0..count).map(|n| snapshot(n, after(3600 * hours * i64::try_from(n).unwrap()))).collect()
}

fn ruling_of(verdicts: &[Verdict], number: u64) -> Ruling {
    let is_it = |verdict: &&Verdict| verdict.candidate.snapshot.guid == Guid(1000 + number);
    verdicts.iter().find(is_it).unwrap().ruling
}

fn numbers(verdicts: &[Verdict], wanted: impl Fn(Ruling) -> bool) -> Vec<u64> {
    let of = |verdict: &Verdict| verdict.candidate.snapshot.guid.0 - 1000;
    verdicts.iter().filter(|verdict| wanted(verdict.ruling)).map(of).collect()
}

fn stays(ruling: Ruling) -> bool {
    ruling != Ruling::Destroy
}

#[test]
fn the_first_of_each_period_stays_and_the_reason_is_the_rule_that_keeps_it_longest() {
    // Four a day, for ten days: 0 to 39.
    let all = every(6, 40);
    let verdicts = decide(&all, &rules("last=2,daily=3,weekly=1,monthly=1"), Far::Unasked, None);
    // The first of August; three days, one of them the Monday of the week; the last two.
    assert_eq!(numbers(&verdicts, stays), [0, 28, 32, 36, 38, 39]);
    for (number, why) in [
        (0, Why::Monthly),
        (28, Why::Daily),
        (32, Why::Daily),
        (36, Why::Weekly),
        (38, Why::Last),
        (39, Why::Newest),
    ] {
        assert_eq!(ruling_of(&verdicts, number), Ruling::Keep(why), "{number}");
    }
}

#[test]
fn nothing_newer_than_the_newest_common_snapshot_goes_and_without_one_nothing_at_all() {
    let all = every(1, 10);
    let rules = rules("last=1");
    let verdicts = decide(&all, &rules, Far::Holds(Guid(1004)), None);
    assert_eq!(numbers(&verdicts, |ruling| ruling == Ruling::Destroy), [0, 1, 2, 3]);
    assert_eq!(ruling_of(&verdicts, 4), Ruling::Keep(Why::NewestCommon));
    assert_eq!(ruling_of(&verdicts, 5), Ruling::Keep(Why::NotConfirmed));
    assert_eq!(ruling_of(&verdicts, 9), Ruling::Keep(Why::Newest));
    for far in [Far::Nothing, Far::Holds(Guid(7))] {
        assert_eq!(doomed(&decide(&all, &rules, far, None)), []);
    }
    assert_eq!(doomed(&decide(&all, &rules, Far::Unasked, None)).len(), 9);
}

#[test]
fn what_is_held_cloned_or_of_another_tool_stays_and_so_does_the_newest_of_ours() {
    let mut all = every(1, 5);
    all[0].holds = 1;
    all[1].cloned = true;
    all.push(foreign(5, "autosnap_2026-08-02_00:00:00_daily"));
    let verdicts = decide(&all, &rules("yearly=1"), Far::Unasked, None);
    let whys: Vec<String> = verdicts
        .iter()
        .map(|verdict| match verdict.ruling {
            Ruling::Keep(why) => why.to_string(),
            Ruling::Destroy => "destroy".to_owned(),
        })
        .collect();
    assert_eq!(whys, ["held", "cloned", "destroy", "destroy", "newest", "not ours"]);
    assert_eq!(kept(&verdicts)[&Why::Held], 1);
    assert_eq!(kept(&verdicts).values().sum::<u64>(), 4);
}

#[test]
fn the_newest_is_the_one_that_was_made_last_whatever_its_name_says() {
    let mut all = every(1, 3);
    // A clock that went back by a year.
    all.push(snapshot(3, after(-YEAR_SECONDS)));
    all.reverse();
    let verdicts = decide(&all, &rules("last=1"), Far::Unasked, None);
    assert_eq!(numbers(&verdicts, |_| true), [0, 1, 2, 3], "the oldest comes first");
    assert_eq!(numbers(&verdicts, stays), [3]);
}

#[test]
fn an_empty_dataset_has_no_verdicts() {
    assert_eq!(decide(&[], &rules("last=1"), Far::Nothing, None), []);
}

#[test]
fn only_what_the_floor_lets_go_as_well_may_go() {
    let all = every(24, 10);
    let floor = Floor { rules: rules("daily=4"), now: after(10 * 86_400) };
    let verdicts = decide(&all, &rules("last=2"), Far::Holds(Guid(1009)), Some(&floor));
    assert_eq!(numbers(&verdicts, stays), [6, 7, 8, 9]);
    assert_eq!(ruling_of(&verdicts, 6), Ruling::Keep(Why::Floor));
    assert_eq!(ruling_of(&verdicts, 8), Ruling::Keep(Why::Last));
    // What asks for more than the floor gets it.
    let verdicts = decide(&all, &rules("last=6"), Far::Holds(Guid(1009)), Some(&floor));
    assert_eq!(numbers(&verdicts, stays), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn names_that_do_not_fit_the_template_of_the_floor_stay() {
    let template: Template = "auto_%Y-%m-%d_%H:%M:%S".parse().unwrap();
    let name = |number: i64| template.name_at(after(number * 86_400)).unwrap().to_string();
    let all: Vec<Candidate> = (0..5_u8).map(|n| foreign(n.into(), &name(n.into()))).collect();
    let wish = Rules { template: template.clone(), ..rules("last=1") };
    assert_eq!(doomed(&decide(&all, &wish, Far::Unasked, None)).len(), 4);
    let floor = Floor { rules: rules("last=1"), now: begin() };
    let verdicts = decide(&all, &wish, Far::Unasked, Some(&floor));
    assert!(verdicts.iter().all(|verdict| verdict.ruling == Ruling::Keep(Why::NotOurs)));
}

#[test]
fn snapshots_that_name_other_days_do_not_flood_a_floor() {
    let honest = every(24, 40);
    let now = after(40 * 86_400);
    let floor = Floor { rules: rules("daily=30"), now };
    // Whoever took the client over sends a hundred snapshots in an hour: of days to come, of days
    // long gone, and some that claim to be earlier on the days that are there.
    for (shift_days, hour) in [(41, 0), (-400, 0), (0, -1)] {
        let forged = (0..100_u64).map(|n| {
            let days = i64::try_from(n).unwrap() + shift_days;
            snapshot(1000 + n, after(86_400 * days + hour * 1200))
        });
        let all: Vec<Candidate> = honest.iter().cloned().chain(forged).collect();
        let verdicts = decide(&all, &rules("last=1"), Far::Holds(Guid(2099)), Some(&floor));
        for number in 11..40 {
            assert!(stays(ruling_of(&verdicts, number)), "{number} of {shift_days}");
        }
    }
    // Nor does it let anything go because nothing new has come for a year.
    let floor = Floor { now: after(40 * 86_400 + YEAR_SECONDS), ..floor };
    let verdicts = decide(&honest, &rules("last=1"), Far::Holds(Guid(1039)), Some(&floor));
    assert_eq!(numbers(&verdicts, stays), (10..40).collect::<Vec<_>>());
}

#[test]
fn two_years_of_hours_pruned_every_hour_keep_what_one_pruning_would_have_kept() {
    let keep: Keep = "last=3,hourly=24,daily=7,weekly=4,monthly=12,yearly=2".parse().unwrap();
    let times: Vec<Timestamp> = (0..17_520).map(|hour| after(hour * 3600)).collect();
    let mut left: Vec<Option<Timestamp>> = Vec::new();
    for time in &times {
        left.push(Some(*time));
        left = pruned(&left, &keep);
    }
    let all: Vec<_> = times.into_iter().map(Some).collect();
    assert_eq!(left, pruned(&all, &keep));
    assert!((40..=52).contains(&left.len()), "{}", left.len());
}

/// What is left of these by the rules alone.
fn pruned(times: &[Option<Timestamp>], keep: &Keep) -> Vec<Option<Timestamp>> {
    let why = by_rules(times, keep, None);
    times.iter().zip(why).filter(|(_, why)| why.is_some()).map(|(time, _)| *time).collect()
}

/// How many periods have begun after that of this snapshot, if it is the first of its own.
fn newer_periods(times: &[Option<Timestamp>], place: usize, rule: Rule) -> Option<usize> {
    if rule == Rule::Last {
        return Some(times.len() - 1 - place);
    }
    let period = |place: usize| rule.period(times[place].unwrap());
    let is_first = |place: usize| !(0..place).any(|other| period(other) == period(place));
    let newer = || (place + 1..times.len()).filter(|&other| is_first(other)).count();
    is_first(place).then(newer)
}

fn any_keep() -> impl Strategy<Value = Keep> {
    let counts = prop::array::uniform6(0..5_u16);
    counts.prop_filter_map("keeps nothing", |counts| {
        let part = |(rule, count)| format!("{rule}={count}");
        let parts: Vec<String> = Rule::ALL.into_iter().zip(counts).map(part).collect();
        parts.join(",").parse().ok()
    })
}

/// Seconds between snapshots: minutes, hours, days, months.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![60..3600_i64, 3600..90_000_i64, 86_400..4_000_000_i64];
    prop::collection::vec(step, 1..150)
}

/// The same with a clock that is set back or far ahead at times.
fn jumps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![
        8 => 60..90_000_i64,
        1 => -4_000_000..0_i64,
        1 => 4_000_000..2 * YEAR_SECONDS,
    ];
    prop::collection::vec(step, 1..80)
}

fn times_of(steps: Vec<i64>) -> Vec<Timestamp> {
    let at = |second: &mut i64, step: i64| {
        *second += step;
        Some(after(*second))
    };
    steps.into_iter().scan(0, at).collect()
}

/// Snapshots of all kinds, in order.
fn any_snapshots() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (60..200_000_i64, 0..6_u8);
    prop::collection::vec(one, 0..60).prop_map(|all| {
        let (mut second, mut made) = (0, Vec::new());
        for (number, (step, kind)) in (0..).zip(all) {
            second += step;
            let mut one = snapshot(number, after(second));
            match kind {
                0 => one = foreign(number, &format!("auto_{number}")),
                1 => one.holds = 1 + number % 3,
                2 => one.cloned = true,
                _ => {}
            }
            made.push(one);
        }
        made
    })
}

/// Why a snapshot must not go, by the list and by nothing of the code.
fn is_untouchable(all: &[Candidate], place: usize, far: Far) -> bool {
    let one = &all[place];
    let is_ours = |candidate: &Candidate| candidate.snapshot.name.as_str().starts_with("zferry_2");
    let later = || all[place + 1..].iter();
    let holds_this_or_later = |guid| all[place..].iter().any(|other| other.snapshot.guid == guid);
    let unconfirmed = match far {
        Far::Unasked => false,
        Far::Nothing => true,
        Far::Holds(guid) => one.snapshot.guid == guid || !holds_this_or_later(guid),
    };
    let newest = later().next().is_none() || is_ours(one) && !later().any(is_ours);
    !is_ours(one) || one.holds > 0 || one.cloned || newest || unconfirmed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pruning_after_every_snapshot_keeps_what_pruning_once_would_have_kept(
        steps in steps(),
        keep in any_keep(),
    ) {
        let all: Vec<_> = times_of(steps).into_iter().map(Some).collect();
        let mut left = Vec::new();
        for time in &all {
            left.push(*time);
            left = pruned(&left, &keep);
        }
        prop_assert_eq!(left, pruned(&all, &keep));
    }

    /// Whatever the clock does: the first of a period goes when enough other periods have begun.
    #[test]
    fn what_a_rule_has_promised_stays_until_enough_newer_periods_have_begun(
        jumps in jumps(),
        keep in any_keep(),
    ) {
        let mut left: Vec<Option<Timestamp>> = Vec::new();
        for time in times_of(jumps) {
            left.push(Some(time));
            let why = by_rules(&left, &keep, None);
            for (place, _) in why.iter().enumerate().filter(|(_, why)| why.is_none()) {
                for rule in Rule::ALL {
                    let newer = newer_periods(&left, place, rule);
                    let enough = newer.is_none_or(|newer| newer >= keep.count(rule).into());
                    prop_assert!(enough, "{rule} {place} of {left:?}");
                }
            }
            left = pruned(&left, &keep);
        }
    }

    #[test]
    fn what_must_never_go_does_not_go(
        all in any_snapshots(),
        keep in any_keep(),
        floor in prop::option::of(any_keep()),
        far in prop_oneof![
            Just(Far::Unasked),
            Just(Far::Nothing),
            (1000..1070_u64).prop_map(|guid| Far::Holds(Guid(guid))),
        ],
        now in 0..12_000_000_i64,
    ) {
        let template = Template::default();
        let rules = Rules { keep, template: template.clone() };
        let floor = floor.map(|keep| Floor { rules: Rules { keep, template }, now: after(now) });
        let verdicts = decide(&all, &rules, far, floor.as_ref());
        prop_assert_eq!(verdicts.len(), all.len());
        let plain = decide(&all, &rules, far, None);
        for (place, verdict) in verdicts.iter().enumerate() {
            prop_assert_eq!(&verdict.candidate, &all[place]);
            if verdict.ruling == Ruling::Destroy {
                prop_assert!(!is_untouchable(&all, place, far), "{:?}", verdict);
                prop_assert_eq!(plain[place].ruling, Ruling::Destroy);
            }
        }
        // The floor alone would let it go, too.
        if let Some(floor) = &floor {
            let alone = decide(&all, &floor.rules, Far::Unasked, None);
            for (verdict, alone) in verdicts.iter().zip(alone) {
                if verdict.ruling == Ruling::Destroy {
                    prop_assert_eq!(alone.ruling, Ruling::Destroy);
                }
            }
        }
    }
}
