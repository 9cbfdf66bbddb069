//! Tells of a whole tree, page by page, as far as the client lets it.
//!
//! All that is told was read at once, and is kept here until its turn. What must never happen here:
//! pages that the client did not let come, for they are remembered until it has confirmed them.

use super::{Output, Session, State};
use crate::protocol::misbehaved::PeerMisbehaved;
use crate::protocol::tree::{PAGES_AHEAD_MAX, Pages};

/// A tree that is being told.
#[derive(Debug)]
pub(super) struct Telling {
    pages: Pages,
    told: u32,
    /// How many the client lets come.
    room: u32,
}

impl Telling {
    /// Nothing was told.
    pub(super) fn of(pages: Pages, room: u32) -> Telling {
        Telling { pages, told: 0, room }
    }

    /// The client lets so many pages come, with those that did.
    pub(super) fn let_on(self, pages: u32) -> Result<Telling, PeerMisbehaved> {
        check_ahead(pages, self.told)?;
        Ok(Telling { room: self.room.max(pages), ..self })
    }

    /// Tells all that may be told.
    pub(super) fn tell(mut self, session: Session, output: &mut Vec<Output>) -> State {
        while self.told < self.room && !self.pages.are_over() {
            output.push(Output::Send(self.pages.tell()));
            self.told += 1;
        }
        if self.pages.are_over() { State::Idle(session) } else { State::Telling(session, self) }
    }
}

/// Whether a client wants no more than this end will remember.
pub(super) fn check_ahead(wanted: u32, told: u32) -> Result<(), PeerMisbehaved> {
    let most = told.saturating_add(PAGES_AHEAD_MAX);
    if wanted <= most { Ok(()) } else { Err(PeerMisbehaved::TreeAhead { wanted, told }) }
}
