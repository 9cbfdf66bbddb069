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

#[test]
fn a_server_is_told_of_a_client_that_gives_its_last_connection_up() {
    let plan = "lane:0 up 100000 refuse 60s\nlane:0 up 200000 cut rst";
    let mut under_way = Journey::new(plan).send(&["--retry-for", "1"]).begin();
    under_way.sender.feed(vec![7; 8 << 20]);
    under_way.sender.ended().failed_with(2, &["did not come back"]);
    // It would wait ten minutes for one that might return.
    under_way.receiver.running.ended().failed_with(2, &["did not come back"]);
}
