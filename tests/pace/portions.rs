//! How much of a server one client gets: so many bytes a second, and so much of the spool.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::host::{Running, wait_for};
use crate::support::scene::Scene;

const MIB: usize = 1 << 20;

/// How far a rate may lie from the limit, in parts.
const EXACT: f64 = 0.1;

/// How often one is measured. Where others use the machine as well, a stream is slower; it is never
/// faster for that.
const ATTEMPTS: usize = 8;

/// A client whose newest snapshot has so many bytes, with a server that grants it so much.
fn scene(granted: &[&str], bytes: usize) -> Scene {
    let scene = Scene::new(granted);
    scene.source.pools.destroy("tank/a@one");
    scene.source.pools.snapshot("tank/a", "big", &vec![7; bytes]);
    scene
}

/// The seconds until all of them have gone well.
fn seconds(copies: Vec<Running>) -> f64 {
    let begun = Instant::now();
    for copy in copies {
        copy.ended().succeeded();
    }
    begun.elapsed().as_secs_f64()
}

/// A number in the line that a server writes of a transfer.
fn number(line: &str, name: &str) -> f64 {
    let rest = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{line}")).1;
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_client_brings_as_much_as_is_granted_over_one_connection_and_over_four() {
    for connections in ["1", "4"] {
        let scene = scene(&["--bandwidth", "8MiB"], 80 * MIB);
        let is_near = (1..=ATTEMPTS).any(|attempt| {
            let flags = ["--connections", connections];
            scene.replicate(&format!("a{attempt}"), &flags).ended().succeeded();
            let parts = rate_of(&scene, attempt) / (8.0 * 1_048_576.0);
            assert!(parts < 1.0 + EXACT / 2.0, "{parts} of it over {connections}");
            parts > 1.0 - EXACT
        });
        assert!(is_near, "it is slower over {connections}");
    }
}

/// How fast the server says that a transfer was. Besides the stream there are what it is framed and
/// enciphered with, and two calls of zfs.
fn rate_of(scene: &Scene, transfer: usize) -> f64 {
    let line = wait_for("the line of a transfer", || {
        let said = scene.server.running.said();
        let mut lines = said.lines().filter(|line| line.contains("audit: received"));
        lines.nth(transfer - 1).map(str::to_owned)
    });
    number(&line, "bytes") / number(&line, "seconds")
}

#[test]
fn all_transfers_of_a_client_below_one_root_share_what_is_granted() {
    let scene = scene(&["--bandwidth", "4MiB"], 8 * MIB);
    let flags = ["--connections", "2"];
    let taken = seconds(vec![scene.replicate("a", &flags), scene.replicate("b", &flags)]);
    assert!(taken > 3.8, "16 MiB came in {taken} seconds");
}

#[test]
fn a_limit_that_is_changed_holds_at_once_for_what_runs() {
    let scene = scene(&["--bandwidth", "1MiB"], 24 * MIB);
    let copy = scene.replicate("a", &["--connections", "2"]);
    wait_for("the stream", || scene.target.pools.exists("backup/in/a").then_some(()));
    scene.grants(&["--bandwidth", "1GiB"]);
    let taken = seconds(vec![copy]);
    assert!(taken < 12.0, "it went on for {taken} seconds");
}

#[test]
fn a_rate_at_which_a_block_takes_long_is_no_stall_and_no_lost_connection() {
    let scene = scene(&["--bandwidth", "96KiB"], MIB);
    let flags = ["--connections", "4", "--stall-timeout", "5", "-v"];
    let begun = Instant::now();
    let said = scene.replicate("a", &flags).ended().succeeded().stderr;
    assert!(begun.elapsed() > Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(!said.contains("stands still") && !said.contains("lost"), "{said}");
    assert!(!scene.server.running.said().contains("lost"), "{}", scene.server.running.said());
}

#[test]
fn a_server_that_is_told_to_stop_now_does_not_wait_for_what_is_held_back() {
    let scene = scene(&["--bandwidth", "2KiB"], MIB);
    let copy = scene.replicate("a", &[]);
    wait_for("the stream", || scene.target.pools.exists("backup/in/a").then_some(()));
    scene.server.running.signal("TERM");
    // Two that come at once may be one.
    let is_heard = || scene.server.running.said().contains("a second signal ends it now");
    wait_for("the first", || is_heard().then_some(()));
    scene.server.running.signal("TERM");
    let begun = Instant::now();
    assert_ne!(scene.server.running.ended().code(), 99);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(copy);
}

/// The bytes of all breakpoint files in a spool.
fn spooled(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let entries = entries.filter_map(Result::ok);
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => spooled(&entry.path()),
            _ if entry.file_name().to_string_lossy().starts_with("segment-") => {
                entry.metadata().map_or(0, |metadata| metadata.len())
            }
            _ => 0,
        })
        .sum()
}

/// The most that the spool held while two streams of 80 MiB came.
fn most_spooled(granted: &[&str]) -> (u64, String) {
    let spool = tempfile::tempdir_in("/var/tmp").unwrap();
    let serve = ["-v", "--spool", spool.path().to_str().unwrap()];
    let scene = Scene::serving(granted, &serve);
    scene.source.pools.destroy("tank/a@one");
    scene.source.pools.snapshot("tank/a", "big", &vec![7; 80 * MIB]);
    let mut copies = vec![scene.replicate("a", &[]), scene.replicate("b", &[])];
    let mut most = 0;
    while copies.iter_mut().any(Running::is_running) {
        most = most.max(spooled(spool.path()));
        std::thread::sleep(Duration::from_millis(5));
    }
    seconds(copies);
    for dataset in ["backup/in/a@big", "backup/in/b@big"] {
        assert_eq!(scene.target.pools.content(dataset).len(), 80 * MIB);
    }
    wait_for("an empty spool", || (spooled(spool.path()) == 0).then_some(()));
    (most, scene.server.running.said())
}

#[test]
fn streams_of_a_client_take_no_more_of_the_spool_together_than_is_granted() {
    let segment = 64 << 20;
    let (most, said) = most_spooled(&["--spool", "130MiB"]);
    assert_eq!(most, 2 * segment, "{said}");
    assert!(said.contains("it is full"), "{said}");
    let (most, said) = most_spooled(&[]);
    assert!(most > 2 * segment, "{most}: {said}");
    assert!(!said.contains("it is full"), "{said}");
}
