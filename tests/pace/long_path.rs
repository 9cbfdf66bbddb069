//! `--connections auto` on a line that is 100 ms long, where one connection is limited by its
//! window: others are added, and the stream is as many times as fast, up to what the line carries.
//!
//! The line is the relay of `tests/chaos`, which also counts. Rates are compared with others of the
//! same run alone, so that whatever else the machine does slows all of them down.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use zferry_chaos::Proxy;

use crate::support::host::{LIMIT, Running, Server, zferry};

/// 128 KiB for each 50 ms that they are on their way: 2.6 MB/s for one connection.
const LONG: &str = "any both 0 delay 50ms\nany both 0 window 131072\n";

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A connection that is new carries less at first.
const BEGINNING: Duration = Duration::from_millis(700);

/// How long a rate is looked at.
const LONG_ENOUGH: Duration = Duration::from_millis(1200);

/// An endless stream over a relay with such a plan.
struct Path {
    proxy: Proxy,
    _receiver: Server,
    sender: Running,
    seen: Vec<Seen>,
}

/// What had passed at a time.
#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    connections: u64,
    bytes: u64,
}

impl Path {
    fn new(plan: &str) -> Path {
        let memory = ["--cache", "32MiB"];
        let sink = ["--", "sh", "-c", "exec cat >/dev/null"];
        let receiver = Server::receive(&[&memory[..], &sink].concat());
        let proxy = Proxy::start(receiver.address, &plan.parse().unwrap()).unwrap();
        let address = proxy.address().to_string();
        let words = ["send", &address, "--plain", "--connections", "auto", "--block-size", "64KiB"];
        let mut send = zferry(&[&words[..], &memory].concat());
        let sender = Running::start(send.stdin(File::open("/dev/zero").unwrap()));
        Path { proxy, _receiver: receiver, sender, seen: Vec::new() }
    }

    /// Looks on until there is something to see.
    #[track_caller]
    fn watch<T>(&mut self, what: &str, look: impl Fn(&Path) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let lanes = self.proxy.counters().lanes;
            let (at, bytes) = (Instant::now(), lanes.up_bytes);
            self.seen.push(Seen { at, connections: lanes.connections, bytes });
            if let Some(seen) = look(self) {
                return seen;
            }
            let told = || format!("{} connections; {}", lanes.connections, self.sender.said());
            assert!(started.elapsed() < LIMIT, "waited in vain for {what}: {}", told());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// How many bytes passed in a second while there were so many connections, without those that
    /// passed when the last of them began; `None` where that was not for long enough.
    fn rate_of(&self, connections: u64) -> Option<f64> {
        let with_so_many = self.seen.iter().filter(|seen| seen.connections == connections);
        let begun = with_so_many.clone().find(|seen| seen.bytes > 100_000)?.at;
        let mut steady = with_so_many.filter(|seen| seen.at >= begun + BEGINNING);
        rate(*steady.next()?, *steady.next_back()?)
    }

    /// How many bytes a second passed of late.
    fn rate_of_late(&self) -> Option<f64> {
        let last = self.seen.last()?;
        let first = self.seen.iter().find(|seen| last.at - seen.at < 2 * LONG_ENOUGH)?;
        rate(*first, *last)
    }

    fn connections(&self) -> u64 {
        self.seen.last().map_or(0, |seen| seen.connections)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a billionth more or less does not matter")]
fn rate(first: Seen, last: Seen) -> Option<f64> {
    let time = last.at - first.at;
    (time >= LONG_ENOUGH).then(|| (last.bytes - first.bytes) as f64 / time.as_secs_f64())
}

#[test]
fn four_connections_carry_far_more_than_the_first_did_alone() {
    let mut path = Path::new(LONG);
    let four = path.watch("a rate of four connections", |path| path.rate_of(4));
    let one = path.rate_of(1).unwrap();
    // Four times as much where the machine does nothing else.
    assert!(four > 2.5 * one, "{four:.0} and {one:.0} bytes/s");
}

#[test]
fn a_line_becomes_full_by_about_as_many_connections_as_it_takes() {
    // A little more than twice what one connection carries; noise may add some that are too much.
    let line = 6_000_000.0;
    let mut path = Path::new(&format!("{LONG}lanes up 0 rate-all {line}"));
    let full = |path: &Path| path.rate_of_late().filter(|&rate| rate > 0.9 * line);
    path.watch("a line that is full", full);
    let (one, count) = (path.rate_of(1).unwrap(), path.connections());
    assert!(one < 0.5 * line, "{one:.0} bytes/s");
    assert!((3..=8).contains(&count), "{count} connections");
}
