//! Asks what a dataset and all below it are, and which snapshots they have.
//!
//! Two calls for a whole tree, however many datasets and snapshots it has: one for the datasets and
//! one for the snapshots of all of them, which are led to their datasets here. What must never
//! happen here: a snapshot that is led to another dataset or to none, though its dataset is there;
//! and a dataset that could not be read and is taken for one that is not there.

use std::collections::HashMap;

use super::command::Output;
use super::listing::{
    Point, TARGET_COLUMNS, is_encrypted, is_value, read_kind, read_place, read_target, sort,
};
use super::texts::NO_DATASET;
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, Guid, Kind};
use crate::listing::{Bookmark, Origin, Snapshot, SourceDataset, SourceState, TargetDataset};

/// What an owner sets to `off` where a dataset and those below it are not to be replicated. ZFS
/// hands it down.
pub(super) const REPLICATE: &str = "zferry:replicate";

/// What is asked of a dataset that is to be replicated. [`REPLICATE`] comes last: it is the one
/// that anything may stand in.
const SOURCE_COLUMNS: &str = "name,type,guid,encryption,origin,zferry:replicate";

/// The snapshots and bookmarks of one dataset.
type History = (Vec<Snapshot>, Vec<Bookmark>);

impl Zfs {
    /// What a dataset that is to be replicated and those below it hold, parents first.
    pub fn source_tree(&self, root: &DatasetName) -> Result<Vec<SourceDataset>, ZfsError> {
        let list = self.ask(&arguments("filesystem,volume", SOURCE_COLUMNS, root))?;
        let heads = list.read_lines(read_source)?;
        let heads = named(heads, |head| head.name, root, &list)?;
        let mut datasets = Vec::with_capacity(heads.len());
        for (name, head) in heads {
            datasets.push(head.on_its_own(name)?);
        }
        let names = datasets.iter().map(|one| &one.state.dataset);
        let histories = self.histories("snapshot,bookmark", root, names)?;
        for (SourceDataset { state, .. }, history) in datasets.iter_mut().zip(histories) {
            (state.snapshots, state.bookmarks) = history;
        }
        Ok(datasets)
    }

    /// The names of a dataset that is to be replicated and of those below it, parents first, and of
    /// each whether its owner does not want it replicated.
    pub fn tree_members(&self, root: &DatasetName) -> Result<Vec<(DatasetName, bool)>, ZfsError> {
        let list = self.ask(&arguments("filesystem,volume", SOURCE_COLUMNS, root))?;
        let heads = named(list.read_lines(read_source)?, |head| head.name, root, &list)?;
        let member = |(name, head): (DatasetName, SourceHead)| {
            let SourceDataset { state, excluded, .. } = head.on_its_own(name)?;
            Ok((state.dataset, excluded))
        };
        heads.into_iter().map(member).collect()
    }

    /// What a dataset that is to receive and those below it hold, parents first: nothing where it
    /// does not exist. That its pool does not exist is an error.
    pub fn target_tree(&self, root: &DatasetName) -> Result<Vec<TargetDataset>, ZfsError> {
        let list = self.run(&arguments("filesystem,volume", TARGET_COLUMNS, root))?;
        // Word by word: of one below it that is gone by now, `zfs` may say the same.
        let gone = format!("cannot open '{root}': {NO_DATASET}");
        if !list.ended.success() && list.ended.stderr.lines().any(|line| line == gone) {
            return self.absent(root).map(|_absent| Vec::new());
        }
        if !list.ended.success() {
            return Err(list.failed());
        }
        let heads = list.read_lines(read_target)?;
        let heads = named(heads, |head| head.name, root, &list)?;
        let names = heads.iter().map(|(name, _)| name);
        let histories = self.histories("snapshot", root, names)?;
        let datasets = heads.into_iter().zip(histories).map(|((dataset, head), (snapshots, _))| {
            TargetDataset { dataset, state: head.holding(snapshots) }
        });
        Ok(datasets.collect())
    }

    /// The history of each of these datasets, in their order.
    fn histories<'a>(
        &self,
        types: &str,
        root: &DatasetName,
        names: impl Iterator<Item = &'a DatasetName>,
    ) -> Result<Vec<History>, ZfsError> {
        let places: HashMap<&str, usize> = names.map(DatasetName::as_str).zip(0..).collect();
        let mut histories: Vec<History> = vec![Default::default(); places.len()];
        // The columns that `zfs` knows without reading each snapshot's properties.
        let columns = "name,guid,createtxg";
        let list = self.ask(&arguments(types, columns, root))?;
        for line in list.text.lines() {
            let (dataset, point) = read_any_point(line).ok_or_else(|| list.unreadable(line))?;
            match (places.get(dataset), point) {
                (Some(&place), Point::Snapshot(snapshot)) => histories[place].0.push(snapshot),
                (Some(&place), Point::Bookmark(bookmark)) => histories[place].1.push(bookmark),
                // Of one that was made after the datasets were listed: a moment earlier it would
                // not be here at all.
                (None, _) if below(root, dataset).is_some() => {}
                (None, _) => return Err(list.unreadable(line)),
            }
        }
        for (snapshots, bookmarks) in &mut histories {
            sort(snapshots, bookmarks);
            // There may be millions, and they stay for as long as the tree is replicated.
            snapshots.shrink_to_fit();
        }
        Ok(histories)
    }
}

/// Asks for all of these types at and below a root. Snapshots come in the order of their making,
/// whichever dataset they are of.
fn arguments<'a>(types: &'a str, columns: &'a str, root: &'a DatasetName) -> Vec<&'a str> {
    let sort: &[_] = if types.starts_with("snapshot") { &["-s", "createtxg"] } else { &[] };
    let head = ["list", "-Hp", "-r", "-t", types, "-o", columns];
    [&head, sort, &["--", root.as_str()]].concat()
}

/// What was read of each dataset behind its name, parents first. Every name must lie within the
/// root, which must be there, and none may be there twice.
fn named<H>(
    heads: Vec<H>,
    name: impl for<'a> Fn(&'a H) -> &'a str,
    root: &DatasetName,
    list: &Output,
) -> Result<Vec<(DatasetName, H)>, ZfsError> {
    let mut named = Vec::with_capacity(heads.len());
    for head in heads {
        let full = below(root, name(&head)).ok_or_else(|| list.unreadable(name(&head)))?;
        named.push((full, head));
    }
    // A parent's name is the beginning of its child's.
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    let twice = named.windows(2).find(|two| two[0].0 == two[1].0);
    match (named.first(), twice) {
        (Some((first, _)), None) if first == root => Ok(named),
        (_, Some(two)) => Err(list.unreadable(two[0].0.as_str())),
        (_, None) => Err(list.unreadable("")),
    }
}

/// A name, if it is one of a dataset at or below the root.
fn below(root: &DatasetName, name: &str) -> Option<DatasetName> {
    name.parse().ok().filter(|name: &DatasetName| name.is_within(root))
}

/// A dataset that is to be replicated, as its line has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceHead<'a> {
    pub name: &'a str,
    kind: Kind,
    guid: Guid,
    encrypted: bool,
    origin: Option<Origin>,
    replicate: &'a str,
}

impl SourceHead<'_> {
    /// Without its history.
    pub fn on_its_own(self, dataset: DatasetName) -> Result<SourceDataset, ZfsError> {
        let SourceHead { kind, guid, encrypted, origin, replicate, .. } = self;
        let excluded = is_excluded(&dataset, replicate)?;
        let (snapshots, bookmarks) = (Vec::new(), Vec::new());
        let state = SourceState { dataset, kind, encrypted, snapshots, bookmarks, origin: None };
        Ok(SourceDataset { state, guid, origin, excluded })
    }
}

/// Whether a dataset's owner does not want it replicated, as [`REPLICATE`] says.
pub(super) fn is_excluded(dataset: &DatasetName, replicate: &str) -> Result<bool, ZfsError> {
    match replicate {
        "-" | "on" | "true" | "yes" => Ok(false),
        "off" | "false" | "no" => Ok(true),
        _ => {
            let (dataset, value) = (dataset.clone(), replicate.to_owned());
            Err(ZfsError::Property { dataset, property: REPLICATE, value })
        }
    }
}

/// Reads a line with the [`SOURCE_COLUMNS`].
pub(super) fn read_source(line: &str) -> Option<SourceHead<'_>> {
    let mut columns = line.splitn(6, '\t');
    let mut next = || columns.next().filter(|column| !column.is_empty());
    let (name, kind, guid) = (next()?, read_kind(next()?)?, next()?.parse().ok()?);
    let (encryption, origin) = (next()?, next()?);
    let origin = if origin == "-" { None } else { Some(read_origin(origin)?) };
    // May hold anything, and says what it is if it means nothing.
    let replicate = next()?;
    let encrypted = is_encrypted(encryption);
    is_value(name).then_some(SourceHead { name, kind, guid, encrypted, origin, replicate })
}

/// Reads `pool/a@name`.
fn read_origin(text: &str) -> Option<Origin> {
    let (dataset, snapshot) = text.split_once('@')?;
    Some(Origin { dataset: dataset.parse().ok()?, snapshot: snapshot.parse().ok()? })
}

/// Reads `pool/a@name<TAB>GUID<TAB>CREATETXG`, or with `#` for a bookmark, of whichever dataset.
pub(super) fn read_any_point(line: &str) -> Option<(&str, Point)> {
    let (dataset, place) = line.split_at(line.find(['@', '#'])?);
    // It is the first column.
    is_value(dataset).then_some((dataset, read_place(place)?))
}

#[cfg(test)]
mod tests;
