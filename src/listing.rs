//! What one side holds of a dataset: the facts that plans are made from.
//!
//! Read by `zfs`, sent by `protocol`, weighed by `plan`. Snapshots are told apart by guid alone;
//! a name may have been given twice.

use serde::{Deserialize, Serialize};

use crate::dataset::{DatasetName, Guid, Kind, SnapName};

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name behind the `@`.
    pub name: SnapName,
    /// Its identity on every pool.
    pub guid: Guid,
    /// The transaction group it was made in: its place in time on this pool, and only on this one.
    pub createtxg: u64,
}

/// A snapshot's memory of when it was, left after the data is gone: a base for incrementals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// Its name behind the `#`.
    pub name: SnapName,
    /// The guid of the snapshot it was made from.
    pub guid: Guid,
    /// The transaction group of that snapshot.
    pub createtxg: u64,
}

/// The dataset that is to be replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// Its full name.
    pub dataset: DatasetName,
    /// Filesystem or volume.
    pub kind: Kind,
    /// Whether it is encrypted, and so must be sent raw.
    pub encrypted: bool,
    /// All snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// All bookmarks, oldest first.
    pub bookmarks: Vec<Bookmark>,
    /// What it was cloned from, where it is to begin as a clone at the target too: only where the
    /// target holds that snapshot, and not in clear if this is encrypted. Otherwise a clone is sent
    /// as if it were none.
    pub origin: Option<OriginSnapshot>,
}

/// The snapshot that a clone was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginSnapshot {
    /// Whose it is: another dataset of the same pool.
    pub dataset: DatasetName,
    /// The snapshot.
    pub snapshot: Snapshot,
}

/// The dataset that is to receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TargetState {
    /// It does not exist: a full stream makes it.
    Absent,
    /// It exists, with whatever it holds.
    Present {
        /// Filesystem or volume.
        kind: Kind,
        /// Whether it is encrypted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        encrypted: bool,
        /// All snapshots, oldest first.
        snapshots: Vec<Snapshot>,
        /// ZFS's resume token, where an interrupted receive left its state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume_token: Option<String>,
    },
}

/// A dataset of a tree that is to be replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDataset {
    /// What it holds.
    pub state: SourceState,
    /// Its own identity: it keeps that when it is renamed, and another one of its name has another.
    pub guid: Guid,
    /// What it was cloned from, if it is a clone.
    pub origin: Option<Origin>,
    /// Its owner does not want it replicated (property `zferry:replicate`, inherited).
    pub excluded: bool,
}

/// What a clone was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The dataset.
    pub dataset: DatasetName,
    /// Its snapshot.
    pub snapshot: SnapName,
}

/// A dataset of a tree that is to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDataset {
    /// Its full name.
    pub dataset: DatasetName,
    /// What it holds; it exists.
    pub state: TargetState,
}

/// A dataset that is to receive, and all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTree {
    /// Its full name.
    pub root: DatasetName,
    /// It and those below it, parents first; none where it does not exist.
    pub datasets: Vec<TargetDataset>,
}
