//! What the server holds, and how much of it is on its way.

use zferry::dataset::DatasetName;
use zferry::listing::{TargetDataset, TargetState, TargetTree};

use super::Pair;

/// A tree of which every dataset holds the same. With hundreds of snapshots it takes two pages, and
/// a dataset goes on in the second.
pub fn tree(target: &TargetState) -> TargetTree {
    let root: DatasetName = "backup/a".parse().unwrap();
    let below = (0..10).map(|number| root.join(&number.to_string()).unwrap());
    let datasets = [root.clone()].into_iter().chain(below);
    let datasets = datasets.map(|dataset| TargetDataset { dataset, state: target.clone() });
    TargetTree { datasets: datasets.collect(), root }
}

impl Pair {
    /// How much is on its way to the client.
    pub fn bytes_to_client(&self) -> usize {
        self.to_client.bytes.len()
    }
}
