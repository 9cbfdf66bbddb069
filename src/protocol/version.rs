//! The versions of the wire, and which one two ends use.
//!
//! The range of versions stands in the preamble, before anything that a version could change. What
//! must hold in every version to come: the preamble's 32 bytes, the length and the CRC32s in front
//! of control messages, and the message `refused`; else an old end could not tell a new one why it
//! hangs up.

use std::fmt;

use crate::error::{Class, Failure, Side};

/// One version of the wire, with what it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first: preamble, JSON control messages, frames with headers of 48 bytes.
    V1 = 1,
}

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

/// Two ends without a version in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("we speak protocol {ours}, the other end {theirs}")]
pub struct VersionMismatch {
    /// What this end speaks.
    pub ours: Versions,
    /// What the other end speaks.
    pub theirs: Versions,
}

impl Version {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    fn numbered(number: u16) -> Option<Version> {
        match number {
            1 => Some(Version::V1),
            _ => None,
        }
    }
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Versions = Versions { min: Version::V1 as u16, max: Version::V1 as u16 };

    /// Whether a version lies within.
    pub fn contains(self, number: u16) -> bool {
        (self.min..=self.max).contains(&number)
    }
}

/// The newest version that both ends speak.
pub fn agree(ours: Versions, theirs: Versions) -> Result<Version, VersionMismatch> {
    let newest = ours.max.min(theirs.max);
    let common = ours.contains(newest) && theirs.contains(newest);
    common.then_some(newest).and_then(Version::numbered).ok_or(VersionMismatch { ours, theirs })
}

impl VersionMismatch {
    /// The failure that either end can show, told by the one that stands on side `here`.
    pub fn failure(&self, here: Side) -> Failure {
        let there = if here == Side::Target { Side::Source } else { Side::Target };
        let older = if self.theirs.max < self.ours.min { there } else { here };
        let what = format!("the {here} speaks protocol {}, the {there} {}", self.ours, self.theirs);
        Failure::new(older, Class::Peer, what).with_remedy(format!("update zferry on the {older}"))
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "version {}", self.min)
        } else {
            write!(f, "versions {} to {}", self.min, self.max)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(min: u16, max: u16) -> Versions {
        Versions { min, max }
    }

    #[test]
    fn the_newest_common_version_is_used() {
        for theirs in [range(1, 1), range(0, 1), range(1, 7), range(0, u16::MAX)] {
            assert_eq!(agree(Versions::OURS, theirs), Ok(Version::V1), "{theirs}");
        }
        for theirs in [range(0, 0), range(2, 2), range(2, u16::MAX), range(9, 1)] {
            let expected = Err(VersionMismatch { ours: Versions::OURS, theirs });
            assert_eq!(agree(Versions::OURS, theirs), expected, "{theirs}");
        }
    }

    #[test]
    fn a_mismatch_names_both_ranges_and_whom_to_update() {
        let mismatch = agree(Versions::OURS, range(2, 3)).unwrap_err();
        assert_eq!(
            mismatch.to_string(),
            "we speak protocol version 1, the other end versions 2 to 3"
        );
        assert_eq!(
            mismatch.failure(Side::Target).to_string(),
            "target: the target speaks protocol version 1, the source versions 2 to 3\
             \n  to mend it: update zferry on the target"
        );
        let mismatch = VersionMismatch { ours: range(4, 5), theirs: range(1, 3) };
        assert_eq!(mismatch.failure(Side::Target).side, Side::Source);
    }
}
