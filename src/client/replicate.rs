//! `zferry replicate`: makes a target hold a snapshot of a dataset, by the fewest streams.
//!
//! Lists both sides, plans by guid, and carries step after step over one session. Nothing is ever
//! rolled back on either side, and nothing is destroyed but, if the operator says so, the remains
//! of a receive that can never be finished. Snapshots are held until the target has them.

use super::carrier::Carrier;
use super::job::{Job, blocking};
use super::watch::{Held, Stop, Watch};
use super::{Dial, Options};
use crate::error::Failure;
use crate::zfs::Zfs;

/// Makes the target hold what is wanted.
pub async fn replicate(
    zfs: &Zfs,
    job: &Job,
    dial: &Dial,
    options: Options,
    watch: &mut dyn Watch,
    stop: &mut Stop,
) -> Result<Held, Failure> {
    // Asked first: a mistyped source should not cost a connection, nor an unreachable server a
    // snapshot.
    blocking(zfs, job, |zfs, job| zfs.source_state(&job.source)).await?;
    let mut carrier = Carrier::new(zfs, dial, options);
    let held = carrier.copy(job, None, watch, stop).await;
    carrier.close().await;
    held
}
