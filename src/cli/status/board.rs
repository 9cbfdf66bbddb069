//! `zferry status`: the jobs of a scheduler, what is on its way, and when the target last had what.

use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::Path;

use jiff::Timestamp;

use crate::board::{DatasetView, Document, JobView, State, TransferView};
use crate::cli::schedule::{histories, socket};
use crate::cli::{duration, machine};
use crate::error::{Failure, Side};
use crate::protocol::text::one_line;
use crate::small_file::folder_of;
use crate::trust::owner;

/// What one line says of a failure, or of a dataset.
const TEXT_BYTES_MAX: usize = 400;

/// How many lines that may be.
const FAILURE_LINES_MAX: usize = 4;

/// What the scheduler at a socket says, if one runs there.
pub(super) fn asked(socket: &Path) -> Result<Option<Document>, Failure> {
    socket::ask(socket).map_err(|error| {
        let what = format!("ask the scheduler at {}", socket.display());
        not_seen(folder_of(socket), &what, &error)
    })
}

/// What is known of the jobs of a state folder: from the scheduler that runs, or from what the last
/// one has left. `None`: none ever ran there.
pub(super) fn document(state: &Path, socket: &Path) -> Result<Option<Document>, Failure> {
    let asked = asked(socket)?;
    if asked.is_some() {
        return Ok(asked);
    }
    let left = match histories::left(state) {
        Ok(left) => left,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let what = format!("read what a scheduler has left in {}", state.display());
            return Err(not_seen(state, &what, &error));
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

/// Mostly the folder is its scheduler's, and somebody else asks.
fn not_seen(state: &Path, what: &str, error: &io::Error) -> Failure {
    if error.kind() != ErrorKind::PermissionDenied {
        return machine(Side::Source, what, error);
    }
    let what = format!("the state folder {}", state.display());
    machine(Side::Source, &what, error).with_remedy(format!(
        "run this as the scheduler's user or as root: sudo -u {} zferry status",
        owner::nearest(state).name
    ))
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
    let running = document.jobs.iter().filter(|job| job.state == State::Running).count();
    let jobs = document.jobs.iter().flat_map(|job| of_job(job, running, document.at));
    let nothing = document.jobs.is_empty().then(|| "there are no jobs".to_owned());
    [head].into_iter().chain(nothing).chain(jobs).collect()
}

fn of_job(job: &JobView, running: usize, now: Timestamp) -> Vec<String> {
    let mut lines = vec![headline(job, running, now), counts(job)];
    if let Some(failure) = &job.last_failure {
        let ago = duration::spoken(since(failure.at, now));
        let in_a_row = match job.failures_in_a_row {
            0 => String::new(),
            count => format!(", {count} in a row"),
        };
        let mut told = failure.what.lines().take(FAILURE_LINES_MAX);
        let what = one_line(told.next().unwrap_or_default(), TEXT_BYTES_MAX);
        lines.push(format!("  failed {ago} ago{in_a_row}: {what}"));
        // What to do about it stands in a line of its own.
        lines.extend(told.map(|line| format!("    {}", one_line(line.trim(), TEXT_BYTES_MAX))));
    }
    lines.extend(job.transfers.iter().map(of_transfer));
    // A job of one dataset has said it all.
    if job.datasets.len() > 1 {
        lines.extend(job.datasets.iter().map(of_dataset));
    }
    lines
}

fn headline(job: &JobView, running: usize, now: Timestamp) -> String {
    // With a place for it, it would have begun.
    let is_due = job.state != State::Running && job.next_run.is_some_and(|next| next <= now);
    let mut line = match (is_due, running) {
        (true, 1) => format!("{}: waits for its turn (1 job runs)", job.name),
        (true, 2..) => format!("{}: waits for its turn ({running} jobs run)", job.name),
        _ => format!("{}: {}", job.name, state(job.state)),
    };
    let _infallible = match (&job.last_success, job.lag_seconds) {
        (Some(success), Some(lag)) => {
            let snapshot = success.snapshot.as_deref().map(|name| format!(" (@{name})"));
            let lag = duration::spoken(lag);
            write!(line, ", last success {lag} ago{}", snapshot.unwrap_or_default())
        }
        _ => write!(line, ", no success yet"),
    };
    let next = job.next_run.filter(|_| job.state != State::Running);
    let next = next.filter(|_| !is_due || running == 0);
    if let Some(next) = next {
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
        "  {source} -> {target}: {} {}, {} failed; {} read, {} sent",
        totals.runs,
        if totals.runs == 1 { "run" } else { "runs" },
        totals.failed_runs,
        totals.bytes,
        totals.wire
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Card, LastFailure};
    use crate::schedule::History;

    fn now() -> Timestamp {
        "2026-03-01T10:00:00Z".parse().unwrap()
    }

    fn job(name: &str, state: State, next_run: Option<Timestamp>) -> JobView {
        let view = JobView::new(name, &Card::default(), &History::default(), now());
        JobView { state, next_run, ..view }
    }

    fn headlines(jobs: Vec<JobView>) -> Vec<String> {
        let told = lines(&Document::left(jobs, now())).into_iter().skip(1);
        told.filter(|line| !line.starts_with(' ')).collect()
    }

    #[test]
    fn a_job_that_is_due_waits_for_those_that_run() {
        let soon = now() + jiff::SignedDuration::from_secs(60);
        let due = || job("b", State::WaitingToRetry, Some(now()));
        let later = || job("c", State::Idle, Some(soon));
        let running = |name| job(name, State::Running, Some(now()));
        assert_eq!(
            headlines(vec![running("a"), due(), later()]),
            [
                "a: running, no success yet",
                "b: waits for its turn (1 job runs), no success yet",
                "c: idle, no success yet, next run in 1m",
            ]
        );
        let two = headlines(vec![running("a"), due(), running("d")]);
        assert_eq!(two[1], "b: waits for its turn (2 jobs run), no success yet");
        // Nothing is in its way.
        assert_eq!(headlines(vec![due()]), ["b: waiting to retry, no success yet, next run now"]);
    }

    #[test]
    fn what_to_do_about_a_failure_stands_in_a_line_of_its_own() {
        let mut failed = job("a", State::Idle, None);
        let what = "source: no\u{1b} room\n  to mend it: make some".to_owned();
        failed.last_failure = Some(LastFailure { at: now(), what });
        failed.failures_in_a_row = 2;
        failed.totals.runs = 1;
        let told = lines(&Document::left(vec![failed], now()));
        assert!(told[2].contains(": 1 run, 0 failed; "), "{told:?}");
        assert!(told[3].starts_with("  failed 0s ago, 2 in a row: source: no"), "{told:?}");
        assert!(told[3].ends_with(" room") && !told[3].contains('\u{1b}'), "{told:?}");
        assert_eq!(told[4..], ["    to mend it: make some"]);
    }
}
