//! What of `[defaults]` a job takes: what it does not say itself, and what can be meant for it.
//!
//! A default is said once for many jobs, of which one copies within this host and another a tree:
//! what has no meaning for a job is no mistake in it. What must never happen here: that a word is
//! left out that would have held a job back. So what contradicts another word stays, and is told.

use clap::{Args, Command};

use super::{Entry, Keys};
use crate::cli::far::SshFlags;
use crate::cli::target::{Source, Target};

/// What starts a job by a clock; one of them is enough.
const RHYTHMS: [&str; 2] = ["every", "cron"];

/// Flags that say more of another one.
pub(super) const NEEDS: [(&str, &str); 3] =
    [("exclude-dataset", "recursive"), ("parallel", "recursive"), ("spool-max", "spool")];

/// The words of a job, and those of `[defaults]` that are for it.
pub(super) fn joined<'a>(own: &Keys<'a>, defaults: &Keys<'a>) -> Keys<'a> {
    let has_rhythm = RHYTHMS.iter().any(|key| own.contains_key(key));
    let mut all = own.clone();
    for (&key, entry) in defaults {
        if !(has_rhythm && RHYTHMS.contains(&key)) {
            all.entry(key).or_insert_with(|| entry.clone());
        }
    }
    let way = Way::of(&all);
    let is_meant = |key: &str| {
        let needs = NEEDS.iter().filter(|(needing, _)| *needing == key);
        needs.into_iter().all(|(_, needed)| is_said(&all, needed))
            && way.as_ref().is_none_or(|way| way.has_use_for(key))
    };
    let left_out: Vec<&str> =
        defaults.keys().copied().filter(|key| !own.contains_key(key) && !is_meant(key)).collect();
    all.retain(|key, _| !left_out.contains(key));
    all
}

/// Whether a flag is given: with a value, or as `true`.
pub(super) fn is_said(all: &Keys<'_>, key: &str) -> bool {
    all.get(key).is_some_and(|entry| entry.value.as_bool() != Some(false))
}

/// How a job's data go.
struct Way {
    source: Source,
    target: Target,
    takes_snapshot: bool,
}

impl Way {
    /// `None` where that is not said well: then it is told, and nothing is left out.
    fn of(all: &Keys<'_>) -> Option<Way> {
        let text = |key| all.get(key).and_then(|entry: &Entry<'_>| entry.value.as_str());
        let source = Source::parse(text("source")?).ok()?;
        let target = Target::parse(text("target")?).ok()?;
        Some(Way { source, target, takes_snapshot: !is_said(all, "no-snapshot") })
    }

    fn has_use_for(&self, key: &str) -> bool {
        let is_here = matches!(self.source, Source::Local(_));
        let is_within_host = is_here && matches!(self.target, Target::Local(_));
        let is_by_ssh = !is_here || matches!(self.target, Target::Ssh { .. });
        match key {
            "bwlimit" => !is_within_host,
            "plain" => matches!(self.target, Target::Server { .. }),
            // How much is written, and commands around a snapshot, are of the source's host.
            "written" | "check" => is_here,
            "pre-snapshot" | "post-snapshot" => is_here && self.takes_snapshot,
            _ => is_by_ssh || !is_of_ssh(key),
        }
    }
}

fn is_of_ssh(key: &str) -> bool {
    let flags = SshFlags::augment_args(Command::new("ssh"));
    flags.get_arguments().any(|flag| flag.get_long() == Some(key))
}
