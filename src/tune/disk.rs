//! The disk that a spool would lie on: blocks written past the page cache, as `spool` writes them.
//!
//! The file loses its name before its first block, and its folder is one that the next start with
//! the same `--spool` would clear away: whatever ends this process, nothing stays.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sys::arena::{Arena, PAGE_BYTES};
use sys::backend::Backend;
use sys::direct::{BulkFile, space, sync};
use sys::loan::{Loan, Pool};
use sys::port::{Act, Completion, Port, Request};
use sys::wake::Waker;

use super::rig::Rig;
use crate::engine::settings::file_backend;
use crate::spool::folder::Folder;
use crate::units::Bytes;

/// The longest file; then its blocks are written again from the first.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// The part of the free room that it takes at most.
const FREE_SHARE: u64 = 4;

/// Writes that are in flight at once.
const DEPTH: u32 = 8;

/// What the disk takes in a second until it is durable there.
pub(super) fn spool(rig: &Rig, parent: &Path) -> io::Result<Bytes> {
    let block_bytes = rig.settings.block_bytes.0;
    let room = space(parent)?.available / FREE_SHARE;
    let blocks = room.min(FILE_BYTES_MAX) / block_bytes;
    if blocks < u64::from(DEPTH) {
        let text = format!("{} of room are too little to measure with", Bytes(room));
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    let folder = Folder::create(parent)?;
    let path = folder.path().join("segment-00000001");
    let file = BulkFile::create(&path, blocks * block_bytes)?;
    fs::remove_file(&path)?;
    drop(folder);
    write(rig, file_backend(rig.settings.backend, parent)?, &file, blocks)
}

fn write(rig: &Rig, backend: Backend, file: &BulkFile, blocks: u64) -> io::Result<Bytes> {
    let block_bytes = rig.settings.block_bytes.as_usize();
    let arena = Arena::new(block_bytes + PAGE_BYTES, DEPTH)?;
    let waker = Arc::new(Waker::new()?);
    let pool = Pool::split(&arena, 1, &waker).remove(0);
    let mut slots: Vec<Arc<Loan>> = Vec::new();
    while let Some([mut loan]) = pool.take() {
        rig.sample.fill(slots.len() * block_bytes, &mut loan[PAGE_BYTES..PAGE_BYTES + block_bytes]);
        slots.push(Arc::new(loan));
    }
    let mut port = Port::new(backend, &arena, &waker, DEPTH)?;
    let deadline = rig.begin();
    let started = Instant::now();
    let (mut next, mut in_flight, mut written) = (0, 0, 0);
    // Each slot is one operation, with its number as the key.
    let mut idle: Vec<u32> = (0..DEPTH).collect();
    let mut completions = Vec::new();
    while in_flight > 0 || !deadline.is_over() {
        while !deadline.is_over()
            && let Some(key) = idle.pop()
        {
            let range = PAGE_BYTES..PAGE_BYTES + block_bytes;
            let at = next % blocks * block_bytes as u64;
            let act = Act::WriteAt(Arc::clone(&slots[key as usize]), range, at);
            port.submit(Request { key, fd: Arc::clone(file.fd()), act })?;
            next += 1;
            in_flight += 1;
        }
        if in_flight == 0 {
            break;
        }
        port.wait(None, &mut completions)?;
        for completion in completions.drain(..) {
            if let Completion::Written { key, result } = completion {
                written += result? as u64;
                in_flight -= 1;
                idle.push(key);
            }
        }
    }
    sync(file.fd())?;
    Ok(Bytes(written).per_second(started.elapsed()))
}
