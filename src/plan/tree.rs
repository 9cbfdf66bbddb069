//! From two trees to what is to be done for each dataset, in an order that ZFS can follow.
//!
//! A dataset of the source belongs to the one of the same name below the target's root; what either
//! holds is compared by guid, as for one dataset alone. What must never happen here: that one
//! dataset's trouble is another's, and that a dataset is made anew at the target which that has
//! under another name.

mod order;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use self::order::{Waits, ordered};
use super::{Goal, Plan, Policy, Refusal, Sides, plan};
use crate::dataset::{DatasetName, Guid, NameError};
use crate::listing::{
    OriginSnapshot, Snapshot, SourceDataset, SourceState, TargetState, TargetTree,
};
use crate::pattern::Pattern;

/// What is to be done for a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// A task for each dataset, those that others wait for before them.
    pub tasks: Vec<Task>,
    /// The datasets that are left out.
    pub left_out: Vec<(DatasetName, LeftOut)>,
    /// What the target has and the source has not (any more): nobody touches it.
    pub extra: Vec<DatasetName>,
}

/// What is to be done for one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What the source holds.
    pub source: SourceState,
    /// Its name below the root: `a/b`, empty for the root itself.
    pub below: String,
    /// Its full name at the target.
    pub target_name: DatasetName,
    /// What the target holds.
    pub target: TargetState,
    /// What is to be done.
    pub verdict: Verdict,
    /// The tasks, by their places, that must be done before: what a dataset lies in, and what a
    /// clone was made from, must be there.
    pub after: Vec<usize>,
}

/// What is to be done for one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the target holds this.
    UpToDate(Snapshot),
    /// This many streams are to be sent, as far as can be known before the first.
    Carry(usize),
    /// There is no way, for now.
    Refused(Box<Refusal>),
}

/// Why a dataset is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// By `--exclude-dataset`, it or one above it.
    Asked,
    /// By its own property.
    Property,
    /// It has no snapshot that could be sent.
    NoSnapshot(Lack),
}

/// Why a dataset has no snapshot that could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lack {
    /// It has none at all, and none is taken.
    HasNone,
    /// None of those that it has is to be copied, by what their names say.
    NoneChosen,
    /// It has none of the name that was asked for.
    NotNamed,
    /// It was made after a snapshot was taken of all others.
    TooNew,
}

impl Task {
    /// What this one is a clone of, if the target has yet to make it of that.
    pub fn needs(&self) -> Option<&DatasetName> {
        match &self.target {
            TargetState::Present { snapshots, .. } if !snapshots.is_empty() => None,
            _ => self.source.origin.as_ref().map(|origin| &origin.dataset),
        }
    }
}

/// A dataset that is to be replicated, and its counterpart.
struct Pair {
    source: SourceState,
    below: String,
    target: TargetState,
    origin: Option<OriginSnapshot>,
}

/// Plans how all of `source`, its root first, comes to lie below the root of `target`. A refusal
/// is about all of them; those about one alone are in its task.
pub fn plan_tree(
    source: Vec<SourceDataset>,
    target: TargetTree,
    policy: &Policy,
    exclude: &[Pattern],
) -> Result<Tree, Box<Refusal>> {
    let TargetTree { root: target_root, datasets } = target;
    let Some(first) = source.first() else {
        return Ok(Tree { tasks: Vec::new(), left_out: Vec::new(), extra: Vec::new() });
    };
    let root = first.state.dataset.clone();
    let mut targets: HashMap<String, (DatasetName, TargetState)> = datasets
        .into_iter()
        .filter_map(|it| {
            let below = below(&target_root, &it.dataset)?.to_owned();
            Some((below, (it.dataset, it.state)))
        })
        .collect();
    let mut left_out = Vec::new();
    let mut pairs = Vec::new();
    let mut refusal = None;
    let origins = origins(&source);
    for (SourceDataset { state, excluded, .. }, origin) in source.into_iter().zip(origins) {
        let below = below(&root, &state.dataset).unwrap_or_default().to_owned();
        let counterpart = targets.remove(&below).map(|(_, state)| state);
        let why = match super::find_goal(&state, policy) {
            _ if is_excluded(&below, exclude) => LeftOut::Asked,
            _ if excluded => LeftOut::Property,
            Err(reason) => {
                refusal.get_or_insert(Box::new(reason));
                LeftOut::NoSnapshot(lack(&state, policy))
            }
            Ok(_) => {
                let target = counterpart.unwrap_or(TargetState::Absent);
                pairs.push(Pair { source: state, below, target, origin });
                continue;
            }
        };
        left_out.push((state.dataset, why));
    }
    if pairs.is_empty() {
        return Err(refusal.unwrap_or_else(|| Box::new(Refusal::AllLeftOut { dataset: root })));
    }
    let mut extra: Vec<DatasetName> = targets.values().map(|(name, _)| name.clone()).collect();
    extra.sort();
    let tasks = Judging::new(&target_root, policy, targets.into_values()).tasks(pairs);
    Ok(Tree { tasks, left_out, extra })
}

fn lack(source: &SourceState, policy: &Policy) -> Lack {
    match policy.goal {
        Goal::Named(_) => Lack::NotNamed,
        Goal::Newest if source.snapshots.is_empty() => Lack::HasNone,
        Goal::Newest => Lack::NoneChosen,
    }
}

/// The name below a root, without the slash; empty for the root itself.
pub fn below<'a>(root: &DatasetName, dataset: &'a DatasetName) -> Option<&'a str> {
    let rest = dataset.as_str().strip_prefix(root.as_str())?;
    match rest.strip_prefix('/') {
        Some(below) => Some(below),
        None => rest.is_empty().then_some(""),
    }
}

/// Whether a dataset below `root`, or one that it lies in, is left out by its name.
pub fn is_left_out(root: &DatasetName, dataset: &DatasetName, exclude: &[Pattern]) -> bool {
    below(root, dataset).is_some_and(|below| is_excluded(below, exclude))
}

fn is_excluded(below: &str, exclude: &[Pattern]) -> bool {
    let ends = below.match_indices('/').map(|(at, _)| at).chain([below.len()]);
    let mut names = ends.map(|end| &below[..end]);
    !below.is_empty() && names.any(|name| exclude.iter().any(|pattern| pattern.fits(name)))
}

/// For each dataset the snapshot that it was cloned from, if that is of this tree.
fn origins(source: &[SourceDataset]) -> Vec<Option<OriginSnapshot>> {
    let places: HashMap<&DatasetName, &SourceDataset> =
        source.iter().map(|it| (&it.state.dataset, it)).collect();
    let find = |it: &SourceDataset| {
        let origin = it.origin.as_ref()?;
        let snapshots = &places.get(&origin.dataset)?.state.snapshots;
        let snapshot = snapshots.iter().find(|snapshot| snapshot.name == origin.snapshot)?;
        Some(OriginSnapshot { dataset: origin.dataset.clone(), snapshot: snapshot.clone() })
    };
    source.iter().map(find).collect()
}

/// What is needed to judge dataset after dataset.
struct Judging<'a> {
    root: &'a DatasetName,
    policy: &'a Policy,
    /// The newest snapshots of datasets that the source does not have by their names.
    elsewhere: HashMap<Guid, DatasetName>,
}

impl<'a> Judging<'a> {
    fn new(
        root: &'a DatasetName,
        policy: &'a Policy,
        extra: impl Iterator<Item = (DatasetName, TargetState)>,
    ) -> Judging<'a> {
        let newest = extra.filter_map(|(name, state)| match state {
            TargetState::Present { snapshots, .. } => Some((snapshots.last()?.guid, name)),
            TargetState::Absent => None,
        });
        Judging { root, policy, elsewhere: newest.collect() }
    }

    /// The tasks, each behind those that it waits for.
    fn tasks(&self, pairs: Vec<Pair>) -> Vec<Task> {
        let mut waits = waits(&pairs);
        let order = ordered(&mut waits);
        let mut pairs: Vec<Option<Pair>> = pairs.into_iter().map(Some).collect();
        let mut places = vec![0; pairs.len()];
        let mut tasks: Vec<Task> = Vec::with_capacity(pairs.len());
        for index in order {
            let Some(pair) = pairs[index].take() else { continue };
            let waits = Waits {
                above: waits[index].above.map(|wait| places[wait]),
                origin: waits[index].origin.map(|wait| places[wait]),
            };
            places[index] = tasks.len();
            let task = self.task(pair, waits, &tasks);
            tasks.push(task);
        }
        tasks
    }

    /// `waits` are places in `before`.
    fn task(&self, pair: Pair, waits: Waits, before: &[Task]) -> Task {
        let Pair { mut source, below, target, origin } = pair;
        let of = waits.origin.map(|place| &before[place]);
        // Only what will be there is built on; a clone of anything else is sent in full.
        source.origin = origin
            .filter(|origin| of.is_some_and(|task| self.will_hold(task, origin.snapshot.guid)));
        let (target_name, verdict) = match self.name(&below) {
            Ok(name) => {
                let verdict = self.judge(&source, &name, &target);
                (name, verdict)
            }
            Err(why) => {
                let refusal = Refusal::NoName { dataset: source.dataset.clone(), why };
                (self.root.clone(), Verdict::Refused(Box::new(refusal)))
            }
        };
        // What is there already, nobody has to wait for.
        let above = waits.above.filter(|&place| before[place].target == TargetState::Absent);
        let origin = waits.origin.filter(|_| source.origin.is_some());
        let origin = origin.filter(|&place| matches!(before[place].verdict, Verdict::Carry(_)));
        let after = above.into_iter().chain(origin).collect();
        Task { source, below, target_name, target, verdict, after }
    }

    fn name(&self, below: &str) -> Result<DatasetName, NameError> {
        if below.is_empty() { Ok(self.root.clone()) } else { self.root.join(below) }
    }

    fn judge(&self, source: &SourceState, name: &DatasetName, target: &TargetState) -> Verdict {
        if let (TargetState::Absent, Some(was)) = (target, self.was(source)) {
            let sides = Sides { source: source.dataset.clone(), target: name.clone() };
            let refusal = Refusal::Renamed { sides: Box::new(sides), was: was.clone() };
            return Verdict::Refused(Box::new(refusal));
        }
        match plan(source, name, target, self.policy) {
            Ok(Plan::UpToDate { snapshot }) => Verdict::UpToDate(snapshot),
            Ok(Plan::Steps(steps)) => Verdict::Carry(steps.len()),
            Ok(Plan::Resume(_)) => Verdict::Carry(1),
            Err(refusal) => Verdict::Refused(Box::new(refusal)),
        }
    }

    /// The dataset of the target that was made from this one when that had another name.
    fn was(&self, source: &SourceState) -> Option<&DatasetName> {
        if self.elsewhere.is_empty() {
            return None;
        }
        let bookmarks = source.bookmarks.iter().map(|bookmark| bookmark.guid);
        let mut guids = source.snapshots.iter().map(|snapshot| snapshot.guid).chain(bookmarks);
        guids.find_map(|guid| self.elsewhere.get(&guid))
    }

    /// Whether the target has a snapshot, or will have it when the task is done.
    fn will_hold(&self, task: &Task, guid: Guid) -> bool {
        if let TargetState::Present { snapshots, .. } = &task.target
            && snapshots.iter().any(|snapshot| snapshot.guid == guid)
        {
            return true;
        }
        match plan(&task.source, &task.target_name, &task.target, self.policy) {
            Ok(Plan::Steps(steps)) => steps.iter().any(|step| step.to.guid == guid),
            // What comes behind the rest of a stream is planned then.
            Ok(Plan::Resume(resume)) => resume.step.to.guid == guid || self.policy.intermediates,
            Ok(Plan::UpToDate { .. }) | Err(_) => false,
        }
    }
}

/// For each pair those that must be there before it.
fn waits(pairs: &[Pair]) -> Vec<Waits> {
    let places: HashMap<&str, usize> = pairs
        .iter()
        .enumerate()
        .map(|(place, pair)| (pair.source.dataset.as_str(), place))
        .collect();
    let place = |dataset: &DatasetName| places.get(dataset.as_str()).copied();
    let of = |pair: &Pair| Waits {
        above: pair.source.dataset.parent().and_then(|above| place(&above)),
        origin: pair.origin.as_ref().and_then(|origin| place(&origin.dataset)),
    };
    pairs.iter().map(of).collect()
}
