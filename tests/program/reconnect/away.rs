//! Clients and servers that cannot reach each other for a while.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use zferry_chaos::{Ending, Plan, Proxy, Who};

use super::journey::Journey;
use crate::support::host::{Server, replicate_for, running_zfs, wait_for, wait_for_words};
use crate::support::stand_in::StandIn;

fn content() -> Vec<u8> {
    (0..300_000_u64).flat_map(|place| (place * 0x9E37_79B9).to_le_bytes()).collect()
}

#[test]
fn connections_that_are_refused_for_seconds_are_tried_again() {
    let plan = "lanes#1 up 100000 refuse 3s\nlanes#1 up 100000 cut-all rst";
    let started = Instant::now();
    Journey::new(plan).send(&["--connections", "2"]).until(2).at_least(1 << 20).arrives();
    assert!(started.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_client_may_return_from_another_address() {
    let journey = Journey::new("");
    let mut under_way = journey.begin();
    let mut stdin = under_way.sender.stdin();
    stdin.write_all(&[7; 1000]).unwrap();
    wait_for("the first bytes", || {
        (under_way.receiver.running.stdout().len() == 1000).then_some(())
    });
    under_way.proxy.come_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
    under_way.proxy.cut(Who::Any, Ending::Rst);
    wait_for("it to return", || (under_way.proxy.counters().connections() >= 4).then_some(()));
    stdin.write_all(&[8; 1000]).unwrap();
    drop(stdin);
    under_way.arrived(&[[7; 1000], [8; 1000]].concat());
}

#[test]
fn a_server_that_stops_lets_the_client_of_a_running_transfer_return() {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s1", &content());
    source.slow_send(512 << 10, Duration::from_millis(400));
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let proxy = Proxy::start(server.address, &Plan::none()).unwrap();
    let url = format!("zferry://{}/a", proxy.address());
    let client = replicate_for(60, &source, "tank/a", &url, &["--no-snapshot", "--cache", "8MiB"]);
    wait_for("the first bytes", || target.partly_received("backup/a"));
    server.running.signal("TERM");
    wait_for_words(&server.running, "stopping when the last transfer ends");
    proxy.cut(Who::Any, Ending::Rst);
    let said = client.ended().succeeded().stderr;
    assert!(!said.contains("tried again"), "it began anew: {said}");
    assert!(proxy.counters().connections() >= 4, "{}", proxy.counters());
    assert!(target.content("backup/a@s1") == content());
    server.running.ended().succeeded();
}

#[test]
fn a_client_that_shall_not_retry_fails_at_the_first_loss() {
    for plan in ["control down 400 cut rst", "lanes up 50000 cut rst"] {
        let journey = Journey::new(plan).send(&["--retry-for", "0"]).receive(&["--grace", "0"]);
        let mut under_way = journey.begin();
        let mut stdin = under_way.sender.stdin();
        let started = Instant::now();
        // Until it takes no more.
        while stdin.write_all(&[1; 4096]).is_ok() {
            assert!(started.elapsed() < Duration::from_secs(30), "{plan}: it goes on");
        }
        under_way.sender.ended().failed_with(2, &["zferry: network: "]);
        under_way.receiver.running.ended().failed_with(2, &["zferry: network: "]);
    }
}

#[test]
fn patience_that_runs_out_ends_both_sides_with_a_reason() {
    let plan = "lanes#1 up 50000 refuse 60s\nlanes#1 up 50000 cut-all fin";
    let journey = Journey::new(plan).send(&["--retry-for", "2s"]).receive(&["--grace", "1s"]);
    let mut under_way = journey.begin();
    let mut stdin = under_way.sender.stdin();
    let started = Instant::now();
    while stdin.write_all(&[1; 4096]).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(30), "it goes on");
    }
    under_way.sender.ended().failed_with(2, &["network: ", "did not come back", "--retry-for"]);
    let receiver = under_way.receiver.running.ended();
    receiver.failed_with(2, &["network: ", "went away and did not come back"]);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_dataset_arrives_over_connections_that_are_cut() {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s1", &content());
    source.snapshot("tank/a", "s2", &content());
    source.slow_send(128 << 10, Duration::from_millis(20));
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let plan = "lanes up 300000 cut rst\ncontrol down 1500 cut fin";
    let proxy = Proxy::start(server.address, &plan.parse().unwrap()).unwrap();
    let url = format!("zferry://{}/a", proxy.address());
    let flags = ["--no-snapshot", "--cache", "8MiB", "--block-size", "64KiB", "--connections", "2"];
    replicate_for(60, &source, "tank/a", &url, &flags).ended().succeeded();
    for name in ["s1", "s2"] {
        let (ours, theirs) = (format!("tank/a@{name}"), format!("backup/a@{name}"));
        assert_eq!(target.guid(&theirs), source.guid(&ours));
        assert!(target.content(&theirs) == source.content(&ours));
        assert_eq!(source.holds(&ours), [""; 0], "{ours} is still held");
    }
    let receives = target.calls().iter().filter(|call| call[0] == "receive").count();
    assert_eq!(receives, 2, "zfs receive was started anew");
    assert!(proxy.counters().done("cut") >= 6, "{}", proxy.counters());
    assert!(target.partly_received("backup/a").is_none());
    assert_eq!((running_zfs(&source), running_zfs(&target)), (Vec::new(), Vec::new()));
    assert_eq!(server.stopped().succeeded().stderr.matches("session failed").count(), 0);
}

#[test]
fn connections_that_are_lost_between_two_streams_are_replaced() {
    thread::scope(|scope| {
        for who in [Who::Lanes, Who::Control, Who::Any] {
            scope.spawn(move || lose_between_two_streams(who));
        }
    });
}

fn lose_between_two_streams(who: Who) {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s1", &content());
    source.snapshot("tank/a", "s2", b"two");
    source.slow_send(512 << 10, Duration::from_millis(100));
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let proxy = Proxy::start(server.address, &Plan::none()).unwrap();
    let url = format!("zferry://{}/a", proxy.address());
    let client = replicate_for(60, &source, "tank/a", &url, &["--no-snapshot", "--cache", "8MiB"]);
    wait_for("the first stream", || target.partly_received("backup/a"));
    // What is between the streams takes long enough to be met at it.
    source.pause_before("send", Duration::from_secs(1));
    let is_sent_next =
        |call: &Vec<String>| call[0] == "send" && call.ends_with(&["tank/a@s2".into()]);
    wait_for("the next send", || source.calls().iter().any(is_sent_next).then_some(()));
    assert!(target.exists("backup/a@s1") && !target.exists("backup/a@s2"));
    proxy.cut(who, Ending::Rst);
    client.ended().succeeded();
    assert_eq!(target.content("backup/a@s2"), b"two", "{who:?}");
    assert!(proxy.counters().connections() > 2, "{who:?}: {}", proxy.counters());
    for snapshot in ["tank/a@s1", "tank/a@s2"] {
        assert_eq!(source.holds(snapshot), [""; 0], "{snapshot} is still held");
    }
}

#[test]
fn sockets_that_are_destroyed_under_both_sides_are_replaced() {
    // By the kernel, as an administrator would with `ss --kill`; root alone may.
    let journey = Journey::new("").send(&["--connections", "3"]);
    let mut under_way = journey.begin();
    let mut stdin = under_way.sender.stdin();
    let mut stream = Vec::new();
    for round in 0..3_u8 {
        let piece = vec![round; 100_000];
        stdin.write_all(&piece).unwrap();
        stream.extend_from_slice(&piece);
        wait_for("the bytes", || (under_way.receiver.running.stdout() == stream).then_some(()));
        let port = under_way.receiver.address.port();
        let filter = format!("sport = :{port} or dport = :{port}");
        let mut command = std::process::Command::new("ss");
        let killed = command.args(["--no-header", "-tnK", "state", "established", &filter]);
        let killed = String::from_utf8(killed.output().unwrap().stdout).unwrap();
        assert!(killed.lines().count() >= 4, "ss --kill works for root only: {killed}");
    }
    drop(stdin);
    under_way.arrived(&stream);
}

#[test]
fn a_server_that_is_gone_for_good_is_named_once_patience_has_run_out() {
    let journey = Journey::new("").send(&["--retry-for", "1s"]);
    let mut under_way = journey.begin();
    let mut stdin = under_way.sender.stdin();
    stdin.write_all(&[1; 1000]).unwrap();
    wait_for("the bytes", || (under_way.receiver.running.stdout().len() == 1000).then_some(()));
    under_way.receiver.running.signal("KILL");
    wait_for_words(&under_way.sender, "did not come back");
    under_way.sender.ended().failed_with(2, &["network: "]);
}
