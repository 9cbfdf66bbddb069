//! The status page: the board as HTML, without scripts, and with nothing from elsewhere.
//!
//! What must never happen here: a name or a message that becomes a part of the page. `maud` escapes
//! whatever stands in parentheses; only the plots, in which there are no words, are put in as they
//! are.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::duration::spoken;
use super::super::status::board::{connections, state};
use super::plot::{self, Axis};
use crate::board::{Document, JobView, Sample, State, TransferView};

/// How its looks are.
pub(super) const STYLE: &str = include_str!("page.css");

const COLUMNS: [&str; 8] =
    ["Job", "State", "Last success", "Next run", "Runs", "Read", "Sent", "Cuts survived"];

/// More datasets of one job are counted.
const DATASETS_MAX: usize = 200;

/// How often a reader's browser asks again.
const REFRESH_SECONDS: u32 = 5;

const MINUTES: Axis = Axis { step_seconds: 1., steps: 600, unit: "minutes ago", unit_seconds: 60. };
const HOURS: Axis = Axis { step_seconds: 60., steps: 1440, unit: "hours ago", unit_seconds: 3600. };

/// The whole page.
pub(super) fn html(document: &Document) -> String {
    let now = document.at;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH_SECONDS);
                title { "zferry" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                h1 { "zferry" }
                p { (head(document)) }
                h2 { "Jobs" }
                table id="jobs" {
                    thead {
                        tr {
                            @for title in COLUMNS { th { (title) } }
                        }
                    }
                    tbody { @for job in &document.jobs { (row(job, now)) } }
                }
                h2 { "Throughput" }
                p { "What was " span.read { "read" } " and what was " span.sent { "sent" } "." }
                (plotted("ten-minutes", &document.throughput.seconds, MINUTES))
                (plotted("one-day", &document.throughput.minutes, HOURS))
                @for job in document.jobs.iter().filter(|job| job.datasets.len() > 1) {
                    (datasets(job))
                }
                p { a href="/metrics" { "metrics" } " " a href="/status.json" { "status.json" } }
            }
        }
    };
    page.into_string()
}

fn head(document: &Document) -> String {
    let Some(process) = &document.scheduler else { return String::new() };
    let since = spoken(seconds(process.since, document.at));
    let draining = if process.draining { "; it ends when its copies have" } else { "" };
    format!("zferry {}, since {since}, at {:.0}{draining}", process.version, document.at)
}

fn row(job: &JobView, now: Timestamp) -> Markup {
    let totals = &job.totals;
    let resumes = &totals.resumes;
    let layers = format!(
        "reconnect {}, spool {}, token {}",
        resumes.reconnect, resumes.spool, resumes.token
    );
    html! {
        tr.failing[job.failures_in_a_row > 0] {
            td { strong { (job.name) } br; (job.source) " \u{2192} " (job.target) }
            td {
                (state(job.state))
                @for transfer in &job.transfers { (on_its_way(transfer)) }
                @if let Some(failure) = &job.last_failure && job.failures_in_a_row > 0 {
                    p.failure {
                        (job.failures_in_a_row) " in a row, the last "
                        (spoken(seconds(failure.at, now))) " ago: " (failure.what)
                    }
                }
            }
            td {
                @match (&job.last_success, job.lag_seconds) {
                    (Some(success), Some(lag)) => {
                        (spoken(lag)) " ago"
                        @if let Some(snapshot) = &success.snapshot { br; "@" (snapshot) }
                    }
                    _ => "never",
                }
                @if let Some(written) = job.written_bytes { br; (written) " written since" }
            }
            td { (next(job, now)) }
            td { (totals.runs) @if totals.failed_runs > 0 { ", " (totals.failed_runs) " failed" } }
            td { (totals.bytes) }
            td { (totals.wire) }
            td title=(layers) { (resumes.sum()) }
        }
    }
}

fn on_its_way(transfer: &TransferView) -> Markup {
    html! {
        p.transfer {
            (transfer.what) br;
            @if let Some(estimated) = transfer.estimated {
                progress max=(estimated.0) value=(transfer.read.0.min(estimated.0)) {}
                " " (transfer.read) " of about " (estimated)
            } @else { (transfer.read) }
            ", " (transfer.rate) "/s"
            @if let Some(eta) = transfer.eta_seconds { ", " (spoken(eta)) " left" }
            ", " (connections(transfer.connections))
            @if let Some(part) = transfer.stands_still { br; strong { (part) " stands still" } }
        }
    }
}

fn next(job: &JobView, now: Timestamp) -> String {
    let Some(next) = job.next_run.filter(|_| job.state != State::Running) else {
        return String::new();
    };
    match u64::try_from(next.duration_since(now).as_secs()) {
        Ok(seconds @ 1..) => format!("in {}", spoken(seconds)),
        _ => "now".to_owned(),
    }
}

fn plotted(id: &str, samples: &[Sample], axis: Axis) -> Markup {
    match plot::throughput(samples, axis) {
        Ok(svg) => html! { figure id=(id) { (PreEscaped(svg)) } },
        Err(error) => {
            tracing::warn!(%error, "draw the throughput");
            html! { p { "The throughput cannot be drawn." } }
        }
    }
}

fn datasets(job: &JobView) -> Markup {
    let more = job.datasets.len().saturating_sub(DATASETS_MAX);
    html! {
        h2 { "Datasets of " (job.name) }
        table {
            thead { tr { th { "Dataset" } th { "Snapshot" } th { "Last success" } } }
            tbody {
                @for one in job.datasets.iter().take(DATASETS_MAX) {
                    tr {
                        td { (one.dataset) }
                        td { @if let Some(snapshot) = &one.snapshot { "@" (snapshot) } }
                        td { (spoken(one.lag_seconds)) " ago" }
                    }
                }
            }
        }
        @if more > 0 { p { "and " (more) " more, in status.json" } }
    }
}

fn seconds(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Card, LastFailure, Series};
    use crate::schedule::History;

    #[test]
    fn no_name_and_no_message_becomes_a_part_of_the_page() {
        let evil = "<script>alert(1)</script>\"'&<img src=x onerror=y>";
        let at = Timestamp::UNIX_EPOCH;
        let card = Card {
            source: evil.to_owned(),
            target: evil.to_owned(),
            last_failure: Some(LastFailure { at, what: evil.to_owned() }),
            ..Card::default()
        };
        let history = History { failures: 1, ..History::default() };
        let mut job = JobView::new(evil, &card, &history, at);
        job.transfers.push(TransferView {
            what: evil.to_owned(),
            since: at,
            estimated: None,
            read: crate::units::Bytes(0),
            wire: crate::units::Bytes(0),
            fed: crate::units::Bytes(0),
            spooled: crate::units::Bytes(0),
            rate: crate::units::Bytes(0),
            eta_seconds: None,
            connections: 0,
            level: None,
            lane: crate::engine::settings::Route::Block,
            stands_still: None,
        });
        let dataset = crate::board::DatasetView {
            dataset: evil.to_owned(),
            snapshot: Some(evil.to_owned()),
            at,
            lag_seconds: 0,
        };
        job.datasets = vec![dataset; DATASETS_MAX + 2];
        let mut document = Document::left(vec![job], at);
        document.throughput = Series { seconds: vec![Sample::default(); 9], ..Series::default() };
        let page = html(&document);
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 6 + 2 * DATASETS_MAX);
        assert!(page.contains("and 2 more, in status.json"));
        // Nothing that the page's own rules would forbid.
        let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!page.contains("style=") && !page.contains("://"), "{page}");
    }
}
