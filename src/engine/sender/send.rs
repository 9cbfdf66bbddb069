//! Frame -> socket: deals frames out, in order, to whichever connection is free.
//!
//! Last on the sender's way, and the one that keeps them: a frame's slot goes home when the
//! receiver has taken the frame, not when the kernel has. Those of a connection that was lost are
//! dealt again before all others. A connection that sends nothing is watched too, for the last
//! frame of a stream may be lost with it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use sys::cipher::Conduit;
use sys::port::{Completion, Port};
use sys::wake::Waker;

use super::Event;
use super::acknowledge::Acknowledged;
use super::lanes::{Lanes, Outcome, id_of};
use super::pressure::Pressure;
use crate::breakpoint::prefix::Prefix;
use crate::breakpoint::record::Mark;
use crate::engine::block::Frame;
use crate::engine::fault::Fault;
use crate::engine::halt::Halt;
use crate::engine::progress::Progress;
use crate::protocol::window::{Receipt, SendWindow};
use crate::spool::keeping::{Order, Stream};
use crate::units::{Bytes, Rate, Sequence, StreamOffset, TransferId};

/// What the stage is told.
#[derive(Debug)]
pub(super) enum ToSend {
    /// A transfer begins; its bytes on the wire are counted there.
    Open {
        progress: Arc<Progress>,
        /// Its breakpoint files, where it shall outlive its process.
        stream: Option<Stream>,
    },
    /// A frame to send.
    Frame(Frame),
    /// The stream has ended: report when all numbers before `after` have been dealt.
    Close { transfer: TransferId, after: Sequence, total: StreamOffset },
    /// A connection for a lane; it replaces the one that is there.
    Join { lane: u32, connection: Conduit },
    /// No connection for a lane any more.
    Leave { lane: u32 },
    /// What the receiver has, and how far it lets us go.
    Credit(Receipt),
    /// The receiver may have lost what it had not taken, and stands here.
    Stands(Receipt),
    /// All connections together send no more than this from now on.
    Limit(Option<Rate>),
    /// What follows from the records of a stream that outlives its process.
    Follow(Order),
}

/// Where the other stages put what is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    pub messages: Sender<ToSend>,
    pub waker: Arc<Waker>,
}

/// A stream of which every frame has been dealt. The receiver may not have taken them yet.
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
    pub report: Box<dyn Fn(Event) + Send>,
    pub lanes: Lanes,
    /// Told what waits for a connection, where somebody wants to know.
    pub pressure: Option<Arc<Pressure>>,
    pub window: SendWindow<Frame>,
    pub closing: VecDeque<(TransferId, Sequence, StreamOffset)>,
    /// What was dealt of the current stream.
    pub dealt: Prefix,
    pub progress: Arc<Progress>,
    pub acknowledged: Acknowledged,
}

impl Inbox {
    pub fn put(&self, message: ToSend) {
        // A stage that has ended needs no frames; the halt tells everybody else.
        if self.messages.send(message).is_ok() {
            self.waker.wake();
        }
    }
}

impl Dealer {
    /// Sends until the halt. Without a connection it waits for one.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut completions = Vec::new();
        while !self.halt.is_on() {
            self.take_in()?;
            self.deal()?;
            self.report_closed();
            self.port.wait(None, &mut completions).map_err(broken)?;
            for completion in completions.drain(..) {
                self.settle(completion)?;
            }
        }
        Ok(())
    }

    fn take_in(&mut self) -> Result<(), Fault> {
        loop {
            match self.inbox.try_recv() {
                Ok(message) => self.obey(message)?,
                // Whoever hung up has turned the halt on.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    fn obey(&mut self, message: ToSend) -> Result<(), Fault> {
        match message {
            ToSend::Open { progress, .. } => self.progress = progress,
            ToSend::Follow(_) => {}
            ToSend::Frame(frame) => {
                let (sequence, bytes) = (frame.header.sequence, Bytes::from(frame.wire_bytes()));
                let taken = self.window.put(sequence, bytes, frame);
                self.acknowledged.advance(taken.as_slice(), &self.progress);
            }
            ToSend::Close { transfer, after, total } => {
                self.closing.push_back((transfer, after, total));
            }
            ToSend::Join { lane, connection } => {
                self.leave(lane);
                self.lanes.join(lane, connection, &mut self.port).map_err(broken)?;
            }
            ToSend::Leave { lane } => self.leave(lane),
            ToSend::Limit(limit) => self.lanes.limit(limit),
            // The slots of what was taken go home here.
            ToSend::Credit(receipt) => {
                let taken = self.window.credit(receipt).map_err(Fault::Credit)?;
                self.acknowledged.advance(&taken, &self.progress);
            }
            ToSend::Stands(receipt) => {
                let taken = self.window.stands(receipt).map_err(Fault::Credit)?;
                self.acknowledged.advance(&taken, &self.progress);
            }
        }
        Ok(())
    }

    fn deal(&mut self) -> Result<(), Fault> {
        self.deal_out()?;
        self.progress.set_waits_for_room(self.window.waits_for_room());
        if let Some(pressure) = &self.pressure {
            pressure.set_room(self.window.room(), self.window.dealt());
        }
        Ok(())
    }

    fn deal_out(&mut self) -> Result<(), Fault> {
        while let Some((id, lane)) = self.lanes.idle() {
            let Some(deal) = self.window.deal(lane) else { return Ok(()) };
            let (again, frame) = (deal.again, deal.item.clone());
            let (header, wire_bytes) = (frame.header, frame.wire_bytes());
            self.progress.add_wire(wire_bytes);
            if again {
                self.progress.add_resent(wire_bytes);
            } else {
                self.dealt.append(header.crc32, header.length());
                self.progress.add_sent(header.length());
                if let Some(pressure) = &self.pressure {
                    pressure.count_dealt();
                }
            }
            self.lanes.send(id, frame, &mut self.port).map_err(broken)?;
        }
        Ok(())
    }

    fn settle(&mut self, completion: Completion) -> Result<(), Fault> {
        let (id, outcome) = match completion {
            Completion::Sent { key, result } => (id_of(key), self.lanes.sent(id_of(key), result)),
            Completion::Watched { key, .. } => (id_of(key), self.lanes.ended(id_of(key))),
            Completion::Released { key, copied } => {
                self.lanes.released(id_of(key), copied);
                return Ok(());
            }
            Completion::Filled { .. } | Completion::Drawn { .. } | Completion::Written { .. } => {
                return Ok(());
            }
        };
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::Rest(rest) => self.lanes.send(id, rest, &mut self.port).map_err(broken),
            Outcome::Broken(error) => {
                self.lose(id, error);
                Ok(())
            }
        }
    }

    /// A connection has ended by itself: what it had goes to the others, or waits for one.
    fn lose(&mut self, id: u32, error: Option<io::Error>) {
        let Some(lane) = self.lanes.lose(id) else { return };
        let frames = self.window.lost(lane);
        tracing::debug!(lane, frames, "a data connection is lost; its frames are sent again");
        let fault = match error {
            Some(error) => Fault::Connection(lane, error),
            None => Fault::Closed(lane),
        };
        (self.report)(Event::LaneLost { lane, fault });
    }

    /// As a loss, but nobody need be told.
    fn leave(&mut self, lane: u32) {
        if let Some(id) = self.lanes.present(lane) {
            self.lanes.lose(id);
            self.window.lost(lane);
        }
    }

    fn report_closed(&mut self) {
        while let Some(&(transfer, after, total)) = self.closing.front() {
            if self.window.next() < after {
                return;
            }
            self.closing.pop_front();
            let Mark { crc32, .. } = std::mem::take(&mut self.dealt).mark();
            (self.report)(Event::Sent(Sent { transfer, total, crc32 }));
        }
    }
}

fn broken(error: io::Error) -> Fault {
    Fault::Setup("send", error)
}
