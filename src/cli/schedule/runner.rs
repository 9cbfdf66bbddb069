//! Does what the scheduler orders, and tells it what came of it.
//!
//! What must never happen here: that a run's end is not told to the machine, which would wait for
//! it for ever.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::super::Loudness;
use super::super::config::{Config, ConfigFile, Job};
use super::super::copied::Copied;
use super::super::replicate;
use super::histories::Histories;
use super::run;
use super::shared::Shared;
use crate::error::{Class, Failure, Side};
use crate::schedule::{History, JobName, Now, Order, Scheduler};
use crate::server::Stopping;
use crate::units::Bytes;
use crate::zfs::{Zfs, ZfsError};

/// The jobs of one process.
pub(super) struct Runner {
    config: ConfigFile,
    scheduler: Scheduler,
    jobs: BTreeMap<JobName, Arc<Job>>,
    histories: Histories,
    zfs: Zfs,
    loudness: Loudness,
    shared: Shared,
    /// Ends the runs where they are.
    stop_runs: watch::Sender<Stopping>,
    tell: UnboundedSender<News>,
    news: UnboundedReceiver<News>,
}

/// What other threads have done.
enum News {
    Ended(JobName, Result<Copied, Failure>),
    Measured(JobName, Result<Option<Bytes>, ZfsError>),
}

impl Runner {
    /// Without jobs.
    pub fn new(
        config: ConfigFile,
        histories: Histories,
        zfs: Zfs,
        loudness: Loudness,
        shared: Shared,
    ) -> Runner {
        let (tell, news) = unbounded_channel();
        Runner {
            config,
            scheduler: Scheduler::new(NonZeroUsize::MIN),
            jobs: BTreeMap::new(),
            histories,
            zfs,
            loudness,
            shared,
            stop_runs: watch::Sender::new(Stopping::No),
            tell,
            news,
        }
    }

    /// From now on these are the jobs. A run that has begun goes on as it began.
    pub fn configure(&mut self, jobs: Vec<Job>, parallel: NonZeroUsize) {
        self.jobs = jobs.into_iter().map(|job| (job.name.clone(), Arc::new(job))).collect();
        let triggers = self.jobs.values().map(|job| (job.name.clone(), job.trigger.clone()));
        let now = self.now();
        self.scheduler.configure(triggers, parallel, now, |job| self.histories.read(job));
        let errands = self.jobs.values().map(|job| (job.name.clone(), job.copy.errand()));
        self.shared
            .with(|board, now| board.configure(errands, now, |job| self.histories.card(job)));
        // Of one that never runs somebody wants to know since when.
        self.jobs.keys().for_each(|job| self.keep_card_if_new(job));
        self.histories.retire_all_but(self.jobs.keys());
    }

    /// Until `stop` says so, and the runs have ended.
    pub async fn run(mut self, mut stop: watch::Receiver<Stopping>, mut hangup: Signal) {
        loop {
            let urgency = *stop.borrow_and_update();
            self.heed(urgency);
            if urgency > Stopping::No && self.scheduler.running() == 0 {
                return;
            }
            for order in self.scheduler.orders(self.now()) {
                self.follow(order);
            }
            let now = self.now();
            self.shared.with(|board, _| board.plan(self.scheduler.standings(now)));
            let idle_for = self.scheduler.idle_for(now);
            tokio::select! {
                Some(news) = self.news.recv() => self.learn(news),
                () = tokio::time::sleep(idle_for) => {}
                Some(()) = hangup.recv() => self.read_again(),
                Ok(()) = stop.changed() => {}
            }
        }
    }

    fn now(&self) -> Now {
        self.shared.now()
    }

    fn heed(&mut self, urgency: Stopping) {
        match urgency {
            Stopping::No => {}
            Stopping::Drained => self.drain(),
            Stopping::Now => {
                self.drain();
                self.stop_runs.send_replace(Stopping::Now);
            }
        }
    }

    fn drain(&mut self) {
        self.scheduler.drain();
        self.shared.with(|board, _| board.drain());
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Run(name) => self.start(name),
            Order::Measure(name) => self.measure(name),
        }
    }

    fn start(&mut self, name: JobName) {
        self.keep(&name);
        let Some(job) = self.jobs.get(&name) else { return };
        tracing::info!(job = %name, "begins");
        let (tell, stop) = (self.tell.clone(), self.stop_runs.subscribe());
        let of = name.clone();
        let owed_since = self.scheduler.history(&name).and_then(History::goes_on_since);
        let started =
            run::start(job, owed_since, stop, (self.loudness, &self.shared), move |outcome| {
                let _nobody_listens = tell.send(News::Ended(of, outcome));
            });
        if let Err(error) = started {
            let what = format!("start a thread: {error}");
            let failure = Failure::new(Side::Source, Class::Machine, what);
            self.learn(News::Ended(name, Err(failure)));
        }
    }

    /// On another thread: `zfs` may take its time.
    fn measure(&mut self, name: JobName) {
        let snapshot = self.scheduler.history(&name).and_then(|known| known.snapshot.clone());
        let job = self.jobs.get(&name);
        let source = job.and_then(|job| job.copy.local_source());
        let (Some(snapshot), Some(source), Some(job)) = (snapshot, source, job) else {
            return self.learn(News::Measured(name, Ok(None)));
        };
        let (zfs, tell, job) = (self.zfs.clone(), self.tell.clone(), Arc::clone(job));
        tokio::task::spawn_blocking(move || {
            let written = job.copy.written_since(&zfs, &source, &snapshot);
            let _nobody_listens = tell.send(News::Measured(name, written));
        });
    }

    fn learn(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Ended(name, outcome) => {
                self.say(&name, &outcome);
                // Also of a job that was taken away while it ran: it may come back.
                if let Some(history) = self.scheduler.ended(&name, run::ended(&outcome), now) {
                    self.histories.write(&name, &history);
                }
                let whole = outcome.as_ref().and_then(Copied::all);
                let said = whole.err().map(ToString::to_string);
                let said = said.as_deref().map_or(Ok(()), Err);
                self.shared.with(|board, now| board.ended(&name, said, now));
                self.keep_card(&name);
            }
            News::Measured(name, Ok(bytes)) => {
                self.shared.with(|board, _| board.measured(&name, bytes));
                self.scheduler.measured(&name, bytes, now);
            }
            News::Measured(name, Err(error)) => {
                tracing::warn!(job = %name, "how much was written is not known: {error}");
                self.scheduler.measured(&name, None, now);
            }
        }
    }

    fn say(&self, name: &JobName, outcome: &Result<Copied, Failure>) {
        if let (Ok(copied), false, Some(job)) = (outcome, self.loudness.quiet, self.jobs.get(name))
        {
            replicate::tell(&format!("{name}: "), &job.copy, copied);
        }
        if let Err(failure) = outcome.as_ref().and_then(Copied::all) {
            tracing::error!(job = %name, "{failure}");
        }
    }

    fn keep(&self, name: &JobName) {
        if let Some(history) = self.scheduler.history(name) {
            self.histories.write(name, history);
        }
    }

    fn keep_card_if_new(&self, name: &JobName) {
        // Of many jobs nearly all are as they were, and to write one takes a disk's time.
        let kept = self.histories.card(name);
        if self.shared.with(|board, _| board.card(name).is_some_and(|card| *card != kept)) {
            self.keep_card(name);
        }
    }

    fn keep_card(&self, name: &JobName) {
        // Written without the lock: a disk may be slow.
        if let Some(card) = self.shared.with(|board, _| board.card(name).cloned()) {
            self.histories.write_card(name.as_str(), &card);
        }
    }

    fn read_again(&mut self) {
        match self.config.load() {
            Ok(Config { parallel, jobs, .. }) => {
                tracing::warn!(jobs = jobs.len(), "read the configuration again");
                self.configure(jobs, parallel);
            }
            Err(failure) => tracing::error!(%failure, "the former configuration stays"),
        }
    }
}
