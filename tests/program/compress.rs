//! `--compress auto`: packs as far as costs no speed, and nothing that would not shrink.

use serde_json::Value;

use crate::support::host::{Server, send};

const MIB: usize = 1 << 20;

/// What was carried, and the events that told of it.
fn carried(input: &[u8], flags: &[&str]) -> Vec<Value> {
    let receiver = Server::receive(&["--cache", "32MiB"]);
    let small = ["--cache", "8MiB", "--block-size", "64KiB", "--compress", "auto", "--json"];
    let sender = send(receiver.address, &[&small, flags].concat(), input.to_vec());
    let told = sender.ended().succeeded().stdout;
    assert!(receiver.running.ended().succeeded().stdout == input, "{flags:?}");
    let told = String::from_utf8(told).unwrap();
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Bytes that went over the wire, in percent of the stream.
fn percent(events: &[Value]) -> u64 {
    let done = events.last().unwrap();
    done["wire"].as_u64().unwrap() * 100 / done["bytes"].as_u64().unwrap()
}

fn text(length: usize) -> Vec<u8> {
    let lines = (0_u64..).flat_map(|line| {
        let number = line.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        format!("{line} a line of a log, about {number}\n").into_bytes()
    });
    lines.take(length).collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_slow_wire_is_relieved_by_packing() {
    let events = carried(&text(24 * MIB), &["--bwlimit", "2MiB"]);
    assert!(percent(&events) < 40, "{}", events.last().unwrap());
    let levels = events.iter().filter_map(|event| event["level"].as_u64());
    assert!(levels.max() > Some(2), "{events:?}");
}

#[test]
fn what_does_not_shrink_is_sent_as_it_is_however_slow_the_wire() {
    let events = carried(&noise(4 * MIB), &["--bwlimit", "4MiB"]);
    assert!((100..102).contains(&percent(&events)), "{}", events.last().unwrap());
}

#[test]
fn every_end_of_a_stream_arrives() {
    for length in [0, 1, 311, 65536, 65537, 3 * MIB + 7] {
        carried(&text(length), &["--connections", "3"]);
    }
}
