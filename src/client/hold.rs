//! The holds that keep snapshots from being destroyed while one of them is on its way.
//!
//! The snapshot that is sent and, where it is one, the snapshot that the stream builds on: without
//! either, what the target has of it can never be finished. Their tag names the target, so that
//! the next run to the same target finds them again: after a failure they stay.

use crate::dataset::{DatasetName, SnapName};
use crate::plan::{Base, Step};
use crate::zfs::hold::Tag;
use crate::zfs::{Zfs, ZfsError};

/// The longest tag that ZFS takes is 255 bytes, with some room for the prefix.
const TARGET_BYTES_MAX: usize = 200;

/// Snapshots of one dataset that are held for one target.
#[derive(Clone, Debug)]
pub(super) struct Holds {
    zfs: Zfs,
    dataset: DatasetName,
    tag: Tag,
    held: Vec<SnapName>,
}

impl Holds {
    /// None yet, of `dataset` for `target`.
    pub fn new(zfs: &Zfs, dataset: &DatasetName, target: &str) -> Holds {
        let tag = tag_of(target);
        Holds { zfs: zfs.clone(), dataset: dataset.clone(), tag, held: Vec::new() }
    }

    /// Holds what `step` needs for as long as it is on its way. To be done before its first byte.
    pub fn take(&mut self, step: &Step) -> Result<(), ZfsError> {
        needed(step).try_for_each(|snapshot| {
            if !self.held.contains(snapshot) {
                self.zfs.hold(&self.dataset, snapshot, &self.tag)?;
                self.held.push(snapshot.clone());
            }
            Ok(())
        })
    }

    /// The target holds all that was on its way: lets go of everything but what `next` needs.
    pub fn release(&mut self, next: Option<&Step>) -> Result<(), ZfsError> {
        let is_needed = |snapshot: &SnapName| {
            next.is_some_and(|next| needed(next).any(|needed| needed == snapshot))
        };
        let held = std::mem::take(&mut self.held);
        let (kept, released): (Vec<_>, Vec<_>) = held.into_iter().partition(is_needed);
        self.held = kept;
        released.iter().try_for_each(|snapshot| self.let_go(snapshot))
    }

    /// Takes a hold off that an earlier run may have left. That there is none is fine.
    pub fn let_go(&self, snapshot: &SnapName) -> Result<(), ZfsError> {
        self.zfs.release(&self.dataset, snapshot, &self.tag)
    }
}

/// The snapshots that `step` cannot do without; a bookmark is no hindrance to anybody.
fn needed(step: &Step) -> impl Iterator<Item = &SnapName> {
    let base = match &step.from {
        Some(Base::Snapshot(base)) => Some(&base.name),
        Some(Base::Bookmark(_)) | None => None,
    };
    std::iter::once(&step.to.name).chain(base)
}

/// The tag of all holds for a target, as its user names it.
pub(super) fn tag_of(target: &str) -> Tag {
    Tag::of_transfer(tag_text(target))
}

/// A target's name as a tag: short enough, and without what a terminal would show badly. Cut names
/// end in their checksum, so that two targets never share a tag.
fn tag_text(target: &str) -> String {
    let text: String = target.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    if text == target && text.len() <= TARGET_BYTES_MAX {
        return text;
    }
    let kept = &text[..text.len().min(TARGET_BYTES_MAX)];
    format!("{kept}~{:08x}", crc32fast::hash(target.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_short_printable_and_differ_for_different_targets() {
        assert_eq!(tag_text("10.0.0.1:7001/a/b"), "10.0.0.1:7001/a/b");
        let (a, b) = (tag_text("h:1/a b"), tag_text("h:1/a_b"));
        assert!(a != b && !a.contains(' '), "{a} {b}");
        let long = "x".repeat(300);
        assert!(tag_text(&long).len() <= 210);
        assert_ne!(tag_text(&long), tag_text(&format!("{long}y")));
    }
}
