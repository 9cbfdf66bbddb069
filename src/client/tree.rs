//! `zferry replicate -r`: a dataset and all below it, several at once, each by itself.
//!
//! Both sides are listed once. Each of several carriers has a session of its own and takes
//! whichever dataset may be next; what becomes of one is no other's affair, but for what lies in it
//! or was cloned from it. What must never happen here: a dataset whose trouble is not told.

mod queue;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU16;

use futures_util::future::join_all;
use tokio::sync::Notify;

use self::queue::{Next, Queue};
use super::around;
use super::carrier::Carrier;
use super::copying::Known;
use super::job::{CloneBase, Job, Outcome, Wanted, drive};
use super::send::stopped;
use super::watch::{Held, Planned, Stop, TreeWatch};
use super::{Dial, Options};
use crate::dataset::{DatasetName, SnapName};
use crate::error::{Class, Failure, Side};
use crate::listing::{OriginSnapshot, SourceDataset};
use crate::pattern::Pattern;
use crate::plan::Refusal;
use crate::plan::tree::{Lack, LeftOut, Task, Tree, Verdict, below, is_left_out, plan_tree};
use crate::protocol::message::{CloneOf, RelativeName};
use crate::zfs::snapshot::Members;
use crate::zfs::{Zfs, ZfsError};

/// A tree that is to be copied.
#[derive(Clone, Debug)]
pub struct TreeJob {
    /// Its root, and how each dataset is copied.
    pub root: Job,
    /// What is left out, by names below the root.
    pub exclude: Vec<Pattern>,
    /// How many datasets are copied at once.
    pub parallel: NonZeroU16,
}

/// What became of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeOutcome {
    /// Each dataset that was to be copied, in the order they ended.
    pub copied: Vec<(DatasetName, Result<Held, Failure>)>,
    /// Those that were left out.
    pub left_out: Vec<(DatasetName, LeftOut)>,
    /// What the target has besides.
    pub extra: Vec<DatasetName>,
}

/// One run.
struct Run<'a> {
    job: &'a TreeJob,
    wanted: Wanted,
    dial: &'a Dial,
    options: &'a Options,
    watch: &'a dyn TreeWatch,
    queue: RefCell<Queue>,
    /// Told when a dataset has ended.
    ended: Notify,
    copied: RefCell<Vec<(DatasetName, Result<Held, Failure>)>>,
    /// By their places: those that are pruned when clones of them are there.
    unpruned: RefCell<BTreeMap<usize, (Box<Job>, Held)>>,
    /// How many carriers have not ended.
    carriers: Cell<u16>,
    /// Why no carrier reaches the server any more.
    lost: RefCell<Option<Failure>>,
}

/// What became of one dataset.
enum Copied {
    /// There is no more to do.
    Held(Held),
    /// It is pruned later, by this job.
    Unpruned(Box<Job>, Held),
}

/// Makes the target hold all that is wanted of a tree. Fails only if nothing can be done at all.
pub async fn replicate_tree(
    zfs: &Zfs,
    job: &TreeJob,
    dial: &Dial,
    options: &Options,
    watch: &dyn TreeWatch,
    stop: &mut Stop,
) -> Result<TreeOutcome, Failure> {
    let source = &job.root.source;
    // Asked first, for the same reasons as for one dataset.
    job.members(&blocking(zfs, source, Zfs::tree_members).await?)?;
    let mut first = Carrier::new(zfs, dial, options.one_of(job.parallel, 0));
    let target = first.list_tree(&job.root.target, stop).await?;
    // What runs around a snapshot may take longer than a session lasts in silence.
    let wanted = first.meanwhile(take(zfs, job)).await?;
    let listing = blocking(zfs, source, Zfs::source_tree);
    let listed: Vec<SourceDataset> = first.meanwhile(listing).await?;
    let policy = Job { wanted: wanted.clone(), ..job.root.clone() }.policy();
    let mut tree =
        plan_tree(listed, target, &policy, &job.exclude).map_err(|it| Failure::from(*it))?;
    if matches!(job.root.wanted, Wanted::Taken(_)) {
        for (_, why) in &mut tree.left_out {
            if let LeftOut::NoSnapshot(lack) = why {
                *lack = Lack::TooNew;
            }
        }
    }
    watch.planned(&Planned::of(&tree));
    let Tree { tasks, left_out, extra } = tree;
    let run = Run {
        job,
        wanted,
        dial,
        options,
        watch,
        queue: RefCell::new(Queue::new(tasks)),
        ended: Notify::new(),
        copied: RefCell::default(),
        unpruned: RefCell::default(),
        carriers: Cell::new(job.parallel.get()),
        lost: RefCell::default(),
    };
    run.through(first, stop).await;
    if stop.is_pulled() {
        return Err(stopped());
    }
    Ok(TreeOutcome { copied: run.copied.into_inner(), left_out, extra })
}

/// How often it is tried to take a snapshot of datasets of which one is destroyed meanwhile.
const TAKEN_TIMES: u32 = 3;

/// Takes the snapshot of all that is wanted, if one is to be taken: of all at the same moment.
async fn take(zfs: &Zfs, job: &TreeJob) -> Result<Wanted, Failure> {
    let Wanted::Taken(name) = &job.root.wanted else { return Ok(job.root.wanted.clone()) };
    let (of, taken) = (job.clone(), name.clone());
    let done = blocking(zfs, &job.root.source, move |zfs, root| {
        let around = of.root.around.as_deref();
        Ok(around::take(around, &root.at(&taken), || of.take(zfs, &taken)))
    });
    done.await??;
    Ok(Wanted::Named(name.clone()))
}

impl TreeJob {
    /// Takes a snapshot of all that is there at this moment, which need not be what was there
    /// before the target was listed and everything was prepared.
    fn take(&self, zfs: &Zfs, name: &SnapName) -> Result<(), Failure> {
        let source = &self.root.source;
        let mut gone = None;
        for _ in 0..TAKEN_TIMES {
            let wished = zfs.tree_members(source).map_err(|error| error.on(Side::Source))?;
            match zfs.snapshot_tree(&self.members(&wished)?, name) {
                Err(error) if error.says_gone() => gone = Some(error),
                taken => return taken.map_err(|error| error.on(Side::Source)),
            }
        }
        let last = gone.map(|error| format!(": {error}")).unwrap_or_default();
        let what = format!(
            "of {source}, a dataset was destroyed each of the {TAKEN_TIMES} times that a snapshot \
             was taken of all{last}"
        );
        Err(Failure::new(Side::Source, Class::Interrupted, what)
            .with_remedy("run it again when no datasets come and go"))
    }

    /// The copy of one dataset.
    pub(super) fn for_dataset(&self, task: &Task, wanted: Wanted) -> Result<Job, Failure> {
        let target = self.target(&task.below)?;
        let target_text = match task.below.as_str() {
            "" => self.root.target_text.clone(),
            below => format!("{}/{below}", self.root.target_text),
        };
        let source = task.source.dataset.clone();
        let clone_of = task.source.origin.as_ref().map(|origin| self.clone_base(origin));
        let clone_of = clone_of.transpose()?;
        Ok(Job { source, target, target_text, wanted, clone_of, ..self.root.clone() })
    }

    /// The origin of a clone, which has its place in the tree too, as both sides call it.
    fn clone_base(&self, origin: &OriginSnapshot) -> Result<CloneBase, Failure> {
        let below = below(&self.root.source, &origin.dataset).unwrap_or_default();
        let held = CloneOf {
            dataset: self.target(below)?,
            snapshot: origin.snapshot.name.clone(),
            guid: origin.snapshot.guid,
        };
        Ok(CloneBase { origin: origin.clone(), held })
    }

    /// What the dataset of that name below the root is called at the target.
    fn target(&self, below: &str) -> Result<RelativeName, Failure> {
        let root = &self.root.target;
        if below.is_empty() {
            return Ok(root.clone());
        }
        let name = format!("{}/{below}", root.as_str());
        name.parse().map_err(|error| {
            Failure::new(Side::Target, Class::Refused, format!("{error}"))
                .with_remedy("choose a target with a shorter name")
        })
    }

    /// Of what a snapshot is taken; `wished` has all there is, and whether its owner leaves it out.
    /// There must be something.
    pub(super) fn members(&self, wished: &[(DatasetName, bool)]) -> Result<Members, Failure> {
        let is_in = |(dataset, excluded): &&(DatasetName, bool)| {
            !excluded && !is_left_out(&self.root.source, dataset, &self.exclude)
        };
        let names: Vec<_> = wished.iter().filter(is_in).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Err(Refusal::AllLeftOut { dataset: self.root.source.clone() }.into());
        }
        let is_all = names.len() == wished.len();
        Ok(if is_all { Members::All(self.root.source.clone()) } else { Members::These(names) })
    }
}

impl Run<'_> {
    /// All carriers, until there is nothing left to do.
    async fn through(&self, first: Carrier<'_>, stop: &Stop) {
        let others = (1..self.job.parallel.get())
            .map(|number| first.beside(self.options.one_of(self.job.parallel, number)));
        let others: Vec<_> = others.collect();
        let all = std::iter::once(first).chain(others);
        join_all(all.map(|carrier| self.carry(carrier, stop.clone()))).await;
    }

    /// What one carrier does.
    async fn carry(&self, mut carrier: Carrier<'_>, mut stop: Stop) {
        loop {
            // Before the look, so that nothing that ends meanwhile is missed.
            let ended = self.ended.notified();
            let next = self.queue.borrow_mut().next();
            let lost = match next {
                Next::Task(place, task) => {
                    let dataset = task.source.dataset.clone();
                    let copying = self.copy(&mut carrier, place, *task, &mut stop);
                    let outcome = Box::pin(copying).await;
                    self.ended(place, dataset, outcome)
                }
                Next::Prune(place, clone) => {
                    Box::pin(self.prune(&mut carrier, place, clone, &mut stop)).await
                }
                Next::Pointless(task) => self.tell(task.source.dataset, Err(pointless())),
                Next::Wait => {
                    carrier.meanwhile(ended).await;
                    None
                }
                Next::End => break,
            };
            if lost.is_some_and(|failure| self.leaves_the_rest(failure)) {
                break;
            }
        }
        self.carriers.set(self.carriers.get() - 1);
        carrier.close().await;
    }

    async fn copy(
        &self,
        carrier: &mut Carrier<'_>,
        place: usize,
        task: Task,
        stop: &mut Stop,
    ) -> Result<Copied, Failure> {
        if stop.is_pulled() {
            return Err(stopped());
        }
        if let Some(failure) = self.lost.borrow().clone() {
            return Err(failure);
        }
        match task.verdict {
            Verdict::UpToDate(snapshot) if self.job.root.retention.is_nothing() => {
                return Ok(Copied::Held(Held::from(Outcome::UpToDate(snapshot))));
            }
            Verdict::Refused(refusal) if !refusal.is_dead_token() => return Err((*refusal).into()),
            Verdict::Refused(_) | Verdict::UpToDate(_) | Verdict::Carry(_) => {}
        }
        let mut job = self.job.for_dataset(&task, self.wanted.clone())?;
        let Task { source, target_name, target, .. } = task;
        let mut watch = self.watch.dataset(&source.dataset);
        let known = Known { source, target_name, target };
        let is_pruned_later = !job.retention.is_nothing() && self.queue.borrow().has_clones(place);
        let retention = is_pruned_later.then(|| std::mem::take(&mut job.retention));
        let held = carrier.copy(&job, Some(known), watch.as_mut(), stop).await?;
        Ok(match retention {
            Some(retention) => Copied::Unpruned(Box::new(Job { retention, ..job }), held),
            None => Copied::Held(held),
        })
    }

    /// One is copied, or not. Why the server was lost, if it was.
    fn ended(
        &self,
        place: usize,
        dataset: DatasetName,
        outcome: Result<Copied, Failure>,
    ) -> Option<Failure> {
        self.queue.borrow_mut().ended(place, outcome.is_ok());
        match outcome {
            Ok(Copied::Held(held)) => self.tell(dataset, Ok(held)),
            Ok(Copied::Unpruned(job, held)) => {
                self.unpruned.borrow_mut().insert(place, (job, held));
                self.queue.borrow_mut().owes_pruning(place);
                self.ended.notify_waiters();
                None
            }
            Err(failure) => self.tell(dataset, Err(failure)),
        }
    }

    /// Prunes what was copied earlier, unless this `clone` of it is still to be made.
    async fn prune(
        &self,
        carrier: &mut Carrier<'_>,
        place: usize,
        clone: Option<DatasetName>,
        stop: &mut Stop,
    ) -> Option<Failure> {
        let unpruned = self.unpruned.borrow_mut().remove(&place);
        let (job, mut held) = unpruned?;
        let lost = self.lost.borrow().clone();
        match (clone, lost) {
            (Some(clone), _) => held.unpruned.push(is_needed(&job.source, &clone)),
            (None, Some(lost)) => held.unpruned.push(lost),
            (None, None) => carrier.prune(&job, None, &mut held, stop).await,
        }
        self.tell(job.source, Ok(held))
    }

    /// A carrier has lost the server for good. It ends where there is another one: that may still
    /// reach it, and carries the rest then. The last one tells of all that is left.
    fn leaves_the_rest(&self, failure: Failure) -> bool {
        let is_last = self.carriers.get() == 1;
        if is_last {
            self.lost.borrow_mut().get_or_insert(failure);
        }
        !is_last
    }

    /// Whether a connection that is lost is got back, if that can be.
    fn is_tried_again(&self) -> bool {
        !self.options.retry_for.is_zero() && !self.dial.is_for_one_session()
    }

    /// Tells what became of a dataset. Why the server was lost, if it was.
    fn tell(&self, dataset: DatasetName, outcome: Result<Held, Failure>) -> Option<Failure> {
        self.watch.ended(&dataset, &outcome);
        let mut failures = match &outcome {
            Ok(held) => held.unpruned.iter(),
            Err(failure) => std::slice::from_ref(failure).iter(),
        };
        let is_tried_again = self.is_tried_again();
        let lost = failures.find(|failure| is_lost(failure, is_tried_again)).cloned();
        self.copied.borrow_mut().push((dataset, outcome));
        self.ended.notify_waiters();
        lost
    }
}

/// Whether the server cannot be reached any more: it was tried for as long as is wished, and to try
/// that again for each dataset that is left would take days. Where nothing is tried again, a cut is
/// one dataset's affair, and the next one finds out at once whether the server is there.
fn is_lost(failure: &Failure, is_tried_again: bool) -> bool {
    is_tried_again && failure.side == Side::Network && failure.class == Class::Interrupted
}

fn pointless() -> Failure {
    let what = "not tried: what it lies in, or what it was cloned from, was not copied";
    Failure::new(Side::Source, Class::Refused, what).with_remedy("mend that first")
}

/// Why what is copied is not pruned.
fn is_needed(origin: &DatasetName, clone: &DatasetName) -> Failure {
    let what = format!("{clone} is still to be made of a snapshot of {origin}: nothing is pruned");
    Failure::new(Side::Target, Class::Refused, what)
        .with_remedy(format!("see above why {clone} is not copied"))
}

async fn blocking<T: Send + 'static>(
    zfs: &Zfs,
    root: &DatasetName,
    work: impl FnOnce(&Zfs, &DatasetName) -> Result<T, ZfsError> + Send + 'static,
) -> Result<T, Failure> {
    let (zfs, root) = (zfs.clone(), root.clone());
    drive(move || work(&zfs, &root)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_was_tried_for_long_enough_is_given_up_for_all() {
        let failure = |side, class| Failure::new(side, class, "x");
        let cut = failure(Side::Network, Class::Interrupted);
        assert!(is_lost(&cut, true));
        assert!(!is_lost(&cut, false), "a cut of one dataset would be everybody's");
        for other in [
            failure(Side::Network, Class::Refused),
            failure(Side::Target, Class::Interrupted),
            failure(Side::Source, Class::Zfs),
        ] {
            assert!(!is_lost(&other, true), "{other}");
        }
    }
}
