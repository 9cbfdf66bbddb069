//! Drives `zferry::zfs` against the stand-in: every call that zferry makes, and how it ends.
//!
//! What real ZFS does with the same calls is tried in ci/vm.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use zferry::dataset::{Guid, Kind, SnapName};
use zferry::error::{Class, Failure, Side};
use zferry::listing::{SourceState, TargetState};
use zferry::pattern::Chosen;
use zferry::plan::{Goal, Plan, Policy, Refusal, Step, plan};
use zferry::process::{Ended, Process};
use zferry::token::Token;
use zferry::units::Bytes;
use zferry::zfs::estimate::Rest;
use zferry::zfs::hold::Tag;
use zferry::zfs::receive::Receive;
use zferry::zfs::{Zfs, ZfsError, failure, receive, send};

use super::{dataset, host, snap};
use crate::support::stand_in::{Failing, StandIn};

/// A host with tank/a and its snapshots @s1, @s2 and @s3, each of more than one record's length.
fn host_with_history() -> (StandIn, Zfs) {
    let (host, zfs) = host();
    host.dataset("tank/a", "filesystem");
    for number in 1..=3 {
        host.snapshot("tank/a", &format!("s{number}"), &content(number));
    }
    (host, zfs)
}

/// Bytes of which no two stretches are alike, more than two pipes can hold.
fn content(seed: u64) -> Vec<u8> {
    (0..300_000u64).flat_map(|place| (place * 0x9E37_79B9 + seed).to_le_bytes()).collect()
}

fn guid_of(zfs: &Zfs, name: &str, snapshot: &SnapName) -> Option<Guid> {
    let name = dataset(name);
    zfs.arrived(&name.parent().unwrap(), &name, snapshot).unwrap().1
}

/// What an interrupted receive has left in backup/a.
fn token_of(zfs: &Zfs) -> Option<String> {
    zfs.way(&dataset("backup"), &dataset("backup/a")).unwrap().unwrap().resume_token
}

fn steps(zfs: &Zfs, from: &str, to: &str) -> Result<Vec<Step>, Refusal> {
    let source = zfs.source_state(&dataset(from)).unwrap();
    let target = zfs.target_state(&dataset(to)).unwrap();
    let policy = Policy { goal: Goal::Newest, intermediates: true, chosen: Chosen::default() };
    match plan(&source, &dataset(to), &target, &policy)? {
        Plan::Steps(steps) => Ok(steps),
        Plan::UpToDate { .. } => Ok(Vec::new()),
        Plan::Resume(resume) => panic!("there is something to finish: {resume:?}"),
    }
}

/// Runs one step as the engine will, only with one thread between both pipes.
fn carry(zfs: &Zfs, from: &str, to: &str, step: &Step) -> (Ended, Ended) {
    let kind = zfs.source_state(&dataset(from)).unwrap().kind;
    let sending = zfs.send(&dataset(from), step).unwrap();
    through(sending, zfs.receive(&Receive::new(dataset(to), kind, step.from.is_none())).unwrap())
}

/// The same for the rest of a stream.
fn carry_rest(zfs: &Zfs, to: &str, token: &Token) -> (Ended, Ended) {
    let receiving = zfs.receive(&Receive::new(dataset(to), Kind::Filesystem, false)).unwrap();
    through(zfs.send_rest(token).unwrap(), receiving)
}

fn through(sending: (Process, OwnedFd), receiving: (Process, OwnedFd)) -> (Ended, Ended) {
    let ((sender, output), (receiver, input)) = (sending, receiving);
    // That the reader went away is told by its end.
    let _ = io::copy(&mut File::from(output), &mut File::from(input));
    (sender.wait().unwrap(), receiver.wait().unwrap())
}

fn told(sender: &Ended, receiver: &Ended) -> Option<Failure> {
    let send = failure::of_send(&dataset("tank/a"), sender);
    failure::verdict(send, failure::of_receive(&dataset("backup/a"), receiver))
}

#[test]
fn a_source_is_listed_with_snapshots_and_bookmarks() {
    let (host, zfs) = host_with_history();
    host.bookmark("tank/a", "s1", "m1");
    host.destroy("tank/a@s1");
    host.dataset("tank/a/child", "filesystem");
    host.snapshot("tank/a/child", "other", b"");
    let SourceState { kind, encrypted, snapshots, bookmarks, .. } =
        zfs.source_state(&dataset("tank/a")).unwrap();
    assert_eq!((kind, encrypted), (Kind::Filesystem, false));
    let names: Vec<_> = snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
    assert_eq!(names, ["s2", "s3"]);
    assert_eq!(snapshots[0].guid, Guid(host.guid("tank/a@s2")));
    assert!(snapshots[0].guid.0 > u64::MAX / 2 && bookmarks[0].guid != snapshots[0].guid);
    assert!(bookmarks[0].createtxg < snapshots[0].createtxg);
    assert_eq!((bookmarks.len(), bookmarks[0].name.as_str()), (1, "m1"));
}

#[test]
fn encrypted_volumes_are_seen_for_what_they_are() {
    let (host, zfs) = host();
    host.dataset("tank/v", "volume");
    host.encrypt("tank/v");
    let state = zfs.source_state(&dataset("tank/v")).unwrap();
    assert_eq!((state.kind, state.encrypted), (Kind::Volume, true));
    assert!(state.snapshots.is_empty() && state.bookmarks.is_empty());
}

#[test]
fn an_absent_target_is_an_answer_and_an_absent_pool_an_error() {
    let (host, zfs) = host();
    assert_eq!(zfs.target_state(&dataset("backup/a/b")).unwrap(), TargetState::Absent);
    for name in ["nopool/a", "nopool"] {
        let error = zfs.target_state(&dataset(name)).unwrap_err();
        assert!(matches!(error, ZfsError::NoPool { .. }), "{error}");
        assert!(error.on(Side::Target).remedy.unwrap().contains("zpool import nopool"));
    }
    host.snapshot("backup", "s", b"");
    let TargetState::Present { kind, snapshots, resume_token, .. } =
        zfs.target_state(&dataset("backup")).unwrap()
    else {
        panic!("not seen");
    };
    assert_eq!((kind, snapshots.len(), resume_token), (Kind::Filesystem, 1, None));
}

#[test]
fn an_absent_source_is_a_failure_that_names_it() {
    let (_host, zfs) = host();
    let failure = zfs.source_state(&dataset("tank/typo")).unwrap_err().on(Side::Source);
    assert_eq!((failure.side, failure.class), (Side::Source, Class::Refused));
    assert!(failure.what.contains("cannot open 'tank/typo': dataset does not exist"), "{failure}");
}

#[test]
fn zfs_gets_a_path_and_a_locale_and_nothing_else() {
    let (host, zfs) = host();
    zfs.version().unwrap();
    let environment = host.environment();
    assert_eq!(environment.len(), 2, "{environment:?}");
    assert_eq!(environment[0], "LC_ALL=C");
    assert!(environment[1].starts_with("PATH=/"), "{environment:?}");
}

#[test]
fn names_with_spaces_are_one_argument() {
    let (host, zfs) = host();
    host.dataset("tank/a b", "filesystem");
    host.snapshot("tank/a b", "s 1", b"words");
    let steps = steps(&zfs, "tank/a b", "backup/c d").unwrap();
    let (sent, received) = carry(&zfs, "tank/a b", "backup/c d", &steps[0]);
    assert!(sent.success() && received.success(), "{sent:?} {received:?}");
    assert_eq!(host.content("backup/c d@s 1"), b"words");
}

#[test]
fn a_history_arrives_whole_and_only_once() {
    let (host, zfs) = host_with_history();
    let steps_first = steps(&zfs, "tank/a", "backup/a").unwrap();
    assert_eq!(steps_first.len(), 3);
    for step in &steps_first {
        let (sent, received) = carry(&zfs, "tank/a", "backup/a", step);
        assert_eq!(told(&sent, &received), None);
        let arrived = guid_of(&zfs, "backup/a", &step.to.name);
        assert_eq!(arrived, Some(step.to.guid));
    }
    for number in 1..=3 {
        assert!(host.content(&format!("backup/a@s{number}")) == content(number));
    }
    assert_eq!(steps(&zfs, "tank/a", "backup/a").unwrap(), []);
    let set = |property| host.property("backup/a", property);
    assert_eq!(set("readonly").as_deref(), Some("on"));
    assert_eq!(set("canmount").as_deref(), Some("noauto"));
    let calls = host.calls().into_iter().filter(|call| call[0] == "send" || call[0] == "receive");
    let expected = steps_first.iter().flat_map(|step| {
        let first = step.from.is_none();
        let receive =
            receive::arguments(&Receive::new(dataset("backup/a"), Kind::Filesystem, first));
        [send::arguments(&dataset("tank/a"), step), receive]
    });
    // The two of a step start side by side.
    let (mut calls, mut expected) = (calls.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    calls.sort();
    expected.sort();
    assert_eq!(calls, expected);
}

#[test]
fn volumes_and_encrypted_datasets_arrive_too() {
    let (host, zfs) = host();
    host.dataset("tank/v", "volume");
    host.encrypt("tank/v");
    host.snapshot("tank/v", "s1", &content(1));
    for name in ["s1", "s2"] {
        if name == "s2" {
            host.snapshot("tank/v", "s2", &content(2));
        }
        for step in steps(&zfs, "tank/v", "backup/v").unwrap() {
            assert!(step.raw);
            let (sent, received) = carry(&zfs, "tank/v", "backup/v", &step);
            assert!(sent.success() && received.success(), "{sent:?} {received:?}");
        }
        assert_eq!(host.guid(&format!("backup/v@{name}")), host.guid(&format!("tank/v@{name}")));
    }
    let state = zfs.target_state(&dataset("backup/v")).unwrap();
    assert!(matches!(state, TargetState::Present { kind: Kind::Volume, .. }), "{state:?}");
}

#[test]
fn an_incremental_can_build_on_a_bookmark() {
    let (host, zfs) = host_with_history();
    for step in steps(&zfs, "tank/a", "backup/a").unwrap().iter().take(2) {
        carry(&zfs, "tank/a", "backup/a", step);
    }
    host.bookmark("tank/a", "s2", "m2");
    host.destroy("tank/a@s2");
    let steps = steps(&zfs, "tank/a", "backup/a").unwrap();
    assert_eq!(send::arguments(&dataset("tank/a"), &steps[0])[4], "tank/a#m2");
    let (sent, received) = carry(&zfs, "tank/a", "backup/a", &steps[0]);
    assert_eq!(told(&sent, &received), None);
    assert_eq!(host.snapshots("backup/a"), ["s1", "s2", "s3"]);
}

#[test]
fn a_stream_begins_as_a_real_one_does() {
    let (host, zfs) = host_with_history();
    let steps = steps(&zfs, "tank/a", "backup/a").unwrap();
    let (sender, output) = zfs.send(&dataset("tank/a"), &steps[1]).unwrap();
    let mut stream = Vec::new();
    File::from(output).read_to_end(&mut stream).unwrap();
    assert!(sender.wait().unwrap().success());
    let number = |at: usize| u64::from_le_bytes(stream[at..at + 8].try_into().unwrap());
    assert_eq!(number(8), 0x2_F5BA_CBAC);
    assert_eq!((number(40), number(48)), (host.guid("tank/a@s2"), host.guid("tank/a@s1")));
    assert!(stream[56..].starts_with(b"tank/a@s2\0"));
    assert_eq!(stream.len(), 3 * 312 + content(2).len());
    assert!(stream[624..].starts_with(&content(2)));
}

#[test]
fn a_cut_stream_leaves_a_token_that_its_rest_is_sent_by() {
    let (host, zfs) = host_with_history();
    let step = steps(&zfs, "tank/a", "backup/a").unwrap().remove(0);
    let words = "warning: cannot send 'tank/a@s1': Input/output error";
    let exit = "exit status 1".to_owned();
    host.fail_send(&Failing { after_bytes: 100_000, status: "1", words });
    let (sent, received) = carry(&zfs, "tank/a", "backup/a", &step);
    assert_eq!((sent.to_string(), received.to_string()), (exit.clone(), exit));
    assert!(received.stderr.contains("checksum mismatch or incomplete stream.\nPartially"));
    let failure = told(&sent, &received).unwrap();
    assert_eq!((failure.side, failure.class), (Side::Source, Class::Zfs));
    assert!(failure.what.contains(words) && failure.remedy.unwrap().contains("zpool status -v"));
    assert_eq!(host.partly_received("backup/a").unwrap(), content(1)[..100_000 - 624]);

    let TargetState::Present { resume_token: Some(token), snapshots, .. } =
        zfs.target_state(&dataset("backup/a")).unwrap()
    else {
        panic!("no token");
    };
    assert!(snapshots.is_empty() && received.stderr.contains(&token));
    // A whole stream is refused now, by zfs.
    let (sent, received) = carry(&zfs, "tank/a", "backup/a", &step);
    assert_eq!(told(&sent, &received).unwrap().class, Class::Refused);
    assert_eq!(token_of(&zfs).as_ref(), Some(&token));
    let token: Token = token.parse().unwrap();
    assert_eq!((token.to, token.from), (step.to.guid, None));
    let rest = content(1).len() as u64 - (100_000 - 624);
    assert_eq!(zfs.rest_of(&token).unwrap(), Rest::Sendable(Some(Bytes(rest))));
    let (sent, received) = carry_rest(&zfs, "backup/a", &token);
    assert!(sent.success() && received.success(), "{received}: {}", received.stderr);
    assert!(host.content("backup/a@s1") == content(1));
    assert_eq!(token_of(&zfs), None);
}

#[test]
fn a_token_is_dead_when_its_snapshot_or_base_is_gone_and_its_state_can_be_given_up() {
    let (host, zfs) = host_with_history();
    let steps = steps(&zfs, "tank/a", "backup/a").unwrap();
    carry(&zfs, "tank/a", "backup/a", &steps[0]);
    host.fail_send(&Failing { after_bytes: 100_000, status: "1", words: "" });
    carry(&zfs, "tank/a", "backup/a", &steps[1]);
    let token = token_of(&zfs).unwrap();
    let token: Token = token.parse().unwrap();
    assert_eq!((token.to, token.from), (steps[1].to.guid, Some(steps[0].to.guid)));
    // A bookmark is as good a base.
    host.bookmark("tank/a", "s1", "m1");
    host.destroy("tank/a@s1");
    assert!(matches!(zfs.rest_of(&token).unwrap(), Rest::Sendable(Some(_))));
    host.destroy("tank/a#m1");
    let told = format!("{:?}", zfs.rest_of(&token).unwrap());
    assert!(told.starts_with("Dead") && told.contains("incremental source 0x"), "{told}");
    host.destroy("tank/a@s2");
    let Rest::Dead(words) = zfs.rest_of(&token).unwrap() else { panic!("alive") };
    assert!(words.contains("'tank/a@s2' used in the initial send no longer exists"), "{words}");

    zfs.abort_receive(&dataset("backup/a")).unwrap();
    assert_eq!(token_of(&zfs), None);
    let twice = zfs.abort_receive(&dataset("backup/a")).unwrap_err().to_string();
    assert!(twice.contains("does not have any resumable receive state to abort"), "{twice}");
}

#[test]
fn a_receive_that_dies_first_is_the_one_to_blame() {
    let (host, zfs) = host_with_history();
    let step = steps(&zfs, "tank/a", "backup/a").unwrap().remove(0);
    let words = "cannot receive new filesystem stream: out of space";
    host.fail_receive(&Failing { after_bytes: 100_000, status: "1", words });
    let (sent, received) = carry(&zfs, "tank/a", "backup/a", &step);
    assert_eq!(sent.signal(), Some(13), "{sent}");
    let failure = told(&sent, &received).unwrap();
    assert_eq!((failure.side, failure.class), (Side::Target, Class::Wait), "{failure}");
    assert!(host.partly_received("backup/a").is_some(), "what came in is kept");
}

#[test]
fn killed_processes_are_told_by_their_signal() {
    let (host, zfs) = host_with_history();
    let step = steps(&zfs, "tank/a", "backup/a").unwrap().remove(0);
    host.fail_receive(&Failing { after_bytes: 1000, status: "KILL", words: "" });
    let (sent, received) = carry(&zfs, "tank/a", "backup/a", &step);
    let failure = told(&sent, &received).unwrap();
    assert_eq!((failure.side, failure.class), (Side::Target, Class::Interrupted));
    assert!(failure.what.contains("killed by signal 9 (SIGKILL)"), "{failure}");
}

#[test]
fn refusals_of_zfs_keep_their_words() {
    let (host, zfs) = host_with_history();
    let all = steps(&zfs, "tank/a", "backup/a").unwrap();
    let refused = |to: &str, step: &Step| {
        let (sent, received) = carry(&zfs, "tank/a", to, step);
        told(&sent, &received).expect("refused").what
    };
    assert!(refused("backup/no/a", &all[0]).contains("cannot open 'backup/no': dataset does not"));
    assert!(refused("backup", &all[0]).contains("destination 'backup' exists must specify -F"));
    assert!(refused("backup/a", &all[1]).contains("destination 'backup/a' does not exist"));
    carry(&zfs, "tank/a", "backup/a", &all[0]);
    assert!(refused("backup/a", &all[2]).contains("does not match incremental source"));
    host.modify("backup/a");
    assert!(refused("backup/a", &all[1]).contains("has been modified since most recent snapshot"));
    host.destroy("tank/a@s1");
    let (sent, received) = carry(&zfs, "tank/a", "backup/a", &all[1]);
    assert!(told(&sent, &received).unwrap().what.contains("incremental source (tank/a@s1)"));
    host.destroy("tank/a@s2");
    let (sent, received) = carry(&zfs, "tank/a", "backup/a", &all[1]);
    assert!(told(&sent, &received).unwrap().what.contains("cannot open 'tank/a@s2': dataset"));
}

#[test]
fn a_stream_that_is_none_is_refused() {
    let (_host, zfs) = host();
    for (bytes, words) in
        [(&b""[..], "failed to read from stream"), (&[b'x'; 400], "bad magic number")]
    {
        let (receiver, input) =
            zfs.receive(&Receive::new(dataset("backup/a"), Kind::Filesystem, true)).unwrap();
        File::from(input).write_all(bytes).unwrap();
        let failure = failure::of_receive(&dataset("backup/a"), &receiver.wait().unwrap()).unwrap();
        assert!(failure.what.contains(words), "{failure}");
    }
}

#[test]
fn a_slow_sender_is_stopped_from_another_thread() {
    let (host, zfs) = host_with_history();
    host.slow_send(1000, Duration::from_secs(30));
    let step = steps(&zfs, "tank/a", "backup/a").unwrap().remove(0);
    let (sender, output) = zfs.send(&dataset("tank/a"), &step).unwrap();
    let stopper = sender.stopper();
    let mut output = File::from(output);
    let mut first = [0; 1000];
    output.read_exact(&mut first).unwrap();
    let started = Instant::now();
    let stopping = std::thread::spawn(move || stopper.terminate());
    let ended = sender.wait().unwrap();
    stopping.join().unwrap().unwrap();
    assert_eq!(ended.signal(), Some(15), "{ended}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_dropped_receive_keeps_what_came_in() {
    let (host, zfs) = host_with_history();
    let step = steps(&zfs, "tank/a", "backup/a").unwrap().remove(0);
    let (sender, output) = zfs.send(&dataset("tank/a"), &step).unwrap();
    let mut stream = Vec::new();
    File::from(output).read_to_end(&mut stream).unwrap();
    sender.wait().unwrap();
    let (receiver, input) =
        zfs.receive(&Receive::new(dataset("backup/a"), Kind::Filesystem, true)).unwrap();
    File::from(input.try_clone().unwrap()).write_all(&stream[..200_000]).unwrap();
    let started = Instant::now();
    while host.partly_received("backup/a").is_none_or(|kept| kept.is_empty()) {
        assert!(started.elapsed() < Duration::from_secs(20), "nothing came in");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = Process::pid(&receiver);
    drop(receiver);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let state = zfs.target_state(&dataset("backup/a")).unwrap();
    assert!(matches!(state, TargetState::Present { resume_token: Some(_), .. }), "{state:?}");
}

#[test]
fn holds_can_be_set_and_released_twice() {
    let (host, zfs) = host_with_history();
    let (a, s1, tag) = (dataset("tank/a"), snap("s1"), Tag::of_transfer("f00d"));
    zfs.hold(&a, std::slice::from_ref(&s1), &tag).unwrap();
    zfs.hold(&a, std::slice::from_ref(&s1), &tag).unwrap();
    assert_eq!(host.holds("tank/a@s1"), ["zferry:f00d"]);
    assert_eq!(zfs.holds(&a, &s1).unwrap(), ["zferry:f00d"]);
    zfs.release(&a, std::slice::from_ref(&s1), &tag).unwrap();
    zfs.release(&a, std::slice::from_ref(&s1), &tag).unwrap();
    assert!(zfs.holds(&a, &s1).unwrap().is_empty());
    let failure = zfs.hold(&a, &[snap("none")], &tag).unwrap_err().on(Side::Source);
    assert!(failure.what.contains("'tank/a@none': dataset does not exist"), "{failure}");
}

#[test]
fn snapshots_are_taken_once() {
    let (host, zfs) = host_with_history();
    let name = zferry::zfs::snapshot::name_at("2026-08-01T12:00:00Z".parse().unwrap());
    host.write("tank/a", b"new");
    zfs.snapshot(&dataset("tank/a"), &name).unwrap();
    assert_eq!(host.content(&format!("tank/a@{name}")), b"new");
    let newest = zfs.source_state(&dataset("tank/a")).unwrap().snapshots.pop().unwrap();
    assert_eq!(newest.name, name);
    assert_eq!(guid_of(&zfs, "tank/a", &name), Some(newest.guid));
    let failure = zfs.snapshot(&dataset("tank/a"), &name).unwrap_err().on(Side::Source);
    assert!(failure.what.contains("dataset already exists"), "{failure}");
    let failure = zfs.snapshot(&dataset("tank/no"), &name).unwrap_err().on(Side::Source);
    assert_eq!(failure.class, Class::Refused);
    assert!(
        failure.what.ends_with("cannot open 'tank/no': dataset does not exist (and its usage:)")
    );
}

#[test]
fn streams_are_estimated() {
    let (_host, zfs) = host_with_history();
    for step in steps(&zfs, "tank/a", "backup/a").unwrap() {
        let estimate = zfs.estimate(&dataset("tank/a"), &step).unwrap();
        assert_eq!(estimate, Bytes::from(content(1).len()));
    }
}

#[test]
fn versions_come_from_the_command_and_the_module() {
    let (host, zfs) = host();
    assert_eq!(zfs.version().unwrap().kernel.unwrap().text, "2.3.9-1");
    host.set_version("who knows\n");
    let error = zfs.version().unwrap_err();
    assert!(matches!(error, ZfsError::Unreadable { .. }), "{error}");
}

#[test]
fn a_zfs_that_cannot_run_is_a_fault_of_the_machine() {
    let failure = Zfs::at("/nonexistent/zfs").version().unwrap_err().on(Side::Target);
    assert_eq!((failure.side, failure.class), (Side::Target, Class::Machine));
    assert!(failure.what.contains("'zfs version'"), "{failure}");
}
