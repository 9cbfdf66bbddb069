//! `zferry status`: what a scheduler does is shown as it is; what interrupted copies have left is
//! listed, and released only where it is ours, named and not needed by anybody.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use zferry::dataset::DatasetName;
use zferry::zfs::Zfs;
use zferry::zfs::hold::Tag;

use crate::support::host::{
    Ended, Running, Server, replicate, wait_for, zferry_at_a_terminal, zferry_on,
};
use crate::support::scheduled::{Host, job, stopped};
use crate::support::stand_in::{Failing, StandIn};

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
fn a_copy_of_a_tree_that_runs_is_seen_with_what_is_below_its_source() {
    let (source, target) = (StandIn::new(), StandIn::new());
    for (dataset, content) in [("tank/a", vec![7; 10]), ("tank/a/b", vec![7; 2_000_000])] {
        source.dataset(dataset, "filesystem");
        source.snapshot(dataset, "s", &content);
    }
    source.slow_send(64 << 10, Duration::from_millis(200));
    let server = Server::serve(&target, &[]);
    let mut client = replicate(&source, "tank/a", &server.url("a"), &["-r", "--no-snapshot"]);
    let tag = wait_for("a hold", || source.holds("tank/a/b@s").pop());
    assert!(tag.ends_with("/a/b"), "{tag}");
    let text = said(&source, &["--release", "tank/a/b"]);
    assert!(text.starts_with("left alone: tank/a/b@s is held for zferry://"), "{text}");
    assert!(client.is_running() && source.holds("tank/a/b@s").len() == 1);
}

#[test]
fn what_another_host_may_be_fetching_is_not_released() {
    let host = host_with_holds();
    hold(&host, "tank/b", "s1", "zferry:laptop:backup/b");
    // What ssh starts for a copy that another host fetches: what it copies comes by stdin.
    let mut command = zferry_on(&host, &["deliver"]);
    let mut asker = command.stdin(Stdio::piped()).spawn().unwrap();
    wait_for("its name", || {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", asker.id())).unwrap();
        line.contains("deliver").then_some(())
    });
    let text = said(&host, &["--release", "--all"]);
    drop(asker.stdin.take());
    asker.wait().unwrap();
    assert!(text.contains("left alone: tank/b@s1 is held for laptop:backup/b since "), "{text}");
    assert!(text.contains("released: tank/a@s1 ") && text.contains("released: tank/b/c@s2 "));
    assert_eq!(host.holds("tank/b@s1"), ["zferry:laptop:backup/b"]);
}

#[test]
fn a_job_that_is_due_and_has_no_place_waits_for_its_turn() {
    let slow = "every = \"1h\"\nblock-size = \"64KiB\"";
    let host = Host::new(&format!("parallel = 1\n{}{}", job("a", slow), job("b", slow)));
    host.zfs.slow_send(32 << 10, Duration::from_millis(500));
    let scheduler = host.schedule();
    host.wait_for_status("a", |job| job["state"] == "running");
    let text = String::from_utf8(host.look(&["status"]).succeeded().stdout).unwrap();
    assert!(text.contains("b: waits for its turn (1 job runs), no success yet\n"), "{text}");
    host.wait_for_status("b", |job| job["state"] == "running");
    let text = String::from_utf8(host.look(&["status"]).succeeded().stdout).unwrap();
    assert!(text.contains("a: idle, ") && text.contains(" -> backup/a: 1 run, 0 failed"), "{text}");
    stopped(scheduler);
}

/// As somebody who may not look into the state folder: root looks as another user.
fn as_a_stranger(host: &Host, command: &mut Command) -> Ended {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mode = |mode| fs::set_permissions(host.state(), fs::Permissions::from_mode(mode)).unwrap();
    mode(if is_root { 0o700 } else { 0 });
    fs::set_permissions(host.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if is_root {
        command.uid(65_534).gid(65_534);
    }
    let ended = Running::start(command).ended();
    mode(0o700);
    ended
}

#[test]
fn who_may_not_look_is_told_so_and_as_whom_to_run_it() {
    let host = Host::new(&job("a", "every = \"1h\""));
    fs::create_dir_all(host.state().join("jobs")).unwrap();
    let look = |words: &[&str]| {
        let mut command = zferry_on(&host.zfs, words);
        as_a_stranger(&host, command.arg("--state").arg(host.state()))
    };
    let denied = format!("the state folder {}: Permission denied", host.state().display());
    let remedy = "\n  to mend it: run this as the scheduler's user or as root: sudo -u ";
    look(&["status"]).failed_with(2, &[&denied, remedy, " zferry status"]);
    let ended = look(&["monitor", "--warn", "1h", "--crit", "2h"]);
    let (code, line) = (ended.code(), String::from_utf8(ended.stdout).unwrap());
    assert!(code == 3 && line.contains("Permission denied (os error 13); run this as "), "{line}");
    // Which copies the scheduler makes nobody knows then.
    let mut command = zferry_on(&host.zfs, &["status", "--release", "--all"]);
    as_a_stranger(&host, command.arg("--socket").arg(socket(&host)))
        .failed_with(2, &[&denied, remedy]);
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

#[test]
fn a_scheduler_that_runs_is_asked_for_its_jobs_and_what_is_on_its_way() {
    let slow = "every = \"1h\"\nblock-size = \"64KiB\"";
    let host = Host::new(&(job("a", slow) + &job("c", "every = \"1h\"")));
    host.zfs.slow_send(32 << 10, Duration::from_millis(300));
    let scheduler = host.schedule();
    let held = |host: &Host| said(&host.zfs, &["--orphans", "--socket", &socket(host)]);
    let running = host.wait_for_status("a", |job| job["transfers"][0]["read"].as_u64() > Some(0));
    assert_eq!((&running["state"], &running["source"]), (&"running".into(), &"tank/a".into()));
    let transfer = &running["transfers"][0];
    let what = transfer["what"].as_str().unwrap();
    assert!(what.starts_with("tank/a@zferry_") && what.ends_with(" (full)"), "{what}");
    assert!(transfer["rate"].as_u64() > Some(0), "{transfer}");
    assert!(transfer["estimated"].as_u64() > transfer["read"].as_u64(), "{transfer}");
    // What the scheduler holds is no orphan, and is not released.
    let text = wait_for("a hold", || Some(held(&host)).filter(|text| text.contains("is held")));
    assert!(text.contains(", and is being copied"), "{text}");
    let failing = host.wait_for_status("c", |job| job["state"] == "waiting-to-retry");
    assert_eq!((&failing["failures_in_a_row"], &failing["totals"]["runs"]), (&1.into(), &1.into()));
    let what = failing["last_failure"]["what"].as_str().unwrap();
    assert!(what.contains("dataset does not exist"), "{what}");
    assert!(failing["next_run"].is_string() && failing["last_success"].is_null(), "{failing}");

    let done = host.wait_for_status("a", |job| job["state"] == "idle");
    // The snapshot, and what frames it in a stream.
    let (runs, bytes) = (&done["totals"]["runs"], done["totals"]["bytes"].as_u64().unwrap());
    assert!(*runs == 1 && (400_000..404_000).contains(&bytes), "{done}");
    assert!(done["lag_seconds"].as_u64() < Some(30) && done["transfers"] == serde_json::json!([]));
    let (copy, dataset) = (&done["last_success"]["snapshot"], &done["datasets"][0]);
    assert!(host.zfs.exists(&format!("backup/a@{}", copy.as_str().unwrap())));
    assert_eq!((&dataset["dataset"], &dataset["snapshot"]), (&"tank/a".into(), copy));
    let status = host.status();
    assert_eq!(
        (&status["format"], &status["scheduler"]["pid"]),
        (&1.into(), &scheduler.pid().into())
    );
    let read = status["throughput"]["seconds"].as_array().unwrap().iter();
    assert!(read.map(|second| second["read"].as_u64().unwrap()).sum::<u64>() >= 300_000);
    let text = String::from_utf8(host.look(&["status"]).succeeded().stdout).unwrap();
    for words in
        ["schedules since", "a: idle, last success ", "c: waiting to retry, no success yet"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.ends_with("zferry status --orphans\n"), "{text}");
    stopped(scheduler);
}

fn socket(host: &Host) -> String {
    host.state().join("zferry.sock").to_str().unwrap().to_owned()
}

#[test]
fn where_no_scheduler_runs_what_the_last_one_has_left_is_shown() {
    let host = Host::new(&(job("a", "every = \"1s\"") + &job("b", "every = \"1h\"")));
    fs::create_dir(host.state()).unwrap();
    let text = String::from_utf8(host.look(&["status"]).succeeded().stdout).unwrap();
    assert!(text.starts_with("no scheduler has ever run with "), "{text}");
    let scheduler = host.schedule();
    host.wait_for_copies("a", 2);
    host.wait_for_copies("b", 1);
    scheduler.signal("KILL");
    drop(scheduler.ended());
    let calls = host.zfs.calls().len();
    let status = host.status();
    assert!(status["scheduler"].is_null() && status["jobs"].as_array().unwrap().len() == 2);
    let text = String::from_utf8(host.look(&["status"]).succeeded().stdout).unwrap();
    assert!(text.starts_with("no scheduler runs; this is what"), "{text}");
    assert!(text.contains("b: not scheduled now, last success "), "{text}");
    assert_eq!(host.zfs.calls().len(), calls, "whoever looks does not wait for zfs");
    let runs = host.status_of("a")["totals"]["runs"].as_u64().unwrap();

    // The next one goes on counting, in spite of the socket that is left; and without b.
    host.configure(&job("a", "every = \"1s\""));
    let scheduler = host.schedule();
    host.wait_for_status("a", |job| job["totals"]["runs"].as_u64() > Some(runs));
    stopped(scheduler);
    let names: Vec<_> =
        host.status()["jobs"].as_array().unwrap().iter().map(|job| job["name"].clone()).collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn a_watch_looks_again_until_it_is_stopped_or_nobody_reads_it() {
    let host = Host::new(&job("a", "every = \"1s\""));
    let scheduler = host.schedule();
    host.wait_for_copies("a", 1);
    let mut command = zferry_on(&host.zfs, &["status", "--watch", "--json"]);
    let watch = Running::start(command.arg("--state").arg(host.state()));
    let runs = || {
        let told = String::from_utf8(watch.stdout()).unwrap();
        let lines =
            told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.map(|line| line["jobs"][0]["totals"]["runs"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    wait_for("a run that it sees", || {
        let runs = runs();
        (runs.len() >= 3 && runs.last() > runs.first()).then_some(())
    });
    let state = host.state();
    let mut screen =
        zferry_at_a_terminal(&["status", "--watch", "--state", state.to_str().unwrap()]);
    let screen = Running::start(&mut screen);
    wait_for("a screen that is drawn again", || {
        let drawn = String::from_utf8_lossy(&screen.stdout()).into_owned();
        let again = drawn.matches("\u{1b}[H").count() >= 2 && drawn.contains("a: ");
        again.then_some(())
    });
    drop(screen);
    let mut unread = zferry_on(&host.zfs, &["status", "--watch"]);
    let mut unread = unread.arg("--state").arg(host.state()).spawn().unwrap();
    drop(unread.stdout.take());
    wait_for("its end", || unread.try_wait().unwrap());
    stopped(scheduler);
}
