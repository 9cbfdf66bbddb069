//! `zferry status`: the jobs of a scheduler, what is on its way, and when the target last had what.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;

use crate::board::{DatasetView, Document, JobView, State, TransferView};
use crate::cli::schedule::{histories, socket};
use crate::cli::{duration, machine};
use crate::error::{Failure, Side};
use crate::protocol::text::one_line;

/// What one line says of a failure, or of a dataset.
const TEXT_BYTES_MAX: usize = 400;

/// What is known of the jobs of a state folder: from the scheduler that runs, or from what the last
/// one has left. `None`: none ever ran there.
pub(super) fn document(state: &Path, socket: &Path) -> Result<Option<Document>, Failure> {
    let asked = socket::ask(socket).map_err(|error| {
        machine(Side::Source, &format!("ask the scheduler at {}", socket.display()), &error)
            .with_remedy("run it as root, or as the user that runs the scheduler")
    })?;
    if asked.is_some() {
        return Ok(asked);
    }
    let left = match histories::left(state) {
        Ok(left) => left,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let what = format!("read what a scheduler has left in {}", state.display());
            return Err(machine(Side::Source, &what, &error)
                .with_remedy("run it as root, or as the user that runs the scheduler"));
        }
    };
    let now = Timestamp::now();
    let jobs = left.iter().map(|left| {
        let unknown = crate::schedule::History::default();
        let history = left.history.as_ref().unwrap_or_else(|error| {
            tracing::warn!(job = left.name, %error, "when it ran last is not known");
            &unknown
        });
        JobView::new(&left.name, &left.card, history, now)
    });
    Ok(Some(Document::left(jobs.collect(), now)))
}

/// For people.
pub(super) fn lines(document: &Document) -> Vec<String> {
    let head = match &document.scheduler {
        Some(process) => {
            let for_long = duration::spoken(since(process.since, document.at));
            let draining = if process.draining { ", and ends when its copies have" } else { "" };
            let version = &process.version;
            format!("zferry {version} schedules since {for_long} (pid {}){draining}", process.pid)
        }
        None => "no scheduler runs; this is what the last one has left".to_owned(),
    };
    let jobs = document.jobs.iter().flat_map(|job| of_job(job, document.at));
    let nothing = document.jobs.is_empty().then(|| "there are no jobs".to_owned());
    [head].into_iter().chain(nothing).chain(jobs).collect()
}

fn of_job(job: &JobView, now: Timestamp) -> Vec<String> {
    let mut lines = vec![headline(job, now), counts(job)];
    if let Some(failure) = &job.last_failure {
        let ago = duration::spoken(since(failure.at, now));
        let in_a_row = match job.failures_in_a_row {
            0 => String::new(),
            count => format!(", {count} in a row"),
        };
        let what = one_line(&failure.what, TEXT_BYTES_MAX);
        lines.push(format!("  failed {ago} ago{in_a_row}: {what}"));
    }
    lines.extend(job.transfers.iter().map(of_transfer));
    // A job of one dataset has said it all.
    if job.datasets.len() > 1 {
        lines.extend(job.datasets.iter().map(of_dataset));
    }
    lines
}

fn headline(job: &JobView, now: Timestamp) -> String {
    let mut line = format!("{}: {}", job.name, state(job.state));
    let _infallible = match (&job.last_success, job.lag_seconds) {
        (Some(success), Some(lag)) => {
            let snapshot = success.snapshot.as_deref().map(|name| format!(" (@{name})"));
            let lag = duration::spoken(lag);
            write!(line, ", last success {lag} ago{}", snapshot.unwrap_or_default())
        }
        _ => write!(line, ", no success yet"),
    };
    if let Some(next) = job.next_run.filter(|_| job.state != State::Running) {
        let _infallible = match u64::try_from(next.duration_since(now).as_secs()) {
            Ok(seconds @ 1..) => write!(line, ", next run in {}", duration::spoken(seconds)),
            _ => write!(line, ", next run now"),
        };
    }
    if let Some(written) = job.written_bytes {
        let _infallible = write!(line, ", {written} written since");
    }
    line
}

/// What a state is called.
pub(in crate::cli) fn state(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Running => "running",
        State::WaitingToRetry => "waiting to retry",
        State::Stopped => "not scheduled now",
    }
}

fn counts(job: &JobView) -> String {
    let totals = &job.totals;
    let (source, target) =
        (one_line(&job.source, TEXT_BYTES_MAX), one_line(&job.target, TEXT_BYTES_MAX));
    let mut line = format!(
        "  {source} -> {target}: {} runs, {} failed; {} read, {} sent",
        totals.runs, totals.failed_runs, totals.bytes, totals.wire
    );
    if totals.resumes.sum() > 0 {
        let resumes = &totals.resumes;
        let _infallible = write!(
            line,
            "; {} cuts survived (reconnect {}, spool {}, token {})",
            resumes.sum(),
            resumes.reconnect,
            resumes.spool,
            resumes.token
        );
    }
    line
}

fn of_transfer(transfer: &TransferView) -> String {
    let still = transfer.stands_still.map(|part| format!("[{part} stands still] "));
    let mut line = format!(
        "  {}{}: {}",
        still.unwrap_or_default(),
        one_line(&transfer.what, TEXT_BYTES_MAX),
        transfer.read
    );
    if let Some(estimated) = transfer.estimated {
        let _infallible = write!(line, " of about {estimated}");
    }
    let _infallible = write!(line, ", {}/s", transfer.rate);
    if let Some(seconds) = transfer.eta_seconds {
        let _infallible = write!(line, ", {} left", duration::spoken(seconds));
    }
    let _infallible = write!(line, ", {}", connections(transfer.connections));
    match transfer.level {
        Some(0) => line += ", raw",
        Some(level) => {
            let _infallible = write!(line, ", zstd:{level}");
        }
        None => {}
    }
    line
}

/// How many there are.
pub(in crate::cli) fn connections(count: u16) -> String {
    if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") }
}

fn of_dataset(dataset: &DatasetView) -> String {
    let name = one_line(&dataset.dataset, TEXT_BYTES_MAX);
    let snapshot = dataset.snapshot.as_deref().map(|snapshot| format!("@{snapshot}"));
    let lag = duration::spoken(dataset.lag_seconds);
    format!("  {name}{} {lag} ago", snapshot.unwrap_or_default())
}

fn since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}
