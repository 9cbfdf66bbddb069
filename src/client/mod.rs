//! The side beside the local pool: runs for one copy, speaks to a server, and tells the outcome.

pub mod around;
mod called;
mod carrier;
mod conversation;
mod copying;
mod dial;
mod figures;
mod hold;
pub mod job;
mod lanes;
mod left;
mod limit;
pub mod orphans;
pub mod prune;
mod reconnect;
pub mod rehearse;
pub mod replicate;
pub mod retry;
pub mod send;
mod session;
mod source;
pub mod ssh;
mod stripes;
mod tree;
mod watch;

pub use self::called::Called;
pub use self::dial::{Dial, Manner, Origin};
pub use self::figures::{Moment, Summary};
pub use self::limit::Limit;
pub use self::session::Session;
pub use self::stripes::Connections;
pub use self::tree::{TreeJob, TreeOutcome, replicate_tree};
pub use self::watch::{Held, Layer, Planned, Stop, TreeWatch, Watch, Without, Would};

use std::num::NonZeroU16;
use std::time::Duration;

use crate::engine::settings::Settings;
use crate::spool::transfers::Transfers;

/// How a client runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// What its engine is built of.
    pub engine: Settings,
    /// How many data connections it asks for.
    pub connections: Connections,
    /// Their congestion control; `None` for the machine's own, and within one host for one that
    /// does not pace.
    pub congestion: Option<String>,
    /// The most that its data connections send together.
    pub limit: Limit,
    /// Among how many sessions that is shared.
    pub sharers: NonZeroU16,
    /// How long it tries to get a lost connection back.
    pub retry_for: Duration,
    /// How long a stream may stand still before it says why.
    pub stall_timeout: Duration,
    /// Where it keeps records of its transfers; `None` for nowhere.
    pub records: Option<Transfers>,
}

impl Options {
    /// Those of one of several clients that share what there is to one.
    fn one_of(&self, sharers: NonZeroU16, number: u16) -> Options {
        let engine = self.engine.one_of(sharers, number);
        Options { engine, sharers, ..self.clone() }
    }
}
