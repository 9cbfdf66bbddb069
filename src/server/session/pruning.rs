//! A pruning that a client wishes, while nobody receives into the dataset.
//!
//! Whatever is in its way is told in a report: it ends no session, for the copies of that session
//! are of use all the same.

use super::{News, Session, Stopping, stopping};
use crate::error::Failure;
use crate::protocol::prune::{Prune, nobody_prunes};
use crate::protocol::receiver::Input;
use crate::retention::Report;
use crate::server::audit::Entry;
use crate::server::place::Place;
use crate::trust::grants::Wish;

impl Session {
    /// Has a dataset pruned on another thread, by what the client wants and the grant demands.
    pub(super) fn prune(&mut self, prune: Prune) {
        self.note(Entry::prune(&prune));
        if let Err(refused) = self.start_pruning(prune) {
            self.pruned(refused.into());
        }
    }

    fn start_pruning(&mut self, prune: Prune) -> Result<(), Failure> {
        let wished = self.destination.wished(&prune.dataset, Wish::Prune)?;
        // Where others than the operator reach the server, somebody must have granted it.
        if wished.leave.is_none() && self.shared.is_audited {
            return Err(nobody_prunes());
        }
        let place = Place::Dataset(wished.dataset.clone());
        self.claim = Some(self.shared.roster.claim(&place, self.who(), &self.presence)?);
        self.note_dataset(&wished.dataset);
        self.preparing = true;
        self.ask(move || News::Pruned(wished.prune(&prune).unwrap_or_else(Report::from)));
        Ok(())
    }

    /// It is done, or it is said why not.
    pub(super) fn pruned(&mut self, report: Report) {
        (self.claim, self.preparing) = (None, false);
        self.note_pruned(&report);
        self.write_entry(report.failure.as_ref());
        self.tell(Input::Pruned(report));
        if self.stopping > Stopping::No {
            // A client that has nothing more to send does not mind.
            self.tell(Input::Failed(stopping()));
        }
        // No client comes back for a report.
        self.closing |= self.presence.away.get();
    }
}
