//! How far a transfer is, for whoever looks: counters that stages write and nobody waits for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::{Bytes, StreamOffset};

/// Counters of one transfer or one session; each only grows.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    wire: AtomicU64,
    resent: AtomicU64,
    spooled: AtomicU64,
    received: AtomicU64,
    fed: AtomicU64,
}

impl Progress {
    /// Stream bytes that came out of the source.
    pub fn read(&self) -> Bytes {
        Bytes(self.read.load(Ordering::Relaxed))
    }

    /// Bytes that the sockets took or gave, headers included.
    pub fn wire(&self) -> Bytes {
        Bytes(self.wire.load(Ordering::Relaxed))
    }

    /// Of the bytes on the wire, those that a lost connection had before; or, at the receiver,
    /// those that were here already.
    pub fn resent(&self) -> Bytes {
        Bytes(self.resent.load(Ordering::Relaxed))
    }

    /// Stream bytes that went to the sockets by way of breakpoint files, or will.
    pub fn spooled(&self) -> Bytes {
        Bytes(self.spooled.load(Ordering::Relaxed))
    }

    /// Stream bytes that have arrived, proved and without a gap.
    pub fn received(&self) -> StreamOffset {
        StreamOffset(self.received.load(Ordering::Relaxed))
    }

    /// Stream bytes that the sink has taken, in order.
    pub fn fed(&self) -> StreamOffset {
        StreamOffset(self.fed.load(Ordering::Relaxed))
    }

    pub(super) fn add_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_wire(&self, bytes: usize) {
        self.wire.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_resent(&self, bytes: usize) {
        self.resent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_spooled(&self, bytes: usize) {
        self.spooled.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_fed(&self, bytes: usize) {
        self.fed.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
