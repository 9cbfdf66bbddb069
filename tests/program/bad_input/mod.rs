//! Everything that can go wrong around a transfer: each ends soon, in one failure that names its
//! side and what to do, and never in a success or a loss.

mod before;
mod beginnings;
mod bytes;
mod clones;
mod lost;
mod processes;
mod signals;
mod strangers;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::host::{Running, Server, replicate, running_zfs, wait_for};
use crate::support::stand_in::StandIn;

/// Within this, whoever lost the other end has noticed. Nothing here waits for signs of life.
const SOON: Duration = Duration::from_secs(15);

fn content(seed: u64) -> Vec<u8> {
    (0..300_000u64).flat_map(|place| (place * 0x9E37_79B9 + seed).to_le_bytes()).collect()
}

/// A source with tank/a@s, and a target.
fn hosts() -> (StandIn, StandIn) {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "s", &content(1));
    (source, target)
}

/// Replicates what there is, in small blocks.
const SMALL: [&str; 5] = ["--no-snapshot", "--cache", "8MiB", "--block-size", "64KiB"];

/// Replicates tank/a as it is to `to`.
fn copy(source: &StandIn, to: &str) -> Running {
    replicate(source, "tank/a", to, &SMALL)
}

/// A server and a client in the middle of a transfer that takes seconds.
fn under_way() -> (StandIn, StandIn, Server, Running) {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB", "--grace", "0"]);
    source.slow_send(128 << 10, Duration::from_millis(200));
    let client = copy(&source, &server.url("a"));
    wait_until_some_came(&target);
    (source, target, server, client)
}

fn wait_until_some_came(target: &StandIn) {
    wait_for("the first bytes", || {
        target.partly_received("backup/a").filter(|part| !part.is_empty())
    });
}

/// Demands that the target kept a part of what was on its way and took it for nothing more.
#[track_caller]
fn assert_partly_received(target: &StandIn) {
    wait_for("zfs receive to end", || running_zfs(target).is_empty().then_some(()));
    let part = target.partly_received("backup/a").expect("nothing was kept");
    assert!(content(1).starts_with(&part), "something else was kept than what was sent");
    assert!(!part.is_empty());
    assert_eq!(target.snapshots("backup/a"), [""; 0]);
}

/// The bytes of `zfs send` of a snapshot.
fn stream_of(host: &StandIn, snapshot: &str) -> Vec<u8> {
    let output = Command::new(host.program()).args(["send", "--", snapshot]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A script that makes the file `done` only when its stdin has ended well.
fn until_the_end(done: &Path) -> String {
    format!("cat > '{0}.part' && mv '{0}.part' '{0}'", done.display())
}
