//! Block -> sink: feeds the stream, in order and whole, to the process that takes it.
//!
//! Last on the receiver's way. Pages go into the pipe of `zfs receive` without a copy where the
//! reader is known to copy them itself; small blocks and all other readers get a plain write. A
//! stream that is not whole must never look whole: unless its end was announced and every byte
//! proved, the sink is handed back open, for whoever runs the process to end it first.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use sys::bay::Bay;
use sys::loan::Loan;
use sys::splicer::Splicer;

use super::Event;
use super::arrivals::{Arrivals, Origin};
use super::entrance::{Door, Entrance, Feed};
use super::keep::Shelf;
use super::kept::Kept;
use crate::breakpoint::keeper::Reached;
use crate::breakpoint::prefix::Prefix;
use crate::breakpoint::record::Mark;
use crate::engine::block::{Arrived, Block, Place};
use crate::engine::fault::{Fault, advance};
use crate::engine::halt::Halt;
use crate::engine::progress::Progress;
use crate::protocol::frame::{Codec, Header};
use crate::spool::keeping::Stream;
use crate::spool::left::Found;
use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

/// What the stage is told.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A transfer begins.
    Begin { transfer: TransferId, epoch: u32, entrance: Entrance, kept: Option<Box<KeptStream>> },
    /// A block of it was unpacked, and the window has it; or there is other news to look at.
    Unpacked,
    /// A block of it that travelled raw, to be proved: here, where its bytes go into this core's
    /// cache just before they are copied or lent. A worker would only pull them into another's.
    Raw(Origin, Header, Loan),
    /// The stream was read to its end, and this is what it was.
    End { transfer: TransferId, total: StreamOffset, crc32: u32 },
}

/// How a stream is kept in breakpoint files.
#[derive(Debug)]
pub struct KeptStream {
    /// The files.
    pub stream: Stream,
    /// What a process before this one has left in them: the sink gets that first.
    pub found: Option<Found>,
}

/// A stream that its sink has taken whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Whose stream.
    pub transfer: TransferId,
    /// Its length.
    pub total: StreamOffset,
}

/// The stage.
pub(super) struct Feeder {
    pub deliveries: Receiver<Delivery>,
    pub halt: Arc<Halt>,
    pub report: Box<dyn Fn(Event) + Send>,
    pub arrivals: Arrivals,
    pub feeding: Option<Feeding>,
    pub progress: Arc<Progress>,
    pub block_bytes: Bytes,
    /// Where streams are kept in breakpoint files, and the slots that may be on their way there.
    pub shelf: Option<Shelf>,
    pub slots: VecDeque<Weak<Loan>>,
}

/// The transfer that is being fed.
#[derive(Debug)]
pub(super) struct Feeding {
    transfer: TransferId,
    epoch: u32,
    door: Door,
    /// The end of what came in order.
    arrived: StreamOffset,
    fed: Prefix,
    end: Option<Mark>,
    kept: Option<Kept>,
}

/// A sink that did not get its whole stream: still open, so that its process can be told before it
/// could take the end of the bytes for the end of the stream.
#[derive(Debug)]
pub struct Unfinished(#[allow(dead_code, reason = "held for its drop")] Door);

/// Below this a copy is cheaper than lending a whole slot to the pipe.
const SPLICE_BYTES_MIN: usize = 64 << 10;

/// How often a stage that waits for blocks looks whether the pipe has given slots back.
const RECLAIM_EVERY: Duration = Duration::from_millis(2);

/// How long it sleeps when the pipe holds nothing of ours; the halt is noticed this fast.
const IDLE: Duration = Duration::from_millis(100);

impl Feeder {
    /// Feeds transfer after transfer; gives back the sink of the one that was not whole.
    pub fn run(mut self) -> (Option<Unfinished>, Result<(), Fault>) {
        let ended = self.feed_all();
        (self.feeding.map(|feeding| Unfinished(feeding.door)), ended)
    }

    fn feed_all(&mut self) -> Result<(), Fault> {
        while !self.halt.is_on() {
            let due_soon = self.held() > 0 || self.arrivals.has_untold();
            let patience = match self.catch_up()? {
                true => Duration::ZERO,
                false if due_soon || self.is_behind() => RECLAIM_EVERY,
                false => IDLE,
            };
            let mut quiet = false;
            match self.deliveries.recv_timeout(patience) {
                Ok(delivery) => self.take_in(delivery)?,
                Err(RecvTimeoutError::Timeout) => {
                    quiet = true;
                    self.reclaim()?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while let Some(arrived) = self.arrivals.take() {
                match arrived {
                    Arrived::InSlot(block) => self.feed(block)?,
                    Arrived::InBay(place, bay) => self.feed_bay(place, bay)?,
                }
                self.account(false);
                if self.is_behind() {
                    break;
                }
            }
            self.account(quiet);
            self.finish()?;
        }
        Ok(())
    }

    /// How many of the blocks that were taken still have their slots.
    fn held(&mut self) -> usize {
        if self.shelf.is_none() {
            return self.feeding.as_ref().map_or(0, Feeding::lent);
        }
        self.slots.retain(|slot| slot.strong_count() > 0);
        self.slots.len()
    }

    /// Gives room for as many blocks as the pipe and the files have given slots back for.
    fn account(&mut self, quiet: bool) {
        let held = self.held();
        if self.arrivals.hold(held, quiet) {
            (self.report)(Event::Credit);
        }
    }

    fn take_in(&mut self, delivery: Delivery) -> Result<(), Fault> {
        match delivery {
            Delivery::Begin { transfer, epoch, entrance, kept } => {
                let mut feeding = Feeding::new(transfer, epoch, entrance)?;
                if let Some((kept, shelf)) = kept.zip(self.shelf.clone()) {
                    let KeptStream { stream, found } = *kept;
                    feeding.arrived = found.as_ref().map_or(StreamOffset(0), |found| found.end.to);
                    self.progress.add_received(feeding.arrived.bytes_before().as_usize());
                    let next = self.arrivals.taken();
                    let kept = Kept::begin(stream, found.as_ref(), next, shelf, self.block_bytes);
                    feeding.kept = Some(kept);
                }
                self.feeding = Some(feeding);
                Ok(())
            }
            Delivery::Raw(_, header, loan) if header.codec == Codec::Bare => {
                self.arrivals.put(Block::bare(&header, loan));
                Ok(())
            }
            Delivery::Raw(origin, header, loan) => {
                match Block::prove(header, loan) {
                    Ok(block) => self.arrivals.put(block),
                    Err(fault) => self.arrivals.reject(header.sequence, origin, fault),
                }
                Ok(())
            }
            Delivery::Unpacked => Ok(()),
            Delivery::End { transfer, total, crc32 } => {
                if let Some(feeding) = &mut self.feeding
                    && feeding.transfer == transfer
                {
                    feeding.end = Some(Mark { to: total, crc32 });
                }
                Ok(())
            }
        }
    }

    /// The transfer that a block is the next of: it has arrived, in order.
    fn due(&mut self, place: Place, length: usize) -> Result<&mut Feeding, Fault> {
        let due = self.feeding.as_ref().is_some_and(|feeding| {
            (feeding.transfer, feeding.epoch) == (place.transfer, place.epoch)
                && feeding.arrived == place.offset
        });
        let expected = self.feeding.as_ref().map_or(StreamOffset(0), |feeding| feeding.arrived);
        let (got, got_transfer) = (place.offset, place.transfer);
        let feeding = self.feeding.as_mut().filter(|_| due);
        let feeding = feeding.ok_or(Fault::OutOfPlace { expected, got, got_transfer })?;
        self.progress.add_received(length);
        feeding.arrived = advance(feeding.arrived, length);
        Ok(feeding)
    }

    fn feed_bay(&mut self, place: Place, bay: Bay) -> Result<(), Fault> {
        let (length, halt) = (bay.len(), Arc::clone(&self.halt));
        let feeding = self.due(place, length)?;
        let before = feeding.fed.to();
        feeding.pour(bay, &|| !halt.is_on())?;
        self.note_fed(place.sequence, before);
        Ok(())
    }

    fn feed(&mut self, block: Block) -> Result<(), Fault> {
        let place = block.place;
        let (length, range, crc32) = (block.length, block.range(), block.crc32);
        let (keeps, halt) = (self.shelf.is_some(), Arc::clone(&self.halt));
        let feeding = self.due(place, length)?;
        let loan = match &mut feeding.kept {
            Some(kept) => kept.write(block)?,
            None => Arc::new(block.loan),
        };
        let slot = keeps.then(|| Arc::downgrade(&loan));
        let (is_behind, before) = (feeding.is_behind(), feeding.fed.to());
        if !is_behind {
            feeding.lend(loan, range, crc32, &|| !halt.is_on())?;
        }
        self.slots.extend(slot);
        if !is_behind {
            self.note_fed(place.sequence, before);
        }
        Ok(())
    }

    /// Feeds one block out of the files to a sink that has not got all that came. Whether it did.
    fn catch_up(&mut self) -> Result<bool, Fault> {
        let Some(Feeding { kept: Some(kept), .. }) = &mut self.feeding else { return Ok(false) };
        let Some(read) = kept.read_back()? else { return Ok(false) };
        let Some(feeding) = &mut self.feeding else { return Ok(false) };
        let (halt, before) = (&self.halt, feeding.fed.to());
        feeding.write(read.bytes(), read.frame.crc32, &|| !halt.is_on())?;
        self.note_fed(read.frame.sequence, before);
        self.finish()?;
        Ok(true)
    }

    fn is_behind(&self) -> bool {
        self.feeding.as_ref().is_some_and(Feeding::is_behind)
    }

    /// A block was given to the sink, which had the stream up to `before`. One that waits before a
    /// shut door is not fed, and the one that opens it brings all before it along.
    fn note_fed(&self, sequence: Sequence, before: StreamOffset) {
        let Some(feeding) = &self.feeding else { return };
        let fed = feeding.fed.to().0 - before.0;
        if fed == 0 {
            return;
        }
        self.progress.add_fed(Bytes(fed).as_usize());
        let (mark, next_frame) = (feeding.fed.mark(), sequence.next());
        self.progress.set_reached(feeding.transfer, Reached { mark, next_frame });
    }

    fn reclaim(&mut self) -> Result<(), Fault> {
        match &mut self.feeding {
            Some(Feeding { door: Door::Open { splicer, .. }, fed, .. }) => {
                splicer.reclaim().map_err(|error| Fault::Sink(fed.to(), error))
            }
            _ => Ok(()),
        }
    }

    /// Closes the sink when the whole stream is in it, and every byte of it proved.
    fn finish(&mut self) -> Result<(), Fault> {
        let Some(feeding) = &mut self.feeding else { return Ok(()) };
        let Some(expected) = feeding.end else { return Ok(()) };
        feeding.door.check_end(expected.to)?;
        let Door::Open { splicer, .. } = &mut feeding.door else { return Ok(()) };
        let got = feeding.fed.mark();
        if got.to < expected.to {
            return Ok(());
        }
        if got != expected {
            return Err(Fault::Total { expected, got });
        }
        let total = got.to;
        let halt = &self.halt;
        // Also when the reader has gone without reading to the end: its exit status decides then.
        splicer.drain(|| !halt.is_on()).map_err(|error| Fault::Sink(total, error))?;
        if halt.is_on() {
            return Ok(());
        }
        let transfer = feeding.transfer;
        self.feeding = None;
        self.account(true);
        self.arrivals.end();
        (self.report)(Event::Fed(Fed { transfer, total }));
        Ok(())
    }
}

impl Feeding {
    fn new(transfer: TransferId, epoch: u32, entrance: Entrance) -> Result<Feeding, Fault> {
        Ok(Feeding {
            transfer,
            epoch,
            door: Door::of(entrance)?,
            arrived: StreamOffset(0),
            fed: Prefix::default(),
            end: None,
            kept: None,
        })
    }

    /// How many slots the pipe has.
    fn lent(&self) -> usize {
        match &self.door {
            Door::Open { splicer, .. } => splicer.lent(),
            Door::Shut(_) => 0,
        }
    }

    fn is_behind(&self) -> bool {
        self.kept.as_ref().is_some_and(Kept::is_behind)
    }

    /// Gives the sink a block from its slot.
    fn lend(
        &mut self,
        loan: Arc<Loan>,
        range: Range<usize>,
        crc32: u32,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), Fault> {
        let length = range.len();
        self.put(&loan.clone()[range.clone()], crc32, wanted, |splicer, feed, bytes| {
            if feed == Feed::Splice && length >= SPLICE_BYTES_MIN {
                splicer.splice(loan, range, wanted)
            } else {
                splicer.write(bytes, wanted)
            }
        })
    }

    /// Gives the sink the pages of a block that nobody has proved.
    fn pour(&mut self, mut bay: Bay, wanted: &dyn Fn() -> bool) -> Result<(), Fault> {
        let to = self.fed.to();
        if self.door.is_shut() {
            // A guard looks at bytes, which pages in a pipe do not show: the first ones get out.
            let bytes = bay.read_out().map_err(|error| Fault::Sink(to, error))?;
            return self.write(&bytes, 0, wanted);
        }
        let Door::Open { splicer, .. } = &mut self.door else { return Ok(()) };
        let length = bay.len();
        splicer.pour(bay, wanted).map_err(|error| Fault::Sink(to, error))?;
        self.fed.append(0, length.into());
        Ok(())
    }

    /// Gives the sink a copy of a block.
    fn write(&mut self, bytes: &[u8], crc32: u32, wanted: &dyn Fn() -> bool) -> Result<(), Fault> {
        self.put(bytes, crc32, wanted, |splicer, _, bytes| splicer.write(bytes, wanted))
    }

    /// Gives the sink a block by `give`, unless it has to wait.
    fn put(
        &mut self,
        bytes: &[u8],
        crc32: u32,
        wanted: &dyn Fn() -> bool,
        give: impl FnOnce(&mut Splicer, Feed, &[u8]) -> io::Result<()>,
    ) -> Result<(), Fault> {
        if self.door.is_shut() && !self.opens_to(bytes, crc32, wanted)? {
            return Ok(());
        }
        let Door::Open { splicer, feed } = &mut self.door else { return Ok(()) };
        give(splicer, *feed, bytes).map_err(|error| Fault::Sink(self.fed.to(), error))?;
        self.fed.append(crc32, bytes.len().into());
        Ok(())
    }

    /// Whether a shut door opens to a block; then all that waited before it is in.
    fn opens_to(
        &mut self,
        bytes: &[u8],
        crc32: u32,
        wanted: &dyn Fn() -> bool,
    ) -> Result<bool, Fault> {
        let Some(before) = self.door.show(bytes, crc32)? else { return Ok(false) };
        if let Door::Open { splicer, .. } = &mut self.door {
            let written = splicer.write(&before.bytes, wanted);
            written.map_err(|error| Fault::Sink(self.fed.to(), error))?;
            self.fed = before.prefix;
        }
        Ok(true)
    }
}
