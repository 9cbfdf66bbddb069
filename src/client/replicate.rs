//! `zferry replicate`: makes a target hold a snapshot of a dataset, by the fewest streams.
//!
//! Lists both sides, plans by guid, and carries step after step over one session. Nothing is ever
//! destroyed or rolled back on either side; a snapshot on its way is held until the target has it.

use std::time::Instant;

use super::hold::Hold;
use super::send::stopped;
use super::session::{Cargo, Carried, Session};
use super::source::Opened;
use super::watch::{Stop, Summary, Watch};
use super::{Dial, Options};
use crate::dataset::{DatasetName, Kind, SnapName};
use crate::error::{Class, Failure, Side};
use crate::listing::{Snapshot, SourceState, TargetState};
use crate::plan::{Base, Goal, Plan, Policy, Step, plan};
use crate::protocol::message::{DatasetStream, RelativeName, Stream};
use crate::units::Bytes;
use crate::zfs::{Zfs, ZfsError, failure};

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
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target held the snapshot already.
    UpToDate(Snapshot),
    /// It holds it now.
    Done(Snapshot, Summary),
}

/// Makes the target hold what is wanted.
pub async fn replicate(
    zfs: &Zfs,
    job: &Job,
    dial: Dial,
    options: &Options,
    watch: &mut dyn Watch,
    stop: &mut Stop,
) -> Result<Outcome, Failure> {
    // Asked first: a mistyped source should not cost a connection, nor an unreachable server a
    // snapshot.
    blocking(zfs, job, |zfs, job| zfs.source_state(&job.source)).await?;
    let session = tokio::select! {
        session = Session::open(dial, options) => session?,
        () = stop.pulled() => return Err(stopped()),
    };
    let mut copying = Copying { session, zfs, job, watch, stop };
    let outcome = copying.through().await;
    match outcome {
        Ok(_) => copying.session.close().await,
        Err(_) => copying.session.part().await,
    }
    outcome
}

/// A job over a session.
struct Copying<'a> {
    session: Session,
    zfs: &'a Zfs,
    job: &'a Job,
    watch: &'a mut dyn Watch,
    stop: &'a mut Stop,
}

impl Copying<'_> {
    async fn through(&mut self) -> Result<Outcome, Failure> {
        let (target_name, target) = tokio::select! {
            listed = self.session.list(self.job.target.clone()) => listed?,
            () = self.stop.pulled() => return Err(stopped()),
        };
        let (source, goal) = self.choose(&target_name, &target).await?;
        let policy = Policy { goal, intermediates: self.job.intermediates };
        let steps = match plan(&source, &target_name, &target, &policy)? {
            Plan::UpToDate { snapshot } => return Ok(Outcome::UpToDate(snapshot)),
            Plan::Steps(steps) => steps,
        };
        let started = Instant::now();
        let mut summary = Summary::default();
        let mut first = target == TargetState::Absent;
        let mut reached = None;
        for step in steps {
            let carried = self.carry(source.kind, &step, first).await?;
            summary.add(carried.moment, carried.applied.bytes);
            first = false;
            reached = Some(step.to);
        }
        summary.taken = started.elapsed();
        let reached = reached.ok_or_else(|| {
            Failure::new(Side::Source, Class::Internal, "the plan had neither steps nor an end")
        })?;
        Ok(Outcome::Done(reached, summary))
    }

    /// Takes the snapshot, if one is to be taken, and says what the plan shall reach. No snapshot
    /// is taken for a target that would refuse it.
    async fn choose(
        &mut self,
        target_name: &DatasetName,
        target: &TargetState,
    ) -> Result<(SourceState, Goal), Failure> {
        let goal = match &self.job.wanted {
            Wanted::Named(name) => Goal::Named(name.clone()),
            Wanted::Newest => Goal::Newest,
            Wanted::Taken(name) => {
                let source = self.source_state().await?;
                if !source.snapshots.is_empty() {
                    let intermediates = self.job.intermediates;
                    let policy = Policy { goal: Goal::Newest, intermediates };
                    plan(&source, target_name, target, &policy)?;
                }
                let taken = name.clone();
                self.blocking(move |zfs, job| zfs.snapshot(&job.source, &taken)).await?;
                Goal::Named(name.clone())
            }
        };
        Ok((self.source_state().await?, goal))
    }

    /// Carries one step; its snapshot is held until the target has it.
    async fn carry(&mut self, kind: Kind, step: &Step, first: bool) -> Result<Carried, Failure> {
        let (zfs, job) = (self.zfs, self.job);
        let (hold, estimated) = {
            let step = step.clone();
            self.blocking(move |zfs, job| {
                let hold = Hold::take(zfs, &job.source, &step.to.name, &job.target_text)?;
                // A guess for the progress bar; the copy goes on without it.
                let estimated: Option<Bytes> = zfs.estimate(&job.source, &step).ok();
                Ok((hold, estimated))
            })
            .await?
        };
        let cargo = Cargo {
            what: describe(&job.source, step),
            stream: Stream::Dataset(DatasetStream {
                target: job.target.clone(),
                dataset: kind,
                snapshot: step.to.name.clone(),
                to: step.to.guid,
                from: step.from.as_ref().map(Base::guid),
                raw: step.raw,
                first,
            }),
            estimated,
            open: Box::new(|| {
                let sending = zfs.send(&job.source, step);
                let (process, fd) = sending.map_err(|error| error.on(Side::Source))?;
                Ok(Opened { fd, process: Some(process) })
            }),
            judge: Box::new(|ended| failure::of_send(&job.source, ended)),
        };
        let carried = self.session.carry(cargo, self.watch, self.stop).await?;
        if let Err(error) = self.blocking(move |_, _| hold.release()).await {
            tracing::warn!(%error, "a hold stays on a snapshot that the target has");
        }
        Ok(carried)
    }

    async fn source_state(&mut self) -> Result<SourceState, Failure> {
        self.blocking(|zfs, job| zfs.source_state(&job.source)).await
    }

    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Zfs, &Job) -> Result<T, ZfsError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.session.meanwhile(blocking(self.zfs, self.job, work)).await
    }
}

fn describe(source: &DatasetName, step: &Step) -> String {
    let to = source.at(&step.to.name);
    match &step.from {
        None => format!("{to} (full)"),
        Some(Base::Snapshot(base)) => format!("{to} (since @{})", base.name),
        Some(Base::Bookmark(base)) => format!("{to} (since #{})", base.name),
    }
}

/// Drives `zfs` on another thread: it may take longer than a session lasts in silence.
async fn blocking<T: Send + 'static>(
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
