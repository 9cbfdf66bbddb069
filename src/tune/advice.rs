//! What follows from the figures: the part that holds a stream up, and the flags that help.
//!
//! Decides and measures nothing. A flag is named only where what was measured is faster with it,
//! by more than noise is; what must never happen here: a command line that takes a part, or a
//! transfer, where a faster one was measured.

mod bottleneck;
#[cfg(test)]
mod tests;
mod trial;

use std::time::Duration;

use serde::Serialize;
use sys::arena::PAGE_BYTES;

pub use self::bottleneck::Bottleneck;
pub use self::trial::{Offer, next};
use super::measured::{Choice, Level, Measured, Outcome, PartName, Transfer, Workers, typed};
use crate::units::Bytes;

/// In percent of what is compared with: less than this more is noise.
const NOISE: u64 = 105;

/// The cache that there is unless somebody says otherwise.
pub const CACHE: Bytes = Bytes(128 << 20);

/// A sample that shrinks by less than this is not worth a worker's time.
const WORTH_PACKING: f64 = 1.1;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What holds a stream up.
    pub bottleneck: Bottleneck,
    /// The same in words, and what to do about it.
    pub says: String,
    /// Flags for `zferry send` and `zferry replicate`.
    pub send: Vec<String>,
    /// Flags for `zferry receive` and `zferry serve`.
    pub receive: Vec<String>,
    /// What else there is to know.
    pub remarks: Vec<String>,
}

/// Decides what to do. `spool` is the folder that was measured, if one was.
pub fn advise(measured: &Measured, spool: Option<&str>) -> Advice {
    let best = best(&measured.transfers).map_or_else(Choice::plain, |best| best.choice.clone());
    let bottleneck = Bottleneck::of(measured);
    let mut advice = Advice {
        says: bottleneck.says(measured),
        bottleneck,
        send: best.flags(),
        receive: Vec::new(),
        remarks: Vec::new(),
    };
    advice.pack(measured, &best);
    advice.make_room(measured, &best);
    if let Some(folder) = spool {
        advice.spool(measured, folder);
    }
    advice
}

impl Advice {
    fn send_with(&mut self, flag: &str, value: &str) {
        self.send.extend([flag.to_owned(), value.to_owned()]);
    }

    fn pack(&mut self, measured: &Measured, best: &Choice) {
        let shrinks = |level: &Level| level.ratio >= WORTH_PACKING;
        match best.zstd {
            Some(_) => {}
            // Over loopback nothing tells what a network would gain.
            None if measured.far.is_none() && measured.levels.iter().any(shrinks) => {
                self.send_with("--compress", "auto");
                self.remarks.push(
                    "the sample shrinks, and how fast the network is was not measured: \
                     --compress auto packs only where the network is what holds a stream up; \
                     `zferry tune HOST:PORT` finds a level"
                        .to_owned(),
                );
            }
            None => return,
        }
        if let Some(few) = enough_workers(&measured.workers)
            && few != measured.cores
        {
            self.send_with("--workers", &few.to_string());
        }
    }

    /// Room for two products of bandwidth and delay, at both ends.
    fn make_room(&mut self, measured: &Measured, best: &Choice) {
        let cache = cache(measured, best);
        if cache > CACHE {
            self.send_with("--cache", &typed(cache));
            self.receive.extend(["--cache".to_owned(), typed(cache)]);
        }
        let Some((far, product)) = measured.far.as_ref().zip(on_its_way(measured)) else { return };
        if let Some(most) = far.socket_bytes_max
            && 2 * product.0 / u64::from(best.connections.max(1)) > most.0
        {
            self.remarks.push(format!(
                "{product} are on the way at once, and this kernel gives a connection {most}: \
                 raise the last number of net.ipv4.tcp_wmem here and of net.ipv4.tcp_rmem there \
                 to {}, or use more connections",
                2 * product.0
            ));
        }
    }

    /// A spool is of use where the disk takes more than the network does.
    fn spool(&mut self, measured: &Measured, folder: &str) {
        let Some(disk) = measured.part(PartName::Spool) else { return };
        let network = best(&measured.transfers).filter(|_| measured.far.is_some());
        match network.and_then(Transfer::rate) {
            Some(network) if disk > network => {
                self.send_with("--spool", folder);
                self.remarks.push(format!(
                    "with --spool `zfs send` may run at {disk}/s, as fast as that disk, while the \
                     network takes {network}/s"
                ));
            }
            Some(network) => self.remarks.push(format!(
                "the disk of {folder} takes {disk}/s, no more than the network's {network}/s: a \
                 spool there would end no `zfs send` sooner"
            )),
            None => self.remarks.push(format!(
                "--spool {folder} takes {disk}/s: of use where the network is slower than that"
            )),
        }
    }
}

/// The transfer to make again. Of those that differ by no more than noise, the one that was tried
/// first: it has fewer flags.
pub fn best(transfers: &[Transfer]) -> Option<&Transfer> {
    transfers
        .iter()
        .filter(|transfer| transfer.rate().is_some())
        .reduce(|best, other| if is_faster(other.rate(), best.rate()) { other } else { best })
}

/// The choice that was the best until this came, if it is not any more.
pub fn beaten(transfers: &[Transfer], by: &Outcome) -> Option<Choice> {
    let best = best(transfers)?;
    is_faster(by.rate(), best.rate()).then(|| best.choice.clone())
}

fn is_faster(rate: Option<Bytes>, than: Option<Bytes>) -> bool {
    let (rate, than) = (rate.unwrap_or_default(), than.unwrap_or_default());
    rate.0.saturating_mul(100) > than.0.saturating_mul(NOISE)
}

/// The level that carries most over a wire of such a rate; `None` where none beats raw blocks. Of
/// those that differ by no more than noise, the fastest: it leaves the cores to others.
pub fn level_for(levels: &[Level], wire: Bytes) -> Option<Level> {
    let carried = |level: &Level| level.bytes_per_second.min(times(wire, level.ratio));
    let mut best = (None, wire);
    for &level in levels {
        if is_faster(Some(carried(&level)), Some(best.1)) {
            best = (Some(level), carried(&level));
        }
    }
    best.0
}

/// The fewest workers that pack as fast as more do.
fn enough_workers(measured: &[Workers]) -> Option<usize> {
    let fewest = measured.iter().reduce(|best, other| {
        let rates = (Some(other.bytes_per_second), Some(best.bytes_per_second));
        if is_faster(rates.0, rates.1) { other } else { best }
    });
    fewest.map(|fewest| fewest.workers)
}

/// The cache for a transfer: twice what is on its way at once, and room for its connections.
fn cache(measured: &Measured, choice: &Choice) -> Bytes {
    // A block that is packed has two slots, and as many bytes of the stream as one.
    let slots = if choice.zstd.is_some() { 2 } else { 1 };
    let window = on_its_way(measured).map_or(0, |bytes| bytes.0.saturating_mul(2 * slots));
    let least = room_for(choice);
    round_up(Bytes(window.max(least.0)))
}

/// The least cache that has room for a choice: what [`Settings::slots`] asks for.
///
/// [`Settings::slots`]: crate::engine::settings::Settings::slots
fn room_for(choice: &Choice) -> Bytes {
    let blocks = 2 * u64::from(choice.connections.max(1));
    let slots = blocks * if choice.zstd.is_some() { 2 } else { 1 };
    Bytes((choice.block_bytes.0 + PAGE_BYTES as u64).saturating_mul(slots))
}

/// The bytes of the stream that are between the ends at once: rate times delay.
fn on_its_way(measured: &Measured) -> Option<Bytes> {
    let far = measured.far.as_ref()?;
    best(&measured.transfers).and_then(Transfer::rate).map(|rate| product(rate, far.round_trip))
}

fn product(rate: Bytes, delay: Duration) -> Bytes {
    let bytes = u128::from(rate.0) * delay.as_micros() / 1_000_000;
    Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// To whole steps of 32 MiB: a cache is no exact science.
fn round_up(bytes: Bytes) -> Bytes {
    const STEP: u64 = 32 << 20;
    Bytes(bytes.0.div_ceil(STEP).saturating_mul(STEP))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn times(rate: Bytes, ratio: f64) -> Bytes {
    Bytes((rate.0 as f64 * ratio) as u64)
}
