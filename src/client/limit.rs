//! Keeps an engine to a limit that may change while it sends.

use sys::control;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::sender::Sender as Engine;
use crate::units::Rate;

/// The most that may be sent; `None` for no limit. May change at any time.
pub type Limit = watch::Receiver<Option<Rate>>;

/// A task that passes a limit on; dropped, it ends, and the limit stays as it is.
#[derive(Debug)]
pub(super) struct Limiter {
    task: JoinHandle<()>,
}

impl Limiter {
    /// Passes on what the limit is, and from now on whatever it comes to be.
    pub fn start(engine: &Engine, mut limit: Limit) -> Limiter {
        let pass_on = engine.limiter();
        // At once: a task would run only after the first blocks.
        pass_on(*limit.borrow_and_update());
        let task = control::spawn(async move {
            // Until nobody is left who could change it.
            while limit.changed().await.is_ok() {
                pass_on(*limit.borrow_and_update());
            }
        });
        Limiter { task }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.task.abort();
    }
}
