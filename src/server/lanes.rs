//! The data connections of one session: where they wait until there is an engine to carry them.

use std::sync::Arc;

use sys::cipher::Conduit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::portion::SessionBrake;
use super::roster::{Arrival, Lane, Roster};
use crate::engine::receiver::Receiver as Engine;
use crate::protocol::secret::JoinSecret;
use crate::trust::Fingerprint;

/// Places for data connections, by lane, and the door through which all connections come.
#[derive(Debug)]
pub(super) struct Lanes {
    places: Vec<Option<Conduit>>,
    inbox: UnboundedSender<Arrival>,
    arrivals: UnboundedReceiver<Arrival>,
    brake: Arc<SessionBrake>,
}

impl Lanes {
    /// No connection is expected yet.
    pub fn new() -> Lanes {
        let (inbox, arrivals) = unbounded_channel();
        Lanes { places: Vec::new(), inbox, arrivals, brake: Arc::default() }
    }

    /// Expects `count` data connections that prove to know `secret`, of the client with that `key`.
    pub fn expect(
        &mut self,
        count: u16,
        secret: JoinSecret,
        key: Option<Fingerprint>,
        roster: &Roster,
    ) {
        self.places.resize_with(usize::from(count), || None);
        roster.expect(secret, key, self.inbox.clone());
    }

    /// Whether there is a secret to show: the session stands.
    pub fn are_expected(&self) -> bool {
        !self.places.is_empty()
    }

    /// The next connection that showed the secret; waits for ever where none comes.
    pub async fn next(&mut self) -> Arrival {
        match self.arrivals.recv().await {
            Some(arrival) => arrival,
            // Not while we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// What holds back all that bring too much.
    pub fn brake(&self) -> &SessionBrake {
        &self.brake
    }

    /// Gives a connection its place: in the engine, once there is one. It takes the place of one
    /// that was there, for only the client that opened that could have opened this.
    pub fn join(&mut self, Lane { lane, connection }: Lane, engine: Option<&Engine>, peer: &str) {
        let connection = connection.braked(Arc::clone(&self.brake) as _);
        match (self.places.get_mut(usize::from(lane)), engine) {
            (Some(_), Some(engine)) => engine.join(u32::from(lane), connection),
            (Some(place), None) => *place = Some(connection),
            (None, _) => tracing::warn!(peer, lane, "refused a data connection too many"),
        }
    }

    /// Hands over those that came so far, for a new engine: a place for each lane.
    pub fn take(&mut self) -> Vec<Option<Conduit>> {
        self.places.iter_mut().map(Option::take).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_place_is_taken_by_the_last_that_came_and_there_are_no_more_than_agreed() {
        let lane = |lane| Lane { lane, connection: UnixStream::pair().unwrap().0.into() };
        let mut lanes = Lanes::new();
        lanes.expect(2, JoinSecret::new([7; 16]), None, &Roster::default());
        lanes.join(lane(1), None, "a peer");
        lanes.join(lane(1), None, "a peer");
        lanes.join(lane(9), None, "a peer");
        let taken = lanes.take();
        assert_eq!(taken.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    }
}
