//! What came of a copy that was typed, for whoever tells it.

use super::events;
use crate::client::Summary;
use crate::dataset::SnapName;
use crate::error::Failure;

/// What a target holds now, and what that took.
pub(super) struct Copied {
    /// As messages call it, with its dataset and perhaps its host.
    pub holds: String,
    /// `None` for a tree whose datasets have none in common.
    pub snapshot: Option<SnapName>,
    pub summary: Summary,
    /// What was not copied of a tree, or not pruned, and why, where the rest was.
    pub missing: Option<Failure>,
}

impl Copied {
    /// The last of all events.
    pub fn tell_program(&self) {
        match &self.missing {
            None => events::done(Some((&self.holds, self.snapshot.as_ref())), &self.summary),
            Some(failure) => events::failed(failure),
        }
    }

    /// Whether all is as it was wished.
    pub fn all(&self) -> Result<(), &Failure> {
        self.missing.as_ref().map_or(Ok(()), Err)
    }
}
