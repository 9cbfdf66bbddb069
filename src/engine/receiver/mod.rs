//! The receiver's way: receive, decompress, splice.

mod arrivals;
mod decompress;
mod entrance;
mod keep;
mod kept;
mod receive;
mod splice;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use sys::arena::{Arena, PAGE_BYTES};
use sys::bay::Bays;
use sys::cipher::Conduit;
use sys::loan::Pool;
use sys::port::Port;
use sys::wake::Waker;
use tokio::sync::mpsc::UnboundedSender;

use self::arrivals::{Arrivals, Order};
use self::decompress::Decompressor;
pub use self::entrance::{Entrance, Feed, Guard, Sink};
use self::keep::{Done, Shelf, Writer};
use self::receive::{Intake, Strikes};
use self::splice::{Delivery, Feeder};
pub use self::splice::{Fed, KeptStream, Unfinished};
use super::fault::Fault;
use super::halt::Halt;
use super::progress::Progress;
use super::settings::{Route, Settings, Spool, When, file_backend, slots_per_block};
use super::stage;
use crate::error::{Failure, Side};
use crate::protocol::frame::Codec;
use crate::protocol::window::Receipt;
use crate::spool::keeping::{Follow, Order as FromRecords};
use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

/// What a receiver tells the one who started it.
#[derive(Debug)]
pub enum Event {
    /// A stream has been fed whole; its sink is closed.
    Fed(Fed),
    /// The other side has closed a data connection between two frames, and no transfer runs.
    ConnectionEnded(u32),
    /// A connection broke, was closed in the middle of a transfer, or brought wrong bytes. Its lane
    /// is empty until [`Receiver::join`].
    LaneLost {
        /// The number of the data connection.
        lane: u32,
        /// What happened to it.
        fault: Fault,
    },
    /// The credit has grown so much that the sender should be told: ask [`Receiver::receipt`]. It
    /// is not said again until then.
    Credit,
    /// The engine has ended by itself.
    Failed(Fault),
}

/// What was agreed with the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The packing that may occur.
    pub codec: Codec,
    /// The largest block.
    pub block_bytes: Bytes,
}

/// The running stages of one session. Dropped, it ends them and waits for their threads.
#[derive(Debug)]
pub struct Receiver {
    deliveries: Option<crossbeam_channel::Sender<Delivery>>,
    arrivals: Arrivals,
    halt: Arc<Halt>,
    threads: Vec<JoinHandle<Option<()>>>,
    #[allow(clippy::option_option, reason = "taken, panicked and finished are three things")]
    feeder: Option<JoinHandle<Option<Option<Unfinished>>>>,
    progress: Arc<Progress>,
}

impl Receiver {
    /// Starts the stages over `connections`: a place for each lane of the session, with a blocking
    /// stream socket or empty until one [`Receiver::join`]s. The first block is numbered `first`.
    ///
    /// Fails where the cache is too small for them or the machine has no room for it.
    pub fn start(
        settings: &Settings,
        agreed: Agreed,
        connections: Vec<Option<Conduit>>,
        events: &UnboundedSender<Event>,
        first: Sequence,
    ) -> Result<Receiver, Failure> {
        let settings = Settings { block_bytes: agreed.block_bytes, ..settings.clone() };
        let slots = settings.slots(connections.len(), agreed.codec, Side::Target)?;
        Receiver::build(&settings, agreed, connections, events, first, slots)
            .map_err(|error| Fault::Setup("receiver", error).failure(Side::Target))
    }

    fn build(
        settings: &Settings,
        agreed: Agreed,
        places: Vec<Option<Conduit>>,
        events: &UnboundedSender<Event>,
        first: Sequence,
        slots: u32,
    ) -> io::Result<Receiver> {
        let waker = Arc::new(Waker::new()?);
        let lanes = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let Room { blocks, arena, bays } = Room::make(settings, agreed, lanes, slots, &waker)?;
        let halt = Arc::new(Halt::default());
        halt.wakes(&waker);
        let progress = Arc::new(Progress::default());
        // Both queues are bounded by the slots: whatever stands in them holds one.
        let (packed, packed_inbox) = crossbeam_channel::unbounded();
        let (deliveries, delivery_inbox) = crossbeam_channel::unbounded();
        let (orders, order_inbox) = crossbeam_channel::unbounded();
        let arrivals = Arrivals::new(blocks.into(), first, orders, &waker);
        let mut receiver = Receiver {
            deliveries: Some(deliveries.clone()),
            arrivals: arrivals.clone(),
            halt: Arc::clone(&halt),
            threads: Vec::new(),
            feeder: None,
            progress: Arc::clone(&progress),
        };
        let report = || {
            let events = events.clone();
            // Nobody listens any more when the session is over.
            move |fault| drop(events.send(Event::Failed(fault)))
        };

        let shelf = receiver.start_shelf(settings, &arena, report())?;
        let tell = events.clone();
        let feeder = Feeder {
            deliveries: delivery_inbox,
            halt: Arc::clone(&halt),
            report: Box::new(move |event| drop(tell.send(event))),
            arrivals: arrivals.clone(),
            feeding: None,
            progress: Arc::clone(&progress),
            block_bytes: agreed.block_bytes,
            shelf,
            slots: VecDeque::new(),
        };
        receiver.feeder = Some(stage::spawn("splice", &halt, |_| (), {
            let (halt, report) = (Arc::clone(&halt), report());
            move || {
                let (unfinished, ended) = feeder.run();
                if let Err(fault) = ended
                    && halt.turn_on()
                {
                    report(fault);
                }
                Ok(unfinished)
            }
        })?);

        let workers = if agreed.codec == Codec::Zstd { settings.workers.max(1) } else { 0 };
        for worker in 0..workers {
            let decompressor = Decompressor {
                packed: packed_inbox.clone(),
                arrivals: arrivals.clone(),
                deliveries: deliveries.clone(),
            };
            let core = stage::core_of(&settings.cores, worker);
            let run = move || {
                stage::pin(core);
                decompressor.run();
                Ok(())
            };
            receiver.threads.push(stage::spawn("decompress", &halt, report(), run)?);
        }

        let take_in = {
            let (backend, halt, events) = (settings.backend, Arc::clone(&halt), events.clone());
            move || {
                let route = Route::of(bays.as_ref());
                let port = stage::port(route, backend, &arena, &waker, lanes)
                    .map_err(|error| Fault::Setup("receive", error))?;
                tracing::debug!(%route, "receiving");
                let pool = Pool::split(&arena, 1, &waker).remove(0);
                Intake {
                    port,
                    pool,
                    bays,
                    lanes,
                    connections: BTreeMap::new(),
                    next_id: 0,
                    orders: order_inbox,
                    arrivals,
                    packed,
                    deliveries,
                    halt,
                    report: Box::new(move |event| drop(events.send(event))),
                    codec: agreed.codec,
                    block_bytes: agreed.block_bytes,
                    progress,
                    strikes: Strikes::default(),
                    beyond_room: Strikes::default(),
                }
                .run()
            }
        };
        receiver.threads.push(stage::spawn("receive", &halt, report(), take_in)?);
        for (lane, fd) in (0..).zip(places) {
            if let Some(fd) = fd {
                receiver.join(lane, fd);
            }
        }
        Ok(receiver)
    }

    /// Starts the stage that writes streams to breakpoint files, where they are to be kept.
    fn start_shelf(
        &mut self,
        settings: &Settings,
        arena: &Arc<Arena>,
        report: impl FnOnce(Fault) + Send + 'static,
    ) -> io::Result<Option<Shelf>> {
        let Some(Spool { when: When::Always, folder, .. }) = &settings.spool else {
            return Ok(None);
        };
        let (made, keep) = shelving(settings, folder, arena, &self.halt)?;
        self.threads.push(stage::spawn("keep", &self.halt, report, keep)?);
        Ok(Some(made))
    }

    /// Counters over all transfers of the session.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Feeds what comes for a transfer to a sink, and keeps it in breakpoint files, which takes a
    /// spool. Must be said before the sender is let go.
    pub fn begin(
        &self,
        transfer: TransferId,
        epoch: u32,
        entrance: impl Into<Entrance>,
        kept: Option<KeptStream>,
    ) {
        self.arrivals.begin(kept.is_some());
        let (entrance, kept) = (entrance.into(), kept.map(Box::new));
        self.deliver(Delivery::Begin { transfer, epoch, entrance, kept });
    }

    /// Says how the stream was when it was sent; answered by [`Event::Fed`] when it has been fed
    /// and is the same.
    pub fn end(&self, transfer: TransferId, total: StreamOffset, crc32: u32) {
        self.deliver(Delivery::End { transfer, total, crc32 });
    }

    /// Has a connection carry a lane: a blocking stream socket. One that the lane has already is
    /// shut down, and no event tells of it.
    pub fn join(&self, lane: u32, connection: Conduit) {
        self.arrivals.order(Order::Join { lane, connection });
    }

    /// Shuts the connection of a lane down; as [`Receiver::join`] without a new one.
    pub fn leave(&self, lane: u32) {
        self.arrivals.order(Order::Leave { lane });
    }

    /// Where the records of a stream say what follows from them.
    pub fn follow(&self) -> Follow {
        let (arrivals, deliveries) = (self.arrivals.clone(), self.deliveries.clone());
        Box::new(move |order| {
            match order {
                FromRecords::Durable { to, next_frame } => arrivals.durable(to, next_frame),
                FromRecords::Retired => arrivals.retire(),
                FromRecords::Trim { .. } => return,
            }
            if let Some(deliveries) = &deliveries {
                // A feeder that has ended has reported why.
                let _halting = deliveries.send(Delivery::Unpacked);
            }
        })
    }

    /// The number of the next block.
    pub fn taken(&self) -> Sequence {
        self.arrivals.taken()
    }

    /// How much of the current transfer is durable here, where it is kept in breakpoint files.
    pub fn durable(&self) -> StreamOffset {
        self.arrivals.durable_to()
    }

    /// What the sender may forget, how far it may go, and what it need not send again: to be told
    /// to it now.
    pub fn receipt(&self) -> Receipt {
        self.arrivals.tell()
    }

    /// Ends the stages. A sink whose stream is not whole is given back, still open.
    pub fn stop(mut self) -> Option<Unfinished> {
        self.end_stages()
    }

    fn deliver(&self, delivery: Delivery) {
        if let Some(deliveries) = &self.deliveries {
            // A feeder that has ended has reported why.
            let _halting = deliveries.send(delivery);
        }
    }

    fn end_stages(&mut self) -> Option<Unfinished> {
        self.halt.turn_on();
        self.deliveries = None;
        for thread in self.threads.drain(..) {
            let _reported = thread.join();
        }
        self.feeder.take()?.join().ok()??
    }
}

/// Where blocks arrive.
struct Room {
    /// Those that there is room for, beside the one that each lane waits with.
    blocks: u32,
    arena: Arc<Arena>,
    /// Where they stay in the kernel.
    bays: Option<Bays>,
}

impl Room {
    fn make(
        settings: &Settings,
        agreed: Agreed,
        lanes: u32,
        slots: u32,
        taker: &Arc<Waker>,
    ) -> io::Result<Room> {
        let bays = settings.bays(agreed.codec, slots, lanes, 0, taker)?;
        let (places, arena) = if let Some(bays) = &bays {
            // Only headers come into slots then, one for each lane.
            (bays.count(), Arena::new(PAGE_BYTES, lanes.max(1))?)
        } else {
            let arena = Arena::new(settings.block_bytes.as_usize() + PAGE_BYTES, slots)?;
            (slots / slots_per_block(agreed.codec), arena)
        };
        Ok(Room { blocks: places.saturating_sub(lanes).max(1), arena, bays })
    }
}

/// The stage that writes what is kept, and the way to it.
fn shelving(
    settings: &Settings,
    folder: &Path,
    arena: &Arc<Arena>,
    halt: &Arc<Halt>,
) -> io::Result<(Shelf, impl FnOnce() -> Result<(), Fault> + Send + use<>)> {
    let waker = Arc::new(Waker::new()?);
    halt.wakes(&waker);
    let (sender, orders) = crossbeam_channel::unbounded();
    let done = Arc::new(Done::default());
    let shelf = Shelf { orders: sender, waker: Arc::clone(&waker), done: Arc::clone(&done) };
    let backend = file_backend(settings.backend, folder)?;
    let (arena, halt) = (Arc::clone(arena), Arc::clone(halt));
    let keep = move || {
        let port = Port::new(backend, &arena, &waker, keep::DEPTH)
            .map_err(|error| Fault::Setup("keep", error))?;
        Writer { port, orders, halt, done, state: keep::State::default() }.run()
    };
    Ok((shelf, keep))
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end_stages();
    }
}
