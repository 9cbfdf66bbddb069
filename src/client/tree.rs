//! `zferry replicate -r`: a dataset and all below it, several at once, each by itself.
//!
//! Both sides are listed once. Each of several carriers has a session of its own and takes
//! whichever dataset may be next; what becomes of one is no other's affair, but for what lies in it
//! or was cloned from it. What must never happen here: a dataset whose trouble is not told.

mod queue;

use std::cell::RefCell;
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
use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::listing::{OriginSnapshot, SourceDataset};
use crate::pattern::Pattern;
use crate::plan::tree::{LeftOut, Task, Tree, Verdict, below, is_left_out, plan_tree};
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
    zfs: &'a Zfs,
    job: &'a TreeJob,
    wanted: Wanted,
    dial: &'a Dial,
    options: &'a Options,
    watch: &'a dyn TreeWatch,
    queue: RefCell<Queue>,
    /// Told when a dataset has ended.
    ended: Notify,
    copied: RefCell<Vec<(DatasetName, Result<Held, Failure>)>>,
    /// Why the server cannot be reached any more.
    lost: RefCell<Option<Failure>>,
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
    let wished = blocking(zfs, source, Zfs::tree_members).await?;
    let mut first = Carrier::new(zfs, dial, options.one_of(job.parallel, 0));
    let target = first.list_tree(&job.root.target, stop).await?;
    // What runs around a snapshot may take longer than a session lasts in silence.
    let wanted = first.meanwhile(take(zfs, job, &wished)).await?;
    let listing = blocking(zfs, source, Zfs::source_tree);
    let listed: Vec<SourceDataset> = first.meanwhile(listing).await?;
    let policy = Job { wanted: wanted.clone(), ..job.root.clone() }.policy();
    let tree = plan_tree(listed, target, &policy, &job.exclude).map_err(|it| Failure::from(*it))?;
    watch.planned(&Planned::of(&tree));
    let Tree { tasks, left_out, extra } = tree;
    let run = Run {
        zfs,
        job,
        wanted,
        dial,
        options,
        watch,
        queue: RefCell::new(Queue::new(tasks)),
        ended: Notify::new(),
        copied: RefCell::default(),
        lost: RefCell::default(),
    };
    run.through(first, stop).await;
    if stop.is_pulled() {
        return Err(stopped());
    }
    Ok(TreeOutcome { copied: run.copied.into_inner(), left_out, extra })
}

/// Takes the snapshot of all that is wanted, if one is to be taken: of all at the same moment.
async fn take(zfs: &Zfs, job: &TreeJob, wished: &[(DatasetName, bool)]) -> Result<Wanted, Failure> {
    let Wanted::Taken(name) = &job.root.wanted else { return Ok(job.root.wanted.clone()) };
    let (members, taken, around) = (job.members(wished), name.clone(), job.root.around.clone());
    let done = blocking(zfs, &job.root.source, move |zfs, root| {
        let take = || zfs.snapshot_tree(&members, &taken);
        let take = || take().map_err(|error| error.on(Side::Source));
        Ok(around::take(around.as_deref(), &root.at(&taken), take))
    });
    done.await??;
    Ok(Wanted::Named(name.clone()))
}

impl TreeJob {
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
    pub(super) fn members(&self, wished: &[(DatasetName, bool)]) -> Members {
        let is_in = |(dataset, excluded): &&(DatasetName, bool)| {
            !excluded && !is_left_out(&self.root.source, dataset, &self.exclude)
        };
        let names: Vec<_> = wished.iter().filter(is_in).map(|(name, _)| name.clone()).collect();
        if names.len() == wished.len() {
            Members::All(self.root.source.clone())
        } else {
            Members::These(names)
        }
    }
}

impl Run<'_> {
    /// All carriers, until there is nothing left to do.
    async fn through(&self, first: Carrier<'_>, stop: &Stop) {
        let others = (1..self.job.parallel.get()).map(|number| {
            let options = self.options.one_of(self.job.parallel, number);
            Carrier::new(self.zfs, self.dial, options)
        });
        let all = std::iter::once(first).chain(others);
        join_all(all.map(|carrier| self.carry(carrier, stop.clone()))).await;
    }

    /// What one carrier does.
    async fn carry(&self, mut carrier: Carrier<'_>, mut stop: Stop) {
        loop {
            // Before the look, so that nothing that ends meanwhile is missed.
            let ended = self.ended.notified();
            let next = self.queue.borrow_mut().next();
            match next {
                Next::Task(place, task) => {
                    let dataset = task.source.dataset.clone();
                    let copying = self.copy(&mut carrier, *task, &mut stop);
                    let outcome = Box::pin(copying).await;
                    self.queue.borrow_mut().ended(place, outcome.is_ok());
                    self.tell(dataset, outcome);
                }
                Next::Pointless(task) => self.tell(task.source.dataset, Err(pointless())),
                Next::Wait => carrier.meanwhile(ended).await,
                Next::End => break,
            }
        }
        carrier.close().await;
    }

    async fn copy(
        &self,
        carrier: &mut Carrier<'_>,
        task: Task,
        stop: &mut Stop,
    ) -> Result<Held, Failure> {
        if stop.is_pulled() {
            return Err(stopped());
        }
        if let Some(failure) = self.lost.borrow().clone() {
            return Err(failure);
        }
        match task.verdict {
            Verdict::UpToDate(snapshot) if self.job.root.retention.is_nothing() => {
                return Ok(Held::from(Outcome::UpToDate(snapshot)));
            }
            Verdict::Refused(refusal) if !refusal.is_dead_token() => return Err((*refusal).into()),
            Verdict::Refused(_) | Verdict::UpToDate(_) | Verdict::Carry(_) => {}
        }
        let job = self.job.for_dataset(&task, self.wanted.clone())?;
        let Task { source, target_name, target, .. } = task;
        let mut watch = self.watch.dataset(&source.dataset);
        let known = Known { source, target_name, target };
        let copied = carrier.copy(&job, Some(known), watch.as_mut(), stop).await;
        if let Err(failure) = &copied
            && is_lost(failure, self.is_tried_again())
        {
            self.lost.borrow_mut().get_or_insert_with(|| failure.clone());
        }
        copied
    }

    /// Whether a connection that is lost is got back, if that can be.
    fn is_tried_again(&self) -> bool {
        !self.options.retry_for.is_zero() && !self.dial.is_for_one_session()
    }

    fn tell(&self, dataset: DatasetName, outcome: Result<Held, Failure>) {
        self.watch.ended(&dataset, &outcome);
        self.copied.borrow_mut().push((dataset, outcome));
        self.ended.notify_waiters();
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
