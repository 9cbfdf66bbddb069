//! What `zfs` prints, read where there is no `zfs`: a door for tests/fuzz, which stands outside.
//!
//! Nothing but calls of the readers that the files beside this one keep to themselves. What must
//! never happen here: a reading of its own, for then another would be tested than is used.

use super::listing::Point;
use super::version::Version;
use super::{ZfsError, destroy, estimate, hold, leftover, listing, tree, version};
use crate::dataset::{DatasetName, Guid, Kind, SnapName};
use crate::listing::{Bookmark, Snapshot, SourceDataset, TargetState};
use crate::retention::Candidate;
use crate::units::Bytes;

/// A dataset's kind, and the one property that was asked for.
pub fn head(text: &str) -> Option<(Kind, String)> {
    listing::read_head(text)
}

/// All snapshots and bookmarks of a dataset, each oldest first.
pub fn points(text: &str, dataset: &DatasetName) -> Option<(Vec<Snapshot>, Vec<Bookmark>)> {
    let points: Option<Vec<_>> =
        text.lines().map(|line| listing::read_point(line, dataset)).collect();
    points.map(listing::sorted)
}

/// A snapshot, and what ties it to its pool.
pub fn candidate(line: &str, dataset: &DatasetName) -> Option<Candidate> {
    destroy::read_candidate(line, dataset)
}

/// A dataset that receives: its name, its guid, and what it holds but for its snapshots.
pub fn target(line: &str) -> Option<(&str, Guid, TargetState)> {
    let head = listing::read_target(line)?;
    Some((head.name, head.guid, head.holding(Vec::new())))
}

/// A dataset that is to be replicated, without its history; or what it says that means nothing.
pub fn source(line: &str) -> Option<Result<SourceDataset, ZfsError>> {
    let head = tree::read_source(line)?;
    let name = head.name.parse().ok()?;
    Some(head.on_its_own(name))
}

/// A snapshot or bookmark of any dataset, which is named in front of it.
pub fn any_point(line: &str) -> Option<(&str, Option<Snapshot>, Option<Bookmark>)> {
    match tree::read_any_point(line)? {
        (dataset, Point::Snapshot(snapshot)) => Some((dataset, Some(snapshot), None)),
        (dataset, Point::Bookmark(bookmark)) => Some((dataset, None, Some(bookmark))),
    }
}

/// How long a stream will be.
pub fn size(line: &str) -> Option<Bytes> {
    estimate::read_size(line)
}

/// A snapshot, the tag of a hold, and since when it is held.
pub fn hold(line: &str) -> Option<(DatasetName, SnapName, &str, String)> {
    let (dataset, snapshot, tag, since) = leftover::read_hold(line)?;
    Some((dataset, snapshot, tag, leftover::read_time(since)))
}

/// A dataset and its resume token.
pub fn token(line: &str) -> Option<(DatasetName, &str)> {
    leftover::read_token(line)
}

/// The tag of a hold of one snapshot.
pub fn tag(line: &str) -> Option<String> {
    hold::read_tag(line)
}

/// The versions of the command and of the kernel's module.
pub fn version(text: &str) -> Option<Version> {
    version::read_version(text)
}
