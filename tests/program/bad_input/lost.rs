//! Ends that are lost in the middle of a transfer.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use zferry::protocol::frame::{Codec, Header};
use zferry::protocol::message::{Message, Outcome, Stream};
use zferry::units::StreamOffset;

use super::{SOON, assert_partly_received, content, under_way, until_the_end};
use crate::support::host::{Server, running_zfs, send_open, wait_for, wait_for_words};
use crate::support::peer::{Peer, frame, header};

#[test]
fn a_client_that_is_killed_leaves_a_part_and_a_server_that_serves() {
    let (source, target, server, client) = under_way();
    let started = Instant::now();
    client.signal("KILL");
    wait_for_words(&server.running, "session failed");
    assert!(started.elapsed() < SOON);
    let said = server.running.said();
    assert!(said.contains("failure=network: "), "{said}");
    assert_partly_received(&target);
    wait_for("zfs send to end", || running_zfs(&source).is_empty().then_some(()));
    server.still_serves();
}

#[test]
fn a_server_that_is_killed_is_noticed_and_leaves_a_part() {
    let (source, target, server, client) = under_way();
    let started = Instant::now();
    server.running.signal("KILL");
    client.ended().failed_with(2, &["zferry: network: the connection to 127.0.0.1:", "was lost"]);
    assert!(started.elapsed() < SOON);
    assert_partly_received(&target);
    assert!(running_zfs(&source).is_empty(), "zfs send outlived its client");
    assert_eq!(source.holds("tank/a@s").len(), 1, "what was sent in part is not held any more");
}

#[test]
fn an_end_that_stands_still_is_given_up_after_20_seconds() {
    let (still_source, _still_target, stopped, client) = under_way();
    stopped.running.signal("STOP");
    let started = Instant::now();
    let (_source, target, server, stopped_client) = under_way();
    stopped_client.signal("STOP");
    client.ended().failed_with(2, &["zferry: network: ", "nothing was heard for 20 seconds"]);
    assert!(started.elapsed() > Duration::from_secs(15), "that was no silence");
    assert!(running_zfs(&still_source).is_empty(), "zfs send outlived its client");
    wait_for_words(&server.running, "nothing was heard for 20 seconds");
    assert_partly_received(&target);
    server.still_serves();
}

#[test]
fn data_connections_may_come_late_and_go_early() {
    for left_one in [false, true] {
        let receiver = Server::receive(&[]);
        let mut peer = Peer::greet(receiver.address);
        if left_one {
            drop(peer.lane(0, peer.secret));
        }
        peer.ask(Stream::Pipe, Codec::Raw);
        let opened = peer.hear();
        assert!(matches!(opened, Some(Message::Opened { .. })), "not opened: {opened:?}");
        let mut lane = peer.lane(0, peer.secret);
        lane.write_all(&frame(header(0, b"begin "), b"begin ")).unwrap();
        // A connection that takes the place of another ends it, with all that was not read yet.
        wait_for("the block", || (receiver.running.stdout() == b"begin ").then_some(()));
        drop(lane);
        let mut lane = peer.lane(0, peer.secret);
        let end = Header { offset: StreamOffset(6), ..header(1, b"end") };
        lane.write_all(&frame(end, b"end")).unwrap();
        peer.end(b"begin end");
        let outcome = peer.hear();
        let applied = matches!(outcome, Some(Message::Result { outcome: Outcome::Applied(_), .. }));
        assert!(applied, "not applied: {outcome:?}");
        peer.say(&Message::Bye);
        assert_eq!(receiver.running.ended().succeeded().stdout, b"begin end");
    }
}

#[test]
fn a_command_whose_stream_is_cut_never_sees_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    for cut in ["KILL", "INT", "TERM"] {
        let receiver = Server::receive(&["--grace", "0", "--", "sh", "-c", &until_the_end(&done)]);
        let mut sender = send_open(receiver.address, &[]);
        let mut stdin = sender.stdin();
        stdin.write_all(&content(1)).unwrap();
        let part = folder.path().join("done.part");
        wait_for("the bytes", || fs::read(&part).is_ok_and(|b| b == content(1)).then_some(()));
        sender.signal(cut);
        receiver.running.ended().failed_with(2, &["zferry: "]);
        assert!(!done.exists(), "the command saw a clean end after {cut}");
        if cut != "KILL" {
            sender.ended().failed_with(2, &["source: stopped by a signal"]);
        }
        fs::remove_file(part).unwrap();
    }
}

#[test]
fn a_command_that_will_not_stop_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let script = format!("trap '' TERM; {}", until_the_end(&done));
    let receiver = Server::receive(&["--grace", "0", "--", "sh", "-c", &script]);
    let mut sender = send_open(receiver.address, &[]);
    let mut stdin = sender.stdin();
    stdin.write_all(b"bytes").unwrap();
    let part = folder.path().join("done.part");
    wait_for("the command to start", || part.exists().then_some(()));
    sender.signal("KILL");
    receiver.running.ended().failed_with(2, &["killed a process that did not end by itself"]);
    assert!(!done.exists(), "the command saw a clean end");
}
