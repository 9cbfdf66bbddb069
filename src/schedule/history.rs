//! What is known of the runs of a job: kept on disk, for the next process.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dataset::SnapName;

/// The runs of one job so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When the last run began.
    pub began: Option<Timestamp>,
    /// When the first of the runs began that have tried in vain what was due then. A snapshot that
    /// was taken since is what is still to be copied.
    #[serde(default)]
    pub owed_since: Option<Timestamp>,
    /// It has not ended, or the process was gone before it did.
    #[serde(default)]
    pub unfinished: bool,
    /// It has failed, and is to be tried again before it is due anew.
    #[serde(default)]
    pub again: bool,
    /// When the last run ended that went well.
    pub succeeded: Option<Timestamp>,
    /// The snapshot that the target has since then.
    #[serde(default)]
    pub snapshot: Option<SnapName>,
    /// How many have failed since then.
    #[serde(default)]
    pub failures: u32,
    /// What the last of these said.
    #[serde(default)]
    pub failure: Option<String>,
}

impl History {
    /// Since when its last run is one that goes on where another was cut; `None`: it is the first.
    pub fn goes_on_since(&self) -> Option<Timestamp> {
        self.owed_since.filter(|&since| self.began.is_none_or(|began| since < began))
    }
}
