//! What a user sees of a copy, and how a user stops one.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::engine::sender::Level;
use crate::engine::settings::Route;
use crate::protocol::stall::Culprit;
use crate::server::Stopping;
use crate::units::Bytes;

/// How far a stream is at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Bytes that came out of the source.
    pub read: Bytes,
    /// Bytes that went out on the wire.
    pub wire: Bytes,
    /// Bytes that the target has taken.
    pub fed: Bytes,
    /// Bytes that went by way of breakpoint files, for the cache was full.
    pub spooled: Bytes,
    /// How many data connections it has.
    pub connections: u16,
    /// How far blocks are packed now, where that is found on the way.
    pub level: Option<Level>,
    /// How blocks go through this side.
    pub route: Route,
    /// The part of the way that stands still, once that is sure.
    pub stands_still: Option<Culprit>,
}

/// What became of a copy: one stream or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many streams.
    pub streams: u32,
    /// Bytes of the streams, uncompressed.
    pub bytes: Bytes,
    /// Bytes on the wire.
    pub wire: Bytes,
    /// Bytes of the streams that earlier runs had sent, and that were not sent again.
    pub kept: Bytes,
    /// Bytes of the streams that went by way of breakpoint files.
    pub spooled: Bytes,
    /// From the first opening to the last result.
    pub taken: Duration,
}

/// Somebody who looks on.
pub trait Watch {
    /// A stream begins: what it is, and how long it will be as far as anybody knows.
    fn begin(&mut self, what: &str, estimated: Option<Bytes>);
    /// It is so far now; called several times a second.
    fn moment(&mut self, moment: Moment);
    /// The target holds it.
    fn end(&mut self);
}

/// Says when the user does not want to go on.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Stopping>);

impl Stop {
    /// A stop that is pulled by sending anything but [`Stopping::No`].
    pub fn new(pulled: watch::Receiver<Stopping>) -> Stop {
        Stop(pulled)
    }

    /// Whether it was pulled.
    pub fn is_pulled(&self) -> bool {
        *self.0.borrow() > Stopping::No
    }

    /// Waits until it is pulled; for ever where nobody can.
    pub async fn pulled(&mut self) {
        if self.0.wait_for(|&pulled| pulled > Stopping::No).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Looks on for somebody else, and remembers when bytes last reached the target.
pub(super) struct Noting<'a> {
    watch: &'a mut dyn Watch,
    fed: Bytes,
    progress: Option<Instant>,
}

impl<'a> Noting<'a> {
    /// Tells `watch` all that it hears.
    pub fn new(watch: &'a mut dyn Watch) -> Noting<'a> {
        Noting { watch, fed: Bytes(0), progress: None }
    }

    /// When bytes last reached the target.
    pub fn progress(&self) -> Option<Instant> {
        self.progress
    }
}

impl Watch for Noting<'_> {
    fn begin(&mut self, what: &str, estimated: Option<Bytes>) {
        self.fed = Bytes(0);
        self.watch.begin(what, estimated);
    }

    fn moment(&mut self, moment: Moment) {
        if moment.fed > self.fed {
            self.fed = moment.fed;
            self.progress = Some(Instant::now());
        }
        self.watch.moment(moment);
    }

    fn end(&mut self) {
        self.watch.end();
    }
}

impl Summary {
    /// Adds a stream.
    pub fn add(&mut self, moment: Moment, bytes: Bytes) {
        self.streams += 1;
        self.bytes = Bytes(self.bytes.0 + bytes.0);
        self.wire = Bytes(self.wire.0 + moment.wire.0);
        self.spooled = Bytes(self.spooled.0 + moment.spooled.0);
    }
}
