//! What clients may reach of a pool, each by its own grants.
//!
//! Every wish is judged anew, by the list that is in force at that moment: what was taken back is
//! not granted any more. What must never happen here: that a name leaves its client's root, or that
//! a client without a grant learns what there is.

use std::sync::Arc;

use tokio::sync::watch;

use super::beside::Beside;
use super::leave::Leave;
use super::making::Making;
use super::pool::Pool;
use super::wished::Wished;
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::protocol::message::{DatasetStream, RelativeName};
use crate::trust::clients::Clients;
use crate::trust::grants::{Client, Receive, Wish};
use crate::trust::{Book, Fingerprint, clients};
use crate::zfs::Zfs;

/// The pools of this host, as one client may use them.
#[derive(Clone, Debug)]
pub struct Granted {
    zfs: Zfs,
    book: Arc<Book>,
    making: Making,
    client: Option<Fingerprint>,
}

impl Granted {
    /// As nobody may use them yet.
    pub fn new(zfs: Zfs, book: Arc<Book>) -> Granted {
        Granted { zfs, book, making: Making::default(), client: None }
    }

    /// As the client with this key may.
    pub(super) fn to(&self, client: Option<Fingerprint>) -> Granted {
        Granted { client, ..self.clone() }
    }

    /// The client, as the list names it now.
    pub(super) fn client(&self) -> Result<Arc<Client>, Failure> {
        let Some(key) = self.client else {
            let what = "whoever has shown no key is granted nothing";
            return Err(Failure::new(Side::Target, Class::Refused, what));
        };
        self.book.find(&key).ok_or_else(|| clients::unknown(&key))
    }

    /// The list, now and whenever it is read again.
    pub(super) fn list(&self) -> watch::Receiver<Arc<Clients>> {
        self.book.subscribe()
    }

    /// A dataset that the client wishes something about, if that is granted.
    pub(super) fn wished(&self, name: &RelativeName, wish: Wish) -> Result<Wished, Failure> {
        let judged = self.client()?.judge(name.as_str(), wish);
        let permit = judged.map_err(|denied| denied.on_target())?;
        let pool = Pool { zfs: self.zfs.clone(), root: permit.root().clone(), only: None };
        let dataset = permit.dataset().clone();
        let leave = Some(Leave::new(permit, self.making.clone()));
        Ok(Wished { pool, dataset, leave, beside: Beside::default() })
    }

    /// Where a stream may go.
    pub(super) fn wished_by(&self, stream: &DatasetStream) -> Result<Wished, Failure> {
        let wish = Receive {
            // What makes a clone makes a dataset, as a full stream does.
            incremental: stream.from.is_some() && stream.origin.is_none(),
            resumed: stream.resumed,
            raw: stream.raw,
        };
        let wished = self.wished(&stream.target, Wish::Receive(wish))?;
        let beside = Beside::of(stream, |name| self.origin(name, &wished.pool.root))?;
        if let Some(leave) = &wished.leave {
            leave.check_properties(&beside.properties)?;
        }
        Ok(Wished { beside, ..wished })
    }

    /// What a clone is made of: below the same root, for a clone is no way into what lies below
    /// another one, and its origin cannot be destroyed as long as it is there.
    fn origin(&self, name: &RelativeName, root: &DatasetName) -> Result<DatasetName, Failure> {
        let origin = self.wished(name, Wish::List)?;
        if origin.pool.root == *root {
            return Ok(origin.dataset);
        }
        let what = format!("{} does not lie below {root}, as its clone would", origin.dataset);
        Err(Failure::new(Side::Target, Class::Refused, what)
            .with_remedy("replicate the clone below the root of what it was cloned from"))
    }
}
