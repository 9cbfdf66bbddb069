//! Blocks that never leave the kernel: their pages move into a pipe of ours, stand there, and move
//! on.
//!
//! A bay is to the splice lane what a slot of the arena is to the block lane: one block, in one
//! hand, and dropped anywhere it goes home empty and wakes the stage that waits for room. What is
//! in it can be teed into a socket as often as it takes (tee(2) takes references, no copies) until
//! the other side has it. A pipe has places, not bytes: every piece of a page takes one, so a bay
//! may be full before it has as many bytes as it could.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};

use crate::ledger::Ledger;
use crate::pipe::Pipe;
use crate::wake::Waker;

/// As many pipes of one size as the machine grants, with one taker.
#[derive(Clone, Debug)]
pub struct Bays {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pipes: Vec<Pipe>,
    ledger: Ledger,
    taker: Arc<Waker>,
    /// Empty pipes that teed bytes go through.
    ways: Mutex<Vec<Pipe>>,
    way_bytes: usize,
    /// Where the pages of a bay go that nobody needs any more.
    nowhere: File,
    _share: Share,
}

/// The right to one pipe and the bytes in it.
#[derive(Debug)]
pub struct Bay {
    slot: u32,
    bytes: usize,
    home: Arc<Shared>,
}

/// References to the bytes of a bay, on their way into a socket.
#[derive(Debug)]
pub(crate) struct Way {
    pipe: Option<Pipe>,
    bytes: usize,
    home: Arc<Shared>,
}

/// What is wished of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Bays.
    pub count: u32,
    /// What each shall take, however small the pieces are that it comes in.
    pub bytes: usize,
    /// Bays that are sent at the same time.
    pub ways: u32,
}

/// Places in a bay for each page that it shall take: what came over a network of 1500-byte packets
/// has up to 1448 bytes in a piece, and every segment of loopback's 65483 bytes cuts a page in two.
const PLACES_PER_PAGE: usize = 4;

/// With fewer than so many, nearly every block would have to be copied to fit.
const PLACES_PER_PAGE_MIN: usize = 2;

/// Of the descriptors that the process may have (`RLIMIT_NOFILE`), all bays together take no more
/// than half: two for each.
const DESCRIPTORS_PER_BAY: u64 = 4;

/// Pipes of all bays of this process.
static PIPES: AtomicU64 = AtomicU64::new(0);

/// What one set of bays has of all pipes, given back with it.
#[derive(Debug)]
struct Share {
    of: &'static AtomicU64,
    pipes: u64,
}

impl Bays {
    /// Makes pipes as they are wished, or as many as the machine grants: a user without
    /// `CAP_SYS_RESOURCE` has 64 MiB of them (`pipe-user-pages-soft`), each of at most
    /// `pipe-max-size`. Of fewer than were asked for a quarter is given back. May have none; see
    /// [`Bays::count`].
    pub fn new(wanted: Wanted, taker: &Arc<Waker>) -> io::Result<Bays> {
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        let Wanted { count, bytes, ways } = wanted;
        let mut share = Share { of: &PIPES, pipes: 0 };
        // First those that a bay of any size must fit.
        let most = getrlimit(Resource::RLIMIT_NOFILE)?.0 / DESCRIPTORS_PER_BAY;
        let ways = share.make(bytes, ways, most)?;
        let mut pipes = share.make(bytes, count, most)?;
        if pipes.len() < count as usize {
            // The pipes to and from processes, which come later, are of more use than these.
            pipes.truncate(pipes.len() - pipes.len().div_ceil(4));
        }
        let way_bytes = ways.iter().map(|way| way.capacity).min().unwrap_or(0);
        pipes.retain(|pipe| ways.is_empty() || pipe.capacity <= way_bytes);
        if ways.len() < wanted.ways as usize {
            pipes.clear();
        }
        let slots = 0..u32::try_from(pipes.len()).unwrap_or(u32::MAX);
        let (ledger, taker) = (Ledger::new(slots.rev()), Arc::clone(taker));
        let ways = Mutex::new(ways);
        let shared = Shared { pipes, ledger, taker, ways, way_bytes, nowhere, _share: share };
        Ok(Bays { shared: Arc::new(shared) })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.shared.pipes.len()).unwrap_or(u32::MAX)
    }

    /// How many are at home at this moment.
    pub fn free(&self) -> usize {
        self.shared.ledger.free()
    }

    /// Takes an empty one. After `None` the taker's waker rings when one comes home.
    pub fn take(&self) -> Option<Bay> {
        let slot = *self.shared.ledger.take(1)?.first()?;
        Some(Bay { slot, bytes: 0, home: Arc::clone(&self.shared) })
    }
}

impl Share {
    /// Up to `count` pipes that take `bytes` each, as long as there are less than `most` of all.
    fn make(&mut self, bytes: usize, count: u32, most: u64) -> io::Result<Vec<Pipe>> {
        let mut pipes = Vec::new();
        while pipes.len() < count as usize {
            if self.of.fetch_add(1, Ordering::Relaxed) >= most {
                self.of.fetch_sub(1, Ordering::Relaxed);
                break;
            }
            self.pipes += 1;
            match Pipe::new(bytes.saturating_mul(PLACES_PER_PAGE)) {
                Ok(pipe) if pipe.capacity / PLACES_PER_PAGE_MIN >= bytes => pipes.push(pipe),
                Ok(_smaller) => break,
                Err(error) if is_no_more(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(pipes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.pipes, Ordering::Relaxed);
    }
}

/// Whether an error says that this process or machine has no more descriptors.
fn is_no_more(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

impl Bay {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether it has no place for another piece, however few bytes are in it.
    pub fn is_full(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.pipe().writer.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(ready) => Ok(ready == 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves what `source` has at this moment in, up to `most` bytes; 0 is its end.
    ///
    /// `WouldBlock` where it has nothing, or where the bay is full. A socket must be `O_NONBLOCK`,
    /// or it is waited for.
    pub(crate) fn fill(&mut self, source: impl AsFd, most: usize) -> io::Result<usize> {
        let count = unless_interrupted(|| {
            splice(source.as_fd(), None, &self.pipe().writer, None, most, MOVE)
        })?;
        self.bytes += count;
        Ok(count)
    }

    /// Moves bytes on into `sink`, as many as it takes at this moment.
    ///
    /// `WouldBlock` where it takes none; `InvalidInput` where nothing can be spliced into it.
    pub(crate) fn pour(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let most = self.bytes;
        let count = unless_interrupted(|| {
            splice(&self.pipe().reader, None, sink.as_fd(), None, most, MOVE)
        })?;
        self.bytes -= count;
        Ok(count)
    }

    /// References to all that is in it, which it keeps.
    pub(crate) fn tee(&self) -> io::Result<Way> {
        let spare = self.home.ways.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pipe = match spare {
            Some(pipe) => pipe,
            None => Pipe::new(self.home.way_bytes)?,
        };
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        let count =
            unless_interrupted(|| tee(&self.pipe().reader, &pipe.writer, self.bytes, flags))?;
        if count != self.bytes {
            let text = format!("the kernel teed {count} of {} bytes", self.bytes);
            return Err(io::Error::other(text));
        }
        Ok(Way { pipe: Some(pipe), bytes: count, home: Arc::clone(&self.home) })
    }

    /// Takes all bytes out, as a copy.
    pub fn read_out(&mut self) -> io::Result<Vec<u8>> {
        let mut all = vec![0; self.bytes];
        let mut read = 0;
        while read < all.len() {
            let reader = &self.home.pipes[self.slot as usize].reader;
            match unless_interrupted(|| nix::unistd::read(reader, &mut all[read..]))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => read += count,
            }
        }
        self.bytes = 0;
        Ok(all)
    }

    /// Makes room in one that is full of small pieces: as whole pages, the same bytes take fewer
    /// places. That is a copy, and what [`PLACES_PER_PAGE`] spares those who may have them.
    pub(crate) fn pack(&mut self) -> io::Result<()> {
        let all = self.read_out()?;
        self.put(&all)
    }

    /// Copies what a descriptor has in, up to `most` bytes; for these there must be places, or room
    /// in a last page that was copied in as well.
    pub(crate) fn copy_in(&mut self, from: &OwnedFd, most: usize) -> io::Result<usize> {
        let mut piece = vec![0; most];
        let read = unless_interrupted(|| nix::unistd::read(from, &mut piece))?;
        self.put(&piece[..read])?;
        Ok(read)
    }

    /// Appends bytes, for which there is room.
    fn put(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            let written = unless_interrupted(|| nix::unistd::write(&self.pipe().writer, rest))?;
            self.bytes += written;
            rest = &rest[written..];
        }
        Ok(())
    }

    fn pipe(&self) -> &Pipe {
        &self.home.pipes[self.slot as usize]
    }

    fn empty(&mut self) -> io::Result<()> {
        let home = Arc::clone(&self.home);
        while self.bytes > 0 && self.pour(&home.nowhere)? > 0 {}
        Ok(())
    }
}

impl Way {
    /// Moves bytes on into a socket, as many as it takes at this moment. `WouldBlock` where it
    /// takes none, if it is `O_NONBLOCK`.
    pub(crate) fn pour(&mut self, socket: &OwnedFd) -> io::Result<usize> {
        let Some(pipe) = &self.pipe else { return Ok(0) };
        let count =
            unless_interrupted(|| splice(&pipe.reader, None, socket, None, self.bytes, MOVE))?;
        self.bytes -= count;
        Ok(count)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        // One that has bytes left would send them in front of the next bay's.
        let again = match self.bytes {
            0 => self.pipe.take(),
            _ => Pipe::new(self.home.way_bytes).ok(),
        };
        self.home.ways.lock().unwrap_or_else(PoisonError::into_inner).extend(again);
    }
}

impl Drop for Bay {
    fn drop(&mut self) {
        if let Err(error) = self.empty() {
            // Never lent again: its next bytes would come behind those that are left in it.
            tracing::warn!(%error, "a pipe could not be emptied; it is not used any more");
            return;
        }
        if self.home.ledger.put(self.slot) {
            self.home.taker.wake();
        }
    }
}

const MOVE: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);

fn unless_interrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    const BYTES: usize = 64 << 10;

    fn bays(count: u32) -> (Bays, Arc<Waker>) {
        let waker = Arc::new(Waker::new().unwrap());
        (Bays::new(Wanted { count, bytes: BYTES, ways: 1 }, &waker).unwrap(), waker)
    }

    fn pipe_of(bytes: &[u8]) -> Pipe {
        let pipe = Pipe::new(BYTES).unwrap();
        nix::unistd::write(&pipe.writer, bytes).unwrap();
        pipe
    }

    #[test]
    fn what_goes_in_comes_out_as_often_as_it_is_teed_and_once_when_it_is_poured() {
        let (bays, _) = bays(1);
        let mut bay = bays.take().unwrap();
        let source = pipe_of(&[7; 10_000]);
        assert_eq!(bay.fill(&source.reader, 9_000).unwrap(), 9_000);
        for _ in 0..2 {
            let mut way = bay.tee().unwrap();
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            assert_eq!(way.pour(&ours.into()).unwrap(), 9_000);
            let mut copy = vec![0; 9_000];
            theirs.read_exact(&mut copy).unwrap();
            assert_eq!(copy, [7; 9_000]);
        }
        let sink = Pipe::new(BYTES).unwrap();
        assert_eq!(bay.pour(&sink.writer).unwrap(), 9_000);
        assert!(bay.is_empty());
    }

    #[test]
    fn nothing_there_and_the_end_are_two_things() {
        let (bays, _) = bays(1);
        let mut bay = bays.take().unwrap();
        let source = Pipe::new(BYTES).unwrap();
        let nothing = bay.fill(&source.reader, 1).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(source.writer);
        assert_eq!(bay.fill(&source.reader, 1).unwrap(), 0);
    }

    #[test]
    fn a_hold_full_of_small_pieces_has_room_again_once_they_are_packed() {
        let (bays, _) = bays(1);
        let mut bay = bays.take().unwrap();
        let mut sent = Vec::new();
        // Each piece moves as a place of its own.
        let source = Pipe::new(BYTES).unwrap();
        while !bay.is_full().unwrap() {
            let piece = [u8::try_from(sent.len() % 251).unwrap(); 100];
            nix::unistd::write(&source.writer, &piece).unwrap();
            bay.fill(&source.reader, BYTES).unwrap();
            sent.extend(piece);
        }
        assert_eq!(sent.len(), BYTES / 4096 * PLACES_PER_PAGE * 100);
        bay.pack().unwrap();
        assert!(!bay.is_full().unwrap());
        assert_eq!(bay.read_out().unwrap(), sent);
    }

    #[test]
    fn a_hold_that_is_dropped_goes_home_empty_and_wakes_the_taker() {
        let (bays, waker) = bays(1);
        let mut bay = bays.take().unwrap();
        let source = pipe_of(&[1; 5_000]);
        bay.fill(&source.reader, BYTES).unwrap();
        assert!(bays.take().is_none());
        drop(bay);
        assert!(waker.wait(Some(Duration::from_secs(10))).unwrap());
        let mut bay = bays.take().unwrap();
        std::fs::File::from(source.writer).write_all(b"new").unwrap();
        bay.fill(&source.reader, BYTES).unwrap();
        assert_eq!(bay.read_out().unwrap(), b"new");
    }

    #[test]
    fn a_way_that_was_left_in_the_middle_is_not_used_again() {
        let (bays, _) = bays(1);
        let mut bay = bays.take().unwrap();
        let source = pipe_of(&[3; 8_000]);
        bay.fill(&source.reader, BYTES).unwrap();
        drop(bay.tee().unwrap());
        let mut way = bay.tee().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(way.pour(&ours.into()).unwrap(), 8_000, "some of it was there before");
        let mut copy = Vec::new();
        theirs.read_to_end(&mut copy).unwrap();
        assert_eq!(copy, [3; 8_000]);
    }

    /// Of all bays together, whoever has them.
    #[test]
    fn no_more_are_made_than_may_be_and_those_that_are_gone_do_not_count() {
        static ALL: AtomicU64 = AtomicU64::new(0);
        let mut shares = [(); 3].map(|()| Share { of: &ALL, pipes: 0 });
        let mut make = || shares.each_mut().map(|one| one.make(BYTES, 3, 8).unwrap().len());
        assert_eq!(make(), [3, 3, 2]);
        assert_eq!(make(), [0, 0, 0]);
        drop(shares);
        assert_eq!(ALL.load(Ordering::Relaxed), 0);
    }
}
