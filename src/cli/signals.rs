//! Ctrl-C and SIGTERM as an orderly stop.

use std::io;

use sys::control;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::server::Stopping;

/// What ends a copy before its time.
#[derive(Clone, Debug)]
pub(super) enum Halt {
    /// Ctrl-C and SIGTERM.
    BySignal,
    /// Whoever has begun it.
    ByOthers(watch::Receiver<Stopping>),
}

impl Halt {
    /// To be called in a control runtime.
    pub fn listen(self) -> io::Result<watch::Receiver<Stopping>> {
        match self {
            Halt::BySignal => listen(Stopping::Now),
            Halt::ByOthers(stop) => Ok(stop),
        }
    }
}

/// Listens for signals: the first one asks for `first`, a second one for [`Stopping::Now`]. To be
/// called in a control runtime.
pub(super) fn listen(first: Stopping) -> io::Result<watch::Receiver<Stopping>> {
    let (tell, stopping) = watch::channel(Stopping::No);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    control::spawn(async move {
        for urgency in [first, Stopping::Now] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tell.send_replace(urgency);
        }
        // The sender lives on: a stop that nobody can pull any more is not a stop.
        std::future::pending::<()>().await;
    });
    Ok(stopping)
}
