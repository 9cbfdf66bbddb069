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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use sys::backend::Backend;
    use tempfile::TempDir;

    use super::super::folder::{Entry, list};
    use super::*;
    use crate::breakpoint::identity::SessionId;
    use crate::breakpoint::record::{Cargo, Progress, State};
    use crate::units::{Sequence, StreamOffset, TransferId};

    /// A transfer whose place a test sets.
    struct Kept {
        state: TempDir,
        folder: Folder,
        place: Arc<Mutex<Reached>>,
    }

    fn mark(bytes: u64) -> Mark {
        Mark { to: StreamOffset(bytes), crc32: u32::from(bytes > 0) }
    }

    impl Kept {
        fn new() -> Kept {
            let state = tempfile::tempdir_in("/var/tmp").unwrap();
            let folder = Folder::open(state.path(), Backend::Threads).unwrap();
            Kept { state, folder, place: Arc::default() }
        }

        fn begin(&self, role: Role) -> Keeping {
            let (session, transfer) = (SessionId([1; 16]), TransferId(1));
            let job = Job { role, session, transfer, epoch: 1, cargo: Cargo::Pipe };
            let (of_job, what) = ("a".to_owned(), "b".to_owned());
            let names = Names { role, job: of_job, transfer: what };
            let place = Arc::clone(&self.place);
            self.folder.begin(job, names, Box::new(move || *place.lock().unwrap())).unwrap()
        }

        fn reach(&self, bytes: u64) {
            let next_frame = Sequence(bytes);
            *self.place.lock().unwrap() = Reached { mark: mark(bytes), next_frame };
        }

        fn entries(&self) -> Vec<Entry> {
            list(self.state.path()).unwrap()
        }

        fn newest(&self) -> Progress {
            self.entries()[0].newest.expect("a record").progress
        }
    }

    #[test]
    fn the_epoch_is_durable_before_a_byte_may_flow() {
        let kept = Kept::new();
        let _keeping = kept.begin(Role::Client);
        assert_eq!((kept.newest(), kept.entries()[0].running), (Progress::BEGUN, true));
    }

    #[test]
    fn an_interval_is_recorded_long_before_a_second_has_passed() {
        let kept = Kept::new();
        for role in [Role::Client, Role::Server] {
            let keeping = kept.begin(role);
            keeping.opened();
            kept.reach(INTERVAL.0);
            let begun = Instant::now();
            while kept.newest().fed.0 < INTERVAL.0 {
                assert!(begun.elapsed() < 20 * LOOK_EVERY, "not recorded");
                thread::sleep(Duration::from_millis(1));
            }
            kept.reach(0);
            keeping.over(Over::Applied);
        }
    }

    #[test]
    fn what_failed_says_so_and_what_arrived_is_gone() {
        let kept = Kept::new();
        for (role, over) in [
            (Role::Client, Over::Applied),
            (Role::Server, Over::Applied),
            (Role::Client, Over::Failed(Class::Wait)),
            (Role::Server, Over::Failed(Class::Wait)),
        ] {
            let keeping = kept.begin(role);
            keeping.opened();
            kept.reach(7);
            keeping.ended(mark(7));
            keeping.over(over);
            match over {
                Over::Applied => assert!(kept.entries().is_empty()),
                Over::Failed(class) => {
                    let Progress { state, fed, last_error, .. } = kept.newest();
                    assert_eq!((state, fed.0), (State::Abandoned, 7));
                    assert_eq!((last_error, kept.entries()[0].running), (Some(class), false));
                }
            }
        }
        // The failure at the server is another's; that of the client was superseded by nothing.
        assert_eq!(kept.entries().len(), 2);
    }

    #[test]
    fn what_was_never_opened_leaves_nothing_and_does_not_take_the_place_of_anything() {
        let kept = Kept::new();
        let interrupted = kept.begin(Role::Client);
        interrupted.opened();
        interrupted.over(Over::Failed(Class::Interrupted));
        kept.begin(Role::Client).over(Over::Failed(Class::Busy));
        let dropped = kept.begin(Role::Client);
        let Keeping { notes, thread } = dropped;
        drop(notes);
        thread.join().unwrap();
        assert_eq!(kept.entries().len(), 1);
        let again = kept.begin(Role::Client);
        assert_eq!(kept.entries().len(), 2);
        again.opened();
        again.over(Over::Applied);
        assert!(kept.entries().is_empty(), "the older one is superseded");
    }

    #[test]
    fn an_end_that_cannot_be_ends_nothing() {
        let kept = Kept::new();
        // Before the stream, and at the same place with another CRC32.
        for end in [mark(6), Mark { crc32: 9, ..mark(7) }] {
            kept.reach(0);
            let keeping = kept.begin(Role::Server);
            keeping.opened();
            kept.reach(7);
            keeping.ended(end);
            keeping.over(Over::Failed(Class::Peer));
            assert_eq!((kept.newest().fed.0, kept.newest().end), (7, None));
        }
        // A stream that goes on behind its end is recorded up to there.
        kept.reach(0);
        let keeping = kept.begin(Role::Server);
        keeping.opened();
        keeping.ended(mark(5));
        while kept.newest().end.is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        kept.reach(7);
        keeping.over(Over::Failed(Class::Peer));
        let progress = kept.newest();
        assert_eq!((progress.end, progress.state), (Some(mark(5)), State::Abandoned));
        assert!(progress.fed.0 <= 5);
    }
}
