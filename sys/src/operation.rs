//! What a port can be asked to do, and what it answers.
//!
//! The words that both backends share. An operation owns its slot and its descriptor until its
//! completion gives them back.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::bay::Bay;
use crate::loan::Loan;

/// What is to be done, with the slot to do it on.
#[derive(Debug)]
pub enum Act {
    /// Read what is there, at least a byte, into `range` of the slot; 0 bytes mean the end.
    Read(Loan, Range<usize>),
    /// Receive from a socket until `range` of the slot is full or the peer is done.
    Receive(Loan, Range<usize>),
    /// Send all of `range` of the slot. It stays readable for its other holders.
    Send(Arc<Loan>, Range<usize>),
    /// As `Send`, from the slot's own pages (`IORING_OP_SEND_ZC`): a [`Completion::Released`]
    /// follows. A backend or kernel without it sends a copy.
    SendZeroCopy(Arc<Loan>, Range<usize>),
    /// Read from this byte of a file, until `range` of the slot is full or the file ends.
    ReadAt(Loan, Range<usize>, u64),
    /// Write all of `range` of the slot at this byte of a file. The slot stays readable for its
    /// other holders.
    WriteAt(Arc<Loan>, Range<usize>, u64),
    /// Wait until the peer of a socket that only we send on has closed or broken it, or has said
    /// something all the same. Takes no byte, and counts as an operation of the inward direction.
    Watch,
    /// Move what a source has, at least a byte and at most so many, into a bay; 0 bytes mean the
    /// end. This and the next two take a port made by [`crate::port::Port::for_bays`].
    Draw(Bay, usize),
    /// Move so many bytes from a socket into an empty bay, or all until the peer is done.
    ReceiveBay(Bay, usize),
    /// Send a head and then all that a bay has, which keeps it.
    SendBay(Box<[u8]>, Arc<Bay>),
}

/// An [`Act`] on a descriptor. `key` comes back in its completion.
#[derive(Debug)]
pub struct Request {
    /// Chosen by the caller, one for each operation in flight.
    pub key: u32,
    /// Held until the operation ends, whoever closes it.
    pub fd: Arc<OwnedFd>,
    /// What to do.
    pub act: Act,
}

/// An operation, or a part of it, has ended.
#[derive(Debug)]
pub enum Completion {
    /// A read or receive: the slot is back, with as many bytes more as `result` says. Fewer than
    /// asked are the end of a socket's stream, and no event on a pipe.
    Filled {
        /// The request's.
        key: u32,
        /// The slot that was lent.
        loan: Loan,
        /// Bytes; `ECANCELED` after `Port::cancel`.
        result: io::Result<usize>,
    },
    /// A bay is back, with as many bytes more as `result` says; or as [`Completion::Filled`].
    Drawn {
        /// The request's.
        key: u32,
        /// The bay that was lent.
        bay: Bay,
        /// Bytes; `ECANCELED` after `Port::cancel`.
        result: io::Result<usize>,
    },
    /// A send: the socket takes the next one. Fewer bytes than asked mean that it broke.
    Sent {
        /// The request's.
        key: u32,
        /// Bytes.
        result: io::Result<usize>,
    },
    /// A write to a place of a file has ended. Fewer bytes than asked mean that it takes no more.
    Written {
        /// The request's.
        key: u32,
        /// Bytes.
        result: io::Result<usize>,
    },
    /// The kernel has let go of the slot of a zero-copy send; not that the peer has the bytes.
    Released {
        /// The request's.
        key: u32,
        /// The kernel made a copy all the same, as on loopback: zero-copy only costs here.
        copied: bool,
    },
    /// A watched socket has ended: [`crate::socket::take_error`] may know why.
    Watched {
        /// The request's.
        key: u32,
        /// Whether it could be watched at all.
        result: io::Result<()>,
    },
}

/// Which way the bytes go: a descriptor has one operation at a time for each of `In` and `Out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
    /// To or from a place that the operation names: no order could be lost, so there may be many.
    Place,
}

impl Act {
    pub(crate) fn direction(&self) -> Direction {
        match self {
            Act::Read(..) | Act::Receive(..) | Act::Watch | Act::Draw(..) | Act::ReceiveBay(..) => {
                Direction::In
            }
            Act::Send(..) | Act::SendZeroCopy(..) | Act::SendBay(..) => Direction::Out,
            Act::ReadAt(..) | Act::WriteAt(..) => Direction::Place,
        }
    }

    /// Whether it moves a bay.
    pub(crate) fn is_of_bay(&self) -> bool {
        matches!(self, Act::Draw(..) | Act::ReceiveBay(..) | Act::SendBay(..))
    }

    pub(crate) fn fits_its_slot(&self) -> bool {
        let (slot, range) = match self {
            Act::Read(loan, range) | Act::Receive(loan, range) | Act::ReadAt(loan, range, _) => {
                (loan.len(), range)
            }
            Act::Send(loan, range)
            | Act::SendZeroCopy(loan, range)
            | Act::WriteAt(loan, range, _) => (loan.len(), range),
            Act::Watch | Act::Draw(..) | Act::ReceiveBay(..) | Act::SendBay(..) => return true,
        };
        range.start < range.end && range.end <= slot
    }
}
