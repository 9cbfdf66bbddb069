//! All jobs of a process: which one runs next, and when to look again.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::history::History;
use super::trigger::{Trigger, later};
use crate::backoff::Backoff;
use crate::dataset::SnapName;
use crate::units::Bytes;

/// What a job is called: unique in its configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(Arc<str>);

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// What the clock on the wall shows. It may jump.
    pub wall: Timestamp,
    /// Since any fixed moment, by a clock that only goes forward.
    pub up: Duration,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin a run, and say how it ended.
    Run(JobName),
    /// Find out how much was written to a job's source since its last run, and say it.
    Measure(JobName),
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Which one.
    pub name: &'a JobName,
    /// What is known of its runs.
    pub history: &'a History,
    /// A run has begun and not ended.
    pub running: bool,
    /// When the next one is due, as far as that follows from a clock. It may have to wait for its
    /// turn then.
    pub next: Option<Timestamp>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The target has everything up to this snapshot.
    Well(Option<SnapName>),
    /// The target has everything up to this snapshot but for some datasets, or has it and was not
    /// pruned; what is wrong with them. The next run by rhythm, or by what is written from now on,
    /// tries that again.
    Partly(Option<SnapName>, String),
    /// Something failed that may work the next time; what it said.
    Interrupted(String),
    /// Somebody has to act; what it said.
    Failed(String),
}

/// All jobs, and what they wait for.
#[derive(Debug)]
pub struct Scheduler {
    jobs: BTreeMap<JobName, Job>,
    parallel: NonZeroUsize,
    /// Nothing begins any more.
    draining: bool,
}

#[derive(Debug)]
struct Job {
    trigger: Trigger,
    history: History,
    state: State,
    /// What its rhythm is counted from: when its last run began, or when it was heard of. Never
    /// later than now, whatever the clock does.
    base: Timestamp,
    /// When it is wanted whatever its rhythm says: since then, for much was written or a process
    /// has left it unfinished; or from then on, after a failure.
    wanted: Option<Duration>,
    /// When its last run of this process ended: whoever runs does not wait.
    idle_since: Option<Duration>,
    backoff: Backoff,
    /// When to look again how much was written.
    check_at: Duration,
    /// Somebody looks.
    measuring: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Running,
    /// It runs, and is no job any more.
    Leaving,
}

/// The first wait after a failure, and the longest.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_LONGEST: Duration = Duration::from_secs(3600);

/// A clock on a wall may jump while nobody is woken: it is looked at again so soon at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl JobName {
    /// From a name that has been checked: see `config`.
    pub fn new(name: &str) -> JobName {
        JobName(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn seed(&self) -> u64 {
        crc32fast::hash(self.0.as_bytes()).into()
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Now {
    /// What the clock on the wall would have shown then, had nobody turned it.
    fn wall_at(self, up: Duration) -> Timestamp {
        let ago = SignedDuration::try_from(self.up.saturating_sub(up));
        let then = self.wall.saturating_sub(ago.unwrap_or(SignedDuration::MAX));
        then.unwrap_or(Timestamp::MIN)
    }
}

impl Scheduler {
    /// Without jobs; runs at most so many at once.
    pub fn new(parallel: NonZeroUsize) -> Scheduler {
        Scheduler { jobs: BTreeMap::new(), parallel, draining: false }
    }

    /// From now on these are the jobs, and so many run at once. Those that there were already go on
    /// as they are; those that are gone and run, run to their end. `history` is asked for others.
    pub fn configure(
        &mut self,
        jobs: impl IntoIterator<Item = (JobName, Trigger)>,
        parallel: NonZeroUsize,
        now: Now,
        mut history: impl FnMut(&JobName) -> History,
    ) {
        self.parallel = parallel;
        let mut before = std::mem::take(&mut self.jobs);
        for (name, trigger) in jobs {
            let job = match before.remove(&name) {
                Some(job) => job.with(trigger),
                None => Job::new(&name, trigger, history(&name), now),
            };
            self.jobs.insert(name, job);
        }
        for (name, job) in before.into_iter().filter(|(_, job)| job.state != State::Idle) {
            self.jobs.insert(name, Job { state: State::Leaving, ..job });
        }
    }

    /// Nothing begins any more.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// How many runs have not ended.
    pub fn running(&self) -> usize {
        self.jobs.values().filter(|job| job.state != State::Idle).count()
    }

    /// What there is to do now; each is ordered once.
    pub fn orders(&mut self, now: Now) -> Vec<Order> {
        if self.draining {
            return Vec::new();
        }
        let mut due: Vec<(Timestamp, JobName)> = Vec::new();
        let mut orders = Vec::new();
        for (name, job) in &mut self.jobs {
            job.base = job.base.min(now.wall);
            if let Some(since) = job.due(name, now) {
                due.push((since, name.clone()));
            } else if job.measures_in(name, now).is_some_and(|wait| wait.is_zero()) {
                job.measuring = true;
                orders.push(Order::Measure(name.clone()));
            }
        }
        // Whoever has waited longest begins first.
        due.sort();
        let free = self.parallel.get().saturating_sub(self.running());
        for (_, name) in due.into_iter().take(free) {
            if let Some(job) = self.jobs.get_mut(&name) {
                job.begin(&name, now);
                orders.push(Order::Run(name));
            }
        }
        orders
    }

    /// How long nothing happens by itself: until the end of a run, or such a time.
    pub fn idle_for(&self, now: Now) -> Duration {
        if self.draining {
            return LOOK_AGAIN;
        }
        let has_room = self.running() < self.parallel.get();
        let idle = self.jobs.iter().filter(|(_, job)| job.state == State::Idle);
        let waits = idle.flat_map(|(name, job)| {
            let to_run = has_room.then(|| job.runs_in(name, now)).flatten();
            [to_run, job.measures_in(name, now)].into_iter().flatten()
        });
        waits.min().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
    }

    /// A run has ended. Gives back what is to be kept of the job, also of one that is none any
    /// more: it may come back.
    pub fn ended(&mut self, name: &JobName, how: Ended, now: Now) -> Option<History> {
        let job = self.jobs.get_mut(name)?;
        let is_leaving = job.state == State::Leaving;
        job.end(how, now);
        let history = job.history.clone();
        if is_leaving {
            self.jobs.remove(name);
        }
        Some(history)
    }

    /// So much was written to a job's source. `None`: nobody knows, which is a reason to run as
    /// well.
    pub fn measured(&mut self, name: &JobName, bytes: Option<Bytes>, now: Now) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.measuring = false;
        if let Some(written) = job.trigger.written {
            job.check_at = now.up + written.check;
            // It may have begun by rhythm meanwhile.
            let is_idle = job.state == State::Idle && job.wanted.is_none();
            if is_idle && bytes.is_none_or(|bytes| bytes >= written.least) {
                job.wanted = Some(now.up);
                job.history.owed_since = None;
            }
        }
    }

    /// What is known of one job.
    pub fn history(&self, name: &JobName) -> Option<&History> {
        self.jobs.get(name).map(|job| &job.history)
    }

    /// How each job stands, for whoever looks.
    pub fn standings(&self, now: Now) -> impl Iterator<Item = Standing<'_>> {
        let still = self.jobs.iter().filter(|(_, job)| job.state != State::Leaving);
        still.map(move |(name, job)| Standing {
            name,
            history: &job.history,
            running: job.state != State::Idle,
            next: if self.draining { None } else { job.next(name, now) },
        })
    }

    #[cfg(test)]
    /// What is known of each job, and when its next run is due by rhythm.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobName, &History, Option<Timestamp>)> {
        self.jobs.iter().map(|(name, job)| (name, &job.history, job.by_rhythm(name)))
    }
}

impl Job {
    fn new(name: &JobName, trigger: Trigger, history: History, now: Now) -> Job {
        Job {
            base: history.began.unwrap_or(now.wall).min(now.wall),
            // The process was gone before its end or the machine, or before it was tried again.
            wanted: (history.unfinished || history.again).then_some(now.up),
            trigger,
            history,
            state: State::Idle,
            idle_since: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_LONGEST, name.seed()),
            check_at: now.up,
            measuring: false,
        }
    }

    /// The same job with another trigger. One that comes back while it runs, stays.
    fn with(self, trigger: Trigger) -> Job {
        let state = if self.state == State::Leaving { State::Running } else { self.state };
        Job { trigger, state, ..self }
    }

    fn by_rhythm(&self, name: &JobName) -> Option<Timestamp> {
        self.trigger.due(self.base, self.history.began.is_none(), name.seed())
    }

    /// Since when it waits for its turn; `None`: it need not run, or does.
    fn due(&self, name: &JobName, now: Now) -> Option<Timestamp> {
        if self.state != State::Idle {
            return None;
        }
        let by_rhythm = self.by_rhythm(name).filter(|&due| due <= now.wall);
        let wanted = self.wanted.filter(|&since| since <= now.up).map(|since| now.wall_at(since));
        let due = by_rhythm.into_iter().chain(wanted).min()?;
        Some(self.idle_since.map_or(due, |since| due.max(now.wall_at(since))))
    }

    fn runs_in(&self, name: &JobName, now: Now) -> Option<Duration> {
        let until = |moment: Timestamp| {
            Duration::try_from(now.wall.duration_until(moment)).unwrap_or(Duration::ZERO)
        };
        let wanted = self.wanted.map(|from| from.saturating_sub(now.up));
        wanted.into_iter().chain(self.by_rhythm(name).map(until)).min()
    }

    /// When it is due, if it does not run: by rhythm, or again after a failure.
    fn next(&self, name: &JobName, now: Now) -> Option<Timestamp> {
        if self.state != State::Idle {
            return self.by_rhythm(name);
        }
        self.runs_in(name, now).map(|wait| later(now.wall, wait))
    }

    /// When to look how much was written; `None`: that decides nothing, for it runs, is looked at,
    /// or is due without that and waits for its turn.
    fn measures_in(&self, name: &JobName, now: Now) -> Option<Duration> {
        let may_wait = self.state == State::Idle && self.wanted.is_none() && !self.measuring;
        let is_asked = may_wait && self.trigger.written.is_some() && self.due(name, now).is_none();
        is_asked.then(|| self.check_at.saturating_sub(now.up))
    }

    fn begin(&mut self, name: &JobName, now: Now) {
        if self.by_rhythm(name).is_some_and(|due| due <= now.wall) {
            self.history.owed_since = None;
        }
        self.history.owed_since.get_or_insert(now.wall);
        self.state = State::Running;
        self.base = now.wall;
        self.wanted = None;
        self.history.began = Some(now.wall);
        (self.history.unfinished, self.history.again) = (true, false);
    }

    fn end(&mut self, how: Ended, now: Now) {
        self.state = State::Idle;
        self.idle_since = Some(now.up);
        self.history.unfinished = false;
        let check = self.trigger.written.map_or(Duration::ZERO, |written| written.check);
        self.check_at = now.up + check;
        let (failure, wait) = match how {
            Ended::Well(snapshot) => {
                self.backoff.reset();
                let began = self.history.began;
                let succeeded = Some(now.wall);
                self.history = History { began, succeeded, snapshot, ..History::default() };
                return;
            }
            Ended::Partly(snapshot, failure) => {
                self.history.snapshot = snapshot;
                self.history.failures = self.history.failures.saturating_add(1);
                self.history.failure = Some(failure);
                return;
            }
            Ended::Interrupted(failure) => (failure, self.backoff.wait()),
            Ended::Failed(failure) => (failure, RETRY_LONGEST),
        };
        self.history.failures = self.history.failures.saturating_add(1);
        self.history.failure = Some(failure);
        self.history.again = true;
        self.wanted = Some(now.up + wait);
    }
}
