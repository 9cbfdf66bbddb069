//! One transfer at the server: the process that takes it, and what is known of its end.

use std::time::Instant;

use super::roster::Claim;
use crate::process::{Ended as ProcessEnded, Stopper};
use crate::protocol::message::{Stream, Watermarks};
use crate::protocol::receiver::Ended;
use crate::units::{StreamOffset, TransferId};

/// A transfer between its opening and its result.
#[derive(Debug)]
pub(super) struct Transfer {
    pub id: TransferId,
    pub stream: Stream,
    pub started: Instant,
    /// Where the session's counters stood when it began.
    pub base: StreamOffset,
    /// What stops the process that takes the stream; `None` where that is no process of ours.
    pub stopper: Option<Stopper>,
    pub process: ProcessState,
    /// The client's word that the stream is complete.
    pub ended: Option<Ended>,
    /// The sink has taken all of it.
    pub fed: bool,
    /// Held for its drop.
    pub _claim: Option<Claim>,
}

/// What is known of the process that takes the stream.
#[derive(Debug)]
pub(super) enum ProcessState {
    /// It is none of ours.
    None,
    Running,
    Ended(ProcessEnded),
}

impl Transfer {
    /// Whether everything that must happen before the target is read back has happened.
    pub fn is_over(&self) -> bool {
        let process_ended = !matches!(self.process, ProcessState::Running);
        self.ended.is_some() && self.fed && process_ended
    }

    pub fn process_ended(&self) -> Option<&ProcessEnded> {
        match &self.process {
            ProcessState::Ended(ended) => Some(ended),
            ProcessState::None | ProcessState::Running => None,
        }
    }

    /// How far the transfer is, from the counters of its session.
    pub fn watermarks(&self, received: StreamOffset, fed: StreamOffset) -> Watermarks {
        let since = |mark: StreamOffset| StreamOffset(mark.0 - self.base.0);
        let (received, fed) = (since(received.max(fed)), since(fed));
        Watermarks { received, spooled: StreamOffset(0), fed }
    }
}
