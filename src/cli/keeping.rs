//! What stays of what was copied: the same flags for a copy that this host sends and for one that
//! ssh has another host send.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::usage;
use crate::client::prune::Retention;
use crate::dataset::SnapName;
use crate::error::{Failure, Side};
use crate::retention::{Candidate, Keep, Rules, Template};

/// Rules for both sides.
#[derive(Args, Debug)]
#[command(next_help_heading = "Snapshots that go again")]
pub(super) struct KeepFlags {
    /// After a copy that ended well, destroy snapshots of the source that need not be kept. How
    /// many stay: the last ones, and the first of so many hours, days, weeks, months and years, as
    /// in last=10,hourly=24,daily=7. Whatever this says, the newest that both sides have stays and
    /// all that the target has not yet, and what is held, cloned or another tool's [default: all
    /// stay]
    #[arg(long, value_name = "RULES")]
    keep: Option<Keep>,
    /// The same for the target. A server with keys does that only for clients that it grants
    /// `prune`, and keeps what its own rules say besides [default: all stay]
    #[arg(long, value_name = "RULES")]
    keep_target: Option<Keep>,
    /// How snapshots that are taken are called, by the signs of strftime(3) in UTC, and which ones
    /// --keep and --keep-target are about: all others are left alone
    #[arg(long, value_name = "TEMPLATE", default_value_t)]
    template: Template,
}

impl KeepFlags {
    /// What stays.
    pub fn retention(&self, dry_run: bool) -> Retention {
        let rules =
            |keep: Option<Keep>| keep.map(|keep| Rules { keep, template: self.template.clone() });
        Retention { source: rules(self.keep), target: rules(self.keep_target), dry_run }
    }

    /// The name of a snapshot that is taken now, by a clock that is so much ahead: where others
    /// have taken the names of this second.
    pub fn name(&self, ahead: Duration) -> Result<SnapName, Failure> {
        let now = Timestamp::now();
        self.template
            .name_at(now.checked_add(ahead).unwrap_or(now))
            .map_err(|error| usage(Side::Source, format!("--template {}: {error}", self.template)))
    }

    /// The newest that was taken since then, by whole seconds, as a pool counts.
    pub fn taken_since<'a>(&self, since: Timestamp, all: &'a [Candidate]) -> Option<&'a SnapName> {
        let is_taken = |one: &&Candidate| {
            let is_ours = self.template.time_of(&one.snapshot.name).is_some();
            is_ours && one.created.as_second() >= since.as_second()
        };
        all.iter().rev().find(is_taken).map(|one| &one.snapshot.name)
    }

    /// The same flags as words, for another host.
    pub fn for_far(&self) -> Vec<String> {
        let KeepFlags { keep, keep_target, template } = self;
        let mut words = vec![format!("--template={template}")];
        words.extend(keep.map(|keep| format!("--keep={keep}")));
        words.extend(keep_target.map(|keep| format!("--keep-target={keep}")));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Guid;
    use crate::listing::Snapshot;

    #[test]
    fn a_name_may_be_that_of_a_second_to_come() {
        let flags = KeepFlags { keep: None, keep_target: None, template: Template::default() };
        let name = |seconds| flags.name(Duration::from_secs(seconds)).unwrap();
        let time = |name: SnapName| flags.template.time_of(&name).unwrap();
        let (now, then) = (time(name(0)), time(name(100)));
        assert!((99..=110).contains(&then.duration_since(now).as_secs()), "{now} {then}");
    }

    fn made(name: &str, created: &str) -> Candidate {
        let snapshot = Snapshot { name: name.parse().unwrap(), guid: Guid(1), createtxg: 1 };
        Candidate { snapshot, created: created.parse().unwrap(), holds: 0, cloned: false }
    }

    #[test]
    fn what_was_taken_since_is_the_newest_of_ours_and_of_that_second_at_least() {
        let flags = KeepFlags { keep: None, keep_target: None, template: Template::default() };
        let all = [
            made("zferry_2026-03-01T09:59:59Z", "2026-03-01T09:59:59Z"),
            made("zferry_2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"),
            made("by-hand", "2026-03-01T10:00:01Z"),
        ];
        let since = |moment: &str| flags.taken_since(moment.parse().unwrap(), &all);
        let found = since("2026-03-01T10:00:00.7Z").map(SnapName::as_str);
        assert_eq!(found, Some("zferry_2026-03-01T10:00:00Z"), "a pool counts whole seconds");
        assert_eq!(since("2026-03-01T10:00:01Z"), None, "another's is not what a run has taken");
    }
}
