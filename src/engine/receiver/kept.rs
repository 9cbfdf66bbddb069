//! A stream that is kept in breakpoint files while it is fed: the side of whoever feeds it.
//!
//! Deals each block its place, and reads back what a new sink has not got: after a restart it is
//! fed from the first byte, while blocks that come are only written, until it has caught up. What
//! must never happen here: that the sink gets a byte which is not what was kept, or in another
//! order.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sys::direct::AlignedBuffer;
use sys::loan::Loan;

use super::keep::{Shelf, ToKeep};
use crate::breakpoint::segment::{ENTRY_HEADER, Entry, PAGE_BYTES, Position, entry_pages};
use crate::engine::block::{Block, HEADROOM};
use crate::engine::fault::Fault;
use crate::protocol::frame::{Codec, Header};
use crate::spool::keeping::Stream;
use crate::spool::left::Found;
use crate::spool::segments::{Place, Segments};
use crate::units::{Bytes, Sequence};

/// The stage that writes finds its entries in the slots.
const _: () = assert!(HEADROOM == PAGE_BYTES);

/// The breakpoint files of the stream that is being fed.
#[derive(Debug)]
pub(super) struct Kept {
    segments: Segments,
    shelf: Shelf,
    block_bytes: Bytes,
    /// What the sink has not got, in order; `None` once it has got all.
    behind: Option<VecDeque<Shelved>>,
    file: Option<(Position, File)>,
}

/// A block in a file.
#[derive(Clone, Copy, Debug)]
struct Shelved {
    sequence: Sequence,
    at: Position,
    payload_bytes: u32,
}

/// A block that was read back.
pub(super) struct ReadBack {
    pub frame: Header,
    bytes: AlignedBuffer,
}

impl ReadBack {
    /// The block's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[HEADROOM..HEADROOM + self.frame.plain_bytes as usize]
    }
}

impl Kept {
    /// Keeps a stream whose next block is `next`. What was `found` of it is what the sink must get
    /// first.
    pub fn begin(
        stream: Stream,
        found: Option<&Found>,
        next: Sequence,
        shelf: Shelf,
        block_bytes: Bytes,
    ) -> Kept {
        let Stream { segments, trail } = stream;
        shelf.put(ToKeep::Open(trail, next));
        let behind = found.map(|found| found.entries.iter().map(Shelved::from).collect());
        Kept { segments, shelf, block_bytes, behind, file: None }
    }

    /// Has a block written; gives back its slot. One that cannot be written goes on all the same,
    /// but not to a sink that has not got those before it.
    pub fn write(&mut self, block: Block) -> Result<Arc<Loan>, Fault> {
        let header = raw(&block);
        let Block { mut loan, .. } = block;
        let place = match self.place(header.payload_bytes) {
            Ok(place) => place,
            Err(error) if self.is_behind() => {
                let folder = self.segments.folder().to_owned();
                return Err(Fault::Unkept { folder, reason: error.to_string() });
            }
            Err(error) => {
                self.shelf.put(ToKeep::Broken(error));
                return Ok(Arc::new(loan));
            }
        };
        let entry = Entry { at: place.at, frame: header, payload_crc32: header.crc32 };
        loan[ENTRY_HEADER].copy_from_slice(&self.segments.stamp(&entry));
        let loan = Arc::new(loan);
        if let Some(behind) = &mut self.behind {
            behind.push_back(Shelved::from(&entry));
        }
        let length = entry.pages() as usize * PAGE_BYTES;
        let slot = Arc::clone(&loan);
        self.shelf.put(ToKeep::Write { frame: header, place, loan: slot, length });
        Ok(loan)
    }

    fn place(&mut self, payload_bytes: u32) -> io::Result<Place> {
        if self.shelf.done.has_failed() {
            return Err(io::Error::other("a write to it has failed before"));
        }
        self.segments.place(payload_bytes)?.ok_or_else(|| {
            let text = "it is full, and a stream is kept whole at the receiving side";
            io::Error::new(io::ErrorKind::StorageFull, text)
        })
    }

    /// Whether the sink has still to get blocks out of files.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// The next block that the sink has not got, as soon as it is written; `None` also when there
    /// is none any more.
    pub fn read_back(&mut self) -> Result<Option<ReadBack>, Fault> {
        let Some(behind) = &mut self.behind else { return Ok(None) };
        let Some(&first) = behind.front() else {
            self.behind = None;
            return Ok(None);
        };
        if !self.shelf.done.has(first.sequence) {
            return if self.shelf.done.has_failed() {
                let reason = "it was not written, for the disk had failed".to_owned();
                Err(self.unreadable(first, reason))
            } else {
                Ok(None)
            };
        }
        behind.pop_front();
        match self.read(first) {
            Ok(read) => Ok(Some(read)),
            Err(reason) => Err(self.unreadable(first, reason)),
        }
    }

    fn read(&mut self, shelved: Shelved) -> Result<ReadBack, String> {
        let file = self.file(shelved.at).map_err(|error| error.to_string())?;
        let mut bytes = AlignedBuffer::zeroed(entry_pages(shelved.payload_bytes) as usize);
        let read = file.read_exact_at(&mut bytes, shelved.at.file_offset().0);
        read.map_err(|error| error.to_string())?;
        let proved = self.segments.prove(&bytes, shelved.at, self.block_bytes);
        let frame = proved.map_err(|error| error.to_string())?;
        if frame.sequence != shelved.sequence || frame.codec != Codec::Raw {
            return Err(format!("block {} stands there", frame.sequence));
        }
        Ok(ReadBack { frame, bytes })
    }

    fn file(&mut self, at: Position) -> io::Result<&File> {
        let file = match self.file.take() {
            Some((open, file)) if open.segment == at.segment => file,
            _ => File::open(self.segments.path(at.segment))?,
        };
        Ok(&self.file.insert((at, file)).1)
    }

    fn unreadable(&self, shelved: Shelved, reason: String) -> Fault {
        let file = self.segments.path(shelved.at.segment);
        Fault::Spool { file, page: shelved.at.page, reason }
    }
}

impl From<&Entry> for Shelved {
    fn from(entry: &Entry) -> Shelved {
        let Header { sequence, payload_bytes, .. } = entry.frame;
        Shelved { sequence, at: entry.at, payload_bytes }
    }
}

/// The frame of a block that is kept: unpacked, whatever it was on the wire.
fn raw(block: &Block) -> Header {
    let length = u32::try_from(block.length).expect("a frame said its length in 32 bits");
    Header {
        transfer: block.place.transfer,
        epoch: block.place.epoch,
        sequence: block.place.sequence,
        offset: block.place.offset,
        codec: Codec::Raw,
        plain_bytes: length,
        payload_bytes: length,
        crc32: block.crc32,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sys::arena::Arena;
    use sys::loan::Pool;
    use sys::wake::Waker;

    use super::*;
    use crate::breakpoint::identity::FileId;
    use crate::breakpoint::segment::SegmentPages;
    use crate::engine::block;
    use crate::engine::receiver::keep::Done;
    use crate::spool::folder::Folder;
    use crate::units::{StreamOffset, TransferId};

    /// Files in a folder whose stage writes nothing.
    fn kept(parent: &Path) -> Kept {
        let path = Folder::of_stream(parent, FileId([1; 16]));
        let folder = Folder::create_for_stream(&path).unwrap();
        let segments = Segments::within(folder, SegmentPages::new(4).unwrap(), None);
        let waker = Arc::new(Waker::new().unwrap());
        let (orders, _nobody) = crossbeam_channel::unbounded();
        let shelf = Shelf { orders, waker, done: Arc::new(Done::default()) };
        let behind = Some(VecDeque::new());
        Kept { segments, shelf, block_bytes: Bytes(4096), behind, file: None }
    }

    fn block(number: u64, arena: &Arc<Arena>, waker: &Arc<Waker>) -> Block {
        let [loan] = Pool::split(arena, 1, waker).remove(0).take().unwrap();
        let (sequence, offset) = (Sequence(number), StreamOffset(number * 100));
        let place = block::Place { transfer: TransferId(1), epoch: 1, sequence, offset };
        Block { place, loan, length: 100, crc32: 7 }
    }

    #[test]
    fn nothing_is_read_back_before_it_is_written_and_nothing_is_left_out() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut kept = kept(folder.path());
        let waker = Arc::new(Waker::new().unwrap());
        let arena = || Arena::new(2 * PAGE_BYTES, 1).unwrap();
        drop(kept.write(block(0, &arena(), &waker)).unwrap());
        assert!(kept.read_back().unwrap().is_none() && kept.is_behind());
        kept.shelf.done.fail();
        // Fed now, it would come before the one that the sink has not got.
        let Err(Fault::Unkept { .. }) = kept.write(block(1, &arena(), &waker)) else {
            panic!("a block is left out");
        };
        let Err(Fault::Spool { reason, .. }) = kept.read_back() else { panic!("no fault") };
        assert!(reason.contains("not written"), "{reason}");
        kept.behind = None;
        assert!(kept.write(block(1, &arena(), &waker)).is_ok(), "the stream goes on without files");
    }
}
