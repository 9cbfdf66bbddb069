//! What a pruning tells: a table of what it would do, or what it did.

use std::fmt::Write as _;
use std::io;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::show;
use crate::dataset::DatasetName;
use crate::retention::{Kept, Report, Rules, Ruling, Stays, Verdict, Why};
use crate::zfs::prune::Pruned;

/// In which form it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub dry_run: bool,
    pub json: bool,
    /// Only what was asked for by a flag.
    pub quiet: bool,
}

impl Told {
    /// Tells what came of one dataset.
    pub fn tell(self, dataset: &DatasetName, rules: &Rules, pruned: &Pruned) {
        let out = &mut io::stdout().lock();
        if self.json {
            // Strings and numbers: it cannot fail.
            let json = serde_json::to_string(&Json::of(self.dry_run, dataset, rules, pruned));
            return show::say(out, &json.unwrap_or_default());
        }
        if self.dry_run {
            for line in table(rules, dataset, &pruned.verdicts) {
                show::say(out, &line);
            }
        }
        let (Report { stay, destroyed, .. }, true) = (&pruned.report, !self.quiet) else { return };
        if !self.dry_run {
            for name in destroyed {
                show::say(out, &format!("destroyed {}", dataset.at(name)));
            }
            for Stays { snapshot, why } in stay {
                show::say(out, &format!("left for now {}: {why}", dataset.at(snapshot)));
            }
        }
        show::say(out, &self.sum(dataset, &pruned.report));
    }

    fn sum(self, dataset: &DatasetName, report: &Report) -> String {
        let destroyed = if self.dry_run { "would be destroyed" } else { "destroyed" };
        let mut line =
            format!("{dataset}: {} {destroyed}, {}", report.count, kept_line(&report.kept));
        if report.staying > 0 {
            let _ = write!(line, ", {} left for now", report.staying);
        }
        line
    }
}

/// `38 kept (30 daily, 7 last, 1 newest)`.
fn kept_line(kept: &Kept) -> String {
    let count: u64 = kept.values().sum();
    let reasons: Vec<String> = kept.iter().map(|(why, count)| format!("{count} {why}")).collect();
    if reasons.is_empty() {
        "none kept".to_owned()
    } else {
        format!("{count} kept ({})", reasons.join(", "))
    }
}

/// A line for each snapshot below a head, newest first.
fn table(rules: &Rules, dataset: &DatasetName, verdicts: &[Verdict]) -> Vec<String> {
    let full = |verdict: &Verdict| dataset.at(&verdict.candidate.snapshot.name);
    let width = verdicts.iter().map(|verdict| full(verdict).len()).max().unwrap_or(0).max(8);
    let line = |name: &str, created: &str, verdict: &str, why: &str| {
        format!("{name:width$}  {created:20}  {verdict:7}  {why}").trim_end().to_owned()
    };
    let row = |verdict: &Verdict| {
        let (word, why) = words(verdict.ruling);
        let created = created(rules, verdict).to_string();
        line(&full(verdict), &created, word, &why.map(|why| why.to_string()).unwrap_or_default())
    };
    let head = line("SNAPSHOT", "CREATED", "VERDICT", "WHY");
    std::iter::once(head).chain(verdicts.iter().rev().map(row)).collect()
}

/// When it was made: for ours, by the name, as the rules count.
fn created(rules: &Rules, verdict: &Verdict) -> Timestamp {
    let named = rules.template.time_of(&verdict.candidate.snapshot.name);
    named.unwrap_or(verdict.candidate.created)
}

fn words(ruling: Ruling) -> (&'static str, Option<Why>) {
    match ruling {
        Ruling::Keep(why) => ("keep", Some(why)),
        Ruling::Destroy => ("destroy", None),
    }
}

#[derive(Serialize)]
struct Json<'a> {
    dataset: &'a DatasetName,
    dry_run: bool,
    keep: String,
    template: &'a str,
    snapshots: Vec<Row<'a>>,
    destroyed: u64,
    kept: &'a Kept,
    left_for_now: &'a [Stays],
    failure: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    snapshot: &'a str,
    /// A text, for many readers of JSON have no numbers of 64 bits.
    guid: String,
    created: String,
    verdict: &'static str,
    why: Option<Why>,
}

impl<'a> Json<'a> {
    fn of(
        dry_run: bool,
        dataset: &'a DatasetName,
        rules: &'a Rules,
        pruned: &'a Pruned,
    ) -> Json<'a> {
        let Pruned { verdicts, report } = pruned;
        let row = |verdict: &'a Verdict| {
            let (word, why) = words(verdict.ruling);
            let snapshot = &verdict.candidate.snapshot;
            Row {
                snapshot: snapshot.name.as_str(),
                guid: snapshot.guid.to_string(),
                created: created(rules, verdict).to_string(),
                verdict: word,
                why,
            }
        };
        Json {
            dataset,
            dry_run,
            keep: rules.keep.to_string(),
            template: rules.template.as_str(),
            snapshots: verdicts.iter().map(row).collect(),
            destroyed: report.count,
            kept: &report.kept,
            left_for_now: &report.stay,
            failure: report.failure.as_ref().map(ToString::to_string),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::{Candidate, Far, Template, decide};

    fn candidate(name: &str, createtxg: u64) -> Candidate {
        let snapshot = crate::listing::Snapshot {
            name: name.parse().unwrap(),
            guid: crate::dataset::Guid(createtxg),
            createtxg,
        };
        let created = "2026-08-03T06:00:00Z".parse().unwrap();
        Candidate { snapshot, created, holds: 0, cloned: false }
    }

    #[test]
    fn the_table_says_of_each_snapshot_when_it_was_made_and_why_it_stays() {
        let candidates = [
            candidate("zferry_2026-08-01T00:00:00Z", 1),
            candidate("zferry_2026-08-02T00:00:00Z", 2),
            candidate("zferry_2026-08-03T00:00:00Z", 3),
            candidate("before-upgrade", 4),
        ];
        let rules = Rules { keep: "monthly=1".parse().unwrap(), template: Template::default() };
        let verdicts = decide(&candidates, &rules, Far::Unasked, None);
        let lines = table(&rules, &"tank/a".parse().unwrap(), &verdicts);
        assert_eq!(
            lines.join("\n"),
            "SNAPSHOT                            CREATED               VERDICT  WHY\n\
             tank/a@before-upgrade               2026-08-03T06:00:00Z  keep     not ours\n\
             tank/a@zferry_2026-08-03T00:00:00Z  2026-08-03T00:00:00Z  keep     newest\n\
             tank/a@zferry_2026-08-02T00:00:00Z  2026-08-02T00:00:00Z  destroy\n\
             tank/a@zferry_2026-08-01T00:00:00Z  2026-08-01T00:00:00Z  keep     monthly"
        );
        assert_eq!(
            kept_line(&crate::retention::kept(&verdicts)),
            "3 kept (1 not ours, 1 newest, 1 monthly)"
        );
    }
}
