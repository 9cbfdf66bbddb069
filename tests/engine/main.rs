//! Both engines over connections that die at any byte, fall silent or change what they carry: the
//! stream arrives whole, once, and in order, as long as connections come back.

mod by_hand;
mod handshake;
mod kept;
mod pair;
mod spool;
mod weather;

use std::time::Duration;

use pair::{Outcome, Over, Pair, Plan};
use proptest::prelude::*;
use sys::backend::Backend;
use weather::{Weather, cut, flip, hole};
use zferry::engine::settings::{Compression, Route, RouteChoice};
use zferry::protocol::window::Credit;
use zferry::units::Sequence;

const ZSTD: Compression = Compression::Zstd { level: 1 };

/// Both backends, raw and packed; and by the lane that needs neither.
fn everywhere(test: impl Fn(Plan) -> Outcome) {
    where_blocks_are_proved(&test);
    check(&Plan::spliced(), &test);
}

fn where_blocks_are_proved(test: impl Fn(Plan) -> Outcome) {
    for backend in [Backend::Uring, Backend::Threads] {
        for compression in [Compression::None, ZSTD] {
            check(&Plan { backend, compression, ..Plan::default() }, &test);
        }
        check(&Plan { backend, over: Over::Tls, ..Plan::default() }, &test);
    }
}

fn check(plan: &Plan, test: impl Fn(Plan) -> Outcome) {
    let outcome = test(plan.clone());
    assert!(outcome.whole, "{plan:?}: {outcome:?}");
}

fn run(plan: Plan, weather: &[(u32, Weather)]) -> Outcome {
    let mut pair = Pair::new(plan, weather);
    pair.begin();
    pair.finish()
}

#[test]
fn without_losses_nothing_is_sent_twice() {
    everywhere(|plan| {
        let outcome = run(plan, &[]);
        assert_eq!((outcome.lost, outcome.resent, outcome.came_twice), (0, 0, 0));
        outcome
    });
}

/// What nobody proves may go by slots all the same: on either side.
#[test]
fn bare_blocks_go_by_either_lane_on_either_side() {
    for route in [RouteChoice::Auto, RouteChoice::Only(Route::Block)] {
        let plan = Plan { receiver_route: route, ..Plan::spliced() };
        check(&plan, |plan| run(plan, &[(1, cut(300_000))]));
        let plan = Plan { route, ..Plan::spliced() };
        check(&plan, |plan| run(plan, &[(1, cut(300_000))]));
    }
}

#[test]
fn every_lane_may_be_cut_anywhere_again_and_again() {
    everywhere(|plan| {
        let weather: Vec<_> = (0..12_u64)
            .map(|n| (u32::try_from(n % 4).unwrap(), cut(n * 40_009 % 300_000)))
            .collect();
        let outcome = run(plan, &weather);
        assert!(outcome.lost >= 8, "{outcome:?}");
        outcome
    });
}

#[test]
fn all_lanes_may_be_gone_at_once() {
    everywhere(|plan| {
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        for _ in 0..5 {
            pair.drive_for(Duration::from_millis(3));
            pair.cut_all();
        }
        pair.finish()
    });
}

#[test]
fn the_stages_wait_without_a_connection_and_go_on_with_the_first_that_comes() {
    everywhere(|plan| {
        let mut pair = Pair::new(Plan { present: 0, ..plan }, &[]);
        pair.begin();
        pair.drive_for(Duration::from_millis(30));
        pair.join(2);
        pair.finish()
    });
}

#[test]
fn a_lane_that_falls_silent_holds_nothing_once_it_is_replaced() {
    everywhere(|plan| {
        let mut pair = Pair::new(plan, &[(1, hole(100_000))]);
        pair.begin();
        pair.drive_for(Duration::from_millis(100));
        assert!(!pair.is_over(), "the silent lane had a block that nobody missed");
        pair.join(1);
        pair.finish()
    });
}

#[test]
fn what_arrived_behind_a_lost_block_is_not_sent_again_with_it() {
    everywhere(|plan| {
        let mut pair = Pair::new(Plan { receiver_blocks: 8, ..plan }, &[(0, hole(0))]);
        pair.begin();
        // The first block is in the hole, and all others that there is a slot for come, and are
        // told of.
        pair.drive_until_nothing_moves();
        pair.cut_all();
        let outcome = pair.finish();
        assert!(outcome.lost >= 4 && outcome.resent > 0, "{outcome:?}");
        // Some blocks are on their way over one lane when another has gone already; of the others,
        // more than twenty, none came again.
        assert!(outcome.came_twice < 5 * (64 << 10), "{outcome:?}");
        outcome
    });
}

#[test]
fn a_lane_that_leaves_is_not_needed() {
    everywhere(|plan| {
        let mut pair = Pair::new(plan, &[(0, hole(0)), (3, hole(70_000))]);
        pair.begin();
        pair.drive_for(Duration::from_millis(20));
        pair.leave(0);
        pair.leave(3);
        pair.finish()
    });
}

#[test]
fn a_changed_byte_costs_its_connection_and_nothing_else() {
    where_blocks_are_proved(|plan| {
        // A magic, a length, a CRC, and bytes of payloads; the other lanes go on meanwhile.
        let weather = [0, 33, 41, 100, 20_000, 65_000, 130_000].map(|byte| (0, flip(byte)));
        let over = plan.over;
        let outcome = run(plan, &weather);
        // TLS finds it out before we see a block.
        let noticed = if over == Over::Tls { outcome.lost } else { outcome.wrong };
        assert!(noticed >= 3, "{outcome:?}");
        outcome
    });
}

#[test]
fn a_path_that_changes_everything_is_given_up() {
    for backend in [Backend::Uring, Backend::Threads] {
        for (compression, byte) in [(Compression::None, 9), (ZSTD, 60), (Compression::None, 60)] {
            let weather: Vec<_> = (0..20).map(|_| (0, flip(byte))).collect();
            let plan = Plan { backend, compression, lanes: 1, present: 1, ..Plan::default() };
            let outcome = run(plan, &weather);
            assert!(!outcome.whole && outcome.failed.is_some(), "{outcome:?}");
            assert_eq!(outcome.wrong, 2, "given up at the third time in a row: {outcome:?}");
        }
    }
}

#[test]
fn a_cut_inside_every_byte_of_a_header_and_around_it_loses_nothing() {
    let plan = Plan { bytes: 200_000, lanes: 1, present: 1, ..Plan::default() };
    for byte in (0..52).chain(65_530..65_590) {
        let outcome = run(plan.clone(), &[(0, cut(byte))]);
        assert!(outcome.whole && outcome.lost == 1, "{byte}: {outcome:?}");
    }
}

#[test]
fn the_last_frame_is_missed_when_it_is_lost_with_its_connection() {
    // Three blocks fit the sockets, so the sender has nothing left to do when the cut comes.
    for backend in [Backend::Uring, Backend::Threads] {
        let plan = Plan { backend, bytes: 150_000, lanes: 1, present: 1, ..Plan::default() };
        let outcome = run(plan, &[(0, cut(149_999))]);
        assert!(outcome.whole && outcome.lost == 1 && outcome.resent > 0, "{outcome:?}");
    }
}

#[test]
fn connections_over_tcp_may_be_reset_while_the_kernel_sends_from_our_pages() {
    let mut pair = Pair::new(Plan { over: Over::Tcp, ..Plan::default() }, &[]);
    pair.begin();
    for _ in 0..5 {
        pair.drive_for(Duration::from_millis(3));
        pair.cut_all();
    }
    let outcome = pair.finish();
    assert!(outcome.whole && outcome.lost > 0, "{outcome:?}");
}

#[test]
fn a_slow_reader_and_a_small_cache_do_not_stand_in_each_others_way() {
    everywhere(|plan| {
        let plan = Plan { bytes: 2 << 20, slow_sink: true, ..plan };
        run(plan, &[(0, cut(90_000)), (1, cut(200_000)), (2, cut(7))])
    });
}

#[test]
fn a_reader_that_stands_still_leaves_no_connection_unread() {
    everywhere(|plan| {
        let mut pair = Pair::new(Plan { sink_waits: true, ..plan }, &[]);
        pair.begin();
        // Until the sender has used all of its credit, and then for whatever may still be moved.
        pair.drive_for(Duration::from_millis(200));
        pair.drive_while(|pair| pair.on_the_wire().0 != pair.on_the_wire().1);
        let (sent, received) = pair.on_the_wire();
        assert!(sent > 0 && sent == received, "sent {sent} bytes, received {received}");
        pair.start_sink();
        pair.finish()
    });
}

#[test]
fn a_small_cache_at_one_end_is_told_in_time() {
    // The receiver's quarter is more than the sender has: only the quiet moments tell it.
    let plan = Plan { receiver_blocks: 64, ..Plan::default() };
    let outcome = run(plan, &[]);
    assert!(outcome.whole && outcome.took < Duration::from_millis(1500), "{outcome:?}");
}

#[test]
fn a_credit_that_no_receiver_could_give_ends_the_sender() {
    let credit = |taken, room| Credit { taken: Sequence(taken), room: Sequence(room) };
    for (lie, told) in [
        (credit(1000, 2000), "it took the blocks up to #1000 when those up to"),
        (credit(0, 1), "it gave room for blocks up to #1"),
    ] {
        let mut pair = Pair::new(Plan { sink_waits: true, ..Plan::default() }, &[]);
        pair.begin();
        pair.drive_for(Duration::from_millis(20));
        pair.lie(lie);
        pair.drive_while(|pair| !pair.is_over());
        pair.start_sink();
        let failed = pair.finish().failed.expect("the lie was believed");
        assert!(failed.contains(told), "{failed}");
    }
}

#[test]
fn the_end_of_an_engine_does_not_wait_for_connections() {
    for backend in [Backend::Uring, Backend::Threads] {
        let mut pair = Pair::new(Plan { backend, present: 0, ..Plan::default() }, &[]);
        pair.begin();
        pair.drive_for(Duration::from_millis(20));
        let took = pair.stop();
        assert!(took < Duration::from_secs(3), "it took {took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_weather_the_stream_arrives(
        cuts in prop::collection::vec((0..4_u32, weather::fair_or_cut(400_000)), 0..16),
        flips in prop::collection::vec((0..4_u32, (0..400_000_u64).prop_map(flip)), 0..3),
        uring: bool,
        packed: bool,
    ) {
        let backend = if uring { Backend::Uring } else { Backend::Threads };
        let compression = if packed { ZSTD } else { Compression::None };
        let plan = Plan { backend, compression, bytes: 3 << 20, ..Plan::default() };
        // A third change in a row would be the end, and rightly so.
        let outcome = run(plan, &[flips, cuts].concat());
        prop_assert!(outcome.whole, "{outcome:?}");
    }
}
