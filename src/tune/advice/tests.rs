//! The judgement against machines and pairs of every kind, slow and fast, near and far.

use std::time::Duration;

use proptest::prelude::*;
use sys::backend::Backend;

use super::*;
use crate::engine::settings::{Checksum, Compression, RouteChoice, Settings, ZeroCopy};
use crate::error::Side;
use crate::protocol::frame::Codec;
use crate::tune::measured::{Far, Outcome, Part};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A machine of eight cores whose parts are as fast as this.
fn machine(read: u64, send: u64, receive: u64, splice: u64) -> Measured {
    let parts = [
        (PartName::Read, read),
        (PartName::Send, send),
        (PartName::Receive, receive),
        (PartName::Splice, splice),
    ];
    let parts = parts.map(|(name, rate)| Part { name, bytes_per_second: Bytes(rate) });
    let level = |level, rate, ratio| Level { level, bytes_per_second: Bytes(rate), ratio };
    Measured {
        cores: 8,
        cache: CACHE,
        parts: parts.to_vec(),
        levels: vec![level(1, 2 * GIB, 2.0), level(3, GIB, 2.5), level(9, 100 * MIB, 3.0)],
        ..Measured::default()
    }
}

/// The same with another host so many milliseconds away.
fn pair(measured: Measured, millis: u64) -> Measured {
    let far = Far {
        host: "far:1".to_owned(),
        round_trip: Duration::from_millis(millis),
        socket_bytes_max: Some(Bytes(4 * MIB)),
    };
    Measured { far: Some(far), ..measured }
}

/// Tries whatever is worth it, on a network that carries what `rate` says, and is advised.
fn tried(
    mut measured: Measured,
    offer: &Offer,
    rate: impl Fn(&Choice) -> Option<u64>,
) -> (Measured, Advice) {
    while let Some(choice) = next(&measured, offer) {
        let outcome = match rate(&choice) {
            Some(rate) => {
                let wire = times(Bytes(rate), 1.0 / measured.ratio(choice.zstd));
                Outcome::Carried { bytes_per_second: Bytes(rate), wire_bytes_per_second: wire }
            }
            None => Outcome::Refused { refused: "no".to_owned() },
        };
        measured.transfers.push(Transfer { choice, outcome });
        assert!(measured.transfers.len() < 20, "it never ends: {measured:?}");
    }
    let advice = advise(&measured, None);
    (measured, advice)
}

/// A line of so many bytes per second that shares them among all connections, each of which gets
/// no more than `one`.
fn line(all: u64, one: u64, measured: &Measured) -> impl Fn(&Choice) -> Option<u64> + use<> {
    let levels = measured.levels.clone();
    move |choice| {
        let wire = Bytes(all.min(one.saturating_mul(choice.connections.into())));
        let level = levels.iter().find(|level| Some(level.level) == choice.zstd);
        Some(level.map_or(wire, |level| level.bytes_per_second.min(times(wire, level.ratio))).0)
    }
}

fn flags(advice: &Advice) -> String {
    advice.send.join(" ")
}

#[test]
fn the_slowest_part_is_blamed_where_the_whole_is_as_slow() {
    let fast = 8 * GIB;
    for (parts, expected) in [
        ([GIB, fast, fast, fast], Bottleneck::Read),
        ([fast, GIB, fast, fast], Bottleneck::Send),
        ([fast, fast, GIB, fast], Bottleneck::Receive),
        ([fast, fast, fast, GIB], Bottleneck::Splice),
    ] {
        let [read, send, receive, splice] = parts;
        let measured = machine(read, send, receive, splice);
        let (_, advice) = tried(measured, &Offer::default(), |_| Some(900 * MIB));
        assert_eq!(advice.bottleneck, expected);
        assert!(!advice.says.is_empty());
    }
}

#[test]
fn cores_are_blamed_where_each_part_is_faster_than_all_together() {
    let measured = Measured { cores: 2, ..machine(2 * GIB, 2 * GIB, 2 * GIB, 4 * GIB) };
    // Also where it is close to the slowest part: two cores could not drive that one either.
    for whole in [GIB, GIB + GIB / 2] {
        let (_, advice) = tried(measured.clone(), &Offer::default(), |_| Some(whole));
        assert_eq!(advice.bottleneck, Bottleneck::Cores);
        let busy = Measured { cores: 1, levels: Vec::new(), ..pair(measured.clone(), 0) };
        let (_, advice) = tried(busy, &Offer::default(), |_| Some(whole));
        assert_eq!(advice.bottleneck, Bottleneck::Cores);
    }
    // With cores for all of them it is the slowest part.
    let measured = machine(2 * GIB, 3 * GIB, 3 * GIB, 4 * GIB);
    let (_, advice) = tried(measured, &Offer::default(), |_| Some(2 * GIB));
    assert_eq!(advice.bottleneck, Bottleneck::Read);
}

#[test]
fn a_network_slower_than_this_machine_is_blamed_and_packed_for() {
    let measured = pair(machine(2 * GIB, 3 * GIB, 3 * GIB, 4 * GIB), 0);
    let network = line(110 * MIB, 110 * MIB, &measured);
    let (measured, advice) = tried(measured, &Offer::default(), network);
    // Level 9 shrinks more, and packs less than that carries.
    assert_eq!(flags(&advice), "--compress zstd:3");
    assert_eq!(advice.bottleneck, Bottleneck::Network);
    assert!(advice.says.contains("far:1"), "{}", advice.says);
    assert_eq!(advice.receive, [""; 0]);
    assert_eq!(best(&measured.transfers).unwrap().choice.connections, 1);
}

#[test]
fn a_network_faster_than_any_level_is_sent_raw_blocks() {
    let measured = pair(machine(4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB), 0);
    let network = line(3 * GIB, 3 * GIB, &measured);
    let (measured, advice) = tried(measured, &Offer::default(), network);
    assert_eq!(flags(&advice), "");
    assert!(measured.transfers.iter().all(|transfer| transfer.choice.zstd.is_none()));
}

#[test]
fn packing_is_blamed_where_it_is_what_is_left() {
    let mut measured = pair(machine(4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB), 0);
    measured.levels.truncate(1);
    let network = line(GIB + GIB / 2, GIB + GIB / 2, &measured);
    let (_, advice) = tried(measured, &Offer::default(), network);
    assert_eq!(flags(&advice), "--compress zstd:1");
    assert_eq!(advice.bottleneck, Bottleneck::Compress);
}

#[test]
fn connections_are_added_where_each_is_limited_by_itself() {
    let measured = pair(machine(4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB), 1);
    let of_one = Offer { one_connection: true, ..Offer::default() };
    for (one, offer, expected) in [
        (100 * MIB, Offer::default(), "--connections 16"),
        (300 * MIB, Offer::default(), "--connections 4"),
        (100 * MIB, of_one, ""),
    ] {
        let mut measured = measured.clone();
        measured.levels.clear();
        let network = line(GIB, one, &measured);
        let (_, advice) = tried(measured, &offer, network);
        assert_eq!(flags(&advice), expected);
    }
}

#[test]
fn a_long_way_gets_a_cache_of_twice_what_is_on_it_at_both_ends() {
    let mut measured = pair(machine(4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB), 100);
    measured.levels.clear();
    let network = line(GIB, GIB, &measured);
    let (_, advice) = tried(measured, &Offer::default(), network);
    // A GiB per second for a tenth of a second, twice: 205 MiB, in whole steps.
    assert_eq!(flags(&advice), "--cache 224MiB");
    assert_eq!(advice.receive, ["--cache", "224MiB"]);
    assert_eq!(advice.bottleneck, Bottleneck::Window);
    assert!(advice.remarks[0].contains("net.ipv4.tcp_wmem"), "{:?}", advice.remarks);
}

#[test]
fn a_congestion_control_is_named_only_if_it_was_faster() {
    let mut measured = pair(machine(4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB), 1);
    measured.levels.clear();
    let offer = Offer { congestion: vec!["bbr".to_owned()], ..Offer::default() };
    for (rate, expected) in [(2 * GIB, "--congestion bbr"), (GIB + GIB / 50, ""), (MIB, "")] {
        let network = |choice: &Choice| Some(choice.congestion.as_ref().map_or(GIB, |_| rate));
        let (_, advice) = tried(measured.clone(), &offer, network);
        assert_eq!(flags(&advice), expected);
    }
}

#[test]
fn only_what_beats_the_best_by_more_than_noise_has_it_measured_again() {
    let carried = |rate| Outcome::Carried {
        bytes_per_second: Bytes(rate),
        wire_bytes_per_second: Bytes(rate),
    };
    let plain = Transfer { choice: Choice::plain(), outcome: carried(100) };
    let transfers = [plain];
    assert_eq!(beaten(&transfers, &carried(106)), Some(Choice::plain()));
    assert_eq!(beaten(&transfers, &carried(105)), None);
    assert_eq!(beaten(&transfers, &Outcome::Refused { refused: String::new() }), None);
    assert_eq!(beaten(&[], &carried(1)), None);
}

#[test]
fn what_was_refused_is_never_advised() {
    let measured = pair(machine(4 * GIB, 4 * GIB, 4 * GIB, 4 * GIB), 1);
    let (congestion, block_bytes) = (vec!["bbr".to_owned()], vec![Bytes(4 * MIB)]);
    let offer = Offer { one_connection: false, congestion, block_bytes };
    let only_plain = |choice: &Choice| (*choice == Choice::plain()).then_some(MIB);
    let (measured, advice) = tried(measured, &offer, only_plain);
    assert_eq!(flags(&advice), "");
    assert!(measured.transfers.len() > 3, "others were tried");
}

#[test]
fn alone_a_sample_that_shrinks_is_packed_only_where_the_network_will_be_slow() {
    let measured = machine(2 * GIB, 2 * GIB, 2 * GIB, 2 * GIB);
    let (_, advice) = tried(measured.clone(), &Offer::default(), |_| Some(GIB));
    assert_eq!(flags(&advice), "--compress auto");
    let mut noise = measured;
    noise.levels.iter_mut().for_each(|level| level.ratio = 1.0);
    let (_, advice) = tried(noise, &Offer::default(), |_| Some(GIB));
    assert_eq!(flags(&advice), "");
}

#[test]
fn workers_that_add_nothing_are_left_out() {
    let workers = |workers, rate| Workers { workers, bytes_per_second: Bytes(rate) };
    let measured = pair(machine(2 * GIB, 2 * GIB, 2 * GIB, 2 * GIB), 0);
    for (of_eight, expected) in
        [(GIB, "--compress zstd:3 --workers 4"), (2 * GIB, "--compress zstd:3")]
    {
        let workers = vec![workers(2, GIB / 2), workers(4, GIB), workers(8, of_eight)];
        let measured = Measured { workers, ..measured.clone() };
        let network = line(100 * MIB, 100 * MIB, &measured);
        let (_, advice) = tried(measured, &Offer::default(), network);
        assert_eq!(flags(&advice), expected);
    }
}

#[test]
fn a_spool_is_advised_only_where_its_disk_is_faster_than_the_network() {
    let measured = pair(machine(2 * GIB, 2 * GIB, 2 * GIB, 2 * GIB), 0);
    let network = line(100 * MIB, 100 * MIB, &measured);
    let (mut measured, _) = tried(measured, &Offer::default(), network);
    let spool = |rate| Part { name: PartName::Spool, bytes_per_second: Bytes(rate) };
    measured.parts.push(spool(GIB));
    assert!(flags(&advise(&measured, Some("/a"))).ends_with("--spool /a"));
    measured.parts.pop();
    measured.parts.push(spool(20 * MIB));
    let advice = advise(&measured, Some("/a"));
    assert!(!flags(&advice).contains("--spool"), "{advice:?}");
    assert!(advice.remarks.iter().any(|remark| remark.contains("/a")), "{advice:?}");
    // Alone, nobody knows how fast the network is.
    measured.far = None;
    let advice = advise(&measured, Some("/a"));
    assert!(!flags(&advice).contains("--spool") && !advice.remarks.is_empty(), "{advice:?}");
}

#[test]
fn nothing_measured_is_nothing_said() {
    let advice = advise(&Measured::default(), None);
    assert_eq!(advice.bottleneck, Bottleneck::Unknown);
    assert_eq!((flags(&advice), advice.receive), (String::new(), Vec::new()));
}

/// What [`room_for`] says and what the engine refuses must not part.
#[test]
fn the_least_cache_for_a_choice_is_what_an_engine_starts_with() {
    for (connections, zstd, block_bytes) in
        [(1, None, MIB), (16, None, MIB), (4, Some(3), 4 * MIB), (64, Some(1), 4096)]
    {
        let choice =
            Choice { zstd, connections, block_bytes: Bytes(block_bytes), congestion: None };
        let codec = if zstd.is_some() { Codec::Zstd } else { Codec::Raw };
        let fits = |cache: Bytes| {
            let settings = Settings {
                backend: Backend::Threads,
                cache,
                block_bytes: choice.block_bytes,
                workers: 1,
                cores: Vec::new(),
                compression: Compression::None,
                checksum: Checksum::Crc32,
                route: RouteChoice::Auto,
                flush_after: Duration::ZERO,
                zero_copy: ZeroCopy::Off,
                spool: None,
            };
            settings.slots(connections.into(), codec, Side::Source).is_ok()
        };
        let least = room_for(&choice);
        assert!(fits(least) && !fits(Bytes(least.0 - 1)), "{choice:?}");
    }
}

fn a_rate() -> impl Strategy<Value = u64> {
    // From a modem to memory.
    (10_u32..36, 1_u64..2000).prop_map(|(shift, fraction)| (1_u64 << shift) / 1000 * fraction + 1)
}

prop_compose! {
    fn a_machine()(
        parts in prop::array::uniform4(a_rate()),
        levels in prop::collection::vec((a_rate(), 1.0_f64..20.0), 0..12),
        workers in prop::collection::vec(a_rate(), 0..4),
        cores in 1_usize..200,
        cache in (20_u32..33).prop_map(|shift| Bytes(1 << shift)),
        spool in prop::option::of(a_rate()),
        far in prop::option::of(0_u64..1000),
    ) -> Measured {
        let [read, send, receive, splice] = parts;
        let mut measured = machine(read, send, receive, splice);
        measured.levels = (1..).zip(levels)
            .map(|(level, (rate, ratio))| Level { level, bytes_per_second: Bytes(rate), ratio })
            .collect();
        measured.workers = (1..).zip(workers)
            .map(|(workers, rate)| Workers { workers, bytes_per_second: Bytes(rate) })
            .collect();
        let spool = spool.map(|rate| Part { name: PartName::Spool, bytes_per_second: Bytes(rate) });
        measured.parts.extend(spool);
        let measured = Measured { cores, cache, ..measured };
        match far {
            Some(millis) => pair(measured, millis),
            None => measured,
        }
    }
}

/// What stands behind a flag.
fn value<'a>(flags: &'a [String], flag: &str) -> Option<&'a str> {
    let at = flags.iter().position(|word| word == flag)?;
    flags.get(at + 1).map(String::as_str)
}

proptest! {
    #[test]
    fn nothing_is_advised_that_was_slower_than_something_else(
        measured in a_machine(),
        rates in prop::collection::vec(prop::option::weighted(0.9, a_rate()), 20),
    ) {
        let offer = Offer {
            one_connection: false,
            congestion: vec!["bbr".to_owned(), "cubic".to_owned()],
            block_bytes: vec![Bytes(256 << 10), Bytes(4 << 20)],
        };
        // Whatever is tried is as fast as chance has it.
        let mut rates = rates.into_iter();
        let rates = std::cell::RefCell::new(rates.by_ref());
        let (measured, _) = tried(measured, &offer, |_| rates.borrow_mut().next().flatten());
        let advice = advise(&measured, Some("/a"));
        let noisy = |rate: u64| u128::from(rate) * 100;

        // The transfer that the flags make was measured, and none was faster.
        if let Some(best) = best(&measured.transfers) {
            prop_assert!(advice.send.starts_with(&best.choice.flags()));
            let advised = best.rate().unwrap_or_default();
            for other in measured.transfers.iter().filter_map(Transfer::rate) {
                prop_assert!(noisy(other.0) <= u128::from(advised.0) * u128::from(NOISE));
            }
        } else {
            prop_assert!(value(&advice.send, "--connections").is_none());
        }

        // Nor any number of workers.
        if let Some(workers) = value(&advice.send, "--workers") {
            let workers: usize = workers.parse().unwrap();
            let rate = |of: &Workers| of.bytes_per_second.0;
            let advised = measured.workers.iter().find(|of| of.workers == workers).map(rate);
            for other in measured.workers.iter().map(rate) {
                let most = u128::from(advised.unwrap()) * u128::from(NOISE);
                prop_assert!(noisy(other) <= most);
            }
        }

        // The cache is twice what is on its way, or more, and the same at both ends.
        let cache = |flags| value(flags, "--cache").map_or(CACHE, |text| text.parse().unwrap());
        let (here, there) = (cache(&advice.send), cache(&advice.receive));
        prop_assert_eq!(here, there);
        if let Some(bytes) = on_its_way(&measured) {
            prop_assert!(u128::from(here.0) >= 2 * u128::from(bytes.0));
        }

        // A spool is faster than the network that it stands before.
        if value(&advice.send, "--spool").is_some() {
            let network = best(&measured.transfers).and_then(Transfer::rate).unwrap();
            prop_assert!(measured.part(PartName::Spool).unwrap() > network);
        }
    }

    #[test]
    fn a_level_is_chosen_that_carries_no_less_than_raw_blocks_or_any_other(
        measured in a_machine(),
        wire in a_rate(),
    ) {
        let carried = |level: &Level| level.bytes_per_second.min(times(Bytes(wire), level.ratio)).0;
        let chosen = level_for(&measured.levels, Bytes(wire)).as_ref().map_or(wire, carried);
        for other in measured.levels.iter().map(carried).chain([wire]) {
            prop_assert!(u128::from(other) * 100 <= u128::from(chosen) * u128::from(NOISE));
        }
    }
}
