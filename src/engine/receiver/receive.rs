//! Socket -> payload: takes frames off every connection into slots.
//!
//! First on the receiver's way. Every connection that stands waits with slots for a frame, and the
//! window lets none come that the pool could not hold beside those: so no connection is left
//! unread, and one that the kernel cannot deliver to is broken. A length is used only after its
//! header was proved. Bytes that are wrong are trouble of their connection: it is dropped, and the
//! sender sends them again over another.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use sys::bay::{Bay, Bays};
use sys::loan::{Loan, Pool};
use sys::port::{Act, Completion, Port, Request};

use super::Event;
use super::arrivals::{Arrivals, Order, Origin};
use super::decompress::Packed;
use super::splice::Delivery;
use crate::engine::block::{HEADROOM, Place, header_range};
use crate::engine::fault::Fault;
use crate::engine::halt::Halt;
use crate::engine::progress::Progress;
use crate::protocol::frame::{Codec, FrameError, HEADER_BYTES, Header};
use crate::protocol::window::Arrival;
use crate::units::Bytes;

/// Of a session with one lane, how many connections in a row may end with wrong bytes, or blocks
/// without room, with no new block in between: the last of them ends the transfer. With more lanes
/// it is one more for each: what hits a line hits all that is on it.
const STRIKES_MAX: usize = 3;

/// The stage.
pub(super) struct Intake {
    pub port: Port,
    pub pool: Pool,
    /// Where payloads go that stay in the kernel; the pool has room for headers then.
    pub bays: Option<Bays>,
    pub lanes: u32,
    pub connections: BTreeMap<u32, Connection>,
    pub next_id: u32,
    pub orders: Receiver<Order>,
    pub arrivals: Arrivals,
    pub packed: Sender<Packed>,
    pub deliveries: Sender<Delivery>,
    pub halt: Arc<Halt>,
    pub report: Box<dyn Fn(Event) + Send>,
    pub codec: Codec,
    pub block_bytes: Bytes,
    pub progress: Arc<Progress>,
    pub strikes: Strikes,
    pub beyond_room: Strikes,
}

/// One socket, and what it waits for. One that was lost stays until the kernel has let go of it.
pub(super) struct Connection {
    lane: u32,
    fd: Arc<OwnedFd>,
    expects: Expects,
    lost: bool,
}

enum Expects {
    /// Slots for the next frame.
    Berth,
    /// A header, or the end of the connection.
    Header { beside: Beside },
    /// The payload that the header announced.
    Payload { header: Header, spare: Option<Loan> },
    /// The same, in a bay.
    InBay { header: Header },
}

/// What a frame can need besides the slot that its header comes into.
enum Beside {
    Nothing,
    /// To be unpacked into.
    Slot(Loan),
    /// For the payload.
    Bay(Bay),
}

/// What a receive has filled.
enum Filled {
    Slot(Loan),
    Bay(Bay),
}

/// The connections that brought wrong bytes, or blocks without room, since the last new block.
#[derive(Default)]
pub(super) struct Strikes {
    /// By their ids: one fault can spoil a payload, and the header that is looked for behind it.
    connections: BTreeSet<u32>,
    /// How many blocks had come at the first of them.
    here: u64,
}

impl Strikes {
    /// Counts one more connection. `true`: there are as many as `max`, which is too many.
    fn strike(&mut self, id: u32, here: u64, max: usize) -> bool {
        if here > self.here {
            *self = Strikes { connections: BTreeSet::new(), here };
        }
        self.connections.insert(id);
        self.connections.len() >= max
    }
}

impl Intake {
    /// Receives until the halt. Without a connection it waits for one.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut completions = Vec::new();
        while !self.halt.is_on() {
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order)?;
            }
            self.moor_all()?;
            self.port.wait(None, &mut completions).map_err(broken)?;
            for completion in completions.drain(..) {
                match completion {
                    Completion::Filled { key, loan, result } => {
                        self.settle(key, Filled::Slot(loan), result)?;
                    }
                    Completion::Drawn { key, bay, result } => {
                        self.settle(key, Filled::Bay(bay), result)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), Fault> {
        match order {
            Order::Join { lane, .. } if lane >= self.lanes => {
                tracing::warn!(lane, "refused a data connection too many");
            }
            Order::Join { lane, connection } => {
                self.leave(lane);
                let fd = self.port.join(connection).map_err(broken)?;
                let connection = Connection { lane, fd, expects: Expects::Berth, lost: false };
                self.connections.insert(self.next_id, connection);
                self.next_id = self.next_id.wrapping_add(1);
            }
            Order::Leave { lane } => self.leave(lane),
            Order::Bad { origin, copies, fault } => self.blame(origin.id, &copies, fault)?,
        }
        Ok(())
    }

    /// Has every connection that is free wait for its next header, if slots are at home.
    fn moor_all(&mut self) -> Result<(), Fault> {
        let free: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| matches!(connection.expects, Expects::Berth))
            .map(|(&id, _)| id)
            .collect();
        for id in free {
            let Some((loan, beside)) = self.berth() else { break };
            let act = Act::Receive(loan, header_range());
            self.receive(id, act, Expects::Header { beside })?;
        }
        Ok(())
    }

    /// All that the next frame can need, or nothing.
    fn berth(&self) -> Option<(Loan, Beside)> {
        match (&self.bays, self.codec) {
            // Where there is a bay there is a slot: only connections have one, each its own.
            (Some(bays), _) => {
                let bay = bays.take()?;
                self.pool.take().map(|[loan]| (loan, Beside::Bay(bay)))
            }
            (None, Codec::Raw | Codec::Bare) => {
                self.pool.take().map(|[loan]| (loan, Beside::Nothing))
            }
            (None, Codec::Zstd) => {
                self.pool.take().map(|[loan, spare]| (loan, Beside::Slot(spare)))
            }
        }
    }

    fn receive(&mut self, id: u32, act: Act, expects: Expects) -> Result<(), Fault> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.expects = expects;
        let fd = Arc::clone(&connection.fd);
        let request = Request { key: id, fd, act };
        self.port.submit(request).map_err(broken)
    }

    fn settle(
        &mut self,
        id: u32,
        filled: Filled,
        result: std::io::Result<usize>,
    ) -> Result<(), Fault> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if connection.lost {
            self.connections.remove(&id);
            return Ok(());
        }
        let lane = connection.lane;
        let expected = std::mem::replace(&mut connection.expects, Expects::Berth);
        let count = match result {
            Ok(count) => count,
            Err(error) => {
                self.lose(id, Fault::Connection(lane, error));
                return Ok(());
            }
        };
        self.progress.add_wire(count);
        let is_whole = |header: &Header| count == header.payload_bytes as usize;
        match (expected, filled) {
            (Expects::Header { .. }, _) if count == 0 => self.ended(id),
            (Expects::Header { beside }, Filled::Slot(loan)) if count == HEADER_BYTES => {
                return self.announced(id, loan, beside);
            }
            (Expects::Payload { header, spare }, Filled::Slot(loan)) if is_whole(&header) => {
                if self.is_new(lane, &header) {
                    self.arrived(Origin { lane, id }, header, loan, spare);
                }
            }
            (Expects::InBay { header }, Filled::Bay(bay)) if is_whole(&header) => {
                if self.is_new(lane, &header) {
                    self.arrivals.put_bay(Place::of(&header), bay);
                    // A stage that has ended has said why.
                    drop(self.deliveries.send(Delivery::Unpacked));
                }
            }
            _ => self.lose(id, Fault::Closed(lane)),
        }
        Ok(())
    }

    /// A header has come: its payload is let in if it is one, and there is room.
    fn announced(&mut self, id: u32, loan: Loan, beside: Beside) -> Result<(), Fault> {
        let Some(lane) = self.connections.get(&id).map(|connection| connection.lane) else {
            return Ok(());
        };
        let header = match self.decode(&loan) {
            Ok(header) => header,
            Err(error) => return self.blame(id, &BTreeSet::new(), Fault::Frame(lane, error)),
        };
        if let Err(beyond) = self.arrivals.admit(header.sequence) {
            return self.turn_away(id, Fault::NoRoom(lane, beyond));
        }
        let length = header.payload_bytes as usize;
        let payload = HEADROOM..HEADROOM + length;
        let (act, expects) = match beside {
            Beside::Bay(bay) => (Act::ReceiveBay(bay, length), Expects::InBay { header }),
            Beside::Slot(spare) => {
                let expects = Expects::Payload { header, spare: Some(spare) };
                (Act::Receive(loan, payload), expects)
            }
            Beside::Nothing => {
                (Act::Receive(loan, payload), Expects::Payload { header, spare: None })
            }
        };
        self.receive(id, act, expects)
    }

    fn decode(&self, loan: &Loan) -> Result<Header, FrameError> {
        let bytes: &[u8; HEADER_BYTES] =
            loan[header_range()].try_into().expect("the range is HEADER_BYTES long");
        let header = Header::decode(bytes, self.block_bytes)?;
        if !self.codec.allows(header.codec) {
            return Err(FrameError::Codec { got: header.codec.number() });
        }
        Ok(header)
    }

    /// Whether a frame that has come whole was not here before.
    fn is_new(&self, lane: u32, header: &Header) -> bool {
        let is_new = self.arrivals.arrive(header.sequence, lane) != Arrival::Again;
        if !is_new {
            tracing::debug!(lane, sequence = %header.sequence, "came again");
            self.progress.add_resent(HEADER_BYTES + header.payload_bytes as usize);
        }
        is_new
    }

    /// A frame has come that is new.
    fn arrived(&self, origin: Origin, header: Header, loan: Loan, spare: Option<Loan>) {
        // Stages that have ended have said why.
        match header.codec {
            Codec::Raw | Codec::Bare => {
                drop(self.deliveries.send(Delivery::Raw(origin, header, loan)));
            }
            Codec::Zstd => drop(self.packed.send(Packed { origin, header, loan, spare })),
        }
    }

    /// The other side has closed a connection between two frames.
    fn ended(&mut self, id: u32) {
        let Some(connection) = self.connections.get(&id) else { return };
        let lane = connection.lane;
        if self.arrivals.is_feeding() {
            return self.lose(id, Fault::Closed(lane));
        }
        self.connections.remove(&id);
        (self.report)(Event::ConnectionEnded(lane));
    }

    /// A block came for which there is no room. A sender that has not heard yet that this process
    /// took over goes by the room that the one before gave, on each of its lanes: it hears of it,
    /// and sends the block again when there is a slot for it.
    fn turn_away(&mut self, id: u32, fault: Fault) -> Result<(), Fault> {
        if self.beyond_room.strike(id, self.arrivals.here(), self.strikes_max()) {
            return Err(fault);
        }
        self.lose(id, fault);
        Ok(())
    }

    /// Wrong bytes came over a connection. The first few times that is its trouble alone.
    fn blame(&mut self, id: u32, copies: &BTreeSet<u32>, fault: Fault) -> Result<(), Fault> {
        if self.strikes.strike(id, self.arrivals.here(), self.strikes_max()) {
            return Err(fault);
        }
        self.lose(id, fault);
        for &lane in copies {
            if let Some(id) = self.present(lane) {
                self.lose(id, Fault::Copy(lane));
            }
        }
        Ok(())
    }

    fn strikes_max(&self) -> usize {
        self.lanes as usize + STRIKES_MAX - 1
    }

    fn present(&self, lane: u32) -> Option<u32> {
        let found = self.connections.iter().find(|(_, one)| one.lane == lane && !one.lost);
        found.map(|(&id, _)| id)
    }

    fn leave(&mut self, lane: u32) {
        if let Some(id) = self.present(lane) {
            self.shut(id);
        }
    }

    fn lose(&mut self, id: u32, fault: Fault) {
        if let Some(lane) = self.shut(id) {
            tracing::debug!(lane, %fault, "a data connection is lost");
            (self.report)(Event::LaneLost { lane, fault });
        }
    }

    /// Ends a connection. Its lane, unless it was ended before.
    fn shut(&mut self, id: u32) -> Option<u32> {
        let connection = self.connections.get_mut(&id).filter(|connection| !connection.lost)?;
        connection.lost = true;
        let lane = connection.lane;
        // One that cannot be shut down has ended already.
        let _already_gone = sys::socket::shutdown_both(&connection.fd);
        if matches!(connection.expects, Expects::Berth) {
            self.connections.remove(&id);
        }
        Some(lane)
    }
}

fn broken(error: std::io::Error) -> Fault {
    Fault::Setup("receive", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strikes until there are too many, each by a connection at so many blocks.
    fn borne(strikes: impl IntoIterator<Item = (u32, u64)>) -> usize {
        let mut counted = Strikes::default();
        let mut strikes = strikes.into_iter();
        strikes.by_ref().take_while(|&(id, here)| !counted.strike(id, here, STRIKES_MAX)).count()
    }

    #[test]
    fn wrong_bytes_are_borne_as_long_as_new_blocks_come_between_them() {
        assert_eq!(borne((1..=100).map(|here| (0, here))), 100);
        assert_eq!(borne((1..=100).map(|id| (id, 7))), 2);
        assert_eq!(borne([(1, 7), (2, 7), (3, 8), (4, 8), (5, 9), (6, 9), (7, 9)]), 6);
    }

    #[test]
    fn a_fault_that_spoils_a_payload_and_the_header_behind_it_counts_once() {
        // The spoilt block is one of the nine until it is rejected; then it comes again, unspoilt.
        assert_eq!(borne([(1, 9), (1, 8), (2, 9), (2, 8)]), 4);
    }

    #[test]
    fn a_line_on_which_nothing_is_right_is_given_up_though_blocks_seem_to_come() {
        // Each block counts until it is rejected.
        assert_eq!(borne([(1, 9), (2, 8), (3, 7), (4, 6)]), 2);
        assert_eq!(borne([(1, 9), (1, 8), (2, 9), (2, 8), (3, 9)]), 4);
    }
}
