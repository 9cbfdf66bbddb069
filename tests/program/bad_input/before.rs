//! What is refused before a byte flows: addresses, names, flags, programs that are not there.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use zferry::error::Side;

use super::{SOON, assert_partly_received, copy, hosts};
use crate::support::host::{
    Ended, Running, Server, free_address, replicate, send, zferry, zferry_at_a_terminal, zferry_on,
};
use crate::support::peer::{Peer, stranger};
use crate::support::stand_in::{Failing, StandIn};

#[test]
fn a_port_that_is_taken_is_told_with_the_way_to_find_out_by_whom() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let host = StandIn::new();
    let serve = ["serve", "--listen", &address, "--plain", "--root", "backup"];
    let receive = ["receive", "--listen", &address, "--plain"];
    for words in [serve.as_slice(), &receive] {
        let told = format!("zferry: target: listen on {address}: Address already in use");
        let find_out = format!("ss -ltnp | grep :{}", taken.local_addr().unwrap().port());
        Running::start(&mut zferry_on(&host, words)).ended().failed_with(2, &[&told, &find_out]);
    }
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    let nobody = free_address();
    let told = [
        &format!("zferry: network: no connection to {nobody} ({nobody}: Connection refused"),
        "zferry serve",
    ];
    send(nobody, &[], Vec::new()).ended().failed_with(2, &told);
    let (source, _) = hosts();
    let url = format!("zferry://{nobody}/a");
    replicate(&source, "tank/a", &url, &[]).ended().failed_with(2, &told);
    assert_eq!(source.snapshots("tank/a"), ["s"], "a snapshot was taken for nobody");
}

#[test]
fn a_name_without_an_address_is_told() {
    let words = ["send", "no.such.host.invalid:7000", "--plain"];
    Running::start(&mut zferry(&words))
        .ended()
        .failed_with(2, &["zferry: network: no address for no.such.host.invalid:7000"]);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let started = Instant::now();
    let told = ["zferry: network: ", "said nothing within 1 s"];
    send(stranger(None), &["--connect-timeout", "1"], Vec::new()).ended().failed_with(2, &told);
    let (source, _) = hosts();
    let url = format!("zferry://{}/a", stranger(None));
    let flags = ["--connect-timeout", "1"];
    replicate(&source, "tank/a", &url, &flags).ended().failed_with(2, &told);
    assert!(started.elapsed() < SOON);
    assert_eq!(source.snapshots("tank/a"), ["s"], "a snapshot was taken for nobody");
}

#[test]
fn an_unknown_dataset_is_told_and_nothing_is_made_for_it() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &[]);
    replicate(&source, "tank/b", &server.url("b"), &[]).ended().failed_with(
        2,
        &["zferry: source: ", "tank/b", "dataset does not exist", "check the name"],
    );
    replicate(&source, "nopool/b", &server.url("b"), &[])
        .ended()
        .failed_with(2, &["zferry: source: ", "nopool"]);
    assert!(!target.exists("backup/b"));
}

#[test]
fn a_target_without_a_common_snapshot_is_refused_with_both_guids() {
    let (source, target) = hosts();
    target.dataset("backup/a", "filesystem");
    let theirs = target.snapshot("backup/a", "mine", b"something else");
    let server = Server::serve(&target, &[]);
    let (ours, theirs) = (source.guid("tank/a@s").to_string(), theirs.to_string());
    copy(&source, &server.url("a"))
        .ended()
        .failed_with(2, &["zferry: target: ", "no snapshot in common", &ours, &theirs]);
    // Not even a new snapshot is taken for a target that would refuse it.
    replicate(&source, "tank/a", &server.url("a"), &[]).ended().failed_with(2, &[]);
    assert_eq!(source.snapshots("tank/a"), ["s"]);
    assert_eq!(target.snapshots("backup/a"), ["mine"]);
    assert_eq!(source.holds("tank/a@s"), [""; 0]);
    assert_nobody_is_awaited(server);
}

/// Whoever leaves by a decision of its own has said good-bye.
#[track_caller]
fn assert_nobody_is_awaited(server: Server) {
    // Only once it has no session any more.
    let said = server.stopped().succeeded().stderr;
    assert!(!said.contains("waiting for it"), "{said}");
}

#[test]
fn a_server_is_told_of_a_client_that_finds_nothing_to_do_or_cannot_go_on() {
    let (source, target) = hosts();
    let spool = tempfile::tempdir().unwrap();
    let spool = ["--spool", spool.path().to_str().unwrap()];
    let server = Server::serve(&target, &spool);
    copy(&source, &server.url("a")).ended().succeeded();
    copy(&source, &server.url("a")).ended().succeeded();
    let bare = ["--no-snapshot", "--checksum", "none", "--compress", "none"];
    let told = ["takes no blocks without a checksum"];
    replicate(&source, "tank/a", &server.url("b"), &bare).ended().failed_with(2, &told);
    assert_nobody_is_awaited(server);
}

#[test]
fn a_remedy_names_the_target_as_the_servers_host_knows_it() {
    let (source, target) = hosts();
    source.fail_send(&Failing { after_bytes: 1 << 20, status: "1", words: "warning: I/O" });
    // Not before `zfs receive` has some of it.
    source.slow_send(128 << 10, Duration::from_millis(100));
    let server = Server::serve(&target, &[]);
    copy(&source, &server.url("a")).ended().failed_with(2, &[]);
    assert_partly_received(&target);
    source.destroy("tank/a@s");
    source.snapshot("tank/a", "t", b"later");
    copy(&source, &server.url("a")).ended().failed_with(
        2,
        &["target: backup/a holds the state of an interrupted receive", "zfs receive -A backup/a"],
    );
}

#[test]
fn nobody_gets_out_of_the_root() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &[]);
    let before = target.calls().len();
    for name in
        ["../tank/x", "..", "a/../../x", "", "/x", "a;reboot", "a$(id)", "a`id`", "a|b", "a@s"]
    {
        copy(&source, &server.url(name)).ended().failed_with(3, &["zferry: "]);
    }
    // A client that does not check is refused by the server.
    for name in ["../tank", "a/../../tank/x", "x;y", "/x"] {
        let mut peer = Peer::greet(server.address);
        peer.say_raw(&format!(r#"{{"type":"list","dataset":"{name}"}}"#));
        assert_eq!(peer.refusal().side, Side::Network, "{name}");
    }
    assert_eq!(target.calls().len(), before, "zfs was called: {:?}", &target.calls()[before..]);
    server.still_serves();
}

#[test]
fn without_zfs_the_package_is_named() {
    let empty = tempfile::tempdir().unwrap();
    for (side, words) in [
        ("target", ["serve", "--listen", "127.0.0.1:0", "--root", "backup", "--plain"]),
        ("source", ["replicate", "tank/a", "zferry://127.0.0.1:1/a", "--plain", "-v", "-v"]),
    ] {
        let told = format!("zferry: {side}: there is no zfs command in {}", empty.path().display());
        Running::start(zferry(&words).env("PATH", empty.path()))
            .ended()
            .failed_with(2, &[&told, "install zfsutils-linux"]);
    }
}

#[test]
fn encryption_is_not_silently_left_out() {
    for (words, ticket) in [
        (["send", "127.0.0.1:1"].as_slice(), "--ticket FILE"),
        (&["receive", "--listen", "127.0.0.1:0"], "--ticket-out FILE"),
    ] {
        let ended = Running::start(&mut zferry(words)).ended();
        ended.failed_with(3, &["is not said", ticket, "--plain"]);
    }
}

#[test]
fn a_terminal_is_no_stream() {
    for (words, told) in [
        (
            ["receive", "--listen", "127.0.0.1:0", "--plain"].as_slice(),
            "zferry: target: a stream would be written to this terminal",
        ),
        (
            &["send", "127.0.0.1:1", "--plain"],
            "zferry: source: a stream would be read from this terminal",
        ),
    ] {
        let ended = Running::start(&mut zferry_at_a_terminal(words)).ended();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert_eq!(ended.code(), 3, "{said}");
        assert!(said.contains(told) && said.contains("redirect std"), "{said}");
    }
}

#[test]
fn a_cache_too_small_for_the_connections_says_how_much_is_enough() {
    let flags = ["--cache", "4MiB", "--connections", "4"];
    let ended = send("127.0.0.1:1".parse().unwrap(), &flags, Vec::new()).ended();
    let told = ["source: a cache of 4.0 MiB holds 3 blocks of 1.0 MiB, but 4 connections need 8"];
    let enough = enough(&ended.failed_with(3, &told)).to_owned();
    let receiver = Server::receive(&["--cache", "4MiB"]);
    let sender = send(receiver.address, &["--connections", "4"], b"x".to_vec()).ended();
    let told = ["target: a cache of 4.0 MiB holds 3 blocks of 1.0 MiB, but 4 connections need 8"];
    sender.failed_with(3, &told);
    receiver.running.ended().failed_with(3, &told);
    // What was told to be enough is enough.
    let receiver = Server::receive(&["--cache", &enough]);
    let flags = ["--cache", &enough, "--connections", "4"];
    send(receiver.address, &flags, b"x".to_vec()).ended().succeeded();
    assert_eq!(receiver.running.ended().succeeded().stdout, b"x");
}

fn enough(ended: &Ended) -> &str {
    let (_, behind) = ended.stderr.split_once("use --cache ").unwrap();
    behind.split(' ').next().unwrap()
}

#[test]
fn flags_that_mean_nothing_are_refused_by_name() {
    for flags in [
        ["--block-size", "5000"],
        ["--block-size", "32MiB"],
        ["--connections", "0"],
        ["--connections", "65"],
        ["--compress", "lz4"],
        ["--pin", "4000"],
        ["--cache", "much"],
        ["--connect-timeout", "0"],
    ] {
        send("127.0.0.1:1".parse().unwrap(), &flags, Vec::new())
            .ended()
            .failed_with(3, &[flags[0]]);
    }
}
