//! Socket -> payload: takes frames off every connection into slots.
//!
//! First on the receiver's way. Each connection has a pool of its own: a fast one that runs ahead
//! cannot take the slots that a slow one needs for the block that is due. Since the sender deals
//! growing numbers to each connection, the block due is always at the front of one of them, and
//! that one always has, or will get, a slot. A length is used only after its header was proved.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Sender;
use sys::loan::{Loan, Pool};
use sys::port::{Act, Completion, Port, Request};

use super::decompress::Packed;
use super::splice::Delivery;
use crate::engine::block::{HEADROOM, header_range};
use crate::engine::fault::Fault;
use crate::engine::halt::Halt;
use crate::engine::progress::Progress;
use crate::protocol::frame::{Codec, FrameError, HEADER_BYTES, Header};
use crate::units::Bytes;

/// The stage.
pub(super) struct Intake {
    pub port: Port,
    pub connections: Vec<Connection>,
    pub packed: Sender<Packed>,
    pub deliveries: Sender<Delivery>,
    pub halt: Arc<Halt>,
    pub report_end: Box<dyn Fn(u32) + Send>,
    pub codec: Codec,
    pub block_bytes: Bytes,
    pub progress: Arc<Progress>,
}

/// One socket, its slots, and what it waits for.
pub(super) struct Connection {
    fd: Arc<OwnedFd>,
    pool: Pool,
    expects: Expects,
}

enum Expects {
    /// Slots for the next frame.
    Berth,
    /// A header, or the end of the connection.
    Header { spare: Option<Loan> },
    /// The payload that the header announced.
    Payload { header: Header, spare: Option<Loan> },
    /// Nothing: the other side has closed it.
    Nothing,
}

impl Connection {
    pub fn new(fd: OwnedFd, pool: Pool) -> Connection {
        Connection { fd: Arc::new(fd), pool, expects: Expects::Berth }
    }

    /// All slots that the next frame can need, or none of them.
    fn berth(&self, codec: Codec) -> Option<(Loan, Option<Loan>)> {
        match codec {
            Codec::Raw => self.pool.take().map(|[loan]| (loan, None)),
            Codec::Zstd => self.pool.take().map(|[loan, spare]| (loan, Some(spare))),
        }
    }
}

impl Intake {
    /// Receives until every connection has ended, or until the halt.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut completions = Vec::new();
        while !self.halt.is_on() && !self.all_ended() {
            for index in 0..self.connections.len() {
                self.moor(index)?;
            }
            self.port.wait(None, &mut completions).map_err(|e| Fault::Setup("receive", e))?;
            for completion in completions.drain(..) {
                if let Completion::Filled { key, loan, result } = completion {
                    let count = result.map_err(|error| Fault::Connection(key, error))?;
                    self.settle(key, loan, count)?;
                }
            }
        }
        Ok(())
    }

    fn all_ended(&self) -> bool {
        self.connections.iter().all(|connection| matches!(connection.expects, Expects::Nothing))
    }

    /// Has a connection that is free wait for its next header, if slots are at home.
    fn moor(&mut self, index: usize) -> Result<(), Fault> {
        let connection = &mut self.connections[index];
        if !matches!(connection.expects, Expects::Berth) {
            return Ok(());
        }
        let Some((loan, spare)) = connection.berth(self.codec) else { return Ok(()) };
        connection.expects = Expects::Header { spare };
        self.receive(index, loan, header_range())
    }

    fn receive(&mut self, index: usize, loan: Loan, range: Range<usize>) -> Result<(), Fault> {
        let key = u32::try_from(index).unwrap_or(u32::MAX);
        let fd = Arc::clone(&self.connections[index].fd);
        let request = Request { key, fd, act: Act::Receive(loan, range) };
        self.port.submit(request).map_err(|error| Fault::Connection(key, error))
    }

    fn settle(&mut self, key: u32, loan: Loan, count: usize) -> Result<(), Fault> {
        let index = key as usize;
        self.progress.add_wire(count);
        let connection = &mut self.connections[index];
        match std::mem::replace(&mut connection.expects, Expects::Nothing) {
            Expects::Header { .. } if count == 0 => {
                (self.report_end)(key);
                Ok(())
            }
            Expects::Header { spare } if count == HEADER_BYTES => {
                let header = self.decode(&loan).map_err(|error| Fault::Frame(key, error))?;
                let payload = HEADROOM..HEADROOM + header.payload_bytes as usize;
                self.connections[index].expects = Expects::Payload { header, spare };
                self.receive(index, loan, payload)
            }
            Expects::Payload { header, spare } if count == header.payload_bytes as usize => {
                connection.expects = Expects::Berth;
                // Stages that have ended have said why.
                match header.codec {
                    Codec::Raw => drop(self.deliveries.send(Delivery::Raw(header, loan))),
                    Codec::Zstd => drop(self.packed.send(Packed { header, loan, spare })),
                }
                Ok(())
            }
            _ => Err(Fault::Closed(key)),
        }
    }

    fn decode(&self, loan: &Loan) -> Result<Header, FrameError> {
        let bytes: &[u8; HEADER_BYTES] =
            loan[header_range()].try_into().expect("the range is HEADER_BYTES long");
        let header = Header::decode(bytes, self.block_bytes)?;
        if header.codec == Codec::Zstd && self.codec == Codec::Raw {
            return Err(FrameError::Codec { got: 1 });
        }
        Ok(header)
    }
}
