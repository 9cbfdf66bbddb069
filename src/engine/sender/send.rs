//! Frame -> socket: deals frames out, in order, to whichever connection is free.
//!
//! Last on the sender's way. Each connection has one send in flight and gets numbers that only
//! grow; the receiver relies on that: the block it needs next is never stuck behind a later one of
//! the same connection.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use sys::loan::Loan;
use sys::port::{Act, Completion, Port, Request};
use sys::wake::Waker;

use crate::engine::block::{Frame, RunningCrc};
use crate::engine::fault::Fault;
use crate::engine::halt::Halt;
use crate::engine::order::Order;
use crate::engine::progress::Progress;
use crate::engine::settings::ZeroCopy;
use crate::units::{Sequence, StreamOffset, TransferId};

/// What the stage is told.
#[derive(Debug)]
pub(super) enum ToSend {
    /// A transfer begins; its bytes on the wire are counted there.
    Open { progress: Arc<Progress> },
    /// A frame to send.
    Frame(Frame),
    /// The stream has ended: report when all numbers before `after` are with the kernel.
    Close { transfer: TransferId, after: Sequence, total: StreamOffset },
}

/// Where the other stages put what is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    pub messages: Sender<ToSend>,
    pub waker: Arc<Waker>,
}

/// A stream that is with the kernel as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Whose stream.
    pub transfer: TransferId,
    /// Its length.
    pub total: StreamOffset,
    /// CRC32 of all its bytes.
    pub crc32: u32,
}

/// The stage.
pub(super) struct Dealer {
    pub port: Port,
    pub inbox: Receiver<ToSend>,
    pub halt: Arc<Halt>,
    pub report: Box<dyn Fn(Sent) + Send>,
    pub connections: Vec<Connection>,
    pub idle: VecDeque<u32>,
    pub order: Order<Frame>,
    pub closing: VecDeque<(TransferId, Sequence, StreamOffset)>,
    pub crc: RunningCrc,
    pub progress: Arc<Progress>,
}

/// One socket, and what it has in hand.
pub(super) struct Connection {
    fd: Arc<OwnedFd>,
    sending: Option<(Arc<Loan>, Range<usize>)>,
    zero_copy: ZeroCopy,
}

impl Inbox {
    pub fn put(&self, message: ToSend) {
        // A stage that has ended needs no frames; the halt tells everybody else.
        if self.messages.send(message).is_ok() {
            self.waker.wake();
        }
    }
}

impl Connection {
    pub fn new(fd: OwnedFd, zero_copy: ZeroCopy) -> Connection {
        Connection { fd: Arc::new(fd), sending: None, zero_copy }
    }
}

impl Dealer {
    /// Sends until no more can come, or until the halt.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut open = true;
        let mut completions = Vec::new();
        while !self.halt.is_on() {
            open = open && self.take_in()?;
            self.deal()?;
            self.report_closed();
            if !open && self.idle.len() == self.connections.len() {
                return Ok(());
            }
            self.port.wait(None, &mut completions).map_err(|e| Fault::Setup("send", e))?;
            for completion in completions.drain(..) {
                self.settle(completion)?;
            }
        }
        Ok(())
    }

    /// Takes in what has come. `false`: nothing more can.
    fn take_in(&mut self) -> Result<bool, Fault> {
        loop {
            match self.inbox.try_recv() {
                Ok(ToSend::Open { progress }) => self.progress = progress,
                Ok(ToSend::Frame(frame)) => {
                    self.order.put(frame.header.sequence, frame).map_err(Fault::Twice)?;
                }
                Ok(ToSend::Close { transfer, after, total }) => {
                    self.closing.push_back((transfer, after, total));
                }
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn deal(&mut self) -> Result<(), Fault> {
        while let Some(&index) = self.idle.front() {
            let Some(frame) = self.order.take() else { return Ok(()) };
            self.idle.pop_front();
            let Frame { header, loan, range } = frame;
            self.crc.append(header.crc32, header.plain_bytes as usize);
            self.progress.add_wire(range.len());
            self.send(index, Arc::new(loan), range)?;
        }
        Ok(())
    }

    fn send(&mut self, index: u32, loan: Arc<Loan>, range: Range<usize>) -> Result<(), Fault> {
        let connection = &mut self.connections[index as usize];
        connection.sending = Some((Arc::clone(&loan), range.clone()));
        let act = match connection.zero_copy {
            ZeroCopy::Off => Act::Send(loan, range),
            ZeroCopy::Auto | ZeroCopy::On => Act::SendZeroCopy(loan, range),
        };
        let request = Request { key: index, fd: Arc::clone(&connection.fd), act };
        self.port.submit(request).map_err(|error| Fault::Connection(index, error))
    }

    fn settle(&mut self, completion: Completion) -> Result<(), Fault> {
        match completion {
            Completion::Sent { key, result } => return self.sent(key, result),
            Completion::Released { key, copied } => {
                let connection = &mut self.connections[key as usize];
                if copied && connection.zero_copy == ZeroCopy::Auto {
                    tracing::debug!(connection = key, "the kernel copies; zero-copy is off");
                    connection.zero_copy = ZeroCopy::Off;
                }
            }
            Completion::Filled { .. } => {}
        }
        Ok(())
    }

    /// A send has ended. What a zero-copy send could not take, for the limit on locked memory or a
    /// socket that has no such thing, is sent as a copy, and all after it.
    fn sent(&mut self, key: u32, result: io::Result<usize>) -> Result<(), Fault> {
        let connection = &mut self.connections[key as usize];
        let Some((loan, range)) = connection.sending.take() else { return Ok(()) };
        let zero_copy = connection.zero_copy != ZeroCopy::Off;
        let rest = match result {
            Ok(count) => range.start + count..range.end,
            Err(error) if zero_copy && is_no_zero_copy(&error) => range,
            Err(error) => return Err(Fault::Connection(key, error)),
        };
        if rest.is_empty() {
            self.idle.push_back(key);
            return Ok(());
        }
        if !zero_copy {
            return Err(Fault::Closed(key));
        }
        tracing::debug!(connection = key, "no zero-copy sends here; sending copies");
        connection.zero_copy = ZeroCopy::Off;
        self.send(key, loan, rest)
    }

    fn report_closed(&mut self) {
        while let Some(&(transfer, after, total)) = self.closing.front() {
            let busy = self.idle.len() < self.connections.len();
            if self.order.next() < after || busy {
                return;
            }
            self.closing.pop_front();
            let crc32 = std::mem::take(&mut self.crc).value();
            (self.report)(Sent { transfer, total, crc32 });
        }
    }
}

/// Whether an error says that the kernel would take the bytes as a copy: pages over
/// `RLIMIT_MEMLOCK` (`ENOMEM`), or a socket without zero-copy sends (`EOPNOTSUPP`).
fn is_no_zero_copy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::Unsupported)
}
