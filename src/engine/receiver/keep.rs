//! Block -> breakpoint file: writes what the sink gets to disk as well, so that it outlives us.
//!
//! Beside `splice`, which deals the places: a block goes to the pipe and to its file from the same
//! slot, at the same time, and the slot goes home when both are done. What must never happen here:
//! that anybody is told of a block which has not been written, and everything before it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use sys::loan::Loan;
use sys::port::{Act, Completion, Port, Request};
use sys::wake::Waker;

use crate::engine::fault::Fault;
use crate::engine::halt::Halt;
use crate::protocol::frame::Header;
use crate::spool::segments::Place;
use crate::spool::trail::Trail;
use crate::units::Sequence;

/// Writes in flight: one on the disk and one behind it, and as many being made ready.
pub(super) const DEPTH: u32 = 4;

/// What the stage is told.
#[derive(Debug)]
pub(super) enum ToKeep {
    /// A stream begins whose writes leave this trail; its first block has this number.
    Open(Trail, Sequence),
    /// Write so many bytes of a slot, an entry as it stands there.
    Write { frame: Header, place: Place, loan: Arc<Loan>, length: usize },
    /// No place can be had for any more.
    Broken(io::Error),
}

/// What the stage has done, for the one that deals the places.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Every block numbered below is written.
    written: AtomicU64,
    failed: AtomicBool,
}

/// The way to the stage.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub orders: Sender<ToKeep>,
    pub waker: Arc<Waker>,
    pub done: Arc<Done>,
}

/// The stage.
pub(super) struct Writer {
    // Its operations end before all else.
    pub port: Port,
    pub orders: Receiver<ToKeep>,
    pub halt: Arc<Halt>,
    pub done: Arc<Done>,
    pub state: State,
}

#[derive(Default)]
pub(super) struct State {
    trail: Option<Trail>,
    writing: BTreeMap<u32, (Sequence, usize)>,
    key: u32,
}

impl Shelf {
    pub fn put(&self, order: ToKeep) {
        // A stage that has ended has said why.
        if self.orders.send(order).is_ok() {
            self.waker.wake();
        }
    }
}

impl Done {
    /// Whether a block is written.
    pub fn has(&self, sequence: Sequence) -> bool {
        sequence.0 < self.written.load(Ordering::Acquire)
    }

    /// Nothing more is kept.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Whether nothing more is kept.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

impl Writer {
    /// Writes until the halt.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut completions = Vec::new();
        while !self.halt.is_on() {
            self.take_in()?;
            self.port.wait(None, &mut completions).map_err(broken)?;
            for completion in completions.drain(..) {
                if let Completion::Written { key, result } = completion {
                    self.settle(key, result);
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self) -> Result<(), Fault> {
        while self.state.writing.len() < DEPTH as usize {
            match self.orders.try_recv() {
                Ok(ToKeep::Open(trail, first)) => {
                    self.state.trail = Some(trail);
                    self.done.failed.store(false, Ordering::Release);
                    self.done.written.store(first.0, Ordering::Release);
                }
                Ok(ToKeep::Write { frame, place, loan, length }) => {
                    self.write(frame, place, loan, length)?;
                }
                Ok(ToKeep::Broken(error)) => self.fail(error),
                // Whoever hung up has turned the halt on.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        frame: Header,
        place: Place,
        loan: Arc<Loan>,
        length: usize,
    ) -> Result<(), Fault> {
        let Some(trail) = &mut self.state.trail else { return Ok(()) };
        let (fd, offset) = (Arc::clone(&place.fd), place.at.file_offset().0);
        trail.begin(frame, place);
        self.state.key = self.state.key.wrapping_add(1);
        let key = self.state.key;
        self.state.writing.insert(key, (frame.sequence, length));
        let act = Act::WriteAt(loan, 0..length, offset);
        self.port.submit(Request { key, fd, act }).map_err(broken)
    }

    fn settle(&mut self, key: u32, result: io::Result<usize>) {
        let Some((sequence, length)) = self.state.writing.remove(&key) else { return };
        match result {
            Ok(written) if written == length => {
                let Some(trail) = &mut self.state.trail else { return };
                trail.written(sequence);
                if let Some(next) = trail.next() {
                    self.done.written.store(next.0, Ordering::Release);
                }
            }
            Ok(written) => {
                let text = format!("a breakpoint file took {written} of {length} bytes");
                self.fail(io::Error::new(io::ErrorKind::WriteZero, text));
            }
            Err(error) => {
                let text = format!("write a breakpoint file: {error}");
                self.fail(io::Error::new(error.kind(), text));
            }
        }
    }

    /// The recorder says so.
    fn fail(&mut self, error: io::Error) {
        if let Some(mut trail) = self.state.trail.take() {
            self.done.fail();
            trail.broken(error);
        }
    }
}

fn broken(error: io::Error) -> Fault {
    Fault::Setup("keep", error)
}
