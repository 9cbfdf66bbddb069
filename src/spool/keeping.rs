//! Keeps the records of one transfer, on a thread of its own.
//!
//! The [`Keeper`](crate::breakpoint::keeper) decides, this writes: one record at a time, and never
//! so that anybody who carries the stream waits for the disk. How far the stream is, the thread
//! looks up by itself; the session tells it what else happens. What must never happen here: that a
//! transfer fails because its records do. The first error retires the file, and is said once.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::fault;
use super::folder::{self, Folder};
use super::names::Names;
use super::record_file::{Existing, RecordFile};
use crate::breakpoint::identity::{FileId, RecordSequence, RingSlots};
use crate::breakpoint::keeper::{Input, Keeper, Kept, Output, Reached, Release, Rules, Settings};
use crate::breakpoint::record::{Job, Mark, Role};
use crate::error::Class;
use crate::units::Bytes;

/// What may pass before a record is written. At 1 GB/s a record of 4 KiB in 64 ms: some
/// hundredths of a percent of a disk's time, and of the stream's none.
const INTERVAL: Bytes = Bytes(64 << 20);

/// After so long one is written of whatever has passed.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// How often to look how far the stream is: a few times per interval at the speed of a machine.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells how far the stream is: at a client what was acknowledged, at a server what was fed.
pub type Look = Box<dyn Fn() -> Reached + Send>;

/// The records of one transfer. Dropped without a word, it leaves the file as it is; one that was
/// never [`Keeping::opened`] leaves none.
#[derive(Debug)]
pub struct Keeping {
    notes: Sender<Note>,
    thread: JoinHandle<()>,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The target holds it: the records have done their work.
    Applied,
    /// Both ends of its stream are gone.
    Failed(Class),
}

/// What the thread is told.
#[derive(Debug)]
enum Note {
    Opened,
    Ended(Mark),
    Over(Over),
}

/// The thread.
struct Recorder {
    folder: Folder,
    path: PathBuf,
    id: FileId,
    names: Names,
    role: Role,
    file: RecordFile,
    keeper: Keeper,
    look: Look,
    received: Mark,
    end: Option<Mark>,
    opened: bool,
    ticked: Instant,
}

impl Folder {
    /// Begins to keep the records of a transfer. When this returns, its epoch is durable: bytes of
    /// it may flow. `None` where no records can be kept; that was said. Blocks.
    pub fn begin(&self, job: Job, names: Names, look: Look) -> Option<Keeping> {
        let begun = self.try_begin(job, names, look);
        begun.inspect_err(|error| self.tell(error)).ok()
    }

    fn try_begin(&self, job: Job, names: Names, look: Look) -> io::Result<Keeping> {
        let (begun, first) = mpsc::channel();
        let (notes, inbox) = crossbeam_channel::unbounded();
        let folder = self.clone();
        let keep = move || match Recorder::begin(folder, job, names, look) {
            Ok(recorder) => {
                // One who waits no longer has dropped the notes too.
                let _ = begun.send(Ok(()));
                recorder.run(&inbox);
            }
            Err(error) => drop(begun.send(Err(error))),
        };
        let thread = thread::Builder::new().name("zferry-record".to_owned()).spawn(keep)?;
        first.recv().map_err(io::Error::other)??;
        Ok(Keeping { notes, thread })
    }
}

impl Keeping {
    /// Both sides are ready for the stream: records of earlier transfers of the job have no use
    /// any more.
    pub fn opened(&self) {
        self.tell(Note::Opened);
    }

    /// The stream's length and CRC32 are known. At a client all of it was read.
    pub fn ended(&self, end: Mark) {
        self.tell(Note::Ended(end));
    }

    /// The transfer is over; when this returns, the file says so or is gone. Blocks.
    pub fn over(self, over: Over) {
        self.tell(Note::Over(over));
        let _panicked = self.thread.join();
    }

    fn tell(&self, note: Note) {
        // A thread that is gone has panicked; the transfer does not depend on it.
        let _ = self.notes.send(note);
    }
}

impl Recorder {
    /// Makes the file, its names and its first record.
    fn begin(folder: Folder, job: Job, names: Names, look: Look) -> io::Result<Recorder> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let id = FileId(id);
        let path = folder.records_of(id);
        let file = RecordFile::create(&path, id, Existing::Refuse, folder.backend)?;
        fault::reach("file-made");
        let role = job.role;
        let settings = Settings {
            file: id,
            ring: RingSlots::STANDARD,
            boot: folder.boot,
            job,
            interval: INTERVAL,
            segment_bytes: INTERVAL,
            release: if role == Role::Client { Release::PeerAcknowledged } else { Release::Fed },
            rules: Rules::KEPT,
        };
        let mut recorder = Recorder {
            folder,
            path,
            id,
            names,
            role,
            file,
            keeper: Keeper::new(settings, RecordSequence::FIRST, Kept::default()),
            look,
            received: Mark::default(),
            end: None,
            opened: false,
            ticked: Instant::now(),
        };
        let begun = recorder.write_first();
        if begun.is_err() {
            folder::remove(&recorder.path);
        }
        begun.map(|()| recorder)
    }

    fn write_first(&mut self) -> io::Result<()> {
        self.names.write(&Names::beside(&self.path))?;
        fault::reach("names-written");
        self.tick()
    }

    fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let done = match notes.recv_timeout(LOOK_EVERY) {
                Ok(Note::Over(over)) => return self.finish(over),
                Ok(Note::Opened) => self.open(),
                Ok(Note::Ended(end)) => self.end(end),
                Err(RecvTimeoutError::Timeout) => self.advance((self.look)()),
                Err(RecvTimeoutError::Disconnected) if self.opened => return,
                Err(RecvTimeoutError::Disconnected) => return folder::remove(&self.path),
            };
            if let Err(error) = done {
                self.folder.tell(&error);
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.opened = true;
        fault::reach("opened");
        self.folder.supersede(self.role, &self.names.job, self.id)
    }

    /// The stream's end, at a server as the client says: one that cannot be ends nothing.
    fn end(&mut self, end: Mark) -> io::Result<()> {
        self.advance((self.look)())?;
        if !is_on_the_way(self.received, end) {
            return Ok(());
        }
        self.end = Some(end);
        if self.role == Role::Client {
            self.received = end;
            let next_frame = (self.look)().next_frame;
            self.handle(Input::Received { mark: end, next_frame })?;
        }
        self.handle(Input::Ended(end))
    }

    fn finish(mut self, over: Over) {
        let finished = match over {
            Over::Applied => self.applied(),
            Over::Failed(_) if !self.opened => Ok(()),
            Over::Failed(class) => self
                .advance((self.look)())
                .and_then(|()| self.tick())
                .and_then(|()| self.handle(Input::Abandoned(class))),
        };
        if let Err(error) = finished {
            self.folder.tell(&error);
        }
        if over == Over::Applied || !self.opened {
            folder::remove(&self.path);
        }
    }

    /// The file says so before it is removed: one that a crash leaves is then known to be useless.
    fn applied(&mut self) -> io::Result<()> {
        let Some(mark) = self.end else { return Ok(()) };
        let next_frame = (self.look)().next_frame;
        self.advance(Reached { mark, next_frame })?;
        self.handle(Input::Applied)
    }

    /// The stream is so far.
    fn advance(&mut self, reached: Reached) -> io::Result<()> {
        let Reached { mark, next_frame } = reached;
        // A peer that goes on behind the end that it named is dealt with by the engine.
        if self.end.is_none_or(|end| is_on_the_way(mark, end)) {
            if mark.to > self.received.to {
                self.received = mark;
            }
            self.handle(Input::Received { mark, next_frame })?;
            if self.role == Role::Client {
                self.handle(Input::PeerAcknowledged(mark))?;
            }
            self.handle(Input::Fed { to: mark.to })?;
        }
        if self.ticked.elapsed() < TICK_EVERY { Ok(()) } else { self.tick() }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.ticked = Instant::now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_clock_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.handle(Input::Tick { wall_clock_ms })
    }

    /// Tells the keeper, and writes what it wants written. Without breakpoint files it orders
    /// nothing else that anybody waits for.
    fn handle(&mut self, input: Input) -> io::Result<()> {
        let mut orders = Vec::new();
        self.keeper.handle(input, &mut orders);
        while let Some(order) = orders.pop() {
            let Output::WriteRecord(record) = order else { continue };
            fault::reach("record-due");
            if let Err(error) = self.file.write(&record) {
                self.keeper.handle(Input::Failed, &mut orders);
                return Err(error);
            }
            fault::reach("record-written");
            self.keeper.handle(Input::Recorded { sequence: record.sequence }, &mut orders);
        }
        Ok(())
    }
}

/// Whether a stream that ends at `end` can be at `mark`.
fn is_on_the_way(mark: Mark, end: Mark) -> bool {
    mark.to < end.to || mark == end
}
