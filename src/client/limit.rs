//! Keeps an engine to a limit that may change while it sends.

use std::num::NonZeroU16;
use std::time::Duration;

use sys::control;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::sender::Sender as Engine;
use crate::units::{Bytes, Rate};

/// The most that may be sent; `None` for no limit. May change at any time.
pub type Limit = watch::Receiver<Option<Rate>>;

/// The kernel sends a segment and then rests for as long as that takes at the limit: a block begins
/// after the rest for the one before. Within one host segments are this long, elsewhere shorter.
const SEGMENT_BYTES_MAX: u64 = 64 << 10;

/// A task that passes a limit on; dropped, it ends, and the limit stays as it is.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: Limit,
    sharers: NonZeroU16,
    task: JoinHandle<()>,
}

impl Limiter {
    /// Passes on the share of one of so many of what the limit is, and from now on of whatever it
    /// comes to be.
    pub fn start(engine: &Engine, mut limit: Limit, sharers: NonZeroU16) -> Limiter {
        let limiter = engine.limiter();
        let pass_on = move |limit: Option<Rate>| limiter(limit.map(|it| share(it, sharers)));
        let told = limit.clone();
        // At once: a task would run only after the first blocks.
        pass_on(*limit.borrow_and_update());
        let task = control::spawn(async move {
            // Until nobody is left who could change it.
            while limit.changed().await.is_ok() {
                pass_on(*limit.borrow_and_update());
            }
        });
        Limiter { limit: told, sharers, task }
    }

    /// How long a block is on the wire, over one of so many connections, if nothing is wrong.
    pub fn block_takes(&self, block_bytes: Bytes, connections: u16) -> Duration {
        let own = self.limit.borrow().map(|rate| share(rate, self.sharers));
        let share = own.map(|rate| rate.shared_by(connections.into()));
        let waits = Bytes(block_bytes.0.saturating_add(SEGMENT_BYTES_MAX));
        share.map_or(Duration::ZERO, |share| share.takes(waits))
    }
}

fn share(limit: Rate, sharers: NonZeroU16) -> Rate {
    limit.shared_by(usize::from(sharers.get()))
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.task.abort();
    }
}
