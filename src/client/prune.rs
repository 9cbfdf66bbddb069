//! Prunes both sides of a copy, once that has ended well.
//!
//! Each side by rules of its own. The newest snapshot that both have by guid decides: nothing is
//! destroyed that is newer, on either side, and without one nothing at all. It is the one that has
//! just arrived, as the server has read it back; else both sides are listed anew. What must never
//! happen here: a pruning after a copy that did not end well.

use std::collections::HashSet;

use super::Session;
use crate::dataset::{DatasetName, Guid};
use crate::error::{Class, Failure, Side};
use crate::listing::TargetState;
use crate::protocol::message::RelativeName;
use crate::protocol::prune::Prune as Wish;
use crate::retention::{Far, Report, Rules};
use crate::zfs::prune::Prune;
use crate::zfs::{Zfs, ZfsError};

/// What is to stay on both sides; `None`: everything.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// At the source.
    pub source: Option<Rules>,
    /// At the target. The server may keep more.
    pub target: Option<Rules>,
    /// Nothing is destroyed, only said.
    pub dry_run: bool,
}

/// What was pruned; `None` where nothing was to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// At the source.
    pub source: Option<Report>,
    /// At the target.
    pub target: Option<Report>,
}

impl Retention {
    /// Whether there is nothing to do.
    pub fn is_nothing(&self) -> bool {
        self.source.is_none() && self.target.is_none()
    }
}

/// Prunes `source` on this host and `target` on the server's, after a copy from one to the other
/// that ended well. `arrived` is what it was seen to bring in this very moment, if it did. What
/// could not be done on a side is in its report; fails if the session does.
pub async fn after_copy(
    session: &mut Session,
    zfs: &Zfs,
    (source, target): (&DatasetName, &RelativeName),
    retention: &Retention,
    arrived: Option<Guid>,
) -> Result<Pruned, Failure> {
    let mut pruned = Pruned::default();
    if retention.is_nothing() {
        return Ok(pruned);
    }
    let common = match arrived {
        Some(arrived) => Some(arrived),
        None => newest_common(session, zfs, source, target).await?,
    };
    if let Some(rules) = &retention.target {
        pruned.target = Some(match common {
            Some(newest_common) => {
                let Rules { keep, template } = rules.clone();
                let (dataset, dry_run) = (target.clone(), retention.dry_run);
                session.prune(Wish { dataset, keep, template, newest_common, dry_run }).await?
            }
            None => nothing_in_common(source, Side::Target),
        });
    }
    if let Some(rules) = &retention.source {
        pruned.source = Some(match common {
            Some(guid) => at_source(session, zfs, source, guid, rules, retention.dry_run).await,
            None => nothing_in_common(source, Side::Source),
        });
    }
    Ok(pruned)
}

/// The newest snapshot of the source that the target has as well.
async fn newest_common(
    session: &mut Session,
    zfs: &Zfs,
    source: &DatasetName,
    target: &RelativeName,
) -> Result<Option<Guid>, Failure> {
    let (_, there) = session.list(target.clone()).await?;
    let TargetState::Present { snapshots: there, .. } = there else { return Ok(None) };
    let dataset = source.clone();
    let here = meanwhile(session, zfs, move |zfs| zfs.snapshots(&dataset)).await?;
    let there: HashSet<Guid> = there.into_iter().map(|snapshot| snapshot.guid).collect();
    let mut newest_first = here.into_iter().rev().map(|snapshot| snapshot.guid);
    Ok(newest_first.find(|guid| there.contains(guid)))
}

async fn at_source(
    session: &mut Session,
    zfs: &Zfs,
    source: &DatasetName,
    common: Guid,
    rules: &Rules,
    dry_run: bool,
) -> Report {
    let (dataset, rules) = (source.clone(), rules.clone());
    let done = meanwhile(session, zfs, move |zfs| {
        let prune = Prune { rules: &rules, far: Far::Holds(common), floor: None, dry_run };
        zfs.prune(Side::Source, &dataset, &prune)
    });
    done.await.map_or_else(Report::from, |pruned| pruned.report)
}

fn nothing_in_common(source: &DatasetName, side: Side) -> Report {
    let what = format!("{source} and its target have no snapshot in common: nothing is pruned");
    Failure::new(side, Class::Refused, what).into()
}

/// Drives `zfs` on another thread, and keeps the session alive meanwhile.
async fn meanwhile<T: Send + 'static>(
    session: &mut Session,
    zfs: &Zfs,
    work: impl FnOnce(&Zfs) -> Result<T, ZfsError> + Send + 'static,
) -> Result<T, Failure> {
    let zfs = zfs.clone();
    let work = tokio::task::spawn_blocking(move || work(&zfs));
    match session.meanwhile(work).await {
        Ok(result) => result.map_err(|error| error.on(Side::Source)),
        Err(panicked) => {
            Err(Failure::new(Side::Source, Class::Internal, format!("drive zfs: {panicked}")))
        }
    }
}
