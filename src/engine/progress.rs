//! How far a transfer is, for whoever looks: counters that stages write and nobody waits for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::reached::ReachedCell;
use crate::breakpoint::keeper::Reached;
use crate::units::{Bytes, StreamOffset, TransferId};

/// Counters of one transfer or one session, each of which only grows, and what waits now.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    sent: AtomicU64,
    waits_for_room: AtomicBool,
    wire: AtomicU64,
    resent: AtomicU64,
    spooled: AtomicU64,
    received: AtomicU64,
    fed: AtomicU64,
    reached: ReachedCell,
}

impl Progress {
    /// Stream bytes that came out of the source.
    pub fn read(&self) -> Bytes {
        Bytes(self.read.load(Ordering::Relaxed))
    }

    /// Stream bytes in the blocks that were given to a connection, by this process or one that it
    /// takes over from; each block counted once.
    pub fn sent(&self) -> StreamOffset {
        StreamOffset(self.sent.load(Ordering::Relaxed))
    }

    /// Whether nothing is under way, and the next block waits for room at the receiver.
    pub fn waits_for_room(&self) -> bool {
        self.waits_for_room.load(Ordering::Relaxed)
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

    /// How far a transfer is, place and CRC32 of the same moment: at the sender what the receiver
    /// has taken, at the receiver what the sink has taken. All zero before its first block.
    pub fn reached(&self, transfer: TransferId) -> Reached {
        let (of, reached) = self.reached.get();
        if of == transfer { reached } else { Reached::default() }
    }

    /// Only by the one stage that knows.
    pub(super) fn set_reached(&self, transfer: TransferId, reached: Reached) {
        self.reached.set(transfer, reached);
    }

    pub(super) fn add_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: Bytes) {
        self.sent.fetch_add(bytes.0, Ordering::Relaxed);
    }

    pub(super) fn set_waits_for_room(&self, waits: bool) {
        self.waits_for_room.store(waits, Ordering::Relaxed);
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
