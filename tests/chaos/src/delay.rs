//! What comes in on one way of a connection, and when it may go on.
//!
//! Stands before everything that the plan does to bytes. Where the way is long, bytes are taken as
//! they come and wait here for their time, in order, so that a delay costs no throughput; only the
//! window does, as the buffers of a kernel do. What must never happen here: that a byte is taken
//! before its turn where no delay was asked for, for then whoever is silenced would notice late.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::sleep_until;

/// How much is taken at once.
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// Where the bytes of one way come from.
pub(crate) struct Intake<R> {
    from: R,
    /// What was read before there was an intake.
    early: Vec<u8>,
    delay: Duration,
    /// The most that may be here and not released.
    window_bytes: usize,
    /// What came, and when it may go on: no bytes are the end, an error is one of another kind.
    waiting: VecDeque<(Instant, io::Result<Vec<u8>>)>,
    /// Of those that came, how many were not released.
    held_bytes: usize,
    /// Nothing comes after what is waiting.
    over: bool,
}

impl<R: AsyncRead + Unpin> Intake<R> {
    /// Takes from `from`, after what was read `early`, without delay.
    pub fn new(from: R, early: Vec<u8>) -> Intake<R> {
        Intake {
            from,
            early,
            delay: Duration::ZERO,
            window_bytes: usize::MAX,
            waiting: VecDeque::new(),
            held_bytes: 0,
            over: false,
        }
    }

    /// What comes from now on waits so long.
    pub fn delay_by(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// No more than so many bytes, at least 1, are here at a time.
    pub fn hold_at_most(&mut self, bytes: usize) {
        self.window_bytes = bytes;
    }

    /// The next bytes, `clear` at most; none at the end. All that was given out before is released.
    pub async fn take(&mut self, clear: usize) -> io::Result<Vec<u8>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(clear);
            return Ok(self.early.drain(..count).collect());
        }
        self.held_bytes = self.waiting_bytes();
        if self.waiting.is_empty() && self.delay.is_zero() {
            return self.read(clear.min(PIECE_BYTES)).await;
        }
        loop {
            match self.waiting.front() {
                Some(&(due, _)) if due <= Instant::now() => return self.release(clear),
                Some(&(due, _)) => {
                    self.meanwhile(sleep_until(due.into())).await;
                }
                None => self.take_in().await,
            }
        }
    }

    /// Goes on taking what comes while `work` is done, where there is a delay.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.fill() => match never {},
        }
    }

    async fn fill(&mut self) -> Infallible {
        loop {
            let full = self.held_bytes >= self.window_bytes;
            if full || self.over || self.delay.is_zero() {
                pending::<()>().await;
            }
            self.take_in().await;
        }
    }

    /// Waits for the next piece. Dropping the future loses nothing.
    async fn take_in(&mut self) {
        let room = self.window_bytes.saturating_sub(self.held_bytes);
        let came = self.read(room.min(PIECE_BYTES)).await;
        let count = came.as_ref().map_or(0, Vec::len);
        self.held_bytes += count;
        self.over = count == 0;
        self.waiting.push_back((Instant::now() + self.delay, came));
    }

    async fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; most];
        let count = self.from.read(&mut piece).await?;
        piece.truncate(count);
        Ok(piece)
    }

    /// The first that waits, which is due; what is beyond `clear` goes on waiting.
    fn release(&mut self, clear: usize) -> io::Result<Vec<u8>> {
        let Some((due, piece)) = self.waiting.pop_front() else { return Ok(Vec::new()) };
        let mut piece = piece?;
        if piece.len() > clear {
            let rest = piece.split_off(clear);
            self.waiting.push_front((due, Ok(rest)));
        }
        Ok(piece)
    }

    fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|(_, piece)| piece.as_ref().map_or(0, Vec::len)).sum()
    }
}
