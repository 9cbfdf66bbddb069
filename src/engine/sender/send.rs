//! Frame -> socket: deals frames out, in order, to whichever connection is free.
//!
//! Last on the sender's way. Each connection has one send in flight and gets numbers that only
//! grow; the receiver relies on that: the block it needs next is never stuck behind a later one of
//! the same connection.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
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
    sending: usize,
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
        Connection { fd: Arc::new(fd), sending: 0, zero_copy }
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
            let connection = &mut self.connections[index as usize];
            connection.sending = range.len();
            let loan = Arc::new(loan);
            let act = match connection.zero_copy {
                ZeroCopy::Off => Act::Send(loan, range),
                ZeroCopy::Auto | ZeroCopy::On => Act::SendZeroCopy(loan, range),
            };
            let request = Request { key: index, fd: Arc::clone(&connection.fd), act };
            self.port.submit(request).map_err(|error| Fault::Connection(index, error))?;
        }
        Ok(())
    }

    fn settle(&mut self, completion: Completion) -> Result<(), Fault> {
        match completion {
            Completion::Sent { key, result } => {
                let sent = result.map_err(|error| Fault::Connection(key, error))?;
                if sent < self.connections[key as usize].sending {
                    return Err(Fault::Closed(key));
                }
                self.idle.push_back(key);
            }
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
