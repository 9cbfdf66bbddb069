//! Frame -> frame: through breakpoint files where the cache is full, so that the source goes on.
//!
//! Between `compress` and `send`, where a spool was asked for. While the cache has room frames pass
//! by. When it is nearly full of frames that the receiver has not taken, new ones are written to
//! files, from their slots as they lie, and the slots go home; from then on every new one is,
//! until the files are empty. What stands in files is read back in order, into slots kept for that.
//! A stream that shall outlive its process is written to files whole, and a frame that the cache
//! has room for goes on at the same time.
//!
//! What must never happen here: a frame lost. It keeps its slot until its write has ended well; one
//! that did not end well goes on from its slot, and nothing is written any more after it. And no
//! frame leaves that is not what was written: such a file ends the transfer.

mod backlog;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, TryRecvError};
use sys::loan::{Loan, Pool};
use sys::port::{Act, Completion, Port, Request};

use self::backlog::{Backlog, Shelved};
use super::send::{Inbox, Sent, ToSend};
use super::{Event, Resumed};
use crate::breakpoint::record::Mark;
use crate::breakpoint::segment::{ENTRY_HEADER, Entry, PAGE_BYTES};
use crate::engine::block::{Frame, HEADROOM, Payload, header_range};
use crate::engine::fault::Fault;
use crate::engine::halt::Halt;
use crate::engine::progress::Progress;
use crate::engine::settings::Spool;
use crate::protocol::frame::{Codec, Header};
use crate::spool::keeping::{Order, Stream};
use crate::spool::segments::{Place, Segments};
use crate::spool::trail::Trail;
use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

/// The stamp of an entry stands in the page that a slot keeps free, right before the frame.
const _: () = assert!(HEADROOM == PAGE_BYTES);

/// Writes in flight: what a fast disk takes while this thread waits for a core.
const WRITES: usize = 12;

/// Reads in flight.
const READS: usize = 4;

/// How many operations a port of this stage has in flight.
pub(super) const DEPTH: u32 = 16;
const _: () = assert!(WRITES + READS == DEPTH as usize);

/// The stage.
pub(super) struct Spooler {
    // Before the files: its operations end first.
    pub port: Port,
    pub inbox: Receiver<ToSend>,
    pub send: Inbox,
    pub halt: Arc<Halt>,
    pub report: Box<dyn Fn(Event) + Send>,
    pub spool: Spool,
    pub block_bytes: Bytes,
    /// The slots that frames are read back into.
    pub loading: Pool,
    pub passed: Passed,
    pub state: State,
}

/// What the stage knows.
#[derive(Default)]
pub(super) struct State {
    progress: Arc<Progress>,
    /// Sealed frames that have come and not gone on, some before those that are due.
    sealed: BTreeMap<Sequence, Frame>,
    /// The frame that goes on next, to the sockets or to a file.
    next: Sequence,
    segments: Option<Segments>,
    /// Of a stream that outlives its process: what is to be told of its writes.
    trail: Option<Trail>,
    /// The end of such a stream, once it was read.
    closing: Option<(TransferId, Sequence, StreamOffset)>,
    backlog: Backlog,
    writing: BTreeMap<u32, Writing>,
    reading: BTreeMap<u32, Shelved>,
    /// Written in vain: they went on from their slots.
    unwritten: BTreeSet<Sequence>,
    key: u32,
    /// A write has failed: files are read, and none is written any more.
    retired: bool,
    told_full: bool,
}

/// Frames that were passed on in their slots, as long as they have them.
#[derive(Debug)]
pub(super) struct Passed {
    slots: VecDeque<Weak<Loan>>,
    most: usize,
}

/// A frame on its way to a file.
struct Writing {
    frame: Frame,
    place: Place,
    length: usize,
    /// It went on from its slot at the same time.
    passed: bool,
}

/// Where the frame that is due goes.
enum Way {
    Pass,
    /// To a file, and from its slot to the sockets at once.
    Keep(Place),
    /// To a file, until it is read back.
    Store(Place),
    /// It stays until an operation ends.
    Wait,
}

impl State {
    /// The number of the first frame that comes.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// The state behind a stream that stands in files whole; what has not arrived is read back.
    pub fn resumed(resumed: Resumed) -> State {
        let Resumed { stream: Stream { segments, trail }, found, receipt, progress, .. } = resumed;
        let taken = receipt.credit.taken;
        let mut backlog = Backlog::default();
        for entry in &found.entries {
            let Header { sequence, payload_bytes, .. } = entry.frame;
            if sequence >= taken {
                backlog.push(sequence, payload_bytes, entry.at);
            }
        }
        let next = found.next_frame().unwrap_or(taken);
        let (segments, trail) = (Some(segments), Some(trail));
        State { progress, next, segments, trail, backlog, ..State::default() }
    }
}

impl Passed {
    /// Up to `most` frames may wait in slots before files are used.
    pub fn new(most: usize) -> Passed {
        Passed { slots: VecDeque::new(), most }
    }

    fn has_room(&mut self) -> bool {
        // The receiver takes frames in order, so those that are gone stand at the front.
        while self.slots.front().is_some_and(|slot| slot.strong_count() == 0) {
            self.slots.pop_front();
        }
        self.slots.len() < self.most
    }

    fn note(&mut self, frame: &mut Frame) {
        self.slots.push_back(Arc::downgrade(frame.slot().0));
    }
}

impl Spooler {
    /// Passes frames on until the halt.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut completions = Vec::new();
        while !self.halt.is_on() {
            self.take_in();
            self.route()?;
            self.read_back()?;
            self.report_kept();
            self.port.wait(None, &mut completions).map_err(broken)?;
            for completion in completions.drain(..) {
                self.settle(completion)?;
            }
            self.close_files();
        }
        Ok(())
    }

    fn take_in(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(ToSend::Frame(frame)) => {
                    self.state.sealed.insert(frame.header.sequence, frame);
                }
                Ok(ToSend::Open { progress, stream }) => {
                    self.open(Arc::clone(&progress), stream);
                    self.send.put(ToSend::Open { progress, stream: None });
                }
                Ok(ToSend::Follow(order)) => self.follow(order),
                Ok(ToSend::Close { transfer, after, total }) => {
                    self.state.closing = Some((transfer, after, total));
                    self.send.put(ToSend::Close { transfer, after, total });
                }
                Ok(other) => self.send.put(other),
                // Whoever hung up has turned the halt on.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Of the transfer before this one nothing is read or written any more.
    fn open(&mut self, progress: Arc<Progress>, stream: Option<Stream>) {
        let files = stream.map(|Stream { segments, trail }| (segments, trail));
        (self.state.segments, self.state.trail) = files.unzip();
        self.state.progress = progress;
        self.state.closing = None;
    }

    /// What follows from the records of the stream.
    fn follow(&mut self, order: Order) {
        match order {
            Order::Trim { before } => {
                if let Some(segments) = &mut self.state.segments {
                    segments.trim(before);
                }
            }
            // That was said.
            Order::Retired => (self.state.trail, self.state.retired) = (None, true),
            Order::Durable { .. } => {}
        }
    }

    /// Has all frames go on that can.
    fn route(&mut self) -> Result<(), Fault> {
        while let Some(due) = self.state.sealed.get(&self.state.next) {
            let payload_bytes = due.header.payload_bytes;
            let way = self.way(payload_bytes);
            if matches!(way, Way::Wait) {
                return Ok(());
            }
            let Some(frame) = self.state.sealed.remove(&self.state.next) else { return Ok(()) };
            self.state.next = self.state.next.next();
            match way {
                Way::Keep(place) => {
                    let frame = self.write(frame, place, true)?;
                    self.pass(frame);
                }
                Way::Store(place) => {
                    let at = place.at;
                    let frame = self.write(frame, place, false)?;
                    self.state.backlog.push(frame.header.sequence, payload_bytes, at);
                }
                Way::Pass | Way::Wait => self.pass(frame),
            }
        }
        Ok(())
    }

    fn way(&mut self, payload_bytes: u32) -> Way {
        let is_empty = self.state.backlog.is_empty();
        let (is_kept, has_room) = (self.state.trail.is_some(), is_empty && self.passed.has_room());
        if self.state.retired || (has_room && !is_kept) {
            return Way::Pass;
        }
        if self.state.writing.len() >= WRITES {
            return Way::Wait;
        }
        match self.place(payload_bytes) {
            Ok(Some(place)) if has_room => Way::Keep(place),
            Ok(Some(place)) => Way::Store(place),
            Ok(None) => {
                self.tell_full();
                // With nothing to read back, no file would ever go; those of a stream that outlives
                // its process go when their blocks have arrived.
                if is_empty && !is_kept { Way::Pass } else { Way::Wait }
            }
            Err(error) => {
                self.retire(&error);
                Way::Pass
            }
        }
    }

    fn place(&mut self, payload_bytes: u32) -> io::Result<Option<Place>> {
        let segments = match &mut self.state.segments {
            Some(segments) => segments,
            none => {
                let Spool { folder, segment, max, .. } = &self.spool;
                none.insert(Segments::create(folder, *segment, *max)?)
            }
        };
        segments.place(payload_bytes)
    }

    fn pass(&mut self, mut frame: Frame) {
        self.passed.note(&mut frame);
        self.send.put(ToSend::Frame(frame));
    }

    /// Begins to write a frame, and gives it back.
    fn write(&mut self, mut frame: Frame, place: Place, passed: bool) -> Result<Frame, Fault> {
        let Some(segments) = &self.state.segments else { return Ok(frame) };
        let header = frame.header;
        let (slot, range) = frame.slot();
        let loan = Arc::get_mut(slot).expect("nobody has a frame before it is passed");
        let payload = HEADROOM..range.end;
        // The CRC32 of a raw block is that of its payload.
        let payload_crc32 = match header.codec {
            Codec::Raw => header.crc32,
            Codec::Zstd | Codec::Bare => crc32fast::hash(&loan[payload.clone()]),
        };
        let entry = Entry { at: place.at, frame: header, payload_crc32 };
        loan[ENTRY_HEADER].copy_from_slice(&segments.stamp(&entry));
        let length = payload.end.next_multiple_of(PAGE_BYTES);
        let (key, fd) = (self.new_key(), Arc::clone(&place.fd));
        let act = Act::WriteAt(Arc::clone(slot), 0..length, place.at.file_offset().0);
        if let Some(trail) = &mut self.state.trail {
            trail.begin(header, place.clone());
        }
        let writing = Writing { frame: frame.clone(), place, length, passed };
        self.state.writing.insert(key, writing);
        self.port.submit(Request { key, fd, act }).map_err(broken)?;
        Ok(frame)
    }

    /// Reads what stands at the front of the files, as long as there are slots for it.
    fn read_back(&mut self) -> Result<(), Fault> {
        while self.state.reading.len() < READS
            && let Some(shelved) = self.state.backlog.front(self.spool.segment)
        {
            let is_being_written = |one: &Writing| one.frame.header.sequence == shelved.sequence;
            if self.state.writing.values().any(is_being_written) {
                return Ok(());
            }
            if !self.state.unwritten.remove(&shelved.sequence) {
                let Some([loan]) = self.loading.take() else { return Ok(()) };
                self.read(shelved, loan)?;
            }
            self.state.backlog.pop(shelved);
        }
        Ok(())
    }

    fn read(&mut self, shelved: Shelved, loan: Loan) -> Result<(), Fault> {
        let Some(segments) = &mut self.state.segments else { return Ok(()) };
        let opened = segments.reader(shelved.at.segment);
        let fd = opened.map_err(|error| self.unreadable(shelved, error.to_string()))?;
        let key = self.new_key();
        let act = Act::ReadAt(loan, 0..shelved.length(), shelved.at.file_offset().0);
        self.state.reading.insert(key, shelved);
        self.port.submit(Request { key, fd, act }).map_err(broken)
    }

    fn settle(&mut self, completion: Completion) -> Result<(), Fault> {
        match completion {
            Completion::Written { key, result } => {
                if let Some(writing) = self.state.writing.remove(&key) {
                    self.settle_write(writing, result);
                }
                Ok(())
            }
            Completion::Filled { key, loan, result } => match self.state.reading.remove(&key) {
                Some(shelved) => self.settle_read(shelved, loan, result),
                None => Ok(()),
            },
            Completion::Drawn { .. }
            | Completion::Sent { .. }
            | Completion::Released { .. }
            | Completion::Watched { .. } => Ok(()),
        }
    }

    /// The slot of a frame that is written goes home; a frame that is not goes on from its slot.
    fn settle_write(&mut self, writing: Writing, result: io::Result<usize>) {
        let Writing { frame, place, length, passed } = writing;
        let error = match result {
            Ok(written) if written == length => {
                if !passed {
                    self.state.progress.add_spooled(frame.header.plain_bytes as usize);
                }
                if let Some(trail) = &mut self.state.trail {
                    trail.written(frame.header.sequence);
                }
                return;
            }
            Ok(written) => {
                let text = format!("it took {written} of {length} bytes");
                io::Error::new(io::ErrorKind::WriteZero, text)
            }
            Err(error) => error,
        };
        if let Some(segments) = &mut self.state.segments {
            let path = segments.path(place.at.segment);
            segments.release(place.at.segment);
            let text = format!("write {}: {error}", path.display());
            self.retire(&io::Error::new(error.kind(), text));
        }
        if !passed {
            self.state.unwritten.insert(frame.header.sequence);
            self.pass(frame);
        }
    }

    fn settle_read(
        &mut self,
        shelved: Shelved,
        loan: Loan,
        result: io::Result<usize>,
    ) -> Result<(), Fault> {
        let Some(segments) = &mut self.state.segments else { return Ok(()) };
        let read = match result {
            Ok(count) if count == shelved.length() => {
                let proved = segments.prove(&loan[..count], shelved.at, self.block_bytes);
                proved.map_err(|error| error.to_string())
            }
            Ok(count) => Err(format!("it gave {count} of {} bytes", shelved.length())),
            Err(error) => Err(error.to_string()),
        };
        let header = read.and_then(|header| {
            let is_due = header.sequence == shelved.sequence;
            let stranger = || format!("block {} stands there", header.sequence);
            is_due.then_some(header).ok_or_else(stranger)
        });
        let header = match header {
            Ok(header) => header,
            Err(reason) => return Err(self.unreadable(shelved, reason)),
        };
        segments.release(shelved.at.segment);
        let range = header_range().start..HEADROOM + header.payload_bytes as usize;
        let payload = Payload::InSlot(Arc::new(loan), range);
        self.send.put(ToSend::Frame(Frame { header, payload }));
        Ok(())
    }

    /// Once everything has been read back no file is needed, until the next time.
    fn close_files(&mut self) {
        let State { backlog, writing, reading, segments, .. } = &mut self.state;
        let outlive = segments.as_ref().is_none_or(Segments::outlive);
        if !outlive && backlog.is_empty() && writing.is_empty() && reading.is_empty() {
            *segments = None;
        }
    }

    /// Says when all of a stream that outlives its process stands in files.
    fn report_kept(&mut self) {
        let (Some(trail), Some((transfer, after, total))) = (&self.state.trail, self.state.closing)
        else {
            return;
        };
        let Mark { to, crc32 } = trail.mark();
        if to == total && trail.next().is_none_or(|next| next == after) {
            self.state.closing = None;
            (self.report)(Event::Kept(Sent { transfer, total, crc32 }));
        }
    }

    fn retire(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.state.retired, true) {
            tracing::warn!("the spool is not used any more, the source has to wait: {error}");
        }
        if let Some(mut trail) = self.state.trail.take() {
            trail.broken(io::Error::new(error.kind(), error.to_string()));
        }
    }

    fn tell_full(&mut self) {
        if !std::mem::replace(&mut self.state.told_full, true) {
            let folder = self.spool.folder.display();
            let limit = match self.spool.max {
                Some(max) => format!("it may hold {max} (--spool-max)"),
                None => "its file system is nearly full".to_owned(),
            };
            tracing::warn!("the spool in {folder} is full, the source has to wait: {limit}");
        }
    }

    fn unreadable(&self, shelved: Shelved, reason: String) -> Fault {
        let segments = self.state.segments.as_ref();
        let file = segments.map(|segments| segments.path(shelved.at.segment)).unwrap_or_default();
        Fault::Spool { file, page: shelved.at.page, reason }
    }

    fn new_key(&mut self) -> u32 {
        self.state.key = self.state.key.wrapping_add(1);
        self.state.key
    }
}

fn broken(error: io::Error) -> Fault {
    Fault::Setup("spool", error)
}
