//! `zferry replicate`: makes a target hold a snapshot of a dataset, by the fewest streams.
//!
//! Lists both sides, plans by guid, and carries step after step over one session. If that session
//! is lost, it begins again with a new one, and goes on from what the target has. Nothing is ever
//! rolled back on either side, and nothing is destroyed but, if the operator says so, the remains
//! of a receive that can never be finished. Snapshots are held until the target has them.

use std::time::{Duration, Instant};

use super::copying::{Copying, SoFar};
use super::job::{Job, Outcome, blocking};
use super::left;
use super::retry::{Attempts, Next};
use super::send::stopped;
use super::session::{Session, TakenUp};
use super::watch::{Noting, Stop, Summary, Watch};
use super::{Dial, Options};
use crate::error::Failure;
use crate::zfs::Zfs;

/// Makes the target hold what is wanted.
pub async fn replicate(
    zfs: &Zfs,
    job: &Job,
    dial: Dial,
    options: &Options,
    watch: &mut dyn Watch,
    stop: &mut Stop,
) -> Result<Outcome, Failure> {
    // Asked first: a mistyped source should not cost a connection, nor an unreachable server a
    // snapshot.
    blocking(zfs, job, |zfs, job| zfs.source_state(&job.source)).await?;
    let begun = Instant::now();
    let mut so_far = SoFar::new(zfs, job);
    let mut attempts = Attempts::new(options.retry_for, seed(), begun);
    let mut watch = Noting::new(watch);
    loop {
        let ended = attempt(zfs, job, &dial, options, &mut watch, stop, &mut so_far).await;
        let failure = match ended {
            Ok(Outcome::Done(reached, summary)) => {
                return Ok(Outcome::Done(reached, Summary { taken: begun.elapsed(), ..summary }));
            }
            Ok(outcome) => return Ok(outcome),
            Err(failure) => failure,
        };
        watch.end();
        attempts.moved(watch.progress(), so_far.proved);
        // A server that was never reached is most likely a mistake of whoever typed its name.
        if stop.is_pulled() || !so_far.connected || dial.is_for_one_session() {
            return Err(failure);
        }
        let Next::Again { wait, quiet } = attempts.after(&failure, Instant::now()) else {
            return Err(failure);
        };
        tell(&failure, wait, quiet);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.pulled() => return Err(failure),
        }
    }
}

/// One session, from its first connection to the goal or to its end.
async fn attempt(
    zfs: &Zfs,
    job: &Job,
    dial: &Dial,
    options: &Options,
    watch: &mut dyn Watch,
    stop: &mut Stop,
    so_far: &mut SoFar,
) -> Result<Outcome, Failure> {
    take_up(job, dial, options, watch, stop, so_far).await?;
    let session = tokio::select! {
        session = Session::open(dial.clone(), options) => session?,
        () = stop.pulled() => return Err(stopped()),
    };
    so_far.connected = true;
    let mut copying = Copying { session, zfs, job, watch, stop, so_far };
    let outcome = copying.through().await;
    match outcome {
        Ok(_) => copying.session.close().await,
        Err(_) => copying.session.part().await,
    }
    outcome
}

/// Sends the rest of a stream that an earlier run has left whole in its breakpoint files, if the
/// server still waits for it.
async fn take_up(
    job: &Job,
    dial: &Dial,
    options: &Options,
    watch: &mut dyn Watch,
    stop: &mut Stop,
    so_far: &mut SoFar,
) -> Result<(), Failure> {
    let Some(left) = left::find(options, job.text()).await else { return Ok(()) };
    match Box::pin(Session::take_up(dial.clone(), options, left, watch, stop)).await? {
        TakenUp::Carried(carried) => {
            so_far.connected = true;
            so_far.summary.add(carried.moment, carried.applied.bytes);
            so_far.proved = Some(Instant::now());
        }
        TakenUp::Refused(failure) => {
            tracing::warn!("what an earlier run had left is of no more use: {failure}");
        }
    }
    Ok(())
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
