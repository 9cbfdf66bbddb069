//! What clients may reach of a pool, each by its own grants.
//!
//! Every wish is judged anew, by the list that is in force at that moment: what was taken back is
//! not granted any more. What must never happen here: that a name leaves its client's root, or that
//! a client without a grant learns what there is.

use std::sync::Arc;

use super::pool::Pool;
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::protocol::message::{DatasetStream, RelativeName};
use crate::trust::grants::{Client, Denied, Permit, Receive, Wish};
use crate::trust::{Book, Fingerprint, clients};
use crate::zfs::{Zfs, ZfsError};

/// The pools of this host, as one client may use them.
#[derive(Clone, Debug)]
pub struct Granted {
    pub(super) zfs: Zfs,
    book: Arc<Book>,
    client: Option<Fingerprint>,
}

/// What a client may have, and how.
#[derive(Debug)]
pub(super) struct Place {
    pub pool: Pool,
    pub dataset: DatasetName,
}

impl Granted {
    /// As nobody may use them yet.
    pub fn new(zfs: Zfs, book: Arc<Book>) -> Granted {
        Granted { zfs, book, client: None }
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

    /// Whether the list names a key now.
    pub(super) fn knows(&self, key: &Fingerprint) -> bool {
        self.book.find(key).is_some()
    }

    fn judge(&self, name: &RelativeName, wish: Wish) -> Result<Permit, Failure> {
        self.client()?.judge(name.as_str(), wish).map_err(|denied| denied.on_target())
    }

    /// A dataset that the client wishes something about.
    pub(super) fn dataset(&self, name: &RelativeName, wish: Wish) -> Result<DatasetName, Failure> {
        self.judge(name, wish).map(|permit| permit.dataset().clone())
    }

    /// Where a stream may go.
    pub(super) fn place_of(&self, stream: &DatasetStream) -> Result<Place, Failure> {
        let permit = self.judge(&stream.target, receive(stream))?;
        let pool = Pool { zfs: self.zfs.clone(), root: permit.root().clone() };
        Ok(Place { pool, dataset: permit.dataset().clone() })
    }

    /// What the pool itself has to say: that the root is the one that was granted, and that there
    /// is room for another dataset. May make the datasets above a new one.
    pub(super) fn admit(&self, stream: &DatasetStream) -> Result<(), Failure> {
        let permit = self.judge(&stream.target, receive(stream))?;
        let on_target = |error: ZfsError| error.on(Side::Target);
        let denied = |denied: Denied| denied.on_target();
        let root = permit.root();
        let Some(found) = self.zfs.dataset_guid(root).map_err(on_target)? else {
            let what = format!("{root}, which is granted, does not exist");
            return Err(Failure::new(Side::Target, Class::Refused, what));
        };
        permit.check_root(found).map_err(denied)?;
        if stream.first {
            if permit.limits().datasets.is_some() {
                let present = self.zfs.count_below(root).map_err(on_target)?;
                permit.check_datasets(present + 1).map_err(denied)?;
            }
            self.check_parents(stream, &permit)?;
        }
        Ok(())
    }

    /// Datasets above a new one are made only where that is granted.
    fn check_parents(&self, stream: &DatasetStream, permit: &Permit) -> Result<(), Failure> {
        let missing = match permit.dataset().parent() {
            Some(parent) if parent != *permit.root() => {
                self.zfs.dataset_guid(&parent).map_err(|error| error.on(Side::Target))?.is_none()
            }
            _ => false,
        };
        if missing {
            self.judge(&stream.target, Wish::CreateParents)?;
        }
        Ok(())
    }

    /// Whether the client may have another transfer beside those that it has.
    pub(super) fn check_transfers(
        &self,
        stream: &DatasetStream,
        running: usize,
    ) -> Result<(), Failure> {
        let permit = self.judge(&stream.target, receive(stream))?;
        permit.check_transfers(running).map_err(|denied| denied.on_target())
    }
}

fn receive(stream: &DatasetStream) -> Wish {
    Wish::Receive(Receive {
        incremental: stream.from.is_some(),
        resumed: stream.resumed,
        raw: stream.raw,
    })
}
