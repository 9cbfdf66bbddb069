//! Connections that are slow one by one, and fast together.

use super::journey::Journey;

#[test]
fn connections_are_added_while_each_makes_the_stream_faster() {
    // Two megabytes a second each: with one of them it would take 12 s.
    let journey = Journey::new("lanes up 0 rate 2000000").send(&["--connections", "auto"]);
    let arrived = journey.at_least(24 << 20).arrives();
    assert!(arrived.counters.lanes.connections > 2, "{}", arrived.counters);
}

#[test]
fn a_connection_that_can_not_be_had_is_done_without() {
    // No second one is let through, and nobody has the patience to try twice.
    let plan = "lanes up 0 rate 2000000\nlane:0 up 1000 refuse 60s";
    let journey = Journey::new(plan).send(&["--connections", "auto", "--retry-for", "0"]);
    let arrived = journey.at_least(12 << 20).arrives();
    assert_eq!(arrived.counters.done("refuse"), 1);
}
