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
        let words = ["get", "-Hp", "-o", "value", "--", &property, dataset.as_str()];
        let answer = self.ask(&words)?;
        match answer.text.lines().next().unwrap_or_default() {
            "-" => Ok(None),
            line => {
                line.parse().map(|bytes| Some(Bytes(bytes))).map_err(|_| answer.unreadable(line))
            }
        }
    }
}
