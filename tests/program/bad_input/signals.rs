//! Ctrl-C and SIGTERM on either side, and machines that forbid `io_uring`.

use std::time::{Duration, Instant};

use super::{SOON, assert_partly_received, content, copy, hosts, under_way, wait_until_some_came};
use crate::support::host::{Server, running_zfs, wait_for, wait_for_words, zferry};
use crate::support::sandbox;
use crate::support::stand_in::StandIn;

#[test]
fn where_io_uring_is_forbidden_threads_do_it_and_say_so_once() {
    let receive = ["receive", "--listen", "127.0.0.1:0", "--plain"];
    let receiver = Server::of(sandbox::start_without_io_uring(&receive));
    let address = receiver.address.to_string();
    let mut sender = sandbox::start_without_io_uring(&["send", &address, "--plain"]);
    sender.feed(content(1));
    let sent = sender.ended().succeeded();
    let taken = receiver.running.ended().succeeded();
    assert!(taken.stdout == content(1));
    for ended in [&sent, &taken] {
        let told = ended.stderr.matches("io_uring cannot be used").count();
        assert_eq!(told, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("plain system calls"), "{}", ended.stderr);
    }
}

#[test]
fn where_io_uring_is_forbidden_it_cannot_be_forced() {
    for (side, words) in [
        ("target", ["receive", "--listen", "127.0.0.1:0", "--plain", "--io", "uring"]),
        ("source", ["send", "127.0.0.1:1", "--plain", "--io", "uring", "--quiet"]),
    ] {
        let told = format!("zferry: {side}: io_uring cannot be used");
        sandbox::start_without_io_uring(&words)
            .ended()
            .failed_with(2, &[&told, "seccomp", "--io threads"]);
    }
}

/// The default before Linux 5.16: a small ring fits into it, those of a session do not.
#[test]
fn where_little_memory_can_be_locked_threads_do_it() {
    let receive = ["receive", "--listen", "127.0.0.1:0", "--plain"];
    let (receiver, _its_program) = sandbox::start_with_lockable_memory(64 << 10, &receive);
    let receiver = Server::of(receiver);
    let address = receiver.address.to_string();
    let send = ["send", &address, "--plain"];
    let (mut sender, _its_program) = sandbox::start_with_lockable_memory(64 << 10, &send);
    sender.feed(content(1));
    sender.ended().succeeded();
    assert!(receiver.running.ended().succeeded().stdout == content(1));
}

/// A limit that the rings fit into, but not the pages of a block.
#[test]
fn where_pages_cannot_be_locked_blocks_are_sent_as_copies() {
    let receive = ["receive", "--listen", "127.0.0.1:0", "--plain"];
    let receiver = Server::start(&mut zferry(&receive));
    let address = receiver.address.to_string();
    let send = ["send", &address, "--plain", "--io", "uring", "--zero-copy-send", "on"];
    let (mut sender, _its_program) = sandbox::start_with_lockable_memory(1 << 20, &send);
    sender.feed(content(5));
    sender.ended().succeeded();
    assert!(receiver.running.ended().succeeded().stdout == content(5));
}

#[test]
fn ctrl_c_before_anything_was_sent_is_told_to_the_server() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &[]);
    target.pause_before("list", Duration::from_secs(3));
    let client = copy(&source, &server.url("a"));
    wait_for("the target to be listed", || (!running_zfs(&target).is_empty()).then_some(()));
    client.signal("INT");
    client.ended().failed_with(2, &["stopped by a signal before anything was sent"]);
    wait_for_words(&server.running, "stopped by a signal before anything was sent");
    let said = server.stopped().succeeded().stderr;
    assert!(!said.contains("waiting for it"), "{said}");
}

#[test]
fn ctrl_c_stops_a_copy_and_keeps_what_came() {
    let (source, target, server, client) = under_way();
    client.signal("INT");
    let ended = client.ended();
    ended.failed_with(2, &["zferry: source: stopped by a signal before the stream was complete"]);
    assert!(running_zfs(&source).is_empty(), "zfs send outlived its client");
    wait_for_words(&server.running, "stopped by a signal");
    assert_partly_received(&target);
    assert_eq!(source.holds("tank/a@s").len(), 1);
    server.still_serves();
}

#[test]
fn ctrl_c_stops_a_copy_within_one_host() {
    let (host, _) = hosts();
    host.slow_send(128 << 10, Duration::from_millis(200));
    let client = copy(&host, "backup/a");
    wait_until_some_came(&host);
    client.signal("INT");
    client.ended().failed_with(2, &["zferry: source: stopped by a signal"]);
    assert!(running_zfs(&host).is_empty(), "zfs outlived its client");
    assert_partly_received(&host);
}

#[test]
fn a_receiver_that_waits_is_stopped_by_one_signal() {
    for signal in ["INT", "TERM"] {
        let receiver = Server::receive(&[]);
        receiver.running.signal(signal);
        receiver.running.ended().failed_with(2, &["target: stopped before a stream came"]);
    }
}

#[test]
fn a_server_that_stops_finishes_what_runs_and_takes_nothing_new() {
    let (source, target, server, client) = under_way();
    server.running.signal("TERM");
    wait_for_words(&server.running, "stopping when the last transfer ends");
    let (other, _) = hosts();
    copy(&other, &server.url("b")).ended().failed_with(2, &["target: the server is stopping"]);
    client.ended().succeeded();
    server.running.ended().succeeded();
    assert!(target.content("backup/a@s") == content(1));
    assert_eq!(source.holds("tank/a@s"), [""; 0]);
}

#[test]
fn a_server_that_stops_does_not_wait_long_for_a_client_that_is_gone() {
    let (_source, target, server, client) = under_way();
    server.running.signal("TERM");
    wait_for_words(&server.running, "stopping when the last transfer ends");
    let started = Instant::now();
    client.signal("KILL");
    server.running.ended().succeeded();
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
    assert_partly_received(&target);
}

#[test]
fn a_client_with_more_to_send_is_told_that_the_server_stops() {
    let (source, target, server, client) = under_way();
    drop(client);
    drop(server);
    let server = Server::serve(&target, &[]);
    source.snapshot("tank/a", "t", &content(2));
    let client = copy(&source, &server.url("two"));
    wait_for("the first bytes", || target.partly_received("backup/two"));
    server.running.signal("TERM");
    client.ended().failed_with(2, &["zferry: target: the server is stopping"]);
    server.running.ended().succeeded();
    assert_eq!(target.snapshots("backup/two"), ["s"], "the first stream was not finished");
}

#[test]
fn a_second_signal_stops_a_server_at_once() {
    let (_source, target, server, client) = under_way();
    // Its pipe is full of what it takes for ever to read.
    server.running.signal("TERM");
    wait_for_words(&server.running, "stopping when the last transfer ends");
    let started = Instant::now();
    server.running.signal("TERM");
    client.ended().failed_with(2, &["zferry: target: the server is stopping"]);
    server.running.ended();
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    assert_partly_received(&target);
}

#[test]
fn a_second_signal_does_not_wait_for_a_zfs_receive_that_stands_still() {
    let (source, target) = hosts();
    target.slow_receive(64 << 10, Duration::from_secs(5));
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let client = copy(&source, &server.url("a"));
    wait_until_some_came(&target);
    server.running.signal("TERM");
    // Two that come at once may be one.
    let is_heard = || server.running.said().contains("a second signal ends it now");
    wait_for("the first", || is_heard().then_some(()));
    server.running.signal("TERM");
    let started = Instant::now();
    client.ended().failed_with(2, &["zferry: "]);
    server.running.ended();
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
}

#[test]
fn a_server_without_a_list_of_clients_outlives_a_hangup() {
    let target = StandIn::new();
    let server = Server::serve(&target, &[]);
    server.running.signal("HUP");
    server.still_serves();
}
