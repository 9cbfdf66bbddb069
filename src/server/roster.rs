//! Which sessions there are, and which datasets are being received.
//!
//! One thread's memory. A connection that shows no secret of a running session is turned away: it
//! learns nothing, and nobody waits for it. A dataset, or whatever else takes a stream, is received
//! into by one session at a time; one whose client is away makes room for a client that is here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sys::cipher::Conduit;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::place::Place;
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::link::Link;
use crate::protocol::secret::{JoinSecret, Proof};
use crate::protocol::standing::Return;
use crate::tls::Exported;
use crate::trust::Fingerprint;

/// How often a dataset that is being made free is looked at.
const FREE_EVERY: Duration = Duration::from_millis(20);

/// The books of one server.
#[derive(Debug, Default)]
pub(super) struct Roster {
    sessions: RefCell<Vec<Expecting>>,
    receiving: Rc<RefCell<Vec<Receiving>>>,
}

/// What a connection shows to join a session.
#[derive(Debug)]
pub(super) struct Shown {
    pub proof: Proof,
    /// What the proof is bound to; `None` in clear.
    pub binding: Option<Exported>,
    /// Whose key it was opened with; `None` in clear.
    pub key: Option<Fingerprint>,
}

/// A session that connections may join.
#[derive(Debug)]
struct Expecting {
    secret: JoinSecret,
    /// Nobody else may join, whatever they know.
    key: Option<Fingerprint>,
    session: UnboundedSender<Arrival>,
}

/// A client, as the books have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    /// Its address, and its name where it has one.
    pub peer: &'a str,
    /// `None` in clear.
    pub key: Option<Fingerprint>,
}

/// A connection that showed the secret of a session, or news of those who may.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A data connection.
    Lane(Lane),
    /// The client, over a new control connection.
    Client(Box<Returning>),
    /// Its key is not trusted any more.
    Revoked,
}

/// A data connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub lane: u16,
    pub connection: Conduit,
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
    key: Option<Fingerprint>,
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
    /// Sends connections that prove to know `secret` to `session`, as long as that listens; where
    /// its client has shown a `key`, only those that show the same.
    pub fn expect(
        &self,
        secret: JoinSecret,
        key: Option<Fingerprint>,
        session: UnboundedSender<Arrival>,
    ) {
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|expecting| !expecting.session.is_closed());
        sessions.push(Expecting { secret, key, session });
    }

    /// Gives a connection to its session; back, where there is none.
    pub fn deliver(&self, shown: &Shown, arrival: Arrival) -> Result<(), Arrival> {
        let sessions = self.sessions.borrow();
        match sessions.iter().find(|expecting| expecting.knows(shown)) {
            Some(Expecting { session, .. }) => session.send(arrival).map_err(|unsent| unsent.0),
            None => Err(arrival),
        }
    }

    /// How many transfers a client has below a root.
    pub fn transfers_of(&self, key: Fingerprint, root: &DatasetName) -> usize {
        let of_it = |one: &&Receiving| one.key == Some(key) && one.place.is_within(root);
        self.receiving.borrow().iter().filter(of_it).count()
    }

    /// Ends the sessions of clients whose keys are not trusted any more.
    pub fn turn_out(&self, is_trusted: impl Fn(&Fingerprint) -> bool) {
        let sessions = self.sessions.borrow();
        let revoked = |one: &&Expecting| one.key.is_some_and(|key| !is_trusted(&key));
        for Expecting { session, .. } in sessions.iter().filter(revoked) {
            // One that has ended by itself is gone all the same.
            drop(session.send(Arrival::Revoked));
        }
    }

    /// Claims a place for a client, or says who receives into it already.
    pub fn claim(
        &self,
        place: &Place,
        Who { peer, key }: Who<'_>,
        presence: &Rc<Presence>,
    ) -> Result<Claim, Failure> {
        let mut receiving = self.receiving.borrow_mut();
        if let Some(other) = receiving.iter().find(|other| other.place == *place) {
            return Err(other.is_busy());
        }
        let (place, peer) = (place.clone(), peer.to_owned());
        let (since, presence) = (jiff::Timestamp::now(), Rc::clone(presence));
        receiving.push(Receiving { place: place.clone(), peer, key, since, presence });
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

    /// Tells all sessions to end that receive at or below a dataset and whose clients are away, and
    /// waits until they have.
    pub async fn free_below(&self, root: &DatasetName) {
        loop {
            let mut is_free = true;
            for other in self.receiving.borrow().iter() {
                if other.place.is_within(root) && other.presence.away.get() {
                    other.presence.evicted.notify_one();
                    is_free = false;
                }
            }
            if is_free {
                return;
            }
            tokio::time::sleep(FREE_EVERY).await;
        }
    }
}

impl Expecting {
    fn knows(&self, Shown { proof, binding, key }: &Shown) -> bool {
        let binding = binding.as_ref().map(|exported| exported.bytes().as_slice());
        self.key.is_none_or(|mine| *key == Some(mine)) && self.secret.proof(binding) == *proof
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
    use std::os::unix::net::UnixStream;

    use super::*;

    fn who(peer: &str) -> Who<'_> {
        Who { peer, key: None }
    }

    #[test]
    fn a_dataset_is_claimed_once_at_a_time() {
        let (roster, presence) = (Roster::default(), Rc::default());
        let place = Place::Dataset("backup/a".parse().unwrap());
        let claim = roster.claim(&place, who("10.0.0.1:5"), &presence).unwrap();
        let second = roster.claim(&place, who("10.0.0.2:5"), &presence).unwrap_err();
        assert_eq!((second.class, second.exit_code()), (Class::Busy, 4));
        assert!(second.what.contains("10.0.0.1:5"), "{second}");
        drop(claim);
        assert!(roster.claim(&place, who("10.0.0.2:5"), &presence).is_ok());
    }

    #[test]
    fn transfers_are_counted_by_client_and_root() {
        let (roster, presence) = (Roster::default(), Rc::default());
        let (a, b) = (Fingerprint::of(b"a"), Fingerprint::of(b"b"));
        let name = |text: &str| text.parse::<DatasetName>().unwrap();
        let claims: Vec<Claim> = [("tank/a/1", a), ("tank/a/2", a), ("tank/ab/1", a), ("x/1", b)]
            .into_iter()
            .map(|(dataset, key)| {
                let who = Who { peer: "somebody", key: Some(key) };
                roster.claim(&Place::Dataset(name(dataset)), who, &presence).unwrap()
            })
            .collect();
        let count = |key, root: &str| roster.transfers_of(key, &name(root));
        assert_eq!((count(a, "tank/a"), count(a, "tank/ab"), count(a, "x")), (2, 1, 0));
        assert_eq!((count(b, "tank/a"), count(b, "x")), (0, 1));
        drop(claims);
        assert_eq!(count(a, "tank/a"), 0);
    }

    #[tokio::test]
    async fn a_tree_waits_for_those_below_it_whose_clients_are_away_and_for_nobody_else() {
        let roster = Roster::default();
        let name = |text: &str| text.parse::<DatasetName>().unwrap();
        let claim = |dataset: &str, away| {
            let presence = Rc::new(Presence { away: Cell::new(away), ..Presence::default() });
            let place = Place::Dataset(name(dataset));
            (roster.claim(&place, who("10.0.0.1:5"), &presence).unwrap(), presence)
        };
        let _here = claim("tank/a/here", false);
        let (beside, is_beside) = claim("tank/ab", true);
        let root = name("tank/a");
        roster.free_below(&root).await;
        let (below, is_below) = claim("tank/a/b", true);
        let holder = async {
            is_below.evicted.notified().await;
            drop(below);
        };
        let both = async { tokio::join!(roster.free_below(&root), holder) };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("it is free");
        let told = tokio::time::timeout(Duration::ZERO, is_beside.evicted.notified()).await;
        assert!(told.is_err(), "it was told to end");
        drop(beside);
    }

    #[tokio::test]
    async fn only_a_session_whose_client_is_away_makes_room() {
        let (roster, presence) = (Roster::default(), Rc::<Presence>::default());
        let place = Place::Dataset("backup/a".parse().unwrap());
        roster.free(&place).await.unwrap();
        let claim = roster.claim(&place, who("10.0.0.1:5"), &presence).unwrap();
        assert_eq!(roster.free(&place).await.unwrap_err().class, Class::Busy);
        presence.away.set(true);
        let holder = async {
            presence.evicted.notified().await;
            drop(claim);
        };
        let (freed, ()) = tokio::join!(roster.free(&place), holder);
        freed.unwrap();
    }

    fn lane() -> Arrival {
        Arrival::Lane(Lane { lane: 3, connection: UnixStream::pair().unwrap().0.into() })
    }

    /// A connection in clear.
    fn shown(secret: u8) -> Shown {
        let proof = JoinSecret::new([secret; 16]).proof(None);
        Shown { proof, binding: None, key: None }
    }

    #[test]
    fn a_data_connection_reaches_only_the_session_whose_secret_it_shows() {
        let roster = Roster::default();
        let (session, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        roster.expect(JoinSecret::new([1; 16]), None, session);
        roster.deliver(&shown(2), lane()).unwrap_err();
        assert!(arrivals.try_recv().is_err());
        roster.deliver(&shown(1), lane()).unwrap();
        assert!(matches!(arrivals.try_recv().unwrap(), Arrival::Lane(Lane { lane: 3, .. })));
        drop(arrivals);
        roster.deliver(&shown(1), lane()).unwrap_err();
    }

    #[test]
    fn whoever_knows_the_secret_of_another_client_does_not_join_its_session() {
        let roster = Roster::default();
        let (session, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        let key = |name: &[u8]| Some(Fingerprint::of(name));
        roster.expect(JoinSecret::new([1; 16]), key(b"a"), session);
        for stranger in [None, key(b"b")] {
            roster.deliver(&Shown { key: stranger, ..shown(1) }, lane()).unwrap_err();
        }
        roster.deliver(&Shown { key: key(b"a"), ..shown(1) }, lane()).unwrap();
        arrivals.try_recv().unwrap();
    }
}
