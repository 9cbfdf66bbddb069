//! Who waits for data connections, and which datasets are being received.
//!
//! One thread's memory. A data connection that shows no secret of a waiting session is dropped: it
//! learns nothing, and nobody waits for it. A dataset is received by one session at a time.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::mpsc::UnboundedSender;

use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::protocol::secret::JoinSecret;

/// The books of one server.
#[derive(Debug, Default)]
pub(super) struct Roster {
    waiting: RefCell<Vec<(JoinSecret, UnboundedSender<Lane>)>>,
    receiving: Rc<RefCell<Vec<Receiving>>>,
}

/// A data connection that showed the right secret.
#[derive(Debug)]
pub(super) struct Lane {
    pub lane: u16,
    pub fd: OwnedFd,
}

#[derive(Debug)]
struct Receiving {
    dataset: DatasetName,
    peer: String,
    since: jiff::Timestamp,
}

/// The sole right to receive into a dataset; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    dataset: DatasetName,
    receiving: Rc<RefCell<Vec<Receiving>>>,
}

impl Roster {
    /// Sends data connections that show `secret` to `session`, as long as that listens.
    pub fn expect(&self, secret: JoinSecret, session: UnboundedSender<Lane>) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|(_, session)| !session.is_closed());
        waiting.push((secret, session));
    }

    /// Gives a data connection to its session.
    pub fn deliver(&self, secret: &JoinSecret, lane: Lane, peer: &str) {
        let waiting = self.waiting.borrow();
        let session = waiting.iter().find(|(known, _)| known == secret);
        let taken = session.is_some_and(|(_, session)| session.send(lane).is_ok());
        if !taken {
            tracing::warn!(peer, "refused a data connection that belongs to no session");
        }
    }

    /// Claims a dataset for `peer`, or says who receives into it already.
    pub fn claim(&self, dataset: &DatasetName, peer: &str) -> Result<Claim, Failure> {
        let mut receiving = self.receiving.borrow_mut();
        if let Some(other) = receiving.iter().find(|other| other.dataset == *dataset) {
            let what = format!(
                "{dataset} is being received from {} already, since {:.0}",
                other.peer, other.since
            );
            return Err(Failure::new(Side::Target, Class::Busy, what)
                .with_remedy("wait until that transfer has ended"));
        }
        let (dataset, peer) = (dataset.clone(), peer.to_owned());
        let since = jiff::Timestamp::now();
        receiving.push(Receiving { dataset: dataset.clone(), peer, since });
        Ok(Claim { dataset, receiving: Rc::clone(&self.receiving) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.receiving.borrow_mut().retain(|claimed| claimed.dataset != self.dataset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_claimed_once_at_a_time() {
        let roster = Roster::default();
        let dataset: DatasetName = "backup/a".parse().unwrap();
        let claim = roster.claim(&dataset, "10.0.0.1:5").unwrap();
        let second = roster.claim(&dataset, "10.0.0.2:5").unwrap_err();
        assert_eq!((second.class, second.exit_code()), (Class::Busy, 4));
        assert!(second.what.contains("10.0.0.1:5"), "{second}");
        drop(claim);
        assert!(roster.claim(&dataset, "10.0.0.2:5").is_ok());
    }

    #[test]
    fn a_data_connection_reaches_only_the_session_whose_secret_it_shows() {
        let roster = Roster::default();
        let lane = || Lane { lane: 3, fd: std::fs::File::open("/dev/null").unwrap().into() };
        let (session, mut lanes) = tokio::sync::mpsc::unbounded_channel();
        roster.expect(JoinSecret::new([1; 16]), session);
        roster.deliver(&JoinSecret::new([2; 16]), lane(), "a stranger");
        assert!(lanes.try_recv().is_err());
        roster.deliver(&JoinSecret::new([1; 16]), lane(), "a friend");
        assert_eq!(lanes.try_recv().unwrap().lane, 3);
    }
}
