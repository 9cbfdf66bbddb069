//! What a user sees of a copy, and how a user stops one.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::figures::{Moment, Summary};
use super::job::Outcome;
use crate::dataset::{DatasetName, SnapName};
use crate::error::{Failure, Side};
use crate::plan::tree::{Lack, LeftOut, Tree, Verdict};
use crate::retention::Report;
use crate::server::Stopping;
use crate::units::Bytes;

/// What let a stream go on after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// What was lost of its connections was replaced, with both `zfs` processes untouched.
    Reconnect,
    /// The rest came out of breakpoint files.
    Spool,
    /// ZFS's own resume token.
    Token,
}

/// Somebody who looks on.
pub trait Watch {
    /// A stream begins: what it is, and how long it will be as far as anybody knows.
    fn begin(&mut self, what: &str, estimated: Option<Bytes>);
    /// It is so far now; called several times a second.
    fn moment(&mut self, moment: Moment);
    /// The target holds it.
    fn end(&mut self);
    /// A stream goes on after a cut, or has arrived in spite of one.
    fn survived(&mut self, _by: Layer) {}
    /// An attempt at the copy has failed, and another follows.
    fn tried_again(&mut self, _after: &Failure) {}
}

/// Somebody who looks on at a tree.
pub trait TreeWatch {
    /// What is going to be done.
    fn planned(&self, planned: &Planned);
    /// A dataset begins: who looks on at its streams.
    fn dataset(&self, dataset: &DatasetName) -> Box<dyn Watch + '_>;
    /// What became of a dataset, whether it began or not.
    fn ended(&self, dataset: &DatasetName, outcome: &Result<Held, Failure>);
    /// What would be done, where nothing is.
    fn would(&self, would: &Would);
}

/// What would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Would {
    /// A dataset would be copied, by the commands that follow.
    Copy {
        /// The source.
        dataset: DatasetName,
        /// Its place at the target.
        target: DatasetName,
        /// How many streams; none where the target has all.
        streams: usize,
        /// About how many bytes, where that can be known.
        bytes: Option<Bytes>,
    },
    /// Snapshots would go, for they need not be kept.
    Prune {
        /// Where.
        side: Side,
        /// Which; of many the first.
        report: Report,
    },
    /// A command would be run.
    Run {
        /// Where.
        side: Side,
        /// As one would type it.
        command: String,
    },
}

/// What the target holds of a dataset now, and what that took: no stream where it held it before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The snapshot that was wanted.
    pub snapshot: SnapName,
    /// What that took.
    pub summary: Summary,
    /// Why snapshots stay that were to go, on either side; of nothing that is in use for a moment.
    pub unpruned: Vec<Failure>,
}

impl From<Outcome> for Held {
    fn from(outcome: Outcome) -> Held {
        let (snapshot, summary) = match outcome {
            Outcome::UpToDate(snapshot) => (snapshot, Summary::default()),
            Outcome::Done(snapshot, summary) => (snapshot, summary),
        };
        Held { snapshot: snapshot.name, summary, unpruned: Vec::new() }
    }
}

/// What is going to be done for a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// How many datasets are to be held by the target.
    pub datasets: usize,
    /// Of how many it holds already what it is to hold.
    pub up_to_date: usize,
    /// How many cannot be copied, as far as is known.
    pub refused: usize,
    /// How many streams are to be sent.
    pub streams: usize,
    /// How many datasets are left out.
    pub left_out: usize,
    /// How many the target has besides.
    pub extra: usize,
    /// Those of the datasets that are left out which nobody has left out: they have no snapshot
    /// that could be sent. Together for each reason.
    #[serde(default)]
    pub without_snapshot: Vec<Without>,
}

/// Datasets that have no snapshot that could be sent, all for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Without {
    /// Why not.
    pub why: Lack,
    /// How many there are.
    pub count: usize,
    /// Their names; of many the first.
    pub datasets: Vec<DatasetName>,
}

/// So many datasets without a snapshot are named for each reason: what another host tells must come
/// in one line.
const NAMED_MAX: usize = 50;

impl Planned {
    pub(super) fn of(tree: &Tree) -> Planned {
        let (left_out, extra) = (tree.left_out.len(), tree.extra.len());
        let without_snapshot = Without::of(tree);
        let mut planned = Planned { left_out, extra, without_snapshot, ..Planned::default() };
        for task in &tree.tasks {
            planned.datasets += 1;
            match task.verdict {
                Verdict::UpToDate(_) => planned.up_to_date += 1,
                Verdict::Refused(_) => planned.refused += 1,
                Verdict::Carry(streams) => planned.streams += streams,
            }
        }
        planned
    }
}

impl Without {
    fn of(tree: &Tree) -> Vec<Without> {
        let mut all: BTreeMap<Lack, Without> = BTreeMap::new();
        for (dataset, why) in &tree.left_out {
            let &LeftOut::NoSnapshot(why) = why else { continue };
            let without = || Without { why, count: 0, datasets: Vec::new() };
            let without = all.entry(why).or_insert_with(without);
            without.count += 1;
            if without.datasets.len() < NAMED_MAX {
                without.datasets.push(dataset.clone());
            }
        }
        all.into_values().collect()
    }
}

/// Says when the user does not want to go on.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Stopping>);

impl Stop {
    /// A stop that is pulled by sending anything but [`Stopping::No`].
    pub fn new(pulled: watch::Receiver<Stopping>) -> Stop {
        Stop(pulled)
    }

    /// Whether it was pulled.
    pub fn is_pulled(&self) -> bool {
        *self.0.borrow() > Stopping::No
    }

    /// Waits until it is pulled; for ever where nobody can.
    pub async fn pulled(&mut self) {
        if self.0.wait_for(|&pulled| pulled > Stopping::No).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Looks on for somebody else, and remembers when bytes last reached the target.
pub(super) struct Noting<'a> {
    watch: &'a mut dyn Watch,
    fed: Bytes,
    progress: Option<Instant>,
}

impl<'a> Noting<'a> {
    /// Tells `watch` all that it hears.
    pub fn new(watch: &'a mut dyn Watch) -> Noting<'a> {
        Noting { watch, fed: Bytes(0), progress: None }
    }

    /// When bytes last reached the target.
    pub fn progress(&self) -> Option<Instant> {
        self.progress
    }
}

impl Watch for Noting<'_> {
    fn begin(&mut self, what: &str, estimated: Option<Bytes>) {
        self.fed = Bytes(0);
        self.watch.begin(what, estimated);
    }

    fn moment(&mut self, moment: Moment) {
        if moment.fed > self.fed {
            self.fed = moment.fed;
            self.progress = Some(Instant::now());
        }
        self.watch.moment(moment);
    }

    fn end(&mut self) {
        self.watch.end();
    }

    fn survived(&mut self, by: Layer) {
        self.watch.survived(by);
    }

    fn tried_again(&mut self, after: &Failure) {
        self.watch.tried_again(after);
    }
}
