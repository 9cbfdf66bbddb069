//! A dataset of a tree as it travels, or a part of one.
//!
//! Trees of a million snapshots are common, so a snapshot is three values in a row here, without
//! their names. A dataset is named below the root of the tree: what a peer says of it can lie
//! nowhere else.

use serde::{Deserialize, Serialize};

use super::relative::RelativeName;
use crate::dataset::Kind;
use crate::listing::Snapshot;

/// A dataset and its oldest snapshots, or the next snapshots of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The dataset; `None` where this goes on with the last one of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Node>,
    /// In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "rows")]
    pub snapshots: Vec<Snapshot>,
}

/// A dataset, but for its snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Below the root of the tree; `None` for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RelativeName>,
    /// Filesystem or volume.
    pub kind: Kind,
    /// Whether it is encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// ZFS's resume token, where an interrupted receive left its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<String>,
}

/// `[["daily-1",7,42],...]`: name, guid and transaction group.
mod rows {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::dataset::{Guid, SnapName};
    use crate::listing::Snapshot;

    pub fn serialize<S: Serializer>(rows: &[Snapshot], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(rows.iter().map(|row| (row.name.as_str(), row.guid, row.createtxg)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Snapshot>, D::Error> {
        let rows = Vec::<(SnapName, Guid, u64)>::deserialize(from)?;
        let snapshot = |(name, guid, createtxg)| Snapshot { name, guid, createtxg };
        Ok(rows.into_iter().map(snapshot).collect())
    }
}
