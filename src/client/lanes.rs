//! The client's data connections: opened with the session, and opened again when they are lost.
//!
//! Each lane is tried anew by itself, with growing pauses until the transfer moves again. What was
//! on its way over a lost one, the engine sends again over whichever is there.

use std::time::Duration;

use sys::cipher::Conduit;
use sys::control;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::dial::Dial;
use super::reconnect::Patience;
use crate::error::Failure;
use crate::protocol::secret::JoinSecret;

/// The lanes of one session.
pub(super) struct Lanes {
    opener: Opener,
    retry_for: Duration,
    /// One for each lane that there may be.
    states: Vec<State>,
    /// How many of them are to have connections.
    used: u16,
    /// The last of those, if it never had one: the transfer does well without.
    on_trial: Option<u16>,
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
    /// It has no connection, and nobody tries to open one yet.
    missing: bool,
    /// An attempt is under way.
    opening: bool,
    /// What is left of the patience with this lane.
    patience: Option<Patience>,
    /// The transfer moved while the attempt was under way.
    moved: bool,
}

/// A lane that is there again, or that could not be had.
pub(super) struct Reopened {
    pub lane: u16,
    pub outcome: Result<Conduit, Failure>,
    patience: Patience,
}

impl Lanes {
    /// Opens the first `used` of so many lanes of a session that was agreed on. Returns a place for
    /// each.
    pub async fn open(
        dial: Dial,
        secret: JoinSecret,
        (used, count): (u16, u16),
        congestion: Option<String>,
        retry_for: Duration,
    ) -> Result<(Lanes, Vec<Option<Conduit>>), Failure> {
        let opener = Opener { dial, secret, congestion };
        let mut connections = Vec::new();
        for lane in 0..used {
            connections.push(Some(opener.open(lane).await?));
        }
        connections.resize_with(usize::from(count.max(used)), || None);
        let states = (0..count.max(used)).map(|_| State::default()).collect();
        let (inbox, reopened) = unbounded_channel();
        Ok((
            Lanes { opener, retry_for, states, used, on_trial: None, inbox, reopened },
            connections,
        ))
    }

    /// Begins to open another lane, if there may be one. One that cannot be had is no failure.
    pub fn widen(&mut self) {
        if let (None, Some(state)) = (self.on_trial, self.states.get_mut(usize::from(self.used))) {
            state.missing = true;
            self.on_trial = Some(self.used);
            self.used += 1;
            tracing::debug!(connections = self.used, "trying another data connection");
            self.reopen();
        }
    }

    /// Whether a lane that was to come on top has not got its connection yet.
    pub fn is_widening(&self) -> bool {
        self.on_trial.is_some()
    }

    /// Whether no patience was asked for.
    pub fn are_lost_for_good(&self) -> bool {
        self.retry_for.is_zero()
    }

    /// A lane has no connection any more.
    pub fn lose(&mut self, lane: u32) {
        if let Some(state) = usize::try_from(lane).ok().and_then(|lane| self.states.get_mut(lane)) {
            state.missing = true;
        }
    }

    /// Begins to open again what was lost, but for lanes where that is under way.
    pub fn reopen(&mut self) {
        for lane in self.all() {
            if std::mem::take(&mut self.states[usize::from(lane)].missing) {
                self.reopen_one(lane);
            }
        }
    }

    fn reopen_one(&mut self, lane: u16) {
        let Some(state) = self.states.get_mut(usize::from(lane)) else { return };
        if std::mem::replace(&mut state.opening, true) {
            return;
        }
        let retry_for = self.retry_for;
        let patience = state.patience.get_or_insert_with(|| Patience::begin(retry_for)).clone();
        let (opener, inbox) = (self.opener.clone(), self.inbox.clone());
        control::spawn(async move {
            if let Some(reopened) = opener.open_patiently(lane, patience, &inbox).await {
                // Nobody waits any more when the session has ended.
                drop(inbox.send(reopened));
            }
        });
    }

    /// Waits for the next lane that was opened again; for ever where none is. Dropping the future
    /// loses nothing.
    pub async fn next(&mut self) -> Reopened {
        loop {
            let Some(reopened) = self.reopened.recv().await else {
                // Not while we hold a sender ourselves.
                return std::future::pending().await;
            };
            let Some(state) = self.states.get_mut(usize::from(reopened.lane)) else { continue };
            state.opening = false;
            let moved = std::mem::take(&mut state.moved);
            state.patience = (!moved).then(|| reopened.patience.clone());
            let was_on_trial = self.on_trial.take_if(|&mut lane| lane == reopened.lane).is_some();
            if !was_on_trial || reopened.outcome.is_ok() {
                return reopened;
            }
            self.used -= 1;
        }
    }

    /// The transfer moves: whatever is lost from now on is lost for the first time.
    pub fn move_on(&mut self) {
        for state in &mut self.states {
            state.moved = state.opening;
            state.patience = None;
        }
    }

    /// Whether each lane that is to have a connection has one, as far as is known.
    pub fn are_whole(&self) -> bool {
        !self.states.iter().any(|state| state.missing || state.opening)
    }

    /// All lanes of the session that are to have connections.
    pub fn all(&self) -> impl Iterator<Item = u16> + use<> {
        0..self.used
    }

    /// How many those are.
    pub fn used(&self) -> u16 {
        self.used
    }
}

impl Opener {
    async fn open(&self, lane: u16) -> Result<Conduit, Failure> {
        self.dial.lane(lane, self.secret, self.congestion.as_deref()).await
    }

    /// Tries until it works or patience runs out; `None` when nobody waits any more.
    async fn open_patiently(
        &self,
        lane: u16,
        mut patience: Patience,
        inbox: &UnboundedSender<Reopened>,
    ) -> Option<Reopened> {
        let mut last = None;
        while patience.next().await {
            if inbox.is_closed() {
                return None;
            }
            match self.open(lane).await {
                Ok(connection) => {
                    return Some(Reopened { lane, outcome: Ok(connection), patience });
                }
                Err(failure) => {
                    tracing::debug!(lane, attempt = patience.made(), %failure, "open again");
                    last = Some(failure);
                }
            }
        }
        let failure = patience.exhausted(last);
        Some(Reopened { lane, outcome: Err(failure), patience })
    }
}
