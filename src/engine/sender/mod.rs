//! The sender's way: read, compress, send; and beside it, where one was asked for, the spool.

mod acknowledge;
mod compress;
mod lanes;
mod level;
mod pressure;
mod read;
mod send;
mod spool;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use sys::arena::{Arena, PAGE_BYTES};
use sys::cipher::Conduit;
use sys::loan::Pool;
use sys::port::Port;
use sys::wake::Waker;
use tokio::sync::mpsc::UnboundedSender;

use self::acknowledge::Acknowledged;
use self::compress::{Compressor, Packing, Plain};
use self::lanes::Lanes;
pub use self::level::Level;
use self::pressure::Pressure;
use self::read::{Job, Reader, Room};
pub use self::send::Sent;
use self::send::{Dealer, Inbox, ToSend};
use self::spool::{Passed, Spooler, State};
use super::block::Frame;
use super::fault::Fault;
use super::halt::Halt;
use super::progress::Progress;
use super::settings::{Compression, Route, Settings, Spool, file_backend, slots_per_block};
use super::stage;
use crate::breakpoint::prefix::Prefix;
use crate::breakpoint::record::Mark;
use crate::error::{Failure, Side};
use crate::protocol::frame::Codec;
use crate::protocol::window::{Receipt, SendWindow};
use crate::spool::keeping::{Follow, Stream};
use crate::spool::left::Found;
use crate::units::{Rate, TransferId};

/// What a sender tells the one who started it.
#[derive(Debug)]
pub enum Event {
    /// Every frame of a stream has been dealt: its length and CRC32 are known.
    Sent(Sent),
    /// Every frame of a stream that shall outlive its process stands in its breakpoint files.
    Kept(Sent),
    /// A connection broke or was closed by the other side. What was on it is sent over the others;
    /// where there is none, the stages wait for [`Sender::join`].
    LaneLost {
        /// The number of the data connection.
        lane: u32,
        /// What happened to it.
        fault: Fault,
    },
    /// The engine has ended by itself.
    Failed(Fault),
}

/// A stream that a process which died has left whole in its breakpoint files: its rest is sent.
#[derive(Debug)]
pub struct Resumed {
    /// As the receiver knows it.
    pub transfer: TransferId,
    /// The files.
    pub stream: Stream,
    /// What stands in them.
    pub found: Found,
    /// What the receiver has, and how far it lets us go.
    pub receipt: Receipt,
    /// The place in the stream that it has taken everything before.
    pub taken: Mark,
    /// Where the rest is counted.
    pub progress: Arc<Progress>,
}

/// The running stages of one session. Dropped, it ends them and waits for their threads.
#[derive(Debug)]
pub struct Sender {
    jobs: Option<crossbeam_channel::Sender<Job>>,
    read_waker: Arc<Waker>,
    send: Option<Inbox>,
    /// Where frames go first: to the spool, or at once to be sent.
    frames: Option<Inbox>,
    halt: Arc<Halt>,
    threads: Vec<JoinHandle<Option<()>>>,
    /// Where blocks are packed as far as costs no speed.
    pressure: Option<Arc<Pressure>>,
    route: Route,
}

impl Sender {
    /// Starts the stages over `connections`: a place for each lane of the session, with a blocking
    /// stream socket or empty until one [`Sender::join`]s. Nothing is sent before the first
    /// [`Sender::credit`], unless a stream is `resumed`, which takes a spool.
    ///
    /// Fails where the cache is too small for them or the machine has no room for it.
    pub fn start(
        settings: &Settings,
        connections: Vec<Option<Conduit>>,
        events: &UnboundedSender<Event>,
        resumed: Option<Resumed>,
    ) -> Result<Sender, Failure> {
        let codec = settings.codec();
        let slots = settings.slots(connections.len(), codec, Side::Source)?;
        Sender::build(settings, connections, events, resumed, slots)
            .map_err(|error| Fault::Setup("sender", error).failure(Side::Source))
    }

    fn build(
        settings: &Settings,
        places: Vec<Option<Conduit>>,
        events: &UnboundedSender<Event>,
        resumed: Option<Resumed>,
        slots: u32,
    ) -> io::Result<Sender> {
        let lanes = places.len();
        let (read_waker, send_waker) = (Arc::new(Waker::new()?), Arc::new(Waker::new()?));
        let connections = u32::try_from(lanes).unwrap_or(u32::MAX - 1);
        let bays =
            settings.bays(settings.codec(), slots, connections, connections + 1, &read_waker)?;
        let route = Route::of(bays.as_ref());
        let arena = Arena::new(settings.block_bytes.as_usize() + PAGE_BYTES, slots)?;
        let halt = Arc::new(Halt::default());
        halt.wakes(&read_waker);
        halt.wakes(&send_waker);
        let (jobs, job_inbox) = crossbeam_channel::unbounded();
        // Both queues are bounded by the slots: whatever stands in them holds one.
        let (blocks, block_inbox) = crossbeam_channel::unbounded();
        let (messages, inbox) = crossbeam_channel::unbounded();
        let send = Inbox { messages, waker: Arc::clone(&send_waker) };
        let mut sender = Sender {
            jobs: Some(jobs),
            read_waker: Arc::clone(&read_waker),
            send: Some(send.clone()),
            frames: Some(send.clone()),
            halt: Arc::clone(&halt),
            threads: Vec::new(),
            pressure: None,
            route,
        };
        let report = || reporter(events);
        let (dealing, state) = begin(resumed);
        let next = state.next();
        let (pool, frames) = match &settings.spool {
            None => (Pool::split(&arena, 1, &read_waker).remove(0), send.clone()),
            Some(spool) => {
                let (pool, frames, run) =
                    sender.spooling(settings, spool, &arena, (send.clone(), events), state)?;
                sender.threads.push(stage::spawn("spool", &halt, report(), run)?);
                (pool, frames)
            }
        };
        sender.frames = Some(frames.clone());
        let room = bays.map_or(Room::Slots(pool), Room::Bays);
        let read = {
            let (settings, arena) = (settings.clone(), Arc::clone(&arena));
            let (halt, send) = (Arc::clone(&halt), frames.clone());
            move || {
                let port = stage::port(route, settings.backend, &arena, &read_waker, 1)
                    .map_err(|error| Fault::Setup("read", error))?;
                tracing::debug!(%route, registered = port.registered(), "reading the source");
                Reader {
                    port,
                    room,
                    jobs: job_inbox,
                    blocks,
                    send,
                    halt,
                    codec: settings.codec(),
                    block_bytes: settings.block_bytes.as_usize(),
                    flush_after: settings.flush_after,
                    next,
                }
                .run()
            }
        };
        sender.threads.push(stage::spawn("read", &halt, report(), read)?);

        sender.compress(settings, slots, &block_inbox, &frames, events)?;
        let deal = {
            let (backend, zero_copy) = (settings.backend, settings.zero_copy);
            let (halt, events) = (Arc::clone(&halt), events.clone());
            let pressure = sender.pressure.clone();
            move || {
                // A send and a watch for each; those that have yet to end find room beside them.
                let depth = u32::try_from(2 * lanes).unwrap_or(u32::MAX);
                let port = stage::port(route, backend, &arena, &send_waker, depth)
                    .map_err(|error| Fault::Setup("send", error))?;
                Dealer {
                    port,
                    inbox,
                    halt,
                    report: Box::new(move |event| drop(events.send(event))),
                    lanes: Lanes::new(zero_copy, pressure.is_some()),
                    pressure,
                    window: dealing.window,
                    closing: VecDeque::new(),
                    dealt: Prefix::default(),
                    progress: dealing.progress,
                    acknowledged: dealing.acknowledged,
                }
                .run()
            }
        };
        sender.threads.push(stage::spawn("send", &halt, report(), deal)?);
        for (lane, fd) in (0..).zip(places) {
            if let Some(fd) = fd {
                sender.join(lane, fd);
            }
        }
        Ok(sender)
    }

    /// Starts the workers, if blocks are packed.
    fn compress(
        &mut self,
        settings: &Settings,
        slots: u32,
        blocks: &crossbeam_channel::Receiver<Plain>,
        frames: &Inbox,
        events: &UnboundedSender<Event>,
    ) -> io::Result<()> {
        let Some(packing) = self.packing(settings.compression, slots) else { return Ok(()) };
        for worker in 0..settings.workers.max(1) {
            let (blocks, send) = (blocks.clone(), frames.clone());
            let compressor = Compressor { blocks, send, packing: packing.clone() };
            let core = stage::core_of(&settings.cores, worker);
            let run = move || {
                stage::pin(core);
                compressor.run()
            };
            self.threads.push(stage::spawn("compress", &self.halt, reporter(events), run)?);
        }
        Ok(())
    }

    /// How blocks are packed, if they are.
    fn packing(&mut self, compression: Compression, slots: u32) -> Option<Packing> {
        match compression {
            Compression::None => None,
            Compression::Zstd { level } => Some(Packing::Fixed(level)),
            Compression::Auto => {
                let pressure = Arc::new(Pressure::new(slots as usize));
                self.pressure = Some(Arc::clone(&pressure));
                Some(Packing::Following(pressure))
            }
        }
    }

    /// The pool of the source, the place where frames go, and the stage that takes them from there.
    fn spooling(
        &self,
        settings: &Settings,
        spool: &Spool,
        arena: &Arc<Arena>,
        next: (Inbox, &UnboundedSender<Event>),
        state: State,
    ) -> io::Result<(Pool, Inbox, impl FnOnce() -> Result<(), Fault> + Send + use<>)> {
        let Shares { fresh, most } = shares(arena.slots(), settings.codec());
        let (waker, halt) = (Arc::new(Waker::new()?), Arc::clone(&self.halt));
        halt.wakes(&waker);
        let [pool, loading] = Pool::part(arena, fresh, [&self.read_waker, &waker]);
        let (messages, inbox) = crossbeam_channel::unbounded();
        let frames = Inbox { messages, waker: Arc::clone(&waker) };
        let backend = file_backend(settings.backend, &spool.folder)?;
        let (spool, block_bytes, arena) = (spool.clone(), settings.block_bytes, Arc::clone(arena));
        let (send, events) = (next.0, next.1.clone());
        let run = move || {
            let port = Port::new(backend, &arena, &waker, spool::DEPTH)
                .map_err(|error| Fault::Setup("spool", error))?;
            let passed = Passed::new(most as usize);
            let report: Box<dyn Fn(Event) + Send> = Box::new(move |event| drop(events.send(event)));
            Spooler { port, inbox, send, halt, report, spool, block_bytes, loading, passed, state }
                .run()
        };
        Ok((pool, frames, run))
    }

    /// Carries the stream that comes out of `source` to its end; answered by [`Event::Sent`]. One
    /// transfer at a time. A `stream` is kept in its breakpoint files too, which takes a spool.
    pub fn carry(
        &self,
        transfer: TransferId,
        epoch: u32,
        source: OwnedFd,
        progress: &Arc<Progress>,
        stream: Option<Stream>,
    ) {
        if let (Some(jobs), Some(frames)) = (&self.jobs, &self.frames) {
            frames.put(ToSend::Open { progress: Arc::clone(progress), stream });
            let job = Job { transfer, epoch, source, progress: Arc::clone(progress) };
            // A reader that has ended has reported why.
            if jobs.send(job).is_ok() {
                self.read_waker.wake();
            }
        }
    }

    /// Where the records of a stream say what follows from them.
    pub fn follow(&self) -> Follow {
        let frames = self.frames.clone();
        Box::new(move |order| {
            if let Some(frames) = &frames {
                frames.put(ToSend::Follow(order));
            }
        })
    }

    /// Has all connections together send no more than a rate, from each call on; `None` lifts it.
    /// A copy within one host knows no limit. Of no use, and no harm, when the engine has ended.
    pub fn limiter(&self) -> impl Fn(Option<Rate>) + Send + use<> {
        let send = self.send.clone();
        move |limit| {
            if let Some(send) = &send {
                send.put(ToSend::Limit(limit));
            }
        }
    }

    /// How blocks go.
    pub fn route(&self) -> Route {
        self.route
    }

    /// How far blocks are packed at the moment, where that follows the queues
    /// ([`Compression::Auto`]).
    pub fn level(&self) -> Option<Level> {
        self.pressure.as_ref().map(|pressure| pressure.level())
    }

    /// Has a connection carry a lane: a blocking stream socket. One that the lane has already is
    /// shut down, what it had on its way is sent again, and no event tells of it.
    pub fn join(&self, lane: u32, connection: Conduit) {
        self.tell(ToSend::Join { lane, connection });
    }

    /// Shuts the connection of a lane down; as [`Sender::join`] without a new one.
    pub fn leave(&self, lane: u32) {
        self.tell(ToSend::Leave { lane });
    }

    /// Passes on what the receiver says. One that contradicts what it said before, or what was
    /// sent, ends the engine: [`Fault::Credit`].
    pub fn credit(&self, receipt: impl Into<Receipt>) {
        self.tell(ToSend::Credit(receipt.into()));
    }

    /// Passes on where a receiver stands that may have lost what it had not taken: all of that is
    /// sent again.
    pub fn stands(&self, receipt: Receipt) {
        self.tell(ToSend::Stands(receipt));
    }

    fn tell(&self, message: ToSend) {
        if let Some(send) = &self.send {
            send.put(message);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.halt.turn_on();
        self.jobs = None;
        self.send = None;
        self.frames = None;
        for thread in self.threads.drain(..) {
            let _reported = thread.join();
        }
    }
}

/// Tells the fault of a stage.
fn reporter(events: &UnboundedSender<Event>) -> impl FnOnce(Fault) + Send + use<> {
    let events = events.clone();
    // Nobody listens any more when the session is over.
    move |fault| drop(events.send(Event::Failed(fault)))
}

/// What the last stage begins with.
#[derive(Default)]
struct Dealing {
    window: SendWindow<Frame>,
    progress: Arc<Progress>,
    acknowledged: Acknowledged,
}

fn begin(resumed: Option<Resumed>) -> (Dealing, State) {
    let Some(resumed) = resumed else { return Default::default() };
    let Receipt { credit, arrived } = &resumed.receipt;
    let is_there = |frame| frame < credit.taken || arrived.contains(frame);
    resumed.progress.add_sent(resumed.found.bytes_where(is_there));
    let dealing = Dealing {
        window: SendWindow::restored(resumed.receipt.clone()),
        progress: Arc::clone(&resumed.progress),
        acknowledged: Acknowledged::from(resumed.transfer, resumed.taken, credit.taken),
    };
    (dealing, State::resumed(resumed))
}

/// How the slots are shared where there is a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    /// For blocks on their way from the source.
    fresh: u32,
    /// Of these, how many frames may wait in them before new ones go to files. The rest goes
    /// around between the source and the disk.
    most: u32,
}

/// Half of the slots takes what comes back from files: a receiver with the same cache says what it
/// has taken after each quarter of it, and with no more than that on its way the wire would be idle
/// until then. Of those for new blocks a quarter goes around while the cache is full: with an
/// eighth, and a third of the writes in flight, source and disk waited for each other whenever a
/// thread waited for a core, and the source was a sixth slower. Half where blocks are packed, for
/// workers hold two slots each.
fn shares(slots: u32, codec: Codec) -> Shares {
    let fresh = slots - slots / 2;
    let around = match codec {
        Codec::Raw | Codec::Bare => fresh / 4,
        Codec::Zstd => fresh / 2,
    };
    let around = around.max(2 * slots_per_block(codec));
    Shares { fresh, most: fresh.saturating_sub(around) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cache_leaves_slots_to_read_with_and_to_load_with() {
        for codec in [Codec::Raw, Codec::Zstd] {
            let least = 2 * slots_per_block(codec);
            for slots in least..2000 {
                let Shares { fresh, most } = shares(slots, codec);
                assert!(fresh < slots && fresh >= slots_per_block(codec), "{slots} {codec:?}");
                assert!(most == 0 || fresh - most >= 2 * slots_per_block(codec));
            }
        }
        assert_eq!(shares(127, Codec::Raw), Shares { fresh: 64, most: 48 });
        assert_eq!(shares(127, Codec::Zstd), Shares { fresh: 64, most: 32 });
    }
}
