//! Whether a partly received target can be finished from here, by its resume token.
//!
//! A token names any snapshot of any dataset, and comes from the other host. It is used only where
//! all that it says is what this job would send anyway: a snapshot of the source, on a base that
//! both hold, in the form in which this source is always sent. Guids decide; names only serve to
//! tell somebody else's state from our own whose snapshot is gone.

use std::fmt;

use super::{Base, Refusal, Sides, Step, Told, known_base, refuse_taken_names};
use crate::dataset::{DatasetName, Guid, SnapName, typed};
use crate::listing::{Snapshot, SourceState};
use crate::token::{Token, TokenError};

/// The rest of a snapshot that the target has a part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The snapshot and its base, under the names that they have now.
    pub step: Step,
    /// What `zfs send -t` needs to know.
    pub token: Token,
}

/// Why a target's partial state cannot be gone on from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresumable {
    /// Its token is none that we know.
    #[error("its resume token cannot be read: {0}")]
    Unreadable(TokenError),
    /// It was left behind by a receive that has succeeded (openzfs#8801).
    #[error("it belongs to {0}, which the target holds whole")]
    Stale(Told),
    /// It is the beginning of another dataset's snapshot.
    #[error("it belongs to {name} (guid {guid}), not to {source_name}")]
    Foreign {
        /// The snapshot that it names.
        name: String,
        /// Its guid.
        guid: Guid,
        /// The dataset that was to be replicated.
        source_name: DatasetName,
    },
    /// The source has destroyed the snapshot.
    #[error("it belongs to @{name} (guid {guid}), which no longer exists on the source")]
    SnapshotGone {
        /// What the snapshot was called.
        name: SnapName,
        /// Its guid.
        guid: Guid,
    },
    /// The source has destroyed the base and has no bookmark of it.
    #[error("{to} builds on guid {base}, of which the source has no snapshot and no bookmark left")]
    BaseGone {
        /// The snapshot that is being received.
        to: Told,
        /// The base.
        base: Guid,
    },
    /// `zfs send` found that it cannot make the rest of the stream.
    #[error("zfs cannot make the rest of its stream: {0}")]
    Unsendable(String),
    /// The target's snapshots do not end where the stream goes on.
    #[error("{to} goes on top of {}, but the newest snapshot of the target is {}",
        BaseName(.base), Newest(.newest))]
    Outgrown {
        /// The snapshot that is being received.
        to: Told,
        /// The base; `None` for a full stream.
        base: Option<Guid>,
        /// The target's newest snapshot.
        newest: Option<Told>,
    },
    /// It is newer than the snapshot that was asked for, which could not be received after it.
    #[error("it belongs to {to}, which is newer than {goal}")]
    Beyond {
        /// The snapshot that is being received.
        to: Told,
        /// The snapshot that was asked for.
        goal: Told,
    },
    /// It was sent as an encrypted source never is.
    #[error("its stream is not raw, but {0} is encrypted and never leaves this host in clear")]
    Clear(DatasetName),
    /// It was sent as only encrypted sources are.
    #[error("its stream is raw, but {0} is not encrypted")]
    Raw(DatasetName),
    /// Its stream leaves data out.
    #[error("its stream is redacted: it leaves out what redaction snapshots name")]
    Redacted,
    /// Its stream was made from a partial state itself.
    #[error("its stream was made from another partly received snapshot (zfs send -S)")]
    Saved,
}

impl Unresumable {
    /// Whether the state was ours and can never be finished: only giving it up helps.
    pub fn is_dead(&self) -> bool {
        use Unresumable::{BaseGone, SnapshotGone, Unsendable};
        matches!(self, SnapshotGone { .. } | BaseGone { .. } | Unsendable(_))
    }

    pub(super) fn remedy(&self, sides: &Sides) -> String {
        let target = typed(sides.target.as_str());
        match self {
            Unresumable::Beyond { to, .. } => format!(
                "finish that one first: --snapshot {}; or give it up, on the target: \
                 zfs receive -A {target}",
                typed(to.name.as_str())
            ),
            Unresumable::Outgrown { newest: Some(newest), .. } => format!(
                "destroy what the target has gained if nobody needs it, on the target: \
                 zfs destroy {}; or give up what was received in part: zfs receive -A {target}",
                typed(&sides.target.at(&newest.name))
            ),
            dead if dead.is_dead() => format!(
                "give up what was received of it, on the target: zfs receive -A {target}; then \
                 run this again, or run it with --on-dead-token abort-and-restart"
            ),
            _ => format!(
                "look at it, on the target: zfs get receive_resume_token {target}; if nobody \
                 needs it, give it up there: zfs receive -A {target}"
            ),
        }
    }
}

/// What is to be sent so that the target's partial state becomes a snapshot on the way to `goal`.
pub(super) fn resume(
    source: &SourceState,
    sides: &Sides,
    held: &[Snapshot],
    goal: &Snapshot,
    token: &str,
) -> Result<Resume, Refusal> {
    let refused =
        |why| Refusal::PartlyReceived { sides: Box::new(sides.clone()), why: Box::new(why) };
    let token: Token = token.parse().map_err(|why| refused(Unresumable::Unreadable(why)))?;
    let to = find_snapshot(source, held, &token).map_err(refused)?;
    if to.createtxg > goal.createtxg {
        return Err(refused(Unresumable::Beyond { to: to.into(), goal: goal.into() }));
    }
    check_form(source, &token).map_err(refused)?;
    let from = find_base(source, held, to, &token).map_err(refused)?;
    refuse_taken_names(&[to], held, Box::new(sides.clone()))?;
    let step = Step { to: to.clone(), from, raw: source.encrypted };
    Ok(Resume { step, token })
}

fn find_snapshot<'a>(
    source: &'a SourceState,
    held: &[Snapshot],
    token: &Token,
) -> Result<&'a Snapshot, Unresumable> {
    if let Some(whole) = held.iter().find(|held| held.guid == token.to) {
        return Err(Unresumable::Stale(whole.into()));
    }
    if let Some(snapshot) = source.snapshots.iter().find(|snapshot| snapshot.guid == token.to) {
        return Ok(snapshot);
    }
    let (name, guid) = (&token.to_snapshot, token.to);
    if token.to_dataset == source.dataset {
        return Err(Unresumable::SnapshotGone { name: name.clone(), guid });
    }
    let (name, source_name) = (token.to_dataset.at(name), source.dataset.clone());
    Err(Unresumable::Foreign { name, guid, source_name })
}

/// The stream goes on as it began: it must have begun as this source is sent.
fn check_form(source: &SourceState, token: &Token) -> Result<(), Unresumable> {
    match (source.encrypted, token.flags.raw) {
        _ if token.saved => Err(Unresumable::Saved),
        _ if token.redacted => Err(Unresumable::Redacted),
        (true, false) => Err(Unresumable::Clear(source.dataset.clone())),
        (false, true) => Err(Unresumable::Raw(source.dataset.clone())),
        _ => Ok(()),
    }
}

fn find_base(
    source: &SourceState,
    held: &[Snapshot],
    to: &Snapshot,
    token: &Token,
) -> Result<Option<Base>, Unresumable> {
    let newest = held.last();
    // A clone that has nothing of its own yet.
    if let (None, Some(origin)) = (newest, &source.origin)
        && token.from == Some(origin.snapshot.guid)
    {
        return Ok(Some(Base::of_origin(origin)));
    }
    if newest.map(|newest| newest.guid) != token.from {
        let (base, newest) = (token.from, newest.map(Told::from));
        return Err(Unresumable::Outgrown { to: to.into(), base, newest });
    }
    let Some(guid) = token.from else { return Ok(None) };
    let base = known_base(source, guid);
    base.map(Some).ok_or_else(|| Unresumable::BaseGone { to: to.into(), base: guid })
}

struct BaseName<'a>(&'a Option<Guid>);

impl fmt::Display for BaseName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(guid) => write!(f, "guid {guid}"),
            None => f.write_str("nothing"),
        }
    }
}

struct Newest<'a>(&'a Option<Told>);

impl fmt::Display for Newest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(told) => told.fmt(f),
            None => f.write_str("none"),
        }
    }
}
