//! The thread that writes the records of one transfer.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::breakpoint::identity::{FileId, RecordSequence, RingSlots};
use crate::breakpoint::keeper::{Input, Keeper, Kept, Output, Reached, Release, Rules, Settings};
use crate::breakpoint::record::{Job, Mark, Role, SegmentNumber};
use crate::spool::fault;
use crate::spool::folder::{Folder, new_id};
use crate::spool::handover::Handover;
use crate::spool::left::Left;
use crate::spool::names::Names;
use crate::spool::notes::{Follow, Look, Note, Order, Over, Written};
use crate::spool::record_file::{Existing, RecordFile};
use crate::spool::segments::{Segments, Spool};
use crate::spool::transfers::{self, Transfers};
use crate::units::Bytes;

/// What may pass before a record is written. At 1 GB/s a record of 4 KiB in 64 ms: some
/// hundredths of a percent of a disk's time, and of the stream's none.
pub(super) const INTERVAL: Bytes = Bytes(64 << 20);

/// The same where a client waits for the record: whatever is durable is recorded at once.
const AT_ONCE: Bytes = Bytes(1);

/// After so long one is written of whatever has passed.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// How often to look how far the stream is: a few times per interval at the speed of a machine.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The thread.
pub(super) struct Recorder {
    folder: Transfers,
    path: PathBuf,
    id: FileId,
    names: Names,
    role: Role,
    file: RecordFile,
    keeper: Keeper,
    look: Look,
    /// The breakpoint files, where the stream is kept in some.
    files: Option<Files>,
    received: Mark,
    end: Option<Mark>,
    opened: bool,
    looked: Instant,
    ticked: Instant,
}

/// The breakpoint files of a stream, on their way to be durable.
struct Files {
    follow: Follow,
    folder: PathBuf,
    /// The last whose name is durable.
    named: SegmentNumber,
    /// Parts that are written, in order: one for each file.
    written: Vec<Written>,
    /// The last part that is durable.
    durable: Option<Written>,
}

/// What the records of every transfer begin with.
pub(super) struct Base {
    pub folder: Transfers,
    pub job: Job,
    pub names: Names,
    pub look: Look,
}

/// What there is for a stream that shall outlive its process.
pub(super) struct Outliving<'a> {
    pub spool: &'a Spool,
    pub handover: &'a Handover,
    pub follow: Follow,
}

impl Recorder {
    /// Makes the file, its names, the folder for the files of the stream where it is kept in some,
    /// and the first record.
    pub fn begin(
        mut base: Base,
        stream: Option<Outliving<'_>>,
    ) -> io::Result<(Recorder, Option<Segments>)> {
        let id = new_id()?;
        let path = base.folder.records_of(id);
        let (mut files, mut kept) = (None, None);
        if let Some(Outliving { spool, handover, follow }) = stream {
            let folder = Folder::of_stream(&spool.folder, id);
            base.names.stream = Some(folder.clone());
            files = Some(Files::new(follow, folder));
            kept = Some((spool, handover));
        }
        let file = RecordFile::create(&path, id, Existing::Refuse, base.folder.backend)?;
        fault::reach("file-made");
        let settings = settings(&base, id, kept.map(|(spool, _)| spool));
        let keeper = Keeper::new(settings, RecordSequence::FIRST, Kept::default());
        let mut recorder = Recorder::new(base, id, file, keeper, files);
        match recorder.write_first(kept) {
            Ok(segments) => Ok((recorder, segments)),
            Err(error) => {
                transfers::remove(&path);
                Err(error)
            }
        }
    }

    /// The folder is named before it is there, and removed before its name is: none is ever left
    /// that no names tell of.
    fn write_first(&mut self, kept: Option<(&Spool, &Handover)>) -> io::Result<Option<Segments>> {
        self.names.write(&Names::beside(&self.path))?;
        fault::reach("names-written");
        let segments = match kept.zip(self.names.stream.as_deref()) {
            Some(((Spool { segment, max, account, .. }, handover), folder)) => {
                handover.write(&Handover::beside(&self.path))?;
                let folder = Folder::create_for_stream(folder)?;
                Some(Segments::within(folder, *segment, *max).on(account.clone()))
            }
            None => None,
        };
        self.tick()?;
        Ok(segments)
    }

    /// Goes on with the file of a process that has died, behind what that one has left.
    pub fn go_on(
        folder: Transfers,
        left: Left,
        look: Look,
        spool: &Spool,
        follow: Follow,
    ) -> io::Result<(Recorder, Segments)> {
        let Left { record, names, file, next, folder: stream, found, .. } = left;
        let files = Files::new(follow, stream.path().to_owned());
        let segments = Segments::go_on(stream, spool.segment, spool.max, found.extent())?
            .on(spool.account.clone());
        let base = Base { folder, job: record.job, names, look };
        let keeper =
            Keeper::new(settings(&base, record.file, Some(spool)), next, found.kept(&record));
        let mut recorder = Recorder::new(base, record.file, file, keeper, Some(files));
        recorder.opened = true;
        recorder.end = record.progress.end;
        recorder.received = found.end;
        recorder.tick()?;
        Ok((recorder, segments))
    }

    fn new(
        base: Base,
        id: FileId,
        file: RecordFile,
        keeper: Keeper,
        files: Option<Files>,
    ) -> Recorder {
        let Base { folder, job, names, look } = base;
        let (path, role, now) = (folder.records_of(id), job.role, Instant::now());
        Recorder {
            folder,
            path,
            id,
            names,
            role,
            file,
            keeper,
            look,
            files,
            received: Mark::default(),
            end: None,
            opened: false,
            looked: now,
            ticked: now,
        }
    }

    /// Follows what it is told to the transfer's end.
    pub fn run(mut self, notes: &Receiver<Note>) {
        loop {
            let done = match notes.recv_timeout(LOOK_EVERY) {
                Ok(Note::Over(over)) => return self.finish(over),
                Ok(Note::Opened) => self.open(),
                Ok(Note::Ended(end)) => self.end(end),
                Ok(Note::Written(part)) => {
                    self.write_down(part);
                    Ok(())
                }
                Ok(Note::Broken(error)) => Err(error),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) if self.opened => return,
                Err(RecvTimeoutError::Disconnected) => return transfers::remove(&self.path),
            };
            let due = self.looked.elapsed() >= LOOK_EVERY;
            if let Err(error) = done.and_then(|()| if due { self.look() } else { Ok(()) }) {
                self.fail(&error);
            }
        }
    }

    fn write_down(&mut self, part: Written) {
        if let Some(files) = &mut self.files {
            files.add(part);
        }
    }

    /// Says an error, and keeps nothing any more.
    fn fail(&mut self, error: &io::Error) {
        self.folder.tell(error);
        let mut orders = Vec::new();
        self.keeper.handle(Input::Failed, &mut orders);
        if let Some(files) = self.files.take() {
            (files.follow)(Order::Retired);
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.opened = true;
        fault::reach("opened");
        self.folder.supersede(self.role, &self.names.job, self.id)
    }

    /// The stream's end, at a server as the client says: one that cannot be ends nothing.
    fn end(&mut self, end: Mark) -> io::Result<()> {
        self.look()?;
        if !is_on_the_way(self.received, end) {
            return Ok(());
        }
        self.end = Some(end);
        if self.role == Role::Client {
            self.receive(Reached { mark: end, next_frame: (self.look)().next_frame })?;
        }
        self.handle(Input::Ended(end))
    }

    fn finish(mut self, over: Over) {
        let finished = match over {
            Over::Applied => self.applied(),
            Over::Failed(_) if !self.opened => Ok(()),
            Over::Failed(class) => self
                .look()
                .and_then(|()| self.tick())
                .and_then(|()| self.handle(Input::Abandoned(class))),
        };
        if let Err(error) = finished {
            self.fail(&error);
        }
        if over == Over::Applied || !self.opened {
            transfers::remove(&self.path);
        } else {
            self.names.remove_stream();
        }
    }

    /// The file says so before it is removed: one that a crash leaves is then known to be useless.
    fn applied(&mut self) -> io::Result<()> {
        let Some(mark) = self.end else { return Ok(()) };
        self.receive(Reached { mark, next_frame: (self.look)().next_frame })?;
        self.handle(Input::Fed { to: mark.to })?;
        self.handle(Input::Applied)
    }

    /// Finds out how far the stream is, on the disk and on its way.
    fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        self.make_durable()?;
        self.advance((self.look)())?;
        if self.ticked.elapsed() < TICK_EVERY { Ok(()) } else { self.tick() }
    }

    /// What was written is durable before the keeper hears of it; part for part, so that a record
    /// which claims one says the number of the frame behind that one.
    fn make_durable(&mut self) -> io::Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let parts = std::mem::take(&mut files.written);
        for part in parts {
            let Some(files) = &mut self.files else { return Ok(()) };
            files.sync(&part)?;
            let Written { segment, from, mark, next_frame, .. } = part;
            files.durable = Some(part);
            self.receive(Reached { mark, next_frame })?;
            self.handle(Input::Written { from, mark, segment })?;
        }
        Ok(())
    }

    /// The stream is so far.
    fn advance(&mut self, reached: Reached) -> io::Result<()> {
        let mark = reached.mark;
        // A peer that goes on behind the end that it named is dealt with by the engine.
        if self.end.is_some_and(|end| !is_on_the_way(mark, end)) {
            return Ok(());
        }
        match (self.role, &self.files) {
            (Role::Client, _) => {
                self.receive(reached)?;
                self.handle(Input::PeerAcknowledged(mark))?;
            }
            // What was fed is not durable yet, and no record may speak of it.
            (Role::Server, Some(_)) => {}
            (Role::Server, None) => self.receive(reached)?,
        }
        self.handle(Input::Fed { to: mark.to.min(self.received.to) })
    }

    fn receive(&mut self, Reached { mark, next_frame }: Reached) -> io::Result<()> {
        if mark.to > self.received.to {
            self.received = mark;
        }
        self.handle(Input::Received { mark, next_frame })
    }

    fn tick(&mut self) -> io::Result<()> {
        self.ticked = Instant::now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_clock_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.handle(Input::Tick { wall_clock_ms })
    }

    /// Tells the keeper, and does what it orders.
    fn handle(&mut self, input: Input) -> io::Result<()> {
        let mut orders = Vec::new();
        self.keeper.handle(input, &mut orders);
        while !orders.is_empty() {
            match orders.remove(0) {
                Output::WriteRecord(record) => {
                    fault::reach("record-due");
                    self.file.write(&record)?;
                    fault::reach("record-written");
                    self.keeper.handle(Input::Recorded { sequence: record.sequence }, &mut orders);
                }
                Output::Acknowledge(mark) => self.acknowledge(mark),
                Output::Trim { before } => {
                    if let Some(files) = &self.files {
                        (files.follow)(Order::Trim { before });
                    }
                }
                // `fail` says so.
                Output::Begun | Output::Stated(_) | Output::Retired => {}
            }
        }
        Ok(())
    }

    fn acknowledge(&self, mark: Mark) {
        let Some(files) = &self.files else { return };
        if let Some(part) = files.durable.as_ref().filter(|part| part.mark == mark) {
            (files.follow)(Order::Durable { to: mark.to, next_frame: part.next_frame });
        }
    }
}

impl Files {
    fn new(follow: Follow, folder: PathBuf) -> Files {
        Files { follow, folder, named: SegmentNumber(0), written: Vec::new(), durable: None }
    }

    /// Adds a part behind all others.
    fn add(&mut self, part: Written) {
        match self.written.last_mut().filter(|last| last.segment == part.segment) {
            Some(last) => *last = Written { from: last.from, ..part },
            None => self.written.push(part),
        }
    }

    fn sync(&mut self, part: &Written) -> io::Result<()> {
        let name = |error: io::Error| {
            let (folder, number) = (self.folder.display(), part.segment.0);
            let text = format!("make segment {number} in {folder} durable: {error}");
            io::Error::new(error.kind(), text)
        };
        fault::reach("segment-due");
        sys::direct::sync(&part.fd).map_err(name)?;
        if part.segment > self.named {
            File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(name)?;
            self.named = part.segment;
        }
        fault::reach("segment-durable");
        Ok(())
    }
}

/// Where a stream is kept whole at a server nothing of it is superfluous before its end, and its
/// client waits for each record.
fn settings(base: &Base, file: FileId, spool: Option<&Spool>) -> Settings {
    let (interval, release) = match (base.job.role, spool) {
        (Role::Client, _) => (INTERVAL, Release::PeerAcknowledged),
        (Role::Server, None) => (INTERVAL, Release::Fed),
        (Role::Server, Some(_)) => (AT_ONCE, Release::Never),
    };
    Settings {
        file,
        ring: RingSlots::STANDARD,
        boot: base.folder.boot,
        job: base.job,
        interval,
        segment_bytes: spool.map_or(INTERVAL, |spool| spool.segment.bytes()),
        release,
        rules: Rules::KEPT,
    }
}

/// Whether a stream that ends at `end` can be at `mark`.
fn is_on_the_way(mark: Mark, end: Mark) -> bool {
    mark.to < end.to || mark == end
}
