//! What a stream goes to, as those know it who must not use it twice at a time.

use std::fmt;

use crate::dataset::DatasetName;

/// What one transfer has for itself while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A dataset, by its full name.
    Dataset(DatasetName),
    /// What stands behind a pipe, in words.
    Pipe(String),
}

impl Place {
    /// Whether it is a dataset at or below `root`.
    pub fn is_within(&self, root: &DatasetName) -> bool {
        match self {
            Place::Dataset(dataset) => dataset.is_within(root),
            Place::Pipe(_) => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Dataset(dataset) => dataset.fmt(f),
            Place::Pipe(words) => f.write_str(words),
        }
    }
}
