//! The control plane's runtime: listening, control connections, timers and signals.
//!
//! A seam of two backends, tokio-uring and plain tokio, so that one module is rewritten if either
//! has to go. Low rate by design: no stream data passes here, it leaves by [`Stream::into_fd`].
//! Four facts of tokio-uring 0.5 shape what stands below, and none may leak above:
//!
//! - Its operations are not cancelled with their futures: a dropped `read` still takes bytes, a
//!   dropped `accept` still takes a connection and loses it. Here every operation is a task of its
//!   own (`parked`), and the next call of the same kind takes up what an earlier one left.
//! - Its operations panic when dropped after their runtime. A task is owned by the runtime.
//! - It hangs under `DEFER_TASKRUN`, and `start` unwraps: neither is used.
//! - Its `bind` sets `SO_REUSEPORT`, so that two servers share one port in silence: we bind.

use std::cell::Cell;
use std::future::Future;
use std::io;

use io_uring::IoUring;
use tokio::task::{JoinHandle, LocalSet};

use crate::backend::{Backend, TRIAL_ENTRIES};

mod listener;
mod parked;
mod stream;
mod transport;

pub use listener::Listener;
pub use stream::Stream;

/// Entries of the control plane's ring: far more operations than connections ever have in flight.
const RING_ENTRIES: u32 = 256;

thread_local! {
    /// The backend of the runtime that is running on this thread.
    static RUNNING: Cell<Option<Backend>> = const { Cell::new(None) };
}

/// Runs futures on the thread that made it; tokio's time and signals work inside.
pub struct Runtime {
    engine: Engine,
}

/// The tasks of the second are declared before its reactor: they are dropped first.
enum Engine {
    Uring(tokio_uring::Runtime),
    Threads { tasks: LocalSet, reactor: tokio::runtime::Runtime },
}

impl Runtime {
    /// Makes the runtime; [`crate::backend::Choice::resolve`] says which backend works.
    pub fn new(backend: Backend) -> io::Result<Runtime> {
        let engine = match backend {
            Backend::Uring => Engine::Uring(uring_runtime()?),
            Backend::Threads => {
                let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Engine::Threads { tasks: LocalSet::new(), reactor }
            }
        };
        Ok(Runtime { engine })
    }

    /// Which backend runs.
    pub fn backend(&self) -> Backend {
        match self.engine {
            Engine::Uring(_) => Backend::Uring,
            Engine::Threads { .. } => Backend::Threads,
        }
    }

    /// Runs `future` to its end, and spawned tasks meanwhile; those rest when it returns.
    ///
    /// # Panics
    ///
    /// When a runtime already runs on this thread.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _running = Running::enter(self.backend());
        match &self.engine {
            Engine::Uring(runtime) => runtime.block_on(future),
            Engine::Threads { tasks, reactor } => tasks.block_on(reactor, future),
        }
    }
}

/// Starts a task on this thread's runtime; it is dropped with the runtime at the latest.
///
/// # Panics
///
/// Outside [`Runtime::block_on`].
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future)
}

/// The backend that runs on this thread, or an error that says that none does.
fn running() -> io::Result<Backend> {
    RUNNING.get().ok_or_else(|| io::Error::other("no control runtime runs on this thread"))
}

/// While it lives, `RUNNING` names the backend.
struct Running;

impl Running {
    fn enter(backend: Backend) -> Running {
        assert!(RUNNING.get().is_none(), "a control runtime already runs on this thread");
        RUNNING.set(Some(backend));
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(None);
    }
}

/// tokio-uring's runtime, with the cheaper ring flags where the kernel has them (6.0).
///
/// The flags are tried on a ring of our own first: a runtime that fails half made leaks its
/// reactor.
fn uring_runtime() -> io::Result<tokio_uring::Runtime> {
    let mut trial = <IoUring>::builder();
    trial.setup_coop_taskrun().setup_single_issuer();
    let mut flags = tokio_uring::uring_builder();
    if trial.build(TRIAL_ENTRIES).is_ok() {
        flags.setup_coop_taskrun().setup_single_issuer();
    } else {
        IoUring::new(TRIAL_ENTRIES)?;
    }
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&flags);
    tokio_uring::Runtime::new(&builder)
}
