//! Which snapshots of a dataset stay, and which may go: rules and a listing in, a verdict for each
//! snapshot out.
//!
//! Pure: it knows neither pools nor a clock. The same decision is made at the source, at the target
//! by its server, and for `zferry prune`. What must never happen here, whatever the rules say: a
//! verdict that destroys the newest snapshot, the newest that both sides have or anything newer,
//! one that is held or cloned, or one of another tool; and a floor that somebody else can lower.

mod decide;
mod keep;
mod report;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::decide::decide;
pub use self::keep::{BadKeep, Keep, Rule};
pub use self::report::{Report, Stays};
pub use self::template::{BadTemplate, Template};
use crate::dataset::Guid;
use crate::listing::Snapshot;

/// A snapshot, and what ties it to its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// When it was made, as its pool says.
    pub created: Timestamp,
    /// How many holds it has (`userrefs`), ours and others.
    pub holds: u64,
    /// Whether something was cloned from it.
    pub cloned: bool,
}

/// Rules, and the names that they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many stay.
    pub keep: Keep,
    /// What does not fit it belongs to somebody else.
    pub template: Template,
}

/// The rules of whoever looks after this host, below which nobody else's go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// What they are. What does not fit their template stays.
    pub rules: Rules,
    /// The time on this host. Names tell the time that their sender says, and so the last days are
    /// counted from here as well: snapshots that name other days use up none of them.
    pub now: Timestamp,
}

/// What is known of the other side of a replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// There is none that anybody was asked about.
    Unasked,
    /// This is the newest snapshot that both have.
    Holds(Guid),
    /// Both have nothing in common, or nobody has answered.
    Nothing,
}

/// What becomes of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which one.
    pub candidate: Candidate,
    /// What becomes of it.
    pub ruling: Ruling,
}

/// Stay or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It stays, for this reason before all others.
    Keep(Why),
    /// It may go.
    Destroy,
}

/// Why a snapshot stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its name does not fit the template: another tool or a person has made it.
    NotOurs,
    /// Somebody holds it.
    Held,
    /// Something was cloned from it.
    Cloned,
    /// The newest that both sides have: the next copy builds on it.
    NewestCommon,
    /// The newest of its dataset, or of ours.
    Newest,
    /// The first of its year.
    Yearly,
    /// The first of its month.
    Monthly,
    /// The first of its week, which begins on Monday.
    Weekly,
    /// The first of its day.
    Daily,
    /// The first of its hour.
    Hourly,
    /// One of the last.
    Last,
    /// The other side does not hold it, nor anything later.
    NotConfirmed,
    /// Whoever looks after this host keeps more than was asked for.
    Floor,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// How many snapshots stay, by reason.
pub type Kept = BTreeMap<Why, u64>;

/// How many of these stay, by reason.
pub fn kept(verdicts: &[Verdict]) -> Kept {
    let mut kept = Kept::new();
    for verdict in verdicts {
        if let Ruling::Keep(why) = verdict.ruling {
            *kept.entry(why).or_default() += 1;
        }
    }
    kept
}

/// Those that may go, oldest first.
pub fn doomed(verdicts: &[Verdict]) -> Vec<Snapshot> {
    let goes = |verdict: &&Verdict| verdict.ruling == Ruling::Destroy;
    verdicts.iter().filter(goes).map(|verdict| verdict.candidate.snapshot.clone()).collect()
}

impl From<Rule> for Why {
    fn from(rule: Rule) -> Why {
        match rule {
            Rule::Last => Why::Last,
            Rule::Hourly => Why::Hourly,
            Rule::Daily => Why::Daily,
            Rule::Weekly => Why::Weekly,
            Rule::Monthly => Why::Monthly,
            Rule::Yearly => Why::Yearly,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Why::NotOurs => "not ours",
            Why::Held => "held",
            Why::Cloned => "cloned",
            Why::NewestCommon => "newest common",
            Why::Newest => "newest",
            Why::Yearly => "yearly",
            Why::Monthly => "monthly",
            Why::Weekly => "weekly",
            Why::Daily => "daily",
            Why::Hourly => "hourly",
            Why::Last => "last",
            Why::NotConfirmed => "not confirmed",
            Why::Floor => "floor",
            Why::Other => "other",
        })
    }
}
