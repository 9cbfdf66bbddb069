//! `zferry::zfs` against the stand-in and against scripts; what real ZFS does is tried in ci/vm.

mod below_root;
mod commands;
mod destroy;
mod tree;

use zferry::dataset::{DatasetName, SnapName};
use zferry::zfs::Zfs;

use crate::support::stand_in::StandIn;

fn dataset(text: &str) -> DatasetName {
    text.parse().unwrap()
}

fn snap(text: &str) -> SnapName {
    text.parse().unwrap()
}

/// A host without a dataset, and its `zfs`.
fn host() -> (StandIn, Zfs) {
    let host = StandIn::new();
    let zfs = Zfs::at(host.program());
    (host, zfs)
}
