//! One switch that ends all stages of an engine, and the reason that was given first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sys::wake::Waker;

/// Shared by the stages of one engine.
#[derive(Debug, Default)]
pub(super) struct Halt {
    on: AtomicBool,
    sleepers: Mutex<Vec<Arc<Waker>>>,
}

impl Halt {
    /// Has `waker` rung when the engine ends.
    pub fn wakes(&self, waker: &Arc<Waker>) {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(waker));
    }

    /// Ends the engine. `true`: this was the first reason, the one to tell.
    pub fn turn_on(&self) -> bool {
        let first = !self.on.swap(true, Ordering::SeqCst);
        for waker in self.sleepers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            waker.wake();
        }
        first
    }

    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }
}
