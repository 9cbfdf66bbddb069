//! The frame around every stage: a named thread whose end, however it comes, ends the engine, and
//! the port that it waits at.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use sys::arena::Arena;
use sys::backend::Backend;
use sys::port::Port;
use sys::wake::Waker;

use crate::engine::fault::Fault;
use crate::engine::halt::Halt;
use crate::engine::settings::Route;

/// Starts a stage. An error or a panic turns the halt on; the first reason goes to `report`.
pub(super) fn spawn<T: Send + 'static>(
    name: &'static str,
    halt: &Arc<Halt>,
    report: impl FnOnce(Fault) + Send + 'static,
    run: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> io::Result<JoinHandle<Option<T>>> {
    let halt = Arc::clone(halt);
    Builder::new().name(format!("zferry-{name}")).spawn(move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let fault = match ended {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(fault)) => fault,
            Err(_panic) => Fault::Panicked(name),
        };
        if halt.turn_on() {
            report(fault);
        }
        None
    })
}

/// What the stages at both ends of a route wait at.
pub(super) fn port(
    route: Route,
    backend: Backend,
    arena: &Arc<Arena>,
    waker: &Arc<Waker>,
    depth: u32,
) -> io::Result<Port> {
    match route {
        Route::Block => Port::new(backend, arena, waker, depth),
        Route::Splice => Ok(Port::for_bays(waker)),
    }
}

/// The core of a worker, or `None` where workers are not pinned.
pub(super) fn core_of(cores: &[usize], worker: usize) -> Option<usize> {
    cores.get(worker % cores.len().max(1)).copied()
}

/// Pins the calling thread; a core that went away is worth a word, not a failed backup.
pub(super) fn pin(core: Option<usize>) {
    if let Some(core) = core
        && let Err(error) = sys::cpu::pin_current_thread(core)
    {
        tracing::warn!(core, %error, "a worker is not pinned");
    }
}
