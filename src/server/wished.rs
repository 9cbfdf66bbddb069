//! A dataset that a client wishes something about, and all that is then done with it.
//!
//! Judged once, when the client asks; kept until what it asked for is done. Drives `zfs`, and so it
//! blocks. What must never happen here: anything below a root that is another dataset by now than
//! the one that was granted.

use super::beside::Beside;
use super::leave::Leave;
use super::making::Announced;
use super::pool::{self, Pool};
use super::taker::Prepared;
use crate::dataset::{DatasetName, Guid, typed};
use crate::error::{Class, Failure, Side};
use crate::listing::{TargetState, TargetTree};
use crate::process::Ended;
use crate::protocol::message::DatasetStream;
use crate::zfs::below::Way;
use crate::zfs::{ZfsError, failure};

/// The dataset, where it lies, and the leave that was given: `None` where everybody may do all.
#[derive(Clone, Debug)]
pub(super) struct Wished {
    pub pool: Pool,
    pub dataset: DatasetName,
    pub leave: Option<Leave>,
    /// What comes with a stream; nothing, where it is no stream that was asked for.
    pub beside: Beside,
}

/// What was found when a stream had been received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified {
    /// The snapshot that is there now; `None` where the stream was for no dataset.
    pub guid: Option<Guid>,
    /// The root was the one that was granted: if the next stream for the same dataset comes soon,
    /// nobody has to look again.
    pub is_rooted: bool,
}

impl Wished {
    /// What the dataset holds.
    pub fn look_up(&self) -> Result<TargetState, Failure> {
        let Pool { zfs, root, .. } = &self.pool;
        let found = zfs.target_below(root, &self.dataset).map_err(on_target)?;
        let (guid, target) = found.ok_or_else(|| self.no_root())?;
        self.check_root(guid)?;
        Ok(target)
    }

    /// What the dataset and all below it hold.
    pub fn look_up_tree(&self) -> Result<TargetTree, Failure> {
        let Pool { zfs, root, .. } = &self.pool;
        let found = zfs.target_tree(&self.dataset);
        // After it: what was read lay below a root that has been granted.
        let guid = zfs.dataset_guid(root).map_err(on_target)?;
        self.check_root(guid.ok_or_else(|| self.no_root())?)?;
        Ok(TargetTree { root: self.dataset.clone(), datasets: found.map_err(on_target)? })
    }

    /// Gives up what an interrupted receive has left, if that still has `token`. The caller has
    /// the dataset's claim.
    pub fn abort(&self, token: &str) -> Result<(), Failure> {
        let way = self.way()?;
        pool::abort(&self.pool.zfs, &self.dataset, way.resume_token.as_deref(), token)
    }

    /// Makes ready what takes a stream. `whole` says that the stream before it, of the same
    /// session, was for the same dataset and has been read back just now: one of many small steps
    /// takes hardly longer than to ask. If somebody else has left partial state there in this
    /// moment, `zfs receive` refuses.
    pub fn prepare(&self, stream: &DatasetStream, whole: bool) -> Result<Prepared, Failure> {
        let mut announced = None;
        let Pool { zfs, root, .. } = &self.pool;
        let origin = self.beside.origin.as_ref();
        if stream.resumed || !whole || origin.is_some() {
            let way = self.way()?;
            pool::check_partial_state(&self.dataset, way.resume_token.as_deref(), stream)?;
            origin.map_or(Ok(()), |origin| origin.check(zfs, root))?;
            let is_first = stream.from.is_none() || origin.is_some();
            // Whatever the client says of it: what is to be made is seen here.
            if !way.exists && is_first && !stream.resumed {
                announced = self.make_room(&way)?;
            }
        }
        let prepared = self.pool.prepare(self.dataset.clone(), stream, self.beside.clone());
        Ok(Prepared { announced, ..prepared })
    }

    fn make_room(&self, way: &Way) -> Result<Option<Announced>, Failure> {
        let leave = self.leave.as_ref();
        let announced = leave.map_or(Ok(None), |leave| leave.to_make(&self.pool, way))?;
        self.pool.zfs.create_parents(&way.missing).map_err(on_target)?;
        Ok(announced)
    }

    /// Whether the target holds what was sent: by what ZFS says of it, whatever its process says.
    pub fn verify(
        &self,
        stream: &DatasetStream,
        ended: Option<&Ended>,
    ) -> Result<Verified, Failure> {
        let (root, guid) = self.pool.verify(&self.dataset, stream, ended)?;
        let is_rooted = root.is_some_and(|root| self.check_root(root).is_ok());
        Ok(Verified { guid: Some(guid), is_rooted })
    }

    /// The failure of a process that ended badly; `None` if it says that all went well.
    pub fn complaint(&self, ended: &Ended) -> Option<Failure> {
        failure::of_receive(&self.dataset, ended)
    }

    pub(super) fn way(&self) -> Result<Way, Failure> {
        let Pool { zfs, root, .. } = &self.pool;
        let way = zfs.way(root, &self.dataset).map_err(on_target)?;
        let way = way.ok_or_else(|| self.no_root())?;
        self.check_root(way.root)?;
        Ok(way)
    }

    fn check_root(&self, found: Guid) -> Result<(), Failure> {
        self.leave.as_ref().map_or(Ok(()), |leave| leave.check_root(found))
    }

    fn no_root(&self) -> Failure {
        let (root, dataset) = (&self.pool.root, self.dataset.clone());
        if root.parent().is_none() {
            return on_target(ZfsError::NoPool { dataset });
        }
        let what = format!("{root}, which {dataset} would lie below, does not exist");
        let pool = typed(root.pool());
        Failure::new(Side::Target, Class::Refused, what)
            .with_remedy(format!("make it, or import its pool: zpool import {pool}"))
    }
}

fn on_target(error: ZfsError) -> Failure {
    error.on(Side::Target)
}
