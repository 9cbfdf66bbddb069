//! What is said between those who carry a stream and the thread that keeps its records.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::breakpoint::keeper::Reached;
use crate::breakpoint::record::{Mark, SegmentNumber};
use crate::error::Class;
use crate::units::{Sequence, StreamOffset};

/// Tells how far the stream is: at a client what was acknowledged, at a server what was fed.
pub type Look = Box<dyn Fn() -> Reached + Send>;

/// Hears what follows from the records of a stream that is kept in breakpoint files.
pub type Follow = Box<dyn Fn(Order) + Send>;

/// What follows from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// At a server: the stream is safe before this place, which may be acknowledged.
    Durable {
        /// The place.
        to: StreamOffset,
        /// The number of the frame behind it.
        next_frame: Sequence,
    },
    /// Files before this one are claimed by no record any more.
    Trim {
        /// The first that stays.
        before: SegmentNumber,
    },
    /// Nothing more is kept: a disk has failed.
    Retired,
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
pub(super) enum Note {
    Opened,
    Ended(Mark),
    Over(Over),
    /// A part of the stream stands in its files, behind all parts before it.
    Written(Written),
    /// A write to them has failed.
    Broken(io::Error),
}

/// A part of a stream that was written to one file, and is not durable yet.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub segment: SegmentNumber,
    pub fd: Arc<OwnedFd>,
    pub from: StreamOffset,
    pub mark: Mark,
    /// The number of the frame behind it.
    pub next_frame: Sequence,
}
