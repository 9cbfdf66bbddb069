//! Which datasets a copy takes along: the same flags for a copy that this host sends and for one
//! that ssh has another host send.

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use clap::Args;

use super::copied::Copied;
use crate::client::job::{Job, Wanted};
use crate::client::rehearse::rehearse;
use crate::client::replicate::replicate;
use crate::client::{
    Connections, Dial, Held, Options, Stop, Summary, TreeJob, TreeOutcome, TreeWatch,
    replicate_tree,
};
use crate::dataset::{DatasetName, SnapName};
use crate::engine::settings::Settings;
use crate::error::{Class, Failure, Side};
use crate::pattern::Pattern;
use crate::plan::tree::is_left_out;
use crate::zfs::Zfs;

/// As many sessions as a tree may have at once.
const PARALLEL_MAX: u16 = 64;

/// A dataset, or all below it as well.
#[derive(Args, Debug)]
#[command(next_help_heading = "Trees")]
pub(super) struct TreeFlags {
    /// Copy SRC and all datasets below it, each by itself: where one fails, the others are copied
    /// all the same, and the exit code is 1. A snapshot that is taken is taken of all at the same
    /// moment. Clones arrive as clones of what they were made from
    #[arg(short, long)]
    recursive: bool,
    /// With -r, leave out the datasets that this pattern fits, and all below them; it is held
    /// against names below SRC, as in 'tmp' or '**/cache'. May be given again. The owner of a
    /// dataset leaves it out by `zfs set zferry:replicate=off`
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    exclude_dataset: Vec<Pattern>,
    /// With -r, how many datasets are copied at once. Each has a session of its own; they share
    /// --cache, --workers and --bwlimit, but not --connections. More help where datasets are
    /// small or one stream does not fill the line [default: 4]
    #[arg(long, value_name = "N", requires = "recursive")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(PARALLEL_MAX)))]
    parallel: Option<u16>,
}

/// Enough that one dataset's end and the next one's beginning cost nobody time, on any machine.
const PARALLEL: u16 = 4;

impl TreeFlags {
    /// Whether there is one.
    pub fn is_tree(&self) -> bool {
        self.recursive
    }

    /// Whether one at or below the source is left out by its name.
    pub fn leaves_out(&self, source: &DatasetName, dataset: &DatasetName) -> bool {
        is_left_out(source, dataset, &self.exclude_dataset)
    }

    /// How many sessions share what there is to one.
    pub fn sessions(&self) -> NonZeroU16 {
        let count = if self.recursive { self.parallel.unwrap_or(PARALLEL) } else { 1 };
        NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN)
    }

    /// Demands that the share of each session is enough for it.
    pub fn check_cache(&self, whole: &Settings, connections: Connections) -> Result<(), Failure> {
        let share = whole.one_of(self.sessions(), 0);
        let slots = share.slots(usize::from(connections.least()), share.codec(), Side::Source);
        slots.map(drop).map_err(|failure| {
            let what = format!("{} for each of --parallel {}", failure.what, self.sessions());
            Failure { what, ..failure }.with_remedy("use a larger --cache, or a smaller --parallel")
        })
    }

    /// Copies the dataset of `job`, or the tree that it is the root of; or, for a rehearsal, tells
    /// what that would do.
    pub async fn carry_out(
        &self,
        is_rehearsal: bool,
        (zfs, job): (&Zfs, &Job),
        dial: &Dial,
        options: Options,
        watch: &dyn TreeWatch,
        stop: &mut Stop,
    ) -> Result<Copied, Failure> {
        let begun = Instant::now();
        let copied = match (self.job(job), is_rehearsal) {
            (tree, true) => {
                let what = (job, tree.as_ref());
                Box::pin(rehearse(zfs, what, dial, options, watch, stop)).await?;
                nothing(job)
            }
            (Some(tree), false) => {
                let copying = replicate_tree(zfs, &tree, dial, &options, watch, stop);
                whole(job, Box::pin(copying).await?)?
            }
            (None, false) => {
                let mut one = watch.dataset(&job.source);
                let copying = replicate(zfs, job, dial, options, one.as_mut(), stop);
                let held = Box::pin(copying).await?;
                watch.ended(&job.source, &Ok(held.clone()));
                alone(job, held)
            }
        };
        let taken = if copied.summary.streams > 0 { begun.elapsed() } else { Duration::ZERO };
        Ok(Copied { summary: Summary { taken, ..copied.summary }, ..copied })
    }

    fn job(&self, root: &Job) -> Option<TreeJob> {
        self.recursive.then(|| TreeJob {
            root: root.clone(),
            exclude: self.exclude_dataset.clone(),
            parallel: self.sessions(),
        })
    }

    /// The same flags as words, for another host.
    pub fn for_far(&self) -> Vec<String> {
        let TreeFlags { recursive, exclude_dataset, parallel } = self;
        let mut words: Vec<String> = Vec::new();
        words.extend(recursive.then(|| "--recursive".to_owned()));
        words.extend(exclude_dataset.iter().map(|it| format!("--exclude-dataset={it}")));
        words.extend(parallel.map(|count| format!("--parallel={count}")));
        words
    }
}

/// What comes of a rehearsal.
fn nothing(job: &Job) -> Copied {
    let (holds, summary) = (job.source.to_string(), Summary::default());
    Copied { holds, snapshot: None, summary, missing: None }
}

/// What became of one dataset.
fn alone(job: &Job, held: Held) -> Copied {
    let Held { snapshot, summary, unpruned } = held;
    let holds = job.source.at(&snapshot);
    let missing = unpruned.split_first().map(|(first, others)| {
        let mut what = format!("{holds} is copied, but pruning failed: {}", first.what);
        for Failure { side, what: too, .. } in others {
            let _ = write!(what, "; at the {side}: {too}");
        }
        let remedy = first.remedy.as_deref().unwrap_or("mend that; the next run prunes again");
        Failure::new(first.side, Class::Partly, what).with_remedy(remedy)
    });
    Copied { holds, snapshot: Some(snapshot), summary, missing }
}

/// What became of a tree as a whole.
fn whole(job: &Job, outcome: TreeOutcome) -> Result<Copied, Failure> {
    let TreeOutcome { copied, left_out, extra } = outcome;
    let is_root_there = left_out.iter().all(|(dataset, _)| *dataset != job.source);
    for (dataset, why) in left_out {
        tracing::info!(%dataset, ?why, "left out");
    }
    for dataset in extra {
        tracing::info!(%dataset, "the target has it, and the source has not; it stays as it is");
    }
    let mut summary = Summary::default();
    let mut of_root = None;
    let mut failed: Vec<(DatasetName, Failure)> = Vec::new();
    let mut unpruned: Vec<(DatasetName, Failure)> = Vec::new();
    let count = copied.len();
    for (dataset, outcome) in copied {
        match outcome {
            Ok(held) => {
                summary.join(&held.summary);
                of_root = of_root.or((dataset == job.source).then_some(held.snapshot));
                unpruned.extend(held.unpruned.into_iter().next().map(|failure| (dataset, failure)));
            }
            Err(failure) => failed.push((dataset, failure)),
        }
    }
    if let Some((_, failure)) = failed.first().filter(|_| failed.len() == count) {
        let what = format!("none of {count} datasets was copied: {}", named(&failed));
        return Err(Failure { what, ..failure.clone() });
    }
    let missing = missing(count, &failed, &unpruned);
    let count = count - failed.len();
    let datasets = match count {
        1 => "1 dataset".to_owned(),
        count => format!("{count} datasets"),
    };
    let holds = match snapshot_of(&job.wanted, of_root.as_ref()) {
        Some(snapshot) if is_root_there => format!("{} ({datasets})", job.source.at(snapshot)),
        // The root itself has no such snapshot.
        Some(snapshot) => format!("{} ({datasets}, @{snapshot})", job.source),
        None => format!("{} ({datasets})", job.source),
    };
    let snapshot = snapshot_of(&job.wanted, of_root.as_ref()).cloned();
    Ok(Copied { holds, snapshot, summary, missing })
}

/// What is wrong with a tree of so many datasets, of which not all have failed.
fn missing(
    count: usize,
    failed: &[(DatasetName, Failure)],
    unpruned: &[(DatasetName, Failure)],
) -> Option<Failure> {
    let not_copied =
        || format!("{} of {count} datasets were not copied: {}", failed.len(), named(failed));
    let not_pruned = || format!("pruning failed of {}: {}", unpruned.len(), named(unpruned));
    let (what, remedy) = match (failed, unpruned) {
        ([], []) => return None,
        ([], _) => (
            match count {
                1 => format!("1 dataset is copied, but pruning failed: {}", named(unpruned)),
                _ => format!("{count} datasets are copied, but {}", not_pruned()),
            },
            "see above what is wrong with each; the next run prunes again",
        ),
        (_, []) => (not_copied(), "see above what is wrong with each; the others are copied"),
        (_, _) => (
            format!("{}; and {}", not_copied(), not_pruned()),
            "see above what is wrong with each; the others are copied",
        ),
    };
    Some(Failure::new(Side::Source, Class::Partly, what).with_remedy(remedy))
}

/// What all datasets of a tree have in common, or at least what its root has.
fn snapshot_of<'a>(wanted: &'a Wanted, of_root: Option<&'a SnapName>) -> Option<&'a SnapName> {
    match wanted {
        Wanted::Taken(name) | Wanted::Named(name) => Some(name),
        Wanted::Newest => of_root,
    }
}

/// The first few by name, with what is wrong with the first.
fn named(failed: &[(DatasetName, Failure)]) -> String {
    const MOST: usize = 5;
    let names: Vec<&str> = failed.iter().take(MOST).map(|(name, _)| name.as_str()).collect();
    let more = failed.len().saturating_sub(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let first = failed.first().map(|(_, failure)| failure.what.as_str()).unwrap_or_default();
    format!("{}{more}; the first: {first}", names.join(", "))
}
