//! Prunes one dataset: lists, has `retention` decide, destroys what may go.
//!
//! The same for the source of a copy, for the server that received it, and for `zferry prune`. What
//! must never happen here: a decision about another listing than the one that was made just now.

use super::{Zfs, ZfsError};
use crate::dataset::DatasetName;
use crate::error::Side;
use crate::retention::{Far, Floor, Report, Rules, Verdict, decide, doomed, kept};

/// What is to be pruned away.
#[derive(Clone, Debug)]
pub struct Prune<'a> {
    /// What whoever asks wants kept.
    pub rules: &'a Rules,
    /// What the other side has.
    pub far: Far,
    /// What stays whatever is asked for.
    pub floor: Option<&'a Floor>,
    /// Nothing is destroyed, only said.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// What was decided, oldest first.
    pub verdicts: Vec<Verdict>,
    /// What was done; in a dry run, what would have been.
    pub report: Report,
}

impl Zfs {
    /// Prunes a dataset of this host, which stands on `side`. Fails where it cannot be listed; what
    /// fails later is in the report, with all that was done before.
    pub fn prune(
        &self,
        side: Side,
        dataset: &DatasetName,
        Prune { rules, far, floor, dry_run }: &Prune<'_>,
    ) -> Result<Pruned, ZfsError> {
        let listed = self.candidates(dataset)?;
        let verdicts = decide(&listed, rules, *far, *floor);
        let doomed = doomed(&verdicts);
        let mut report = Report { kept: kept(&verdicts), ..Report::default() };
        if *dry_run {
            report.destroyed = doomed.into_iter().map(|snapshot| snapshot.name).collect();
        } else {
            let done = self.destroy_snapshots(dataset, listed, &doomed);
            report.destroyed = done.gone;
            report.stay = done.stay;
            report.failure = done.error.map(|error| error.on(side));
        }
        report.count = report.destroyed.len() as u64;
        report.staying = report.stay.len() as u64;
        Ok(Pruned { verdicts, report })
    }
}
