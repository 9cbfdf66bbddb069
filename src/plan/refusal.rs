//! Why there is no plan, in words that an operator can act on.
//!
//! Every refusal keeps the names and guids that it was made from and offers a remedy. A remedy may
//! be a command that destroys something: that is why it is a text for a person, and why nothing in
//! zferry may ever run it.

use std::fmt;

use super::Unresumable;
use crate::dataset::{DatasetName, Guid, Kind, NameError, SnapName, typed};
use crate::error::{Class, Failure, Side};
use crate::listing::Snapshot;

/// The two datasets that a plan was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides {
    /// The one that is to be replicated.
    pub source: DatasetName,
    /// The one that is to receive.
    pub target: DatasetName,
}

/// A snapshot by both its names: the one that people gave and the one that ZFS goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name behind the `@`.
    pub name: SnapName,
    /// Its identity on every pool.
    pub guid: Guid,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The source has no snapshot.
    #[error("{dataset} has no snapshot to send")]
    NothingToSend {
        /// The source.
        dataset: DatasetName,
    },
    /// All snapshots of the source are left out.
    #[error("none of the {count} snapshots of {dataset} is to be copied, by what their names say")]
    NoneChosen {
        /// The source.
        dataset: DatasetName,
        /// How many it has.
        count: usize,
    },
    /// The owner leaves out the root of a tree, and nothing below it is brought back.
    #[error(
        "nothing of {dataset} is to be copied: zferry:replicate=off leaves it out, and all below it"
    )]
    AllLeftOut {
        /// The root of the source.
        dataset: DatasetName,
    },
    /// What the target has under another name, and was this dataset once.
    #[error(
        "{} is not there, but {was} has snapshots of {}: that was renamed since", .sides.target,
        .sides.source
    )]
    Renamed {
        /// Both datasets.
        sides: Box<Sides>,
        /// The one of the target that holds it.
        was: DatasetName,
    },
    /// The name would be too long at the target.
    #[error("{dataset} cannot have its place at the target: {why}")]
    NoName {
        /// The source.
        dataset: DatasetName,
        /// What is wrong with the name there.
        why: NameError,
    },
    /// The source has no snapshot of the name that was asked for.
    #[error("{dataset} has no snapshot @{name}{}", or_near(.near))]
    UnknownSnapshot {
        /// The source.
        dataset: DatasetName,
        /// The name that was asked for.
        name: SnapName,
        /// Names that may have been meant, nearest first.
        near: Vec<SnapName>,
    },
    /// One is a filesystem, the other a volume.
    #[error(
        "{} is a {target_kind}, but {} is a {source_kind}", .sides.target, .sides.source
    )]
    OtherKind {
        /// Both datasets.
        sides: Box<Sides>,
        /// What the source is.
        source_kind: Kind,
        /// What the target is.
        target_kind: Kind,
    },
    /// An interrupted `zfs receive -s` left its state in the target, and it is none that this job
    /// can go on from.
    #[error(
        "{} holds the state of an interrupted receive that cannot be gone on from: {why}",
        .sides.target
    )]
    PartlyReceived {
        /// Both datasets.
        sides: Box<Sides>,
        /// What is wrong with it.
        why: Box<Unresumable>,
    },
    /// The target exists without any snapshot: `zfs receive` takes neither a full stream (it
    /// exists) nor an incremental one (there is no base).
    #[error(
        "{} exists and has no snapshot: a full stream is received only where nothing is yet",
        .sides.target
    )]
    Empty {
        /// Both datasets.
        sides: Box<Sides>,
    },
    /// No snapshot of the target is known to the source.
    #[error(
        "{} and {} have no snapshot in common: the newest of the target is {}, the newest of the \
         source is {}",
        .sides.target, .sides.source, .target_newest, .source_newest
    )]
    Unrelated {
        /// Both datasets.
        sides: Box<Sides>,
        /// The target's newest snapshot.
        target_newest: Told,
        /// The source's newest snapshot.
        source_newest: Told,
    },
    /// The target was sent the snapshots of an encrypted source in clear: ZFS takes no raw stream
    /// on top of those, and what was encrypted is never sent in clear here.
    #[error(
        "{} is encrypted and is sent raw, but {} holds its {common} unencrypted: raw and other \
         streams do not mix on one target",
        .sides.source, .sides.target
    )]
    InClear {
        /// Both datasets.
        sides: Box<Sides>,
        /// The newest that both have, as the target names it.
        common: Told,
    },
    /// The target went on by itself after the newest snapshot that both have.
    #[error(
        "{} has gone its own way: its newest snapshot {} is unknown to {}, whose newest is {}; \
         the newest that both have is {}",
        .sides.target, .target_newest, .sides.source, .source_newest, .common
    )]
    Diverged {
        /// Both datasets.
        sides: Box<Sides>,
        /// The target's newest snapshot.
        target_newest: Told,
        /// The newest that both have, as the target names it.
        common: Told,
        /// The source's newest snapshot.
        source_newest: Told,
    },
    /// The goal is older than what the target has of the source already, and not among it.
    #[error(
        "{} lacks {} and can no longer receive it: it holds the newer {} already",
        .sides.target, .goal, .common
    )]
    Behind {
        /// Both datasets.
        sides: Box<Sides>,
        /// The snapshot that was asked for.
        goal: Told,
        /// The newest that both have, as the target names it.
        common: Told,
    },
    /// The target has another snapshot of the same name.
    #[error(
        "{} has another snapshot of the name @{} (guid {held_guid}) than {} (guid {})",
        .sides.target, .wanted.name, .sides.source, .wanted.guid
    )]
    NameTaken {
        /// Both datasets.
        sides: Box<Sides>,
        /// The snapshot that was to be sent.
        wanted: Told,
        /// The guid of the target's snapshot of that name.
        held_guid: Guid,
    },
}

impl Refusal {
    /// What the operator can do, as an order or a command to type.
    pub fn remedy(&self) -> String {
        match self {
            Refusal::NothingToSend { dataset } => {
                format!("take a snapshot first: zfs snapshot {}", typed(&format!("{dataset}@NAME")))
            }
            Refusal::NoneChosen { dataset, .. } => format!(
                "change --include-snapshot or --exclude-snapshot, or look what there is: zfs list \
                 -t snapshot -o name,creation {}",
                typed(dataset.as_str())
            ),
            Refusal::AllLeftOut { dataset } => {
                let name = typed(dataset.as_str());
                format!(
                    "see where that is set: zfs get -r -s local,received,inherited \
                     zferry:replicate {name}; what is to be copied all the same: zfs set \
                     zferry:replicate=on {name}"
                )
            }
            Refusal::NoName { .. } => {
                "choose a target with a shorter name, or leave it out: --exclude-dataset".to_owned()
            }
            Refusal::Renamed { sides, was } => format!(
                "rename it on the target as well, so that what it holds is not sent again: zfs \
                 rename {} {}",
                typed(was.as_str()),
                typed(sides.target.as_str())
            ),
            Refusal::UnknownSnapshot { dataset, .. } => {
                format!(
                    "choose one of: zfs list -t snapshot -o name,creation {}",
                    typed(dataset.as_str())
                )
            }
            Refusal::OtherKind { source_kind, .. } => {
                format!("choose a target that is a {source_kind} or does not exist yet")
            }
            Refusal::PartlyReceived { sides, why } => why.remedy(sides),
            Refusal::Empty { sides } => format!(
                "choose a target that does not exist yet; or, if nothing in it is needed, on the \
                 target: zfs destroy {}",
                typed(sides.target.as_str())
            ),
            Refusal::Unrelated { sides, .. } | Refusal::InClear { sides, .. } => format!(
                "choose a target that does not exist yet; or keep the old one under another name, \
                 on the target: zfs rename {} {}",
                typed(sides.target.as_str()),
                typed(&format!("{}.old", sides.target))
            ),
            Refusal::Diverged { sides, common, .. } => format!(
                "look what the target has gained since then; if it may be lost, on the target: \
                 zfs rollback -r {}",
                typed(&sides.target.at(&common.name))
            ),
            Refusal::Behind { sides, goal, .. } => {
                format!("send {} to a target of its own", typed(&sides.source.at(&goal.name)))
            }
            Refusal::NameTaken { sides, wanted, .. } => format!(
                "rename the one on the target: zfs rename {} {}",
                typed(&sides.target.at(&wanted.name)),
                typed(&format!("{}-other", sides.target.at(&wanted.name)))
            ),
        }
    }

    /// Whether an abandoned part of a snapshot of ours is all that is in the way.
    pub fn is_dead_token(&self) -> bool {
        matches!(self, Refusal::PartlyReceived { why, .. } if why.is_dead())
    }

    /// Where the operator has to look.
    fn side(&self) -> Side {
        match self {
            Refusal::NothingToSend { .. }
            | Refusal::NoneChosen { .. }
            | Refusal::AllLeftOut { .. }
            | Refusal::UnknownSnapshot { .. } => Side::Source,
            _ => Side::Target,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::new(refusal.side(), Class::Refused, refusal.to_string())
            .with_remedy(refusal.remedy())
    }
}

impl From<&Snapshot> for Told {
    fn from(snapshot: &Snapshot) -> Told {
        Told { name: snapshot.name.clone(), guid: snapshot.guid }
    }
}

impl fmt::Display for Told {
    /// `@name (guid 123)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{} (guid {})", self.name, self.guid)
    }
}

fn or_near(near: &[SnapName]) -> String {
    match near {
        [] => String::new(),
        near => {
            let near: Vec<String> = near.iter().map(|name| format!("@{name}")).collect();
            format!("; did you mean {}?", near.join(" or "))
        }
    }
}
