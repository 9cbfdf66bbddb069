//! How much a dataset has changed since one of its snapshots, without reading any of it.

use std::collections::BTreeMap;

use super::tree::{REPLICATE, is_excluded};
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, SnapName};
use crate::units::Bytes;

impl Zfs {
    /// The bytes that were written to `dataset` since `snapshot`, as `zfs` counts referenced space
    /// (`written@SNAPSHOT`, zfsprops(7)). `None`: there is no such snapshot.
    pub fn written_since(
        &self,
        dataset: &DatasetName,
        snapshot: &SnapName,
    ) -> Result<Option<Bytes>, ZfsError> {
        let property = format!("written@{snapshot}");
        self.bytes(&property, dataset)
    }

    /// The same for those of a dataset and all below it that are to be replicated, together:
    /// neither those whose owner does not want that, nor those that `is_left_out` names, for they
    /// have no such snapshot, ever. `None`: of the others none has it.
    pub fn written_below(
        &self,
        root: &DatasetName,
        snapshot: &SnapName,
        without: Without,
        is_left_out: impl Fn(&DatasetName) -> bool,
    ) -> Result<Option<Bytes>, ZfsError> {
        let properties = format!("written@{snapshot},referenced,{REPLICATE}");
        let kinds = "filesystem,volume";
        // Of `zfs list` no version says such sizes in bytes.
        let head = ["get", "-Hp", "-r", "-t", kinds, "-o", "name,property,value"];
        let answer = self.ask(&[&head[..], &["--", &properties, root.as_str()]].concat())?;
        let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
        for line in answer.text.lines() {
            let (name, property, value) = read(line).ok_or_else(|| answer.unreadable(line))?;
            rows.entry(name).or_default().set(property, value);
        }
        if !rows.contains_key(root.as_str()) {
            return Err(answer.unreadable(answer.text.lines().next_back().unwrap_or_default()));
        }
        let (mut sum, mut is_known) = (0_u64, false);
        for (name, row) in rows {
            let unreadable = || answer.unreadable(name);
            let dataset: DatasetName = name.parse().map_err(|_| unreadable())?;
            if is_left_out(&dataset) || is_excluded(&dataset, row.replicate)? {
                continue;
            }
            let (bytes, has_it) = row.written(without).ok_or_else(unreadable)?;
            sum = sum.saturating_add(bytes);
            is_known |= has_it;
        }
        Ok(is_known.then_some(Bytes(sum)))
    }

    /// The bytes that a dataset has on its disks, its children apart (zfsprops(7)).
    pub fn referenced(&self, dataset: &DatasetName) -> Result<Bytes, ZfsError> {
        self.bytes("referenced", dataset).map(Option::unwrap_or_default)
    }

    fn bytes(&self, property: &str, dataset: &DatasetName) -> Result<Option<Bytes>, ZfsError> {
        let words = ["get", "-Hp", "-o", "value", "--", property, dataset.as_str()];
        let answer = self.ask(&words)?;
        match answer.text.lines().next().unwrap_or_default() {
            "-" => Ok(None),
            line => {
                line.parse().map(|bytes| Some(Bytes(bytes))).map_err(|_| answer.unreadable(line))
            }
        }
    }
}

/// What counts of a dataset that has no such snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// All that it has: the snapshot was taken of all, so it was made since.
    All,
    /// Nothing: who takes snapshots there may call each otherwise.
    Nothing,
}

/// What was said of one dataset.
#[derive(Clone, Copy, Debug, Default)]
struct Row<'a> {
    written: &'a str,
    referenced: &'a str,
    replicate: &'a str,
}

impl<'a> Row<'a> {
    fn set(&mut self, property: &str, value: &'a str) {
        match property {
            "referenced" => self.referenced = value,
            REPLICATE => self.replicate = value,
            _ => self.written = value,
        }
    }

    /// How much counts, and whether it has the snapshot.
    fn written(self, without: Without) -> Option<(u64, bool)> {
        match (self.written, without) {
            ("-", Without::All) => Some((self.referenced.parse().ok()?, false)),
            ("-", Without::Nothing) => Some((0, false)),
            (written, _) => Some((written.parse().ok()?, true)),
        }
    }
}

/// Reads `pool/a<TAB>PROPERTY<TAB>VALUE`; a value of a user's may hold anything.
fn read(line: &str) -> Option<(&str, &str, &str)> {
    let mut columns = line.splitn(3, '\t');
    Some((columns.next()?, columns.next()?, columns.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_such_snapshot_was_made_since_or_is_somebody_elses() {
        let row = |written, referenced| Row { written, referenced, replicate: "-" };
        assert_eq!(row("5", "100").written(Without::All), Some((5, true)));
        assert_eq!(row("-", "100").written(Without::All), Some((100, false)));
        assert_eq!(row("-", "100").written(Without::Nothing), Some((0, false)));
        for odd in [row("x", "1"), row("-", "-"), row("", "1"), Row::default()] {
            assert_eq!(odd.written(Without::All), None, "{odd:?}");
        }
    }

    #[test]
    fn a_line_has_three_parts_and_the_last_may_hold_anything() {
        assert_eq!(read("t/a b\treferenced\t5"), Some(("t/a b", "referenced", "5")));
        assert_eq!(read("t\tzferry:replicate\ta\tb"), Some(("t", REPLICATE, "a\tb")));
        assert_eq!(read("t\treferenced"), None);
        assert_eq!(read(""), None);
    }
}
