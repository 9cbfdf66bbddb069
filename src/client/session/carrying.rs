//! What a session knows of the stream that it carries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breakpoint::record::Mark;
use crate::client::figures::Moment;
use crate::client::source::Source;
use crate::engine::fault::Fault;
use crate::engine::progress::Progress;
use crate::engine::sender::{Level, Sent};
use crate::engine::settings::Route;
use crate::error::{Failure, Side};
use crate::protocol::message::{Applied, Watermarks};
use crate::protocol::stall::Watchdog;
use crate::spool::keeping::{Keeping, Stream};

/// When the server cannot take more, the reason may be on its way on the control connection.
const REASON_LIMIT: Duration = Duration::from_secs(2);

/// One stream on its way.
pub(super) struct Carrying {
    pub progress: Arc<Progress>,
    /// The run of `zfs send` that the stream comes out of.
    pub epoch: u32,
    /// Where it is recorded how far it came.
    pub records: Option<Keeping>,
    /// The stream's breakpoint files, until it begins to flow.
    pub stream: Option<Stream>,
    /// All of the stream stands in them.
    pub kept: Option<Mark>,
    pub source: Option<Source>,
    pub sent: Option<Sent>,
    pub source_end: Option<SourceEnd>,
    pub fault: Option<(Failure, Instant)>,
    pub applied: Option<Applied>,
    pub reached: Watermarks,
    /// The control connection was lost because nothing was heard.
    pub lost_in_silence: bool,
    /// A connection was lost, and not all are back.
    pub cut: bool,
    pub watchdog: Watchdog,
    pub started: Instant,
    /// When whoever looks on was told last.
    pub told: Instant,
}

/// How a source has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceEnd {
    /// It has said all that it had to say.
    Well,
    /// What was read of it is not all there is, whoever is to blame.
    Badly,
}

impl Carrying {
    /// A stream of which nothing has come yet.
    pub fn new(stall_timeout: Duration) -> Carrying {
        let now = Instant::now();
        Carrying {
            progress: Arc::default(),
            epoch: 0,
            records: None,
            stream: None,
            kept: None,
            source: None,
            sent: None,
            source_end: None,
            fault: None,
            applied: None,
            reached: Watermarks::default(),
            lost_in_silence: false,
            cut: false,
            watchdog: Watchdog::new(stall_timeout, Duration::ZERO),
            started: now,
            told: now,
        }
    }

    /// How far it is, for whoever looks on.
    pub fn moment(&self, connections: u16, level: Option<Level>, route: Route) -> Moment {
        Moment {
            read: self.progress.read(),
            wire: self.progress.wire(),
            fed: self.reached.fed.bytes_before(),
            spooled: self.progress.spooled(),
            connections,
            level,
            route,
            stands_still: self.watchdog.blamed(),
        }
    }

    /// The failure to give up with at once; `None` where the server may be telling us a better
    /// reason at this moment.
    pub fn fault_is_final(&mut self, fault: &Fault) -> Option<Failure> {
        let failure = fault.failure(Side::Source);
        if failure.side != Side::Network {
            return Some(failure);
        }
        self.wait_for_reason(failure);
        None
    }

    /// Has the end of the stream recorded, if all of it is in breakpoint files and its source has
    /// ended well: whoever comes after this process can then send the rest.
    pub fn record_end(&self) {
        if let (Some(records), Some(end), Some(SourceEnd::Well)) =
            (&self.records, self.kept, self.source_end)
        {
            records.ended(end);
        }
    }

    /// Remembers a failure that most likely follows from another one.
    pub fn wait_for_reason(&mut self, failure: Failure) {
        self.fault.get_or_insert((failure, Instant::now() + REASON_LIMIT));
    }
}
