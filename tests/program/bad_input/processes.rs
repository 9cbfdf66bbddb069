//! Processes at the ends of a stream that fail, die, stand still or do not exist.

use std::io::Read;
use std::time::{Duration, Instant};

use super::{SOON, assert_partly_received, content, copy, hosts, until_the_end};
use crate::support::host::{
    Server, replicate, running_zfs, send, send_open, wait_for_words, zferry,
};
use crate::support::stand_in::Failing;

/// A source with such pauses does not end before `zfs receive` has some of what it sends.
const UNHURRIED: Duration = Duration::from_millis(100);

#[test]
fn a_zfs_send_that_fails_is_told_on_both_sides_in_its_words() {
    let (source, target) = hosts();
    let words = "warning: cannot send 'tank/a@s': Input/output error";
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "1", words });
    source.slow_send(128 << 10, UNHURRIED);
    let server = Server::serve(&target, &[]);
    let client = copy(&source, &server.url("a")).ended();
    let told = format!("zferry: source: zfs send of tank/a: {words}");
    let client = client.failed_with(2, &[&told, "zpool status -v tank"]);
    assert_eq!(client.stderr.matches("zferry: ").count(), 1, "{}", client.stderr);
    wait_for_words(&server.running, words);
    assert!(server.running.said().contains("source: zfs send of tank/a"));
    assert_partly_received(&target);
    assert_eq!(source.holds("tank/a@s").len(), 1);
}

#[test]
fn a_zfs_send_that_is_killed_is_told_and_its_stream_is_no_whole_one() {
    let (source, target) = hosts();
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "KILL", words: "" });
    source.slow_send(128 << 10, UNHURRIED);
    let server = Server::serve(&target, &[]);
    let told = ["zferry: source: zfs send of tank/a: killed by signal 9 (SIGKILL)"];
    copy(&source, &server.url("a")).ended().failed_with(2, &told);
    wait_for_words(&server.running, "killed by signal 9");
    assert_partly_received(&target);
}

#[test]
fn a_source_that_dies_without_blame_is_no_end_of_its_stream() {
    // SIGPIPE says that somebody else is to blame. The pieces are still on their way when it dies.
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let slow = format!("(sleep 1; cat) | ({})", until_the_end(&done));
    let receiver = Server::receive(&["--cache", "4MiB", "--", "sh", "-c", &slow]);
    let make = ["--", "sh", "-c", "head -c 30000000 /dev/zero; kill -s PIPE $$"];
    let flags = ["--cache", "32MiB", "--block-size", "64KiB"];
    let sender = send_open(receiver.address, &[flags.as_slice(), &make].concat()).ended();
    sender.failed_with(2, &["zferry: source: sh failed: killed by signal 13 (SIGPIPE)"]);
    receiver.running.ended().failed_with(2, &["source: sh failed"]);
    assert!(!done.exists(), "the command saw a clean end");
}

#[test]
fn a_command_that_fails_at_the_source_fails_the_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let receiver = Server::receive(&["--", "sh", "-c", &until_the_end(&done)]);
    let make = ["--", "sh", "-c", "echo half; echo the disk is on fire >&2; exit 7"];
    let sender = send_open(receiver.address, &make).ended();
    sender.failed_with(2, &["zferry: source: sh failed: the disk is on fire"]);
    receiver.running.ended().failed_with(2, &["zferry: source: sh failed: the disk is on fire"]);
    assert!(!done.exists(), "the command saw a clean end");
}

#[test]
fn a_command_that_does_not_exist_is_told_on_both_sides() {
    let receiver = Server::receive(&["--", "/no/such/command"]);
    let told = ["zferry: target: start /no/such/command: No such file or directory"];
    send(receiver.address, &[], b"x".to_vec()).ended().failed_with(2, &told);
    receiver.running.ended().failed_with(2, &told);
    let receiver = Server::receive(&[]);
    let told = ["zferry: source: start /no/such/command: No such file or directory"];
    send_open(receiver.address, &["--", "/no/such/command"]).ended().failed_with(2, &told);
    receiver.running.ended().failed_with(2, &told);
}

#[test]
fn a_zfs_receive_that_fails_is_told_on_both_sides_in_its_words() {
    let (source, target) = hosts();
    let words = "cannot receive new filesystem stream: out of space";
    target.fail_receive(&Failing { after_bytes: 1 << 20, status: "1", words });
    let server = Server::serve(&target, &[]);
    let told = format!("zferry: target: zfs receive into backup/a: {words}");
    let client = copy(&source, &server.url("a")).ended();
    let client = client.failed_with(2, &[&told, "make room in backup"]);
    assert_eq!(client.stderr.matches("zferry: ").count(), 1, "{}", client.stderr);
    wait_for_words(&server.running, words);
    assert!(running_zfs(&source).is_empty());
    assert_partly_received(&target);
}

#[test]
fn a_zfs_receive_that_is_killed_is_told() {
    let (source, target) = hosts();
    target.fail_receive(&Failing { after_bytes: 1 << 20, status: "KILL", words: "" });
    let server = Server::serve(&target, &[]);
    let told = ["zferry: target: zfs receive into backup/a: killed by signal 9 (SIGKILL)"];
    copy(&source, &server.url("a")).ended().failed_with(2, &told);
    wait_for_words(&server.running, "killed by signal 9");
    assert_partly_received(&target);
}

#[test]
fn a_zfs_receive_that_refuses_at_once_is_told_although_little_was_sent() {
    let (source, target) = hosts();
    source.dataset("tank/tiny", "filesystem");
    source.snapshot("tank/tiny", "s", b"tiny");
    let words = "cannot receive new filesystem stream: permission denied";
    target.fail_receive(&Failing { after_bytes: 0, status: "1", words });
    let server = Server::serve(&target, &[]);
    let told = format!("zferry: target: zfs receive into backup/a: {words}");
    let client = replicate(&source, "tank/tiny", &server.url("a"), &["--no-snapshot"]);
    client.ended().failed_with(2, &[&told, "zfs allow"]);
    assert!(!target.exists("backup/a"));
}

#[test]
fn of_a_stream_that_fails_at_both_ends_the_cause_is_told() {
    let (source, target) = hosts();
    let cause = "warning: cannot send 'tank/a@s': Input/output error";
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "1", words: cause });
    target.slow_receive(256 << 10, Duration::from_millis(50));
    let server = Server::serve(&target, &[]);
    let client = copy(&source, &server.url("a")).ended().failed_with(2, &[cause]);
    assert!(!client.stderr.contains("incomplete stream"), "{}", client.stderr);
}

#[test]
fn a_stdout_that_nobody_reads_is_told_on_both_sides() {
    for backend in ["uring", "threads"] {
        let (reader, writer) = std::io::pipe().unwrap();
        let words = ["receive", "--listen", "127.0.0.1:0", "--plain", "--io", backend];
        let mut command = zferry(&words);
        let receiver = Server::start(command.stdout(writer));
        drop((command, reader));
        let told = ["zferry: target: whatever takes the stream stopped reading before its end"];
        send(receiver.address, &[], content(1)).ended().failed_with(2, &told);
        receiver.running.ended().failed_with(2, &told);
    }
}

#[test]
fn a_reader_that_stands_still_does_not_keep_a_receiver_from_stopping() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = zferry(&["receive", "--listen", "127.0.0.1:0", "--plain"]);
    let receiver = Server::start(command.stdout(writer));
    drop(command);
    let sender = send(receiver.address, &[], content(1));
    // One byte says that the stream flows; then the pipe fills, and is never read again.
    reader.read_exact(&mut [0]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    receiver.running.signal("INT");
    receiver.running.ended().failed_with(2, &["zferry: target: the server is stopping"]);
    sender.ended().failed_with(2, &["target: the server is stopping"]);
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    drop(reader);
}
