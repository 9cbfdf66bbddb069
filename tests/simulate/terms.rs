//! What both ends agree on: limits, and how the one dataset that is copied is asked for.

use std::collections::BTreeMap;

use zferry::dataset::{Guid, Kind};
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{DatasetStream, Limits, RelativeName};
use zferry::protocol::negotiate::Agreed;
use zferry::protocol::version::Version;
use zferry::units::Bytes;

use crate::environment::Environment;

/// The largest block that is agreed to; those here are smaller.
pub const BLOCK_BYTES_MAX: Bytes = Bytes(1 << 12);

pub fn limits(env: &Environment) -> Limits {
    let (connections, codecs) = (env.settings.lanes, [Codec::Raw].into());
    Limits { block_bytes_max: BLOCK_BYTES_MAX, connections, codecs }
}

pub fn agreed(env: &Environment) -> Agreed {
    Agreed { version: Version::V1, limits: limits(env) }
}

pub fn target_name() -> RelativeName {
    "a".parse().expect("a name")
}

/// The stream of a snapshot: the first of its dataset, or the rest of one that was cut.
pub fn stream(to: Guid, resumed: bool) -> DatasetStream {
    DatasetStream {
        target: target_name(),
        dataset: Kind::Filesystem,
        snapshot: "daily".parse().expect("a name"),
        to,
        from: None,
        raw: false,
        first: !resumed,
        resumed,
        origin: None,
        properties: BTreeMap::new(),
    }
}
