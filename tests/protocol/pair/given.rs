//! What the two ends of a pair are given: wishes, limits, and what the target holds.

use std::collections::BTreeMap;

use zferry::dataset::{Guid, Kind};
use zferry::listing::{Snapshot, TargetState};
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{DatasetStream, Limits, Request, Stream};
use zferry::protocol::prune::Prune;
use zferry::retention::Template;
use zferry::units::Bytes;

use super::GUID;

/// How many snapshots a server says that it has destroyed.
pub const PRUNED: u64 = GUID.0;

pub fn prune() -> Prune {
    Prune {
        dataset: "hosts/a".parse().unwrap(),
        keep: "last=1".parse().unwrap(),
        template: Template::default(),
        newest_common: GUID,
        dry_run: false,
    }
}

pub fn limits(connections: u16) -> Limits {
    let codecs = [Codec::Raw, Codec::Zstd].into_iter().collect();
    Limits { block_bytes_max: Bytes::MIB, connections, codecs }
}

pub fn request(dataset: bool) -> Request {
    let stream = DatasetStream {
        target: "hosts/a".parse().unwrap(),
        dataset: Kind::Filesystem,
        snapshot: "daily".parse().unwrap(),
        to: GUID,
        from: None,
        raw: false,
        first: true,
        resumed: false,
        origin: None,
        properties: BTreeMap::new(),
    };
    Request {
        stream: if dataset { Stream::Dataset(stream) } else { Stream::Pipe },
        epoch: 1,
        estimated_bytes: None,
        block_bytes: Bytes(1 << 16),
        codec: Codec::Zstd,
        interrupted_at: None,
    }
}

pub fn target(count: u64) -> TargetState {
    let snapshot = |number| Snapshot {
        name: format!("auto-{number}").parse().unwrap(),
        guid: Guid(number),
        createtxg: number,
    };
    let snapshots = (0..count).map(snapshot).collect();
    TargetState::Present { kind: Kind::Volume, encrypted: false, snapshots, resume_token: None }
}
