//! Sources on hosts that only ssh knows: a real sshd on loopback, and a stand-in on either side.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::executable;
use crate::support::far::Far;
use crate::support::host::{Running, running_zfs, wait_for, zferry, zferry_on};
use crate::support::stand_in::{Failing, StandIn};

/// A host with tank/a@one.
fn source() -> Far {
    let far = Far::start();
    far.host.dataset("tank/a", "filesystem");
    far.host.snapshot("tank/a", "one", &vec![1; 300_000]);
    far
}

/// A stream that takes long: 3 MB, 100 KB of them every tenth of a second.
fn slow_source() -> Far {
    let far = Far::start();
    far.host.dataset("tank/a", "filesystem");
    far.host.snapshot("tank/a", "one", &vec![1; 3_000_000]);
    far.host.slow_send(100_000, Duration::from_millis(100));
    far
}

/// Small blocks, so that something is on its way all the time.
const SMALL: [&str; 4] = ["--block-size", "64KiB", "--cache", "8MiB"];

fn has_begun(here: &StandIn) {
    let part = || here.partly_received("backup/a").filter(|part| part.len() > 300_000);
    wait_for("a part of the stream", part);
}

#[track_caller]
fn is_whole(far: &Far, here: &StandIn) {
    assert_eq!(here.snapshots("backup/a"), far.host.snapshots("tank/a"));
    for name in here.snapshots("backup/a") {
        let (ours, theirs) = (format!("backup/a@{name}"), format!("tank/a@{name}"));
        assert!(here.content(&ours) == far.host.content(&theirs), "{name}");
        assert_eq!(far.host.holds(&theirs), [""; 0], "{name} is still held");
    }
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_dataset_is_fetched_from_a_host_that_has_only_ssh_and_zferry() {
    let (far, here) = (source(), StandIn::new());
    let first = far.fetch(&here, "tank/a", &[]).succeeded();
    assert_eq!(first.stderr, "", "nobody need be warned");
    let said = String::from_utf8(first.stdout).unwrap();
    assert!(said.contains(":tank/a@one -> backup/a, 1 stream: "), "{said}");
    far.host.snapshot("tank/a", "two b", &vec![2; 100_000]);
    far.host.snapshot("tank/a", "three", &vec![3; 100_000]);
    far.host.snapshot("tank/a", "four", &vec![4; 100_000]);
    let flags = ["--connections", "3", "--compress", "zstd:1", "--bwlimit", "50MiB"];
    far.fetch(&here, "tank/a", &flags).succeeded();
    is_whole(&far, &here);
    let again = far.fetch(&here, "tank/a", &["--json"]).succeeded();
    let told = String::from_utf8(again.stdout).unwrap();
    let done = told.lines().last().unwrap();
    let expected = r#"{"event":"done","holds":"tank/a@four","snapshot":"four","streams":0,"#;
    assert!(done.starts_with(expected), "{told}");
    let again = far.fetch(&here, "tank/a", &[]).succeeded();
    assert!(String::from_utf8(again.stdout).unwrap().contains("nothing to do, backup/a holds it"));
    far.is_left_alone();
}

#[test]
fn the_snapshots_are_chosen_as_for_any_copy() {
    let (far, here) = (source(), StandIn::new());
    far.host.snapshot("tank/a", "b b", &vec![2; 1000]);
    far.host.snapshot("tank/a", "three", &vec![3; 1000]);
    let flags = ["--newest-only", "--json"];
    let fetched = far.fetch(&here, "tank/a", &flags).succeeded();
    assert_eq!(here.snapshots("backup/a"), ["three"]);
    let told = String::from_utf8(fetched.stdout).unwrap();
    let events: Vec<&str> = told.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    let streams = events.iter().filter(|&&event| event == "begin").count();
    assert_eq!((streams, events.first(), events.last()), (1, Some(&"begin"), Some(&"done")));
}

#[test]
fn what_is_fetched_comes_through_ssh_where_that_is_wished() {
    let (far, here) = (source(), StandIn::new());
    far.fetch(&here, "tank/a", &["--via-ssh", "--connections", "3"]).succeeded();
    far.host.snapshot("tank/a", "two", &vec![2; 100_000]);
    far.fetch(&here, "tank/a", &["--via-ssh"]).succeeded();
    is_whole(&far, &here);
    far.is_left_alone();
}

#[test]
fn connections_through_ssh_that_are_cut_are_made_anew() {
    let (far, here) = (slow_source(), StandIn::new());
    let flags = ["--via-ssh", "--retry-for", "1m", "--connections", "2", "-v"];
    let copy = far.fetching(&here, "tank/a", &[&flags[..], &SMALL].concat());
    has_begun(&here);
    let cut = far.sshs("-W");
    assert_eq!(cut.len(), 3, "the control connection and two for data");
    cut.into_iter().for_each(kill);
    let ended = copy.ended().succeeded();
    assert!(ended.stderr.contains("a client came back"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("tried again"), "{}", ended.stderr);
    is_whole(&far, &here);
    let sends = far.host.calls().into_iter().filter(|call| call[0] == "send" && call[1] != "-nP");
    assert!(sends.count() < 3, "the same zfs send has gone on");
}

#[test]
fn an_ssh_that_is_lost_is_started_again_and_the_copy_goes_on() {
    let (far, here) = (slow_source(), StandIn::new());
    let flags = ["--retry-for", "1m", "-v"];
    let copy = far.fetching(&here, "tank/a", &[&flags[..], &SMALL].concat());
    has_begun(&here);
    far.sshs("deliver").into_iter().for_each(kill);
    let ended = copy.ended().succeeded();
    assert!(ended.stderr.contains("interrupted, tried again"), "{}", ended.stderr);
    assert!(ended.stderr.contains("going on at"), "{}", ended.stderr);
    is_whole(&far, &here);
    far.is_left_alone();
}

#[test]
fn whoever_asks_ends_what_it_has_started_there() {
    for (signal, code) in [("INT", Some(2)), ("TERM", Some(2)), ("KILL", None)] {
        for flags in [&[][..], &["--via-ssh"]] {
            let (far, here) = (slow_source(), StandIn::new());
            let flags = [flags, &["--retry-for", "1h"], &SMALL].concat();
            let copy = far.fetching(&here, "tank/a", &flags);
            has_begun(&here);
            copy.signal(signal);
            let ended = copy.ended();
            assert_eq!(ended.status.code(), code, "{}", ended.stderr);
            if code.is_some() {
                assert!(ended.stderr.contains("stopped by a signal"), "{}", ended.stderr);
                assert_eq!(running_zfs(&here), [""; 0]);
            }
            far.is_left_alone();
            // The next one goes on from there.
            far.host.slow_send(1 << 20, Duration::ZERO);
            wait_for("the end of zfs receive", || running_zfs(&here).is_empty().then_some(()));
            let next = far.fetch(&here, "tank/a", &SMALL).succeeded();
            let said = String::from_utf8(next.stdout).unwrap();
            assert!(said.contains("had been sent before"), "{said}");
            is_whole(&far, &here);
        }
    }
}

/// As one does that asks for a password, or hangs.
#[test]
fn an_ssh_that_hangs_is_not_left_behind() {
    let here = StandIn::new();
    let ssh = here.bin().join("ssh");
    // No other run of this test has the same.
    let seconds = format!("1000.{}", std::process::id());
    executable::script(&format!("#!/bin/sh\nexec sleep {seconds}\n"), &ssh);
    let copy = Running::start(&mut zferry_on(&here, &["replicate", "h:tank/a", "backup/a"]));
    let sleepers = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let words = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        let sleeper = format!("sleep\0{seconds}\0").into_bytes();
        words.filter(|words| *words == sleeper).count()
    };
    wait_for("the ssh", || (sleepers() == 1).then_some(()));
    copy.signal("TERM");
    copy.ended().failed_with(2, &["stopped by a signal"]);
    assert_eq!(sleepers(), 0);
}

#[test]
fn a_sender_that_dies_is_started_again_where_that_is_wished() {
    let (far, here) = (slow_source(), StandIn::new());
    let kill_the_sender = || {
        let sender = far.senders().pop().expect("it runs");
        kill(sender);
    };
    let copy = far.fetching(&here, "tank/a", &SMALL);
    has_begun(&here);
    kill_the_sender();
    copy.ended().failed_with(2, &["network: ssh to", "was killed there", "run the same command"]);
    let flags = ["--retry-for", "1m"];
    let copy = far.fetching(&here, "tank/a", &[&flags[..], &SMALL].concat());
    wait_for("the next one", || (far.senders().len() == 1).then_some(()));
    wait_for("its stream", || (!running_zfs(&here).is_empty()).then_some(()));
    kill_the_sender();
    copy.ended().succeeded();
    is_whole(&far, &here);
}

#[test]
fn what_goes_wrong_there_is_said_here_once() {
    let (mut far, here) = (source(), StandIn::new());
    let missing = far.fetch(&here, "tank/none", &[]);
    let missing = missing.failed_with(2, &["zferry: source: ", "tank/none", "does not exist"]);
    assert_eq!(missing.stderr.matches("does not exist").count(), 1, "{}", missing.stderr);
    let words = "warning: cannot send 'tank/a@one': Input/output error";
    far.host.fail_send(&Failing { after_bytes: 100_000, status: "1", words });
    far.fetch(&here, "tank/a", &[]).failed_with(2, &["zferry: source: ", "Input/output error"]);
    let words = "cannot receive new filesystem stream: out of space";
    here.fail_receive(&Failing { after_bytes: 1000, status: "1", words });
    far.fetch(&here, "tank/a", &[]).failed_with(2, &["zferry: target: ", "out of space"]);
    let nowhere = far.fetch(&here, "tank/a", &["--far-command", "no-such-zferry"]);
    nowhere.failed_with(2, &["source: there is no zferry on", "--far-command"]);
    let other = far.fetch(&here, "tank/a", &["--far-command", "echo hello; true"]);
    other.failed_with(2, &["the sending side on", "did not start"]);
    let older = far.fetch(&here, "tank/a", &["--far-command", "sh -c 'exit 3'"]);
    older.failed_with(2, &["did not start", "both hosts need this version"]);
    far.stop();
    let gone = far.fetch(&here, "tank/a", &["--retry-for", "1h"]);
    gone.failed_with(2, &["127.0.0.1: ssh: connect to host", "no connection by ssh to"]);
    far.is_left_alone();
}

#[test]
fn what_cannot_be_pruned_there_is_said_here_by_a_copy_that_is_done_in_part() {
    let (far, here) = (source(), StandIn::new());
    far.host.snapshot("tank/a", "zferry_2020-01-01T00:00:00Z", b"x");
    far.host.snapshot("tank/a", "zferry_2020-01-02T00:00:00Z", b"x");
    far.host.may_not_be_destroyed("tank/a");
    let keep = ["--keep", "last=1", "--keep-target", "last=1"];
    let ended = far.fetch(&here, "tank/a", &keep);
    let copied = "source: tank/a@zferry_2020-01-02T00:00:00Z is copied, but pruning failed: ";
    ended.failed_with(1, &[copied, "permission denied"]);
    assert_eq!(here.snapshots("backup/a"), ["one", "zferry_2020-01-02T00:00:00Z"]);
    // Of a tree each dataset is named as well.
    let ended = far.fetch(&here, "tank/a", &[&keep[..], &["-r"]].concat());
    let named = "zferry: tank/a: copied, but pruning failed: source: ";
    ended.failed_with(1, &[named, "1 dataset is copied, but pruning failed: tank/a; "]);
}

/// As for a login by way of another host, or by sudo, which forgets where it came from.
#[test]
fn where_ssh_did_not_come_from_us_our_own_address_is_tried() {
    let (far, here) = (source(), StandIn::new());
    // Of the first, the kernel knows at once that nobody has it.
    for seen in ["SSH_CONNECTION='255.255.255.255 1 127.0.0.1 22'", "-u SSH_CONNECTION"] {
        let elsewhere = format!("env {seen} {}", far.command());
        far.fetch(&here, "tank/a", &["--far-command", &elsewhere]).succeeded();
        is_whole(&far, &here);
        far.host.snapshot("tank/a", "two", b"two");
    }
}

#[test]
fn we_listen_on_the_ports_that_are_given() {
    let (far, here) = (source(), StandIn::new());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = far.fetch(&here, "tank/a", &["--ports", &port]);
    refused.failed_with(2, &["target: listen on", "--ports", "--via-ssh"]);
    drop(taken);
    far.fetch(&here, "tank/a", &["--ports", &port]).succeeded();
}

/// Records are the receiver's, which is here; breakpoint files the sender's.
#[test]
fn folders_are_of_the_side_that_has_a_use_for_them() {
    let (far, here) = (slow_source(), StandIn::new());
    let folders = tempfile::tempdir().unwrap();
    let (state, spool) = (folders.path().join("state"), folders.path().join("spool"));
    fs::create_dir(&spool).unwrap();
    let (state, spool) = (state.to_str().unwrap(), spool.to_str().unwrap());
    let flags = ["--state", state, "--spool", spool, "--spool-when", "always", "--json"];
    let flags = [&flags[..], &SMALL].concat();
    let copy = far.fetching(&here, "tank/a", &flags);
    has_begun(&here);
    assert!(fs::read_dir(spool).unwrap().count() > 0, "the sender keeps nothing");
    copy.signal("KILL");
    copy.ended();
    let told = Running::start(&mut zferry(&["status", "--state", state])).ended();
    let told = String::from_utf8(told.succeeded().stdout).unwrap();
    assert!(told.contains("backup/a"), "{told}");
    far.is_left_alone();
    wait_for("the end of zfs receive", || running_zfs(&here).is_empty().then_some(()));
    far.host.slow_send(1 << 20, Duration::ZERO);
    far.fetch(&here, "tank/a", &flags).succeeded();
    is_whole(&far, &here);
}

/// Whoever sends is let in to send one dataset, and has the run of nothing else here.
#[test]
fn another_host_that_sends_something_else_than_it_was_asked_for_is_refused() {
    let (far, here) = (source(), StandIn::new());
    let liar = far.host.bin().join("liar");
    let other = "sed -u s,--target=a,--target=other,";
    executable::script(&format!("#!/bin/sh\n{other} | {} \"$@\"\n", far.command()), &liar);
    let refused = far.fetch(&here, "tank/a", &["--far-command", liar.to_str().unwrap()]);
    refused.failed_with(2, &["target: backup/other is not what was asked for: backup/a"]);
    assert!(!here.exists("backup/other") && !here.exists("backup/a"));
}

#[test]
fn no_process_shows_the_ticket_or_what_was_typed() {
    let (far, here) = (slow_source(), StandIn::new());
    let copy = far.fetching(&here, "tank/a", &[&["--far-workers", "1"][..], &SMALL].concat());
    has_begun(&here);
    let mut seen = 0;
    for process in far.shown(&here) {
        // The fingerprint in it: the secret is not known here.
        for word in ["zferry_ticket", "zferry_errand", "SHA256:"] {
            for text in [&process.words, &process.environment] {
                assert!(!text.contains(word), "{word} is seen in {text}");
            }
        }
        let words = process.words.replace('\0', " ");
        if words.contains("zferry deliver") {
            seen += 1;
            assert!(!words.contains("tank/a"), "{words}");
        }
    }
    assert!(seen >= 2, "ssh and what it has started were not seen");
    copy.signal("TERM");
    copy.ended().failed_with(2, &[]);
    far.is_left_alone();
}

#[test]
fn the_sender_there_works_as_it_is_told() {
    let (far, here) = (slow_source(), StandIn::new());
    let flags = ["--far-workers", "1", "--workers", "2", "--compress", "zstd:1"];
    let copy = far.fetching(&here, "tank/a", &[&flags[..], &SMALL].concat());
    has_begun(&here);
    let workers = |pid: u32, name: &str| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        // The kernel keeps 15 letters of it.
        names.filter(|task| name.starts_with(task.trim()) && task.len() > 10).count()
    };
    assert_eq!(workers(far.senders()[0], "zferry-compress"), 1);
    assert_eq!(workers(copy.pid(), "zferry-decompress"), 2);
    copy.signal("TERM");
    copy.ended().failed_with(2, &[]);
}

#[test]
fn what_cannot_be_fetched_is_refused_before_ssh() {
    let here = StandIn::new();
    let copy = |from: &str, to: &str, flags: &[&str]| {
        let mut command = zferry_on(&here, &["replicate", from, to]);
        Running::start(command.args(flags)).ended()
    };
    for to in ["g:backup/a", "zferry://g/a"] {
        let both = copy("h:tank/a b", to, &[]);
        let remedy = format!("on h, zferry replicate 'tank/a b' {to}");
        both.failed_with(3, &["neither the source nor the target is on this host", &remedy]);
    }
    copy("zferry://h/a", "backup/a", &[]).failed_with(3, &["a server takes datasets"]);
    copy("h:tank/a", "backup", &[]).failed_with(3, &["is a whole pool"]);
    copy("h:tank/a", "backup/a", &["--plain"]).failed_with(3, &["there is a ticket"]);
    let limit = ["--via-ssh", "--bwlimit", "1MiB"];
    copy("h:tank/a", "backup/a", &limit).failed_with(3, &["--via-ssh has none"]);
    copy("h:tank/a", "backup/a", &["--bwlimit", "@x"]).failed_with(3, &["a file of this host"]);
    let splice = ["--lane", "splice", "--checksum", "none"];
    copy("h:tank/a", "backup/a", &splice).failed_with(3, &["with ssh everything is encrypted"]);
    copy("-oProxyCommand=x:tank/a", "backup/a", &[]).failed_with(3, &[]);
}

#[test]
fn whoever_types_deliver_is_told_who_should() {
    let alone = Running::start(&mut zferry(&["deliver"])).ended();
    assert_eq!(alone.code(), 3);
    assert!(String::from_utf8(alone.stdout).unwrap().contains("leave it to `zferry replicate"));
}
