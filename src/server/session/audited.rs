//! What a resident server writes, and has counted, of what its clients ask for.

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
        let Some(entry) = self.entry.take() else { return };
        let name = self.destination.client();
        let whose = Whose { client: &self.peer, name: name.as_deref(), key: self.key };
        let told = entry.ended(whose, failure);
        if let (Some(told), Some(onlooker)) = (told, &self.shared.options.onlooker) {
            onlooker.ended(&told);
        }
    }
}
