//! A client that went away, and came back or did not.
//!
//! A lost control connection says nothing about the transfer: `zfs receive` and what arrived stay
//! as they are for as long as the server's grace lasts. It ends earlier where another client wants
//! the dataset, for then whoever was there is most likely gone for good.

use std::time::{Duration, Instant};

use super::{Session, Stopping};
use crate::error::{Class, Failure, Side};
use crate::link::{Link, LinkError};
use crate::protocol::message::Message;
use crate::protocol::receiver::{Input, Receiver as Machine};
use crate::protocol::standing::Returned;
use crate::server::incoming;
use crate::server::roster::Returning;

/// How long a result waits for a client that has not heard it. A client whose connection is a black
/// hole to it, though not to us, finds out after `SILENCE_MAX`, 20 s, and its attempts to come back
/// are at most 10 s apart. One that has heard it says good-bye, until that is confirmed.
const RESULT_GRACE: Duration = Duration::from_secs(30);

/// How long a session in which nothing was asked for yet waits for a client that may have asked,
/// for the same reason.
const OPENING_GRACE: Duration = Duration::from_secs(30);

/// How long a server that stops waits for a client that loses its connection. One that is alive
/// comes back at once.
const STOPPING_GRACE: Duration = Duration::from_secs(5);

impl Session {
    /// The control connection is gone. A session with nothing under way and nothing left to say is
    /// over; before its first transfer the client may have asked for that, and will ask again.
    pub(super) async fn lose(&mut self, error: LinkError) {
        let grace = self.grace();
        if self.machine.is_none() || self.failure.is_some() {
            self.closing = true;
        } else if !self.is_idle() {
            self.wait_for_client(grace, &error);
        } else if self.applied && !self.line.is_heard() {
            self.wait_for_client(grace.min(RESULT_GRACE), &error);
        } else if !self.applied && self.lanes.are_expected() && error.is_loss() {
            self.wait_for_client(grace.min(OPENING_GRACE), &error);
        } else {
            if !matches!(error, LinkError::Closed) {
                self.give_up(error.failure(&self.peer)).await;
            }
            self.closing = true;
        }
    }

    /// How long the client may be away.
    fn grace(&self) -> Duration {
        let grace = self.shared.options.grace;
        if self.stopping > Stopping::No { grace.min(STOPPING_GRACE) } else { grace }
    }

    fn wait_for_client(&mut self, grace: Duration, error: &LinkError) {
        self.line.cut();
        let seconds = grace.as_secs();
        tracing::warn!(peer = self.peer, %error, seconds, "lost a client; waiting for it");
        self.presence.away.set(true);
        self.back_until = Some(Instant::now() + grace);
    }

    /// The client is here again, perhaps before its old connection was missed.
    pub(super) async fn take_back(&mut self, returning: Returning) {
        let Returning { link, client, peer } = returning;
        let stand = || self.machine.as_ref().and_then(Machine::standing);
        let back = match self.line.answer(client, stand) {
            Ok(Some(returned)) => self.go_on(link, returned).await,
            Ok(None) => {
                let what = "the session has nothing that another process could go on with";
                let failure = Failure::new(Side::Target, Class::Interrupted, what);
                return incoming::refuse(link, failure, &peer).await;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = back {
            return self.lose(error).await;
        }
        tracing::info!(peer, was = self.peer, "a client came back");
        self.peer = self.destination.name_of(peer);
        self.presence.away.set(false);
        self.back_until = None;
        self.acknowledge();
        self.tell(Input::Returned);
    }

    async fn go_on(&mut self, mut link: Link, returned: Returned) -> Result<(), LinkError> {
        link.send(&Message::Returned(returned)).await?;
        self.line.go_on(link).await
    }

    /// The client did not come back in time.
    pub(super) async fn stay_away(&mut self) {
        let what = format!("the client at {} went away and did not come back", self.peer);
        self.end_without_client(what).await;
    }

    /// Another client wants the dataset.
    pub(super) async fn make_room(&mut self) {
        if self.presence.away.get() {
            self.presence.superseded.set(true);
            let what = format!("the client at {} went away and another took over", self.peer);
            self.end_without_client(what).await;
        }
    }

    async fn end_without_client(&mut self, what: String) {
        self.back_until = None;
        if self.is_idle() {
            // Only its result was not heard.
            self.closing = true;
            return;
        }
        self.give_up(Failure::new(Side::Network, Class::Interrupted, what)).await;
        self.closing = true;
    }
}
