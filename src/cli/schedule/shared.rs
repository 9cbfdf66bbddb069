//! The board, where all threads of a scheduler can reach it, and the clock that they share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use super::super::show::tree::ShowTree;
use crate::board::{Board, Document, Process, Seen, StreamId};
use crate::client::{Held, Layer, Moment, Planned, TreeWatch, Watch, Would};
use crate::dataset::DatasetName;
use crate::error::Failure;
use crate::schedule::{JobName, Now};
use crate::units::Bytes;

/// The board of this process.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    board: Mutex<Board>,
    began: Instant,
    streams: AtomicU64,
}

impl Shared {
    pub fn new() -> Shared {
        let (began, since) = (Instant::now(), Timestamp::now());
        let process = Process {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since,
            draining: false,
        };
        let board = Board::new(process, Now { wall: since, up: began.elapsed() });
        Shared(Arc::new(Inner { board: Mutex::new(board), began, streams: AtomicU64::new(0) }))
    }

    pub fn now(&self) -> Now {
        Now { wall: Timestamp::now(), up: self.0.began.elapsed() }
    }

    /// To be left soon: everybody waits.
    pub fn with<T>(&self, work: impl FnOnce(&mut Board, Now) -> T) -> T {
        let mut board = self.0.board.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut board, self.now())
    }

    pub fn document(&self) -> Document {
        self.with(Board::document)
    }
}

/// Puts what a run tells on the board, and shows it to people as well.
pub(super) struct Posting {
    show: ShowTree,
    shared: Shared,
    job: JobName,
}

/// One of its datasets, whose streams are on their way one after the other.
struct PostingOf<'a> {
    show: Box<dyn Watch + 'a>,
    posting: &'a Posting,
    stream: StreamId,
}

impl Posting {
    /// For one run of a job, which copies `root`.
    pub fn new(job: &JobName, root: &DatasetName, shared: &Shared, quiet: bool) -> Posting {
        let show = ShowTree::lines(root, quiet);
        Posting { show, shared: shared.clone(), job: job.clone() }
    }
}

impl TreeWatch for Posting {
    fn planned(&self, planned: &Planned) {
        self.show.planned(planned);
    }

    fn dataset(&self, dataset: &DatasetName) -> Box<dyn Watch + '_> {
        let stream = StreamId(self.shared.0.streams.fetch_add(1, Ordering::Relaxed));
        Box::new(PostingOf { show: self.show.dataset(dataset), posting: self, stream })
    }

    fn ended(&self, dataset: &DatasetName, outcome: &Result<Held, Failure>) {
        self.show.ended(dataset, outcome);
        if let Ok(Held { snapshot, .. }) = outcome {
            let arrived = Seen::Arrived(dataset.as_str(), snapshot.as_str());
            // Of no stream in particular: the last one is over.
            let stream = StreamId(u64::MAX);
            self.shared.with(|board, now| board.hear(&self.job, stream, arrived, now));
        }
    }

    fn would(&self, would: &Would) {
        self.show.would(would);
    }
}

impl PostingOf<'_> {
    fn tell(&self, seen: Seen<'_>) {
        let Posting { shared, job, .. } = self.posting;
        shared.with(|board, now| board.hear(job, self.stream, seen, now));
    }
}

impl Watch for PostingOf<'_> {
    fn begin(&mut self, what: &str, estimated: Option<Bytes>) {
        self.show.begin(what, estimated);
        self.tell(Seen::Begin(what, estimated));
    }

    fn moment(&mut self, moment: Moment) {
        self.show.moment(moment);
        self.tell(Seen::Moment(moment));
    }

    fn end(&mut self) {
        self.show.end();
        self.tell(Seen::End);
    }

    fn survived(&mut self, by: Layer) {
        self.tell(Seen::Survived(by));
    }

    fn tried_again(&mut self, _after: &Failure) {
        self.tell(Seen::TriedAgain);
    }
}
