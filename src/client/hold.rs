//! The hold that keeps a snapshot from being destroyed while it is on its way.
//!
//! Its tag names the target, so that the next run to the same target finds it again: after a
//! failure the hold stays, for the target may hold a part of the snapshot that is worth going on
//! from.

use crate::dataset::{DatasetName, SnapName};
use crate::zfs::hold::Tag;
use crate::zfs::{Zfs, ZfsError};

/// The longest tag that ZFS takes is 255 bytes, with some room for the prefix.
const TARGET_BYTES_MAX: usize = 200;

/// A snapshot that is held.
pub(super) struct Hold {
    zfs: Zfs,
    dataset: DatasetName,
    snapshot: SnapName,
    tag: Tag,
}

impl Hold {
    /// Holds a snapshot for as long as it is on its way to `target`.
    pub fn take(
        zfs: &Zfs,
        dataset: &DatasetName,
        snapshot: &SnapName,
        target: &str,
    ) -> Result<Hold, ZfsError> {
        let tag = Tag::of_transfer(tag_text(target));
        zfs.hold(dataset, snapshot, &tag)?;
        let (zfs, dataset, snapshot) = (zfs.clone(), dataset.clone(), snapshot.clone());
        Ok(Hold { zfs, dataset, snapshot, tag })
    }

    /// The target holds the snapshot: lets go of it.
    pub fn release(self) -> Result<(), ZfsError> {
        self.zfs.release(&self.dataset, &self.snapshot, &self.tag)
    }
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
