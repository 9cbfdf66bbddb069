//! Bays filled and emptied behind a port, by plain calls on the stage's own thread.
//!
//! `IORING_OP_SPLICE` always goes to a worker thread of the kernel (`REQ_F_FORCE_ASYNC`), and a
//! helper of ours would cost two changes of thread for each block. Nothing here copies a byte, so
//! one thread does for all connections: it tries an operation, and polls for what has to wait. The
//! sockets are `O_NONBLOCK`, for splice(2) goes by nothing else.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use crate::arena::PAGE_BYTES;
use crate::bay::{Bay, Way};
use crate::loan::Loan;
use crate::operation::{Act, Completion, Request};
use crate::wake::{Waker, poll_timeout};

/// The operations of one thread.
#[derive(Debug)]
pub(crate) struct Poller {
    pending: Vec<Pending>,
    waker: Arc<Waker>,
    /// Waits that slept for nothing new, since something had ended at once.
    unslept: u32,
}

/// After so many of them whoever waits for longer is looked after: one connection that always has
/// work must not keep the others from theirs.
const UNSLEPT_MAX: u32 = 16;

#[derive(Debug)]
struct Pending {
    key: u32,
    fd: Arc<OwnedFd>,
    work: Work,
    /// Worth a try: nobody has said that it has to wait.
    ready: bool,
}

#[derive(Debug)]
enum Work {
    Draw { bay: Bay, most: usize },
    ReceiveBay { bay: Bay, length: usize },
    Receive { loan: Loan, range: Range<usize>, filled: usize },
    SendBay(Outgoing),
    Watch,
    Cancelled(Bay),
}

/// A head and a bay on their way into a socket.
#[derive(Debug)]
struct Outgoing {
    head: Box<[u8]>,
    bay: Arc<Bay>,
    sent: usize,
    /// Has what is left of the bay once the head is gone.
    way: Option<Way>,
}

/// How far an operation came: `None`, it has to wait.
type Step = Option<io::Result<usize>>;

impl Poller {
    pub(crate) fn new(waker: &Arc<Waker>) -> Poller {
        Poller { pending: Vec::new(), waker: Arc::clone(waker), unslept: 0 }
    }

    pub(crate) fn submit(&mut self, request: Request) -> io::Result<()> {
        let Request { key, fd, act } = request;
        let work = match act {
            Act::Draw(bay, most) => Work::Draw { bay, most },
            Act::ReceiveBay(bay, length) => {
                never_wait(&fd)?;
                Work::ReceiveBay { bay, length }
            }
            Act::Receive(loan, range) => Work::Receive { loan, range, filled: 0 },
            Act::SendBay(head, bay) => {
                never_wait(&fd)?;
                Work::SendBay(Outgoing { head, bay, sent: 0, way: None })
            }
            Act::Watch => Work::Watch,
            Act::Read(..)
            | Act::Send(..)
            | Act::SendZeroCopy(..)
            | Act::ReadAt(..)
            | Act::WriteAt(..) => panic!("a port for bays was asked to move a slot"),
        };
        // A source may be one that a splice would wait for, so it is asked first.
        let ready = !matches!(work, Work::Watch | Work::Draw { .. });
        self.pending.push(Pending { key, fd, work, ready });
        Ok(())
    }

    /// Ends a [`Act::Draw`].
    pub(crate) fn cancel(&mut self, key: u32) {
        let Some(at) = self.pending.iter().position(|pending| pending.key == key) else { return };
        let Pending { fd, work, ready, .. } = self.pending.swap_remove(at);
        let (work, ready) = match work {
            Work::Draw { bay, .. } => (Work::Cancelled(bay), true),
            other => (other, ready),
        };
        self.pending.push(Pending { key, fd, work, ready });
    }

    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let ended = self.advance(completions);
        self.unslept += u32::from(ended);
        if !ended || self.unslept > UNSLEPT_MAX {
            self.unslept = 0;
            self.poll(if ended { Some(Duration::ZERO) } else { timeout })?;
            self.advance(completions);
        }
        Ok(())
    }

    /// Tries all that is ready. Whether anything has ended.
    fn advance(&mut self, completions: &mut Vec<Completion>) -> bool {
        let before = completions.len();
        let mut at = 0;
        while at < self.pending.len() {
            let Pending { fd, work, ready, .. } = &mut self.pending[at];
            let step = if *ready { work.step(fd) } else { None };
            *ready = false;
            match step {
                None => at += 1,
                Some(result) => {
                    let ended = self.pending.swap_remove(at);
                    completions.push(ended.complete(result));
                }
            }
        }
        completions.len() > before
    }

    /// Sleeps until something is ready, the bell rings, or `timeout` has passed.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fds = Vec::with_capacity(1 + self.pending.len());
        fds.push(PollFd::new(self.waker.as_fd(), PollFlags::POLLIN));
        fds.extend(self.pending.iter().map(|one| PollFd::new(one.fd.as_fd(), one.work.awaits())));
        match poll(&mut fds, poll_timeout(timeout)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // The bell is the first, and the operations follow in their order.
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        if ready[0] {
            self.waker.wait(Some(Duration::ZERO))?;
        }
        for (pending, &ready) in self.pending.iter_mut().zip(&ready[1..]) {
            pending.ready = ready;
        }
        Ok(())
    }
}

impl Drop for Poller {
    /// As a port that is dropped with operations in flight does: half a frame is of no use.
    fn drop(&mut self) {
        for Pending { fd, work, .. } in &self.pending {
            if !matches!(work, Work::Draw { .. } | Work::Cancelled(_)) {
                let _already_gone = shutdown(fd.as_raw_fd(), Shutdown::Both);
            }
        }
    }
}

impl Pending {
    fn complete(self, result: io::Result<usize>) -> Completion {
        let key = self.key;
        match self.work {
            Work::Draw { bay, .. } | Work::ReceiveBay { bay, .. } | Work::Cancelled(bay) => {
                Completion::Drawn { key, bay, result }
            }
            Work::Receive { loan, .. } => Completion::Filled { key, loan, result },
            Work::SendBay(_) => Completion::Sent { key, result },
            Work::Watch => Completion::Watched { key, result: result.map(drop) },
        }
    }
}

impl Work {
    fn awaits(&self) -> PollFlags {
        match self {
            Work::SendBay(_) => PollFlags::POLLOUT,
            _ => PollFlags::POLLIN,
        }
    }

    fn step(&mut self, fd: &OwnedFd) -> Step {
        match self {
            Work::Draw { bay, most } => draw(fd, bay, *most),
            Work::ReceiveBay { bay, length } => receive_bay(fd, bay, *length),
            Work::Receive { loan, range, filled } => receive(fd, &mut loan[range.clone()], filled),
            Work::SendBay(outgoing) => outgoing.step(fd),
            Work::Watch => Some(Ok(0)),
            Work::Cancelled(_) => Some(Err(io::Error::from_raw_os_error(libc::ECANCELED))),
        }
    }
}

/// What the source has; from one that has no pages to move, by a copy.
fn draw(fd: &OwnedFd, bay: &mut Bay, most: usize) -> Step {
    unless_blocked(match bay.fill(fd, most) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => bay.copy_in(fd, most),
        result => result,
    })
}

/// Until `length` bytes are in the bay or the peer is done.
fn receive_bay(fd: &OwnedFd, bay: &mut Bay, length: usize) -> Step {
    while bay.len() < length {
        match bay.fill(fd, length - bay.len()) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match make_room(fd, bay, length) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return unless_blocked(Err(error)),
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(bay.len()))
}

/// For a bay that is full, though not of bytes; `WouldBlock` where the socket had none.
fn make_room(fd: &OwnedFd, bay: &mut Bay, length: usize) -> io::Result<usize> {
    let missing = length - bay.len();
    if !bay.is_full()? {
        // Or something that splice does not step over, as an urgent byte: it would wait for ever.
        return bay.copy_in(fd, missing.min(PAGE_BYTES));
    }
    bay.pack()?;
    if bay.is_full()? { bay.copy_in(fd, missing) } else { Ok(bay.len()) }
}

/// Until the buffer is full or the peer is done.
fn receive(fd: &OwnedFd, buffer: &mut [u8], filled: &mut usize) -> Step {
    while *filled < buffer.len() {
        match recv(fd.as_raw_fd(), &mut buffer[*filled..], MsgFlags::MSG_DONTWAIT) {
            Ok(0) => break,
            Ok(count) => *filled += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return None,
            Err(error) => return Some(Err(error.into())),
        }
    }
    Some(Ok(*filled))
}

impl Outgoing {
    fn step(&mut self, fd: &OwnedFd) -> Step {
        while self.sent < self.head.len() {
            // The head shall not leave in a segment of its own.
            let more = MsgFlags::from_bits_retain(libc::MSG_MORE);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | more;
            match unless_blocked(to_io(send(fd.as_raw_fd(), &self.head[self.sent..], flags)))? {
                Ok(count) => self.sent += count,
                Err(error) => return Some(Err(error)),
            }
        }
        let way = match &mut self.way {
            Some(way) => way,
            none => match self.bay.tee() {
                Ok(way) => none.insert(way),
                Err(error) => return Some(Err(error)),
            },
        };
        let all = self.head.len() + self.bay.len();
        while self.sent < all {
            match unless_blocked(way.pour(fd))? {
                Ok(count) => self.sent += count,
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(all))
    }
}

fn to_io(result: nix::Result<usize>) -> io::Result<usize> {
    Ok(result?)
}

fn unless_blocked(result: io::Result<usize>) -> Step {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        result => Some(result),
    }
}

fn never_wait(socket: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::bay::{Bays, Wanted};
    use crate::pipe::Pipe;
    use crate::port::Port;

    const BYTES: usize = 64 << 10;

    struct Bench {
        port: Port,
        bays: Bays,
        waker: Arc<Waker>,
    }

    fn bench() -> Bench {
        let waker = Arc::new(Waker::new().unwrap());
        let bays = Bays::new(Wanted { count: 2, bytes: BYTES, ways: 1 }, &waker).unwrap();
        Bench { port: Port::for_bays(&waker), bays, waker }
    }

    impl Bench {
        fn run(&mut self, fd: &Arc<OwnedFd>, act: Act) -> Completion {
            self.port.submit(Request { key: 1, fd: Arc::clone(fd), act }).unwrap();
            let mut completions = Vec::new();
            for _ in 0..1000 {
                self.port.wait(Some(Duration::from_millis(10)), &mut completions).unwrap();
                if let Some(completion) = completions.pop() {
                    return completion;
                }
            }
            panic!("nothing ended in 10 s")
        }

        fn draw(&mut self, fd: &Arc<OwnedFd>, most: usize) -> (Bay, io::Result<usize>) {
            let bay = self.bays.take().unwrap();
            drawn(self.run(fd, Act::Draw(bay, most)))
        }
    }

    fn drawn(completion: Completion) -> (Bay, io::Result<usize>) {
        match completion {
            Completion::Drawn { bay, result, .. } => (bay, result),
            other => panic!("{other:?}"),
        }
    }

    fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Bytes of which no two places look alike.
    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| ((at / 251 + at) % 256).try_into().unwrap()).collect()
    }

    #[test]
    fn a_head_and_its_hold_arrive_in_one_piece_as_often_as_they_are_sent() {
        let mut bench = bench();
        let pipe = Pipe::new(BYTES).unwrap();
        std::fs::File::from(pipe.writer).write_all(&content(50_000)).unwrap();
        let (bay, result) = bench.draw(&Arc::new(pipe.reader), BYTES);
        assert_eq!(result.unwrap(), 50_000);
        let bay = Arc::new(bay);
        for _ in 0..2 {
            let (ours, mut theirs) = tcp();
            let act = Act::SendBay((*b"head").into(), Arc::clone(&bay));
            match bench.run(&Arc::new(ours.into()), act) {
                Completion::Sent { result, .. } => assert_eq!(result.unwrap(), 50_004),
                other => panic!("{other:?}"),
            }
            let mut got = vec![0; 50_004];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!((&got[..4], &got[4..]), (&b"head"[..], &content(50_000)[..]));
        }
    }

    /// Each of these comes as a piece of its own, and there are four times as many as places.
    #[test]
    fn a_payload_in_pieces_of_a_few_bytes_fits_into_its_hold() {
        let mut bench = bench();
        let (ours, mut theirs) = tcp();
        theirs.set_nodelay(true).unwrap();
        let all = content(BYTES);
        let sent = all.clone();
        let writer = std::thread::spawn(move || {
            for piece in sent.chunks(64) {
                theirs.write_all(piece).unwrap();
            }
        });
        let bay = bench.bays.take().unwrap();
        let (mut bay, result) =
            drawn(bench.run(&Arc::new(ours.into()), Act::ReceiveBay(bay, BYTES)));
        writer.join().unwrap();
        assert_eq!(result.unwrap(), BYTES);
        assert!(bay.read_out().unwrap() == all);
    }

    #[test]
    fn the_end_of_a_connection_is_a_short_payload() {
        let mut bench = bench();
        let (ours, mut theirs) = tcp();
        theirs.write_all(&[1; 100]).unwrap();
        drop(theirs);
        let bay = bench.bays.take().unwrap();
        let (_, result) = drawn(bench.run(&Arc::new(ours.into()), Act::ReceiveBay(bay, 1000)));
        assert_eq!(result.unwrap(), 100);
    }

    #[test]
    fn the_bell_wakes_a_port_whose_source_is_silent_and_a_hoard_can_be_called_back() {
        let mut bench = bench();
        let pipe = Pipe::new(BYTES).unwrap();
        let (reader, bay) = (Arc::new(pipe.reader), bench.bays.take().unwrap());
        let request = Request { key: 7, fd: reader, act: Act::Draw(bay, BYTES) };
        bench.port.submit(request).unwrap();
        let waker = Arc::clone(&bench.waker);
        let ringer = std::thread::spawn(move || waker.wake());
        let mut completions = Vec::new();
        bench.port.wait(Some(Duration::from_secs(10)), &mut completions).unwrap();
        ringer.join().unwrap();
        assert!(completions.is_empty());
        bench.port.cancel(7).unwrap();
        bench.port.wait(Some(Duration::from_secs(10)), &mut completions).unwrap();
        let (bay, result) = drawn(completions.pop().unwrap());
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert!(bay.is_empty());
        drop(bay);
        assert_eq!(bench.bays.free(), 2);
    }

    #[test]
    fn a_send_that_breaks_leaves_nothing_for_the_next() {
        let mut bench = bench();
        let pipe = Pipe::new(BYTES).unwrap();
        std::fs::File::from(pipe.writer).write_all(&content(60_000)).unwrap();
        let (bay, _) = bench.draw(&Arc::new(pipe.reader), BYTES);
        let bay = Arc::new(bay);
        let (ours, theirs) = tcp();
        // Unread bytes at the other end make its close a reset.
        (&ours).write_all(b"x").unwrap();
        drop(theirs);
        let ours = Arc::new(OwnedFd::from(ours));
        let broken = std::iter::repeat_with(|| {
            match bench.run(&ours, Act::SendBay((*b"head").into(), Arc::clone(&bay))) {
                Completion::Sent { result, .. } => result,
                other => panic!("{other:?}"),
            }
        });
        assert!(broken.take(10).any(|result| result.is_err()));
        let (ours, mut theirs) = tcp();
        bench.run(&Arc::new(ours.into()), Act::SendBay((*b"again").into(), bay));
        let mut got = vec![0; 60_005];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!((&got[..5], &got[5..]), (&b"again"[..], &content(60_000)[..]));
    }
}
