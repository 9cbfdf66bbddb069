//! One transfer at the server: the process that takes it, and what is known of its end.

use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Stopping;
use super::making::Announced;
use super::roster::Claim;
use super::target::Target;
use crate::engine::receiver::Receiver as Engine;
use crate::process::{Ended as ProcessEnded, Stopper};
use crate::protocol::message::{Stream, Watermarks};
use crate::protocol::receiver::Ended;
use crate::spool::keeping::Keeping;
use crate::spool::share::Account;
use crate::units::{StreamOffset, TransferId};

/// How long a `zfs receive` whose stream was cut may take to keep what it has: it waits for a
/// transaction group.
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// The same where the server shall stop at once: ZFS keeps what a killed receive has, too.
const HURRIED_SAVE_LIMIT: Duration = Duration::from_secs(2);

/// How long a command of the user's may take to obey SIGTERM.
const TERMINATE_LIMIT: Duration = Duration::from_secs(5);

/// How long a process that was killed may take to be gone: one in the kernel takes its time.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A transfer between its opening and its result.
#[derive(Debug)]
pub(super) struct Transfer {
    pub id: TransferId,
    pub stream: Stream,
    /// Where it goes.
    pub target: Target,
    pub started: Instant,
    /// Where the session's counters stood when it began.
    pub base: StreamOffset,
    /// What stops the process that takes the stream, as soon as that is started.
    pub stopper: Arc<OnceLock<Stopper>>,
    pub process: ProcessState,
    /// The client's word that the stream is complete.
    pub ended: Option<Ended>,
    /// The sink has taken all of it.
    pub fed: bool,
    /// Where it is recorded how far it came.
    pub records: Option<Keeping>,
    /// Held until its records are over, and with them its files.
    pub room: Option<Arc<Account>>,
    /// Held for its drop.
    pub _claim: Option<Claim>,
    /// Held for its drop.
    pub _announced: Option<Announced>,
}

/// What is known of the process that takes the stream.
#[derive(Debug)]
pub(super) enum ProcessState {
    /// It is none of ours.
    None,
    /// Its end is to come; where the stream is not let in yet, its start as well.
    Due,
    Ended(ProcessEnded),
}

impl Transfer {
    /// Whether everything that must happen before the target is read back has happened.
    pub fn is_over(&self) -> bool {
        let process_ended = !matches!(self.process, ProcessState::Due);
        self.ended.is_some() && self.fed && process_ended
    }

    pub fn process_ended(&self) -> Option<&ProcessEnded> {
        match &self.process {
            ProcessState::Ended(ended) => Some(ended),
            ProcessState::None | ProcessState::Due => None,
        }
    }

    /// Whether the process has been started, and is not known to have ended.
    pub fn is_running(&self) -> bool {
        matches!(self.process, ProcessState::Due) && self.stopper.get().is_some()
    }

    /// Ends it before its stream is whole; `process_ended` waits for the process, and `stop` tells
    /// how much time there is.
    ///
    /// A command of the user's is told to stop before its input ends, for it would take the end of
    /// the bytes for the end of the stream; a `zfs receive` knows better, and keeps what it has.
    pub async fn cut(
        self,
        engine: Option<Engine>,
        process_ended: impl Future<Output = ()>,
        stop: watch::Receiver<Stopping>,
    ) {
        let is_dataset = matches!(self.stream, Stream::Dataset(_));
        let mut process_ended = pin!(process_ended);
        if self.is_running() && !is_dataset {
            // That it has just ended by itself is as good.
            let _ = self.stopper.get().map(Stopper::terminate);
            let patience = tokio::time::sleep(TERMINATE_LIMIT);
            self.wait_or_kill(process_ended.as_mut(), patience).await;
        }
        if let Some(engine) = engine {
            // Joins its threads, and closes the pipe with what is left in it.
            let stopping = tokio::task::spawn_blocking(move || drop(engine.stop()));
            let _panicked = stopping.await;
        }
        // From here on nothing starts it any more.
        if self.is_running() && is_dataset {
            self.wait_or_kill(process_ended, time_to_save(stop)).await;
        }
    }

    async fn wait_or_kill(
        &self,
        mut ended: Pin<&mut impl Future<Output = ()>>,
        patience: impl Future<Output = ()>,
    ) {
        tokio::select! {
            () = ended.as_mut() => return,
            () = patience => {}
        }
        tracing::warn!(transfer = %self.id, "killed a process that did not end by itself");
        let _ = self.stopper.get().map(Stopper::kill);
        // A dataset is given to the next client only when nobody receives into it any more.
        let _still_there = tokio::time::timeout(KILL_LIMIT, ended).await;
    }

    /// How far the transfer is, from the counters of its session and what is durable of itself.
    pub fn watermarks(
        &self,
        received: StreamOffset,
        fed: StreamOffset,
        spooled: StreamOffset,
    ) -> Watermarks {
        let since = |mark: StreamOffset| StreamOffset(mark.0 - self.base.0);
        let (received, fed) = (since(received.max(fed)), since(fed));
        Watermarks { received: received.max(spooled), spooled, fed }
    }
}

/// Waits for as long as a `zfs receive` may take to keep what it has.
async fn time_to_save(mut stop: watch::Receiver<Stopping>) {
    let hurried = async {
        if stop.wait_for(|&stop| stop == Stopping::Now).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(HURRIED_SAVE_LIMIT).await;
    };
    let _ = tokio::time::timeout(SAVE_LIMIT, hurried).await;
}
