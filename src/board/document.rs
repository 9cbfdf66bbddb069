//! What whoever looks is given: `zferry status --json`, the socket, `/status.json`.
//!
//! Fields may be added; none is renamed, and what is not known is `null`. Sizes are bytes, times
//! are in UTC, spans are seconds. `docs/monitoring.md` lists them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::card::{Card, LastFailure, Success, Totals};
use super::throughput::Series;
use crate::engine::settings::Route;
use crate::protocol::stall::Culprit;
use crate::schedule::{History, Standing};
use crate::units::Bytes;

/// Another number where a field has another meaning than before.
pub const FORMAT: u32 = 1;

/// The whole board at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    /// When it was drawn.
    pub at: Timestamp,
    /// The scheduler that runs; `None` where this is from what the last one has left.
    pub scheduler: Option<Process>,
    /// In the order of their names.
    pub jobs: Vec<JobView>,
    /// What was read and sent, by second and by minute.
    pub throughput: Series,
}

/// The scheduler itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Which zferry it is.
    pub version: String,
    /// When it started.
    pub since: Timestamp,
    /// It begins nothing any more, and ends when what runs has ended.
    pub draining: bool,
}

/// What a job does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits until it is due.
    Idle,
    /// A copy is on its way.
    Running,
    /// The last run has failed, and it waits for the next.
    WaitingToRetry,
    /// No scheduler runs.
    Stopped,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name in the configuration.
    pub name: String,
    /// What it copies.
    pub source: String,
    /// Where to.
    pub target: String,
    /// What it does now.
    pub state: State,
    /// When a scheduler first heard of it.
    pub first_seen: Option<Timestamp>,
    /// When its last run began.
    pub began: Option<Timestamp>,
    /// When its next run is due, as far as that follows from a clock.
    pub next_run: Option<Timestamp>,
    /// The last run that went well.
    pub last_success: Option<Success>,
    /// How long ago that was.
    pub lag_seconds: Option<u64>,
    /// What was written to the source since, where the job is started by that.
    pub written_bytes: Option<Bytes>,
    /// How many runs have failed since.
    pub failures_in_a_row: u32,
    /// The last run that failed.
    pub last_failure: Option<LastFailure>,
    /// Sums over all runs.
    pub totals: Totals,
    /// Each dataset that the target has.
    pub datasets: Vec<DatasetView>,
    /// What is on its way.
    pub transfers: Vec<TransferView>,
}

/// One dataset of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetView {
    /// Its name at the source.
    pub dataset: String,
    /// The newest snapshot that the target was seen to have.
    pub snapshot: Option<String>,
    /// When that was seen.
    pub at: Timestamp,
    /// How long ago that was.
    pub lag_seconds: u64,
}

/// One stream on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferView {
    /// What it carries.
    pub what: String,
    /// When it began.
    pub since: Timestamp,
    /// How long it will be, as far as anybody knows.
    pub estimated: Option<Bytes>,
    /// Came out of the source.
    pub read: Bytes,
    /// Went out on the wire.
    pub wire: Bytes,
    /// Was taken at the target.
    pub fed: Bytes,
    /// Went by way of breakpoint files.
    pub spooled: Bytes,
    /// Read a second, over the last ten.
    pub rate: Bytes,
    /// How long it takes at that rate.
    pub eta_seconds: Option<u64>,
    /// How many data connections it has.
    pub connections: u16,
    /// How far blocks are packed, where that is found on the way: 0 is raw, others are of zstd.
    pub level: Option<u8>,
    /// How blocks go through the sending side.
    pub lane: Route,
    /// The part of the way that holds it up, once that is sure.
    pub stands_still: Option<Culprit>,
}

impl Document {
    /// Where no scheduler runs: what the last one has left.
    pub fn left(jobs: Vec<JobView>, at: Timestamp) -> Document {
        let throughput = Series::default();
        Document { format: FORMAT, at, scheduler: None, jobs, throughput }
    }
}

impl State {
    /// What the scheduler says of it.
    pub(super) fn of(standing: &Standing<'_>) -> State {
        match (standing.running, standing.history.failures) {
            (true, _) => State::Running,
            (false, 0) => State::Idle,
            (false, _) => State::WaitingToRetry,
        }
    }
}

impl JobView {
    /// A job that no scheduler runs.
    pub fn new(name: &str, card: &Card, history: &History, now: Timestamp) -> JobView {
        let last_success = history.succeeded.map(|at| {
            let snapshot = history.snapshot.as_ref().map(|name| name.as_str().to_owned());
            Success { at, snapshot }
        });
        let datasets = card.datasets.iter().map(|(dataset, seen)| DatasetView {
            dataset: dataset.clone(),
            snapshot: seen.snapshot.clone(),
            at: seen.at,
            lag_seconds: seconds_since(seen.at, now),
        });
        JobView {
            name: name.to_owned(),
            source: card.source.clone(),
            target: card.target.clone(),
            state: State::Stopped,
            first_seen: card.first_seen.or(history.began),
            began: history.began,
            next_run: None,
            lag_seconds: history.succeeded.map(|at| seconds_since(at, now)),
            last_success,
            written_bytes: None,
            failures_in_a_row: history.failures,
            last_failure: card.last_failure.clone(),
            totals: card.totals,
            datasets: datasets.collect(),
            transfers: Vec::new(),
        }
    }
}

/// Nothing, if a clock has jumped back meanwhile.
pub(super) fn seconds_since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}
