//! `zferry prune`: what may go of the snapshots of this host, by rules.

mod report;

use clap::Args;

use self::report::Told;
use super::usage;
use crate::dataset::DatasetName;
use crate::error::{Failure, Side};
use crate::retention::{Far, Keep, Rules, Template};
use crate::zfs::Zfs;
use crate::zfs::prune::Prune;

/// Destroy snapshots of this host that need not be kept, by rules
///
/// For a host that receives and prunes by itself, and, with -n, to see what rules would do. Only
/// snapshots go whose names fit the template; the newest, those that are held or cloned and those
/// of other tools stay, whatever the rules say. It asks no other host: on the source of a copy it
/// may destroy the snapshot that the next copy would build on, so prune there by the rules of the
/// job that copies it. Periods are in UTC, and the first snapshot of each is the one that stays.
///
/// Exits with 0 also where some stay for now, because they are in use; with 1 if some datasets
/// could not be pruned and others were.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The dataset whose snapshots are pruned
    #[arg(value_name = "DATASET")]
    dataset: String,
    /// How many to keep: the last ones, and the first of so many hours, days, weeks, months and
    /// years: last=10,hourly=24,daily=7,weekly=4,monthly=12,yearly=2
    #[arg(long, value_name = "RULES")]
    keep: Keep,
    /// How the snapshots are called that may go; all others are left alone. It tells year to second
    /// in UTC by the signs of strftime(3)
    #[arg(long, value_name = "TEMPLATE", default_value_t)]
    template: Template,
    /// Prune everything below it as well, each dataset by itself
    #[arg(short, long)]
    recursive: bool,
    /// Destroy nothing: show each snapshot, whether it would stay, and why
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print one JSON object for each dataset instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, quiet: bool) -> Result<u8, Failure> {
    let side = Side::Target;
    let root: DatasetName =
        arguments.dataset.parse().map_err(|error| usage(side, format!("dataset {error}")))?;
    let zfs = Zfs::find().map_err(|error| error.on(side))?;
    let mut datasets = vec![root.clone()];
    if arguments.recursive {
        datasets.extend(zfs.names_below(&root).map_err(|error| error.on(side))?);
    }
    let rules = Rules { keep: arguments.keep, template: arguments.template.clone() };
    let prune = Prune { rules: &rules, far: Far::Unasked, floor: None, dry_run: arguments.dry_run };
    let told = Told { dry_run: arguments.dry_run, json: arguments.json, quiet };
    let (mut done, mut failed) = (0, Vec::new());
    for dataset in &datasets {
        let pruned = zfs.prune(side, dataset, &prune).map_err(|error| error.on(side));
        let failure = match pruned {
            Ok(pruned) => {
                told.tell(dataset, &rules, &pruned);
                pruned.report.failure
            }
            Err(failure) => Some(failure),
        };
        match failure {
            None => done += 1,
            Some(failure) => failed.push(failure),
        }
    }
    exit_code(done, failed)
}

/// All failures but the last are told here.
fn exit_code(done: usize, mut failed: Vec<Failure>) -> Result<u8, Failure> {
    let Some(last) = failed.pop() else { return Ok(0) };
    failed.iter().for_each(super::show::failure);
    if done == 0 {
        return Err(last);
    }
    super::show::failure(&last);
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn some_that_failed_are_a_part_and_all_that_failed_are_a_failure() {
        let failure = || Failure::new(Side::Target, Class::Zfs, "no");
        assert_eq!(exit_code(2, vec![]), Ok(0));
        assert_eq!(exit_code(1, vec![failure()]), Ok(1));
        assert_eq!(exit_code(0, vec![failure(), failure()]).unwrap_err().exit_code(), 2);
    }
}
