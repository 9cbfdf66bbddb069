//! The board on a virtual clock.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::protocol::stall::Culprit;

const START: &str = "2026-03-01T10:00:00Z";

fn at(seconds: f64) -> Now {
    let up = Duration::from_secs_f64((seconds * 1000.).round() / 1000.);
    let wall = START.parse::<Timestamp>().unwrap();
    Now { wall: wall + jiff::SignedDuration::try_from(up).unwrap(), up }
}

fn name(job: &str) -> JobName {
    JobName::new(job)
}

fn board(jobs: &[&str]) -> Board {
    let process = Process { pid: 1, version: "v".to_owned(), since: at(0.).wall, draining: false };
    let mut board = Board::new(process, at(0.));
    configure(&mut board, jobs, at(0.));
    board
}

fn configure(board: &mut Board, jobs: &[&str], now: Now) {
    let errand = |job: &&str| Errand { source: format!("tank/{job}"), target: "there".to_owned() };
    let jobs = jobs.iter().map(|job| (name(job), errand(job)));
    board.configure(jobs, now, |_| Card::default());
}

fn read(bytes: u64, wire: u64) -> Seen<'static> {
    Seen::Moment(Moment { read: Bytes(bytes), wire: Bytes(wire), ..Moment::default() })
}

fn only(board: &mut Board, seconds: f64) -> JobView {
    let document = board.document(at(seconds));
    assert_eq!(document.jobs.len(), 1);
    document.jobs.into_iter().next().unwrap()
}

#[test]
fn a_stream_is_seen_with_its_rate_over_the_last_seconds_and_what_is_left_of_it() {
    let (mut board, job, stream) = (board(&["a"]), name("a"), StreamId(1));
    board.hear(&job, stream, Seen::Begin("tank/a@s (full)", Some(Bytes(5000))), at(0.));
    // A hundred bytes a second, then twice as many.
    for tick in 1..=100_u32 {
        let bytes = u64::from(tick) * 20 + u64::from(tick.saturating_sub(50)) * 20;
        board.hear(&job, stream, read(bytes, bytes / 2), at(f64::from(tick) * 0.2));
    }
    let view = only(&mut board, 20.);
    let [transfer] = &view.transfers[..] else { panic!("{view:?}") };
    assert_eq!((transfer.what.as_str(), transfer.since), ("tank/a@s (full)", at(0.).wall));
    assert_eq!(
        (transfer.read, transfer.wire, transfer.rate),
        (Bytes(3000), Bytes(1500), Bytes(200))
    );
    assert_eq!(transfer.eta_seconds, Some(10));
    // Nothing is told any more: it is not as fast as it was.
    assert_eq!(only(&mut board, 25.).transfers[0].rate, Bytes(100));
    assert_eq!(only(&mut board, 60.).transfers[0].rate, Bytes(0));
    assert_eq!(only(&mut board, 60.).transfers[0].eta_seconds, None);
    board.hear(&job, stream, Seen::End, at(61.));
    let view = only(&mut board, 61.);
    assert!(view.transfers.is_empty());
    assert_eq!((view.totals.bytes, view.totals.wire), (Bytes(3000), Bytes(1500)));
}

#[test]
fn streams_of_one_job_that_are_on_their_way_together_are_told_apart() {
    let (mut board, job) = (board(&["a"]), name("a"));
    for stream in [1, 2] {
        board.hear(&job, StreamId(stream), Seen::Begin("x", None), at(0.));
        board.hear(&job, StreamId(stream), read(10 * stream, 0), at(1.));
    }
    let read: Vec<Bytes> = only(&mut board, 1.).transfers.iter().map(|one| one.read).collect();
    assert_eq!(read, [Bytes(10), Bytes(20)]);
    board.hear(&job, StreamId(1), Seen::End, at(2.));
    let view = only(&mut board, 2.);
    assert_eq!((view.transfers.len(), view.totals.bytes, view.totals.streams), (1, Bytes(30), 2));
}

#[test]
fn what_stands_still_is_told_until_it_moves() {
    let (mut board, job, stream) = (board(&["a"]), name("a"), StreamId(1));
    board.hear(&job, stream, Seen::Begin("x", None), at(0.));
    let still = Moment { stands_still: Some(Culprit::Wire), ..Moment::default() };
    board.hear(&job, stream, Seen::Moment(still), at(1.));
    assert_eq!(only(&mut board, 1.).transfers[0].stands_still, Some(Culprit::Wire));
    board.hear(&job, stream, read(1, 1), at(2.));
    assert_eq!(only(&mut board, 2.).transfers[0].stands_still, None);
}

#[test]
fn runs_failures_and_cuts_are_counted_and_go_on_from_the_card_that_was_kept() {
    let (mut first, job, stream) = (board(&["a"]), name("a"), StreamId(1));
    for by in [Layer::Reconnect, Layer::Reconnect, Layer::Spool, Layer::Token] {
        first.hear(&job, stream, Seen::Survived(by), at(1.));
    }
    first.hear(&job, stream, Seen::TriedAgain, at(2.));
    first.hear(&job, stream, Seen::Arrived("tank/a", "s1"), at(3.));
    first.ended(&job, Ok(()), at(3.));
    first.ended(&job, Err("no room"), at(4.));
    let card = first.card(&job).unwrap().clone();
    let text = serde_json::to_string(&card).unwrap();
    let read: Card = serde_json::from_str(&text).unwrap();
    assert_eq!(read, card);

    let mut second = board(&[]);
    let errand = Errand { source: "tank/a".to_owned(), target: "elsewhere".to_owned() };
    second.configure([(job.clone(), errand)], at(90.), |_| read.clone());
    second.ended(&job, Err("no room"), at(93.));
    let view = only(&mut second, 100.);
    let Totals { runs, failed_runs, retries, resumes, .. } = view.totals;
    assert_eq!((runs, failed_runs, retries), (3, 2, 1));
    assert_eq!((resumes, resumes.sum()), (Resumes { reconnect: 2, spool: 1, token: 1 }, 4));
    assert_eq!((view.first_seen, view.target.as_str()), (Some(at(0.).wall), "elsewhere"));
    let failure = LastFailure { at: at(93.).wall, what: "no room".to_owned() };
    assert_eq!(view.last_failure, Some(failure));
    let [dataset] = &view.datasets[..] else { panic!("{view:?}") };
    assert_eq!((dataset.dataset.as_str(), dataset.snapshot.as_deref()), ("tank/a", Some("s1")));
    assert_eq!(dataset.lag_seconds, 97);
}

#[test]
fn a_dataset_that_is_no_more_is_forgotten_by_the_next_run_that_goes_well() {
    let (mut board, job) = (board(&["a"]), name("a"));
    let arrive = |board: &mut Board, datasets: &[&str], seconds| {
        for dataset in datasets {
            board.hear(&job, StreamId(1), Seen::Arrived(dataset, "s"), at(seconds));
        }
    };
    let seen = |board: &mut Board| {
        let datasets = only(board, 99.).datasets.into_iter();
        datasets.map(|one| one.dataset).collect::<Vec<_>>()
    };
    arrive(&mut board, &["tank/a", "tank/a/b", "tank/a/c"], 1.);
    board.ended(&job, Ok(()), at(2.));
    assert_eq!(seen(&mut board), ["tank/a", "tank/a/b", "tank/a/c"]);
    // Of one that has failed nobody knows what it would have come to.
    arrive(&mut board, &["tank/a", "tank/a/d"], 3.);
    board.ended(&job, Err("no room"), at(4.));
    assert_eq!(seen(&mut board), ["tank/a", "tank/a/b", "tank/a/c", "tank/a/d"]);
    arrive(&mut board, &["tank/a", "tank/a/c"], 5.);
    board.ended(&job, Ok(()), at(6.));
    assert_eq!(seen(&mut board), ["tank/a", "tank/a/c"]);
    assert_eq!(board.card(&job).unwrap().datasets.len(), 2);
    // A failure is told after a success, too.
    assert_eq!(only(&mut board, 7.).last_failure.unwrap().at, at(4.).wall);
    // Of another source nothing is known; the counts stay.
    let errand = |source: &str| Errand { source: source.to_owned(), target: "there".to_owned() };
    board.configure([(job.clone(), errand("tank/a"))], at(8.), |_| Card::default());
    assert_eq!(seen(&mut board).len(), 2, "it is read again, and is the same");
    board.configure([(job.clone(), errand("tank/z"))], at(9.), |_| Card::default());
    assert_eq!((seen(&mut board).len(), only(&mut board, 9.).totals.runs), (0, 3));
}

#[test]
fn what_the_scheduler_thinks_of_a_job_is_what_is_shown() {
    let (mut board, job) = (board(&["a"]), name("a"));
    let mut history = History {
        began: Some(at(1.).wall),
        succeeded: Some(at(10.).wall),
        snapshot: Some("s".parse().unwrap()),
        ..History::default()
    };
    let next = Some(at(900.).wall);
    let mut look = |running, history: &History| {
        board.plan([Standing { name: &job, history, running, next }]);
        only(&mut board, 70.)
    };
    let view = look(true, &history);
    assert_eq!((view.state, view.lag_seconds, view.next_run), (State::Running, Some(60), next));
    assert_eq!(view.last_success.unwrap().snapshot.as_deref(), Some("s"));
    assert_eq!(look(false, &history).state, State::Idle);
    history.failures = 2;
    let view = look(false, &history);
    assert_eq!((view.state, view.failures_in_a_row), (State::WaitingToRetry, 2));
    // A clock that jumped back makes nothing negative.
    history.succeeded = Some(at(500.).wall);
    assert_eq!(look(false, &history).lag_seconds, Some(0));
}

#[test]
fn a_job_that_is_taken_away_is_seen_no_more_and_what_it_tells_disturbs_nobody() {
    let mut board = board(&["a", "b"]);
    board.hear(&name("a"), StreamId(1), Seen::Begin("x", None), at(0.));
    configure(&mut board, &["b"], at(1.));
    board.hear(&name("a"), StreamId(1), read(5, 5), at(2.));
    board.ended(&name("a"), Ok(()), at(3.));
    assert_eq!(only(&mut board, 3.).name, "b");
    assert_eq!(board.card(&name("a")), None);
}

#[test]
fn what_was_written_is_shown_until_a_run_has_brought_it_away() {
    let (mut board, job) = (board(&["a"]), name("a"));
    board.measured(&job, Some(Bytes(7)));
    board.ended(&job, Err("x"), at(1.));
    assert_eq!(only(&mut board, 1.).written_bytes, Some(Bytes(7)));
    board.ended(&job, Ok(()), at(2.));
    assert_eq!(only(&mut board, 2.).written_bytes, None);
}

#[test]
fn throughput_is_told_by_second_and_by_minute_and_pauses_are_zeros() {
    let (mut board, job, stream) = (board(&["a"]), name("a"), StreamId(1));
    board.hear(&job, stream, Seen::Begin("x", None), at(0.));
    board.hear(&job, stream, read(10, 1), at(0.5));
    board.hear(&job, stream, read(30, 2), at(0.9));
    board.hear(&job, stream, read(60, 4), at(3.1));
    let seconds = board.document(at(4.)).throughput.seconds;
    let sample = |read, wire| Sample { read, wire };
    assert_eq!(seconds, [sample(30, 2), sample(0, 0), sample(0, 0), sample(30, 2)]);
    let series = board.document(at(61.)).throughput;
    assert_eq!((series.seconds.len(), series.minutes), (61, vec![sample(60, 4)]));
    // A day, and as long again without a word.
    let series = board.document(at(2. * 86_400.)).throughput;
    assert_eq!((series.seconds.len(), series.minutes.len()), (600, 1440));
    assert!(series.minutes.iter().all(|&minute| minute == sample(0, 0)));
}

#[test]
fn a_document_is_read_as_it_was_written() {
    let (mut board, job) = (board(&["a"]), name("a"));
    board.hear(&job, StreamId(1), Seen::Begin("x", Some(Bytes(9))), at(0.));
    board.hear(&job, StreamId(1), read(3, 1), at(1.));
    board.drain();
    let document = board.document(at(5.));
    assert!(document.scheduler.as_ref().unwrap().draining);
    let text = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<Document>(&text).unwrap(), document);
}
