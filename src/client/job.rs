//! A copy that was asked for, and what can come of it.

use super::watch::Summary;
use crate::dataset::{DatasetName, SnapName};
use crate::error::{Class, Failure, Side};
use crate::listing::Snapshot;
use crate::protocol::message::RelativeName;
use crate::zfs::{Zfs, ZfsError};

/// Which snapshot the target shall hold in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One that is taken now, under this name.
    Taken(SnapName),
    /// The newest that exists.
    Newest,
    /// This one, which exists.
    Named(SnapName),
}

/// What becomes of a part of a snapshot that can never be finished, for what it was made from is
/// gone from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeadToken {
    /// The operator is asked.
    Ask,
    /// It is given up, and the copy planned anew.
    AbortAndRestart,
}

/// A copy that was asked for.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is copied.
    pub source: DatasetName,
    /// Where to, below the root of the server.
    pub target: RelativeName,
    /// The target as the user wrote it: for messages and the hold's tag.
    pub target_text: String,
    /// Which snapshot.
    pub wanted: Wanted,
    /// Whether the snapshots between the base and the wanted one are copied too.
    pub intermediates: bool,
    /// What becomes of a part that can never be finished.
    pub on_dead_token: OnDeadToken,
}

impl Job {
    /// What is copied where, as its records call it.
    pub(super) fn text(&self) -> String {
        format!("{} -> {}", self.source, self.target_text)
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target held the snapshot already.
    UpToDate(Snapshot),
    /// It holds it now.
    Done(Snapshot, Summary),
}

/// Drives `zfs` on another thread: it may take longer than a session lasts in silence.
pub(super) async fn blocking<T: Send + 'static>(
    zfs: &Zfs,
    job: &Job,
    work: impl FnOnce(&Zfs, &Job) -> Result<T, ZfsError> + Send + 'static,
) -> Result<T, Failure> {
    let (zfs, job) = (zfs.clone(), job.clone());
    match tokio::task::spawn_blocking(move || work(&zfs, &job)).await {
        Ok(result) => result.map_err(|error| error.on(Side::Source)),
        Err(panicked) => {
            Err(Failure::new(Side::Source, Class::Internal, format!("drive zfs: {panicked}")))
        }
    }
}
