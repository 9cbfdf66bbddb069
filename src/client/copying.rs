//! One attempt at a copy, over one session: list, plan, finish what was begun, carry the rest.
//!
//! What an attempt has reached stays in [`SoFar`], whatever becomes of the attempt; the next one
//! learns from the two listings where to go on. What must never happen here: a stream whose
//! snapshots are not held, and a resume token that was not weighed by `plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::around;
use super::figures::Summary;
use super::hold::{BATCH, Holds, is_needed};
use super::job::{Job, OnDeadToken, Outcome, Wanted, blocking};
use super::send::stopped;
use super::session::{Cargo, Open, Session};
use super::source::Opened;
use super::watch::{Layer, Stop, Watch};
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, Guid, Kind, SnapName};
use crate::error::{Class, Failure, Side};
use crate::listing::{Snapshot, SourceState, TargetState};
use crate::plan::{Base, Goal, Plan, Refusal, Resume, Sides, Step, Unresumable, plan};
use crate::process::Process;
use crate::protocol::message::{DatasetStream, Stream};
use crate::units::Bytes;
use crate::zfs::estimate::Rest;
use crate::zfs::{Zfs, ZfsError, failure};

/// Where a stream took less, the next one is not asked for its length first: such streams are
/// alike, and asking takes about as long.
const WORTH_A_BAR: Duration = Duration::from_secs(1);

/// Held before its step, held after it, and the two of the step itself.
const LEFT_MAX: usize = 2 * BATCH + 2;

/// What all attempts of a copy have reached together.
#[derive(Debug)]
pub(super) struct SoFar {
    /// The snapshot that was to be taken is taken.
    taken: bool,
    /// Which properties are still to be taken along; none, once a stream has brought them.
    properties: Vec<PropertyName>,
    /// What was given up: once is enough, whatever the target says afterwards.
    aborted: bool,
    /// The newest snapshot that was carried.
    reached: Option<Snapshot>,
    /// The part of a snapshot that the target had when it was listed last: of which, how much.
    part: Option<(Guid, Bytes)>,
    /// When the target was last seen to hold more than before.
    pub proved: Option<Instant>,
    pub summary: Summary,
    holds: Holds,
}

/// One attempt.
pub(super) struct Copying<'a> {
    pub session: Session,
    pub zfs: &'a Zfs,
    pub job: &'a Job,
    /// What both sides hold, where that was just listed.
    pub known: Option<Known>,
    pub watch: &'a mut dyn Watch,
    pub stop: &'a mut Stop,
    pub so_far: &'a mut SoFar,
}

/// What both sides hold.
pub(super) struct Known {
    pub source: SourceState,
    pub target_name: DatasetName,
    pub target: TargetState,
}

/// The target as it was listed.
struct Listed {
    target_name: DatasetName,
    target: TargetState,
    /// The source, if it was listed together with it.
    source: Option<SourceState>,
}

/// Why there is nothing to carry.
enum Stuck {
    Refused(Refusal),
    Failed(Failure),
}

/// One stream to carry, and what it is to the target.
struct Load<'a> {
    step: &'a Step,
    kind: Kind,
    what: String,
    estimated: Option<Bytes>,
    first: bool,
    resumed: bool,
    open: Box<Open<'a>>,
}

impl SoFar {
    pub fn new(zfs: &Zfs, job: &Job) -> SoFar {
        SoFar {
            taken: false,
            properties: job.properties.clone(),
            aborted: false,
            reached: None,
            part: None,
            proved: None,
            summary: Summary::default(),
            holds: Holds::new(zfs, &job.source, &job.target_text),
        }
    }

    /// The target was seen to have this part of a snapshot.
    fn has_part(&mut self, to: Guid, bytes: Bytes) {
        if self.part.is_none_or(|(of, before)| of != to || bytes > before) {
            self.proved = Some(Instant::now());
        }
        self.part = Some((to, bytes));
    }

    /// The target was seen to have this snapshot.
    fn has_snapshot(&mut self, snapshot: &Snapshot) {
        self.reached = Some(snapshot.clone());
        self.proved = Some(Instant::now());
    }
}

impl Copying<'_> {
    /// Goes on until the target holds the goal. Every stream that was interrupted earlier is a
    /// reason to list and plan anew.
    pub async fn through(&mut self) -> Result<Outcome, Failure> {
        loop {
            let mut listed = self.list().await?;
            let stuck = match self.plan(&mut listed).await {
                Ok((source, Plan::UpToDate { snapshot })) => {
                    return self.up_to_date(&source, &listed.target, snapshot).await;
                }
                Ok((source, Plan::Resume(resume))) => {
                    self.so_far.has_part(resume.token.to, resume.token.bytes);
                    match self.finish(source.kind, &listed, &resume).await {
                        Ok(()) => continue,
                        Err(stuck) => stuck,
                    }
                }
                Ok((source, Plan::Steps(steps))) => {
                    return self.carry_all(&source, &listed, &steps).await;
                }
                Err(stuck) => stuck,
            };
            self.give_up_if_dead(stuck, &listed.target).await?;
        }
    }

    async fn list(&mut self) -> Result<Listed, Failure> {
        let listed = if let Some(Known { source, target_name, target }) = self.known.take() {
            Listed { target_name, target, source: Some(source) }
        } else {
            let (target_name, target) = tokio::select! {
                listed = self.session.list(self.job.target.clone()) => listed?,
                () = self.stop.pulled() => return Err(stopped()),
            };
            Listed { target_name, target, source: None }
        };
        self.session.forget_arrived(self.job.text(), &listed.target).await;
        Ok(listed)
    }

    /// Takes the snapshot, if one is still to be taken, and plans. None is taken for a target that
    /// would refuse it.
    async fn plan(&mut self, listed: &mut Listed) -> Result<(SourceState, Plan), Stuck> {
        let goal = match &self.job.wanted {
            Wanted::Newest => Goal::Newest,
            Wanted::Named(name) => Goal::Named(name.clone()),
            Wanted::Taken(name) => {
                if !self.so_far.taken {
                    let source = self.source_state().await?;
                    if !source.snapshots.is_empty() {
                        self.plan_to(&source, listed, Goal::Newest)?;
                    }
                    let taken = name.clone();
                    let around = self.blocking(move |zfs, job| {
                        let (around, full) = (job.around.as_deref(), job.source.at(&taken));
                        let take = || zfs.snapshot(&job.source, &taken);
                        let take = || take().map_err(|error| error.on(Side::Source));
                        Ok(around::take(around, full.as_str(), take))
                    });
                    around.await??;
                    self.so_far.taken = true;
                }
                Goal::Named(name.clone())
            }
        };
        let source = match listed.source.take() {
            Some(source) => source,
            None => self.source_state().await?,
        };
        let plan = self.plan_to(&source, listed, goal)?;
        Ok((source, plan))
    }

    fn plan_to(&self, source: &SourceState, to: &Listed, goal: Goal) -> Result<Plan, Refusal> {
        plan(source, &to.target_name, &to.target, &self.job.policy_to(goal))
    }

    /// The target holds the goal. An earlier run may have ended after that and before it let go.
    async fn up_to_date(
        &mut self,
        source: &SourceState,
        target: &TargetState,
        goal: Snapshot,
    ) -> Result<Outcome, Failure> {
        self.release_all_but(&[]).await;
        // A part of a later snapshot would be lost with what it builds on.
        if !matches!(target, TargetState::Present { resume_token: Some(_), .. }) {
            self.let_go(std::iter::once(&goal).chain(left_before(source, goal.createtxg))).await;
        }
        Ok(match self.so_far.summary.streams {
            0 => Outcome::UpToDate(goal),
            _ => Outcome::Done(goal, self.so_far.summary),
        })
    }

    /// Sends the rest of a snapshot that the target has a part of.
    async fn finish(&mut self, kind: Kind, listed: &Listed, resume: &Resume) -> Result<(), Stuck> {
        let Resume { step, token } = resume;
        self.hold(step).await?;
        let asked = token.clone();
        let estimated = match self.blocking(move |zfs, _| zfs.rest_of(&asked)).await? {
            Rest::Sendable(estimated) => estimated,
            Rest::Dead(words) => {
                let (source, target) = (self.job.source.clone(), listed.target_name.clone());
                let (sides, why) = (Sides { source, target }, Unresumable::Unsendable(words));
                let (sides, why) = (Box::new(sides), Box::new(why));
                return Err(Stuck::Refused(Refusal::PartlyReceived { sides, why }));
            }
        };
        let zfs = self.zfs;
        let what = format!("{} (going on at {})", describe(&self.job.source, step), token.bytes);
        tracing::info!("{what}");
        let load = Load {
            step,
            kind,
            what,
            estimated,
            first: false,
            resumed: true,
            open: Box::new(|| opened(zfs.send_rest(token))),
        };
        self.watch.survived(Layer::Token);
        self.carry(load).await?;
        self.so_far.summary.kept = Bytes(self.so_far.summary.kept.0.saturating_add(token.bytes.0));
        self.release_all_but(&[]).await;
        Ok(())
    }

    /// Carries all steps, each on top of the one before.
    async fn carry_all(
        &mut self,
        source: &SourceState,
        listed: &Listed,
        steps: &[Step],
    ) -> Result<Outcome, Failure> {
        let first = listed.target == TargetState::Absent;
        let mut is_short = false;
        for (place, step) in steps.iter().enumerate() {
            if let Err(failure) = self.hold(step).await {
                self.release_all_but(std::slice::from_ref(step)).await;
                return Err(failure);
            }
            let (zfs, job) = (self.zfs, self.job);
            let load = Load {
                step,
                kind: source.kind,
                what: describe(&job.source, step),
                estimated: if is_short { None } else { self.estimate(step).await? },
                first: first && place == 0,
                resumed: false,
                open: Box::new(|| opened(zfs.send(&job.source, step))),
            };
            let begun = Instant::now();
            let upkeep = self.keep_up(&steps[place..]);
            let carried = self.carry(load).await;
            self.kept_up(upkeep).await;
            is_short = begun.elapsed() < WORTH_A_BAR;
            if carried.is_err() {
                // What it builds on stays held, and nothing that was held ahead.
                self.release_all_but(std::slice::from_ref(step)).await;
            }
            carried?;
        }
        self.release_all_but(&[]).await;
        // A run that was killed may have come as far as to what the first of these builds on.
        let base = steps.first().and_then(|step| step.from.as_ref()).map(Base::createtxg);
        let ends = steps.last().map(|step| step.to.createtxg).into_iter().chain(base);
        let left = ends.flat_map(|end| left_before(source, end));
        self.let_go(left.filter(|snapshot| !is_needed(&snapshot.name, steps))).await;
        let reached = self.so_far.reached.clone().ok_or_else(|| {
            let what = "the plan had neither steps nor an end";
            Failure::new(Side::Source, Class::Internal, what)
        })?;
        Ok(Outcome::Done(reached, self.so_far.summary))
    }

    async fn carry(&mut self, load: Load<'_>) -> Result<(), Failure> {
        let (job, step) = (self.job, load.step);
        let properties = self.properties(load.kind).await?;
        let clones = matches!(step.from, Some(Base::Origin { .. }));
        let clone_of = job.clone_of.as_ref().filter(|_| clones);
        let cargo = Cargo {
            job: job.text(),
            what: load.what,
            stream: Stream::Dataset(DatasetStream {
                target: job.target.clone(),
                dataset: load.kind,
                snapshot: step.to.name.clone(),
                to: step.to.guid,
                from: step.from.as_ref().map(Base::guid),
                raw: step.raw,
                first: load.first,
                resumed: load.resumed,
                origin: clone_of.map(|base| Box::new(base.held.clone())),
                properties,
            }),
            estimated: load.estimated,
            open: load.open,
            judge: Box::new(|ended| failure::of_send(&job.source, ended)),
        };
        let carried = self.session.carry(cargo, self.watch, self.stop).await?;
        self.so_far.properties.clear();
        self.so_far.summary.add(carried.moment, carried.applied.bytes);
        self.so_far.has_snapshot(&step.to);
        Ok(())
    }

    /// What the first stream of a run takes along besides its data. Not those that follow: each
    /// property is set by a transaction of its own.
    async fn properties(&mut self, kind: Kind) -> Result<BTreeMap<String, String>, Failure> {
        let names = self.so_far.properties.clone();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let set = self.blocking(move |zfs, job| zfs.properties(&job.source, &names)).await?;
        let checked = self.job.checked(&set, kind)?;
        Ok(checked.as_texts())
    }

    /// Where the partial state is ours, can never be finished, and may be given up: has it given
    /// up, so that a new plan is possible. Everything else ends the attempt.
    async fn give_up_if_dead(&mut self, stuck: Stuck, target: &TargetState) -> Result<(), Failure> {
        let refusal = match stuck {
            Stuck::Failed(failure) => return Err(failure),
            Stuck::Refused(refusal) => refusal,
        };
        let allowed = self.job.on_dead_token == OnDeadToken::AbortAndRestart;
        let TargetState::Present { resume_token: Some(token), .. } = target else {
            return Err(refusal.into());
        };
        if !refusal.is_dead_token() || !allowed || self.so_far.aborted {
            return Err(refusal.into());
        }
        tracing::warn!("{refusal}; it is given up, as --on-dead-token says");
        self.so_far.aborted = true;
        self.session.abort(self.job.target.clone(), token.clone()).await
    }

    /// Holds what a step needs, before its first byte.
    async fn hold(&mut self, step: &Step) -> Result<(), Failure> {
        let (mut holds, step) = (self.so_far.holds.clone(), step.clone());
        let held = self.blocking(move |_, _| {
            let taken = holds.take(&step);
            Ok((holds, taken))
        });
        let (holds, taken) = held.await?;
        self.so_far.holds = holds;
        taken.map_err(|error| error.on(Side::Source))
    }

    /// Begins to hold what the steps behind the first will need, and to let go of what none needs.
    fn keep_up(&self, steps: &[Step]) -> JoinHandle<(Holds, Result<(), ZfsError>)> {
        let mut holds = self.so_far.holds.clone();
        let steps = steps[..steps.len().min(BATCH + 1)].to_vec();
        tokio::task::spawn_blocking(move || {
            let kept_up = holds.keep_up(&steps);
            (holds, kept_up)
        })
    }

    async fn kept_up(&mut self, upkeep: JoinHandle<(Holds, Result<(), ZfsError>)>) {
        // Without it each step holds for itself, and says what is in its way.
        if let Ok((holds, kept_up)) = self.session.meanwhile(upkeep).await {
            self.so_far.holds = holds;
            if let Err(error) = kept_up {
                let what = "what later steps need is not held yet, or what earlier ones needed is";
                tracing::warn!(%error, "{what}");
            }
        }
    }

    /// Lets go of all that `steps` do not need.
    async fn release_all_but(&mut self, steps: &[Step]) {
        let (mut holds, steps) = (self.so_far.holds.clone(), steps.to_vec());
        let released = self.blocking(move |_, _| {
            let released = holds.release_all_but(&steps);
            Ok((holds, released))
        });
        match released.await {
            Ok((holds, released)) => {
                self.so_far.holds = holds;
                tell_of(released.map_err(|error| error.on(Side::Source)));
            }
            Err(failure) => tell_of(Err(failure)),
        }
    }

    /// Takes holds off that an earlier run may have left.
    async fn let_go(&mut self, snapshots: impl Iterator<Item = &Snapshot>) {
        let names: BTreeSet<&SnapName> = snapshots.map(|snapshot| &snapshot.name).collect();
        let names: Vec<SnapName> = names.into_iter().cloned().collect();
        let holds = self.so_far.holds.clone();
        tell_of(self.blocking(move |_, _| holds.let_go(&names)).await);
    }

    /// A guess for the progress bar; the copy goes on without it.
    async fn estimate(&mut self, step: &Step) -> Result<Option<Bytes>, Failure> {
        let step = step.clone();
        self.blocking(move |zfs, job| Ok(zfs.estimate(&job.source, &step).ok())).await
    }

    async fn source_state(&mut self) -> Result<SourceState, Failure> {
        let mut source = self.blocking(|zfs, job| zfs.source_state(&job.source)).await?;
        source.origin = self.job.clone_of.as_ref().map(|base| base.origin.clone());
        Ok(source)
    }

    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Zfs, &Job) -> Result<T, ZfsError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.session.meanwhile(blocking(self.zfs, self.job, work)).await
    }
}

/// The snapshots before a transaction group that a run which was killed may have left held: those
/// that it had carried last, and those that were to come next. The target needs none of them any
/// more.
fn left_before(source: &SourceState, createtxg: u64) -> impl Iterator<Item = &Snapshot> {
    let older = source.snapshots.iter().rev().filter(move |ours| ours.createtxg < createtxg);
    older.take(LEFT_MAX)
}

fn opened(sending: Result<(Process, OwnedFd), ZfsError>) -> Result<Opened, Failure> {
    let (process, fd) = sending.map_err(|error| error.on(Side::Source))?;
    Ok(Opened { fd, process: Some(process) })
}

/// That a hold stays is no reason to fail: the target has the snapshot.
fn tell_of(released: Result<(), Failure>) {
    if let Err(failure) = released {
        tracing::warn!(%failure, "a hold stays on a snapshot that the target has");
    }
}

fn describe(source: &DatasetName, step: &Step) -> String {
    let to = source.at(&step.to.name);
    match &step.from {
        None => format!("{to} (full)"),
        Some(Base::Snapshot(base)) => format!("{to} (since @{})", base.name),
        Some(Base::Bookmark(base)) => format!("{to} (since #{})", base.name),
        Some(Base::Origin { dataset, snapshot }) => {
            format!("{to} (clone of {})", dataset.at(&snapshot.name))
        }
    }
}

impl From<Refusal> for Stuck {
    fn from(refusal: Refusal) -> Stuck {
        Stuck::Refused(refusal)
    }
}

impl From<Failure> for Stuck {
    fn from(failure: Failure) -> Stuck {
        Stuck::Failed(failure)
    }
}
