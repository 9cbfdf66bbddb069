//! The part of the way that holds a stream up.
//!
//! The slowest part is to blame if the whole is about as slow; where it is slower still, what the
//! parts share is: the cores, or what lies between two hosts.

use serde::Serialize;

use super::{best, on_its_way, times};
use crate::tune::measured::{Measured, PartName, Transfer};
use crate::units::Bytes;

/// What holds a stream up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bottleneck {
    /// Nothing was measured that could tell.
    Unknown,
    /// Reading the source through its pipe.
    Read,
    /// Packing blocks.
    Compress,
    /// Giving blocks to the socket.
    Send,
    /// Taking them out of a socket.
    Receive,
    /// Feeding the reader.
    Splice,
    /// The cores: all parts together want more of them than there are.
    Cores,
    /// The memory at one of the ends: it holds less than is on its way at once.
    Window,
    /// The network, or the other host.
    Network,
}

/// In percent: a part whose own rate the whole reaches so far holds it up.
const REACHED: u64 = 70;

/// In percent of the window: what is on its way at once is limited by it from here on. The
/// receiver tells what it has taken after each quarter of its cache.
const WINDOW_FULL: u64 = 50;

/// A second in so small pieces that the fastest part's share of it is still a large number.
const SECOND: u128 = 1 << 90;

impl Bottleneck {
    /// Finds it.
    pub fn of(measured: &Measured) -> Bottleneck {
        let whole = best(&measured.transfers);
        let Some(slowest) = on_this_machine(measured).into_iter().min_by_key(|part| part.1) else {
            return Bottleneck::Unknown;
        };
        let Some(rate) = whole.and_then(Transfer::rate) else { return slowest.0 };
        let shared = shared(measured);
        let local = slowest.1.min(shared);
        let is_local = rate.0.saturating_mul(100) >= local.0.saturating_mul(REACHED);
        match (&measured.far, is_local) {
            (_, true) if slowest.1 <= shared => slowest.0,
            (None, _) | (_, true) => Bottleneck::Cores,
            (Some(_), false) if window_is_full(measured) => Bottleneck::Window,
            (Some(_), false) => Bottleneck::Network,
        }
    }

    /// In words, and what to do about it.
    pub fn says(self, measured: &Measured) -> String {
        let rate = |name| measured.part(name).unwrap_or_default();
        let whole = best(&measured.transfers).and_then(Transfer::rate).unwrap_or_default();
        match self {
            Bottleneck::Unknown => "nothing was measured that tells".to_owned(),
            Bottleneck::Read => format!(
                "reading the source through its pipe, {}/s: see what pipes get with `zferry \
                 doctor`, and leave a core to `zfs send`",
                rate(PartName::Read)
            ),
            Bottleneck::Compress => format!(
                "packing, {whole}/s: use a lower level of --compress, or more cores (--workers, \
                 --pin)"
            ),
            Bottleneck::Send => format!(
                "giving blocks to the socket, {}/s: another congestion control (--congestion) or \
                 larger frames of the network card (MTU) make it cheaper",
                rate(PartName::Send)
            ),
            Bottleneck::Receive => format!(
                "taking blocks out of the socket and proving them, {}/s: larger frames of the \
                 network card (MTU) make it cheaper",
                rate(PartName::Receive)
            ),
            Bottleneck::Splice => format!(
                "feeding the reader through its pipe, {}/s: see what pipes get with `zferry \
                 doctor`, and leave a core to `zfs receive`",
                rate(PartName::Splice)
            ),
            Bottleneck::Cores => format!(
                "the {} cores: each part is faster by itself than the {whole}/s of all of them \
                 together. Here both ends run on this machine; between two hosts each has one",
                measured.cores
            ),
            Bottleneck::Window => format!(
                "the cache: {} are on their way at once, about what {} hold. Give both sides the \
                 --cache below, and measure again with it at both",
                on_its_way(measured).unwrap_or_default(),
                measured.cache
            ),
            Bottleneck::Network => {
                let far = measured.far.as_ref().map_or("the other host", |far| far.host.as_str());
                format!(
                    "the network, or {far}: {whole}/s come through, and this machine could send \
                     more. `zferry tune` there tells whether it is that machine; if not, \
                     --compress auto makes the most of the network"
                )
            }
        }
    }
}

/// What each part could carry of the stream, for the transfer that is advised.
fn on_this_machine(measured: &Measured) -> Vec<(Bottleneck, Bytes)> {
    let zstd = best(&measured.transfers).and_then(|best| best.choice.zstd);
    let ratio = measured.ratio(zstd);
    let packing = measured.levels.iter().find(|level| Some(level.level) == zstd);
    let part =
        |name, bottleneck, ratio| measured.part(name).map(|rate| (bottleneck, times(rate, ratio)));
    let sending = [
        part(PartName::Read, Bottleneck::Read, 1.0),
        packing.map(|level| (Bottleneck::Compress, level.bytes_per_second)),
        part(PartName::Send, Bottleneck::Send, ratio),
    ];
    let receiving = [
        part(PartName::Receive, Bottleneck::Receive, ratio),
        part(PartName::Splice, Bottleneck::Splice, 1.0),
    ];
    let here = if measured.far.is_some() { 0 } else { receiving.len() };
    sending.into_iter().chain(receiving.into_iter().take(here)).flatten().collect()
}

/// What all parts together could carry if they had nothing but the cores to share, each of them
/// one: a second of all cores, divided by what a byte costs.
fn shared(measured: &Measured) -> Bytes {
    let parts = on_this_machine(measured);
    // Fractions of a second in which a core moves one byte, as integers.
    let for_each: u128 = parts.iter().map(|part| SECOND / u128::from(part.1.0.max(1))).sum();
    let whole = measured.cores.max(1) as u128 * SECOND / for_each.max(1);
    Bytes(u64::try_from(whole).unwrap_or(u64::MAX))
}

fn window_is_full(measured: &Measured) -> bool {
    let slots =
        best(&measured.transfers).map_or(1, |best| 1 + u64::from(best.choice.zstd.is_some()));
    let window = measured.cache.0 / slots;
    on_its_way(measured)
        .is_some_and(|bytes| bytes.0.saturating_mul(100) >= window.saturating_mul(WINDOW_FULL))
}
