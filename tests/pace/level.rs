//! `--compress auto`: what comes no faster than the wire takes it is not packed.
//!
//! Here, for beside many other tests blocks of a slow source come together, and are packed rightly.

use serde_json::Value;

use crate::support::host::{Server, send};

#[test]
fn a_source_that_is_slower_than_the_wire_is_sent_as_it_is() {
    let slow =
        ["--", "sh", "-c", "for i in $(seq 20); do head -c 65536 /dev/zero; sleep 0.05; done"];
    let receiver = Server::receive(&["--cache", "32MiB"]);
    let small = ["--cache", "8MiB", "--block-size", "64KiB", "--compress", "auto", "--json"];
    let sender = send(receiver.address, &[&small[..], &slow].concat(), Vec::new());
    let told = String::from_utf8(sender.ended().succeeded().stdout).unwrap();
    assert_eq!(receiver.running.ended().succeeded().stdout.len(), 20 * 65536);
    let done: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert!(done["wire"].as_u64().unwrap() > 20 * 65536, "{told}");
}
