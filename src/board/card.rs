//! What is kept of a job for those who look, beside what decides when it runs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::client::Layer;
use crate::units::Bytes;

/// One job, over all processes that ran it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// As the configuration has it.
    pub source: String,
    /// Likewise.
    pub target: String,
    /// When a scheduler first heard of it.
    pub first_seen: Option<Timestamp>,
    /// It is no job any more.
    pub gone: bool,
    /// What its runs came to.
    pub totals: Totals,
    /// Of the last run that failed, whatever came after it.
    pub last_failure: Option<LastFailure>,
    /// When the target last had all of which dataset.
    pub datasets: BTreeMap<String, Success>,
}

/// Sums over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Runs that have ended.
    pub runs: u64,
    /// Those of them that failed.
    pub failed_runs: u64,
    /// Streams that began.
    pub streams: u64,
    /// Bytes of streams, uncompressed, as they came out of the source.
    pub bytes: Bytes,
    /// Bytes on the wire.
    pub wire: Bytes,
    /// Attempts within runs that failed and were followed by another.
    pub retries: u64,
    /// Cuts that were survived, by what let the stream go on.
    pub resumes: Resumes,
}

/// How often streams went on after a cut, by layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resumes {
    /// By connections that were replaced.
    pub reconnect: u64,
    /// From breakpoint files.
    pub spool: u64,
    /// From ZFS's resume token.
    pub token: u64,
}

/// When the target had something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// When that was seen.
    pub at: Timestamp,
    /// The snapshot, without its dataset.
    pub snapshot: Option<String>,
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When it ended.
    pub at: Timestamp,
    /// What it said.
    pub what: String,
}

impl Card {
    /// It copies this from now on. Of another source nothing is known.
    pub(super) fn set_source(&mut self, source: String) {
        if self.source != source {
            self.datasets.clear();
            self.source = source;
        }
    }

    /// A run went well that has seen these at the target: all that there are. Others were
    /// destroyed, renamed or left out since, and would be missed for ever.
    pub(super) fn keep_only(&mut self, datasets: &BTreeSet<String>) {
        self.datasets.retain(|dataset, _| datasets.contains(dataset));
    }
}

impl Resumes {
    /// One more.
    pub fn count(&mut self, by: Layer) {
        match by {
            Layer::Reconnect => self.reconnect += 1,
            Layer::Spool => self.spool += 1,
            Layer::Token => self.token += 1,
        }
    }

    /// All cuts.
    pub fn sum(&self) -> u64 {
        self.reconnect + self.spool + self.token
    }
}
