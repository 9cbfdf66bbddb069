//! Each part of the way by itself, with the calls that the engine's stage makes.
//!
//! One operation in flight, on slots of an arena as large as the cache, taken in turn: a slot that
//! is used again at once would still be in the core's own cache, which no stream's is. At the other
//! end stands a thread that only writes or only reads.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use sys::arena::{Arena, PAGE_BYTES};
use sys::loan::{Loan, Pool};
use sys::pipe::Pipe;
use sys::port::{Act, Completion, Port, Request};
use sys::splicer::Splicer;
use sys::wake::Waker;

use super::rig::{Rig, read_out, write_sample};
use crate::process::PIPE_BYTES;
use crate::units::Bytes;

/// Where a block begins in its slot: the page in front of it is for its header.
const HEADROOM: usize = PAGE_BYTES;

/// The memory of one measurement.
struct Slots {
    arena: Arc<Arena>,
    waker: Arc<Waker>,
    pool: Pool,
    block_bytes: usize,
    /// Those that stand for blocks on their way; the oldest goes home for the next.
    on_their_way: VecDeque<Loan>,
}

/// The pipe of a source into slots, and their CRC32.
pub(super) fn read(rig: &Rig) -> io::Result<Bytes> {
    let mut slots = Slots::new(rig)?.touched();
    let pipe = Pipe::new(PIPE_BYTES.as_usize())?;
    let source = Arc::new(pipe.reader);
    thread::scope(|scope| {
        let deadline = rig.begin();
        let mut port = slots.port(rig)?;
        let (started, mut bytes) = (Instant::now(), 0);
        scope.spawn({
            let (deadline, writer) = (deadline.clone(), pipe.writer);
            move || write_sample(writer, &rig.sample, &deadline)
        });
        // Dropped on every way out, for the writer waits as long as it could be read.
        let source = source;
        loop {
            let mut loan = slots.take();
            let (mut length, mut crc) = (0, crc32fast::Hasher::new());
            while length < slots.block_bytes {
                let range = HEADROOM + length..HEADROOM + slots.block_bytes;
                let act = Act::Read(loan, range.clone());
                let (back, count) = filled(&mut port, &source, act)?;
                loan = back;
                if count == 0 {
                    return Ok(Bytes(bytes).per_second(started.elapsed()));
                }
                crc.update(&loan[range.start..range.start + count]);
                length += count;
                bytes += count as u64;
            }
            std::hint::black_box(crc.finalize());
            slots.keep(loan);
        }
    })
}

/// Slots into a socket.
pub(super) fn send(rig: &Rig) -> io::Result<Bytes> {
    let slots = Slots::new(rig)?;
    let blocks = slots.filled(rig);
    let (ours, theirs) = loopback()?;
    thread::scope(|scope| {
        let reader = scope.spawn(move || read_out(theirs));
        let socket: Arc<OwnedFd> = Arc::new(ours.into());
        let deadline = rig.begin();
        let started = Instant::now();
        let mut port = slots.port(rig)?;
        for block in blocks.iter().cycle() {
            if deadline.is_over() {
                break;
            }
            let range = HEADROOM..HEADROOM + slots.block_bytes;
            let request = Request {
                key: 0,
                fd: Arc::clone(&socket),
                act: Act::Send(Arc::clone(block), range),
            };
            port.submit(request)?;
            if !sent(&mut port, slots.block_bytes)? {
                break;
            }
        }
        drop((port, socket));
        let bytes = reader.join().unwrap_or_default();
        Ok(bytes.per_second(started.elapsed()))
    })
}

/// A socket into slots, and the CRC32 of what came.
pub(super) fn receive(rig: &Rig) -> io::Result<Bytes> {
    let mut slots = Slots::new(rig)?.touched();
    let (ours, mut theirs) = loopback()?;
    let deadline = rig.begin();
    thread::scope(|scope| {
        scope.spawn(move || {
            while !deadline.is_over() {
                for piece in rig.sample.bytes().chunks(rig.settings.block_bytes.as_usize()) {
                    if deadline.is_over() || theirs.write_all(piece).is_err() {
                        return;
                    }
                }
            }
        });
        let socket: Arc<OwnedFd> = Arc::new(ours.into());
        let (started, mut bytes) = (Instant::now(), 0);
        let mut port = slots.port(rig)?;
        loop {
            let range = HEADROOM..HEADROOM + slots.block_bytes;
            let act = Act::Receive(slots.take(), range);
            let (loan, count) = filled(&mut port, &socket, act)?;
            std::hint::black_box(crc32fast::hash(&loan[HEADROOM..HEADROOM + count]));
            bytes += count as u64;
            if count < slots.block_bytes {
                return Ok(Bytes(bytes).per_second(started.elapsed()));
            }
            slots.keep(loan);
        }
    })
}

/// The pages of slots into the pipe of a reader that copies.
pub(super) fn splice(rig: &Rig) -> io::Result<Bytes> {
    let slots = Slots::new(rig)?;
    let blocks = slots.filled(rig);
    let pipe = Pipe::new(PIPE_BYTES.as_usize())?;
    thread::scope(|scope| {
        let reader = scope.spawn(move || read_out(std::fs::File::from(pipe.reader)));
        let deadline = rig.begin();
        let started = Instant::now();
        let mut splicer = Splicer::new(pipe.writer)?;
        for block in blocks.iter().cycle() {
            if deadline.is_over() {
                break;
            }
            let range = HEADROOM..HEADROOM + slots.block_bytes;
            splicer.splice(Arc::clone(block), range, &|| true)?;
        }
        drop(splicer);
        let bytes = reader.join().unwrap_or_default();
        Ok(bytes.per_second(started.elapsed()))
    })
}

impl Slots {
    fn new(rig: &Rig) -> io::Result<Slots> {
        let block_bytes = rig.settings.block_bytes.as_usize();
        let slot_bytes = block_bytes + PAGE_BYTES;
        let count = (rig.settings.cache.as_usize() / slot_bytes).max(2);
        let arena = Arena::new(slot_bytes, u32::try_from(count).unwrap_or(u32::MAX))?;
        let waker = Arc::new(Waker::new()?);
        let pool = Pool::split(&arena, 1, &waker).remove(0);
        Ok(Slots { arena, waker, pool, block_bytes, on_their_way: VecDeque::new() })
    }

    /// With memory behind all of them: a transfer pays for that once, and is long.
    fn touched(self) -> Slots {
        let mut loans = Vec::new();
        while let Some([mut loan]) = self.pool.take() {
            loan.fill(0);
            loans.push(loan);
        }
        drop(loans);
        self
    }

    fn port(&self, rig: &Rig) -> io::Result<Port> {
        Port::new(rig.settings.backend, &self.arena, &self.waker, 1)
    }

    fn take(&mut self) -> Loan {
        loop {
            match self.pool.take() {
                Some([loan]) => return loan,
                None => drop(self.on_their_way.pop_front()),
            }
        }
    }

    fn keep(&mut self, loan: Loan) {
        self.on_their_way.push_back(loan);
    }

    /// All slots, with the sample in them.
    fn filled(&self, rig: &Rig) -> Vec<Arc<Loan>> {
        let mut blocks = Vec::new();
        while let Some([mut loan]) = self.pool.take() {
            let range = HEADROOM..HEADROOM + self.block_bytes;
            rig.sample.fill(blocks.len() * self.block_bytes, &mut loan[range]);
            blocks.push(Arc::new(loan));
        }
        blocks
    }
}

/// Two ends of a TCP connection of this host.
fn loopback() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    Ok((ours, theirs))
}

/// Fills a slot, or a part of it, and gives it back with the number of bytes that came.
fn filled(port: &mut Port, fd: &Arc<OwnedFd>, act: Act) -> io::Result<(Loan, usize)> {
    port.submit(Request { key: 0, fd: Arc::clone(fd), act })?;
    loop {
        if let Completion::Filled { loan, result, .. } = ended(port)? {
            return Ok((loan, result?));
        }
    }
}

/// Waits until what was submitted has gone out; `false` where the socket takes no more.
fn sent(port: &mut Port, bytes: usize) -> io::Result<bool> {
    loop {
        if let Completion::Sent { result, .. } = ended(port)? {
            return Ok(result? == bytes);
        }
    }
}

fn ended(port: &mut Port) -> io::Result<Completion> {
    let mut completions = Vec::with_capacity(1);
    while completions.is_empty() {
        port.wait(None, &mut completions)?;
    }
    Ok(completions.remove(0))
}
