//! What can end an engine, with the evidence.

use std::io;
use std::path::PathBuf;

use crate::breakpoint::record::Mark;
use crate::error::{Class, Failure, Side};
use crate::protocol::frame::FrameError;
use crate::protocol::window::{BeyondRoom, CreditError};
use crate::units::{Bytes, StreamOffset, TransferId};

/// Why a stage gave up. The first one counts; what follows from it is not told.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The kernel refused what the stage runs on: a ring, a bell, a thread.
    #[error("set up the {0} stage: {1}")]
    Setup(&'static str, #[source] io::Error),
    /// The stream could not be read any further.
    #[error("read the stream at byte {0}: {1}")]
    Source(StreamOffset, #[source] io::Error),
    /// A data connection broke.
    #[error("data connection {0} broke: {1}")]
    Connection(u32, #[source] io::Error),
    /// A data connection ended inside a frame or a transfer.
    #[error("data connection {0} was closed by the other side in the middle of a transfer")]
    Closed(u32),
    /// What came was no frame.
    #[error("data connection {0}: {1}")]
    Frame(u32, #[source] FrameError),
    /// A connection was dropped because of another one's trouble: a copy of a corrupt block had
    /// come over it and been thrown away, so it has to come again.
    #[error("data connection {0} had brought a copy of a block that proved corrupt")]
    Copy(u32),
    /// The sender goes beyond what it was allowed.
    #[error("data connection {0}: {1}")]
    NoRoom(u32, #[source] BeyondRoom),
    /// The receiver's word on how far the sender may go is none.
    #[error("the other side broke the protocol: {0}")]
    Credit(#[source] CreditError),
    /// A block of another transfer or place than the one that is due.
    #[error("a block for byte {got} of transfer {got_transfer} arrived; due was byte {expected}")]
    OutOfPlace {
        /// Where the next block had to begin.
        expected: StreamOffset,
        /// Where it began.
        got: StreamOffset,
        /// Whose it was.
        got_transfer: TransferId,
    },
    /// The bytes are not those that were sent.
    #[error(
        "the block at byte {offset} is corrupt: its CRC32 is {expected:#010x}, \
         but the bytes give {got:#010x}"
    )]
    Corrupt {
        /// Where the block begins.
        offset: StreamOffset,
        /// What the frame says.
        expected: u32,
        /// What its bytes give.
        got: u32,
    },
    /// The payload does not unpack to what its header says.
    #[error("the block at byte {offset} does not unpack: {reason}")]
    Unpack {
        /// Where the block begins.
        offset: StreamOffset,
        /// What zstd says.
        reason: String,
    },
    /// zstd could not pack a block.
    #[error("compress a block: {0}")]
    Pack(String),
    /// A block that was written to a breakpoint file did not come back as it was.
    #[error("read a block back from page {page} of {}: {reason}", .file.display())]
    Spool {
        /// The breakpoint file.
        file: PathBuf,
        /// Where the block begins in it.
        page: u32,
        /// What is wrong with it, or what the disk says.
        reason: String,
    },
    /// A block could not be kept in a breakpoint file, and the sink needs it from there.
    #[error("write a block to {}: {reason}", .folder.display())]
    Unkept {
        /// The folder of the stream's breakpoint files.
        folder: PathBuf,
        /// What the disk says.
        reason: String,
    },
    /// The stream as a whole is not the one that was sent.
    #[error(
        "the stream ended at byte {} with CRC32 {:#010x}; \
         sent were {} bytes with CRC32 {:#010x}",
        got.to, got.crc32, expected.to, expected.crc32
    )]
    Total {
        /// What was sent.
        expected: Mark,
        /// What was fed.
        got: Mark,
    },
    /// The process that takes the stream does not take it any more.
    #[error("feed the stream at byte {0}: {1}")]
    Sink(StreamOffset, #[source] io::Error),
    /// Whoever guards the sink does not let the stream in.
    #[error("{}", .0.what)]
    TurnedAway(Box<Failure>),
    /// A stage panicked: a mistake of ours.
    #[error("the {0} stage panicked")]
    Panicked(&'static str),
}

impl Fault {
    /// The failure as the other side, the log and the user are told of it; `here` is the side that
    /// this engine runs on.
    pub fn failure(&self, here: Side) -> Failure {
        let (side, class) = match self {
            Fault::TurnedAway(failure) => return *failure.clone(),
            Fault::Setup(..) => (here, Class::Machine),
            Fault::Source(..) => (Side::Source, Class::Interrupted),
            Fault::Spool { .. } | Fault::Unkept { .. } => (here, Class::Interrupted),
            Fault::Connection(..) | Fault::Closed(_) | Fault::Copy(_) => {
                (Side::Network, Class::Interrupted)
            }
            Fault::Frame(..)
            | Fault::NoRoom(..)
            | Fault::Credit(_)
            | Fault::OutOfPlace { .. }
            | Fault::Corrupt { .. }
            | Fault::Unpack { .. }
            | Fault::Total { .. } => (Side::Network, Class::Peer),
            Fault::Sink(..) => (Side::Target, Class::Interrupted),
            Fault::Pack(_) | Fault::Panicked(_) => (here, Class::Internal),
        };
        let failure = Failure::new(side, class, self.to_string());
        match self {
            Fault::Spool { .. } | Fault::Unkept { .. } => {
                failure.with_remedy("have that disk checked, or go on without --spool")
            }
            _ => failure,
        }
    }

    /// Whether this only says that the process at the other end of a pipe has gone, which knows
    /// better why.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Fault::Sink(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The place `length` bytes after `offset`, which a decoded header has shown to exist.
pub(super) fn advance(offset: StreamOffset, length: usize) -> StreamOffset {
    offset.after(Bytes::from(length)).unwrap_or(StreamOffset(u64::MAX))
}
