//! A stream that a dead process has left in breakpoint files, found and opened again.
//!
//! What a durable record claims is looked for in the files, entry by entry; what stands behind it
//! was never promised to anybody, and is not believed. Payloads are not read: they prove themselves
//! when they are. What must never happen here: that files are taken up which somebody uses, or
//! which have a hole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::handover::Handover;
use super::names::Names;
use super::record_file::RecordFile;
use super::segments::{Spool, When, numbers, path_in};
use super::transfers::{self, Transfers, file_id};
use crate::breakpoint::identity::{FileId, RecordSequence};
use crate::breakpoint::keeper::{Kept, Span};
use crate::breakpoint::prefix::Prefix;
use crate::breakpoint::record::{Mark, Record, Role, SegmentNumber, SpoolExtent, State};
use crate::breakpoint::segment::{ENTRY_HEADER, Entry, PAGE_BYTES, Position, SegmentPages};
use crate::units::{Bytes, Sequence, StreamOffset};

/// What is left of a stream. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct Left {
    /// The newest record.
    pub record: Record,
    /// What it is about.
    pub names: Names,
    /// The session that it belongs to.
    pub handover: Handover,
    /// What stands in its files.
    pub found: Found,
    path: PathBuf,
    pub(super) file: RecordFile,
    pub(super) next: RecordSequence,
    pub(super) folder: Folder,
}

/// What stands in breakpoint files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    spans: Vec<Span>,
    /// The place that `entries` begin at: everything before it was acknowledged.
    pub start: Mark,
    /// From there to the end, one going on where the other ends; without their payloads.
    pub entries: Vec<Entry>,
    /// Behind the last of them.
    pub end: Mark,
    behind: Position,
}

impl Transfers {
    /// What a dead process has left of the last stream of a job; `None` where there is nothing to
    /// go on from. Blocks.
    ///
    /// Fails where something is there and cannot be read, or is not what its record says.
    pub fn left(&self, role: Role, job: &str) -> io::Result<Option<Left>> {
        match self.idle(role, Some(job)).pop() {
            Some((path, names)) => self.open_left(&path, names),
            None => Ok(None),
        }
    }

    /// What dead processes have left of the streams of all jobs; otherwise as [`Transfers::left`].
    pub fn all_left(&self, role: Role) -> Vec<io::Result<Left>> {
        let idle = self.idle(role, None).into_iter();
        idle.filter_map(|(path, names)| self.open_left(&path, names).transpose()).collect()
    }

    fn open_left(&self, path: &Path, names: Names) -> io::Result<Option<Left>> {
        let role = names.role;
        let (Some(stream), Some(id)) = (&names.stream, file_id(path)) else { return Ok(None) };
        let (file, recovered) = RecordFile::open(path, id, self.backend)?;
        let Some(record) = recovered.newest else { return Ok(None) };
        let is_over = matches!(record.progress.state, State::Applied | State::Abandoned);
        // One whose records had failed cannot say that it is over; its files go all the same.
        if is_over || !stream.try_exists()? {
            return Ok(None);
        }
        let folder = Folder::open_stream(stream)?;
        let handover = Handover::read(&Handover::beside(path))?;
        let start = match role {
            Role::Client => record.progress.acknowledged,
            Role::Server => Mark::default(),
        };
        let found = match record.progress.spool {
            Some(extent) => Found::scan(stream, id, extent, start)?,
            None => Found::nothing(),
        };
        let (path, next) = (path.to_owned(), recovered.next_sequence);
        Ok(Some(Left { record, names, handover, found, path, file, next, folder }))
    }
}

impl Left {
    /// The number of the frame behind all that stands in the files.
    pub fn next_frame(&self) -> Sequence {
        self.found.next_frame().unwrap_or(self.handover.first_frame)
    }

    /// Whether all of the stream stands in the files.
    pub fn is_whole(&self) -> bool {
        self.record.progress.end == Some(self.found.end) && !self.found.entries.is_empty()
    }

    /// Where its files go.
    pub fn spool(&self) -> Spool {
        let folder = self.folder.path().parent().unwrap_or(Path::new(".")).to_owned();
        let bytes = self.record.progress.spool.map(|spool| spool.segment_bytes);
        let pages = bytes.and_then(|bytes| u32::try_from(bytes.as_usize() / PAGE_BYTES).ok());
        let segment = pages.and_then(SegmentPages::new).unwrap_or(SegmentPages::STANDARD);
        Spool { when: When::Always, folder, segment, max: None, account: None }
    }

    /// Removes all of it: nothing can go on from there.
    pub fn discard(self) {
        transfers::remove(&self.path);
    }
}

impl Found {
    fn nothing() -> Found {
        let (start, end, behind) = Default::default();
        Found { spans: Vec::new(), start, entries: Vec::new(), end, behind }
    }

    /// Reads the headers of all entries that a record claims.
    fn scan(folder: &Path, id: FileId, extent: SpoolExtent, start: Mark) -> io::Result<Found> {
        let (behind, end) = (Position::default(), start);
        let mut found = Found { spans: Vec::new(), start, entries: Vec::new(), end, behind };
        let numbers = numbers(folder)?;
        let mut prefix = Prefix::from(start);
        let mut walk = Walk { folder, id, extent, numbers, file: None, before: None };
        while let Some(entry) = walk.next()? {
            found.add_to_spans(&entry);
            found.behind = behind_of(&entry);
            if entry.frame.offset >= start.to {
                if entry.frame.offset != prefix.to() {
                    return Err(unlike(&format!("nothing begins at {}", prefix.to())));
                }
                prefix.append(entry.frame.crc32, entry.frame.length());
                found.entries.push(entry);
            }
        }
        found.end = prefix.mark();
        if found.end.to == extent.high { Ok(found) } else { Err(unlike("it ends elsewhere")) }
    }

    fn add_to_spans(&mut self, entry: &Entry) {
        let (segment, low, high) = (entry.at.segment, entry.frame.offset, end_of(entry));
        match self.spans.last_mut().filter(|last| last.segment == segment) {
            Some(last) => last.high = high,
            None => self.spans.push(Span { segment, low, high }),
        }
    }

    /// The place that the frame of a number begins at, or all end at; `None` for any other number.
    pub fn place_of(&self, sequence: Sequence) -> Option<Mark> {
        let mut prefix = Prefix::from(self.start);
        for entry in &self.entries {
            if entry.frame.sequence == sequence {
                return Some(prefix.mark());
            }
            prefix.append(entry.frame.crc32, entry.frame.length());
        }
        (self.next_frame() == Some(sequence)).then_some(self.end)
    }

    /// How much of the stream is before `start`, or in frames of such numbers.
    pub fn bytes_where(&self, counts: impl Fn(Sequence) -> bool) -> Bytes {
        let frames = self.entries.iter().map(|entry| entry.frame);
        let counted = frames.filter(|frame| counts(frame.sequence)).map(|frame| frame.length().0);
        Bytes(self.start.to.0 + counted.sum::<u64>())
    }

    /// The number behind the last; `None` where there is none.
    pub fn next_frame(&self) -> Option<Sequence> {
        self.entries.last().map(|last| last.frame.sequence.next())
    }

    /// The first segment that counts, and the position behind the last entry.
    pub(super) fn extent(&self) -> Option<(SegmentNumber, Position)> {
        let first = self.spans.first()?.segment;
        Some((first, self.behind))
    }

    pub(super) fn kept(&self, record: &Record) -> Kept {
        let progress = record.progress;
        Kept {
            written: self.end,
            spans: self.spans.clone(),
            fed: match record.job.role {
                Role::Client => progress.fed,
                // A new pipe is fed from the first byte.
                Role::Server => StreamOffset(0),
            },
            acknowledged: progress.acknowledged,
            next_frame: self.next_frame().unwrap_or(progress.next_frame),
            end: progress.end,
        }
    }
}

/// Goes from entry to entry, as they were placed.
struct Walk<'a> {
    folder: &'a Path,
    id: FileId,
    extent: SpoolExtent,
    /// The segments that have a file.
    numbers: Vec<SegmentNumber>,
    file: Option<(SegmentNumber, File)>,
    before: Option<Entry>,
}

impl Walk<'_> {
    /// The next entry that the record claims.
    fn next(&mut self) -> io::Result<Option<Entry>> {
        let Some(before) = self.before else {
            let first = Position { segment: self.extent.first_segment, page: 0 };
            return self.read(first).and_then(|entry| self.pass(entry));
        };
        if end_of(&before) >= self.extent.high {
            return Ok(None);
        }
        let entry = match self.read(behind_of(&before)) {
            Ok(entry) if self.goes_on(&entry) => entry,
            // It did not fit there, or a process that came later began a new file.
            _ => {
                let of_it = before.at.segment..=self.extent.last_segment;
                let mut later =
                    self.numbers.iter().copied().filter(|number| of_it.contains(number));
                let nothing = || unlike(&format!("nothing goes on at {}", end_of(&before)));
                let segment =
                    later.find(|&number| number > before.at.segment).ok_or_else(nothing)?;
                self.read(Position { segment, page: 0 })?
            }
        };
        self.pass(entry)
    }

    fn goes_on(&self, entry: &Entry) -> bool {
        self.before.is_none_or(|before| {
            let (this, that) = (entry.frame, before.frame);
            (this.transfer, this.epoch) == (that.transfer, that.epoch)
                && this.sequence == that.sequence.next()
                && this.offset == end_of(&before)
        })
    }

    fn pass(&mut self, entry: Entry) -> io::Result<Option<Entry>> {
        if !self.goes_on(&entry) {
            return Err(unlike(&format!("page {} of a segment goes on elsewhere", entry.at.page)));
        }
        self.before = Some(entry);
        Ok(Some(entry))
    }

    fn read(&mut self, at: Position) -> io::Result<Entry> {
        let file = match &mut self.file {
            Some((open, file)) if *open == at.segment => file,
            other => {
                let file = File::open(path_in(self.folder, at.segment))?;
                &mut other.insert((at.segment, file)).1
            }
        };
        let mut header = [0; ENTRY_HEADER.end - ENTRY_HEADER.start];
        let place = at.file_offset().0 + ENTRY_HEADER.start as u64;
        file.read_exact_at(&mut header, place)?;
        Entry::decode(&header, self.id, at, Bytes(u32::MAX.into()))
            .map_err(|error| unlike(&error.to_string()))
    }
}

fn behind_of(entry: &Entry) -> Position {
    Position { page: entry.at.page.saturating_add(entry.pages()), ..entry.at }
}

fn end_of(entry: &Entry) -> StreamOffset {
    let end = entry.frame.offset.after(entry.frame.length());
    end.unwrap_or(StreamOffset(u64::MAX))
}

fn unlike(how: &str) -> io::Error {
    let text = format!("the breakpoint files are not what their record says: {how}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

const _: () = assert!(ENTRY_HEADER.end == PAGE_BYTES);
