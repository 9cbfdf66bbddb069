//! The client's data connections: opened with the session, and opened again when they are lost.
//!
//! Each lane is tried anew by itself, with growing pauses until the transfer moves again. What was
//! on its way over a lost one, the engine sends again over whichever is there.

use std::os::fd::OwnedFd;
use std::time::Duration;

use sys::control;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::dial::Dial;
use super::reconnect::Attempts;
use crate::error::Failure;
use crate::protocol::secret::JoinSecret;

/// The lanes of one session.
pub(super) struct Lanes {
    opener: Opener,
    retry_for: Duration,
    states: Vec<State>,
    inbox: UnboundedSender<Reopened>,
    reopened: UnboundedReceiver<Reopened>,
}

/// What one lane needs to be opened.
#[derive(Clone)]
struct Opener {
    dial: Dial,
    secret: JoinSecret,
    congestion: Option<String>,
}

#[derive(Default)]
struct State {
    /// An attempt is under way.
    opening: bool,
    /// What is left of the patience with this lane.
    attempts: Option<Attempts>,
}

/// A lane that is there again, or that could not be had.
pub(super) struct Reopened {
    pub lane: u16,
    pub outcome: Result<OwnedFd, Failure>,
    attempts: Attempts,
}

impl Lanes {
    /// Opens all lanes of a session that was just agreed on.
    pub async fn open(
        dial: Dial,
        secret: JoinSecret,
        count: u16,
        congestion: Option<String>,
        retry_for: Duration,
    ) -> Result<(Lanes, Vec<Option<OwnedFd>>), Failure> {
        let opener = Opener { dial, secret, congestion };
        let mut connections = Vec::new();
        for lane in 0..count {
            connections.push(Some(opener.open(lane).await?));
        }
        let states = (0..count).map(|_| State::default()).collect();
        let (inbox, reopened) = unbounded_channel();
        Ok((Lanes { opener, retry_for, states, inbox, reopened }, connections))
    }

    /// Whether no patience was asked for.
    pub fn are_lost_for_good(&self) -> bool {
        self.retry_for.is_zero()
    }

    /// Begins to open a lane again, unless that is under way.
    pub fn reopen(&mut self, lane: u16) {
        let Some(state) = self.states.get_mut(usize::from(lane)) else { return };
        if std::mem::replace(&mut state.opening, true) {
            return;
        }
        let patience = self.retry_for;
        let attempts = state.attempts.get_or_insert_with(|| Attempts::begin(patience)).clone();
        let (opener, inbox) = (self.opener.clone(), self.inbox.clone());
        control::spawn(async move {
            if let Some(reopened) = opener.open_patiently(lane, attempts, &inbox).await {
                // Nobody waits any more when the session has ended.
                drop(inbox.send(reopened));
            }
        });
    }

    /// Waits for the next lane that was opened again; for ever where none is. Dropping the future
    /// loses nothing.
    pub async fn next(&mut self) -> Reopened {
        let Some(reopened) = self.reopened.recv().await else {
            // Not while we hold a sender ourselves.
            return std::future::pending().await;
        };
        if let Some(state) = self.states.get_mut(usize::from(reopened.lane)) {
            state.opening = false;
            state.attempts = Some(reopened.attempts.clone());
        }
        reopened
    }

    /// The transfer moves: whatever is lost from now on is lost for the first time.
    pub fn move_on(&mut self) {
        for state in self.states.iter_mut().filter(|state| !state.opening) {
            state.attempts = None;
        }
    }

    /// All lanes of the session.
    pub fn all(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.states.len()).unwrap_or(u16::MAX)
    }
}

impl Opener {
    async fn open(&self, lane: u16) -> Result<OwnedFd, Failure> {
        self.dial.lane(lane, self.secret, self.congestion.as_deref()).await
    }

    /// Tries until it works or patience runs out; `None` when nobody waits any more.
    async fn open_patiently(
        &self,
        lane: u16,
        mut attempts: Attempts,
        inbox: &UnboundedSender<Reopened>,
    ) -> Option<Reopened> {
        let mut last = None;
        while attempts.next().await {
            if inbox.is_closed() {
                return None;
            }
            match self.open(lane).await {
                Ok(fd) => return Some(Reopened { lane, outcome: Ok(fd), attempts }),
                Err(failure) => {
                    tracing::debug!(lane, attempt = attempts.made(), %failure, "open again");
                    last = Some(failure);
                }
            }
        }
        let failure = attempts.exhausted(last);
        Some(Reopened { lane, outcome: Err(failure), attempts })
    }
}
