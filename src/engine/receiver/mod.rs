//! The receiver's way: receive, decompress, splice.

mod decompress;
mod receive;
mod splice;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use sys::arena::{Arena, PAGE_BYTES};
use sys::loan::Pool;
use sys::port::Port;
use sys::wake::Waker;
use tokio::sync::mpsc::UnboundedSender;

use self::decompress::Decompressor;
use self::receive::{Connection, Intake};
use self::splice::{Delivery, Feeder};
pub use self::splice::{Fed, Feed, Sink, Unfinished};
use super::fault::Fault;
use super::halt::Halt;
use super::order::Order;
use super::progress::Progress;
use super::settings::Settings;
use super::stage;
use crate::error::{Failure, Side};
use crate::protocol::frame::Codec;
use crate::units::{Bytes, StreamOffset, TransferId};

/// What a receiver tells the one who started it.
#[derive(Debug)]
pub enum Event {
    /// A stream has been fed whole; its sink is closed.
    Fed(Fed),
    /// The other side has closed a data connection between two frames.
    ConnectionEnded(u32),
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
    halt: Arc<Halt>,
    threads: Vec<JoinHandle<Option<()>>>,
    #[allow(clippy::option_option, reason = "taken, panicked and finished are three things")]
    feeder: Option<JoinHandle<Option<Option<Unfinished>>>>,
    progress: Arc<Progress>,
}

impl Receiver {
    /// Starts the stages over `connections`: blocking stream sockets, joined to the session.
    ///
    /// Fails where the cache is too small for them or the machine has no room for it.
    pub fn start(
        settings: &Settings,
        agreed: Agreed,
        connections: Vec<OwnedFd>,
        events: &UnboundedSender<Event>,
    ) -> Result<Receiver, Failure> {
        let settings = Settings { block_bytes: agreed.block_bytes, ..settings.clone() };
        let slots = settings.slots(connections.len(), agreed.codec, Side::Target)?;
        Receiver::build(&settings, agreed, connections, events, slots)
            .map_err(|error| Fault::Setup("receiver", error).failure(Side::Target))
    }

    fn build(
        settings: &Settings,
        agreed: Agreed,
        connections: Vec<OwnedFd>,
        events: &UnboundedSender<Event>,
        slots: u32,
    ) -> io::Result<Receiver> {
        let arena = Arena::new(settings.block_bytes.as_usize() + PAGE_BYTES, slots)?;
        let waker = Arc::new(Waker::new()?);
        let halt = Arc::new(Halt::default());
        halt.wakes(&waker);
        let progress = Arc::new(Progress::default());
        // Both queues are bounded by the slots: whatever stands in them holds one.
        let (packed, packed_inbox) = crossbeam_channel::unbounded();
        let (deliveries, delivery_inbox) = crossbeam_channel::unbounded();
        let mut receiver = Receiver {
            deliveries: Some(deliveries.clone()),
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

        let feeder = Feeder {
            deliveries: delivery_inbox,
            halt: Arc::clone(&halt),
            report: {
                let events = events.clone();
                Box::new(move |fed| drop(events.send(Event::Fed(fed))))
            },
            order: Order::new(),
            feeding: None,
            progress: Arc::clone(&progress),
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

        let workers = if agreed.codec == Codec::Raw { 0 } else { settings.workers.max(1) };
        for worker in 0..workers {
            let decompressor =
                Decompressor { packed: packed_inbox.clone(), deliveries: deliveries.clone() };
            let core = stage::core_of(&settings.cores, worker);
            let run = move || {
                stage::pin(core);
                decompressor.run()
            };
            receiver.threads.push(stage::spawn("decompress", &halt, report(), run)?);
        }

        let take_in = {
            let (backend, halt, events) = (settings.backend, Arc::clone(&halt), events.clone());
            move || {
                let depth = u32::try_from(connections.len()).unwrap_or(u32::MAX);
                let port = Port::new(backend, &arena, &waker, depth)
                    .map_err(|error| Fault::Setup("receive", error))?;
                let pools = Pool::split(&arena, depth, &waker);
                Intake {
                    port,
                    connections: connections
                        .into_iter()
                        .zip(pools)
                        .map(|(fd, pool)| Connection::new(fd, pool))
                        .collect(),
                    packed,
                    deliveries,
                    halt,
                    report_end: Box::new(move |i| drop(events.send(Event::ConnectionEnded(i)))),
                    codec: agreed.codec,
                    block_bytes: agreed.block_bytes,
                    progress,
                }
                .run()
            }
        };
        receiver.threads.push(stage::spawn("receive", &halt, report(), take_in)?);
        Ok(receiver)
    }

    /// Counters over all transfers of the session.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Feeds what comes for a transfer to `sink`. Must be said before the sender is let go.
    pub fn begin(&self, transfer: TransferId, epoch: u32, sink: Sink) {
        self.deliver(Delivery::Begin { transfer, epoch, sink });
    }

    /// Says how the stream was when it was sent; answered by [`Event::Fed`] when it has been fed
    /// and is the same.
    pub fn end(&self, transfer: TransferId, total: StreamOffset, crc32: u32) {
        self.deliver(Delivery::End { transfer, total, crc32 });
    }

    /// Ends the stages. A sink whose stream is not whole is given back, still open.
    pub fn stop(mut self) -> Option<Unfinished> {
        self.join()
    }

    fn deliver(&self, delivery: Delivery) {
        if let Some(deliveries) = &self.deliveries {
            // A feeder that has ended has reported why.
            let _halting = deliveries.send(delivery);
        }
    }

    fn join(&mut self) -> Option<Unfinished> {
        self.halt.turn_on();
        self.deliveries = None;
        for thread in self.threads.drain(..) {
            let _reported = thread.join();
        }
        self.feeder.take()?.join().ok()??
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.join();
    }
}
