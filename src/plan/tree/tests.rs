//! Plans for trees, told in short.

use super::*;
use crate::dataset::Kind;
use crate::listing::{Origin, TargetDataset};
use crate::pattern::Chosen;
use crate::plan::Goal;

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// `"a1 b2"`: snapshots @a of guid 1 and @b of guid 2, oldest first.
fn snapshots(text: &str) -> Vec<Snapshot> {
    let snapshot = |(place, word): (usize, &str)| Snapshot {
        name: name(&word[..1]),
        guid: name(&word[1..]),
        createtxg: 10 * (place as u64 + 1),
    };
    text.split_whitespace().enumerate().map(snapshot).collect()
}

/// `tank/a a1 b2`, one a line.
fn source(text: &str) -> Vec<SourceDataset> {
    let dataset = |line: &str| {
        let (dataset, held) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let state = SourceState {
            dataset: name(dataset),
            kind: Kind::Filesystem,
            encrypted: false,
            snapshots: snapshots(held),
            bookmarks: Vec::new(),
            origin: None,
        };
        SourceDataset { state, guid: Guid(1), origin: None, excluded: false }
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(dataset).collect()
}

fn cloned(mut all: Vec<SourceDataset>, clone: &str, origin: &str) -> Vec<SourceDataset> {
    let (dataset, snapshot) = origin.split_once('@').unwrap();
    let clone = all.iter_mut().find(|it| it.state.dataset.as_str() == clone).unwrap();
    clone.origin = Some(Origin { dataset: name(dataset), snapshot: name(snapshot) });
    all
}

fn target(text: &str) -> TargetTree {
    let datasets = source(text).into_iter().map(|it| TargetDataset {
        dataset: it.state.dataset,
        state: TargetState::Present {
            kind: Kind::Filesystem,
            snapshots: it.state.snapshots,
            resume_token: None,
            encrypted: false,
        },
    });
    TargetTree { root: name("backup/t"), datasets: datasets.collect() }
}

fn policy() -> Policy {
    Policy { goal: Goal::Newest, intermediates: true, chosen: Chosen::default() }
}

fn planned(source: Vec<SourceDataset>, to: &str) -> Tree {
    plan_tree(source, target(to), &policy(), &[]).unwrap()
}

/// `backup/t/a: 2 after 0`: two streams once the first task is done.
fn short(tree: &Tree) -> Vec<String> {
    let task = |task: &Task| {
        let what = match &task.verdict {
            Verdict::UpToDate(snapshot) => format!("={}", snapshot.name),
            Verdict::Carry(count) => count.to_string(),
            Verdict::Refused(refusal) => format!("refused, {refusal}"),
        };
        let after = task
            .after
            .iter()
            .fold(String::new(), |so_far, place| format!("{so_far} after {place}"));
        format!("{}: {what}{after}", task.target_name)
    };
    tree.tasks.iter().map(task).collect()
}

#[test]
fn each_dataset_goes_to_its_place_below_the_target_behind_what_it_lies_in() {
    let tree = planned(source("tank a1\ntank/x a2 b3\ntank/x/y a4\ntank/z a5"), "");
    let expected = [
        "backup/t: 1",
        "backup/t/x: 2 after 0",
        "backup/t/x/y: 1 after 1",
        "backup/t/z: 1 after 0",
    ];
    assert_eq!(short(&tree), expected);
}

#[test]
fn nobody_waits_for_what_is_there_and_what_is_new_is_all_that_is_sent() {
    let of = source("tank a1 b2\ntank/x a3 b4\ntank/y a5");
    let tree = planned(of, "backup/t a1\nbackup/t/x a3 b4");
    assert_eq!(short(&tree), ["backup/t: 1", "backup/t/x: =b", "backup/t/y: 1"]);
}

#[test]
fn one_dataset_that_cannot_be_copied_leaves_the_others_alone() {
    let tree = planned(source("tank a1\ntank/x a3\ntank/y a5"), "backup/t a1\nbackup/t/x a9");
    let told = short(&tree);
    assert!(told[1].starts_with("backup/t/x: refused, backup/t/x and tank/x have no"), "{told:?}");
    assert_eq!([&told[0], &told[2]], ["backup/t: =a", "backup/t/y: 1"]);
}

#[test]
fn what_is_left_out_is_told_with_the_reason_and_all_below_a_pattern_with_it() {
    let mut of = source("tank a1\ntank/tmp a2\ntank/tmp/x a3\ntank/off a4\ntank/new\ntank/y a5");
    of[3].excluded = true;
    let tree = plan_tree(of, target(""), &policy(), &[name("tmp")]).unwrap();
    assert_eq!(short(&tree), ["backup/t: 1", "backup/t/y: 1 after 0"]);
    let left_out: Vec<_> = tree.left_out.iter().map(|(name, why)| (name.as_str(), *why)).collect();
    let expected = [
        ("tank/tmp", LeftOut::Asked),
        ("tank/tmp/x", LeftOut::Asked),
        ("tank/off", LeftOut::Property),
        ("tank/new", LeftOut::NoSnapshot(Lack::HasNone)),
    ];
    assert_eq!(left_out, expected);
}

#[test]
fn what_a_dataset_lacks_is_told_by_what_was_asked_for() {
    let of = source("tank a1 b2\ntank/x\ntank/y b3");
    let chosen = Chosen { include: vec![name("a")], exclude: Vec::new() };
    let named = Policy { goal: Goal::Named(name("a")), ..policy() };
    for (policy, expected) in [
        (policy(), &[("tank/x", Lack::HasNone)][..]),
        (Policy { chosen, ..policy() }, &[("tank/x", Lack::HasNone), ("tank/y", Lack::NoneChosen)]),
        (named, &[("tank/x", Lack::NotNamed), ("tank/y", Lack::NotNamed)]),
    ] {
        let tree = plan_tree(of.clone(), target(""), &policy, &[]).unwrap();
        let lacking = expected.iter().map(|&(it, lack)| (name(it), LeftOut::NoSnapshot(lack)));
        assert_eq!(tree.left_out, lacking.collect::<Vec<_>>(), "{policy:?}");
    }
}

#[test]
fn a_tree_of_which_all_is_left_out_is_refused_with_where_to_look() {
    let mut of = source("tank a1\ntank/x a2\ntank/y a3");
    for it in &mut of {
        it.excluded = true;
    }
    let refusal = plan_tree(of.clone(), target(""), &policy(), &[]).unwrap_err();
    assert!(matches!(*refusal, Refusal::AllLeftOut { .. }), "{refusal}");
    assert!(refusal.to_string().contains("zferry:replicate=off"), "{refusal}");
    let look = "zfs get -r -s local,received,inherited zferry:replicate tank";
    assert!(refusal.remedy().contains(look), "{}", refusal.remedy());
    of[2].excluded = false;
    assert_eq!(short(&planned(of.clone(), "")), ["backup/t/y: 1"]);
    // Brought back by its owner, and left out by whoever asks.
    let refusal = plan_tree(of, target(""), &policy(), &[name("y")]).unwrap_err();
    assert!(matches!(*refusal, Refusal::AllLeftOut { .. }), "{refusal}");
}

#[test]
fn a_pattern_never_leaves_the_root_itself_out() {
    let root: DatasetName = name("tank");
    let patterns = [name("*"), name("**/c")];
    let is = |dataset: &str| is_left_out(&root, &name(dataset), &patterns[..1]);
    assert!(!is("tank") && is("tank/a") && is("tank/a/b"));
    let is = |dataset: &str| is_left_out(&root, &name(dataset), &patterns[1..]);
    assert!(!is("tank/a") && is("tank/c") && is("tank/a/c/d") && !is("tanka/c"));
}

#[test]
fn what_the_target_has_besides_is_told_and_what_is_left_out_is_none_of_it() {
    let of = source("tank a1\ntank/tmp a2");
    let to = target("backup/t a1\nbackup/t/tmp a2\nbackup/t/gone a7");
    let tree = plan_tree(of, to, &policy(), &[name("tmp")]).unwrap();
    assert_eq!(tree.extra, [name::<DatasetName>("backup/t/gone")]);
}

#[test]
fn a_dataset_that_was_renamed_is_not_sent_anew() {
    let tree = planned(source("tank a1\ntank/new a2 b3"), "backup/t a1\nbackup/t/old a2");
    let Verdict::Refused(refusal) = &tree.tasks[1].verdict else { panic!("{:?}", tree.tasks[1]) };
    assert!(refusal.to_string().contains("backup/t/old has snapshots of tank/new"), "{refusal}");
    let remedy = refusal.remedy();
    assert!(remedy.ends_with("zfs rename backup/t/old backup/t/new"), "{remedy}");
    // One of the same name that was made anew is another one.
    let tree = planned(source("tank a1\ntank/new a8"), "backup/t a1\nbackup/t/new a2");
    assert!(matches!(&tree.tasks[1].verdict, Verdict::Refused(it)
        if matches!(**it, Refusal::Unrelated { .. })));
}

#[test]
fn a_clone_is_made_of_its_origin_and_waits_for_it() {
    let of = cloned(source("tank a1\ntank/c c7\ntank/o a2 b3"), "tank/c", "tank/o@b");
    let tree = planned(of.clone(), "backup/t a1");
    assert_eq!(short(&tree), ["backup/t: =a", "backup/t/o: 2", "backup/t/c: 1 after 1"]);
    let origin = tree.tasks[2].source.origin.as_ref().unwrap();
    assert_eq!((origin.dataset.as_str(), origin.snapshot.guid), ("tank/o", Guid(3)));
    assert_eq!(tree.tasks[2].needs(), Some(&name("tank/o")));
    // What is there already need not be waited for.
    let tree = planned(of.clone(), "backup/t a1\nbackup/t/o a2 b3");
    assert_eq!(short(&tree), ["backup/t: =a", "backup/t/o: =b", "backup/t/c: 1"]);
    assert_eq!(tree.tasks[2].needs(), Some(&name("tank/o")), "it is still to be made of that");
    // One that the target has is made already.
    let tree = planned(of.clone(), "backup/t a1\nbackup/t/c c7\nbackup/t/o a2 b3");
    assert_eq!((tree.tasks.len(), tree.tasks[1].needs()), (3, None));
    assert!(tree.tasks.iter().all(|task| task.needs().is_none()));
}

#[test]
fn a_clone_of_what_will_not_be_there_is_sent_in_full() {
    let of = cloned(source("tank a1\ntank/c c7\ntank/o a2 b3"), "tank/c", "tank/o@a");
    let newest = Policy { intermediates: false, ..policy() };
    let tree = plan_tree(of.clone(), target("backup/t a1"), &newest, &[]).unwrap();
    assert_eq!(short(&tree), ["backup/t: =a", "backup/t/o: 1", "backup/t/c: 1"]);
    assert_eq!(tree.tasks[2].source.origin, None, "@a is not sent");
    let tree = plan_tree(of, target("backup/t a1"), &policy(), &[name("o")]).unwrap();
    assert_eq!(short(&tree), ["backup/t: =a", "backup/t/c: 1"]);
    assert_eq!(tree.tasks[1].source.origin, None, "tank/o is left out");
}

#[test]
fn a_clone_above_its_origin_is_sent_in_full() {
    let of = cloned(source("tank a1\ntank/c c7\ntank/c/o a2"), "tank/c", "tank/c/o@a");
    let tree = planned(of, "backup/t a1");
    assert_eq!(short(&tree), ["backup/t: =a", "backup/t/c: 1", "backup/t/c/o: 1 after 1"]);
    assert_eq!(tree.tasks[1].source.origin, None);
}

#[test]
fn a_snapshot_that_nobody_has_is_a_mistake_and_one_that_some_have_is_theirs() {
    let of = source("tank a1\ntank/x b3");
    let named = |goal: &str| Policy { goal: Goal::Named(name(goal)), ..policy() };
    let tree = plan_tree(of.clone(), target(""), &named("b"), &[]).unwrap();
    assert_eq!(short(&tree), ["backup/t/x: 1"]);
    let refusal = plan_tree(of.clone(), target(""), &named("z"), &[]).unwrap_err();
    assert!(matches!(*refusal, Refusal::UnknownSnapshot { .. }), "{refusal}");
    let none = source("tank\ntank/x");
    let refusal = plan_tree(none, target(""), &policy(), &[]).unwrap_err();
    assert!(matches!(*refusal, Refusal::NothingToSend { .. }), "{refusal}");
    let chosen = Chosen { include: vec![name("z*")], exclude: Vec::new() };
    let refusal = plan_tree(of, target(""), &Policy { chosen, ..policy() }, &[]).unwrap_err();
    assert!(matches!(*refusal, Refusal::NoneChosen { count: 1, .. }), "{refusal}");
}

#[test]
fn a_place_that_would_have_too_long_a_name_is_refused_and_nothing_else() {
    let long = "x".repeat(250);
    let tree = planned(source(&format!("t a1\nt/{long} a2")), "");
    let told = short(&tree);
    assert_eq!(told[0], "backup/t: 1");
    assert!(told[1].contains("cannot have its place at the target"), "{told:?}");
}

#[test]
fn names_are_below_a_root_only_behind_a_slash() {
    let root: DatasetName = name("tank/a");
    let of = |dataset: &str| below(&root, &name(dataset)).map(str::to_owned);
    assert_eq!(of("tank/a"), Some(String::new()));
    assert_eq!(of("tank/a/b/c"), Some("b/c".to_owned()));
    assert_eq!((of("tank/ab"), of("tank")), (None, None));
}
