//! A world with clocks that can be turned, in which jobs run as long as it takes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::Timestamp;

use super::trigger::later;
use super::*;
use crate::units::Bytes;

mod chance;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

struct World {
    scheduler: Scheduler,
    now: Now,
    /// What runs, and since when by both clocks.
    running: Vec<JobName>,
    /// When runs began, on the wall.
    begun: BTreeMap<JobName, Vec<Timestamp>>,
    /// What was written to the source of every job.
    written: Bytes,
    measured: usize,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn name(text: &str) -> JobName {
    JobName::new(text)
}

fn every(pause: Duration) -> Trigger {
    Trigger { rhythm: Some(Rhythm::Every(pause)), written: None, jitter: Duration::ZERO }
}

fn cron(text: &str) -> Trigger {
    let moments = Box::new(cronexpr::parse_crontab(text).unwrap());
    Trigger { rhythm: Some(Rhythm::Cron(moments)), written: None, jitter: Duration::ZERO }
}

fn written(least: Bytes) -> Trigger {
    let written = Some(Written { least, check: MINUTE });
    Trigger { rhythm: None, written, jitter: Duration::ZERO }
}

impl World {
    fn new(parallel: usize, jobs: &[(&str, Trigger)]) -> World {
        World::with(parallel, jobs, |_| History::default())
    }

    fn with(
        parallel: usize,
        jobs: &[(&str, Trigger)],
        history: impl FnMut(&JobName) -> History,
    ) -> World {
        let now = Now { wall: at("2026-03-01T10:00:30Z"), up: Duration::from_secs(1000) };
        let parallel = NonZeroUsize::new(parallel).unwrap();
        let mut scheduler = Scheduler::new(parallel);
        let jobs = jobs.iter().map(|(text, trigger)| (name(text), trigger.clone()));
        scheduler.configure(jobs, parallel, now, history);
        let (running, begun) = (Vec::new(), BTreeMap::new());
        World { scheduler, now, running, begun, written: Bytes(0), measured: 0 }
    }

    /// Does what is ordered now, until nothing is for a while.
    fn obey(&mut self) {
        for _ in 0..3 {
            for order in self.scheduler.orders(self.now) {
                self.follow(order);
            }
            if !self.scheduler.idle_for(self.now).is_zero() {
                return;
            }
        }
        panic!("it is woken again and again, and does nothing");
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Run(job) => {
                assert!(!self.running.contains(&job), "two runs of {job}");
                self.begun.entry(job.clone()).or_default().push(self.now.wall);
                self.running.push(job);
            }
            Order::Measure(job) => {
                self.measured += 1;
                self.scheduler.measured(&job, Some(self.written), self.now);
            }
        }
    }

    /// Lets time pass as the scheduler asks to be woken.
    fn pass(&mut self, mut time: Duration) {
        loop {
            self.obey();
            let step = self.scheduler.idle_for(self.now).min(time);
            self.tick(step);
            time -= step;
            if time.is_zero() {
                return self.obey();
            }
        }
    }

    fn tick(&mut self, step: Duration) {
        self.now = Now { wall: later(self.now.wall, step), up: self.now.up + step };
    }

    fn end(&mut self, job: &str, how: Ended) {
        let before = self.running.len();
        self.running.retain(|running| running.as_str() != job);
        assert_eq!(self.running.len() + 1, before, "{job} does not run");
        self.scheduler.ended(&name(job), how, self.now);
    }

    /// Lets it run to its end at once, again and again, for so long.
    fn pass_with(&mut self, time: Duration, how: &Ended) {
        let end = self.now.up + time;
        while self.now.up < end {
            self.obey();
            for job in std::mem::take(&mut self.running) {
                self.scheduler.ended(&job, how.clone(), self.now);
            }
            let step = self.scheduler.idle_for(self.now).min(end.saturating_sub(self.now.up));
            self.tick(step.max(Duration::from_millis(1)));
        }
    }

    fn count(&self, job: &str) -> usize {
        self.begun.get(&name(job)).map_or(0, Vec::len)
    }
}

fn well() -> Ended {
    Ended::Well(Some("s".parse().unwrap()))
}

fn interrupted() -> Ended {
    Ended::Interrupted("the connection was lost".to_owned())
}

fn failed() -> Ended {
    Ended::Failed("the target was modified".to_owned())
}

#[test]
fn a_new_job_runs_at_once_and_then_in_its_rhythm() {
    let mut world = World::new(1, &[("a", every(15 * MINUTE))]);
    world.pass_with(HOUR, &well());
    assert_eq!(world.count("a"), 4);
    world.pass_with(HOUR, &well());
    assert_eq!(world.count("a"), 8);
}

#[test]
fn a_cron_expression_names_the_moments() {
    let mut world = World::new(1, &[("a", cron("*/20 * * * * UTC"))]);
    world.pass_with(HOUR, &well());
    let begun = &world.begun[&name("a")];
    let minutes = ["2026-03-01T10:20:00Z", "2026-03-01T10:40:00Z", "2026-03-01T11:00:00Z"].map(at);
    assert_eq!(begun, &minutes);
}

#[test]
fn a_run_that_takes_longer_than_its_rhythm_is_followed_by_one_and_not_by_those_it_missed() {
    for trigger in [every(15 * MINUTE), cron("*/15 * * * * UTC")] {
        let mut world = World::new(1, &[("a", trigger)]);
        world.pass(20 * MINUTE);
        world.pass(2 * HOUR);
        assert_eq!((world.count("a"), world.running.len()), (1, 1));
        world.end("a", well());
        world.obey();
        assert_eq!(world.count("a"), 2, "what was missed is made up at once");
        world.end("a", well());
        world.obey();
        assert_eq!(world.count("a"), 2, "and once");
    }
}

#[test]
fn what_was_missed_while_no_process_was_there_is_made_up_once() {
    let history = |began: &str| History { began: Some(at(began)), ..History::default() };
    let jobs = [("a", every(HOUR)), ("b", every(HOUR)), ("c", cron("0 3 * * * UTC"))];
    let mut world = World::with(3, &jobs, |job| match job.as_str() {
        "a" => history("2026-02-20T00:00:00Z"),
        "b" => history("2026-03-01T09:30:30Z"),
        _ => history("2026-02-28T03:00:00Z"),
    });
    world.obey();
    assert_eq!((world.count("a"), world.count("b"), world.count("c")), (1, 0, 1));
    for job in ["a", "c"] {
        world.end(job, well());
    }
    world.pass(HOUR / 2);
    assert_eq!((world.count("a"), world.count("b"), world.count("c")), (1, 1, 1));
}

#[test]
fn a_run_that_died_with_its_process_begins_again_at_once() {
    let began = Some(at("2026-03-01T10:00:00Z"));
    let mut world = World::with(1, &[("a", every(HOUR))], |_| History {
        began,
        unfinished: true,
        ..History::default()
    });
    world.obey();
    assert_eq!(world.count("a"), 1);
}

#[test]
fn what_was_to_be_tried_again_is_tried_at_once_by_the_next_process_and_what_was_not_is_not() {
    let partly = || Ended::Partly(None, "tank/a/b is in trouble".to_owned());
    for (how, count) in [(interrupted(), 1), (failed(), 1), (partly(), 0), (well(), 0)] {
        let mut world = World::new(1, &[("a", every(24 * HOUR))]);
        world.obey();
        let first = world.now.wall;
        world.end("a", how.clone());
        let left = world.scheduler.history(&name("a")).unwrap().clone();
        let mut world = World::with(1, &[("a", every(24 * HOUR))], |_| left.clone());
        world.tick(Duration::from_secs(10));
        world.obey();
        assert_eq!(world.count("a"), count, "{how:?}");
        if count == 1 {
            let history = world.scheduler.history(&name("a")).unwrap();
            assert_eq!(history.goes_on_since(), Some(first), "it goes on with what was tried");
            // What came of that is what counts from then on.
            world.end("a", well());
            let left = world.scheduler.history(&name("a")).unwrap().clone();
            let mut world = World::with(1, &[("a", every(24 * HOUR))], |_| left.clone());
            world.pass(HOUR);
            assert_eq!(world.count("a"), 0);
        }
    }
}

#[test]
fn what_is_owed_is_owed_since_the_first_run_that_failed_until_more_is_due() {
    let owed = |world: &World| world.scheduler.history(&name("a")).unwrap().goes_on_since();
    let mut world = World::new(1, &[("a", every(HOUR))]);
    world.obey();
    let first = world.now.wall;
    assert_eq!(owed(&world), None, "nothing was tried before");
    for _ in 0..2 {
        world.end("a", interrupted());
        world.pass(10 * MINUTE);
        assert_eq!(owed(&world), Some(first));
    }
    // What a process leaves that dies now is what the next one knows.
    let left = world.scheduler.history(&name("a")).unwrap().clone();
    let mut world = World::with(1, &[("a", every(HOUR))], |_| left.clone());
    world.tick(20 * MINUTE);
    world.obey();
    assert_eq!((world.count("a"), owed(&world)), (1, Some(first)));
    world.end("a", failed());
    world.pass(HOUR + MINUTE);
    assert_eq!((world.count("a"), owed(&world)), (2, None), "it is due anew");
    world.end("a", interrupted());
    world.pass(10 * MINUTE);
    assert!(owed(&world).is_some_and(|since| since > first));
    world.end("a", well());
    world.pass(HOUR);
    assert_eq!(owed(&world), None);

    let mut world = World::new(1, &[("a", written(Bytes::GIB))]);
    world.written = Bytes::GIB;
    world.obey();
    world.end("a", failed());
    world.pass(HOUR + MINUTE);
    assert!(owed(&world).is_some());
    world.end("a", well());
    world.pass(2 * MINUTE);
    assert_eq!((world.count("a"), owed(&world)), (3, None));
}

#[test]
fn a_clock_that_jumps_costs_one_run_at_most_and_loses_none() {
    let mut world = World::new(1, &[("a", every(HOUR))]);
    world.pass_with(MINUTE, &well());
    // Forward by a day, as after a night's sleep.
    world.now.wall = later(world.now.wall, 24 * HOUR);
    world.pass_with(MINUTE, &well());
    assert_eq!(world.count("a"), 2);
    // Back by a year.
    world.now.wall = at("2025-03-01T00:00:00Z");
    world.pass_with(HOUR + 2 * MINUTE, &well());
    assert_eq!(world.count("a"), 3);
}

#[test]
fn no_more_run_at_once_than_may_and_the_longest_waiting_is_next() {
    let jobs = ["a", "b", "c"].map(|job| (job, every(HOUR)));
    let mut world = World::new(2, &jobs);
    world.pass(MINUTE);
    assert_eq!(world.running, [name("a"), name("b")]);
    world.end("b", interrupted());
    world.obey();
    assert_eq!(world.running, [name("a"), name("c")]);
}

#[test]
fn what_is_written_makes_a_job_due_when_it_is_enough() {
    let mut world = World::new(1, &[("a", written(Bytes::GIB))]);
    world.written = Bytes(Bytes::GIB.0 - 1);
    world.pass(10 * MINUTE);
    assert_eq!((world.count("a"), world.measured), (0, 11), "it looks once a minute");
    world.written = Bytes::GIB;
    world.pass(MINUTE);
    assert_eq!(world.count("a"), 1);
    let measured = world.measured;
    world.pass(10 * MINUTE);
    assert_eq!(world.measured, measured, "nobody looks while it runs");
    world.written = Bytes(0);
    world.end("a", well());
    world.pass(10 * MINUTE);
    assert_eq!((world.count("a"), world.measured), (1, measured + 10));
}

#[test]
fn whoever_is_due_and_has_no_room_is_neither_measured_nor_looked_after_in_vain() {
    let both = Trigger { written: written(Bytes::GIB).written, ..every(15 * MINUTE) };
    let mut world = World::new(1, &[("a", every(HOUR)), ("b", both)]);
    // `obey` looks that nobody is woken in vain.
    world.pass(20 * MINUTE);
    assert_eq!((world.running.as_slice(), world.measured), (&[name("a")][..], 0));
    world.end("a", well());
    world.obey();
    assert_eq!(world.running, [name("b")]);
    world.end("b", well());
    world.pass(10 * MINUTE);
    assert_eq!((world.count("b"), world.measured), (1, 10), "it is measured while it is not due");
}

#[test]
fn what_is_written_waits_for_its_turn_and_no_longer_than_the_others() {
    let always = || every(Duration::from_secs(1));
    let jobs = [("a", always()), ("b", always()), ("w", written(Bytes::GIB))];
    let mut world = World::new(1, &jobs);
    world.pass(2 * MINUTE);
    world.written = Bytes::GIB;
    let mut begun = Vec::new();
    for _ in 0..7 {
        world.pass(10 * MINUTE);
        let job = world.running[0].clone();
        world.end(job.as_str(), well());
        begun.push(job.to_string());
    }
    assert_eq!(begun, ["a", "b", "w", "a", "b", "w", "a"], "nobody twice before another once");
}

#[test]
fn what_was_measured_before_a_run_began_makes_no_other_due() {
    let both = Trigger { written: written(Bytes::GIB).written, ..every(15 * MINUTE) };
    let mut world = World::new(1, &[("a", both)]);
    world.obey();
    world.end("a", interrupted());
    world.obey();
    world.pass(2 * MINUTE);
    let owed = |world: &World| world.scheduler.history(&name("a")).unwrap().goes_on_since();
    let before = owed(&world);
    assert!(before.is_some() && world.running.len() == 1);
    // Somebody looked for longer than that took.
    world.scheduler.measured(&name("a"), Some(Bytes::GIB), world.now);
    assert_eq!(owed(&world), before);
    world.end("a", well());
    world.pass(10 * MINUTE);
    assert_eq!(world.count("a"), 2);
}

#[test]
fn a_failure_that_may_pass_is_tried_again_later_each_time_and_one_that_does_not_seldom() {
    let mut world = World::new(1, &[("a", written(Bytes(1)))]);
    world.written = Bytes(1);
    world.pass_with(HOUR, &interrupted());
    // 1, 2, 4, 8, 16 and 32 minutes, each cut to half at least.
    assert!((5..=8).contains(&world.count("a")), "{}", world.count("a"));
    let mut world = World::new(1, &[("a", written(Bytes(1)))]);
    world.written = Bytes(1);
    world.pass_with(239 * MINUTE, &failed());
    assert_eq!(world.count("a"), 4);
    let (_, history, _) = world.scheduler.jobs().next().unwrap();
    assert_eq!((history.failures, history.succeeded), (4, None));
    assert_eq!(history.failure.as_deref(), Some("the target was modified"));
}

#[test]
fn a_rhythm_goes_on_whatever_fails() {
    let mut world = World::new(1, &[("a", every(15 * MINUTE))]);
    world.pass_with(HOUR, &failed());
    assert_eq!(world.count("a"), 4);
    let mut world = World::new(1, &[("a", every(24 * HOUR))]);
    world.pass_with(10 * MINUTE, &interrupted());
    assert!(world.count("a") > 2, "it does not wait for a day");
}

#[test]
fn a_tree_of_which_a_part_is_missing_goes_on_by_rhythm_and_by_what_is_written() {
    let partly = || Ended::Partly(Some("s".parse().unwrap()), "tank/a/b is in trouble".to_owned());
    let mut world = World::new(1, &[("a", every(15 * MINUTE))]);
    world.pass_with(HOUR, &partly());
    assert_eq!(world.count("a"), 4, "neither sooner nor later");
    let history = world.scheduler.history(&name("a")).unwrap();
    assert_eq!((history.failures, history.succeeded), (4, None));
    assert!(history.snapshot.is_some() && history.failure.is_some());
    let mut world = World::new(1, &[("a", written(Bytes::GIB))]);
    world.pass_with(HOUR, &partly());
    let before = world.count("a");
    world.written = Bytes::GIB;
    world.pass_with(2 * MINUTE, &partly());
    assert!(world.count("a") > before, "{before}");
}

#[test]
fn jobs_with_one_rhythm_do_not_begin_together() {
    let with_jitter = Trigger { jitter: 10 * MINUTE, ..cron("0 * * * * UTC") };
    let names: Vec<String> = (0..50).map(|number| format!("job {number}")).collect();
    let jobs: Vec<_> = names.iter().map(|job| (job.as_str(), with_jitter.clone())).collect();
    let mut world = World::new(50, &jobs);
    world.pass_with(179 * MINUTE, &well());
    let mut minutes = BTreeMap::<i64, usize>::new();
    for (job, begun) in &world.begun {
        assert_eq!(begun.len(), 2, "{job}");
        for moment in begun {
            let after = moment.as_second().rem_euclid(3600);
            assert!(after <= 600, "{job} at {moment}");
            *minutes.entry(after / 60).or_default() += 1;
        }
        let gap = begun[1].as_second() - begun[0].as_second();
        assert_ne!(gap, 3600, "each time by another part");
    }
    assert!(minutes.values().all(|&count| count < 25), "{minutes:?}");
}

#[test]
fn a_job_that_is_taken_away_runs_to_its_end_and_one_that_stays_goes_on() {
    let parallel = NonZeroUsize::new(2).unwrap();
    let mut world = World::new(2, &[("a", every(HOUR)), ("b", every(HOUR))]);
    world.obey();
    let fresh = |job: &JobName| -> History { panic!("{job} is known") };
    world.scheduler.configure([(name("b"), every(2 * HOUR))], parallel, world.now, fresh);
    assert_eq!(world.scheduler.running(), 2);
    world.running.retain(|job| *job != name("a"));
    let left = world.scheduler.ended(&name("a"), well(), world.now).unwrap();
    assert!(!left.unfinished && left.succeeded.is_some(), "as it is when it comes back: {left:?}");
    assert_eq!(world.scheduler.history(&name("a")), None);
    world.end("b", well());
    assert_eq!(world.scheduler.running(), 0);
    world.pass_with(2 * HOUR + MINUTE, &well());
    assert_eq!((world.count("a"), world.count("b")), (1, 2));
}

#[test]
fn whoever_drains_begins_nothing() {
    let mut world = World::new(2, &[("a", every(HOUR)), ("b", cron("* * * * * UTC"))]);
    world.obey();
    world.scheduler.drain();
    assert_eq!(world.scheduler.running(), 1);
    world.pass(HOUR);
    world.end("a", interrupted());
    world.pass(HOUR);
    assert_eq!((world.count("a"), world.count("b"), world.scheduler.running()), (1, 0, 0));
}
