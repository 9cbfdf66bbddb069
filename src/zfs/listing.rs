//! Asks what a dataset is and which snapshots it has.
//!
//! Two calls for each dataset, however many snapshots it has. The one that lists snapshots asks
//! for nothing but `name`, `guid` and `createtxg`: with these columns alone `zfs` (2.2 on) does
//! without reading each snapshot's properties, and even `type` would end that. A line that cannot
//! be read must never be skipped: a newest snapshot that we overlook turns a plan into a wrong one.

use super::command::Output;
use super::texts::NO_DATASET;
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, Guid, Kind};
use crate::listing::{Bookmark, Snapshot, SourceState, TargetState};

/// What is asked of a dataset that receives. The token comes last: it is the one that may be long.
pub(super) const TARGET_COLUMNS: &str = "name,type,guid,encryption,receive_resume_token";

impl Zfs {
    /// What the dataset that is to be replicated holds.
    pub fn source_state(&self, dataset: &DatasetName) -> Result<SourceState, ZfsError> {
        let head = self.ask(&head_arguments("encryption", dataset))?;
        let (kind, encryption) = head.read(read_head)?;
        let list = self.ask(&points_arguments("snapshot,bookmark", dataset))?;
        let points = list.read_lines(|line| read_point(line, dataset))?;
        let (snapshots, bookmarks) = sorted(points);
        let encrypted = is_encrypted(&encryption);
        let dataset = dataset.clone();
        Ok(SourceState { dataset, kind, encrypted, snapshots, bookmarks, origin: None })
    }

    /// What the dataset that is to receive holds; that it does not exist is an answer, that its
    /// pool does not exist is an error.
    pub fn target_state(&self, dataset: &DatasetName) -> Result<TargetState, ZfsError> {
        let head = self.run(&target_arguments(&[dataset.as_str()]))?;
        if head.failed_with(NO_DATASET) {
            return self.absent(dataset);
        }
        if !head.ended.success() {
            return Err(head.failed());
        }
        let head = head.read(|text| read_target(text.strip_suffix('\n')?))?;
        Ok(head.holding(self.snapshots(dataset)?))
    }

    /// The snapshots of a dataset, oldest first; it must exist.
    pub fn snapshots(&self, dataset: &DatasetName) -> Result<Vec<Snapshot>, ZfsError> {
        let list = self.ask(&points_arguments("snapshot", dataset))?;
        let (snapshots, _) = sorted(list.read_lines(|line| read_point(line, dataset))?);
        Ok(snapshots)
    }

    /// What it means that there is no such dataset.
    pub(super) fn absent(&self, dataset: &DatasetName) -> Result<TargetState, ZfsError> {
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
    pub(super) fn read<'a, T>(
        &'a self,
        read: impl Fn(&'a str) -> Option<T>,
    ) -> Result<T, ZfsError> {
        read(&self.text).ok_or_else(|| self.unreadable(self.text.lines().next().unwrap_or("")))
    }

    /// Each line of the answer as `read` understands it.
    pub(super) fn read_lines<'a, T>(
        &'a self,
        read: impl Fn(&'a str) -> Option<T>,
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

/// Asks for datasets that receive; [`read_target`] reads each line.
pub(super) fn target_arguments<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let head = ["list", "-Hp", "-t", "filesystem,volume", "-o", TARGET_COLUMNS, "--"];
    [&head, names].concat()
}

/// Reads `filesystem<TAB>VALUE`.
pub(super) fn read_head(text: &str) -> Option<(Kind, String)> {
    let (kind, value) = text.strip_suffix('\n')?.split_once('\t')?;
    let kind = read_kind(kind)?;
    is_value(value).then(|| (kind, value.to_owned()))
}

pub(super) fn read_kind(text: &str) -> Option<Kind> {
    match text {
        "filesystem" => Some(Kind::Filesystem),
        "volume" => Some(Kind::Volume),
        _ => None,
    }
}

/// What the property `encryption` says; "-" is what a pool without the feature shows.
pub(super) fn is_encrypted(encryption: &str) -> bool {
    !matches!(encryption, "off" | "-")
}

/// Whether it can be one column of one line.
pub(super) fn is_value(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\t', '\n'])
}

/// A dataset that receives, but for its snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetHead<'a> {
    pub name: &'a str,
    pub guid: Guid,
    kind: Kind,
    encrypted: bool,
    resume_token: Option<&'a str>,
}

impl TargetHead<'_> {
    /// With its snapshots.
    pub fn holding(&self, snapshots: Vec<Snapshot>) -> TargetState {
        let TargetHead { kind, encrypted, .. } = *self;
        let resume_token = self.resume_token.map(str::to_owned);
        TargetState::Present { kind, encrypted, snapshots, resume_token }
    }
}

/// Reads a line with the [`TARGET_COLUMNS`].
pub(super) fn read_target(line: &str) -> Option<TargetHead<'_>> {
    let [name, kind, guid, encryption, token] =
        line.split('\t').collect::<Vec<_>>().try_into().ok()?;
    let is_whole = [name, encryption, token].iter().all(|value| is_value(value));
    let (guid, kind) = (guid.parse().ok()?, read_kind(kind)?);
    let (encrypted, resume_token) = (is_encrypted(encryption), Some(token).filter(|&t| t != "-"));
    is_whole.then_some(TargetHead { name, guid, kind, encrypted, resume_token })
}

/// A point in the history of a dataset.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Point {
    Snapshot(Snapshot),
    Bookmark(Bookmark),
}

/// Reads `pool/a@name<TAB>GUID<TAB>CREATETXG`, or with `#` for a bookmark.
pub(super) fn read_point(line: &str, dataset: &DatasetName) -> Option<Point> {
    read_place(line.strip_prefix(dataset.as_str())?)
}

/// Reads `@name<TAB>GUID<TAB>CREATETXG`, or with `#` for a bookmark.
pub(super) fn read_place(text: &str) -> Option<Point> {
    let mut columns = text.split('\t');
    let place = columns.next()?;
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
    sort(&mut snapshots, &mut bookmarks);
    (snapshots, bookmarks)
}

/// The oldest first.
pub(super) fn sort(snapshots: &mut [Snapshot], bookmarks: &mut [Bookmark]) {
    snapshots.sort_by_key(|snapshot| snapshot.createtxg);
    bookmarks.sort_by_key(|bookmark| bookmark.createtxg);
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
    fn datasets_that_receive_are_read_whole_or_not_at_all() {
        let head = TargetHead {
            name: "tank/a b",
            guid: Guid(u64::MAX),
            kind: Kind::Volume,
            encrypted: false,
            resume_token: None,
        };
        let encrypted = TargetHead { encrypted: true, ..head.clone() };
        let partly = TargetHead { resume_token: Some("1-f00-8-ba4"), ..encrypted.clone() };
        for (columns, expected) in [
            ("volume\t18446744073709551615\toff\t-", Some(head.clone())),
            ("volume\t18446744073709551615\t-\t-", Some(head)),
            ("volume\t18446744073709551615\taes-256-gcm\t-", Some(encrypted)),
            ("volume\t18446744073709551615\ton\t1-f00-8-ba4", Some(partly)),
            ("volume\t18446744073709551616\toff\t-", None),
            ("snapshot\t7\toff\t-", None),
            ("volume\t7\toff\t", None),
            ("volume\t7\t\t-", None),
            ("volume\t7\toff", None),
            ("volume\t7\toff\t-\t-", None),
            ("volume\t7\toff\t-\ntank/b", None),
            ("volume\t-\toff\t-", None),
        ] {
            assert_eq!(read_target(&format!("tank/a b\t{columns}")), expected, "{columns:?}");
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
