//! What takes a stream on this side.

use super::gate::Gate;
use super::kept::Kept;
use super::making::Announced;
use crate::engine::receiver::Sink;
use crate::process::Process;

/// All that one transfer needs on this side.
#[derive(Debug)]
pub(super) struct Prepared {
    pub taker: Taker,
    /// What is kept of it.
    pub kept: Option<Kept>,
    /// Datasets that it makes, counted until it is over.
    pub announced: Option<Announced>,
}

/// What takes a stream.
#[derive(Debug)]
pub(super) enum Taker {
    /// Takes whatever comes. Dropped as it is, it ends the process before it closes the sink, which
    /// would look like the end of an empty stream.
    Ready {
        /// What reads the sink, where that is a process of ours.
        process: Option<Process>,
        sink: Sink,
    },
    /// Looks at what comes, and is started by that.
    Gated(Gate),
}

impl Prepared {
    /// Without anything to look at first.
    pub fn ready(process: Option<Process>, sink: Sink) -> Prepared {
        Prepared { taker: Taker::Ready { process, sink }, kept: None, announced: None }
    }
}
