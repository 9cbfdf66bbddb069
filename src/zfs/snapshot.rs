//! Takes snapshots, and gives them names.
//!
//! The clock is read by the caller, so that a name can be chosen once and told to everybody. A
//! snapshot that exists already must never be taken for the one that was asked for.

use jiff::Timestamp;

use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, SnapName};
use crate::error::{Failure, Side};
use crate::retention::Template;

/// What it says of a name that is taken.
const TAKEN: &str = "': dataset already exists";

/// Bytes of names that one call takes. Linux takes a quarter of the stack limit (8 MiB by default)
/// for arguments and environment, each argument with a pointer of 8 bytes; half of that is left.
const NAMES_BYTES_MAX: usize = 1 << 20;

impl Zfs {
    /// Takes a snapshot of `dataset`; that one of this name exists already is an error.
    pub fn snapshot(&self, dataset: &DatasetName, name: &SnapName) -> Result<(), ZfsError> {
        self.ask(&["snapshot", "--", &dataset.at(name)]).map(drop)
    }

    /// Takes the snapshots of a tree, all in one transaction group or none: they are of one moment.
    /// If a snapshot of this name exists anywhere in the tree, none is taken.
    pub fn snapshot_tree(&self, members: &Members, name: &SnapName) -> Result<(), ZfsError> {
        let words = tree_arguments(members, name);
        let bytes: usize = words.iter().map(|word| word.len() + 1 + size_of::<usize>()).sum();
        match members {
            Members::These(datasets) if datasets.is_empty() => Ok(()),
            Members::These(datasets) if bytes > NAMES_BYTES_MAX => {
                Err(ZfsError::TooMany { datasets: datasets.len() })
            }
            _ => self.ask(&words).map(drop),
        }
    }
}

/// Whether a call of `zfs snapshot` says of itself that such a name was taken already: then it has
/// taken none, and another name may do.
pub fn is_name_taken(failure: &Failure) -> bool {
    let Failure { side, what, .. } = failure;
    let is_ours = *side == Side::Source && what.starts_with("zfs snapshot ");
    is_ours && what.contains(": cannot create snapshot '") && what.contains(TAKEN)
}

/// Of which datasets of a tree a snapshot is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Of the root and of all below it, whatever is there then.
    All(DatasetName),
    /// Of these, which are of one pool: of a tree from which something is left out. One call, for
    /// two would be of two moments; about 4000 datasets with the longest names fit, and 20,000 with
    /// usual ones. More are refused before any is taken.
    These(Vec<DatasetName>),
}

/// What `zfs` is called with to take the snapshots of a tree.
pub fn tree_arguments(members: &Members, name: &SnapName) -> Vec<String> {
    let (options, datasets): (&[&str], &[DatasetName]) = match members {
        Members::All(root) => (&["-r"], std::slice::from_ref(root)),
        Members::These(datasets) => (&[], datasets),
    };
    let words = ["snapshot"].iter().chain(options).chain(&["--"]).map(|&word| word.to_owned());
    words.chain(datasets.iter().map(|dataset| dataset.at(name))).collect()
}

/// The name of a snapshot that zferry takes at `now`: `zferry_2026-08-01T12:00:00Z`.
pub fn name_at(now: Timestamp) -> SnapName {
    Template::default().name_at(now).expect("letters, digits, - : and _ are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_one_command() {
        let (root, name) = ("tank/a".parse::<DatasetName>().unwrap(), "s".parse().unwrap());
        let all = tree_arguments(&Members::All(root.clone()), &name);
        assert_eq!(all.join(" "), "snapshot -r -- tank/a@s");
        let these = Members::These(vec![root, "tank/a/b".parse().unwrap()]);
        assert_eq!(tree_arguments(&these, &name).join(" "), "snapshot -- tank/a@s tank/a/b@s");
    }

    #[test]
    fn only_a_snapshot_that_was_to_be_taken_here_has_a_name_that_may_be_another() {
        let call = "zfs snapshot -- t/a@s";
        let taken = format!("{call}: cannot create snapshot 't/a@s': dataset already exists");
        let failure = |side, what: &str| Failure::new(side, crate::error::Class::Refused, what);
        assert!(is_name_taken(&failure(Side::Source, &taken)));
        let gone = format!("{call}: cannot open 't/a': dataset does not exist");
        let received = "zfs receive into t/a: cannot create snapshot: destination already exists";
        for (side, what) in
            [(Side::Target, &*taken), (Side::Source, &gone), (Side::Source, received)]
        {
            assert!(!is_name_taken(&failure(side, what)), "{what}");
        }
    }

    #[test]
    fn names_tell_the_time_in_utc() {
        for (time, name) in [
            ("2026-08-01T12:00:00Z", "zferry_2026-08-01T12:00:00Z"),
            ("2026-12-31T23:30:05.9-02:00", "zferry_2027-01-01T01:30:05Z"),
        ] {
            assert_eq!(name_at(time.parse().unwrap()).as_str(), name);
        }
    }

    #[test]
    fn every_time_that_a_clock_can_show_has_a_name() {
        for time in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert!(name_at(time).as_str().starts_with("zferry_"));
        }
    }
}
