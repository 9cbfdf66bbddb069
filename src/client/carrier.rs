//! Carries copies one after the other, over one session as long as that lasts.
//!
//! A copy whose session is lost begins again with a new one, and goes on from what the target has.
//! What must never happen here: an attempt over a session in which another one has failed.

use std::time::{Duration, Instant};

use super::copying::{Copying, Known, SoFar};
use super::job::{Job, Outcome};
use super::left;
use super::prune::{Pruned, after_copy};
use super::retry::{Attempts, Next};
use super::send::stopped;
use super::session::{Session, TakenUp};
use super::watch::{Held, Noting, Stop, Watch};
use super::{Dial, Options};
use crate::dataset::{DatasetName, Guid};
use crate::error::Failure;
use crate::listing::{TargetState, TargetTree};
use crate::protocol::message::RelativeName;
use crate::zfs::Zfs;

/// Whoever carries.
pub(super) struct Carrier<'a> {
    zfs: &'a Zfs,
    dial: &'a Dial,
    options: Options,
    /// One over which nothing has failed, if there is one.
    session: Option<Session>,
    /// A session stood once: the server can be reached.
    connected: bool,
}

impl<'a> Carrier<'a> {
    /// Without a session yet.
    pub fn new(zfs: &'a Zfs, dial: &'a Dial, options: Options) -> Carrier<'a> {
        Carrier { zfs, dial, options, session: None, connected: false }
    }

    /// Another one, to the same server: that this one has reached it is good enough for both.
    pub fn beside(&self, options: Options) -> Carrier<'a> {
        let Carrier { zfs, dial, connected, .. } = *self;
        Carrier { zfs, dial, options, session: None, connected }
    }

    /// Makes the target hold what is wanted, and prunes then. What both sides hold need not be
    /// asked for if it is `known`.
    pub async fn copy(
        &mut self,
        job: &Job,
        mut known: Option<Known>,
        watch: &mut dyn Watch,
        stop: &mut Stop,
    ) -> Result<Held, Failure> {
        let begun = Instant::now();
        let mut so_far = SoFar::new(self.zfs, job);
        let mut attempts = Attempts::new(self.options.retry_for, seed(), begun);
        let mut watch = Noting::new(watch);
        loop {
            let ended = self.attempt(job, known.take(), &mut watch, stop, &mut so_far).await;
            let failure = match ended {
                Ok(outcome) => {
                    let arrived = outcome.arrived();
                    let mut held = Held::from(outcome);
                    self.prune(job, arrived, &mut held, stop).await;
                    if held.summary.streams > 0 {
                        held.summary.taken = begun.elapsed();
                    }
                    return Ok(held);
                }
                Err(failure) => failure,
            };
            watch.end();
            attempts.moved(watch.progress(), so_far.proved);
            let again = self.next(&failure, &mut attempts, stop);
            if let Some(Next::Again { quiet: false, .. }) = again {
                watch.tried_again(&failure);
            }
            self.wait(failure, again, stop).await?;
        }
    }

    /// Lists a dataset of the target, which also has its full name.
    pub async fn list(
        &mut self,
        target: &RelativeName,
        stop: &mut Stop,
    ) -> Result<(DatasetName, TargetState), Failure> {
        let mut session = self.session(stop).await?;
        let listed = tokio::select! {
            listed = session.list(target.clone()) => listed,
            () = stop.pulled() => Err(stopped()),
        };
        self.keep(session, &listed).await;
        listed
    }

    /// Lists a dataset of the target and all below it.
    pub async fn list_tree(
        &mut self,
        target: &RelativeName,
        stop: &mut Stop,
    ) -> Result<TargetTree, Failure> {
        let mut attempts = Attempts::new(self.options.retry_for, seed(), Instant::now());
        loop {
            let failure = match self.try_to_list(target, stop).await {
                Ok(tree) => return Ok(tree),
                Err(failure) => failure,
            };
            let again = self.next(&failure, &mut attempts, stop);
            self.wait(failure, again, stop).await?;
        }
    }

    /// The session, which must stand.
    pub fn standing(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Waits for `work`, and keeps the session alive meanwhile.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        match &mut self.session {
            Some(session) => session.meanwhile(work).await,
            None => work.await,
        }
    }

    /// Says good-bye, to whoever still listens.
    pub async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }

    /// What need not be kept goes, on both sides. Where that fails for good the copy is not made
    /// again: the target has what was wanted. `arrived` is what the copy has brought, if that was
    /// just now.
    pub async fn prune(
        &mut self,
        job: &Job,
        mut arrived: Option<Guid>,
        held: &mut Held,
        stop: &mut Stop,
    ) {
        let mut attempts = Attempts::new(self.options.retry_for, seed(), Instant::now());
        let Pruned { source, target } = loop {
            // When it is tried again, that was not in this very moment.
            let failure = match self.try_to_prune(job, arrived.take(), stop).await {
                Ok(pruned) => break pruned,
                Err(failure) => failure,
            };
            let again = self.next(&failure, &mut attempts, stop);
            if let Err(failure) = self.wait(failure, again, stop).await {
                return held.unpruned.push(failure);
            }
        };
        for report in source.into_iter().chain(target) {
            held.summary.pruned += report.count;
            held.unpruned.extend(report.failure);
            for stays in report.stay {
                tracing::info!(snapshot = %stays.snapshot, why = stays.why, "stays for now");
            }
        }
    }

    async fn try_to_prune(
        &mut self,
        job: &Job,
        arrived: Option<Guid>,
        stop: &mut Stop,
    ) -> Result<Pruned, Failure> {
        if job.retention.is_nothing() {
            return Ok(Pruned::default());
        }
        let mut session = self.session(stop).await?;
        let ends = (&job.source, &job.target);
        let pruned = after_copy(&mut session, self.zfs, ends, &job.retention, arrived).await;
        self.keep(session, &pruned).await;
        pruned
    }

    /// One session, from its first connection or from the end of the copy before, to the goal or to
    /// its end.
    async fn attempt(
        &mut self,
        job: &Job,
        known: Option<Known>,
        watch: &mut dyn Watch,
        stop: &mut Stop,
        so_far: &mut SoFar,
    ) -> Result<Outcome, Failure> {
        self.take_up(job, watch, stop, so_far).await?;
        let session = self.session(stop).await?;
        let zfs = self.zfs;
        let mut copying = Copying { session, zfs, job, known, watch, stop, so_far };
        let outcome = copying.through().await;
        let session = copying.session;
        self.keep(session, &outcome).await;
        outcome
    }

    async fn try_to_list(
        &mut self,
        target: &RelativeName,
        stop: &mut Stop,
    ) -> Result<TargetTree, Failure> {
        let mut session = self.session(stop).await?;
        let listed = tokio::select! {
            listed = session.list_tree(target.clone()) => listed,
            () = stop.pulled() => Err(stopped()),
        };
        self.keep(session, &listed).await;
        listed
    }

    /// A session over which something has failed is of no more use.
    async fn keep<T>(&mut self, session: Session, ended: &Result<T, Failure>) {
        match ended {
            Ok(_) => self.session = Some(session),
            Err(failure) => session.part(failure).await,
        }
    }

    /// The session that is left of the copy before, or a new one.
    async fn session(&mut self, stop: &mut Stop) -> Result<Session, Failure> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let session = tokio::select! {
            session = Session::open(self.dial.clone(), &self.options) => session?,
            () = stop.pulled() => return Err(stopped()),
        };
        self.connected = true;
        Ok(session)
    }

    /// Sends the rest of a stream that an earlier run has left whole in its breakpoint files, if
    /// the server still waits for it.
    async fn take_up(
        &mut self,
        job: &Job,
        watch: &mut dyn Watch,
        stop: &mut Stop,
        so_far: &mut SoFar,
    ) -> Result<(), Failure> {
        let options = &self.options;
        let Some(left) = left::find(options, job.text()).await else { return Ok(()) };
        let taken_up = Session::take_up(self.dial.clone(), options, left, watch, stop);
        match Box::pin(taken_up).await? {
            TakenUp::Carried(carried) => {
                self.connected = true;
                so_far.summary.add(carried.moment, carried.applied.bytes);
                so_far.proved = Some(Instant::now());
            }
            TakenUp::Refused(failure) => {
                tracing::warn!("what an earlier run had left is of no more use: {failure}");
            }
        }
        Ok(())
    }

    /// What is to follow a failure; `None` where nothing is.
    fn next(&self, failure: &Failure, attempts: &mut Attempts, stop: &Stop) -> Option<Next> {
        // A server that was never reached is most likely a mistake of whoever typed its name.
        let is_last = stop.is_pulled() || !self.connected || self.dial.is_for_one_session();
        (!is_last).then(|| attempts.after(failure, Instant::now()))
    }

    /// Waits until it is time for another attempt, or fails where there is to be none.
    async fn wait(
        &self,
        failure: Failure,
        next: Option<Next>,
        stop: &mut Stop,
    ) -> Result<(), Failure> {
        let Some(Next::Again { wait, quiet }) = next else { return Err(failure) };
        tell(&failure, wait, quiet);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = stop.pulled() => Err(failure),
        }
    }
}

/// Says why there will be another attempt. What our own last one has left behind is no news.
fn tell(failure: &Failure, wait: Duration, quiet: bool) {
    let seconds = wait.as_secs_f32();
    if quiet {
        tracing::debug!(%failure, "busy, tried again in {seconds:.1} s");
    } else {
        tracing::warn!("interrupted, tried again in {seconds:.1} s: {failure}");
    }
}

/// Keeps clients apart that lose the same server; a machine without chance has to do without.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_default()
}
