//! Plans for targets that have a part of a snapshot.

use super::*;
use crate::token::example::Example;

/// A target that holds `held` and a part of what the token says.
fn partly(held: &str, token: &Example) -> TargetState {
    TargetState::Present {
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: snapshots(held),
        resume_token: Some(token.token()),
    }
}

/// The token of a stream of `tank/a@s`.
fn token(from: Option<u64>, to: u64) -> Example {
    Example::of(from, to, "tank/a@s")
}

#[test]
fn what_was_received_in_part_is_finished_first() {
    for (source_text, held, from, to, goal, expected) in [
        // In full: the target exists, with nothing in it.
        ("a1 b2", "", None, 1, "", "~-1"),
        ("a1 b2", "", None, 2, "b", "~-2"),
        ("a1 b2 c3", "a1", Some(1), 2, "", "~1-2"),
        ("a1 b2 c3", "a1 b2", Some(2), 3, "", "~2-3"),
        // Renamed on either side: the guid alone counts.
        ("x1 y2 z3", "a1 b2", Some(2), 3, "", "~2-3"),
        // Something older on the target is unknown to the source.
        ("b2 c3", "z9 b2", Some(2), 3, "", "~2-3"),
        // There is nothing to finish if the goal is reached without it.
        ("a1 b2 c3", "a1", Some(1), 2, "a", "=1"),
    ] {
        let target = partly(held, &token(from, to));
        let plan = planned(&source(source_text), &target, &policy(goal, true)).unwrap();
        assert_eq!(short(&plan), expected, "{source_text} to {held:?}, {from:?}-{to}");
    }
}

#[test]
fn a_resumed_step_has_the_names_of_now_and_the_token_of_then() {
    let example = Example::of(Some(1), 2, "tank/old@was");
    let plan = planned(&source("a1 b2"), &partly("x1", &example), &policy("", true)).unwrap();
    let Plan::Resume(resume) = plan else { panic!("{plan:?}") };
    assert_eq!(resume.step.to.name.as_str(), "b");
    let Some(Base::Snapshot(base)) = &resume.step.from else { panic!("{resume:?}") };
    assert_eq!(base.name.as_str(), "a");
    assert_eq!(resume.token.to_string(), example.token());
}

#[test]
fn a_bookmark_is_enough_of_a_base() {
    let mut source = source("b2");
    source.bookmarks = vec![bookmark("m1", 5)];
    let plan = planned(&source, &partly("a1", &token(Some(1), 2)), &policy("", true)).unwrap();
    assert_eq!(short(&plan), "~#1-2");
}

#[test]
fn a_clone_of_which_there_is_a_part_is_finished_as_a_clone() {
    let plan = |source: &SourceState, held, from| {
        planned(source, &partly(held, &token(from, 1)), &policy("", true))
    };
    let clone = clone_of_9("a1 b2");
    assert_eq!(short(&plan(&clone, "", Some(9)).unwrap()), "~^9-1");
    // It was begun as a dataset of its own.
    assert_eq!(short(&plan(&clone, "", None).unwrap()), "~-1");
    for (source, held, from) in [
        // Another origin, a target that has snapshots of its own, and a source that is no clone.
        (&clone, "", Some(8)),
        (&clone, "z7", Some(9)),
        (&source("a1 b2"), "", Some(9)),
    ] {
        let refusal = plan(source, held, from).unwrap_err();
        assert!(matches!(refusal, Refusal::PartlyReceived { .. }), "{refusal}");
    }
}

#[test]
fn an_encrypted_source_goes_on_raw_or_not_at_all() {
    for (encrypted, raw) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut source = source("a1 b2");
        source.encrypted = encrypted;
        let token = token(Some(1), 2);
        let token = if raw { token.with("rawok") } else { token };
        match planned(&source, &partly("a1", &token), &policy("", true)) {
            Ok(Plan::Resume(resume)) => assert!(resume.step.raw == raw && encrypted == raw),
            other => assert!(other.is_err() && encrypted != raw, "{other:?}"),
        }
    }
}

#[test]
fn partial_state_that_is_not_this_jobs_is_refused_by_name() {
    let other = |to: u64, name| Example::of(Some(1), to, name);
    for (held, token, goal, what, remedy, dead) in [
        (
            "a1",
            other(9, "tank/secret@x"),
            "",
            "it belongs to tank/secret@x (guid 9), not to tank/a",
            "zfs get receive_resume_token backup/a",
            false,
        ),
        ("a1", other(9, "tank/a@x"), "", "@x (guid 9), which no longer exists", "-A", true),
        ("a1", other(9, "tank/a@x"), "", "no longer exists", "--on-dead-token", true),
        ("a1 b2", other(2, "tank/a@b"), "", "@b (guid 2), which the target holds", "-A", false),
        ("z8", token(Some(8), 2), "", "@b (guid 2) builds on guid 8, of which", "-A", true),
        ("", token(Some(1), 2), "", "on top of guid 1, but the newest snapshot of", "-A", false),
        ("a1 z9", token(Some(1), 2), "", "target is @z (guid 9)", "destroy backup/a@z", false),
        ("a1", token(None, 2), "", "on top of nothing, but", "destroy backup/a@a", false),
        ("a1", token(Some(1), 3), "b", "@c (guid 3), which is newer", "--snapshot c", false),
        ("b9 a1", token(Some(1), 2), "", "another snapshot of the name @b", "rename", false),
        ("a1", token(Some(1), 2).with("rawok"), "", "tank/a is not encrypted", "-A", false),
        ("a1", token(Some(1), 2).with("savedok"), "", "zfs send -S", "-A", false),
        ("a1", token(Some(1), 2).with("redact_snaps"), "", "is redacted", "-A", false),
        ("a1", token(Some(1), 2).with("other"), "", "the field \"other\"", "-A", false),
    ] {
        let target = partly(held, &token);
        let refusal = planned(&source("a1 b2 c3"), &target, &policy(goal, true)).unwrap_err();
        assert_eq!(refusal.is_dead_token(), dead, "{refusal}");
        let failure = Failure::from(refusal);
        assert_eq!((failure.side, failure.class), (Side::Target, Class::Refused), "{failure}");
        assert!(failure.what.contains(what), "{what:?} is not in: {failure}");
        let told = failure.remedy.unwrap();
        assert!(told.contains(remedy), "{remedy:?} is not in: {told}");
    }
}

#[test]
fn a_token_that_would_unveil_an_encrypted_source_is_refused_by_name() {
    let mut source = source("a1 b2");
    source.encrypted = true;
    let target = partly("a1", &token(Some(1), 2));
    let refusal = planned(&source, &target, &policy("", true)).unwrap_err().to_string();
    assert!(refusal.contains("not raw, but tank/a is encrypted"), "{refusal}");
}

proptest! {
    /// Whatever a token says: what is sent is what this job would send anyway.
    #[test]
    fn a_token_never_makes_us_send_what_was_not_asked_for(
        from in prop::option::of(0..6u64), to in 0..6u64, own_name in any::<bool>(),
        flags in prop::collection::vec(
            prop_oneof![Just("rawok"), Just("embedok"), Just("savedok")], 0..2),
        held in prop_oneof![Just(""), Just("a1"), Just("a1 b2"), Just("z5 a1")],
        goal in prop_oneof![Just(""), Just("a"), Just("b"), Just("c")],
        encrypted in any::<bool>(),
    ) {
        let mut source = source("a1 b2 c3");
        source.encrypted = encrypted;
        let name = if own_name { "tank/a@s" } else { "tank/other@s" };
        let mut example = Example::of(from, to, name);
        example.flags.extend(flags);
        let goal = policy(goal, true);
        let target = partly(held, &example);
        if let Ok(Plan::Resume(resume)) = planned(&source, &target, &goal) {
            let Resume { step, token } = *resume;
            prop_assert!(sendable(&source, &step));
            prop_assert_eq!((step.to.guid, token.flags.raw), (token.to, encrypted));
            prop_assert_eq!(step.from.map(|base| base.guid()), token.from);
            prop_assert!(!token.saved && !token.redacted);
            let goal = find_goal(&source, &goal).unwrap();
            prop_assert!(step.to.createtxg <= goal.createtxg);
        }
    }
}
