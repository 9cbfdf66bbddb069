//! A world with clocks that can be turned, in which jobs run as long as it takes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::trigger::later;
use super::*;
use crate::units::Bytes;

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
    world.end("a", well());
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

/// What may happen next in the world.
#[derive(Clone, Debug)]
enum Event {
    Pass(u16),
    End(usize, u8),
    Jump(i32),
    Write(u64),
    Configure(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..4000_u16).prop_map(Event::Pass),
        4 => (any::<usize>(), 0..3_u8).prop_map(|(which, how)| Event::End(which, how)),
        1 => (-200_000..200_000_i32).prop_map(Event::Jump),
        1 => (0..3_u64).prop_map(Event::Write),
        1 => any::<u8>().prop_map(Event::Configure),
    ]
}

proptest! {
    #[test]
    fn nothing_is_forgotten_and_nothing_runs_twice(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let all = [
            ("a", Trigger { jitter: 5 * MINUTE, ..every(HOUR) }),
            ("b", every(15 * MINUTE)),
            ("c", Trigger { written: written(Bytes(2)).written, ..every(2 * HOUR) }),
        ];
        let parallel = NonZeroUsize::new(3).unwrap();
        let mut world = World::new(3, &all);
        world.obey();
        for event in events {
            match event {
                // `pass` and `obey` look that no job runs twice, and that nobody is woken in vain.
                Event::Pass(seconds) => world.pass(Duration::from_secs(seconds.into())),
                Event::End(which, how) if !world.running.is_empty() => {
                    let job = world.running[which % world.running.len()].clone();
                    let how = [well(), interrupted(), failed()][usize::from(how)].clone();
                    world.end(job.as_str(), how);
                    world.obey();
                }
                Event::End(..) => {}
                Event::Jump(seconds) => {
                    let by = jiff::SignedDuration::from_secs(seconds.into());
                    world.now.wall = world.now.wall.checked_add(by).unwrap();
                    world.obey();
                }
                Event::Write(bytes) => world.written = Bytes(bytes),
                Event::Configure(kept) => {
                    let kept = all.iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1);
                    let jobs = kept.map(|(_, (job, trigger))| (name(job), trigger.clone()));
                    let now = world.now;
                    world.scheduler.configure(jobs, parallel, now, |_| History::default());
                    world.obey();
                }
            }
            let now = world.now.wall;
            for (job, _, next) in world.scheduler.jobs() {
                let is_running = world.running.contains(job);
                let overdue = next.is_some_and(|next| next <= now);
                prop_assert!(is_running || !overdue, "{job} is due since {next:?}, it is {now}");
                let soon = next.is_none_or(|next| next <= later(now, 2 * HOUR + 5 * MINUTE));
                prop_assert!(soon, "{job} would wait until {next:?}, it is {now}");
            }
        }
    }
}
