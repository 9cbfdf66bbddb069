//! The data connections of one session, from its welcome until its engine takes them.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::roster::{Arrival, Lane, Roster};
use crate::error::{Class, Failure, Side};
use crate::protocol::secret::JoinSecret;

/// How long data connections may take to join after the client has asked for a transfer.
pub(super) const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// Places for data connections, by lane.
#[derive(Debug)]
pub(super) struct Lanes {
    places: Vec<Option<OwnedFd>>,
    inbox: UnboundedSender<Arrival>,
    arrivals: UnboundedReceiver<Arrival>,
    taken: bool,
}

impl Lanes {
    /// No connection is expected yet.
    pub fn new() -> Lanes {
        let (inbox, arrivals) = unbounded_channel();
        Lanes { places: Vec::new(), inbox, arrivals, taken: false }
    }

    /// Expects `count` connections that show `secret`.
    pub fn expect(&mut self, count: u16, secret: JoinSecret, roster: &Roster) {
        self.places.resize_with(usize::from(count), || None);
        roster.expect(secret, self.inbox.clone());
    }

    /// The next connection that showed the secret; waits for ever where none comes.
    pub async fn next(&mut self) -> Arrival {
        match self.arrivals.recv().await {
            Some(arrival) => arrival,
            // Not while we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Gives a connection its place; one too many is dropped.
    pub fn join(&mut self, Lane { lane, fd }: Lane, peer: &str) {
        match self.places.get_mut(usize::from(lane)) {
            Some(place @ None) if !self.taken => *place = Some(fd),
            _ => tracing::warn!(peer, lane, "refused a data connection too many"),
        }
    }

    /// Whether all have come.
    pub fn are_complete(&self) -> bool {
        self.taken || self.places.iter().all(Option::is_some)
    }

    /// Hands all of them over; none can join afterwards.
    pub fn take(&mut self) -> Vec<Option<OwnedFd>> {
        self.taken = true;
        std::mem::take(&mut self.places)
    }

    /// The failure of those that did not come in time.
    pub fn missing(&self) -> Failure {
        let what = format!(
            "only {} of {} data connections arrived within {} seconds",
            self.places.iter().flatten().count(),
            self.places.len(),
            JOIN_LIMIT.as_secs()
        );
        Failure::new(Side::Network, Class::Interrupted, what)
            .with_remedy("check for a firewall that limits connections, or use --connections 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(lane: u16) -> Lane {
        Lane { lane, fd: std::fs::File::open("/dev/null").unwrap().into() }
    }

    #[test]
    fn each_place_is_taken_once_and_all_must_come() {
        let mut lanes = Lanes::new();
        lanes.expect(2, JoinSecret::new([7; 16]), &Roster::default());
        lanes.join(lane(1), "a peer");
        lanes.join(lane(1), "a peer");
        lanes.join(lane(9), "a peer");
        assert!(!lanes.are_complete());
        assert!(lanes.missing().what.contains("only 1 of 2"), "{}", lanes.missing());
        lanes.join(lane(0), "a peer");
        assert!(lanes.are_complete());
        assert_eq!(lanes.take().len(), 2);
        lanes.join(lane(0), "a peer");
        assert_eq!(lanes.take().len(), 0, "a connection joined a running engine");
    }
}
