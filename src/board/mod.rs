//! What everybody sees of a scheduler: its jobs, what is on its way, and how fast.
//!
//! Pure: the runs tell what happens, the caller has the clock, and whoever looks gets one
//! [`Document`]. Beside the scheduler's own memory (`schedule`), for nothing is decided by what
//! stands here. What must never happen: a memory that grows with time.

mod card;
mod document;
mod live;
mod throughput;

use std::collections::{BTreeMap, BTreeSet};

pub use self::card::{Card, LastFailure, Resumes, Success, Totals};
pub use self::document::{DatasetView, Document, FORMAT, JobView, Process, State, TransferView};
use self::live::Live;
use self::throughput::Throughput;
pub use self::throughput::{Sample, Series};
use crate::client::{Layer, Moment};
use crate::schedule::{History, JobName, Now, Standing};
use crate::units::Bytes;

/// The board of one scheduler.
#[derive(Debug)]
pub struct Board {
    process: Process,
    jobs: BTreeMap<JobName, Row>,
    throughput: Throughput,
}

/// What is known of one job.
#[derive(Debug)]
struct Row {
    card: Card,
    history: History,
    state: State,
    next_run: Option<jiff::Timestamp>,
    written: Option<Bytes>,
    live: BTreeMap<StreamId, Live>,
    /// Which datasets the target was seen to hold by the run that is on its way.
    arrived: BTreeSet<String>,
}

/// Tells streams apart that are on their way at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a run has to tell.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A stream begins: what it is, and how long it will be as far as anybody knows.
    Begin(&'a str, Option<Bytes>),
    /// It is so far.
    Moment(Moment),
    /// It is over.
    End,
    /// It goes on after a cut.
    Survived(Layer),
    /// The copy has failed and is tried again.
    TriedAgain,
    /// The target holds this snapshot of a dataset.
    Arrived(&'a str, &'a str),
}

/// What a job copies where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The source, as the configuration has it.
    pub source: String,
    /// The target, likewise.
    pub target: String,
}

impl Board {
    /// Without jobs.
    pub fn new(process: Process, now: Now) -> Board {
        Board { process, jobs: BTreeMap::new(), throughput: Throughput::new(now.up) }
    }

    /// From now on these are the jobs; `known` is asked for those that were none before.
    pub fn configure(
        &mut self,
        jobs: impl IntoIterator<Item = (JobName, Errand)>,
        now: Now,
        mut known: impl FnMut(&JobName) -> Card,
    ) {
        let mut before = std::mem::take(&mut self.jobs);
        for (name, errand) in jobs {
            let mut row = before.remove(&name).unwrap_or_else(|| Row::new(known(&name)));
            row.card.set_source(errand.source);
            row.card.target = errand.target;
            row.card.gone = false;
            row.card.first_seen.get_or_insert(now.wall);
            self.jobs.insert(name, row);
        }
    }

    /// What the scheduler thinks of its jobs.
    pub fn plan<'a>(&mut self, standings: impl IntoIterator<Item = Standing<'a>>) {
        for standing in standings {
            let Some(row) = self.jobs.get_mut(standing.name) else { continue };
            row.state = State::of(&standing);
            row.next_run = standing.next;
            if row.history != *standing.history {
                row.history = standing.history.clone();
            }
        }
    }

    /// Nothing begins any more.
    pub fn drain(&mut self) {
        self.process.draining = true;
    }

    /// A run tells of one of its streams.
    pub fn hear(&mut self, job: &JobName, stream: StreamId, seen: Seen<'_>, now: Now) {
        let Some(row) = self.jobs.get_mut(job) else { return };
        let totals = &mut row.card.totals;
        match seen {
            Seen::Begin(what, estimated) => {
                totals.streams += 1;
                row.live.insert(stream, Live::new(what, estimated, now));
            }
            Seen::Moment(moment) => {
                let Some(live) = row.live.get_mut(&stream) else { return };
                let moved = live.moment(moment, now);
                totals.bytes = Bytes(totals.bytes.0.saturating_add(moved.read));
                totals.wire = Bytes(totals.wire.0.saturating_add(moved.wire));
                self.throughput.add(moved, now.up);
            }
            Seen::End => drop(row.live.remove(&stream)),
            Seen::Survived(by) => totals.resumes.count(by),
            Seen::TriedAgain => totals.retries += 1,
            Seen::Arrived(dataset, snapshot) => {
                let arrival = Success { at: now.wall, snapshot: Some(snapshot.to_owned()) };
                row.card.datasets.insert(dataset.to_owned(), arrival);
                row.arrived.insert(dataset.to_owned());
            }
        }
    }

    /// A run of a job has ended; what it said, if it failed.
    pub fn ended(&mut self, job: &JobName, outcome: Result<(), &str>, now: Now) {
        let Some(row) = self.jobs.get_mut(job) else { return };
        row.live.clear();
        row.card.totals.runs += 1;
        let arrived = std::mem::take(&mut row.arrived);
        match outcome {
            Ok(()) => {
                row.written = None;
                row.card.keep_only(&arrived);
            }
            Err(what) => {
                row.card.totals.failed_runs += 1;
                row.card.last_failure = Some(LastFailure { at: now.wall, what: what.to_owned() });
            }
        }
    }

    /// So much was written to a job's source since the snapshot that the target has.
    pub fn measured(&mut self, job: &JobName, written: Option<Bytes>) {
        if let Some(row) = self.jobs.get_mut(job) {
            row.written = written;
        }
    }

    /// What the next process has to know of a job.
    pub fn card(&self, job: &JobName) -> Option<&Card> {
        self.jobs.get(job).map(|row| &row.card)
    }

    /// All of it, as it is now.
    pub fn document(&mut self, now: Now) -> Document {
        let jobs = self.jobs.iter().map(|(name, row)| row.view(name, now)).collect();
        let throughput = self.throughput.series(now.up);
        let scheduler = Some(self.process.clone());
        Document { format: FORMAT, at: now.wall, scheduler, jobs, throughput }
    }
}

impl Row {
    fn new(card: Card) -> Row {
        Row {
            card,
            history: History::default(),
            state: State::Idle,
            next_run: None,
            written: None,
            live: BTreeMap::new(),
            arrived: BTreeSet::new(),
        }
    }

    fn view(&self, name: &JobName, now: Now) -> JobView {
        let mut view = JobView::new(name.as_str(), &self.card, &self.history, now.wall);
        view.state = self.state;
        view.next_run = self.next_run;
        view.written_bytes = self.written;
        view.transfers = self.live.values().map(|live| live.view(now)).collect();
        view
    }
}

#[cfg(test)]
mod tests;
