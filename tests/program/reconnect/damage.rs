//! Bytes that are changed, repeated or torn apart on their way.

use super::journey::{CACHE, FRAME, Journey, PREAMBLE, lines};

#[test]
fn a_stream_in_segments_of_one_byte_arrives() {
    for flags in
        [["--connections", "2", "--io", "uring"], ["--connections", "2", "--io", "threads"]]
    {
        let arrived =
            Journey::new("any both 0 segments 1").send(&flags).at_least(100_000).arrives();
        assert_eq!(arrived.counters.lanes.connections, 2, "nothing was wrong with them");
        assert_eq!(arrived.counters.control.connections, 1);
    }
}

#[test]
fn a_bit_that_flips_anywhere_in_a_frame_is_caught_and_its_block_sent_again() {
    // Behind all that is sent again on a new connection, for of a frame that was here already
    // nobody reads the bytes.
    let fresh = PREAMBLE + CACHE.next_multiple_of(FRAME) + FRAME;
    let places = (0..48).step_by(5).chain([48, 1000, FRAME - 1]);
    let rules = (1..).zip(places).map(|(number, place)| {
        let bit = place % 8;
        format!("lanes#{number} up {} flip {bit}", fresh + place)
    });
    for compress in ["none", "zstd:1"] {
        let journey = Journey::new(&lines(rules.clone())).send(&["--compress", compress]);
        let arrived = journey.until(13).arrives();
        assert!(arrived.counters.lanes.connections > 12, "{}", arrived.counters);
    }
}

#[test]
fn a_bit_that_flips_in_a_message_costs_its_connection_and_nothing_else() {
    // In the length, in the CRC32, and in the words, of what either side says.
    let rules = (0..12).flat_map(|number| {
        let (down, up) = (400 + 7 * number, PREAMBLE + 3 * number);
        let which = 2 + 2 * number;
        [
            format!("control#{} down {down} flip {}", which - 1, number % 8),
            format!("control#{which} up {up} flip {}", number % 8),
        ]
    });
    let arrived = Journey::new(&lines(rules)).until(24).arrives();
    assert!(arrived.counters.control.connections >= 24, "{}", arrived.counters);
    assert_eq!(arrived.counters.lanes.connections, 1, "the data connection was not touched");
}

#[test]
fn bytes_that_come_twice_are_taken_once() {
    // A whole frame, a piece of one, and a few bytes in the middle of a payload.
    for (at, bytes) in [(PREAMBLE + 2 * FRAME, FRAME), (PREAMBLE + FRAME, 100), (1000, 40)] {
        let plan = format!("lanes#1 up {at} repeat {bytes}");
        Journey::new(&plan).until(1).at_least(200_000).arrives();
    }
}

#[test]
fn messages_that_come_twice_are_not_taken_for_new_ones() {
    let rules = (1..10).map(|number| format!("control#{number} down 500 repeat {}", number * 20));
    Journey::new(&lines(rules)).until(9).arrives();
}
