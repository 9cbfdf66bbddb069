//! What clients may reach of a pool, each by its own grants.
//!
//! Every wish is judged anew, by the list that is in force at that moment: what was taken back is
//! not granted any more. What must never happen here: that a name leaves its client's root, or that
//! a client without a grant learns what there is.

use std::sync::Arc;

use tokio::sync::watch;

use super::leave::Leave;
use super::making::Making;
use super::pool::Pool;
use super::wished::Wished;
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
        let leave = Leave::new(permit, self.making.clone());
        Ok(Wished { pool, dataset, leave: Some(leave) })
    }

    /// Where a stream may go.
    pub(super) fn wished_by(&self, stream: &DatasetStream) -> Result<Wished, Failure> {
        let wish = Receive {
            incremental: stream.from.is_some(),
            resumed: stream.resumed,
            raw: stream.raw,
        };
        self.wished(&stream.target, Wish::Receive(wish))
    }
}
