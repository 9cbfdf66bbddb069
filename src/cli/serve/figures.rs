//! Counts what becomes of what clients ask a server for, and tells Prometheus.
//!
//! Since the server has started: a counter that begins anew is what Prometheus expects, and when a
//! dataset was last received is known once it is received again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::super::http::{Answer, Site};
use super::super::prometheus::{CONTENT_TYPE, Labels, Metrics, seconds, wide};
use crate::server::onlooker::{Onlooker, Outcome, Told};

/// The figures of this process.
#[derive(Clone, Debug)]
pub(super) struct Figures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    since: Timestamp,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    sessions: usize,
    clients: BTreeMap<Name, Tally>,
}

/// A client's, as the list names it; `None` for all that come in clear.
type Name = Option<String>;

/// Of one client.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    failed: u64,
    refused: u64,
    bytes: u64,
    destroyed: u64,
    /// When each of its datasets was last received, by its full name.
    datasets: BTreeMap<String, Timestamp>,
}

impl Figures {
    pub fn new() -> Figures {
        Figures(Arc::new(Inner { since: Timestamp::now(), seen: Mutex::default() }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.0.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn text(&self) -> Result<String, fmt::Error> {
        let mut metrics = Metrics::new();
        metrics.version(Some(env!("CARGO_PKG_VERSION").to_owned()));
        let since = (Labels::new(), seconds(self.0.since));
        metrics.gauge("start_time_seconds", "When the server started", [since]);
        self.with(|seen| seen.tell(&mut metrics));
        metrics.text()
    }
}

impl Onlooker for Figures {
    fn sessions(&self, running: usize) {
        self.with(|seen| seen.sessions = running);
    }

    fn ended(&self, told: &Told) {
        self.with(|seen| seen.clients.entry(told.client.clone()).or_default().count(told));
    }
}

impl Site for Figures {
    const WHAT: &str = "metrics";
    const PATHS: &str = "/metrics";

    fn answer(&self, path: &str) -> Option<Answer> {
        (path == "/metrics").then(|| Answer::tried(CONTENT_TYPE, self.text()))
    }
}

impl Tally {
    fn count(&mut self, told: &Told) {
        match told.outcome {
            Outcome::Received => {
                self.received += 1;
                self.datasets.insert(told.dataset.clone(), Timestamp::now());
            }
            Outcome::Failed => self.failed += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Pruned | Outcome::GivenUp => {}
        }
        self.bytes += told.bytes.map_or(0, |bytes| bytes.0);
        self.destroyed += told.destroyed.unwrap_or(0);
    }
}

impl Seen {
    fn tell(&self, metrics: &mut Metrics) {
        let running = u64::try_from(self.sessions).unwrap_or(u64::MAX);
        metrics.gauge("sessions", "Clients that are there", [(Labels::new(), wide(running))]);
        let help = "Streams whose snapshot has arrived";
        self.counter(metrics, "received_streams", help, |tally| tally.received);
        let help = "Bytes of streams that were taken, uncompressed, also of those that failed";
        self.counter(metrics, "received_bytes", help, |tally| tally.bytes);
        let help = "Streams and prunings that were begun and have failed";
        self.counter(metrics, "failures", help, |tally| tally.failed);
        let help = "Wishes that were refused";
        self.counter(metrics, "refusals", help, |tally| tally.refused);
        let help = "Snapshots that were destroyed because a client has asked for it";
        self.counter(metrics, "destroyed_snapshots", help, |tally| tally.destroyed);
        let datasets = self.clients.iter().flat_map(|(name, tally)| {
            let labelled =
                |dataset: &String| [labels(name), vec![("dataset", dataset.clone())]].concat();
            tally.datasets.iter().map(move |(dataset, at)| (labelled(dataset), seconds(*at)))
        });
        let help = "When the newest snapshot of a dataset came, of those since the server started";
        metrics.gauge("dataset_last_received_timestamp_seconds", help, datasets);
    }

    fn counter(&self, metrics: &mut Metrics, name: &str, help: &str, of: fn(&Tally) -> u64) {
        let clients = self.clients.iter();
        metrics.counter(name, help, clients.map(|(name, tally)| (labels(name), of(tally))));
    }
}

fn labels(name: &Name) -> Labels {
    name.iter().map(|name| ("client", name.clone())).collect()
}
