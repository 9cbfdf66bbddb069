//! Keeps an engine to a limit that may change while it sends.

use std::time::Duration;

use sys::control;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::sender::Sender as Engine;
use crate::units::{Bytes, Rate};

/// The most that may be sent; `None` for no limit. May change at any time.
pub type Limit = watch::Receiver<Option<Rate>>;

/// A task that passes a limit on; dropped, it ends, and the limit stays as it is.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: Limit,
    task: JoinHandle<()>,
}

impl Limiter {
    /// Passes on what the limit is, and from now on whatever it comes to be.
    pub fn start(engine: &Engine, mut limit: Limit) -> Limiter {
        let pass_on = engine.limiter();
        let told = limit.clone();
        // At once: a task would run only after the first blocks.
        pass_on(*limit.borrow_and_update());
        let task = control::spawn(async move {
            // Until nobody is left who could change it.
            while limit.changed().await.is_ok() {
                pass_on(*limit.borrow_and_update());
            }
        });
        Limiter { limit: told, task }
    }

    /// How long a block is on the wire at least, over one of so many connections.
    pub fn block_takes(&self, block_bytes: Bytes, connections: u16) -> Duration {
        let share = self.limit.borrow().map(|rate| rate.shared_by(connections.into()));
        share.map_or(Duration::ZERO, |share| share.takes(block_bytes))
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.task.abort();
    }
}
