//! Asks `zfs send` how long a stream will be, without sending it.
//!
//! An estimate serves progress bars and the choice of what to batch. It may lie below the truth
//! (by 0.2 % on a stream that was measured), so no stream may ever be judged or cut by it.

use super::texts::DEAD_TOKEN;
use super::{Zfs, ZfsError, failure, send};
use crate::dataset::DatasetName;
use crate::plan::Step;
use crate::token::Token;
use crate::units::Bytes;

/// What `zfs` says of the rest of an interrupted stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It can be sent, and has about so many bytes, as far as `zfs` tells.
    Sendable(Option<Bytes>),
    /// What it was made from is gone; with the words of `zfs`.
    Dead(String),
}

impl Zfs {
    /// Whether the rest of the stream that `token` belongs to can be sent, and how long it is.
    /// Nothing is sent.
    pub fn rest_of(&self, token: &Token) -> Result<Rest, ZfsError> {
        let answer = self.run(&send::rest_arguments(&["-n", "-v", "-P"], token))?;
        if answer.ended.success() {
            return Ok(Rest::Sendable(answer.text.lines().last().and_then(read_size)));
        }
        if DEAD_TOKEN.iter().any(|text| answer.failed_with(text)) {
            return Ok(Rest::Dead(failure::words(&answer.ended)));
        }
        Err(answer.failed())
    }

    /// About how many bytes `step` of `dataset` will take. Cheap: `zfs` only adds up counters.
    pub fn estimate(&self, dataset: &DatasetName, step: &Step) -> Result<Bytes, ZfsError> {
        let answer = self.ask(&send::arguments_with(&["-n", "-v", "-P"], dataset, step))?;
        let last = answer.text.lines().last().unwrap_or_default();
        read_size(last).ok_or_else(|| answer.unreadable(last))
    }
}

/// Reads `size<TAB>BYTES`, the last line, which sums up those above.
pub(super) fn read_size(line: &str) -> Option<Bytes> {
    line.strip_prefix("size\t")?.parse().ok().map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_line_is_read_and_no_other() {
        assert_eq!(read_size("size\t25226864"), Some(Bytes(25_226_864)));
        for line in ["", "size", "size\t", "size 1", "size\t-1", "full\tsrc/fs@s1\t25226864"] {
            assert_eq!(read_size(line), None, "{line:?}");
        }
    }
}
