//! `--bwlimit`: a stream leaves no faster than was said, also when that changes on the way.

use std::fs;
use std::time::{Duration, Instant};

#[path = "support/host.rs"]
mod host;
#[path = "support/stand_in.rs"]
mod stand_in;

use host::{Running, Server, replicate, send, wait_for_words};
use stand_in::StandIn;

const MIB: usize = 1 << 20;

/// Long enough that a rate can be told from noise.
const LENGTH: usize = 12 * MIB;

const SMALL: [&str; 4] = ["--cache", "8MiB", "--block-size", "64KiB"];

/// How long a stream takes with such flags.
fn taken(flags: &[&str]) -> Duration {
    let receiver = Server::receive(&["--cache", "8MiB"]);
    let started = Instant::now();
    send(receiver.address, &[&SMALL, flags].concat(), vec![7; LENGTH]).ended().succeeded();
    let arrived = receiver.running.ended().succeeded().stdout;
    assert!(arrived == vec![7; LENGTH], "{} bytes came", arrived.len());
    started.elapsed()
}

/// A stream that is limited by a file which holds 1 MiB/s: it would take 12 seconds.
fn begun(folder: &tempfile::TempDir) -> (Server, Running) {
    let file = folder.path().join("limit");
    fs::write(&file, "1MiB\n").unwrap();
    let receiver = Server::receive(&["--cache", "8MiB"]);
    let flag = format!("@{}", file.display());
    let flags = [&SMALL[..], &["--bwlimit", &flag, "-v"]].concat();
    let sender = send(receiver.address, &flags, vec![7; LENGTH]);
    std::thread::sleep(Duration::from_millis(500));
    (receiver, sender)
}

#[test]
fn a_limit_is_kept_by_one_connection_and_by_four_together() {
    for backend in ["uring", "threads"] {
        for connections in ["1", "4"] {
            let flags = ["--bwlimit", "8MiB", "--connections", connections, "--io", backend];
            let seconds = taken(&flags).as_secs_f64();
            // A new connection sends its first segments at once, here of 64 KiB each.
            assert!((1.35..4.5).contains(&seconds), "{seconds} s, {flags:?}");
        }
    }
}

#[test]
fn a_limit_holds_for_what_is_on_the_wire() {
    // 12 MiB of one byte are next to nothing.
    let seconds = taken(&["--bwlimit", "1MiB", "--compress", "zstd:1"]).as_secs_f64();
    assert!(seconds < 5.0, "{seconds} s");
}

#[test]
fn a_limit_at_which_a_block_takes_longer_than_a_stall_is_no_stall() {
    // Over one connection a block takes 2.7 seconds, over each of two 5.3.
    for (connections, length) in [("1", 3 * MIB / 4), ("2", MIB)] {
        let receiver = Server::receive(&["--cache", "8MiB"]);
        let flags = ["--bwlimit", "96KiB", "--block-size", "256KiB", "--stall-timeout", "1"];
        let flags = [&flags[..], &["--connections", connections, "-v"]].concat();
        let said = send(receiver.address, &flags, vec![7; length]).ended().succeeded().stderr;
        assert!(!said.contains("stands still"), "{said}");
        assert!(!said.contains("lost a data connection"), "{said}");
        assert_eq!(receiver.running.ended().succeeded().stdout.len(), length);
    }
}

#[test]
fn a_limit_in_a_file_changes_when_a_signal_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, sender) = begun(&folder);
    let started = Instant::now();
    fs::write(folder.path().join("limit"), "none\n").unwrap();
    sender.signal("HUP");
    sender.ended().succeeded();
    receiver.running.ended().succeeded();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[test]
fn a_file_that_makes_no_sense_leaves_the_limit_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, mut sender) = begun(&folder);
    fs::write(folder.path().join("limit"), "fast\n").unwrap();
    sender.signal("HUP");
    wait_for_words(&sender, "the limit stays as it is");
    std::thread::sleep(Duration::from_secs(1));
    assert!(sender.is_running(), "12 MiB at 1 MiB/s");
    sender.signal("TERM");
    sender.ended();
    receiver.running.ended();
}

#[test]
fn a_file_that_is_not_there_is_told_before_anything_is_sent() {
    let receiver = Server::receive(&[]);
    let sender = send(receiver.address, &["--bwlimit", "@/no/such/file"], Vec::new());
    sender.ended().failed_with(3, &["--bwlimit", "/no/such/file", "No such file"]);
}

#[test]
fn a_copy_within_one_host_has_no_network_to_limit() {
    let host = StandIn::new();
    host.dataset("tank", "filesystem");
    let copy = replicate(&host, "tank", "backup/tank", &["--bwlimit", "1MiB"]);
    copy.ended().failed_with(3, &["--bwlimit", "on this host", "leave it out"]);
}
