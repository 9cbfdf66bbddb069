//! What a client asks about datasets: what they hold, and that what they hold in part is given up.
//!
//! Each is judged when it is asked, and answered by another thread, which drives `zfs`. What must
//! never happen here: an answer about a dataset that the client may not know of.

use std::rc::Rc;

use sys::control;

use super::{News, Session};
use crate::protocol::message::RelativeName;
use crate::server::audit::Entry;
use crate::server::place::Place;
use crate::server::wished::Wished;
use crate::trust::grants::Wish;

impl Session {
    /// Looks a target up. One that is being received shows the state of that receive, which is
    /// nobody's to plan from: that is said at once, unless whoever sends to it is away.
    pub(super) async fn look_up(&mut self, name: &RelativeName) {
        let Some(wished) = self.listable(Entry::list(name), name).await else { return };
        let (shared, inbox) = (Rc::clone(&self.shared), self.news_inbox.clone());
        control::spawn(async move {
            let dataset = wished.dataset.clone();
            let found = shared.look_up(wished).await;
            // Nobody listens any more when the session is over.
            drop(inbox.send(News::Found(dataset, found)));
        });
    }

    /// Looks a target up with all below it. What is being received shows the state of that receive:
    /// it will be busy when a stream for it is to begin, and is in nobody's way until then. Who
    /// has the grant to list a dataset has it for all below, which lies in the same root.
    pub(super) async fn look_up_tree(&mut self, name: &RelativeName) {
        let Some(wished) = self.listable(Entry::list_tree(name), name).await else { return };
        let (shared, inbox) = (Rc::clone(&self.shared), self.news_inbox.clone());
        control::spawn(async move {
            let found = shared.look_up_tree(wished).await;
            // Nobody listens any more when the session is over.
            drop(inbox.send(News::FoundTree(found)));
        });
    }

    /// The dataset that may be listed; where it may not, the client is told.
    async fn listable(&mut self, entry: Entry, name: &RelativeName) -> Option<Wished> {
        self.note(entry);
        match self.destination.wished(name, Wish::List) {
            Ok(wished) => {
                self.note_dataset(&wished.dataset);
                Some(wished)
            }
            Err(failure) => {
                self.give_up(failure).await;
                None
            }
        }
    }

    /// Gives up a partial state, while nobody else can receive into its dataset.
    pub(super) async fn abort(&mut self, name: &RelativeName, token: String) {
        self.note(Entry::abort(name));
        let claimed = self.destination.wished(name, Wish::AbortPartial).and_then(|wished| {
            let place = Place::Dataset(wished.dataset.clone());
            let claim = self.shared.roster.claim(&place, self.who(), &self.presence)?;
            Ok((wished, claim))
        });
        match claimed {
            Ok((wished, claim)) => {
                self.note_dataset(&wished.dataset);
                self.claim = Some(claim);
                self.ask(move || News::Aborted(wished.abort(&token)));
            }
            Err(failure) => self.give_up(failure).await,
        }
    }
}
