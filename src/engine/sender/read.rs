//! Source -> block: fills slots from the pipe of `zfs send`.
//!
//! First on the sender's way. Exactly one read is in flight, straight into the block that is
//! being filled, so nothing is copied twice and nothing can be reordered. `zfs` writes a 312-byte
//! record header and then the payload: a short read is no event, it only moves the mark. A block
//! goes on when it is full, at the end, or when the source has been silent for `flush_after`. Its
//! CRC is taken here, read by read: the bytes are in this core's cache now and never again. On the
//! splice lane nothing is read: the pages of the pipe move into bays.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use sys::bay::{Bay, Bays};
use sys::loan::{Loan, Pool};
use sys::port::{Act, Completion, Port, Request};

use super::compress::{Plain, seal};
use super::send::{Inbox, ToSend};
use crate::engine::block::{Block, Frame, HEADROOM, Place};
use crate::engine::fault::{Fault, advance};
use crate::engine::halt::Halt;
use crate::engine::progress::Progress;
use crate::protocol::frame::Codec;
use crate::units::{Sequence, StreamOffset, TransferId};

/// A stream to be carried.
#[derive(Debug)]
pub(super) struct Job {
    pub transfer: TransferId,
    pub epoch: u32,
    pub source: OwnedFd,
    pub progress: Arc<Progress>,
}

/// The stage.
pub(super) struct Reader {
    pub port: Port,
    pub room: Room,
    pub jobs: Receiver<Job>,
    pub blocks: Sender<Plain>,
    pub send: Inbox,
    pub halt: Arc<Halt>,
    pub codec: Codec,
    pub block_bytes: usize,
    pub flush_after: Duration,
    pub next: Sequence,
}

/// Where blocks are filled.
pub(super) enum Room {
    Slots(Pool),
    Bays(Bays),
}

/// What one block is filled into.
enum Berth {
    Slot(Loan),
    Bay(Bay),
}

/// How the filling of one block ended.
struct Filled {
    berth: Berth,
    length: usize,
    crc: crc32fast::Hasher,
    at_end: bool,
}

type Ended = (Berth, std::io::Result<usize>);

const READ: u32 = 0;

impl Reader {
    /// Carries stream after stream until the engine ends.
    pub fn run(mut self) -> Result<(), Fault> {
        while let Some(job) = self.next_job()? {
            self.carry(job)?;
        }
        Ok(())
    }

    fn next_job(&mut self) -> Result<Option<Job>, Fault> {
        loop {
            if self.halt.is_on() {
                return Ok(None);
            }
            match self.jobs.try_recv() {
                Ok(job) => return Ok(Some(job)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => drop(self.wait(None, StreamOffset(0))?),
            }
        }
    }

    fn carry(&mut self, job: Job) -> Result<(), Fault> {
        let Job { transfer, epoch, source, progress } = job;
        let source = Arc::new(source);
        let mut offset = StreamOffset(0);
        let mut at_end = false;
        while !at_end {
            let Some((berth, spare)) = self.berth()? else { return Ok(()) };
            let Some(filled) = self.fill(&source, berth, offset)? else { return Ok(()) };
            at_end = filled.at_end;
            if filled.length == 0 {
                break;
            }
            progress.add_read(filled.length);
            let place = Place { transfer, epoch, sequence: self.next, offset };
            self.next = self.next.next();
            offset = advance(offset, filled.length);
            self.pass(place, filled, spare);
        }
        self.send.put(ToSend::Close { transfer, after: self.next, total: offset });
        Ok(())
    }

    /// Sends a block on its way.
    fn pass(&self, place: Place, filled: Filled, spare: Option<Loan>) {
        let Filled { berth, length, crc, .. } = filled;
        // Of bare blocks nothing was hashed.
        let crc32 = crc.finalize();
        match (berth, spare) {
            (Berth::Bay(bay), _) => {
                let header = place.header(self.codec, length, crc32);
                self.send.put(ToSend::Frame(Frame::in_bay(header, bay)));
            }
            // Workers that have ended have said why.
            (Berth::Slot(loan), Some(spare)) => {
                let block = Block { place, loan, length, crc32 };
                drop(self.blocks.send(Plain { block, spare }));
            }
            (Berth::Slot(loan), None) => {
                let block = Block { place, loan, length, crc32 };
                self.send.put(ToSend::Frame(seal(block, self.codec)));
            }
        }
    }

    /// All that one block will need, as soon as it is home; `None` at the halt.
    fn berth(&mut self) -> Result<Option<(Berth, Option<Loan>)>, Fault> {
        loop {
            if self.halt.is_on() {
                return Ok(None);
            }
            let taken = match (&self.room, self.codec) {
                (Room::Bays(bays), _) => bays.take().map(|bay| (Berth::Bay(bay), None)),
                (Room::Slots(pool), Codec::Raw | Codec::Bare) => {
                    pool.take().map(|[loan]| (Berth::Slot(loan), None))
                }
                (Room::Slots(pool), Codec::Zstd) => {
                    pool.take().map(|[loan, spare]| (Berth::Slot(loan), Some(spare)))
                }
            };
            if taken.is_some() {
                return Ok(taken);
            }
            self.wait(None, StreamOffset(0))?;
        }
    }

    fn fill(
        &mut self,
        source: &Arc<OwnedFd>,
        berth: Berth,
        offset: StreamOffset,
    ) -> Result<Option<Filled>, Fault> {
        let crc = crc32fast::Hasher::new();
        let mut filled = Filled { berth, length: 0, crc, at_end: false };
        while !filled.at_end && filled.has_room(self.block_bytes) {
            let at = advance(offset, filled.length);
            let act = match filled.berth {
                Berth::Slot(loan) => {
                    Act::Read(loan, HEADROOM + filled.length..HEADROOM + self.block_bytes)
                }
                Berth::Bay(bay) => Act::Draw(bay, self.block_bytes - filled.length),
            };
            let request = Request { key: READ, fd: Arc::clone(source), act };
            self.port.submit(request).map_err(|error| Fault::Source(at, error))?;
            let Some((berth, result)) = self.outcome(filled.length > 0, at)? else {
                return Ok(None);
            };
            filled.berth = berth;
            match result {
                Ok(0) => filled.at_end = true,
                Ok(count) => {
                    filled.grow(count, self.codec);
                    // The next read is armed at once, however short this one was. To leave the
                    // source alone until the pipe should be a quarter full was tried: it halved
                    // the switches of thread at 300 to 900 MB/s, saved 5 % of the CPU, and cost a
                    // fast source a quarter of its throughput, for it met a full pipe.
                }
                // The source was silent for `flush_after`, and the read was called back.
                Err(error) if error.raw_os_error() == Some(ECANCELED) => break,
                Err(error) => return Err(Fault::Source(at, error)),
            }
        }
        Ok(Some(filled))
    }

    /// Waits for the read in flight. Calls it back when the block has bytes that have waited long
    /// enough, or at the halt (`None`).
    fn outcome(&mut self, has_bytes: bool, at: StreamOffset) -> Result<Option<Ended>, Fault> {
        let mut deadline = has_bytes.then(|| Instant::now() + self.flush_after);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if let Some(ended) = self.wait(left, at)? {
                return Ok(Some(ended));
            }
            if self.halt.is_on() {
                // Dropping the port ends the read and brings its slot home.
                return Ok(None);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.port.cancel(READ).map_err(|error| Fault::Source(at, error))?;
                deadline = None;
            }
        }
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        at: StreamOffset,
    ) -> Result<Option<Ended>, Fault> {
        let mut completions = Vec::with_capacity(1);
        self.port.wait(timeout, &mut completions).map_err(|error| Fault::Source(at, error))?;
        Ok(completions.pop().and_then(|completion| match completion {
            Completion::Filled { loan, result, .. } => Some((Berth::Slot(loan), result)),
            Completion::Drawn { bay, result, .. } => Some((Berth::Bay(bay), result)),
            Completion::Sent { .. }
            | Completion::Written { .. }
            | Completion::Released { .. }
            | Completion::Watched { .. } => None,
        }))
    }
}

impl Filled {
    fn has_room(&self, block_bytes: usize) -> bool {
        let is_full = match &self.berth {
            Berth::Slot(_) => false,
            // A bay that cannot be asked goes on as it is.
            Berth::Bay(bay) => !bay.is_empty() && bay.is_full().unwrap_or(true),
        };
        self.length < block_bytes && !is_full
    }

    /// Takes so many bytes more into account, which were read just now.
    fn grow(&mut self, count: usize, codec: Codec) {
        if let Berth::Slot(loan) = &self.berth
            && codec != Codec::Bare
        {
            let start = HEADROOM + self.length;
            self.crc.update(&loan[start..start + count]);
        }
        self.length += count;
    }
}

/// The number of "Operation canceled" on Linux, on every architecture that Rust knows.
const ECANCELED: i32 = 125;
