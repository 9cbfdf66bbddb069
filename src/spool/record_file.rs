//! The file that the records of one transfer go around in: 64 slots of a page, 256 KiB.
//!
//! It gets all its blocks when it is made, before the first byte of the transfer: a record can be
//! written on a disk that is full. Locked while it is open, so that no second job writes it.

use std::io;
use std::path::Path;

use sys::backend::Backend;
use sys::direct::{AlignedBuffer, DirectFile, PageIndex, PageWriter};

pub use sys::direct::Existing;

use crate::breakpoint::identity::{FileId, RingSlots};
use crate::breakpoint::record::{Record, SLOT_BYTES};
use crate::breakpoint::recovery::{Recovered, recover};

/// How many slots every record file has.
const RING: RingSlots = RingSlots::STANDARD;

const _: () = assert!(SLOT_BYTES == sys::direct::PAGE_BYTES);

/// An open record file.
#[derive(Debug)]
pub struct RecordFile {
    writer: PageWriter,
    file: FileId,
}

impl RecordFile {
    /// Makes a file without records; it is durable under its name when this returns.
    pub fn create(
        path: &Path,
        file: FileId,
        existing: Existing,
        backend: Backend,
    ) -> io::Result<RecordFile> {
        let made = DirectFile::create(path, RING.get().into(), existing)?;
        Ok(RecordFile { writer: PageWriter::new(made, backend)?, file })
    }

    /// Opens a file and finds the newest record of it that can be believed. The next one to be
    /// written has the sequence that [`Recovered`] says.
    ///
    /// `InvalidData`: the file is shorter or longer than one that was made whole. It never held a
    /// record, or somebody changed it; [`Existing::Overwrite`] makes a new one of it.
    pub fn open(
        path: &Path,
        file: FileId,
        backend: Backend,
    ) -> io::Result<(RecordFile, Recovered)> {
        let opened = DirectFile::open(path)?;
        let pages = u64::from(RING.get());
        if opened.pages() != pages {
            let text = format!(
                "{} has {} pages, a record file has {pages}: its making was cut short",
                path.display(),
                opened.pages(),
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // Past the page cache: what counts is what the disk has.
        let mut image = AlignedBuffer::zeroed(RING.get() as usize);
        opened.read_at(&mut image, PageIndex(0))?;
        let recovered = recover(&image, RING, file);
        Ok((RecordFile { writer: PageWriter::new(opened, backend)?, file }, recovered))
    }

    /// Writes a record to its slot; it is durable when this returns. After an error the file is
    /// retired, and every later write fails.
    ///
    /// # Panics
    ///
    /// When the record belongs to another file: that is our own mistake.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        assert_eq!((record.file, record.ring), (self.file, RING), "a record of another file");
        self.writer.page_mut().copy_from_slice(&record.encode_slot());
        self.writer.write(PageIndex(record.slot().0.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breakpoint::identity::{BootId, RecordSequence, SessionId};
    use crate::breakpoint::record::{Cargo, Job, Progress, Role};
    use crate::units::TransferId;

    const FILE: FileId = FileId([5; 16]);

    fn record(sequence: RecordSequence, parent: Option<&Record>) -> Record {
        let job = Job {
            role: Role::Client,
            session: SessionId([6; 16]),
            transfer: TransferId(1),
            epoch: 1,
            cargo: Cargo::Pipe,
        };
        Record {
            file: FILE,
            ring: RING,
            sequence,
            parent: parent.map(Record::checksum),
            job,
            progress: Progress::BEGUN,
            boot: BootId([7; 16]),
            wall_clock_ms: 0,
        }
    }

    fn with_each_backend(fact: impl Fn(&Path, Backend)) {
        for backend in [Backend::Uring, Backend::Threads] {
            let directory = tempfile::tempdir_in("/var/tmp").unwrap();
            fact(&directory.path().join("records"), backend);
        }
    }

    #[test]
    fn the_newest_record_is_found_after_reopening() {
        with_each_backend(|path, backend| {
            let mut file = RecordFile::create(path, FILE, Existing::Refuse, backend).unwrap();
            let (mut sequence, mut last) = (RecordSequence::FIRST, None);
            for _ in 0..70 {
                let next = record(sequence, last.as_ref());
                file.write(&next).unwrap();
                (sequence, last) = (sequence.next(), Some(next));
            }
            drop(file);
            let (_file, recovered) = RecordFile::open(path, FILE, backend).unwrap();
            assert_eq!((recovered.newest, recovered.damage), (last, Vec::new()));
            assert_eq!(recovered.next_sequence.get(), 72);
        });
    }

    #[test]
    fn a_new_file_has_all_its_blocks_and_no_record() {
        with_each_backend(|path, backend| {
            RecordFile::create(path, FILE, Existing::Refuse, backend).unwrap();
            assert_eq!(std::fs::metadata(path).unwrap().len(), 256 << 10);
            let (_file, recovered) = RecordFile::open(path, FILE, backend).unwrap();
            assert_eq!((recovered.newest, recovered.damage), (None, Vec::new()));
        });
    }

    #[test]
    fn a_file_of_another_transfer_is_not_believed() {
        with_each_backend(|path, backend| {
            let mut file = RecordFile::create(path, FILE, Existing::Refuse, backend).unwrap();
            file.write(&record(RecordSequence::FIRST, None)).unwrap();
            drop(file);
            let (_file, recovered) = RecordFile::open(path, FileId([9; 16]), backend).unwrap();
            assert_eq!((recovered.newest, recovered.damage.len()), (None, 1));
        });
    }

    #[test]
    fn a_file_whose_making_was_cut_short_is_refused_with_its_length() {
        with_each_backend(|path, backend| {
            std::fs::write(path, [0].repeat(5 * SLOT_BYTES)).unwrap();
            let error = RecordFile::open(path, FILE, backend).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("has 5 pages, a record file has 64"), "{error}");
            RecordFile::create(path, FILE, Existing::Overwrite, backend).unwrap();
        });
    }

    #[test]
    fn two_jobs_cannot_have_one_file() {
        with_each_backend(|path, backend| {
            let _first = RecordFile::create(path, FILE, Existing::Refuse, backend).unwrap();
            let second = RecordFile::open(path, FILE, backend).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        });
    }
}
