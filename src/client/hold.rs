//! The holds that keep snapshots from being destroyed while one of them is on its way.
//!
//! The snapshot that is sent and, where it is one, the snapshot that the stream builds on: without
//! either, what the target has of it can never be finished. Their tag names the target, so that
//! the next run to the same target finds them again: after a failure they stay. Each is an
//! execve and, on a pool, a transaction group to wait for; so what later steps need is held while
//! another is on its way.

use crate::dataset::{DatasetName, SnapName};
use crate::plan::{Base, Step};
use crate::zfs::hold::Tag;
use crate::zfs::{Zfs, ZfsError};

/// How many snapshots are held before the step that needs them, and how many may stay held after
/// it, where steps follow each other.
pub(super) const BATCH: usize = 16;

/// The longest tag that ZFS takes is 255 bytes, with some room for the prefix.
const TARGET_BYTES_MAX: usize = 200;

/// Snapshots of one dataset that are held for one target.
#[derive(Clone, Debug)]
pub(super) struct Holds {
    zfs: Zfs,
    dataset: DatasetName,
    tag: Tag,
    held: Vec<SnapName>,
    /// What a call that failed may have held all the same.
    perhaps: Vec<SnapName>,
}

impl Holds {
    /// None yet, of `dataset` for `target`.
    pub fn new(zfs: &Zfs, dataset: &DatasetName, target: &str) -> Holds {
        let tag = tag_of(target);
        let (zfs, dataset) = (zfs.clone(), dataset.clone());
        Holds { zfs, dataset, tag, held: Vec::new(), perhaps: Vec::new() }
    }

    /// Holds what `step` needs for as long as it is on its way. To be done before its first byte.
    pub fn take(&mut self, step: &Step) -> Result<(), ZfsError> {
        self.take_all(std::slice::from_ref(step))
    }

    /// While the first of `steps` is on its way: holds what those behind it will need, and lets go
    /// of what none needs any more; many at a time, so that no step of few bytes waits for a call.
    pub fn keep_up(&mut self, steps: &[Step]) -> Result<(), ZfsError> {
        if self.held.iter().filter(|held| !is_needed(held, steps)).count() >= BATCH {
            self.release_all_but(steps)?;
        }
        let is_held = |step: &Step| needed(step).all(|snapshot| self.held.contains(snapshot));
        // After a failure each step holds for itself, and says what is in its way.
        if !self.perhaps.is_empty() || steps.get(1).is_none_or(is_held) {
            return Ok(());
        }
        self.take_all(steps)
    }

    /// Lets go of what none of `steps` needs.
    pub fn release_all_but(&mut self, steps: &[Step]) -> Result<(), ZfsError> {
        let held = std::mem::take(&mut self.held);
        let (kept, released): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|held| is_needed(held, steps));
        self.held = kept;
        let perhaps = std::mem::take(&mut self.perhaps);
        let (unsure, let_go): (Vec<_>, Vec<_>) =
            perhaps.into_iter().partition(|held| is_needed(held, steps));
        self.perhaps = unsure;
        self.let_go(&[released, let_go].concat())
    }

    /// Takes holds off that an earlier run may have left. That there are none is fine.
    pub fn let_go(&self, snapshots: &[SnapName]) -> Result<(), ZfsError> {
        if snapshots.is_empty() {
            return Ok(());
        }
        self.zfs.release(&self.dataset, snapshots, &self.tag)
    }

    fn take_all(&mut self, steps: &[Step]) -> Result<(), ZfsError> {
        let mut missing: Vec<SnapName> = Vec::new();
        for snapshot in steps.iter().flat_map(needed) {
            if !self.held.contains(snapshot) && !missing.contains(snapshot) {
                missing.push(snapshot.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let taken = self.zfs.hold(&self.dataset, &missing, &self.tag);
        // One that is missing does not keep `zfs` from holding the others.
        let noted = if taken.is_ok() { &mut self.held } else { &mut self.perhaps };
        noted.extend(missing);
        self.perhaps.retain(|snapshot| !self.held.contains(snapshot));
        taken
    }
}

/// Whether any of `steps` cannot do without a snapshot.
pub(super) fn is_needed(snapshot: &SnapName, steps: &[Step]) -> bool {
    steps.iter().flat_map(needed).any(|needed| needed == snapshot)
}

/// The snapshots that `step` cannot do without; a bookmark is no hindrance to anybody. What a clone
/// was made from needs no hold: ZFS does not destroy it as long as the clone is there.
pub(super) fn needed(step: &Step) -> impl Iterator<Item = &SnapName> {
    let base = match &step.from {
        Some(Base::Snapshot(base)) => Some(&base.name),
        Some(Base::Bookmark(_) | Base::Origin { .. }) | None => None,
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
