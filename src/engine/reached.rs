//! How far a stream is, with the CRC32 of all before that place: one stage writes it, and whoever
//! keeps records reads it when it likes.
//!
//! Place and CRC32 must be of the same moment, or a record would prove another stream. The stage
//! never waits for a reader (Boehm, "Can seqlocks get along with programming language memory
//! models?", MSPC 2012): it counts up before and behind each change, and a reader that saw the
//! count odd or changed reads again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::breakpoint::keeper::Reached;
use crate::breakpoint::record::Mark;
use crate::units::{Sequence, StreamOffset, TransferId};

/// What one thread writes and others read. Says transfer 0, which no transfer has, until then.
#[derive(Debug, Default)]
pub(super) struct ReachedCell {
    /// Odd while the rest is being changed.
    writes: AtomicU64,
    transfer: AtomicU32,
    to: AtomicU64,
    crc32: AtomicU32,
    next_frame: AtomicU64,
}

impl ReachedCell {
    /// To be called by one thread only.
    pub fn set(&self, transfer: TransferId, reached: Reached) {
        let Reached { mark, next_frame } = reached;
        let writes = self.writes.load(Ordering::Relaxed);
        self.writes.store(writes + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.transfer.store(transfer.0, Ordering::Relaxed);
        self.to.store(mark.to.0, Ordering::Relaxed);
        self.crc32.store(mark.crc32, Ordering::Relaxed);
        self.next_frame.store(next_frame.0, Ordering::Relaxed);
        self.writes.store(writes + 2, Ordering::Release);
    }

    pub fn get(&self) -> (TransferId, Reached) {
        loop {
            let before = self.writes.load(Ordering::Acquire);
            let transfer = TransferId(self.transfer.load(Ordering::Relaxed));
            let to = StreamOffset(self.to.load(Ordering::Relaxed));
            let crc32 = self.crc32.load(Ordering::Relaxed);
            let next_frame = Sequence(self.next_frame.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.writes.load(Ordering::Relaxed) == before {
                return (transfer, Reached { mark: Mark { to, crc32 }, next_frame });
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(number: u32) -> Reached {
        let mark = Mark { to: StreamOffset(u64::from(number) << 20), crc32: !number };
        Reached { mark, next_frame: Sequence(number.into()) }
    }

    #[test]
    fn a_reader_never_sees_the_place_of_one_moment_with_the_crc_of_another() {
        const LAST: u32 = 300_000;
        let cell = ReachedCell::default();
        assert_eq!(cell.get(), (TransferId(0), Reached::default()));
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=LAST).for_each(|n| cell.set(TransferId(n), reached(n))));
            let mut last = 0;
            while last < LAST {
                let (TransferId(number), seen) = cell.get();
                assert!(number >= last, "it went back from {last} to {number}");
                assert!(number == 0 || seen == reached(number), "{number}: {seen:?}");
                last = number;
            }
        });
    }
}
