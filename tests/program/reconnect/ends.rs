//! The first and the last words of a stream: they are heard whatever happens to the connection.

use std::time::{Duration, Instant};

use zferry::protocol::envelope::encode;
use zferry::protocol::message::{Ending, Message};
use zferry::units::{StreamOffset, TransferId};
use zferry_chaos::{Counters, Proxy};

use crate::support::host::{Server, send};

/// Far less than a server waits for a client that may come back.
const SOON: Duration = Duration::from_secs(10);

const STREAM: &[u8] = b"a short stream";

/// Carries a short stream under `plan`, demands success of both sides, and returns what passed.
#[track_caller]
fn carried(plan: &str) -> Counters {
    let receiver = Server::receive(&["--cache", "8MiB"]);
    let proxy = Proxy::start(receiver.address, &plan.parse().unwrap()).unwrap();
    let sender = send(proxy.address(), &["--cache", "8MiB"], STREAM.to_vec()).ended();
    assert_eq!(sender.status.code(), Some(0), "{plan}: {}", sender.stderr);
    assert_eq!(receiver.running.ended().succeeded().stdout, STREAM, "{plan}");
    proxy.counters()
}

/// How many bytes the last two messages of a client take: the end of the stream, the good-bye.
fn last_words() -> (u64, u64) {
    let crc32 = crc32fast::hash(STREAM);
    let ending = Ending::Complete { total: StreamOffset(STREAM.len() as u64), crc32 };
    let end = Message::End { transfer: TransferId(1), ending };
    (encode(&end).len() as u64, encode(&Message::Bye).len() as u64)
}

#[test]
fn a_result_whose_connection_was_lost_before_it_is_told_over_the_next() {
    let before_bye = carried("").control.up_bytes - last_words().1;
    for ending in ["fin", "rst"] {
        let counters = carried(&format!("control#1 up {before_bye} cut {ending}"));
        assert_eq!((counters.control.connections, counters.done("cut")), (2, 1), "{counters}");
    }
}

#[test]
fn a_connection_may_end_at_any_byte_of_the_opening_of_a_stream() {
    let (whole, (end, bye)) = (carried("").control, last_words());
    let request = carried("control#1 up 160 cut rst").control;
    assert_eq!(request.connections, 2, "there was no session yet, or nothing was lost");
    for at in (160..whole.up_bytes - end - bye).step_by(13) {
        carried(&format!("control#1 up {at} cut rst"));
    }
    for at in (195..330).step_by(13) {
        carried(&format!("control#1 down {at} cut rst"));
    }
}

#[test]
fn a_connection_may_end_at_any_byte_of_the_last_messages() {
    let (whole, (end, bye)) = (carried("").control, last_words());
    for back in (bye..=bye + end).step_by(7) {
        carried(&format!("control#1 up {} cut rst", whole.up_bytes - back));
    }
    // The result; how many digits its time has may differ.
    for back in (0..120).step_by(9) {
        carried(&format!("control#1 down {} cut fin", whole.down_bytes - back));
    }
}

#[test]
fn a_result_that_is_lost_again_and_again_is_told_until_it_is_heard() {
    let before_bye = carried("").control.up_bytes - last_words().1;
    let plan = format!(
        "control#1 up {before_bye} cut rst\ncontrol#2 down 40 cut rst\n\
         control#3 down 45 cut fin\ncontrol#4 down 60 cut rst"
    );
    let counters = carried(&plan);
    assert_eq!((counters.control.connections, counters.done("cut")), (5, 4), "{counters}");
}

/// Otherwise the server could not know that its result was heard, and would wait half a minute for
/// somebody to ask.
#[test]
fn a_good_bye_that_is_lost_is_said_again() {
    let whole = carried("").control;
    for (back, ending) in [(5, "rst"), (5, "fin"), (1, "rst")] {
        let began = Instant::now();
        let counters = carried(&format!("control#1 up {} cut {ending}", whole.up_bytes - back));
        assert_eq!((counters.control.connections, counters.done("cut")), (2, 1), "{counters}");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

/// As often as it takes, within two seconds.
#[test]
fn a_good_bye_that_is_lost_twice_is_said_a_third_time() {
    let whole = carried("").control;
    let began = Instant::now();
    let plan = format!("control#1 up {} cut rst\ncontrol#2 up 40 cut rst", whole.up_bytes - 5);
    let counters = carried(&plan);
    assert_eq!((counters.control.connections, counters.done("cut")), (3, 2), "{counters}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
