//! What Prometheus reads: the board as metrics.
//!
//! One label, `name`, is for the job: `job` is Prometheus' own. `docs/monitoring.md` lists them,
//! `docs/grafana.json` draws them.

use std::fmt;

use super::super::prometheus::{self, Labels, seconds, wide};
use crate::board::{Document, JobView, Process, State, TransferView};
use crate::protocol::stall::Culprit;

/// The whole board.
pub(super) fn text(document: &Document) -> Result<String, fmt::Error> {
    let mut metrics = Metrics { out: prometheus::Metrics::new(), document };
    metrics.of_the_process();
    metrics.of_jobs();
    metrics.of_runs();
    metrics.of_datasets();
    metrics.of_transfers();
    metrics.out.text()
}

struct Metrics<'a> {
    out: prometheus::Metrics,
    document: &'a Document,
}

impl Metrics<'_> {
    fn of_the_process(&mut self) {
        let process = self.document.scheduler.as_ref();
        self.out.version(process.map(|process| process.version.clone()));
        let since = process.map(|process: &Process| (Labels::new(), seconds(process.since)));
        self.out.gauge("start_time_seconds", "When the scheduler started", since);
    }

    fn of_jobs(&mut self) {
        self.job_gauge(
            "job_last_success_timestamp_seconds",
            "When the last run ended that went well; absent where none did",
            |job| job.last_success.as_ref().map(|success| seconds(success.at)),
        );
        self.job_gauge("job_lag_seconds", "How long ago that was", |job| job.lag_seconds.map(wide));
        self.job_gauge(
            "job_first_seen_timestamp_seconds",
            "When a scheduler first heard of the job",
            |job| job.first_seen.map(seconds),
        );
        self.job_gauge(
            "job_next_run_timestamp_seconds",
            "When the next run is due, as far as that follows from a clock",
            |job| job.next_run.map(seconds),
        );
        self.job_gauge("job_running", "Whether a copy is on its way", |job| {
            Some(f64::from(u8::from(job.state == State::Running)))
        });
        self.job_gauge(
            "job_failures_in_a_row",
            "Runs that have failed since the last one that went well",
            |job| Some(job.failures_in_a_row.into()),
        );
        self.job_gauge(
            "job_written_bytes",
            "Written to the source since the last success, for jobs that are started by that",
            |job| job.written_bytes.map(|bytes| wide(bytes.0)),
        );
    }

    fn of_runs(&mut self) {
        self.job_counter("runs", "Runs that have ended", |job| job.totals.runs);
        self.job_counter("failed_runs", "Runs that have failed", |job| job.totals.failed_runs);
        self.job_counter("streams", "Streams that have begun", |job| job.totals.streams);
        self.job_counter("stream_bytes", "Bytes of streams, uncompressed", |job| {
            job.totals.bytes.0
        });
        self.job_counter("wire_bytes", "Bytes sent over the network", |job| job.totals.wire.0);
        self.job_counter(
            "retries",
            "Attempts within runs that have failed and were followed by another",
            |job| job.totals.retries,
        );
        self.job_counter(
            "cuts_survived",
            "Cuts after which a stream went on where it was",
            |job| job.totals.resumes.sum(),
        );
        let by_layer = self.document.jobs.iter().flat_map(|job| {
            let resumes = &job.totals.resumes;
            let layers = [
                ("reconnect", resumes.reconnect),
                ("spool", resumes.spool),
                ("token", resumes.token),
            ];
            layers.map(|(layer, count)| (with(job, "layer", layer.to_owned()), count))
        });
        let help = "The same by what let the stream go on: connections that were replaced, \
                    breakpoint files, or ZFS's resume token";
        self.out.counter("resumes", help, by_layer);
    }

    fn of_datasets(&mut self) {
        let of = |job: &JobView| {
            let labelled = |dataset: &str| with(job, "dataset", dataset.to_owned());
            let datasets = job.datasets.iter();
            datasets.map(|one| (labelled(&one.dataset), seconds(one.at))).collect::<Vec<_>>()
        };
        self.out.gauge(
            "dataset_last_success_timestamp_seconds",
            "When the target was last seen to have all of a dataset",
            self.document.jobs.iter().flat_map(of),
        );
    }

    fn of_transfers(&mut self) {
        let parts = [Culprit::SourceRead, Culprit::Wire, Culprit::Receive];
        let running = self.document.jobs.iter().filter(|job| job.state == State::Running);
        let bottlenecks = running.flat_map(|job| {
            parts.map(|part| {
                let held_up = job.transfers.iter().any(|one| one.stands_still == Some(part));
                (with(job, "part", part.to_string()), f64::from(u8::from(held_up)))
            })
        });
        self.out.gauge(
            "bottleneck",
            "Whether this part of the way holds a stream up that stands still",
            bottlenecks,
        );
        self.sum("transfer_read_bytes", "Read of what is on its way", |one| wide(one.read.0));
        self.sum("transfer_taken_bytes", "Taken at the target of what is on its way", |one| {
            wide(one.fed.0)
        });
        self.sum(
            "transfer_estimated_bytes",
            "How long what is on its way will be, as far as anybody knows",
            |one| one.estimated.map_or(0., |bytes| wide(bytes.0)),
        );
        self.sum("transfer_connections", "Data connections of what is on its way", |one| {
            one.connections.into()
        });
    }

    /// Over all streams of each job.
    fn sum(&mut self, name: &str, help: &str, of: impl Fn(&TransferView) -> f64) {
        let sum = |job: &JobView| job.transfers.iter().map(&of).sum::<f64>();
        self.job_gauge(name, help, |job| (!job.transfers.is_empty()).then(|| sum(job)));
    }

    fn job_gauge(&mut self, name: &str, help: &str, of: impl Fn(&JobView) -> Option<f64>) {
        let jobs = self.document.jobs.iter();
        self.out.gauge(name, help, jobs.filter_map(|job| Some((named(job), of(job)?))));
    }

    fn job_counter(&mut self, name: &str, help: &str, of: impl Fn(&JobView) -> u64) {
        let jobs = self.document.jobs.iter();
        self.out.counter(name, help, jobs.map(|job| (named(job), of(job))));
    }
}

fn named(job: &JobView) -> Labels {
    vec![("name", job.name.clone())]
}

fn with(job: &JobView, label: &'static str, value: String) -> Labels {
    [named(job), vec![(label, value)]].concat()
}
