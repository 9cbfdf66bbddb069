//! Connections that are cut: how often, where, and which of them does not matter.

use std::ops::RangeInclusive;

use zferry_chaos::{Ending, Fault, Rule, Storm, Way, Who};

use super::journey::{CACHE, FRAME, Journey, PREAMBLE, lines};

/// Cuts alone; of control connections within what they bring down soon after they return.
const CUTS: Storm =
    Storm { lanes: 180, controls: 20, lane_bytes: 96 << 10, control_bytes: 400, pauses: false };

const ENDINGS: [Ending; 2] = [Ending::Fin, Ending::Rst];

/// A rule for each of `cuts`, for the second, fourth, ... of `who`: those in between are cut as
/// `between` says, once they have carried something.
fn every_other(
    who: Who,
    way: Way,
    cuts: impl Iterator<Item = (u64, Ending)>,
    between: &Rule,
) -> String {
    let rules = (1..).zip(cuts).flat_map(|(number, (at, ending))| {
        let cut = Rule::new(who, at, Fault::Cut(ending)).on(way).only(2 * number);
        [between.only(2 * number - 1), cut]
    });
    lines(rules.map(|rule| rule.to_string()))
}

/// A cut after each of so many bytes with each way to end.
fn each_with_both(bytes: RangeInclusive<u64>) -> impl Iterator<Item = (u64, Ending)> {
    bytes.flat_map(|at| ENDINGS.map(|ending| (at, ending)))
}

#[test]
fn two_hundred_random_cuts_lose_nothing() {
    for (seed, flags) in [
        (1, ["--connections", "1", "--io", "uring"]),
        (2, ["--connections", "4", "--io", "threads"]),
    ] {
        let plan = CUTS.plan(seed).to_string();
        let arrived = Journey::new(&plan).send(&flags).until(200).arrives();
        assert_eq!(arrived.counters.done("cut"), 200, "seed {seed}");
    }
}

#[test]
fn a_cut_is_told_once_however_many_connections_it_takes() {
    for (rule, bytes_min) in [
        ("lanes#1 up 50000 cut-all rst", 8 << 20),
        ("lanes#1 up 50000 cut fin", 8 << 20),
        // The rest may have come over the others before it is back.
        ("lanes#1 up 50000 cut-all fin", 0),
    ] {
        let flags = ["--connections", "4", "--json"];
        let journey = Journey::new(rule).send(&flags).until(1).at_least(bytes_min);
        let told = journey.arrives().told;
        let survived = told.lines().filter(|line| line.contains("\"event\":\"survived\""));
        let survived: Vec<&str> = survived.collect();
        let expected = r#"{"event":"survived","dataset":null,"by":"reconnect"}"#;
        assert_eq!(survived, [expected], "{rule}: {told}");
    }
    let calm = Journey::new("").send(&["--json"]).at_least(1 << 20).arrives();
    assert!(!calm.told.contains("survived"), "{}", calm.told);
}

#[test]
fn a_storm_of_all_kinds_of_faults_loses_nothing() {
    let storm = Storm { lanes: 60, controls: 10, lane_bytes: 200_000, pauses: true, ..CUTS };
    let plan = storm.plan(4);
    // A fault may wait for a control connection that the others leave no reason to open.
    let faults = plan.rules.len() as u64 * 9 / 10;
    Journey::new(&plan.to_string()).send(&["--connections", "3"]).until(faults).arrives();
}

#[test]
fn random_cuts_of_compressed_blocks_lose_nothing() {
    let storm = Storm { lanes: 50, controls: 5, lane_bytes: 64 << 10, ..CUTS };
    let flags = ["--connections", "3", "--compress", "zstd:1"];
    Journey::new(&storm.plan(3).to_string()).send(&flags).until(50).arrives();
}

#[test]
fn random_cuts_of_blocks_that_never_leave_the_kernel_lose_nothing() {
    let storm = Storm { lanes: 60, controls: 5, lane_bytes: 64 << 10, ..CUTS };
    let flags = ["--connections", "3", "--checksum", "none", "--lane", "splice"];
    Journey::new(&storm.plan(5).to_string()).send(&flags).until(60).arrives();
}

#[test]
fn a_data_connection_may_end_at_every_byte_of_a_frame_header() {
    // A whole frame passes first: each connection brings the stream forward.
    let rules = (1..).zip(each_with_both(0..=48)).map(|(number, (byte, ending))| {
        Rule::new(Who::Lanes, PREAMBLE + FRAME + byte, Fault::Cut(ending)).only(number).to_string()
    });
    Journey::new(&lines(rules)).until(98).arrives();
}

#[test]
fn a_data_connection_may_end_at_every_byte_of_its_preamble() {
    let between = Rule::new(Who::Lanes, PREAMBLE + 2 * FRAME, Fault::Cut(Ending::Rst));
    let plan = every_other(Who::Lanes, Way::Up, each_with_both(0..=PREAMBLE), &between);
    Journey::new(&plan).until(2 * 66).arrives();
}

#[test]
fn a_control_connection_may_end_at_every_byte_that_a_client_returns_with() {
    // The preamble, and the message that says how much was heard.
    let between = Rule::new(Who::Control, 400, Fault::Cut(Ending::Fin)).on(Way::Down);
    let plan = every_other(Who::Control, Way::Up, each_with_both(0..=PREAMBLE + 35), &between);
    Journey::new(&plan).until(2 * 136).arrives();
}

#[test]
fn a_control_connection_may_end_at_every_byte_that_a_server_answers_with() {
    // That it goes on, and an acknowledgement.
    let between = Rule::new(Who::Control, 400, Fault::Cut(Ending::Rst)).on(Way::Down);
    let cuts = (0..=160).zip(ENDINGS.into_iter().cycle());
    let plan = every_other(Who::Control, Way::Down, cuts, &between);
    Journey::new(&plan).until(2 * 161).arrives();
}

#[test]
fn all_connections_may_end_at_once_again_and_again() {
    for ending in ["fin", "rst"] {
        // Numbers count all data connections, so each of these is one of the next four.
        let rules =
            (0..20).map(|number| format!("lanes#{} up 50000 cut-all {ending}", 1 + 4 * number));
        let arrived = Journey::new(&lines(rules)).send(&["--connections", "4"]).until(20).arrives();
        // How many of either kind had come back when the next of these struck is chance.
        assert!(arrived.counters.lanes.connections > 4 * 19, "{}", arrived.counters);
        assert!(arrived.counters.control.connections > 1, "{}", arrived.counters);
    }
}

#[test]
fn one_lane_of_four_may_be_lost_and_the_others_do_not_wait_for_it() {
    let plan = "lane:2 up 10000 cut rst";
    let flags = ["--connections", "4"];
    let arrived = Journey::new(plan).send(&flags).until(20).at_least(4 << 20).arrives();
    let counters = &arrived.counters;
    assert_eq!(counters.control.connections, 1, "the control connection was not touched");
    // One that is lost when nothing is left to send is not replaced.
    let replaced = counters.lanes.connections - 4;
    assert!((counters.done("cut") - 1..=counters.done("cut")).contains(&replaced), "{counters}");
}

#[test]
fn after_one_cut_no_more_is_sent_again_than_was_not_taken() {
    for backend in ["uring", "threads"] {
        let flags = ["--io", backend];
        let journey = Journey::new("lanes#1 up 3000000 cut rst").send(&flags);
        let arrived = journey.until(1).at_least(8 << 20).arrives();
        let heads = 48 * (arrived.bytes / 4096 + 8) + 64;
        let again = arrived.counters.lanes.up_bytes.saturating_sub(arrived.bytes + heads);
        assert!(again <= CACHE, "{again} bytes were sent again");
    }
}
