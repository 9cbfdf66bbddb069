//! The folder that the records of all transfers of a host lie in: `DIR/transfers` of `--state DIR`.
//!
//! For each transfer a record file and its names. Several processes may share the folder: a file
//! that is locked belongs to one that runs, and is left alone. What transfers have left behind
//! stays for whoever looks and for the next run of the same job, up to a number.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use sys::backend::Backend;

use super::fault;
use super::handover::Handover;
use super::names::{Names, printable};
use crate::breakpoint::identity::{BootId, FileId, RingSlots};
use crate::breakpoint::record::{Cargo, Progress, Record, Role, State};
use crate::breakpoint::recovery::recover;
use crate::listing::{TargetDataset, TargetState};
use crate::protocol::message::InterruptedAt;

/// How many record files of transfers that do not run are kept; 17 MiB at most.
const KEPT_MAX: usize = 64;

/// A record file is 256 KiB; what is longer is none of ours, and what is behind is not read.
const RECORDS_BYTES_MAX: u64 = 512 << 10;

/// The folder, open to any number of transfers.
#[derive(Clone, Debug)]
pub struct Transfers {
    path: PathBuf,
    pub(super) backend: Backend,
    pub(super) boot: BootId,
    /// That records cannot be kept was said.
    told: Arc<AtomicBool>,
}

/// A transfer that has records.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its record file.
    pub path: PathBuf,
    /// What it is about; `None` where that is lost or was not written yet.
    pub names: Option<Names>,
    /// Whether the transfer runs: somebody has the file.
    pub running: bool,
    /// What counts in it.
    pub newest: Option<Record>,
    /// Whether anything was ever written to it.
    blank: bool,
    written: Option<SystemTime>,
}

/// What earlier transfers of a job have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The highest epoch that was given out.
    pub epoch: u32,
    /// Where the last one was interrupted that carried the same.
    pub interrupted_at: Option<InterruptedAt>,
}

impl Transfers {
    /// Makes the folder below `state` where there is none, and removes from it what is of no use
    /// to anybody: transfers that are finished or never began, and the oldest beyond a number.
    pub fn open(state: &Path, backend: Backend) -> io::Result<Transfers> {
        let path = transfers(state);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = BootId::parse(&boot).unwrap_or_default();
        let folder = Transfers { path, backend, boot, told: Arc::default() };
        folder.clean()?;
        Ok(folder)
    }

    /// Where the records of `file` stand.
    pub(super) fn records_of(&self, file: FileId) -> PathBuf {
        self.path.join(format!("{file}.breakpoint"))
    }

    /// Says once that a transfer goes on without records; all other times are only for the curious.
    pub(super) fn tell(&self, error: &io::Error) {
        let folder = self.path.display();
        if self.told.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "a transfer goes on without records");
        } else {
            tracing::warn!(
                "no breakpoint records can be kept in {folder}: {error}; transfers go on without"
            );
        }
    }

    /// What is left of earlier transfers of a job, of which one may have carried `cargo`. What
    /// cannot be read tells nothing.
    pub fn past(&self, role: Role, job: &str, cargo: Cargo) -> Past {
        let job = printable(job);
        let of_job = |entry: &Entry| entry.is_of(role, &job);
        let entries = entries(&self.path).unwrap_or_default().into_iter().filter(of_job);
        let records: Vec<Record> = entries.filter_map(|entry| entry.newest).collect();
        let epoch = records.iter().map(|record| record.job.epoch).max().unwrap_or(0);
        let same = records.iter().filter(|record| record.job.cargo.is_part_of_same(cargo));
        let begun = same.filter(|record| record.progress.was_interrupted());
        let last = begun.max_by_key(|record| record.job.epoch);
        Past { epoch, interrupted_at: last.map(interrupted_at) }
    }

    /// Removes what earlier transfers of a job have left: a newer one stands in their place.
    pub(super) fn supersede(&self, role: Role, job: &str, but: FileId) -> io::Result<()> {
        let (job, ours) = (printable(job), self.records_of(but));
        for path in record_files(&self.path)? {
            let named = Names::read(&Names::beside(&path));
            let same = named.is_ok_and(|names| names.role == role && names.job == job);
            if same && path != ours {
                remove_unless_open(&path);
            }
        }
        Ok(())
    }

    /// Removes what transfers of a job have left whose snapshot the target was seen to hold.
    pub fn forget_arrived(&self, role: Role, job: &str, target: &TargetState) {
        let job = printable(job);
        self.forget_held(role, |named| (named == job).then_some(target));
    }

    /// The same for jobs that are called as the datasets are, of which there may be many.
    pub fn forget_arrived_below(&self, role: Role, datasets: &[TargetDataset]) {
        let jobs = datasets.iter().map(|one| (printable(one.dataset.as_str()), &one.state));
        let jobs: HashMap<String, &TargetState> = jobs.collect();
        self.forget_held(role, |named| jobs.get(named).copied());
    }

    fn forget_held<'a>(&self, role: Role, target: impl Fn(&str) -> Option<&'a TargetState>) {
        for entry in entries(&self.path).unwrap_or_default() {
            let Some(named) = entry.names.as_ref().filter(|named| named.role == role) else {
                continue;
            };
            let cargo = entry.newest.map(|record| record.job.cargo);
            let Some(Cargo::Snapshot { to, .. }) = cargo else { continue };
            let Some(TargetState::Present { snapshots, .. }) = target(&named.job) else { continue };
            if snapshots.iter().any(|held| held.guid == to) {
                remove_unless_open(&entry.path);
            }
        }
    }

    /// The record files of transfers that do not run: those of a job, or of all; the newest of each
    /// job last.
    pub(super) fn idle(&self, role: Role, job: Option<&str>) -> Vec<(PathBuf, Names)> {
        let job = job.map(printable);
        let mut idle = entries(&self.path).unwrap_or_default();
        idle.retain(|entry| {
            let named = |names: &Names| {
                names.role == role && job.as_ref().is_none_or(|job| names.job == *job)
            };
            !entry.running && entry.names.as_ref().is_some_and(named)
        });
        idle.sort_by_key(|entry| entry.newest.map(|record| record.job.epoch));
        idle.into_iter().filter_map(|entry| Some((entry.path, entry.names?))).collect()
    }

    fn clean(&self) -> io::Result<()> {
        let idle = entries(&self.path)?.into_iter().filter(|entry| !entry.running);
        let (useless, mut kept): (Vec<_>, Vec<_>) = idle.partition(Entry::is_useless);
        kept.sort_by_key(|entry| std::cmp::Reverse(entry.written));
        let beyond = kept.iter().skip(KEPT_MAX);
        useless.iter().chain(beyond).for_each(|entry| remove_unless_open(&entry.path));
        self.remove_lonely_names()
    }

    /// Names whose record file is gone: it is made before them and removed before them.
    fn remove_lonely_names(&self) -> io::Result<()> {
        for file in fs::read_dir(&self.path)? {
            let path = file?.path();
            // What was not put in its place any more has further ends.
            let parts = path.file_name().and_then(|name| name.to_str()?.split_once('.'));
            let is_names = parts.is_some_and(|(id, end)| {
                ["names", "session"].iter().any(|names| end.starts_with(names))
                    && FileId::parse(id).is_some_and(|id| !self.records_of(id).exists())
            });
            if is_names {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

impl Entry {
    fn is_of(&self, role: Role, job: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.role == role && names.job == job)
    }

    /// Nothing of it flowed, or all of it arrived.
    fn is_useless(&self) -> bool {
        let applied = |record: &Record| record.progress.state == State::Applied;
        self.names.is_none() || self.blank || self.newest.as_ref().is_some_and(applied)
    }
}

impl Cargo {
    /// Whether both carry the same snapshot, or a part of it.
    fn is_part_of_same(self, other: Cargo) -> bool {
        match (self, other) {
            (Cargo::Pipe, Cargo::Pipe) => true,
            (Cargo::Snapshot { to, .. }, Cargo::Snapshot { to: other, .. }) => to == other,
            _ => false,
        }
    }
}

impl Progress {
    fn was_interrupted(&self) -> bool {
        self.state != State::Applied && self.acknowledged.to.0 > 0
    }
}

fn interrupted_at(record: &Record) -> InterruptedAt {
    let acknowledged = record.progress.acknowledged;
    let (offset, crc32) = (acknowledged.to, acknowledged.crc32);
    InterruptedAt { epoch: record.job.epoch, offset, crc32 }
}

/// All transfers that have records in the state folder `state`, the newest first; none where
/// nobody has kept any there yet. Changes nothing.
pub fn list(state: &Path) -> io::Result<Vec<Entry>> {
    fs::metadata(state)?;
    let mut entries = match entries(&transfers(state)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.written));
    Ok(entries)
}

/// Removes a record file that is ours or that nobody has, and its names: behind it, so that no
/// record is ever there without them.
pub(super) fn remove(records: &Path) {
    remove_stream_of(records);
    let removed = fs::remove_file(records);
    fault::reach("file-removed");
    let _ = fs::remove_file(Handover::beside(records));
    let removed = removed.and_then(|()| fs::remove_file(Names::beside(records)));
    fault::reach("names-removed");
    if let Err(error) = removed {
        tracing::debug!(%error, "remove {}", records.display());
    }
}

fn remove_unless_open(records: &Path) {
    // The lock is that of the one who writes the file.
    let Ok(file) = File::open(records) else { return };
    if file.try_lock().is_ok() {
        remove(records);
    }
}

/// Removes the breakpoint files that belong to a record file.
fn remove_stream_of(records: &Path) {
    if let Ok(names) = Names::read(&Names::beside(records)) {
        names.remove_stream();
    }
}

fn transfers(state: &Path) -> PathBuf {
    state.join("transfers")
}

fn record_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.map(|file| Ok(file?.path()));
    files.filter(|path| path.as_ref().map_or(true, |path| file_id(path).is_some())).collect()
}

pub(super) fn file_id(path: &Path) -> Option<FileId> {
    FileId::parse(path.file_name()?.to_str()?.strip_suffix(".breakpoint")?)
}

fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    Ok(record_files(folder)?.iter().filter_map(|path| entry(path).ok()).collect())
}

/// One that is removed at this moment is none.
fn entry(path: &Path) -> io::Result<Entry> {
    let file = File::open(path)?;
    // A moment of a lock that others share: whoever has the file has it alone.
    let running = file.try_lock_shared().is_err();
    let _ = file.unlock();
    let mut image = Vec::new();
    (&file).take(RECORDS_BYTES_MAX).read_to_end(&mut image)?;
    let newest = file_id(path).and_then(|id| recover(&image, RingSlots::STANDARD, id).newest);
    Ok(Entry {
        path: path.to_owned(),
        names: Names::read(&Names::beside(path)).ok(),
        running,
        newest,
        blank: image.iter().all(|&byte| byte == 0),
        written: file.metadata()?.modified().ok(),
    })
}

#[cfg(test)]
mod tests;
