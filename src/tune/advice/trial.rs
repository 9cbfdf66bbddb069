//! Which transfer is worth trying next: from the best so far, one flag at a time.
//!
//! What helped is kept while the next flag is tried, so that the command line that is advised was
//! measured as it stands. Ends after a dozen transfers at most, whatever comes of them.

use super::{best, level_for, room_for};
use crate::tune::measured::{Choice, Measured};
use crate::units::Bytes;

/// What there is to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Whether the number of connections is left alone: over loopback it says nothing of a network.
    pub one_connection: bool,
    /// Congestion controls that may be asked for, without the machine's own.
    pub congestion: Vec<String>,
    /// Sizes of blocks.
    pub block_bytes: Vec<Bytes>,
}

/// The most connections that are tried; `--connections auto` goes no further either.
const CONNECTIONS_MAX: u16 = 16;

/// By how much their number grows.
const CONNECTIONS_STEP: u16 = 4;

/// The next transfer to try; `None` when there is nothing left that may be faster.
pub fn next(measured: &Measured, offer: &Offer) -> Option<Choice> {
    let transfers = &measured.transfers;
    if transfers.is_empty() {
        return Some(Choice::plain());
    }
    let best = best(transfers)?;
    let was_tried = |is_so: &dyn Fn(&Choice) -> bool| transfers.iter().any(|t| is_so(&t.choice));
    let choice = &best.choice;

    let more = choice.connections.saturating_mul(CONNECTIONS_STEP);
    let may_grow = !offer.one_connection && more <= CONNECTIONS_MAX;
    let connections = (may_grow && !was_tried(&|tried| tried.connections >= more))
        .then(|| Choice { connections: more, ..choice.clone() });

    let congestion = offer.congestion.iter().map(Some);
    let congestion = congestion
        .filter(|&name| !was_tried(&|tried| tried.congestion.as_ref() == name))
        .map(|name| Choice { congestion: name.cloned(), ..choice.clone() });

    let sizes = offer.block_bytes.iter().copied();
    let sizes = sizes
        .filter(|&size| !was_tried(&|tried| tried.block_bytes == size))
        .map(|block_bytes| Choice { block_bytes, ..choice.clone() });

    // Over loopback no wire is slow enough to be helped.
    let wire = best.wire().filter(|_| measured.far.is_some() && choice.zstd.is_none());
    let packed = wire
        .filter(|_| !was_tried(&|tried| tried.zstd.is_some()))
        .and_then(|wire| level_for(&measured.levels, wire))
        .map(|level| Choice { zstd: Some(level.level), ..choice.clone() });

    let mut all = connections.into_iter().chain(congestion).chain(sizes).chain(packed);
    all.find(|choice| room_for(choice) <= measured.cache)
}
