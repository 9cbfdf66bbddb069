//! What the receiver's stages and its session share: the window, and the way back to the intake.
//!
//! A block arrives in `receive`, is proved in `decompress` or `splice`, and is taken in `splice`;
//! all three say so to one window, and the session asks it what to tell the sender. Only a number
//! is looked up or moved under its lock.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use sys::bay::Bay;
use sys::cipher::Conduit;
use sys::wake::Waker;

use crate::engine::block::{Arrived, Block, Place};
use crate::engine::fault::Fault;
use crate::protocol::window::{Arrival, BeyondRoom, Receipt, ReceiveWindow};
use crate::units::{Sequence, StreamOffset};

/// The connection that a block came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub lane: u32,
    /// Tells it from those that carried the lane before and after.
    pub id: u32,
}

/// What the intake is told.
#[derive(Debug)]
pub(super) enum Order {
    /// A connection for a lane; it replaces the one that is there.
    Join { lane: u32, connection: Conduit },
    /// No connection for a lane any more.
    Leave { lane: u32 },
    /// A block was thrown away: its connection must go, and those of its copies.
    Bad { origin: Origin, copies: BTreeSet<u32>, fault: Fault },
}

/// The shared state; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    books: Arc<Mutex<Books>>,
    orders: Sender<Order>,
    intake: Arc<Waker>,
}

#[derive(Debug)]
struct Books {
    window: ReceiveWindow<Arrived>,
    /// A transfer has begun whose stream is not fed whole.
    feeding: bool,
    /// The session was told to ask for the credit, and has not asked yet.
    poked: bool,
    /// How much of the current transfer is durable.
    durable: StreamOffset,
}

impl Arrivals {
    /// Room for so many blocks from `first` on; orders go to the intake, which sleeps on that bell.
    pub fn new(
        blocks: u64,
        first: Sequence,
        orders: Sender<Order>,
        intake: &Arc<Waker>,
    ) -> Arrivals {
        let window = ReceiveWindow::restored(blocks, first);
        let books =
            Books { window, feeding: false, poked: false, durable: StreamOffset::default() };
        Arrivals { books: Arc::new(Mutex::new(books)), orders, intake: Arc::clone(intake) }
    }

    pub fn admit(&self, sequence: Sequence) -> Result<(), BeyondRoom> {
        self.books().window.admit(sequence)
    }

    pub fn arrive(&self, sequence: Sequence, lane: u32) -> Arrival {
        self.books().window.arrive(sequence, lane)
    }

    /// A block that arrived is what was sent.
    pub fn put(&self, block: Block) {
        self.books().window.put(block.place.sequence, Arrived::InSlot(block));
    }

    /// A block arrived that nobody proves.
    pub fn put_bay(&self, place: Place, bay: Bay) {
        self.books().window.put(place.sequence, Arrived::InBay(place, bay));
    }

    /// A block that arrived is not what was sent; its slots are at home again.
    pub fn reject(&self, sequence: Sequence, origin: Origin, fault: Fault) {
        let copies = self.books().window.reject(sequence);
        self.order(Order::Bad { origin, copies, fault });
    }

    pub fn take(&self) -> Option<Arrived> {
        self.books().window.take()
    }

    pub fn taken(&self) -> Sequence {
        self.books().window.taken()
    }

    /// How many blocks have come, but for those that were rejected.
    pub fn here(&self) -> u64 {
        self.books().window.here()
    }

    /// Says how many blocks the pipe holds, and answers whether the session should tell the
    /// sender: at once where the credit has grown by a quarter, and where it has grown at all if
    /// nothing else goes on (`quiet`), for a sender with a small cache may be waiting for it.
    pub fn hold(&self, held: usize, quiet: bool) -> bool {
        let mut books = self.books();
        books.window.hold(held);
        let least = if quiet { 1 } else { (books.window.blocks() / 4).max(1) };
        let poke = !books.poked && books.window.untold() >= least;
        books.poked |= poke;
        poke
    }

    /// Whether the credit has grown and nobody was told.
    pub fn has_untold(&self) -> bool {
        let books = self.books();
        !books.poked && books.window.untold() > 0
    }

    /// What to tell the sender now.
    pub fn tell(&self) -> Receipt {
        let mut books = self.books();
        books.poked = false;
        books.window.tell()
    }

    /// A transfer begins. Of one that is `kept` in files nothing is told as taken before it is
    /// durable.
    pub fn begin(&self, kept: bool) {
        let mut books = self.books();
        books.feeding = true;
        books.durable = StreamOffset(0);
        // What was taken for the transfer before this one is of no more use to anybody.
        books.window.let_go();
        if kept {
            books.window.hold_back();
        }
    }

    /// The stream is durable before this place, and so is every block numbered below `next_frame`.
    pub fn durable(&self, to: StreamOffset, next_frame: Sequence) {
        let mut books = self.books();
        books.durable = books.durable.max(to);
        books.window.durable(next_frame);
    }

    /// How much of the current transfer is durable.
    pub fn durable_to(&self) -> StreamOffset {
        self.books().durable
    }

    /// Nothing is kept any more: what is taken is told as that.
    pub fn retire(&self) {
        self.books().window.let_go();
    }

    /// The transfer is fed whole.
    pub fn end(&self) {
        self.books().feeding = false;
    }

    pub fn is_feeding(&self) -> bool {
        self.books().feeding
    }

    pub fn order(&self, order: Order) {
        // An intake that has ended has said why.
        if self.orders.send(order).is_ok() {
            self.intake.wake();
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
