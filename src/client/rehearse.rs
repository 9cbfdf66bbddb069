//! `zferry replicate -n`: what a copy would do, command by command, without doing any of it.
//!
//! Lists and plans as the copy would, and tells the commands instead of running them. What must
//! never happen here: a command that changes anything, on either side.

use super::carrier::Carrier;
use super::copying::Known;
use super::hold::{needed, tag_of};
use super::job::{Job, Wanted, drive};
use super::prune::{Pruned, Retention, after_copy};
use super::tree::TreeJob;
use super::watch::{Planned, Stop, TreeWatch, Would};
use super::{Dial, Options};
use crate::dataset::property::Properties;
use crate::dataset::{DatasetName, Guid, Kind, SnapName};
use crate::error::{Failure, Side};
use crate::listing::{Snapshot, SourceState, TargetState};
use crate::plan::tree::{Task, Verdict, plan_tree};
use crate::plan::{Base, Plan, Step, plan};
use crate::retention::{Report, Rules};
use crate::units::Bytes;
use crate::zfs::command::call;
use crate::zfs::estimate::Rest;
use crate::zfs::receive::Receive;
use crate::zfs::snapshot::{Members, tree_arguments};
use crate::zfs::{Zfs, ZfsError, hold, receive, send};

/// Somebody who tells what would be done.
struct Rehearsal<'a> {
    zfs: &'a Zfs,
    carrier: Carrier<'a>,
    watch: &'a dyn TreeWatch,
    stop: &'a mut Stop,
}

/// Tells what the copy of a dataset would do; or, if that is the root of a `tree`, that of all.
pub async fn rehearse(
    zfs: &Zfs,
    (job, tree): (&Job, Option<&TreeJob>),
    dial: &Dial,
    options: Options,
    watch: &dyn TreeWatch,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let carrier = Carrier::new(zfs, dial, options);
    let mut rehearsal = Rehearsal { zfs, carrier, watch, stop };
    let told = match tree {
        Some(tree) => rehearsal.tree(tree).await,
        None => rehearsal.dataset(job).await,
    };
    rehearsal.carrier.close().await;
    told
}

impl Rehearsal<'_> {
    async fn dataset(&mut self, job: &Job) -> Result<(), Failure> {
        let dataset = job.source.clone();
        let mut source = self.ask(move |zfs| zfs.source_state(&dataset)).await?;
        let (target_name, target) = self.carrier.list(&job.target, self.stop).await?;
        let wanted = match &job.wanted {
            Wanted::Taken(name) => {
                self.run(
                    Side::Source,
                    &tree_arguments(&Members::These(vec![job.source.clone()]), name),
                );
                with_one_more(&mut source, name);
                Wanted::Named(name.clone())
            }
            wanted => wanted.clone(),
        };
        let job = Job { wanted, ..job.clone() };
        self.parents(&job, &target_name, &target).await?;
        self.copy(&job, &Known { source, target_name, target }).await
    }

    async fn tree(&mut self, job: &TreeJob) -> Result<(), Failure> {
        let root = job.root.source.clone();
        let mut listed = self.ask(move |zfs| zfs.source_tree(&root)).await?;
        let target = self.carrier.list_tree(&job.root.target, self.stop).await?;
        let mut wanted = job.root.wanted.clone();
        if let Wanted::Taken(name) = wanted {
            let wished: Vec<_> =
                listed.iter().map(|it| (it.state.dataset.clone(), it.excluded)).collect();
            self.run(Side::Source, &tree_arguments(&job.members(&wished)?, &name));
            for it in &mut listed {
                with_one_more(&mut it.state, &name);
            }
            wanted = Wanted::Named(name);
        }
        let is_new = target.datasets.is_empty();
        let policy = Job { wanted: wanted.clone(), ..job.root.clone() }.policy();
        let tree = plan_tree(listed, target, &policy, &job.exclude);
        let tree = tree.map_err(|refusal| Failure::from(*refusal))?;
        self.watch.planned(&Planned::of(&tree));
        if let (true, Some(first)) = (is_new, tree.tasks.first()) {
            self.parents(&job.root, &first.target_name, &first.target).await?;
        }
        for task in tree.tasks {
            self.task(job, task, &wanted).await?;
        }
        Ok(())
    }

    async fn task(&mut self, job: &TreeJob, task: Task, wanted: &Wanted) -> Result<(), Failure> {
        let told = match task.verdict {
            Verdict::UpToDate(_) if job.root.retention.is_nothing() => return Ok(()),
            Verdict::Refused(refusal) => Err(Failure::from(*refusal)),
            Verdict::UpToDate(_) | Verdict::Carry(_) => {
                let of = job.for_dataset(&task, wanted.clone())?;
                let Task { source, target_name, target, .. } = task;
                return self.copy(&of, &Known { source, target_name, target }).await;
            }
        };
        self.watch.ended(&task.source.dataset, &told);
        Ok(())
    }

    /// The datasets that are missing above the target.
    async fn parents(
        &mut self,
        job: &Job,
        name: &DatasetName,
        target: &TargetState,
    ) -> Result<(), Failure> {
        if *target != TargetState::Absent {
            return Ok(());
        }
        let below = job.target.as_str();
        for (end, _) in below.match_indices('/') {
            // A part of a name that is one is one too.
            let Ok(above) = below[..end].parse() else { continue };
            let (parent, state) = self.carrier.list(&above, self.stop).await?;
            if state == TargetState::Absent && name.is_within(&parent) {
                self.run(Side::Target, &receive::parent_arguments(&parent));
            }
        }
        Ok(())
    }

    async fn copy(&mut self, job: &Job, known: &Known) -> Result<(), Failure> {
        let Known { source, target_name, target } = known;
        let planned = plan(source, target_name, target, &job.policy())?;
        let bytes = self.size(job, &planned).await?;
        let would = |streams| Would::Copy {
            dataset: job.source.clone(),
            target: target_name.clone(),
            streams,
            bytes,
        };
        let taken = |makes_dataset, step: &Step, properties| Receive {
            dataset: target_name.clone(),
            kind: source.kind,
            makes_dataset,
            origin: origin_of(job, target_name).filter(|_| is_clone(step)),
            properties,
        };
        match planned {
            Plan::UpToDate { .. } => self.watch.would(&would(0)),
            Plan::Resume(resume) => {
                self.watch.would(&would(1));
                let properties = self.properties(job, source.kind).await?;
                let sent = send::rest_arguments(&[], &resume.token);
                self.stream(job, &resume.step, &sent, &taken(false, &resume.step, properties));
            }
            Plan::Steps(steps) => {
                self.watch.would(&would(steps.len()));
                let mut properties = self.properties(job, source.kind).await?;
                for step in &steps {
                    let sent = send::arguments(&job.source, step);
                    let makes = step.from.is_none() || is_clone(step);
                    let taken = taken(makes, step, std::mem::take(&mut properties));
                    self.stream(job, step, &sent, &taken);
                }
            }
        }
        self.prune(job, target).await
    }

    /// What would go, of what is there now: where the target is yet to be made, nothing on either
    /// side.
    async fn prune(&mut self, job: &Job, target: &TargetState) -> Result<(), Failure> {
        let Retention { source, target: of_target, .. } = &job.retention;
        let pruned = if *target == TargetState::Absent {
            let nothing = |_: &Rules| Report::default();
            Pruned { source: source.as_ref().map(nothing), target: of_target.as_ref().map(nothing) }
        } else {
            let Some(session) = self.carrier.standing() else { return Ok(()) };
            let ends = (&job.source, &job.target);
            after_copy(session, self.zfs, ends, &job.retention, None).await?
        };
        let Pruned { source, target } = pruned;
        let source = source.map(|report| (Side::Source, report));
        let target = target.map(|report| (Side::Target, report));
        for (side, report) in source.into_iter().chain(target) {
            self.watch.would(&Would::Prune { side, report });
        }
        Ok(())
    }

    /// The commands of one stream.
    fn stream(&self, job: &Job, step: &Step, sent: &[String], taken: &Receive) {
        let (tag, held) = (tag_of(&job.target_text), needed(step).cloned().collect::<Vec<_>>());
        self.run(Side::Source, &hold::arguments("hold", &job.source, &held, &tag));
        self.run(Side::Source, sent);
        self.run(Side::Target, &receive::arguments(taken));
        self.run(Side::Source, &hold::arguments("release", &job.source, &held, &tag));
    }

    /// What the first stream would take along.
    async fn properties(&mut self, job: &Job, kind: Kind) -> Result<Properties, Failure> {
        let (dataset, names) = (job.source.clone(), job.properties.clone());
        let set = self.ask(move |zfs| zfs.properties(&dataset, &names)).await?;
        job.checked(&set, kind)
    }

    fn run(&self, side: Side, words: &[String]) {
        self.watch.would(&Would::Run { side, command: call(words) });
    }

    /// About how many bytes would be sent, where that can be known.
    async fn size(&mut self, job: &Job, planned: &Plan) -> Result<Option<Bytes>, Failure> {
        let (dataset, planned) = (job.source.clone(), planned.clone());
        self.ask(move |zfs| {
            Ok(match &planned {
                Plan::UpToDate { .. } => None,
                Plan::Resume(resume) => match zfs.rest_of(&resume.token)? {
                    Rest::Sendable(bytes) => bytes,
                    Rest::Dead(_) => None,
                },
                Plan::Steps(steps) => {
                    let sizes = steps.iter().map(|step| size_of(zfs, &dataset, step));
                    sizes.sum::<Option<u64>>().map(Bytes)
                }
            })
        })
        .await
    }

    /// Asks the source, and keeps the session alive meanwhile.
    async fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Zfs) -> Result<T, ZfsError> + Send + 'static,
    ) -> Result<T, Failure> {
        let zfs = self.zfs.clone();
        self.carrier.meanwhile(drive(move || work(&zfs))).await
    }
}

fn is_clone(step: &Step) -> bool {
    matches!(step.from, Some(Base::Origin { .. }))
}

/// What a clone would be made from, by its full name at the target.
fn origin_of(job: &Job, target: &DatasetName) -> Option<String> {
    let held = &job.clone_of.as_ref()?.held;
    let root = target.as_str().strip_suffix(job.target.as_str())?;
    Some(format!("{root}{}@{}", held.dataset.as_str(), held.snapshot))
}

/// How long the stream of a step would be; of a snapshot that is not there yet, how much has been
/// written that would be in it.
fn size_of(zfs: &Zfs, dataset: &DatasetName, step: &Step) -> Option<u64> {
    let bytes = match &step.from {
        _ if step.to.guid != NOT_YET => zfs.estimate(dataset, step).ok(),
        Some(Base::Snapshot(base)) => zfs.written_since(dataset, &base.name).ok().flatten(),
        _ => zfs.referenced(dataset).ok(),
    };
    bytes.map(|bytes| bytes.0)
}

/// The guid of a snapshot that would be taken: ZFS gives no snapshot this one.
const NOT_YET: Guid = Guid(0);

/// What a source would hold with a snapshot that would be taken.
fn with_one_more(source: &mut SourceState, name: &SnapName) {
    source.snapshots.push(Snapshot { name: name.clone(), guid: NOT_YET, createtxg: u64::MAX });
}
