//! The lines that a resident server writes of what its clients ask for.

use super::Session;
use crate::dataset::DatasetName;
use crate::error::Failure;
use crate::retention::Report;
use crate::server::audit::{Entry, Whose};
use crate::units::Bytes;

impl Session {
    /// The client has asked for something, and how that ends is to be written.
    pub(super) fn note(&mut self, entry: Entry) {
        if self.shared.is_audited {
            self.entry = Some(entry);
        }
    }

    /// The full name of what it asked about.
    pub(super) fn note_dataset(&mut self, dataset: &DatasetName) {
        if let Some(entry) = &mut self.entry {
            entry.is_about(dataset.to_string());
        }
    }

    /// So much of its stream was taken.
    pub(super) fn note_taken(&mut self, bytes: Bytes) {
        if let Some(entry) = &mut self.entry {
            entry.has_taken(bytes);
        }
    }

    /// So many of its snapshots were destroyed.
    pub(super) fn note_pruned(&mut self, report: &Report) {
        if let Some(entry) = &mut self.entry {
            entry.has_pruned(report);
        }
    }

    /// How it ended.
    pub(super) fn write_entry(&mut self, failure: Option<&Failure>) {
        if let Some(entry) = self.entry.take() {
            entry.ended(Whose { client: &self.peer, key: self.key }, failure);
        }
    }
}
