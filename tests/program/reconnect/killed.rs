//! Processes that are killed in the middle of a transfer.

use std::time::{Duration, Instant};

use crate::support::host::{
    Running, Server, replicate, replicate_for, running_zfs, wait_for, zferry_on,
};
use crate::support::stand_in::StandIn;

/// Within this a new run goes on: nothing waits for the old one, which has ten minutes to return.
const AT_ONCE: Duration = Duration::from_secs(60);

const FLAGS: [&str; 5] = ["--no-snapshot", "--cache", "8MiB", "--block-size", "64KiB"];

struct Hosts {
    source: StandIn,
    target: StandIn,
}

impl Hosts {
    fn new() -> Hosts {
        let (source, target) = (StandIn::new(), StandIn::new());
        source.dataset("tank/a", "filesystem");
        let content: Vec<u8> =
            (0..300_000_u64).flat_map(|place| (place * 0x9E37_79B9).to_le_bytes()).collect();
        source.snapshot("tank/a", "s", &content);
        Hosts { source, target }
    }

    /// A transfer that has sent something and takes seconds more.
    fn under_way(&self, server: &Server) -> Running {
        self.source.slow_send(128 << 10, Duration::from_millis(100));
        let client = replicate_for(60, &self.source, "tank/a", &server.url("a"), &FLAGS);
        wait_for("the first bytes", || {
            self.target.partly_received("backup/a").filter(|part| !part.is_empty())
        });
        client
    }

    #[track_caller]
    fn hold_the_same(&self) {
        assert_eq!(self.target.guid("backup/a@s"), self.source.guid("tank/a@s"));
        assert!(self.target.content("backup/a@s") == self.source.content("tank/a@s"));
        assert_eq!(self.source.holds("tank/a@s"), [""; 0], "it is still held");
        assert!(self.target.partly_received("backup/a").is_none(), "a partial state was left");
    }

    /// Demands that no command of either host runs, or does so for much longer.
    #[track_caller]
    fn rest(&self) {
        for host in [&self.source, &self.target] {
            wait_for("zfs to end", || running_zfs(host).is_empty().then_some(()));
        }
    }
}

#[test]
fn a_run_after_a_client_was_killed_takes_over_at_once() {
    let hosts = Hosts::new();
    let server = Server::serve(&hosts.target, &["--cache", "8MiB"]);
    let client = hosts.under_way(&server);
    client.signal("KILL");
    client.ended();
    let started = Instant::now();
    replicate(&hosts.source, "tank/a", &server.url("a"), &FLAGS).ended().succeeded();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    hosts.hold_the_same();
    hosts.rest();
}

#[test]
fn a_run_after_both_sides_were_killed_goes_on() {
    let hosts = Hosts::new();
    let server = Server::serve(&hosts.target, &["--cache", "8MiB"]);
    let (client, address) = (hosts.under_way(&server), server.address.to_string());
    client.signal("KILL");
    server.running.signal("KILL");
    client.ended();
    server.running.ended();
    hosts.rest();
    // Where it was before: what is held for a target is held for its address.
    let words = ["serve", "--listen", &address, "--plain", "--root", "backup"];
    let server = Server::start(&mut zferry_on(&hosts.target, &words));
    replicate_for(60, &hosts.source, "tank/a", &server.url("a"), &FLAGS).ended().succeeded();
    hosts.hold_the_same();
    hosts.rest();
}
