//! Holds: what keeps a snapshot from being destroyed while a transfer needs it.
//!
//! Set before the first byte and released only when the target was seen to hold the snapshot:
//! between a broken transfer and its resume nothing else protects it. Holding twice and releasing
//! twice are no errors, for whoever goes on after a crash does not know how far it got.

use std::fmt;

use super::texts::NO_DATASET;
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, SnapName};

/// The name that a hold of ours goes by: `zferry:` and the transfer it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// How every tag of ours begins.
const TAG_PREFIX: &str = "zferry:";

impl Tag {
    /// The tag of the transfer that is known as `transfer` for all its life: a uuid, say.
    pub fn of_transfer(transfer: impl fmt::Display) -> Tag {
        Tag(format!("{TAG_PREFIX}{transfer}"))
    }

    /// A tag that `zfs holds` lists, if some zferry has set it.
    pub fn read(tag: &str) -> Option<Tag> {
        tag.starts_with(TAG_PREFIX).then(|| Tag(tag.to_owned()))
    }

    /// The transfer that it belongs to.
    pub fn transfer(&self) -> &str {
        self.0.strip_prefix(TAG_PREFIX).unwrap_or(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Zfs {
    /// Keeps snapshots from being destroyed until `tag` is released. That one is held with this tag
    /// already is a success. After a failure the others are held all the same.
    pub fn hold(
        &self,
        dataset: &DatasetName,
        snapshots: &[SnapName],
        tag: &Tag,
    ) -> Result<(), ZfsError> {
        let benign = ["tag already exists on this dataset"];
        self.hold_or_release("hold", &benign, dataset, snapshots, tag)
    }

    /// Takes the hold `tag` off. That it is off already is a success, and so is a snapshot that is
    /// gone. After a failure it is off all the others.
    pub fn release(
        &self,
        dataset: &DatasetName,
        snapshots: &[SnapName],
        tag: &Tag,
    ) -> Result<(), ZfsError> {
        let benign = ["no such tag on this dataset", NO_DATASET];
        self.hold_or_release("release", &benign, dataset, snapshots, tag)
    }

    /// The tags that hold the snapshot, ours and others.
    pub fn holds(
        &self,
        dataset: &DatasetName,
        snapshot: &SnapName,
    ) -> Result<Vec<String>, ZfsError> {
        let answer = self.ask(&["holds", "-H", "--", &dataset.at(snapshot)])?;
        let tag = |line: &str| read_tag(line).ok_or_else(|| answer.unreadable(line));
        answer.text.lines().map(tag).collect()
    }

    /// One call for all: `zfs` goes through them, whatever becomes of one, and has a line for each
    /// that it could not do.
    fn hold_or_release(
        &self,
        verb: &str,
        benign: &[&str],
        dataset: &DatasetName,
        snapshots: &[SnapName],
        tag: &Tag,
    ) -> Result<(), ZfsError> {
        let arguments = arguments(verb, dataset, snapshots, tag);
        let answer = self.run(&arguments)?;
        let stderr = &answer.ended.stderr;
        let is_benign = |line: &str| benign.iter().any(|text| line.contains(text));
        if answer.ended.success() || (!stderr.is_empty() && stderr.lines().all(is_benign)) {
            Ok(())
        } else {
            Err(answer.failed())
        }
    }
}

/// What `zfs` is called with to hold or to release.
pub fn arguments(
    verb: &str,
    dataset: &DatasetName,
    snapshots: &[SnapName],
    tag: &Tag,
) -> Vec<String> {
    let mut arguments = vec![verb.to_owned(), "--".to_owned(), tag.0.clone()];
    arguments.extend(snapshots.iter().map(|snapshot| dataset.at(snapshot)));
    arguments
}

/// Reads the middle of `pool/a@name<TAB>TAG<TAB>DATE`.
pub(super) fn read_tag(line: &str) -> Option<String> {
    let mut columns = line.split('\t');
    let (_name, tag, _date) = (columns.next()?, columns.next()?, columns.next()?);
    Some(tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_tags_can_be_told_from_others() {
        assert_eq!(Tag::of_transfer("f00d").to_string(), "zferry:f00d");
        assert_eq!(Tag::read("zferry:f00d").unwrap().transfer(), "f00d");
        for tag in ["keep", ".send-123-1", "Zferry:x", "xzferry:y"] {
            assert_eq!(Tag::read(tag), None, "{tag}");
        }
    }

    #[test]
    fn the_tag_is_the_middle_column() {
        let line = "tank/a@s\tzferry:f00d\tSat Aug 01 12:00 2026";
        assert_eq!(read_tag(line).as_deref(), Some("zferry:f00d"));
        assert_eq!(read_tag("tank/a@s\tx"), None);
    }
}
