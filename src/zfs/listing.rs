//! Asks what a dataset is and which snapshots it has.
//!
//! Two calls for each dataset, however many snapshots it has. The one that lists snapshots asks
//! for nothing but `name`, `guid` and `createtxg`: with these columns alone `zfs` (2.2 on) does
//! without reading each snapshot's properties, and even `type` would end that. A line that cannot
//! be read must never be skipped: a newest snapshot that we overlook turns a plan into a wrong one.

use super::command::Output;
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, Guid, Kind};
use crate::listing::{Bookmark, Snapshot, SourceState, TargetState};

/// The words of `zfs` for a dataset or snapshot that is not there.
pub(super) const NO_DATASET: &str = "dataset does not exist";

impl Zfs {
    /// What the dataset that is to be replicated holds.
    pub fn source_state(&self, dataset: &DatasetName) -> Result<SourceState, ZfsError> {
        let head = self.ask(&head_arguments("encryption", dataset))?;
        let (kind, encryption) = head.read(read_head)?;
        let list = self.ask(&points_arguments("snapshot,bookmark", dataset))?;
        let points = list.read_lines(|line| read_point(line, dataset))?;
        let (snapshots, bookmarks) = sorted(points);
        // "-" is what a pool without the feature shows.
        let encrypted = !matches!(encryption.as_str(), "off" | "-");
        Ok(SourceState { dataset: dataset.clone(), kind, encrypted, snapshots, bookmarks })
    }

    /// What the dataset that is to receive holds; that it does not exist is an answer, that its
    /// pool does not exist is an error.
    pub fn target_state(&self, dataset: &DatasetName) -> Result<TargetState, ZfsError> {
        let head = self.run(&head_arguments("receive_resume_token", dataset))?;
        if head.failed_with(NO_DATASET) {
            return self.absent(dataset);
        }
        if !head.ended.success() {
            return Err(head.failed());
        }
        let (kind, token) = head.read(read_head)?;
        let list = self.ask(&points_arguments("snapshot", dataset))?;
        let (snapshots, _) = sorted(list.read_lines(|line| read_point(line, dataset))?);
        let resume_token = (token != "-").then_some(token);
        Ok(TargetState::Present { kind, snapshots, resume_token })
    }

    fn absent(&self, dataset: &DatasetName) -> Result<TargetState, ZfsError> {
        let pool_exists = dataset.parent().is_some() && self.exists(dataset.pool())?;
        if pool_exists {
            Ok(TargetState::Absent)
        } else {
            Err(ZfsError::NoPool { dataset: dataset.clone() })
        }
    }

    /// Whether there is a filesystem or volume of this full name.
    pub(super) fn exists(&self, dataset: &str) -> Result<bool, ZfsError> {
        let types = "filesystem,volume";
        let answer = self.run(&["list", "-Hp", "-t", types, "-o", "name", "--", dataset])?;
        match answer.ended.success() {
            true => Ok(true),
            false if answer.failed_with(NO_DATASET) => Ok(false),
            false => Err(answer.failed()),
        }
    }

    /// The guid of a dataset, or `None` if there is no such dataset: what it is, whatever it is
    /// called.
    pub fn dataset_guid(&self, dataset: &DatasetName) -> Result<Option<Guid>, ZfsError> {
        let name = dataset.as_str();
        let answer = self.run(&["get", "-Hp", "-o", "value", "--", "guid", name])?;
        if answer.failed_with(NO_DATASET) {
            return Ok(None);
        }
        if !answer.ended.success() {
            return Err(answer.failed());
        }
        answer.read(|text| text.trim_end().parse().ok()).map(Some)
    }
}

impl Output {
    /// The whole answer as `read` understands it.
    fn read<T>(&self, read: impl Fn(&str) -> Option<T>) -> Result<T, ZfsError> {
        read(&self.text).ok_or_else(|| self.unreadable(self.text.lines().next().unwrap_or("")))
    }

    /// Each line of the answer as `read` understands it.
    pub(super) fn read_lines<T>(
        &self,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ZfsError> {
        self.text.lines().map(|line| read(line).ok_or_else(|| self.unreadable(line))).collect()
    }
}

/// Asks for the dataset itself: its kind and one property more.
fn head_arguments(property: &str, dataset: &DatasetName) -> [String; 8] {
    let columns = format!("type,{property}");
    ["list", "-Hp", "-t", "filesystem,volume", "-o", &columns, "--", dataset.as_str()]
        .map(str::to_owned)
}

/// Asks for its snapshots and perhaps bookmarks. With two types `-d1` is not implied but needed:
/// without it `zfs` says "operation not applicable to datasets of this type".
pub(super) fn points_arguments<'a>(types: &'a str, dataset: &'a DatasetName) -> [&'a str; 11] {
    let columns = "name,guid,createtxg";
    let dataset = dataset.as_str();
    ["list", "-Hp", "-t", types, "-d1", "-o", columns, "-s", "createtxg", "--", dataset]
}

/// Reads `filesystem<TAB>VALUE`.
pub(super) fn read_head(text: &str) -> Option<(Kind, String)> {
    let (kind, value) = text.strip_suffix('\n')?.split_once('\t')?;
    let kind = match kind {
        "filesystem" => Kind::Filesystem,
        "volume" => Kind::Volume,
        _ => return None,
    };
    (!value.is_empty() && !value.contains(['\t', '\n'])).then(|| (kind, value.to_owned()))
}

/// A point in the history of a dataset.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Point {
    Snapshot(Snapshot),
    Bookmark(Bookmark),
}

/// Reads `pool/a@name<TAB>GUID<TAB>CREATETXG`, or with `#` for a bookmark.
pub(super) fn read_point(line: &str, dataset: &DatasetName) -> Option<Point> {
    let mut columns = line.split('\t');
    let place = columns.next()?.strip_prefix(dataset.as_str())?;
    let guid: Guid = columns.next()?.parse().ok()?;
    let createtxg: u64 = columns.next()?.parse().ok()?;
    if columns.next().is_some() {
        return None;
    }
    if let Some(name) = place.strip_prefix('@') {
        let name = name.parse().ok()?;
        return Some(Point::Snapshot(Snapshot { name, guid, createtxg }));
    }
    let name = place.strip_prefix('#')?.parse().ok()?;
    Some(Point::Bookmark(Bookmark { name, guid, createtxg }))
}

/// Parts snapshots and bookmarks, each oldest first. `-s createtxg` has done that already; it is
/// done again because everything hangs on it.
pub(super) fn sorted(points: Vec<Point>) -> (Vec<Snapshot>, Vec<Bookmark>) {
    let (mut snapshots, mut bookmarks) = (Vec::new(), Vec::new());
    for point in points {
        match point {
            Point::Snapshot(snapshot) => snapshots.push(snapshot),
            Point::Bookmark(bookmark) => bookmarks.push(bookmark),
        }
    }
    snapshots.sort_by_key(|snapshot| snapshot.createtxg);
    bookmarks.sort_by_key(|bookmark| bookmark.createtxg);
    (snapshots, bookmarks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        for (text, expected) in [
            ("filesystem\toff\n", Some((Kind::Filesystem, "off"))),
            ("volume\t1-c1d-e0-78\n", Some((Kind::Volume, "1-c1d-e0-78"))),
            ("filesystem\t-\n", Some((Kind::Filesystem, "-"))),
            ("snapshot\t-\n", None),
            ("filesystem\n", None),
            ("filesystem\t\n", None),
            ("filesystem\toff", None),
            ("filesystem\toff\nvolume\toff\n", None),
            ("", None),
        ] {
            let expected = expected.map(|(kind, value)| (kind, value.to_owned()));
            assert_eq!(read_head(text), expected, "{text:?}");
        }
    }

    #[test]
    fn snapshots_and_bookmarks_are_told_apart_by_their_sign() {
        let dataset = "tank/a b".parse().unwrap();
        let read = |line| read_point(line, &dataset);
        assert_eq!(
            read("tank/a b@s 1\t18446744073709551615\t8"),
            Some(Point::Snapshot(Snapshot {
                name: "s 1".parse().unwrap(),
                guid: Guid(u64::MAX),
                createtxg: 8
            }))
        );
        assert_eq!(
            read("tank/a b#m\t12711498726890620504\t9"),
            Some(Point::Bookmark(Bookmark {
                name: "m".parse().unwrap(),
                guid: Guid(12_711_498_726_890_620_504),
                createtxg: 9
            }))
        );
    }

    #[test]
    fn lines_that_are_no_points_of_the_dataset_are_not_read() {
        let dataset = "tank/a".parse().unwrap();
        for line in [
            "",
            "tank/a\t1\t2",
            "tank/b@s\t1\t2",
            "tank/a/b@s\t1\t2",
            "tank/ab@s\t1\t2",
            "tank/a@s\t1",
            "tank/a@s\t1\t2\t3",
            "tank/a@s\t-\t2",
            "tank/a@s\t18446744073709551616\t2",
            "tank/a@s\t-1\t2",
            "tank/a@;s\t1\t2",
            "tank/a@s 1 2",
        ] {
            assert_eq!(read_point(line, &dataset), None, "{line:?}");
        }
    }

    #[test]
    fn the_oldest_comes_first_whatever_the_order_of_lines() {
        let dataset = "tank/a".parse().unwrap();
        let lines = ["tank/a@c\t3\t30", "tank/a#m\t1\t10", "tank/a@a\t1\t10", "tank/a@b\t2\t20"];
        let points = lines.iter().map(|line| read_point(line, &dataset).unwrap()).collect();
        let (snapshots, bookmarks) = sorted(points);
        assert_eq!(snapshots.iter().map(|s| s.guid.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(bookmarks.len(), 1);
    }
}
