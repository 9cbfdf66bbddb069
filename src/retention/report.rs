//! What a pruning has done to one dataset, as both sides tell it.

use serde::{Deserialize, Serialize};

use super::Kept;
use crate::dataset::SnapName;
use crate::error::Failure;

/// What was destroyed, what stays, and what went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many were destroyed; in a dry run, how many would have been.
    pub count: u64,
    /// Their names, oldest first. What comes from another host may have the first of them only.
    pub destroyed: Vec<SnapName>,
    /// How many stay by decision, for each reason.
    pub kept: Kept,
    /// How many were to go and stay for now.
    #[serde(default)]
    pub staying: u64,
    /// Which; from another host perhaps the first of them only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stay: Vec<Stays>,
    /// Why nothing was done, or no more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A snapshot that was to go and stays for now: the next pruning may find that nothing is in its
/// way any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    /// Its name.
    pub snapshot: SnapName,
    /// What is in the way.
    pub why: String,
}

impl From<Failure> for Report {
    fn from(failure: Failure) -> Report {
        Report { failure: Some(failure), ..Report::default() }
    }
}
