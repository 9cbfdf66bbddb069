//! A copy that was asked for, and what can come of it.

use std::sync::Arc;

use super::around::Around;
use super::figures::Summary;
use super::prune::Retention;
use crate::dataset::property::{Properties, PropertyName};
use crate::dataset::{DatasetName, Guid, Kind, SnapName};
use crate::error::{Class, Failure, Side};
use crate::listing::{OriginSnapshot, Snapshot};
use crate::pattern::Chosen;
use crate::plan::{Goal, Policy};
use crate::protocol::message::{CloneOf, RelativeName};
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
    /// Which of them, by their names.
    pub chosen: Chosen,
    /// What stays on both sides, once they hold the wanted one.
    pub retention: Retention,
    /// What becomes of a part that can never be finished.
    pub on_dead_token: OnDeadToken,
    /// What is done around a snapshot that is taken.
    pub around: Option<Arc<dyn Around>>,
    /// What the source is a clone of, where the target is to be made one too.
    pub clone_of: Option<CloneBase>,
    /// Which properties are taken along, where they are set at the source.
    pub properties: Vec<PropertyName>,
}

/// What a clone is made from, as both sides have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneBase {
    /// At the source.
    pub origin: OriginSnapshot,
    /// At the target: its names are others there, its guid is the same.
    pub held: CloneOf,
}

impl Job {
    /// What is to be planned; one that was to be taken is there by then.
    pub(super) fn policy(&self) -> Policy {
        self.policy_to(match &self.wanted {
            Wanted::Newest => Goal::Newest,
            Wanted::Named(name) | Wanted::Taken(name) => Goal::Named(name.clone()),
        })
    }

    /// The same with another goal.
    pub(super) fn policy_to(&self, goal: Goal) -> Policy {
        Policy { goal, intermediates: self.intermediates, chosen: self.chosen.clone() }
    }

    /// The properties that were found set, where all of them may be taken along.
    pub(super) fn checked(
        &self,
        set: &[(String, String)],
        kind: Kind,
    ) -> Result<Properties, Failure> {
        let set = set.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Properties::checked(set, kind).map_err(|bad| {
            let what = format!("{}: {bad}", self.source);
            Failure::new(Side::Source, Class::Refused, what).with_remedy(bad.remedy())
        })
    }

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

impl Outcome {
    /// What the target was seen to have as the last thing that was done.
    pub(super) fn arrived(&self) -> Option<Guid> {
        match self {
            Outcome::UpToDate(_) => None,
            Outcome::Done(snapshot, _) => Some(snapshot.guid),
        }
    }
}

/// Drives `zfs` on another thread: it may take longer than a session lasts in silence.
pub(super) async fn blocking<T: Send + 'static>(
    zfs: &Zfs,
    job: &Job,
    work: impl FnOnce(&Zfs, &Job) -> Result<T, ZfsError> + Send + 'static,
) -> Result<T, Failure> {
    let (zfs, job) = (zfs.clone(), job.clone());
    drive(move || work(&zfs, &job)).await
}

/// The same with whatever `work` needs.
pub(super) async fn drive<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ZfsError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.on(Side::Source)),
        Err(panicked) => {
            Err(Failure::new(Side::Source, Class::Internal, format!("drive zfs: {panicked}")))
        }
    }
}
