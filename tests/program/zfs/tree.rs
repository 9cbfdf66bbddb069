//! What `zferry::zfs` reads of whole trees, against the stand-in and against scripts.

use std::fs;
use std::process::Command;

use tempfile::TempDir;
use zferry::dataset::{DatasetName, Guid, Kind};
use zferry::error::{Class, Side};
use zferry::listing::{Origin, SourceDataset, TargetState};
use zferry::units::Bytes;
use zferry::zfs::written::Without;
use zferry::zfs::{Zfs, ZfsError};

use super::dataset;
use crate::support::executable;
use crate::support::stand_in::{Failing, StandIn};

/// A host with a tree of four datasets, and one beside it whose name begins alike.
fn host() -> (StandIn, Zfs) {
    let host = StandIn::new();
    for name in ["tank/t", "tank/t/b c", "tank/t-x", "tank/t/b-c", "tank/t/b c/d"] {
        host.dataset(name, "filesystem");
    }
    host.dataset("tank/t/v", "volume");
    // In turn, as a schedule takes them.
    for snapshot in ["one", "two"] {
        for name in ["tank/t", "tank/t/b c", "tank/t-x", "tank/t/b c/d", "tank/t/v"] {
            host.snapshot(name, snapshot, b"x");
        }
    }
    let zfs = Zfs::at(host.program());
    (host, zfs)
}

fn names(tree: &[SourceDataset]) -> Vec<&str> {
    tree.iter().map(|one| one.state.dataset.as_str()).collect()
}

#[test]
fn a_tree_is_read_in_two_calls_and_each_dataset_is_what_it_is_alone() {
    let (host, zfs) = host();
    host.encrypt("tank/t/v");
    host.bookmark("tank/t/b c", "one", "m");
    host.destroy("tank/t/b c@one");
    host.is_clone("tank/t/b c/d", "tank/t/v@one");
    host.set("tank/t/b c", "zferry:replicate", "off");
    host.set("tank/t/b c/d", "zferry:replicate", "on");
    host.becomes_another("tank/t/b-c");
    let before = host.calls().len();
    let tree = zfs.source_tree(&dataset("tank/t")).unwrap();
    let calls = &host.calls()[before..];
    assert_eq!(calls.len(), 2);
    // With any other column `zfs` would read the properties of each snapshot.
    let points = "list -Hp -r -t snapshot,bookmark -o name,guid,createtxg -s createtxg -- tank/t";
    assert_eq!(calls[1].join(" "), points);
    assert_eq!(names(&tree), ["tank/t", "tank/t/b c", "tank/t/b c/d", "tank/t/b-c", "tank/t/v"]);
    for one in &tree {
        assert_eq!(one.state, zfs.source_state(&one.state.dataset).unwrap());
    }
    let guids = [1, 1, 1, 7919, 1].map(Guid);
    assert_eq!(tree.iter().map(|one| one.guid).collect::<Vec<_>>(), guids);
    let excluded: Vec<bool> = tree.iter().map(|one| one.excluded).collect();
    assert_eq!(excluded, [false, true, false, false, false]);
    let snapshot = "one".parse().unwrap();
    let origin = Some(Origin { dataset: dataset("tank/t/v"), snapshot });
    assert_eq!((&tree[2].origin, &tree[0].origin), (&origin, &None));
}

#[test]
fn what_was_written_to_a_tree_is_asked_in_one_call_and_only_what_is_wanted_counts() {
    let (host, zfs) = host();
    for (name, bytes) in [("tank/t", 1), ("tank/t/b c", 10), ("tank/t/b c/d", 100)] {
        host.was_written(name, bytes);
    }
    host.was_written("tank/t/v", 1000);
    // It has no such snapshot.
    host.write("tank/t/b-c", &[7; 10_000]);
    let one = "one".parse().unwrap();
    let root = dataset("tank/t");
    let sum = |without, left_out: &str| {
        let left_out = |dataset: &DatasetName| dataset.as_str() == left_out;
        zfs.written_below(&root, &one, without, left_out).unwrap().map(|Bytes(bytes)| bytes)
    };
    let before = host.calls().len();
    assert_eq!(sum(Without::All, ""), Some(11_111));
    assert_eq!(host.calls().len(), before + 1);
    assert_eq!(sum(Without::Nothing, ""), Some(1111));
    assert_eq!(sum(Without::All, "tank/t/v"), Some(10_111));
    // Handed down, and not by all.
    host.set("tank/t", "zferry:replicate", "off");
    assert_eq!(sum(Without::All, ""), None, "there is none of which that is known");
    host.set("tank/t/b c", "zferry:replicate", "on");
    assert_eq!(sum(Without::All, ""), Some(110));
    host.set("tank/t/v", "zferry:replicate", "a\tb");
    let odd = zfs.written_below(&root, &one, Without::All, |_| false).unwrap_err();
    assert!(matches!(odd, ZfsError::Property { .. }), "{odd}");
    let unread = |_: &DatasetName| false;
    let absent = zfs.written_below(&dataset("tank/x"), &one, Without::All, unread);
    assert!(matches!(absent, Err(ZfsError::Failed { .. })));
}

/// Has a part of a snapshot received, and no more.
fn interrupt(host: &StandIn, from: &str, to: &str) {
    host.snapshot(from, "large", &[7; 5000]);
    host.fail_receive(&Failing { after_bytes: 2000, status: "1", words: "" });
    let zfs = host.program();
    let (zfs, mut shell) = (zfs.display(), Command::new("sh"));
    shell.arg("-c").arg(format!("{zfs} send {from}@large | {zfs} receive -s -u {to}"));
    assert!(!shell.status().unwrap().success());
}

#[test]
fn a_tree_that_receives_is_read_in_two_calls_with_what_was_received_in_part() {
    let (host, zfs) = host();
    host.dataset("backup/t", "filesystem");
    host.snapshot("backup/t", "one", b"x");
    host.dataset("backup/t/v", "volume");
    host.encrypt("backup/t/v");
    interrupt(&host, "tank/t", "backup/t/part");
    let before = host.calls().len();
    let tree = zfs.target_tree(&dataset("backup/t")).unwrap();
    assert_eq!(host.calls().len() - before, 2);
    for one in &tree {
        assert_eq!(one.state, zfs.target_state(&one.dataset).unwrap(), "{}", one.dataset);
    }
    let names: Vec<&str> = tree.iter().map(|one| one.dataset.as_str()).collect();
    assert_eq!(names, ["backup/t", "backup/t/part", "backup/t/v"]);
    let part = &tree[1].state;
    assert!(matches!(part, TargetState::Present { resume_token: Some(_), .. }), "{part:?}");
    let TargetState::Present { kind, encrypted, .. } = tree[2].state else { panic!("absent") };
    assert_eq!((kind, encrypted), (Kind::Volume, true));
}

#[test]
fn a_tree_that_is_not_there_is_an_answer_at_the_target_and_a_failure_at_the_source() {
    let (_host, zfs) = host();
    assert_eq!(zfs.target_tree(&dataset("backup/none/a")).unwrap(), []);
    let no_pool = zfs.target_tree(&dataset("nopool/a")).unwrap_err();
    assert!(matches!(no_pool, ZfsError::NoPool { .. }), "{no_pool}");
    let failure = zfs.source_tree(&dataset("tank/none")).unwrap_err().on(Side::Source);
    assert_eq!(failure.class, Class::Refused);
    assert!(failure.what.contains("cannot open 'tank/none'"), "{failure}");
}

#[test]
fn a_wish_that_means_nothing_is_told() {
    let (host, zfs) = host();
    host.set("tank/t/b c", "zferry:replicate", "perhaps");
    let failure = zfs.source_tree(&dataset("tank/t")).unwrap_err().on(Side::Source);
    let told = "tank/t/b c has zferry:replicate=\"perhaps\", which is neither on nor off";
    assert_eq!((failure.what.as_str(), failure.class), (told, Class::Refused));
}

/// A `zfs` that prints the one text for datasets and the other for snapshots.
struct Script(TempDir);

impl Script {
    fn new() -> Script {
        let script = Script(tempfile::tempdir().unwrap());
        let program = script.0.path().join("zfs");
        let lines = [
            "#!/bin/sh",
            "cd \"$(dirname \"$0\")\"",
            "case \"$*\" in *snapshot*) exec cat points ;; esac",
            "cat heads; cat words >&2; exit $(cat status)",
        ];
        executable::script(&lines.join("\n"), &program);
        script.says("words", "");
        script.says("status", "0");
        script
    }

    fn says(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }

    fn zfs(&self) -> Zfs {
        Zfs::at(self.0.path().join("zfs"))
    }
}

#[test]
fn a_line_that_cannot_be_read_is_never_skipped() {
    let script = Script::new();
    let good = "t/a\tfilesystem\t1\toff\t-\t-\n";
    let child = "t/a/b\tfilesystem\t2\toff\t-\t-\n";
    let point = "t/a@s\t1\t2\n";
    let read = |heads: &str, points: &str| {
        script.says("heads", heads);
        script.says("points", points);
        script.zfs().source_tree(&dataset("t/a"))
    };
    let tree = read(&format!("{child}{good}"), &format!("t/a/b@s\t1\t2\n{point}")).unwrap();
    assert_eq!(names(&tree), ["t/a", "t/a/b"]);
    // Made since the datasets were listed.
    let tree = read(good, &format!("{point}t/a/new@s\t5\t6\n")).unwrap();
    assert_eq!((names(&tree), tree[0].state.snapshots.len()), (vec!["t/a"], 1));
    for (heads, points) in [
        (format!("{good}t/b\tfilesystem\t2\toff\t-\t-\n"), point.to_owned()),
        (format!("{good}t/a/%recv\tfilesystem\t2\toff\t-\t-\n"), point.to_owned()),
        (format!("{good}{good}"), point.to_owned()),
        (child.to_owned(), point.to_owned()),
        (String::new(), point.to_owned()),
        (format!("{good}?\n"), point.to_owned()),
        (good.to_owned(), "t/b@s\t1\t2\n".to_owned()),
        (good.to_owned(), "t/ab@s\t1\t2\n".to_owned()),
        (good.to_owned(), "t/a/%recv@s\t1\t2\n".to_owned()),
        (good.to_owned(), format!("{point}t/a@x\t-\t2\n")),
        (good.to_owned(), format!("{point}t/a\n")),
    ] {
        let read = read(&heads, &points);
        assert!(matches!(read, Err(ZfsError::Unreadable { .. })), "{heads:?} {points:?} {read:?}");
    }
}

#[test]
fn a_tree_is_missing_only_where_its_root_is() {
    let script = Script::new();
    script.says("heads", "");
    script.says("points", "");
    script.says("status", "1");
    for (words, expected) in [
        ("cannot open 't/a': dataset does not exist\n", true),
        ("cannot open 't/a/b': dataset does not exist\n", false),
        ("cannot open 't/a': I/O error\n", false),
        ("", false),
    ] {
        script.says("words", words);
        let read = script.zfs().target_tree(&dataset("t/a"));
        // Whether its pool is there is asked next, and this `zfs` says the same.
        let missing = matches!(read, Err(ZfsError::NoPool { .. }) | Ok(_));
        let failed = matches!(read, Err(ZfsError::Failed { .. }));
        assert_eq!((missing, failed), (expected, !expected), "{words:?}: {read:?}");
    }
}
