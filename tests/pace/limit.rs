//! `--bwlimit`: a stream leaves no faster than was said, and no slower, also when that changes on
//! the way.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use crate::meter::Meter;
use crate::support::host::{Running, Server, replicate, send, wait_for, wait_for_words, zferry};
use crate::support::stand_in::StandIn;

const MIB: usize = 1 << 20;

/// Long enough that a rate can be told from noise.
const LENGTH: usize = 12 * MIB;

const SMALL: [&str; 4] = ["--cache", "8MiB", "--block-size", "64KiB"];

/// A window in which a rate has to be even.
const WINDOW: Duration = Duration::from_millis(100);

/// How far the rate of all windows together may lie from the limit, and that of each: a segment on
/// loopback is 64 KiB, and one more or less in a window of 20 MiB/s is 3 percent of it.
const EXACT: f64 = 0.02;
const SMOOTH: f64 = 0.20;

/// A thread that did not get a processor shows as a window without bytes and one with twice as
/// many: so many of the windows have to be even, and a measurement may be repeated so often. Where
/// the machine does nothing else, all of them are even within 10 percent, and no other is needed.
const WINDOWS: u32 = 30;
const EVEN: usize = 24;
const ATTEMPTS: usize = 8;

/// An endless stream that is limited so; the relay that counts it stands before the receiver.
fn endless(limit: &str, connections: &str) -> (Server, Meter, Running) {
    let receiver = Server::receive(&["--", "sh", "-c", "exec cat >/dev/null"]);
    let meter = Meter::before(receiver.address);
    let address = meter.address.to_string();
    let words = ["send", &address, "--plain", "--bwlimit", limit, "--connections", connections];
    let sender = Running::start(zferry(&words).stdin(File::open("/dev/zero").unwrap()));
    wait_for("the first bytes", || (meter.passed() > 100_000).then_some(()));
    (receiver, meter, sender)
}

/// Demands that a stream comes at such a rate from now on, in one of a few measurements.
#[track_caller]
fn comes_evenly(meter: &Meter, rate_mib: u32, what: &str) {
    let rate = f64::from(rate_mib) * 1_048_576.0;
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let rates = meter.watch(WINDOWS, WINDOW);
        if rates.whole_is_near(rate, EXACT) && rates.windows_near(rate, SMOOTH) >= EVEN {
            return;
        }
        seen.push(rates);
    }
    panic!("{what}: not {rate} bytes each second: {seen:#?}");
}

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
fn a_limit_is_exact_within_2_percent_and_even_within_100_ms() {
    for (limit, rate_mib) in [("20MiB", 20), ("40MiB", 40)] {
        for connections in ["1", "4"] {
            let (_receiver, meter, _sender) = endless(limit, connections);
            // A new connection sends its first ten segments at once.
            std::thread::sleep(Duration::from_millis(500));
            comes_evenly(&meter, rate_mib, &format!("{limit} over {connections}"));
        }
    }
}

#[test]
fn a_limit_that_is_changed_on_the_way_is_as_exact_300_ms_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limit");
    fs::write(&file, "20MiB").unwrap();
    let (_receiver, meter, sender) = endless(&format!("@{}", file.display()), "2");
    for rate_mib in [40, 20, 30] {
        fs::write(&file, format!("{rate_mib}MiB")).unwrap();
        sender.signal("HUP");
        std::thread::sleep(Duration::from_millis(300));
        comes_evenly(&meter, rate_mib, &format!("changed to {rate_mib} MiB/s"));
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
