//! Takes snapshots, and gives them names.
//!
//! The clock is read by the caller, so that a name can be chosen once and told to everybody. A
//! snapshot that exists already must never be taken for the one that was asked for.

use jiff::Timestamp;

use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, SnapName};

/// How the names of our own snapshots begin.
const NAME_PREFIX: &str = "zferry_";

impl Zfs {
    /// Takes a snapshot of `dataset`; that one of this name exists already is an error.
    pub fn snapshot(&self, dataset: &DatasetName, name: &SnapName) -> Result<(), ZfsError> {
        self.ask(&["snapshot", "--", &dataset.at(name)]).map(drop)
    }
}

/// The name of a snapshot that zferry takes at `now`: `zferry_2026-08-01T12:00:00Z`.
pub fn name_at(now: Timestamp) -> SnapName {
    let name = format!("{NAME_PREFIX}{}", now.strftime("%Y-%m-%dT%H:%M:%SZ"));
    name.parse().expect("letters, digits, - : and _ are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(name_at(time).as_str().starts_with(NAME_PREFIX));
        }
    }
}
