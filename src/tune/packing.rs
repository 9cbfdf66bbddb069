//! zstd by level and by the number of workers, as the engine's workers use it.
//!
//! A context for each, kept; a block at a time; a block that does not shrink counts as it is, for
//! it would travel raw. Reading and sending go on beside it in a transfer and take cores of their
//! own, so that a transfer on few cores packs less than this.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use zstd_safe::{CCtx, CParameter};

use super::measured::Level;
use super::rig::{Deadline, Rig};
use crate::units::Bytes;

/// All that `--compress auto` may use, and some that only patience may.
pub(super) const LEVELS: [i32; 11] = [1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 19];

/// The time of one level, as a part of that of a whole figure: there are many.
const SHARE: u32 = 4;

/// What the workers have packed together.
#[derive(Debug, Default)]
struct Work {
    next: AtomicUsize,
    plain_bytes: AtomicU64,
    packed_bytes: AtomicU64,
    /// The first thing that went wrong.
    refused: Mutex<Option<io::Error>>,
}

/// One level, with all workers.
pub(super) fn level(rig: &Rig, level: i32) -> io::Result<Level> {
    let (bytes_per_second, ratio) = pack(rig, level, rig.settings.workers)?;
    Ok(Level { level, bytes_per_second, ratio })
}

/// The fastest level, with so many workers.
pub(super) fn workers(rig: &Rig, workers: usize) -> io::Result<Bytes> {
    pack(rig, LEVELS[0], workers).map(|(rate, _ratio)| rate)
}

/// The numbers of workers that are worth comparing: half of all may be enough where two share a
/// core's arithmetic.
pub(super) fn counts(rig: &Rig) -> Vec<usize> {
    let all = rig.settings.workers.max(1);
    let mut counts = vec![all.div_ceil(4), all.div_ceil(2), all];
    counts.dedup();
    counts
}

/// The rate, and bytes of the sample for one that is left.
fn pack(rig: &Rig, level: i32, workers: usize) -> io::Result<(Bytes, f64)> {
    let work = Work::default();
    let deadline = rig.begin_for(rig.time / SHARE);
    let started = Instant::now();
    thread::scope(|scope| {
        for worker in 0..workers.max(1) {
            let (work, deadline) = (&work, &deadline);
            scope.spawn(move || {
                pin(rig, worker);
                if let Err(code) = work.share(rig, level, deadline) {
                    let error = io::Error::other(zstd_safe::get_error_name(code));
                    let mut refused = work.refused.lock().unwrap_or_else(PoisonError::into_inner);
                    refused.get_or_insert(error);
                }
            });
        }
    });
    let taken = started.elapsed();
    if let Some(error) = work.refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let (plain, packed) = (work.plain_bytes.into_inner(), work.packed_bytes.into_inner());
    Ok((Bytes(plain).per_second(taken), ratio(plain, packed)))
}

/// As the engine's workers are: one to a core, round and round.
fn pin(rig: &Rig, worker: usize) {
    let cores = &rig.settings.cores;
    if let Some(&core) = cores.get(worker % cores.len().max(1))
        && let Err(error) = sys::cpu::pin_current_thread(core)
    {
        tracing::warn!(core, %error, "a worker is not pinned");
    }
}

impl Work {
    /// Packs one block after the other, one at least.
    fn share(&self, rig: &Rig, level: i32, deadline: &Deadline) -> Result<(), usize> {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::ChecksumFlag(false))?;
        context.set_parameter(CParameter::CompressionLevel(level))?;
        let block_bytes = rig.settings.block_bytes.as_usize();
        let mut block = vec![0; block_bytes];
        // One byte of room less than the block: what does not shrink does not fit, and goes raw.
        let mut room = vec![0; block_bytes - 1];
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            rig.sample.fill(number.wrapping_mul(block_bytes), &mut block);
            let length = context.compress2(&mut room[..], &block).unwrap_or(block_bytes);
            self.plain_bytes.fetch_add(block_bytes as u64, Ordering::Relaxed);
            self.packed_bytes.fetch_add(length as u64, Ordering::Relaxed);
            if deadline.is_over() {
                return Ok(());
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn ratio(plain: u64, packed: u64) -> f64 {
    if packed == 0 { 1.0 } else { plain as f64 / packed as f64 }
}
