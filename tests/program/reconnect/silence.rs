//! Peers and lines that say nothing, each for longer than a peer may be silent: 20 seconds.

use std::io::Write;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use super::journey::{Arrived, Journey};
use crate::support::host::wait_for;

/// Longer than a peer may be silent.
const SILENCE: Duration = Duration::from_secs(23);

/// Within this whoever was silent has been given up and replaced.
const MENDED: Duration = Duration::from_secs(45);

/// They wait rather than work, so all of them run at the same time.
pub fn all_at_once() {
    let facts: &[fn()] = &[
        a_control_connection_that_is_silent_for_ever_is_replaced,
        a_return_that_nobody_answers_is_tried_again,
        a_lane_that_is_silent_for_ever_is_replaced,
        a_lane_of_four_that_is_silent_for_ever_does_not_stop_the_others,
        a_line_that_is_silent_for_longer_than_a_peer_may_be_goes_on,
        a_line_on_which_a_block_takes_longer_than_a_stall_is_waited_for,
        a_reader_that_stands_still_is_waited_for,
    ];
    thread::scope(|scope| {
        let running: Vec<_> = facts.iter().map(|fact| scope.spawn(fact)).collect();
        let failed: Vec<_> = running.into_iter().filter_map(|fact| fact.join().err()).collect();
        if let Some(first) = failed.into_iter().next() {
            resume_unwind(first);
        }
    });
}

#[track_caller]
fn mended(journey: Journey) -> Arrived {
    mended_of(journey, 4 << 20)
}

#[track_caller]
fn mended_of(journey: Journey, bytes: usize) -> Arrived {
    let started = Instant::now();
    let arrived = journey.at_least(bytes).arrives();
    assert!(started.elapsed() < MENDED, "{:?}", started.elapsed());
    arrived
}

fn a_control_connection_that_is_silent_for_ever_is_replaced() {
    // Each side finds out by itself, or both do. Up, it is in the first sign of life.
    let plans = ["down 400 hole", "up 270 hole", "down 400 hole-both"];
    thread::scope(|scope| {
        for plan in plans {
            scope.spawn(move || {
                let arrived = mended(Journey::new(&format!("control#1 {plan}")).until(1));
                assert!(arrived.counters.control.connections >= 2, "{}", arrived.counters);
            });
        }
    });
}

fn a_return_that_nobody_answers_is_tried_again() {
    let plan = "control#1 down 400 cut rst\ncontrol#2 down 0 hole\ncontrol#3 up 40 hole";
    let journey = Journey::new(plan).send(&["--connect-timeout", "2"]).until(3);
    let arrived = mended(journey);
    assert!(arrived.counters.control.connections >= 4, "{}", arrived.counters);
}

fn a_lane_that_is_silent_for_ever_is_replaced() {
    let arrived = mended(Journey::new("lanes#1 up 100000 hole-both").until(1));
    assert!(arrived.counters.lanes.connections >= 2, "{}", arrived.counters);
}

fn a_lane_of_four_that_is_silent_for_ever_does_not_stop_the_others() {
    let journey = Journey::new("lane:1#1 up 100000 hole-both").send(&["--connections", "4"]);
    mended(journey.until(1));
}

fn a_line_that_is_silent_for_longer_than_a_peer_may_be_goes_on() {
    let plan = format!("lanes#1 up 100000 hole-all {}ms", SILENCE.as_millis());
    let journey = Journey::new(&plan).send(&["--connections", "2"]).until(1);
    mended(journey);
}

/// Over another connection a block begins again: replaced too soon each time, it would never end.
fn a_line_on_which_a_block_takes_longer_than_a_stall_is_waited_for() {
    // A block takes 2.7 seconds.
    let journey = Journey::new("lanes up 0 rate 1500").send(&["--stall-timeout", "1"]);
    let arrived = mended_of(journey, 1);
    let connections = arrived.counters.lanes.connections;
    assert!((2..8).contains(&connections), "{}", arrived.counters);
}

fn a_reader_that_stands_still_is_waited_for() {
    let journey = Journey::new("").receive(&["--", "sh", "-c", "echo $$ >&2; exec cat"]);
    let mut under_way = journey.begin();
    let mut stdin = under_way.sender.stdin();
    stdin.write_all(&[1; 1000]).unwrap();
    let reader: String = wait_for("the reader", || {
        let said = under_way.receiver.running.said();
        said.lines().find(|line| line.parse::<u32>().is_ok()).map(str::to_owned)
    });
    wait_for("the bytes", || (under_way.receiver.running.stdout().len() == 1000).then_some(()));
    let signal = |name: &str| {
        let order = format!("kill -s {name} {reader}");
        assert!(std::process::Command::new("sh").args(["-c", &order]).status().unwrap().success());
    };
    signal("STOP");
    let rest = vec![2; 8 << 20];
    let stream = [vec![1; 1000], rest.clone()].concat();
    let writing = thread::spawn(move || stdin.write_all(&rest));
    thread::sleep(SILENCE);
    signal("CONT");
    writing.join().unwrap().unwrap();
    let arrived = under_way.arrived(&stream);
    assert_eq!(arrived.counters.connections(), 2, "nothing was wrong with the connections");
}
