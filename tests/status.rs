//! `zferry status`: what interrupted copies have left is listed, and released only where it is
//! ours, named and not needed by anybody.

use std::time::Duration;

use zferry::dataset::DatasetName;
use zferry::zfs::Zfs;
use zferry::zfs::hold::Tag;

#[path = "support/host.rs"]
mod host;
#[path = "support/stand_in.rs"]
mod stand_in;

use host::{Ended, Running, Server, replicate, wait_for, zferry_on};
use stand_in::{Failing, StandIn};

fn status(host: &StandIn, flags: &[&str]) -> Ended {
    Running::start(&mut zferry_on(host, &[&["status"], flags].concat())).ended()
}

fn said(host: &StandIn, flags: &[&str]) -> String {
    String::from_utf8(status(host, flags).succeeded().stdout).unwrap()
}

/// A host with snapshots of tank/a and tank/b/c, held for other hosts, by us and by others.
fn host_with_holds() -> StandIn {
    let host = StandIn::new();
    for dataset in ["tank/a", "tank/b", "tank/b/c"] {
        host.dataset(dataset, "filesystem");
        host.snapshot(dataset, "s1", b"one");
        host.snapshot(dataset, "s2", b"two");
    }
    hold(&host, "tank/a", "s1", "zferry:zferry://h:1/a");
    hold(&host, "tank/a", "s2", "keep");
    hold(&host, "tank/b/c", "s2", "zferry:zferry://h:1/c");
    hold(&host, "tank/b/c", "s2", "zferry:vault/c");
    host
}

fn hold(host: &StandIn, dataset: &str, snapshot: &str, tag: &str) {
    let (zfs, dataset) = (Zfs::at(host.program()), dataset.parse::<DatasetName>().unwrap());
    match Tag::read(tag) {
        Some(tag) => zfs.hold(&dataset, &[snapshot.parse().unwrap()], &tag).unwrap(),
        None => host.hold(&format!("{dataset}@{snapshot}"), tag),
    }
}

/// A host whose backup/a has a part of tank/a@s of another one.
fn host_with_a_part() -> (StandIn, StandIn, u64) {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    let guid = source.snapshot("tank/a", "s", &vec![7; 2_000_000]);
    let server = Server::serve(&target, &[]);
    target.fail_receive(&Failing { after_bytes: 1_000_000, status: "KILL", words: "" });
    let url = server.url("a");
    replicate(&source, "tank/a", &url, &["--no-snapshot"]).ended().failed_with(2, &[]);
    (source, target, guid)
}

#[test]
fn holds_of_ours_are_listed_with_what_they_are_for_and_since_when() {
    let host = host_with_holds();
    let text = said(&host, &["--orphans"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("tank/a@s1 is held for zferry://h:1/a since 20"), "{text}");
    assert!(lines[0].ends_with('Z'), "{text}");
    assert!(text.contains("tank/b/c@s2 is held for vault/c since "), "{text}");
    let below = said(&host, &["--orphans", "tank/b", "tank/b/c"]);
    assert_eq!(below.lines().count(), 2, "{below}");
    assert!(said(&host, &["--orphans", "backup"]).starts_with("no snapshot is held"));
    // An older zfs tells the time in its own words.
    host.is_old();
    assert!(said(&host, &["--orphans", "tank/a"]).contains("since Sat Aug  1 12:00 2026"));
}

#[test]
fn only_what_is_named_and_ours_is_released() {
    let host = host_with_holds();
    status(&host, &["--release"]).failed_with(3, &["--orphans first", "--all"]);
    status(&host, &["--release", "--all", "tank/a"]).failed_with(3, &[]);
    status(&host, &[]).failed_with(3, &[]);
    assert_eq!(host.holds("tank/a@s1").len(), 1);
    let text = said(&host, &["--release", "tank/b"]);
    assert_eq!(text.matches("released: tank/b/c@s2 is held for ").count(), 2, "{text}");
    assert_eq!(host.holds("tank/b/c@s2"), [""; 0]);
    assert_eq!(host.holds("tank/a@s1"), ["zferry:zferry://h:1/a"]);
    let text = said(&host, &["--release", "--all"]);
    assert!(text.starts_with("released: tank/a@s1 is held for zferry://h:1/a since "), "{text}");
    assert_eq!(host.holds("tank/a@s1"), [""; 0]);
    assert_eq!(host.holds("tank/a@s2"), ["keep"], "a hold of somebody else's was touched");
    assert_eq!(said(&host, &["--release", "--all"]), "no snapshot is held by zferry\n");
}

#[test]
fn a_copy_that_runs_is_seen_and_its_holds_are_left_alone() {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s", &vec![7; 2_000_000]);
    source.slow_send(64 << 10, Duration::from_millis(200));
    let server = Server::serve(&target, &[]);
    let mut client = replicate(&source, "tank/a", &server.url("a"), &["--no-snapshot"]);
    wait_for("a hold", || source.holds("tank/a@s").pop());
    assert!(said(&source, &["--orphans"]).contains(", and is being copied"));
    let text = said(&source, &["--release", "--all"]);
    assert!(text.starts_with("left alone: tank/a@s is held for zferry://"), "{text}");
    assert!(client.is_running() && source.holds("tank/a@s").len() == 1);
}

#[test]
fn a_part_of_a_snapshot_is_listed_on_the_host_that_has_it() {
    let (source, target, guid) = host_with_a_part();
    let text = said(&target, &["--orphans"]);
    let words = format!("backup/a has 976.6 KiB of tank/a@s (guid {guid}); to give it up: zfs");
    assert!(text.starts_with(&words) && text.ends_with("zfs receive -A backup/a\n"), "{text}");
    assert!(said(&source, &["--orphans"]).starts_with("tank/a@s is held for zferry://127.0.0.1:"));
}

#[test]
fn all_of_it_is_there_for_programs_too() {
    let host = host_with_holds();
    let json = |host: &StandIn, flags: &[&str]| -> serde_json::Value {
        serde_json::from_str(&said(host, flags)).unwrap()
    };
    let report = json(&host, &["--orphans", "--json", "tank/a"]);
    let held = &report["held"][0];
    assert_eq!(report["held"].as_array().unwrap().len(), 1);
    for (field, value) in [
        ("dataset", "tank/a"),
        ("snapshot", "s1"),
        ("tag", "zferry:zferry://h:1/a"),
        ("target", "zferry://h:1/a"),
    ] {
        assert_eq!(held[field], value, "{report}");
    }
    assert_eq!((&held["running"], &held["released"]), (&false.into(), &false.into()));
    let report = json(&host, &["--release", "--all", "--json"]);
    let held = report["held"].as_array().unwrap();
    assert!(held.len() == 3 && held.iter().all(|held| held["released"] == true), "{report}");
    let (_source, target, guid) = host_with_a_part();
    let partly = &json(&target, &["--orphans", "--json"])["partly_received"][0];
    assert_eq!((&partly["dataset"], &partly["guid"]), (&"backup/a".into(), &guid.into()));
    assert_eq!((&partly["snapshot"], &partly["bytes"]), (&"tank/a@s".into(), &1_000_000.into()));
}
