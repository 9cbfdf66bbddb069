//! How much a dataset has changed since one of its snapshots, without reading any of it.

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

    /// The same for a dataset and all below it, together. What has no such snapshot was made since,
    /// so that all of it counts; `None` where the root itself has none.
    pub fn written_below(
        &self,
        root: &DatasetName,
        snapshot: &SnapName,
    ) -> Result<Option<Bytes>, ZfsError> {
        let properties = format!("written@{snapshot},referenced");
        let kinds = "filesystem,volume";
        let root = root.as_str();
        let answer =
            self.ask(&["get", "-Hp", "-r", "-t", kinds, "-o", "value", "--", &properties, root])?;
        // Of each dataset two, the root's first.
        let values: Vec<&str> = answer.text.lines().collect();
        let (Some(first), true) = (values.first(), values.len().is_multiple_of(2)) else {
            return Err(answer.unreadable(answer.text.lines().next_back().unwrap_or_default()));
        };
        let of = |pair: &[&str]| written(pair).ok_or_else(|| answer.unreadable(&pair.join(" ")));
        let sum = values.chunks(2).map(of).sum::<Result<u64, ZfsError>>()?;
        Ok((*first != "-").then_some(Bytes(sum)))
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

/// What was written to a dataset since a snapshot, or all that it has, if it has no such snapshot.
fn written(values: &[&str]) -> Option<u64> {
    let [written, referenced] = values.try_into().ok()?;
    if written == "-" { referenced } else { written }.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_such_snapshot_was_written_since() {
        assert_eq!(written(&["5", "100"]), Some(5));
        assert_eq!(written(&["-", "100"]), Some(100));
        for odd in [&["5"][..], &["x", "1"], &["-", "-"], &["1", "2", "3"], &[]] {
            assert_eq!(written(odd), None, "{odd:?}");
        }
    }
}
