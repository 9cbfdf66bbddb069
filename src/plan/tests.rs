//! Plans for chosen and for random histories, carried out on a model of a target.
//!
//! The model takes a stream only as `zfs receive` without `-F` would. A plan that needs more than
//! that must never be made.

use proptest::prelude::*;

mod resume;

use super::*;
use crate::dataset::Kind;
use crate::error::{Class, Failure, Side};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// `"a1 b2"`: snapshots @a of guid 1 and @b of guid 2, oldest first. The source's clock runs by
/// tens, so that a bookmark can lie between.
fn snapshots(text: &str) -> Vec<Snapshot> {
    let snapshot = |(place, word): (usize, &str)| Snapshot {
        name: name(&word[..1]),
        guid: name(&word[1..]),
        createtxg: 10 * (place as u64 + 1),
    };
    text.split_whitespace().enumerate().map(snapshot).collect()
}

fn source(text: &str) -> SourceState {
    SourceState {
        dataset: name("tank/a"),
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: snapshots(text),
        bookmarks: Vec::new(),
        origin: None,
    }
}

fn bookmark(text: &str, createtxg: u64) -> Bookmark {
    Bookmark { name: name(&text[..1]), guid: name(&text[1..]), createtxg }
}

fn holding(text: &str) -> TargetState {
    TargetState::Present {
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: snapshots(text),
        resume_token: None,
    }
}

/// The same, encrypted.
fn holding_raw(text: &str) -> TargetState {
    match holding(text) {
        TargetState::Present { kind, snapshots, resume_token, .. } => {
            TargetState::Present { kind, encrypted: true, snapshots, resume_token }
        }
        TargetState::Absent => TargetState::Absent,
    }
}

fn policy(goal: &str, intermediates: bool) -> Policy {
    let goal = if goal.is_empty() { Goal::Newest } else { Goal::Named(name(goal)) };
    Policy { goal, intermediates, chosen: Chosen::default() }
}

fn planned(source: &SourceState, target: &TargetState, policy: &Policy) -> Result<Plan, Refusal> {
    plan(source, &name("backup/a"), target, policy)
}

/// A plan in short: `-1 1-2` is a full stream of guid 1, then guid 2 on top of it; `#1-2` builds
/// on a bookmark, `^1-2` makes a clone.
fn short(plan: &Plan) -> String {
    match plan {
        Plan::UpToDate { snapshot } => format!("={}", snapshot.guid),
        Plan::Resume(resume) => format!("~{}", short_step(&resume.step)),
        Plan::Steps(steps) => steps.iter().map(short_step).collect::<Vec<_>>().join(" "),
    }
}

fn short_step(step: &Step) -> String {
    let from = match &step.from {
        None => String::new(),
        Some(Base::Snapshot(base)) => base.guid.to_string(),
        Some(Base::Bookmark(base)) => format!("#{}", base.guid),
        Some(Base::Origin { snapshot, .. }) => format!("^{}", snapshot.guid),
    };
    format!("{from}-{}", step.to.guid)
}

/// A clone of `tank/o@o`, of guid 9.
fn clone_of_9(text: &str) -> SourceState {
    let snapshot = Snapshot { name: name("o"), guid: Guid(9), createtxg: 5 };
    let origin = Some(OriginSnapshot { dataset: name("tank/o"), snapshot });
    SourceState { origin, ..source(text) }
}

#[test]
fn an_absent_target_of_a_clone_is_made_a_clone() {
    let clone = clone_of_9("a1 b2 c3");
    for (goal, intermediates, expected) in
        [("", false, "^9-3"), ("", true, "^9-1 1-2 2-3"), ("a", true, "^9-1")]
    {
        let plan = planned(&clone, &TargetState::Absent, &policy(goal, intermediates)).unwrap();
        assert_eq!(short(&plan), expected, "{goal:?}");
    }
    // From then on it is a dataset like others, and so is one that was made by a full stream.
    let plan = planned(&clone, &holding("a1"), &policy("", true)).unwrap();
    assert_eq!(short(&plan), "1-2 2-3");
    assert!(planned(&clone, &holding("z9"), &policy("", true)).is_err());
}

#[test]
fn an_absent_target_gets_a_full_stream_first() {
    let source = source("a1 b2 c3");
    for (goal, intermediates, expected) in [
        ("", false, "-3"),
        ("", true, "-1 1-2 2-3"),
        ("b", false, "-2"),
        ("b", true, "-1 1-2"),
        ("a", true, "-1"),
    ] {
        let plan = planned(&source, &TargetState::Absent, &policy(goal, intermediates)).unwrap();
        assert_eq!(short(&plan), expected, "goal {goal:?}, intermediates {intermediates}");
    }
}

#[test]
fn a_target_with_snapshots_gets_incrementals_on_its_newest() {
    for (source_text, held, goal, intermediates, expected) in [
        ("a1 b2 c3", "a1", "", false, "1-3"),
        ("a1 b2 c3", "a1", "", true, "1-2 2-3"),
        ("a1 b2 c3", "a1 b2", "", true, "2-3"),
        ("a1 b2 c3 d4", "a1", "c", true, "1-2 2-3"),
        ("a1 b2 c3 d4", "a1", "c", false, "1-3"),
        // Renamed on either side: the guid alone counts.
        ("a1 b2 c3", "x1 y2", "", false, "2-3"),
        // What is gone at the source does not matter below the newest.
        ("b2 c3", "a1 b2", "", true, "2-3"),
        // Held, though in another order than the source's: never sent again.
        ("a1 b2 c3", "b2 a1", "", true, "1-3"),
        // Nothing to do.
        ("a1 b2 c3", "a1 c3", "", true, "=3"),
        ("a1 b2 c3", "a1 b2", "a", true, "=1"),
        ("a1 b2 c3", "b2", "b", false, "=2"),
        // Nothing to do although the target has a snapshot of its own on top.
        ("a1 b2", "b2 z9", "", false, "=2"),
    ] {
        let plan = planned(&source(source_text), &holding(held), &policy(goal, intermediates));
        assert_eq!(short(&plan.unwrap()), expected, "{source_text} to {held}, goal {goal:?}");
    }
}

#[test]
fn a_bookmark_is_a_base_where_the_snapshot_is_gone() {
    let mut source = source("b2 c3");
    source.bookmarks = vec![bookmark("m1", 5), bookmark("n2", 10)];
    for (held, intermediates, expected) in
        [("a1", false, "#1-3"), ("a1", true, "#1-2 2-3"), ("a1 b2", true, "2-3")]
    {
        let plan = planned(&source, &holding(held), &policy("", intermediates)).unwrap();
        assert_eq!(short(&plan), expected, "{held}");
    }
    source.bookmarks = vec![bookmark("m1", 15)];
    let behind = planned(&source, &holding("a1"), &policy("b", false));
    assert!(matches!(behind, Err(Refusal::Behind { .. })), "{behind:?}");
}

#[test]
fn encrypted_sources_are_sent_raw_in_every_step() {
    let mut source = source("a1 b2 c3");
    for encrypted in [false, true] {
        source.encrypted = encrypted;
        let Plan::Steps(steps) = planned(&source, &TargetState::Absent, &policy("", true)).unwrap()
        else {
            panic!("nothing planned");
        };
        assert!(steps.iter().all(|step| step.raw == encrypted));
    }
}

#[test]
fn an_encrypted_source_is_never_sent_raw_on_top_of_what_lies_in_clear() {
    let (clear, goal) = (source("a1 b2"), policy("", true));
    let secret = SourceState { encrypted: true, ..clear.clone() };
    let refusal = planned(&secret, &holding("a1"), &goal).unwrap_err();
    assert!(matches!(refusal, Refusal::InClear { .. }), "{refusal}");
    let failure = Failure::from(refusal);
    assert_eq!((failure.side, failure.class), (Side::Target, Class::Refused), "{failure}");
    assert!(failure.what.contains("backup/a holds its @a (guid 1) unencrypted"), "{failure}");
    let remedy = failure.remedy.unwrap();
    assert!(remedy.contains("zfs rename backup/a backup/a.old"), "{remedy}");
    for (source, target, expected) in [
        (&secret, holding_raw("a1"), "1-2"),
        // There is nothing to mix.
        (&secret, holding("a1 b2"), "=2"),
        // It may lie below an encrypted dataset.
        (&clear, holding_raw("a1"), "1-2"),
    ] {
        assert_eq!(short(&planned(source, &target, &goal).unwrap()), expected);
    }
    // What they have in common comes first: nothing here was ever sent.
    let unrelated = planned(&secret, &holding("z9"), &goal).unwrap_err();
    assert!(matches!(unrelated, Refusal::Unrelated { .. }), "{unrelated}");
}

/// Everything that is refused, with the words that the operator gets.
#[test]
fn refusals_name_what_is_in_the_way_and_what_to_do() {
    let token = || TargetState::Present {
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: snapshots("a1"),
        resume_token: Some("1-f00".to_owned()),
    };
    let volume = TargetState::Present {
        kind: Kind::Volume,
        encrypted: false,
        snapshots: snapshots("a1"),
        resume_token: None,
    };
    for (source_text, target, goal, side, what, remedy) in [
        (
            "",
            TargetState::Absent,
            "",
            Side::Source,
            "tank/a has no snapshot",
            "zfs snapshot tank/a@",
        ),
        (
            "a1 b2",
            TargetState::Absent,
            "A",
            Side::Source,
            "no snapshot @A; did you mean @a",
            "zfs list",
        ),
        (
            "a1",
            volume,
            "",
            Side::Target,
            "backup/a is a volume, but tank/a is a filesystem",
            "choose",
        ),
        ("a1 b2", token(), "", Side::Target, "token cannot be read", "zfs receive -A backup/a"),
        ("a1", holding(""), "", Side::Target, "exists and has no snapshot", "zfs destroy backup/a"),
        ("a1", holding("z9"), "", Side::Target, "@z (guid 9)", "zfs rename backup/a backup/a.old"),
        ("a1", holding("z9"), "", Side::Target, "@a (guid 1)", "does not exist yet"),
        ("a1 c3", holding("a1 b2"), "", Side::Target, "@b (guid 2)", "zfs rollback -r backup/a@a"),
        ("a1 c3", holding("x1 b2"), "", Side::Target, "@x (guid 1)", "zfs rollback -r backup/a@x"),
        ("a1 c3", holding("a1 b2"), "", Side::Target, "@c (guid 3)", "rollback"),
        ("a1 b2 c3", holding("a1 c3"), "b", Side::Target, "lacks @b (guid 2)", "tank/a@b"),
        // A rollback would not help: the goal is older than the newest that both have.
        ("a1 b2 c3", holding("a1 c3 z9"), "b", Side::Target, "newer @c (guid 3)", "tank/a@b"),
        ("a1 b2", holding("b9 a1"), "", Side::Target, "@b (guid 9)", "zfs rename backup/a@b"),
    ] {
        let refusal = planned(&source(source_text), &target, &policy(goal, true)).unwrap_err();
        let failure = Failure::from(refusal);
        assert_eq!((failure.side, failure.class), (side, Class::Refused), "{failure}");
        assert!(failure.what.contains(what), "{what:?} is not in: {failure}");
        let told = failure.remedy.unwrap();
        assert!(told.contains(remedy), "{remedy:?} is not in: {told}");
    }
}

#[test]
fn a_name_on_the_way_is_taken_only_if_it_is_sent() {
    let (source, target) = (source("a1 b2 c3"), holding("b9 a1"));
    assert_eq!(short(&planned(&source, &target, &policy("", false)).unwrap()), "1-3");
    let taken = planned(&source, &target, &policy("", true));
    assert!(matches!(taken, Err(Refusal::NameTaken { .. })), "{taken:?}");
}

#[test]
fn a_token_is_in_the_way_only_if_there_is_something_to_send() {
    let target = TargetState::Present {
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: snapshots("a1"),
        resume_token: Some("1-f00".to_owned()),
    };
    assert_eq!(short(&planned(&source("a1"), &target, &policy("", true)).unwrap()), "=1");
}

/// What happened on both sides before the plan: who has which guid.
#[derive(Clone, Debug)]
struct History {
    source: SourceState,
    target: TargetState,
    policy: Policy,
}

prop_compose! {
    /// Up to twelve moments in time; each left a snapshot, a bookmark or nothing at the source, and
    /// a copy or nothing at the target, which may have added one of its own.
    fn histories()(
        moments in prop::collection::vec((0..4u8, any::<bool>(), 0..8u8), 0..12),
        absent in prop::bool::weighted(0.2),
        (encrypted, target_encrypted, intermediates) in any::<(bool, bool, bool)>(),
        goal in prop::option::of(0..12usize),
        other_guid in any::<bool>(),
    ) -> History {
        let mut state = source("");
        state.encrypted = encrypted;
        let mut held = Vec::new();
        for (moment, (left, copied, own)) in moments.into_iter().enumerate() {
            let createtxg = 10 * (moment as u64 + 1);
            // High guids: nothing on the way may take them for signed numbers.
            let guid = Guid(u64::MAX - createtxg);
            let name: SnapName = format!("s{moment}").parse().unwrap();
            let snapshot = Snapshot { name: name.clone(), guid, createtxg };
            if left & 1 == 1 { state.snapshots.push(snapshot.clone()) }
            if left & 2 == 2 { state.bookmarks.push(Bookmark { name, guid, createtxg }) }
            // The target's clock is another one.
            let on_target = |guid, name: &str| Snapshot {
                name: name.parse().unwrap(), guid, createtxg: 7 + moment as u64,
            };
            if copied { held.push(on_target(guid, snapshot.name.as_str())) }
            if own == 0 {
                let next = moment + 1;
                let taken = if other_guid { format!("s{next}") } else { format!("own{moment}") };
                held.push(on_target(Guid(moment as u64 + 1), &taken));
            }
        }
        let named = goal.and_then(|place| state.snapshots.get(place));
        let goal = named.map_or(Goal::Newest, |snapshot| Goal::Named(snapshot.name.clone()));
        let present = TargetState::Present {
            kind: Kind::Filesystem, encrypted: target_encrypted, snapshots: held,
            resume_token: None,
        };
        let target = if absent { TargetState::Absent } else { present };
        let policy = Policy { goal, intermediates, chosen: Chosen::default() };
        History { source: state, target, policy }
    }
}

/// Receives one step as `zfs receive` without `-F` would, or says why not.
fn receive(held: &mut Vec<Snapshot>, exists: &mut bool, step: &Step) -> Result<(), String> {
    match &step.from {
        None if *exists => return Err("destination exists".to_owned()),
        None => *exists = true,
        Some(base) if held.last().map(|newest| newest.guid) != Some(base.guid()) => {
            return Err("most recent snapshot does not match incremental source".to_owned());
        }
        Some(_) => {}
    }
    if held.iter().any(|snapshot| snapshot.guid == step.to.guid) {
        return Err("sent twice".to_owned());
    }
    if held.iter().any(|snapshot| snapshot.name == step.to.name) {
        return Err("destination already exists".to_owned());
    }
    held.push(step.to.clone());
    Ok(())
}

/// The base is something that the source can send from: it exists there and is older.
fn sendable(source: &SourceState, step: &Step) -> bool {
    let older = |createtxg: u64| createtxg < step.to.createtxg;
    let base_exists = match &step.from {
        None => true,
        Some(Base::Snapshot(base)) => source.snapshots.contains(base) && older(base.createtxg),
        Some(Base::Bookmark(base)) => {
            let gone = source.snapshots.iter().all(|snapshot| snapshot.guid != base.guid);
            source.bookmarks.contains(base) && older(base.createtxg) && gone
        }
        Some(Base::Origin { dataset, snapshot }) => {
            let origin = OriginSnapshot { dataset: dataset.clone(), snapshot: snapshot.clone() };
            source.origin == Some(origin) && older(snapshot.createtxg)
        }
    };
    base_exists && source.snapshots.contains(&step.to) && step.raw == source.encrypted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_plan_leads_to_the_goal_by_streams_that_zfs_takes(history in histories()) {
        let History { source, target, policy } = history;
        let (mut held, mut exists) = match &target {
            TargetState::Absent => (Vec::new(), false),
            TargetState::Present { snapshots, .. } => (snapshots.clone(), true),
        };
        let in_clear = matches!(target, TargetState::Present { encrypted: false, .. });
        match planned(&source, &target, &policy) {
            Ok(Plan::UpToDate { snapshot }) => {
                prop_assert!(held.iter().any(|held| held.guid == snapshot.guid));
            }
            Ok(Plan::Resume(resume)) => prop_assert!(false, "nothing to resume: {resume:?}"),
            Ok(Plan::Steps(steps)) => {
                prop_assert!(!steps.is_empty());
                for step in &steps {
                    prop_assert!(sendable(&source, step), "{step:?} cannot be sent");
                    prop_assert!(!(step.raw && in_clear), "raw on top of what lies in clear");
                    let received = receive(&mut held, &mut exists, step);
                    prop_assert!(received.is_ok(), "{step:?}: {received:?}");
                }
                let goal = find_goal(&source, &policy).unwrap();
                prop_assert_eq!(held.last().unwrap().guid, goal.guid);
                prop_assert!(policy.intermediates || steps.len() == 1);
            }
            Err(Refusal::InClear { common, .. }) => {
                prop_assert!(source.encrypted && in_clear);
                prop_assert!(known_base(&source, common.guid).is_some());
            }
            Err(refusal) => prop_assert!(refused_rightly(&source, &held, &refusal), "{refusal}"),
        }
    }
}

/// A refusal is right only where its own words are true; an over-careful planner helps nobody.
fn refused_rightly(source: &SourceState, held: &[Snapshot], refusal: &Refusal) -> bool {
    let known = |guid| known_base(source, guid).is_some();
    let newest = held.last();
    match refusal {
        Refusal::NothingToSend { .. } => source.snapshots.is_empty(),
        Refusal::Empty { .. } => held.is_empty(),
        Refusal::Unrelated { .. } => held.iter().all(|held| !known(held.guid)),
        Refusal::Diverged { common, .. } => {
            known(common.guid) && newest.is_some_and(|newest| !known(newest.guid))
        }
        Refusal::Behind { goal, common, .. } => {
            let goal = source.snapshots.iter().find(|snapshot| snapshot.guid == goal.guid).unwrap();
            known_base(source, common.guid).is_some_and(|base| base.createtxg() > goal.createtxg)
        }
        Refusal::NameTaken { wanted, .. } => held.iter().any(|held| held.name == wanted.name),
        // Trees and patterns have tests of their own.
        Refusal::NoneChosen { .. }
        | Refusal::AllLeftOut { .. }
        | Refusal::Renamed { .. }
        | Refusal::NoName { .. }
        | Refusal::UnknownSnapshot { .. }
        | Refusal::OtherKind { .. }
        | Refusal::InClear { .. }
        | Refusal::PartlyReceived { .. } => false,
    }
}
