//! Which sessions there are, and which datasets are being received.
//!
//! One thread's memory. A connection that shows no secret of a running session is turned away: it
//! learns nothing, and nobody waits for it. A dataset, or whatever else takes a stream, is received
//! into by one session at a time; one whose client is away makes room for a client that is here.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::place::Place;
use crate::error::{Class, Failure, Side};
use crate::link::Link;
use crate::protocol::secret::JoinSecret;
use crate::protocol::standing::Return;

/// How often a dataset that is being made free is looked at.
const FREE_EVERY: Duration = Duration::from_millis(20);

/// The books of one server.
#[derive(Debug, Default)]
pub(super) struct Roster {
    sessions: RefCell<Vec<(JoinSecret, UnboundedSender<Arrival>)>>,
    receiving: Rc<RefCell<Vec<Receiving>>>,
}

/// A connection that showed the secret of a session.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A data connection.
    Lane(Lane),
    /// The client, over a new control connection.
    Client(Box<Returning>),
}

/// A data connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub lane: u16,
    pub fd: OwnedFd,
}

/// A client that comes back.
#[derive(Debug)]
pub(super) struct Returning {
    pub link: Link,
    /// What it knows.
    pub client: Return,
    /// Where it is now.
    pub peer: String,
}

/// Whether the client of a session is there, for those who want what the session has.
#[derive(Debug, Default)]
pub(super) struct Presence {
    pub away: Cell<bool>,
    /// It made room for another, whose transfer counts in its place.
    pub superseded: Cell<bool>,
    pub evicted: Notify,
}

#[derive(Debug)]
struct Receiving {
    place: Place,
    peer: String,
    since: jiff::Timestamp,
    presence: Rc<Presence>,
}

/// The sole right to receive into a place; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    place: Place,
    receiving: Rc<RefCell<Vec<Receiving>>>,
}

impl Roster {
    /// Sends connections that show `secret` to `session`, as long as that listens.
    pub fn expect(&self, secret: JoinSecret, session: UnboundedSender<Arrival>) {
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|(_, session)| !session.is_closed());
        sessions.push((secret, session));
    }

    /// Gives a connection to its session; back, where there is none.
    pub fn deliver(&self, secret: &JoinSecret, arrival: Arrival) -> Result<(), Arrival> {
        let sessions = self.sessions.borrow();
        match sessions.iter().find(|(known, _)| known == secret) {
            Some((_, session)) => session.send(arrival).map_err(|unsent| unsent.0),
            None => Err(arrival),
        }
    }

    /// Claims a place for the client at `peer`, or says who receives into it already.
    pub fn claim(
        &self,
        place: &Place,
        peer: &str,
        presence: &Rc<Presence>,
    ) -> Result<Claim, Failure> {
        let mut receiving = self.receiving.borrow_mut();
        if let Some(other) = receiving.iter().find(|other| other.place == *place) {
            return Err(other.is_busy());
        }
        let (place, peer) = (place.clone(), peer.to_owned());
        let (since, presence) = (jiff::Timestamp::now(), Rc::clone(presence));
        receiving.push(Receiving { place: place.clone(), peer, since, presence });
        Ok(Claim { place, receiving: Rc::clone(&self.receiving) })
    }

    /// Waits until nobody receives into a place. A session whose client is away is told to end,
    /// which `zfs receive` may take a while for; one whose client is here is left alone.
    pub async fn free(&self, place: &Place) -> Result<(), Failure> {
        loop {
            match self.receiving.borrow().iter().find(|other| other.place == *place) {
                None => return Ok(()),
                Some(other) if other.presence.away.get() => other.presence.evicted.notify_one(),
                Some(other) => return Err(other.is_busy()),
            }
            tokio::time::sleep(FREE_EVERY).await;
        }
    }
}

impl Receiving {
    fn is_busy(&self) -> Failure {
        let Receiving { place, peer, since, .. } = self;
        let what = format!("{place} is being received from {peer} already, since {since:.0}");
        Failure::new(Side::Target, Class::Busy, what)
            .with_remedy("wait until that transfer has ended")
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.receiving.borrow_mut().retain(|claimed| claimed.place != self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_claimed_once_at_a_time() {
        let (roster, presence) = (Roster::default(), Rc::default());
        let place = Place::Dataset("backup/a".parse().unwrap());
        let claim = roster.claim(&place, "10.0.0.1:5", &presence).unwrap();
        let second = roster.claim(&place, "10.0.0.2:5", &presence).unwrap_err();
        assert_eq!((second.class, second.exit_code()), (Class::Busy, 4));
        assert!(second.what.contains("10.0.0.1:5"), "{second}");
        drop(claim);
        assert!(roster.claim(&place, "10.0.0.2:5", &presence).is_ok());
    }

    #[tokio::test]
    async fn only_a_session_whose_client_is_away_makes_room() {
        let (roster, presence) = (Roster::default(), Rc::<Presence>::default());
        let place = Place::Dataset("backup/a".parse().unwrap());
        roster.free(&place).await.unwrap();
        let claim = roster.claim(&place, "10.0.0.1:5", &presence).unwrap();
        assert_eq!(roster.free(&place).await.unwrap_err().class, Class::Busy);
        presence.away.set(true);
        let holder = async {
            presence.evicted.notified().await;
            drop(claim);
        };
        let (freed, ()) = tokio::join!(roster.free(&place), holder);
        freed.unwrap();
    }

    #[test]
    fn a_data_connection_reaches_only_the_session_whose_secret_it_shows() {
        let roster = Roster::default();
        let lane = || {
            let fd = std::fs::File::open("/dev/null").unwrap().into();
            Arrival::Lane(Lane { lane: 3, fd })
        };
        let (session, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        roster.expect(JoinSecret::new([1; 16]), session);
        roster.deliver(&JoinSecret::new([2; 16]), lane()).unwrap_err();
        assert!(arrivals.try_recv().is_err());
        roster.deliver(&JoinSecret::new([1; 16]), lane()).unwrap();
        assert!(matches!(arrivals.try_recv().unwrap(), Arrival::Lane(Lane { lane: 3, .. })));
        drop(arrivals);
        roster.deliver(&JoinSecret::new([1; 16]), lane()).unwrap_err();
    }
}
