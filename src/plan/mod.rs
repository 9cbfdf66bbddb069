//! From what both sides hold to the steps that make the target hold what is wanted.
//!
//! Pure: listings and a policy go in, steps or a refusal come out. Snapshots are matched by guid,
//! never by name. Nothing here runs `zfs`, and nothing here ever plans to destroy, roll back or
//! overwrite: where only that would help, the refusal says so and leaves it to the operator.

use crate::dataset::{DatasetName, Guid, SnapName};
use crate::listing::{Bookmark, OriginSnapshot, Snapshot, SourceState, TargetState};
use crate::pattern::Chosen;

mod near;
mod refusal;
mod resume;
#[cfg(test)]
mod tests;
pub mod tree;

pub use refusal::{Refusal, Sides, Told};
pub use resume::{Resume, Unresumable};

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which snapshot the target shall hold in the end.
    pub goal: Goal,
    /// Whether every snapshot on the way to the goal is sent too, or the goal alone.
    pub intermediates: bool,
    /// Which snapshots are sent. One that is asked for by its name is sent whatever this says, and
    /// any is a base.
    pub chosen: Chosen,
}

/// Which snapshot the target shall hold in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The newest one of the source.
    Newest,
    /// The one of this name.
    Named(SnapName),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the target holds the goal.
    UpToDate {
        /// The goal, as the source names it.
        snapshot: Snapshot,
    },
    /// The target has a part of a snapshot: send the rest of it, then list and plan anew.
    Resume(Box<Resume>),
    /// One stream after the other, at least one.
    Steps(Vec<Step>),
}

/// One stream, and with it one snapshot: ZFS's resume state covers no more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The snapshot that the target holds after this step.
    pub to: Snapshot,
    /// What the stream builds on; a full stream builds on nothing.
    pub from: Option<Base>,
    /// Whether the blocks travel encrypted as they lie on disk (`zfs send -w`).
    pub raw: bool,
}

/// What an incremental stream builds on. The target holds a snapshot of the same guid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A snapshot of the source.
    Snapshot(Snapshot),
    /// A bookmark of the source, whose snapshot is gone there.
    Bookmark(Bookmark),
    /// A snapshot of another dataset, which the source was cloned from. The stream makes a clone:
    /// the target does not exist yet, and what it is cloned from does.
    Origin {
        /// The other dataset, on the source's pool.
        dataset: DatasetName,
        /// Its snapshot.
        snapshot: Snapshot,
    },
}

impl Base {
    /// What a clone is made from.
    fn of_origin(origin: &OriginSnapshot) -> Base {
        let OriginSnapshot { dataset, snapshot } = origin.clone();
        Base::Origin { dataset, snapshot }
    }

    /// The guid of what the target must hold: as its newest, or as its origin.
    pub fn guid(&self) -> Guid {
        match self {
            Base::Snapshot(snapshot) | Base::Origin { snapshot, .. } => snapshot.guid,
            Base::Bookmark(bookmark) => bookmark.guid,
        }
    }

    /// Its place in time on the source.
    pub fn createtxg(&self) -> u64 {
        match self {
            Base::Snapshot(snapshot) | Base::Origin { snapshot, .. } => snapshot.createtxg,
            Base::Bookmark(bookmark) => bookmark.createtxg,
        }
    }
}

/// Plans how `target`, the dataset named `target_name`, comes to hold the goal of `policy`.
///
/// A target that does not exist gets a full stream first, or is made a clone of what the source is
/// a clone of; any other gets incrementals on top of its newest snapshot, which therefore must be
/// known to the source. A part of a snapshot that an interrupted receive has left is finished
/// before anything else, or in the way of all.
pub fn plan(
    source: &SourceState,
    target_name: &DatasetName,
    target: &TargetState,
    policy: &Policy,
) -> Result<Plan, Refusal> {
    let sides = Sides { source: source.dataset.clone(), target: target_name.clone() };
    let goal = find_goal(source, policy)?;
    let (held, resume_token) = match target {
        TargetState::Absent => {
            let origin = source.origin.as_ref().map(Base::of_origin);
            let way = way(source, origin.as_ref(), goal, policy);
            return Ok(Plan::Steps(steps(source, origin, way)));
        }
        TargetState::Present { kind, .. } if *kind != source.kind => {
            let (sides, source_kind) = (Box::new(sides), source.kind);
            return Err(Refusal::OtherKind { sides, source_kind, target_kind: *kind });
        }
        TargetState::Present { snapshots, resume_token, .. } => (snapshots, resume_token),
    };
    let in_clear = matches!(target, TargetState::Present { encrypted: false, .. });
    if held.iter().any(|snapshot| snapshot.guid == goal.guid) {
        return Ok(Plan::UpToDate { snapshot: goal.clone() });
    }
    if let Some(token) = resume_token {
        let resume = resume::resume(source, &sides, held, goal, token)?;
        return Ok(Plan::Resume(Box::new(resume)));
    }
    let sides = Box::new(sides);
    let base = find_base(source, held, goal, sides.clone())?;
    // Where it was received in clear below an encrypted dataset it is encrypted too. That the IV
    // sets of its snapshots are others than at the source only ZFS knows, and says so at once.
    if let (true, true, Some(common)) = (source.encrypted, in_clear, held.last()) {
        return Err(Refusal::InClear { sides, common: common.into() });
    }
    let wanted: Vec<&Snapshot> = way(source, Some(&base), goal, policy)
        .into_iter()
        .filter(|wanted| held.iter().all(|snapshot| snapshot.guid != wanted.guid))
        .collect();
    refuse_taken_names(&wanted, held, sides)?;
    Ok(Plan::Steps(steps(source, Some(base), wanted)))
}

fn find_goal<'a>(source: &'a SourceState, policy: &Policy) -> Result<&'a Snapshot, Refusal> {
    if source.snapshots.is_empty() {
        return Err(Refusal::NothingToSend { dataset: source.dataset.clone() });
    }
    let is_chosen = |snapshot: &&Snapshot| policy.chosen.takes(&snapshot.name);
    match &policy.goal {
        Goal::Newest => source.snapshots.iter().rev().find(is_chosen).ok_or_else(|| {
            let (dataset, count) = (source.dataset.clone(), source.snapshots.len());
            Refusal::NoneChosen { dataset, count }
        }),
        Goal::Named(name) => {
            source.snapshots.iter().find(|snapshot| snapshot.name == *name).ok_or_else(|| {
                Refusal::UnknownSnapshot {
                    dataset: source.dataset.clone(),
                    name: name.clone(),
                    near: near::names(name, &source.snapshots),
                }
            })
        }
    }
}

/// The source's snapshot or bookmark of the target's newest snapshot.
///
/// The target's newest and no other: an incremental on top of an older one would need a rollback,
/// which destroys what the target holds since then.
fn find_base(
    source: &SourceState,
    held: &[Snapshot],
    goal: &Snapshot,
    sides: Box<Sides>,
) -> Result<Base, Refusal> {
    let Some(target_newest) = held.last() else {
        return Err(Refusal::Empty { sides });
    };
    let common = held.iter().rev().find_map(|held| Some((held, known_base(source, held.guid)?)));
    let Some((common, base)) = common else {
        return Err(Refusal::Unrelated {
            sides,
            target_newest: target_newest.into(),
            // There is a goal, so there is a newest.
            source_newest: source.snapshots.last().unwrap_or(goal).into(),
        });
    };
    if base.createtxg() >= goal.createtxg {
        return Err(Refusal::Behind { sides, goal: goal.into(), common: common.into() });
    }
    if common.guid != target_newest.guid {
        return Err(Refusal::Diverged {
            sides,
            target_newest: target_newest.into(),
            common: common.into(),
            source_newest: source.snapshots.last().unwrap_or(goal).into(),
        });
    }
    Ok(base)
}

/// What the source holds of the snapshot with this guid; a bookmark only where the snapshot itself
/// is gone, for not every pool can send raw from a bookmark (feature `bookmark_v2`).
fn known_base(source: &SourceState, guid: Guid) -> Option<Base> {
    let snapshot = source.snapshots.iter().find(|snapshot| snapshot.guid == guid);
    let bookmark = || source.bookmarks.iter().find(|bookmark| bookmark.guid == guid);
    snapshot.cloned().map(Base::Snapshot).or_else(|| bookmark().cloned().map(Base::Bookmark))
}

/// The snapshots to send, oldest first: after `base`, up to `goal`, or only the goal itself.
///
/// Without a base the way begins at the oldest snapshot of the source.
fn way<'a>(
    source: &'a SourceState,
    base: Option<&Base>,
    goal: &'a Snapshot,
    policy: &Policy,
) -> Vec<&'a Snapshot> {
    if !policy.intermediates {
        return vec![goal];
    }
    let is_after_base = |snapshot: &Snapshot| {
        base.is_none_or(|base| {
            snapshot.createtxg > base.createtxg() && snapshot.guid != base.guid()
        })
    };
    let until_goal = source.snapshots.iter().take_while(|snapshot| snapshot.guid != goal.guid);
    let is_on_the_way =
        |snapshot: &&Snapshot| is_after_base(snapshot) && policy.chosen.takes(&snapshot.name);
    until_goal.filter(is_on_the_way).chain([goal]).collect()
}

/// A name can be given only once at the target; ZFS would say so after the whole stream.
fn refuse_taken_names(
    wanted: &[&Snapshot],
    held: &[Snapshot],
    sides: Box<Sides>,
) -> Result<(), Refusal> {
    let taken = wanted.iter().find_map(|wanted| {
        held.iter().find(|held| held.name == wanted.name).map(|held| (*wanted, held))
    });
    match taken {
        Some((wanted, held)) => {
            Err(Refusal::NameTaken { sides, wanted: wanted.into(), held_guid: held.guid })
        }
        None => Ok(()),
    }
}

/// One step for each of `wanted`, each built on the one before.
fn steps(source: &SourceState, base: Option<Base>, wanted: Vec<&Snapshot>) -> Vec<Step> {
    let mut from = base;
    let step = |to: &Snapshot| Step {
        to: to.clone(),
        from: from.replace(Base::Snapshot(to.clone())),
        raw: source.encrypted,
    };
    wanted.into_iter().map(step).collect()
}
