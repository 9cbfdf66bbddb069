//! Blocks that never leave the kernel: their pages move into a pipe of ours, stand there, and move
//! on.
//!
//! A hold is to the splice lane what a slot of the arena is to the block lane: one block, in one
//! hand, and dropped anywhere it goes home empty and wakes the stage that waits for room. What it
//! holds can be teed into a socket as often as it takes (tee(2) takes references, no copies) until
//! the other side has it. A pipe has places, not bytes: every piece of a page takes one, so a hold
//! may be full before it has as many bytes as it could.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};

use crate::ledger::Ledger;
use crate::pipe::Pipe;
use crate::wake::Waker;

/// As many pipes of one size as the machine grants, with one taker.
#[derive(Clone, Debug)]
pub struct Holds {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pipes: Vec<Pipe>,
    ledger: Ledger,
    taker: Arc<Waker>,
    /// Where the pages of a hold go that nobody needs any more.
    nowhere: File,
}

/// The right to one pipe and the bytes in it.
#[derive(Debug)]
pub struct Hold {
    slot: u32,
    bytes: usize,
    home: Arc<Shared>,
}

/// Places in a hold for each page that it shall take: what came over a network of 1500-byte packets
/// has up to 1448 bytes in a piece, and every segment of loopback's 65483 bytes cuts a page in two.
const PLACES_PER_PAGE: usize = 4;

/// Of the descriptors that the process may have (`RLIMIT_NOFILE`), the holds of one engine take no
/// more than a quarter: two for each.
const DESCRIPTORS_PER_HOLD: u64 = 8;

impl Holds {
    /// Makes up to `count` pipes for `bytes` each, however small the pieces are that these come in,
    /// or as many as the machine grants: a user without `CAP_SYS_RESOURCE` has 64 MiB of them
    /// (`pipe-user-pages-soft`), each of at most `pipe-max-size`. Of fewer than were asked for a
    /// quarter is given back. May have none; see [`Holds::count`].
    pub fn new(count: u32, bytes: usize, taker: &Arc<Waker>) -> io::Result<Holds> {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let most = u64::from(count).min(descriptors / DESCRIPTORS_PER_HOLD);
        let mut pipes = Vec::new();
        while (pipes.len() as u64) < most {
            match Pipe::new(bytes.saturating_mul(PLACES_PER_PAGE)) {
                Ok(pipe) if pipe.capacity >= bytes => pipes.push(pipe),
                Ok(_smaller) => break,
                Err(error) if is_no_more(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if (pipes.len() as u64) < most {
            // The pipes to and from processes, which come later, are of more use than these.
            pipes.truncate(pipes.len() - pipes.len().div_ceil(4));
        }
        let slots = 0..u32::try_from(pipes.len()).unwrap_or(u32::MAX);
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        let taker = Arc::clone(taker);
        let shared = Shared { pipes, ledger: Ledger::new(slots.rev()), taker, nowhere };
        Ok(Holds { shared: Arc::new(shared) })
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
    pub fn take(&self) -> Option<Hold> {
        let slot = *self.shared.ledger.take(1)?.first()?;
        Some(Hold { slot, bytes: 0, home: Arc::clone(&self.shared) })
    }
}

/// Whether an error says that this process or machine has no more descriptors.
fn is_no_more(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

impl Hold {
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
    /// `WouldBlock` where it has nothing, or where the hold is full. A socket must be `O_NONBLOCK`,
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

    /// References to all that it holds in a pipe that is empty and no smaller.
    pub(crate) fn tee(&self, way: &Pipe) -> io::Result<()> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        let count =
            unless_interrupted(|| tee(&self.pipe().reader, &way.writer, self.bytes, flags))?;
        if count == self.bytes {
            return Ok(());
        }
        Err(io::Error::other(format!("the kernel teed {count} of {} bytes", self.bytes)))
    }

    /// Takes all bytes out.
    pub(crate) fn read_out(&mut self) -> io::Result<Vec<u8>> {
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

    /// Copies what a socket has in, up to `most` bytes, into one that was packed and has no place
    /// left but in its last page.
    pub(crate) fn copy_in(&mut self, socket: &OwnedFd, most: usize) -> io::Result<usize> {
        let mut piece = vec![0; most];
        let read = unless_interrupted(|| nix::unistd::read(socket, &mut piece))?;
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

    /// What a pipe must be able to hold for [`Hold::tee`].
    pub(crate) fn capacity(&self) -> usize {
        self.pipe().capacity
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

impl Drop for Hold {
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
    use std::time::Duration;

    use super::*;

    const BYTES: usize = 64 << 10;

    fn holds(count: u32) -> (Holds, Arc<Waker>) {
        let waker = Arc::new(Waker::new().unwrap());
        (Holds::new(count, BYTES, &waker).unwrap(), waker)
    }

    fn pipe_of(bytes: &[u8]) -> Pipe {
        let pipe = Pipe::new(BYTES).unwrap();
        nix::unistd::write(&pipe.writer, bytes).unwrap();
        pipe
    }

    #[test]
    fn what_goes_in_comes_out_as_often_as_it_is_teed_and_once_when_it_is_poured() {
        let (holds, _) = holds(1);
        let mut hold = holds.take().unwrap();
        let source = pipe_of(&[7; 10_000]);
        assert_eq!(hold.fill(&source.reader, 9_000).unwrap(), 9_000);
        for _ in 0..2 {
            let way = Pipe::new(BYTES).unwrap();
            hold.tee(&way).unwrap();
            let mut copy = vec![0; 9_000];
            std::fs::File::from(way.reader).read_exact(&mut copy).unwrap();
            assert_eq!(copy, [7; 9_000]);
        }
        let sink = Pipe::new(BYTES).unwrap();
        assert_eq!(hold.pour(&sink.writer).unwrap(), 9_000);
        assert!(hold.is_empty());
    }

    #[test]
    fn nothing_there_and_the_end_are_two_things() {
        let (holds, _) = holds(1);
        let mut hold = holds.take().unwrap();
        let source = Pipe::new(BYTES).unwrap();
        let nothing = hold.fill(&source.reader, 1).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(source.writer);
        assert_eq!(hold.fill(&source.reader, 1).unwrap(), 0);
    }

    #[test]
    fn a_hold_full_of_small_pieces_has_room_again_once_they_are_packed() {
        let (holds, _) = holds(1);
        let mut hold = holds.take().unwrap();
        let mut sent = Vec::new();
        // Each piece moves as a place of its own.
        let source = Pipe::new(BYTES).unwrap();
        while !hold.is_full().unwrap() {
            let piece = [u8::try_from(sent.len() % 251).unwrap(); 100];
            nix::unistd::write(&source.writer, &piece).unwrap();
            hold.fill(&source.reader, BYTES).unwrap();
            sent.extend(piece);
        }
        assert_eq!(sent.len(), BYTES / 4096 * PLACES_PER_PAGE * 100);
        hold.pack().unwrap();
        assert!(!hold.is_full().unwrap());
        assert_eq!(hold.read_out().unwrap(), sent);
    }

    #[test]
    fn a_hold_that_is_dropped_goes_home_empty_and_wakes_the_taker() {
        let (holds, waker) = holds(1);
        let mut hold = holds.take().unwrap();
        let source = pipe_of(&[1; 5_000]);
        hold.fill(&source.reader, BYTES).unwrap();
        assert!(holds.take().is_none());
        drop(hold);
        assert!(waker.wait(Some(Duration::from_secs(10))).unwrap());
        let mut hold = holds.take().unwrap();
        std::fs::File::from(source.writer).write_all(b"new").unwrap();
        hold.fill(&source.reader, BYTES).unwrap();
        assert_eq!(hold.read_out().unwrap(), b"new");
    }

    #[test]
    fn no_more_is_made_than_descriptors_allow() {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let (holds, _) = holds(u32::MAX);
        assert!(u64::from(holds.count()) <= descriptors / DESCRIPTORS_PER_HOLD);
    }
}
