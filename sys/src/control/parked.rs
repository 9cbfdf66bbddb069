//! One operation at a time, which outlives the future that waits for it.
//!
//! Between a socket and its caller. A future may be dropped at any await (`select!`, `timeout`);
//! what it waited for goes on in a task, and the next call finds it here. So no byte and no
//! connection is lost, and the two backends behave alike. Two futures must never wait for the
//! same slot: the second is refused.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::{JoinError, JoinHandle};

/// The place of one operation.
pub(super) struct Parked<T> {
    slot: RefCell<Slot<T>>,
}

enum Slot<T> {
    /// No operation is in flight.
    Idle,
    /// A living future waits for the operation.
    Awaited,
    /// The operation goes on; the future that waited for it was dropped.
    Left(JoinHandle<T>),
}

impl<T: 'static> Parked<T> {
    pub(super) fn new() -> Parked<T> {
        Parked { slot: RefCell::new(Slot::Idle) }
    }

    /// Whether an operation goes on that nobody waits for.
    pub(super) fn is_left(&self) -> bool {
        matches!(*self.slot.borrow(), Slot::Left(_))
    }

    /// Waits for the operation that was left here, or else for `fresh`.
    pub(super) async fn resume_or<F>(&self, fresh: impl FnOnce() -> F) -> io::Result<T>
    where
        F: Future<Output = T> + 'static,
    {
        let task = self.take()?.unwrap_or_else(|| super::spawn(fresh()));
        self.turn(task).await
    }

    /// Waits for the operation that was left here, if there is one.
    pub(super) async fn resume(&self) -> io::Result<Option<T>> {
        match self.take()? {
            Some(task) => self.turn(task).await.map(Some),
            None => Ok(None),
        }
    }

    fn take(&self) -> io::Result<Option<JoinHandle<T>>> {
        let mut slot = self.slot.borrow_mut();
        match std::mem::replace(&mut *slot, Slot::Idle) {
            Slot::Idle => Ok(None),
            Slot::Left(task) => Ok(Some(task)),
            Slot::Awaited => {
                *slot = Slot::Awaited;
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "already in use by another task"))
            }
        }
    }

    fn turn(&self, task: JoinHandle<T>) -> Turn<'_, T> {
        self.slot.replace(Slot::Awaited);
        Turn { slot: &self.slot, task: Some(task) }
    }
}

/// Waits for a task; dropped early, it leaves the task in the slot.
struct Turn<'a, T> {
    slot: &'a RefCell<Slot<T>>,
    task: Option<JoinHandle<T>>,
}

impl<T> Future for Turn<'_, T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let task = self.task.as_mut().expect("a turn is not polled after its end");
        let joined = ready!(Pin::new(task).poll(context));
        self.task = None;
        Poll::Ready(joined.map_err(ended))
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.slot.replace(self.task.take().map_or(Slot::Idle, Slot::Left));
    }
}

/// Runs `future` as a task and waits for it; dropped early, it goes on by itself.
pub(super) async fn detached<T: 'static>(
    future: impl Future<Output = io::Result<T>> + 'static,
) -> io::Result<T> {
    super::spawn(future).await.map_err(ended)?
}

/// A task that did not end by itself: its runtime is gone, or it panicked and so do we.
fn ended(error: JoinError) -> io::Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => io::Error::other("the control runtime has ended"),
    }
}
