//! `zferry replicate -r`: whole trees, each dataset by itself, against the stand-in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::host::{Ended, Server, replicate, running_zfs, wait_for};
use crate::support::stand_in::{Failing, StandIn};

/// A host with a tree below tank/t, a server that has none of it yet.
struct Pair {
    source: StandIn,
    target: StandIn,
    server: Server,
}

const TREE: [&str; 5] = ["tank/t", "tank/t/a", "tank/t/a/b", "tank/t/v", "tank/t/z z"];

impl Pair {
    fn new() -> Pair {
        let (source, target) = (StandIn::new(), StandIn::new());
        for name in TREE {
            let kind = if name.ends_with('v') { "volume" } else { "filesystem" };
            source.dataset(name, kind);
            for snapshot in ["one", "two"] {
                source.snapshot(name, snapshot, format!("{name}@{snapshot}").as_bytes());
            }
        }
        let server = Server::serve(&target, &["--cache", "16MiB"]);
        Pair { source, target, server }
    }

    fn copy(&self, flags: &[&str]) -> Ended {
        let flags = [&["-r", "--cache", "64MiB"], flags].concat();
        replicate(&self.source, "tank/t", &self.server.url("t"), &flags).ended()
    }

    /// Demands that the target holds all that the source has of these datasets.
    #[track_caller]
    fn is_whole(&self, datasets: &[&str]) {
        for dataset in datasets {
            let there = dataset.replacen("tank", "backup", 1);
            let snapshots = self.source.snapshots(dataset);
            assert_eq!(self.target.snapshots(&there), snapshots, "{there}");
            for name in snapshots {
                let (ours, theirs) = (format!("{dataset}@{name}"), format!("{there}@{name}"));
                assert_eq!(self.target.guid(&theirs), self.source.guid(&ours), "{theirs}");
                assert_eq!(self.target.content(&theirs), self.source.content(&ours), "{theirs}");
                assert_eq!(self.source.holds(&ours), [""; 0], "{ours} is still held");
            }
        }
    }
}

fn said(ended: &Ended) -> String {
    String::from_utf8(ended.stdout.clone()).unwrap()
}

fn calls(host: &StandIn, subcommand: &str) -> Vec<String> {
    let calls = host.calls().into_iter().filter(|call| call[0] == subcommand);
    calls.map(|call| call.join(" ")).collect()
}

/// Gives a dataset another name.
fn rename(host: &StandIn, from: &str, to: &str) {
    // So that there is a place for it.
    host.dataset(to, "volume");
    host.destroy(to);
    host.rename(from, to);
}

fn events(ended: &Ended) -> Vec<Value> {
    said(ended).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_tree_arrives_and_the_next_copy_has_only_what_is_new() {
    let pair = Pair::new();
    let told = said(&pair.copy(&["--no-snapshot"]).succeeded());
    pair.is_whole(&TREE);
    assert!(told.starts_with("tank/t@two (5 datasets) -> zferry://"), "{told}");
    assert!(told.contains("/t, 10 streams: "), "{told}");
    let told = said(&pair.copy(&["--no-snapshot"]).succeeded());
    assert!(told.contains("nothing to do"), "{told}");
    pair.source.snapshot("tank/t/a/b", "three", b"new");
    let told = said(&pair.copy(&["--no-snapshot"]).succeeded());
    assert!(told.contains(", 1 stream: "), "{told}");
    pair.is_whole(&TREE);
}

#[test]
fn both_sides_are_listed_once_whatever_there_is_to_do() {
    let pair = Pair::new();
    pair.copy(&["--no-snapshot"]).succeeded();
    let before = (calls(&pair.source, "list").len(), calls(&pair.target, "list").len());
    pair.copy(&["--no-snapshot"]).succeeded();
    let after = (calls(&pair.source, "list").len(), calls(&pair.target, "list").len());
    // The names alone, to know what is there; then datasets, then their snapshots.
    assert_eq!(after.0 - before.0, 3, "{:?}", calls(&pair.source, "list"));
    assert!(after.1 - before.1 <= 3, "{:?}", calls(&pair.target, "list"));
}

#[test]
fn a_snapshot_is_taken_of_all_at_the_same_moment() {
    let pair = Pair::new();
    let told = said(&pair.copy(&[]).succeeded());
    let taken = calls(&pair.source, "snapshot");
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(taken[0].starts_with("snapshot -r -- tank/t@zferry_"), "{taken:?}");
    assert!(told.starts_with("tank/t@zferry_"), "{told}");
    pair.is_whole(&TREE);
    assert_eq!(pair.target.snapshots("backup/t/z z").len(), 3);
}

#[test]
fn what_is_left_out_is_neither_snapshotted_nor_copied() {
    let pair = Pair::new();
    pair.source.set("tank/t/v", "zferry:replicate", "off");
    pair.copy(&["--exclude-dataset", "a"]).succeeded();
    pair.is_whole(&["tank/t", "tank/t/z z"]);
    let taken = calls(&pair.source, "snapshot");
    let names: Vec<&str> =
        taken[0].split("@zferry_").filter_map(|part| part.split("-- ").last()).collect();
    assert!(taken.len() == 1 && !taken[0].contains("tank/t/a"), "{names:?}");
    for name in ["backup/t/a", "backup/t/a/b", "backup/t/v"] {
        assert!(!pair.target.exists(name), "{name}");
    }
    assert_eq!(pair.source.snapshots("tank/t/v").len(), 2, "one was taken");
}

#[test]
fn a_tree_of_which_all_is_left_out_is_a_mistake_and_no_snapshot_is_told_that_was_not_taken() {
    let pair = Pair::new();
    pair.source.set("tank/t", "zferry:replicate", "off");
    for flags in [&[][..], &["--no-snapshot"], &["-n"], &["--exclude-dataset", "a"]] {
        let ended = pair.copy(flags).failed_with(
            2,
            &[
                "nothing of tank/t is to be copied: zferry:replicate=off leaves it out",
                "zfs get -r -s local,received,inherited zferry:replicate tank/t",
            ],
        );
        assert_eq!(said(&ended), "");
    }
    assert_eq!(calls(&pair.source, "snapshot"), [""; 0]);
    assert!(!pair.target.exists("backup/t"));
    // One below it is brought back: there is a place for it, and the root has no such snapshot.
    pair.target.dataset("backup/t", "filesystem");
    pair.source.set("tank/t/v", "zferry:replicate", "on");
    let told = said(&pair.copy(&[]).succeeded());
    assert!(told.starts_with("tank/t (1 dataset, @zferry_"), "{told}");
    pair.is_whole(&["tank/t/v"]);
}

#[test]
fn a_dataset_without_a_snapshot_is_named_and_no_failure() {
    let pair = Pair::new();
    pair.source.dataset("tank/t/new", "filesystem");
    let without = |flags: &[&str], words: &str| {
        let ended = pair.copy(flags).succeeded();
        assert_eq!(ended.stderr.matches("not copied").count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    };
    without(
        &["--no-snapshot"],
        "zferry: tank/t/new is not copied: it has no snapshot to send (zferry takes none with \
         --no-snapshot); to leave it out with all below it: --exclude-dataset, or zfs set \
         zferry:replicate=off tank/t/new\n",
    );
    without(
        &["--snapshot", "two"],
        "tank/t/new is not copied: it has no snapshot of the name that",
    );
    pair.source.snapshot("tank/t/new", "other", b"x");
    without(&["--no-snapshot", "--include-snapshot", "t*"], "none that --include-snapshot and");
    pair.source.destroy("tank/t/new@other");
    for number in 1..=6 {
        pair.source.dataset(&format!("tank/t/new/{number}"), "filesystem");
    }
    without(
        &["--no-snapshot", "-n"],
        "zferry: 7 datasets are not copied: tank/t/new, tank/t/new/1, ",
    );
    without(&["--no-snapshot"], ", tank/t/new/4 and 2 more: they have no snapshot to send (zferry");
    let told = pair.copy(&["--no-snapshot", "--json"]).succeeded();
    let planned = &events(&told)[0]["without_snapshot"][0];
    assert_eq!((&planned["why"], &planned["count"]), (&"has-none".into(), &7.into()));
    assert_eq!(planned["datasets"][6], "tank/t/new/6");
    let told = pair.copy(&["--no-snapshot", "--quiet"]).succeeded();
    assert_eq!(told.stderr, "");
    // What is left out by whoever asks, or by its owner, is nothing to tell.
    let told = pair.copy(&["--no-snapshot", "--exclude-dataset", "new"]).succeeded();
    assert!(!told.stderr.contains("not copied"), "{}", told.stderr);
}

#[test]
fn one_dataset_that_fails_is_named_and_keeps_no_other_from_being_copied() {
    let pair = Pair::new();
    pair.copy(&["--no-snapshot", "--exclude-dataset", "a"]).succeeded();
    pair.target.dataset("backup/t/a", "filesystem");
    pair.target.snapshot("backup/t/a", "theirs", b"other");
    let told = pair.copy(&["--no-snapshot"]);
    told.failed_with(
        1,
        &[
            "zferry: tank/t/a: target: backup/t/a and tank/t/a have no snapshot in common",
            "1 of 5 datasets were not copied: tank/t/a; the first: ",
        ],
    );
    pair.is_whole(&["tank/t", "tank/t/a/b", "tank/t/v", "tank/t/z z"]);
    assert_eq!(pair.target.snapshots("backup/t/a"), ["theirs"]);
}

#[test]
fn what_has_no_place_at_the_target_is_not_tried() {
    let pair = Pair::new();
    pair.source.fail_send(&Failing { after_bytes: 10, status: "1", words: "Input/output error" });
    let told = pair.copy(&["--no-snapshot", "--parallel", "1"]);
    told.failed_with(2, &["none of 5 datasets was copied", "Input/output error"]);
    assert!(!pair.target.exists("backup/t/a"), "its parent was made for it");
}

#[test]
fn several_are_on_their_way_at_once() {
    let pair = Pair::new();
    pair.copy(&["--no-snapshot"]).succeeded();
    for name in TREE {
        pair.source.snapshot(name, "big", &[7].repeat(300_000));
    }
    pair.source.slow_send(64 << 10, Duration::from_millis(200));
    let flags = ["-r", "--no-snapshot", "--parallel", "3", "--cache", "64MiB"];
    let copy = replicate(&pair.source, "tank/t", &pair.server.url("t"), &flags);
    wait_for("three at once", || (running_zfs(&pair.target).len() == 3).then_some(()));
    copy.ended().succeeded();
    pair.is_whole(&TREE);
}

#[test]
fn a_clone_arrives_as_a_clone_of_what_it_was_made_from() {
    let pair = Pair::new();
    // Its name comes before that of its origin.
    pair.source.dataset("tank/t/a/c", "filesystem");
    pair.source.is_clone("tank/t/a/c", "tank/t/z z@two");
    pair.source.snapshot("tank/t/a/c", "own", b"and more");
    pair.copy(&["--no-snapshot"]).succeeded();
    pair.is_whole(&TREE);
    pair.is_whole(&["tank/t/a/c"]);
    let sent = calls(&pair.source, "send");
    let of_clone = sent.iter().rfind(|call| call.contains("tank/t/a/c@own")).unwrap();
    assert_eq!(of_clone, "send -L -c -i tank/t/z z@two -- tank/t/a/c@own");
    let received = calls(&pair.target, "receive");
    let of_clone = received.iter().find(|call| call.ends_with("backup/t/a/c")).unwrap();
    assert!(of_clone.contains("-o origin=backup/t/z z@two "), "{of_clone}");
    assert!(of_clone.contains("-o readonly=on"), "{of_clone}");
}

#[test]
fn a_dataset_that_was_renamed_is_told_and_not_sent_anew() {
    let pair = Pair::new();
    pair.copy(&["--no-snapshot"]).succeeded();
    rename(&pair.source, "tank/t/v", "tank/t/w");
    pair.copy(&["--no-snapshot"]).failed_with(
        1,
        &["tank/t/w: target: backup/t/w is not there", "zfs rename backup/t/v backup/t/w"],
    );
    assert!(!pair.target.exists("backup/t/w"));
    rename(&pair.target, "backup/t/v", "backup/t/w");
    pair.copy(&["--no-snapshot"]).succeeded();
}

#[test]
fn snapshots_are_chosen_by_their_names() {
    let pair = Pair::new();
    pair.source.snapshot("tank/t/a", "daily_1", b"d");
    pair.source.snapshot("tank/t", "daily_1", b"d");
    pair.source.snapshot("tank/t", "hourly_1", b"h");
    let flags = ["--no-snapshot", "--include-snapshot", "daily_*", "--include-snapshot", "one"];
    pair.copy(&flags).succeeded();
    assert_eq!(pair.target.snapshots("backup/t"), ["daily_1", "one"]);
    assert_eq!(pair.target.snapshots("backup/t/v"), ["one"]);
    let none = ["--no-snapshot", "--include-snapshot", "weekly_*"];
    pair.copy(&none).failed_with(2, &["none of the 4 snapshots of tank/t is to be copied"]);
}

#[test]
fn a_dry_run_tells_every_command_and_changes_nothing() {
    let pair = Pair::new();
    pair.copy(&["--no-snapshot", "--exclude-dataset", "z z"]).succeeded();
    let deeds = |host: &StandIn| {
        let asked = ["list", "get", "version"];
        let is_deed = |call: &Vec<String>| {
            let is_estimate = call[0] == "send" && call.iter().any(|word| word == "-n");
            !asked.contains(&call[0].as_str()) && !is_estimate
        };
        host.calls().into_iter().filter(is_deed).count()
    };
    let before = (deeds(&pair.source), deeds(&pair.target));
    let told = said(&pair.copy(&["-n"]).succeeded());
    assert_eq!((deeds(&pair.source), deeds(&pair.target)), before, "{told}");
    for line in [
        "  source: zfs snapshot -r -- tank/t@zferry_",
        "tank/t/a -> backup/t/a: 1 stream",
        "tank/t/z z -> backup/t/z z: 3 streams",
        "  source: zfs send -L -c -- 'tank/t/z z@one'",
        "  target: zfs receive -s -u -o readonly=on -o canmount=noauto",
        "  source: zfs release -- zferry:zferry://",
    ] {
        assert!(told.contains(line), "{line:?} is missing in:\n{told}");
    }
    let told = pair.copy(&["-n", "--json"]).succeeded();
    let events = events(&told);
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("would-copy"), count("begin")), (5, 0));
    assert!(count("would-run") > 20);
}

#[test]
fn a_dry_run_whose_source_takes_long_to_answer_keeps_its_session() {
    let pair = Pair::new();
    let told = said(&pair.copy(&["-n", "--no-snapshot", "--keep-target", "last=1"]).succeeded());
    assert_eq!(told.matches("  target: no snapshot goes\n").count(), 5, "{told}");
    pair.copy(&["--no-snapshot"]).succeeded();
    for name in TREE {
        pair.source.snapshot(name, "three", b"more");
    }
    // Longer than a server waits for one who says nothing.
    pair.source.pause_before("send", Duration::from_secs(23));
    let flags = ["-n", "--no-snapshot", "--keep-target", "last=1"];
    let told = said(&pair.copy(&flags).succeeded());
    assert!(told.contains("tank/t/z z -> backup/t/z z: 1 stream"), "{told}");
    // What a server does not do for anybody is nothing that it would do.
    let refused = "  target: nothing would be pruned: target: ";
    assert_eq!(told.matches(refused).count(), 5, "{told}");
    assert!(!told.contains("no snapshot goes"), "{told}");
}

#[test]
fn a_program_is_told_what_is_planned_and_what_became_of_each() {
    let pair = Pair::new();
    pair.source.set("tank/t/v", "zferry:replicate", "no");
    let told = pair.copy(&["--no-snapshot", "--json"]).succeeded();
    let events = events(&told);
    let planned = &events[0];
    assert_eq!((&planned["event"], &planned["datasets"]), (&"planned".into(), &4.into()));
    assert_eq!((&planned["streams"], &planned["left_out"]), (&8.into(), &1.into()));
    let copied = events.iter().filter(|event| event["event"] == "copied");
    let copied: BTreeMap<&str, &Value> =
        copied.map(|event| (event["dataset"].as_str().unwrap(), &event["snapshot"])).collect();
    assert_eq!(copied.len(), 4);
    assert!(copied.values().all(|snapshot| **snapshot == "two"), "{copied:?}");
    for event in events.iter().filter(|event| event["event"] == "moment") {
        assert!(event["dataset"].as_str().unwrap().starts_with("tank/t"), "{event}");
    }
    let done = events.last().unwrap();
    assert_eq!((&done["event"], &done["streams"]), (&"done".into(), &8.into()));
}

#[test]
fn both_sides_are_pruned_once_the_target_has_what_is_new() {
    let host = StandIn::new();
    for name in TREE {
        host.dataset(name, "filesystem");
        host.snapshot(name, "other", b"x");
    }
    let keep = ["--keep", "last=1", "--keep-target", "last=2", "--template", "s_%Y%m%d-%H%M%S"];
    let mut told = String::new();
    for number in 1..=4 {
        for name in TREE {
            host.snapshot(name, &format!("s_2026010{number}-000000"), b"x");
        }
        let flags = [&["-r", "--no-snapshot", "--cache", "64MiB"], &keep[..]].concat();
        told = said(&replicate(&host, "tank/t", "backup/t", &flags).ended().succeeded());
    }
    let ours = host.snapshots("tank/t/a/b");
    assert_eq!(ours, ["other", "s_20260104-000000"], "those of others stay");
    let theirs = host.snapshots("backup/t/a/b");
    assert_eq!(theirs, ["other", "s_20260103-000000", "s_20260104-000000"]);
    assert!(told.contains(", 10 snapshots pruned"), "{told}");
    // What would go is told where nothing would be sent, too.
    let keep = ["--keep-target", "last=1", "--template", "s_%Y%m%d-%H%M%S"];
    let flags = [&["-n", "-r", "--no-snapshot"], &keep[..]].concat();
    let told = said(&replicate(&host, "tank/t", "backup/t", &flags).ended().succeeded());
    let goes = "  target: 1 snapshot goes: s_20260103-000000";
    assert_eq!(told.matches(goes).count(), 5, "{told}");
    assert_eq!(host.snapshots("backup/t/a/b").len(), 3, "a dry run has pruned");
}

#[test]
fn a_tree_of_which_a_part_cannot_be_pruned_is_copied_whole_and_done_in_part() {
    let host = StandIn::new();
    for name in TREE {
        host.dataset(name, "filesystem");
        for number in 1..=2 {
            host.snapshot(name, &format!("s_2026010{number}-000000"), b"x");
        }
    }
    host.may_not_be_destroyed("tank/t/a/b");
    let keep = ["--keep", "last=1", "--template", "s_%Y%m%d-%H%M%S"];
    let flags = [&["-r", "--no-snapshot", "--cache", "64MiB"], &keep[..]].concat();
    let ended = replicate(&host, "tank/t", "backup/t", &flags).ended();
    let ended = ended.failed_with(
        1,
        &[
            "zferry: tank/t/a/b: copied, but pruning failed: source: ",
            "5 datasets are copied, but pruning failed of 1: tank/t/a/b; the first: ",
            "permission denied",
        ],
    );
    assert!(said(&ended).contains("tank/t@s_20260102-000000 (5 datasets) -> "), "{}", said(&ended));
    for name in TREE {
        assert_eq!(host.snapshots(&name.replacen("tank", "backup", 1)).len(), 2, "{name}");
        let left = if name == "tank/t/a/b" { 2 } else { 1 };
        assert_eq!(host.snapshots(name).len(), left, "{name}");
    }
    // Of one that is not copied either, both are told.
    host.dataset("tank/t/other", "filesystem");
    host.snapshot("tank/t/other", "s_20260102-000000", b"x");
    host.dataset("backup/t/other", "filesystem");
    host.snapshot("backup/t/other", "mine", b"something else");
    let ended = replicate(&host, "tank/t", "backup/t", &flags).ended();
    let words = ["1 of 6 datasets were not copied: tank/t/other; ", "; and pruning failed of 1: "];
    ended.failed_with(1, &words);
}

#[test]
fn a_tree_goes_from_pool_to_pool_within_one_host() {
    let host = StandIn::new();
    for name in TREE {
        host.dataset(name, "filesystem");
        host.snapshot(name, "one", name.as_bytes());
    }
    let flags = ["-r", "--no-snapshot", "--parallel", "2", "--cache", "32MiB"];
    replicate(&host, "tank/t", "backup/copies/t", &flags).ended().succeeded();
    for name in TREE {
        let there = name.replacen("tank", "backup/copies", 1);
        assert_eq!(host.content(&format!("{there}@one")), name.as_bytes());
    }
}

#[test]
fn flags_of_trees_without_a_tree_are_a_mistake_and_so_is_a_cache_too_small_to_share() {
    let pair = Pair::new();
    let url = pair.server.url("t");
    for flags in [["--parallel", "2"], ["--exclude-dataset", "a"]] {
        let ended = replicate(&pair.source, "tank/t", &url, &flags).ended();
        ended.failed_with(3, &["--recursive"]);
    }
    let flags = ["-r", "--cache", "8MiB", "--parallel", "8"];
    let ended = replicate(&pair.source, "tank/t", &url, &flags).ended();
    ended.failed_with(3, &["for each of --parallel 8", "use a larger --cache"]);
}
