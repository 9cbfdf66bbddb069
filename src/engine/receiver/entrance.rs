//! The way into whatever takes a stream: open from the start, or guarded.
//!
//! A guard is shown the beginning of the stream and says whether there is a sink for it; before
//! that there is none, so nothing of a stream that is turned away reaches anybody. The beginning
//! may come in several blocks, which are copied meanwhile: their slots and bays go home, so that
//! no stream can hold the cache by beginning slowly. What must never happen here: a byte that goes
//! in before all those before it.

use std::fmt;
use std::os::fd::OwnedFd;

use sys::splicer::Splicer;

use crate::breakpoint::prefix::Prefix;
use crate::engine::fault::Fault;
use crate::error::Failure;
use crate::units::StreamOffset;

/// Where a stream goes.
#[derive(Debug)]
pub struct Sink {
    /// The descriptor.
    pub fd: OwnedFd,
    /// How it takes bytes.
    pub feed: Feed,
}

/// How a sink takes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// A pipe of ours whose reader copies what it reads, as `zfs receive` does: by vmsplice.
    Splice,
    /// A pipe of ours with any other reader: by write.
    Write,
    /// A descriptor that we were given: by write, and its settings are left alone.
    Foreign,
}

/// The way to a sink.
#[derive(Debug)]
pub enum Entrance {
    /// The stream goes in, whatever it is.
    Open(Sink),
    /// It goes in if the guard lets it.
    Guarded(Box<dyn Guard>),
}

/// Decides by how a stream begins whether it goes in, and where.
pub trait Guard: fmt::Debug + Send {
    /// The sink for the stream that begins like this; `None` as long as that is too little to
    /// tell. `beginning` is all that has come, from the first byte on: a guard that never has
    /// enough would have all of the stream in memory.
    fn admit(&mut self, beginning: &[u8]) -> Result<Option<Sink>, Failure>;

    /// What to say of a stream that has ended while it was too little.
    fn too_short(&self, beginning: &[u8]) -> Failure;
}

/// The way that the transfer being fed takes.
#[derive(Debug)]
pub(super) enum Door {
    Open { splicer: Splicer, feed: Feed },
    Shut(Waiting),
}

/// What stands before a guard.
#[derive(Debug)]
pub(super) struct Waiting {
    guard: Box<dyn Guard>,
    beginning: Vec<u8>,
    prefix: Prefix,
}

/// What was copied while the door was shut, and is the first to go in.
#[derive(Default)]
pub(super) struct Before {
    pub bytes: Vec<u8>,
    pub prefix: Prefix,
}

impl From<Sink> for Entrance {
    fn from(sink: Sink) -> Entrance {
        Entrance::Open(sink)
    }
}

impl Door {
    pub fn of(entrance: Entrance) -> Result<Door, Fault> {
        match entrance {
            Entrance::Open(sink) => Door::open(sink),
            Entrance::Guarded(guard) => {
                let (beginning, prefix) = (Vec::new(), Prefix::default());
                Ok(Door::Shut(Waiting { guard, beginning, prefix }))
            }
        }
    }

    fn open(sink: Sink) -> Result<Door, Fault> {
        let splicer = match sink.feed {
            Feed::Splice | Feed::Write => Splicer::new(sink.fd),
            Feed::Foreign => Ok(Splicer::foreign(sink.fd)),
        }
        .map_err(|error| Fault::Sink(StreamOffset(0), error))?;
        Ok(Door::Open { splicer, feed: sink.feed })
    }

    pub fn is_shut(&self) -> bool {
        matches!(self, Door::Shut(_))
    }

    /// Shows a block to the guard of a shut door, which opens, and what waited has to go in before
    /// this block; or stays shut, and a copy of the block waits, too.
    pub fn show(&mut self, block: &[u8], crc32: u32) -> Result<Option<Before>, Fault> {
        let Door::Shut(waiting) = self else { return Ok(Some(Before::default())) };
        let Some(sink) = waiting.show(block)? else {
            waiting.keep(block, crc32);
            return Ok(None);
        };
        let bytes = std::mem::take(&mut waiting.beginning);
        let before = Before { bytes, prefix: std::mem::take(&mut waiting.prefix) };
        *self = Door::open(sink)?;
        Ok(Some(before))
    }

    /// The stream ends at `end`: a fault, if all of it still stands before a shut door.
    pub fn check_end(&self, end: StreamOffset) -> Result<(), Fault> {
        match self {
            Door::Shut(waiting) if waiting.prefix.to() >= end => {
                let failure = waiting.guard.too_short(&waiting.beginning);
                Err(Fault::TurnedAway(Box::new(failure)))
            }
            _ => Ok(()),
        }
    }
}

impl Waiting {
    fn show(&mut self, block: &[u8]) -> Result<Option<Sink>, Fault> {
        let before = self.beginning.len();
        let admitted = if before == 0 {
            self.guard.admit(block)
        } else {
            self.beginning.extend_from_slice(block);
            let admitted = self.guard.admit(&self.beginning);
            self.beginning.truncate(before);
            admitted
        };
        admitted.map_err(|failure| Fault::TurnedAway(Box::new(failure)))
    }

    fn keep(&mut self, block: &[u8], crc32: u32) {
        self.beginning.extend_from_slice(block);
        self.prefix.append(crc32, block.len().into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::error::{Class, Side};
    use sys::pipe::Pipe;

    /// Lets streams in that begin with `good`, into a pipe.
    #[derive(Debug)]
    struct Asks {
        good: &'static [u8],
        pipe: Option<OwnedFd>,
    }

    impl Guard for Asks {
        fn admit(&mut self, beginning: &[u8]) -> Result<Option<Sink>, Failure> {
            match beginning.get(..self.good.len()) {
                None => Ok(None),
                Some(word) if word == self.good => {
                    Ok(self.pipe.take().map(|fd| Sink { fd, feed: Feed::Splice }))
                }
                Some(_) => Err(Failure::new(Side::Source, Class::Peer, "not good")),
            }
        }

        fn too_short(&self, beginning: &[u8]) -> Failure {
            Failure::new(Side::Source, Class::Peer, format!("only {}", beginning.len()))
        }
    }

    fn guarded() -> (Door, std::fs::File) {
        let pipe = Pipe::new(1 << 16).unwrap();
        let guard = Asks { good: b"good", pipe: Some(pipe.writer) };
        (Door::of(Entrance::Guarded(Box::new(guard))).unwrap(), pipe.reader.into())
    }

    #[test]
    fn a_beginning_in_pieces_is_told_in_front_of_the_block_that_opens() {
        let (mut door, mut reader) = guarded();
        assert!(door.show(b"go", crc32fast::hash(b"go")).unwrap().is_none());
        assert!(door.show(b"o", crc32fast::hash(b"o")).unwrap().is_none());
        let before = door.show(b"d stream", 0).unwrap().unwrap();
        assert_eq!(before.bytes, b"goo");
        assert_eq!(before.prefix.mark().crc32, crc32fast::hash(b"goo"));
        assert!(door.show(b"more", 0).unwrap().unwrap().bytes.is_empty());
        drop(door);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "the door itself feeds nothing");
    }

    #[test]
    fn what_is_turned_away_has_no_sink() {
        let (mut door, _reader) = guarded();
        assert!(door.show(b"ba", 0).unwrap().is_none());
        let Err(Fault::TurnedAway(failure)) = door.show(b"dly", 0) else { panic!("let in") };
        assert_eq!(failure.what, "not good");
        assert!(door.is_shut());
    }

    #[test]
    fn a_stream_that_ends_before_the_door_is_open_is_turned_away() {
        let (mut door, _reader) = guarded();
        door.show(b"goo", 0).unwrap();
        assert!(door.check_end(StreamOffset(4)).is_ok(), "the rest is on its way");
        let Err(Fault::TurnedAway(failure)) = door.check_end(StreamOffset(3)) else {
            panic!("let in")
        };
        assert_eq!(failure.what, "only 3");
        door.show(b"d", 0).unwrap();
        assert!(door.check_end(StreamOffset(3)).is_ok(), "it is open");
        let (empty, _reader) = guarded();
        assert!(empty.check_end(StreamOffset(0)).is_err());
    }
}
