//! The one dataset as the root of a tree, with others below it that nobody copies.

use zferry::dataset::{DatasetName, Guid, Kind};
use zferry::listing::{Snapshot, TargetDataset, TargetState, TargetTree};

/// How many snapshots fill a page: of 100 bytes each, with their numbers.
const PAGE_SNAPSHOTS: u64 = 600;

/// What is told of the whole tree, in about so many pages.
pub fn tree_of(root: DatasetName, target: TargetState, pages: u64) -> TargetTree {
    if target == TargetState::Absent {
        return TargetTree { root, datasets: Vec::new() };
    }
    let child = root.join("b").expect("a name");
    let snapshot = |number: u64| Snapshot {
        name: format!("{number:0>80}").parse().expect("a name"),
        guid: Guid(u64::MAX - number),
        createtxg: number,
    };
    let below = TargetState::Present {
        kind: Kind::Volume,
        encrypted: true,
        snapshots: (0..=(pages - 1) * PAGE_SNAPSHOTS).map(snapshot).collect(),
        resume_token: None,
    };
    let root = TargetDataset { dataset: root, state: target };
    let datasets = vec![root, TargetDataset { dataset: child, state: below }];
    TargetTree { root: datasets[0].dataset.clone(), datasets }
}
