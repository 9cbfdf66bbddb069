//! Plain system calls behind a port, for machines that forbid `io_uring`.
//!
//! A hand (thread) per operation in flight makes the blocking call and rings the port's bell. A
//! pipe is polled before it is read, together with the hand's own bell, so that a read can be
//! cancelled without touching `O_NONBLOCK`, which the pipe's other users would see too.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::sys::uio::{pread, pwrite};

use crate::operation::{Act, Completion, Request};
use crate::wake::Waker;

/// The hands of one port, and what they have finished.
#[derive(Debug)]
pub(crate) struct Crew {
    hands: Vec<Hand>,
    done: Arc<Mutex<Vec<(usize, Completion)>>>,
    /// Reads that needed no hand, until the next wait tells of them.
    at_once: Vec<Completion>,
    waker: Arc<Waker>,
}

/// One thread, and the operation it has in hand.
#[derive(Debug)]
struct Hand {
    orders: Option<Sender<Request>>,
    busy: Option<Busy>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Busy {
    key: u32,
    /// The socket to shut down so that the call ends; a read is cancelled by its bell instead.
    socket: Option<Arc<OwnedFd>>,
}

/// How a hand is told to leave a read. The flag counts, the bell only makes it look.
#[derive(Debug)]
struct Stop {
    bell: Waker,
    raised: AtomicBool,
}

impl Crew {
    pub(crate) fn new(waker: &Arc<Waker>) -> Crew {
        let waker = Arc::clone(waker);
        Crew { hands: Vec::new(), done: Arc::default(), at_once: Vec::new(), waker }
    }

    pub(crate) fn submit(&mut self, request: Request) -> io::Result<()> {
        let request = match read_at_once(request) {
            Ok(completion) => {
                self.at_once.push(completion);
                return Ok(());
            }
            Err(request) => request,
        };
        let index = match self.hands.iter().position(|hand| hand.busy.is_none()) {
            Some(idle) => idle,
            None => self.hire()?,
        };
        let hand = &mut self.hands[index];
        // A cancellation that came too late for the last read must not end this one.
        hand.stop.raised.store(false, Ordering::SeqCst);
        let socket = match request.act {
            // A call on a file ends by itself.
            Act::Read(..) | Act::ReadAt(..) | Act::WriteAt(..) => None,
            _ => Some(Arc::clone(&request.fd)),
        };
        hand.busy = Some(Busy { key: request.key, socket });
        let sent = hand.orders.as_ref().map(|orders| orders.send(request));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(io::Error::other("a helper thread has died")),
        }
    }

    pub(crate) fn cancel(&mut self, key: u32) {
        for hand in &self.hands {
            if hand.busy.as_ref().is_some_and(|busy| busy.key == key) {
                hand.stop.raise();
            }
        }
    }

    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        if self.at_once.is_empty() {
            self.waker.wait(timeout)?;
        }
        completions.append(&mut self.at_once);
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, completion) in done.drain(..) {
            self.hands[index].busy = None;
            completions.push(completion);
        }
        Ok(())
    }

    fn hire(&mut self) -> io::Result<usize> {
        let index = self.hands.len();
        let (orders, inbox) = channel();
        let stop = Arc::new(Stop { bell: Waker::new()?, raised: AtomicBool::new(false) });
        let thread = std::thread::Builder::new().name("zferry-io".into()).spawn({
            let (done, waker, stop) =
                (Arc::clone(&self.done), Arc::clone(&self.waker), Arc::clone(&stop));
            move || work(index, &inbox, &stop, &done, &waker)
        })?;
        self.hands.push(Hand { orders: Some(orders), busy: None, stop, thread: Some(thread) });
        Ok(index)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for hand in &mut self.hands {
            hand.orders = None;
            match &hand.busy {
                Some(Busy { socket: Some(socket), .. }) => {
                    let _already_gone = shutdown(socket.as_raw_fd(), Shutdown::Both);
                }
                Some(Busy { socket: None, .. }) => hand.stop.raise(),
                None => {}
            }
        }
        for hand in &mut self.hands {
            if let Some(thread) = hand.thread.take() {
                let _panicked = thread.join();
            }
        }
    }
}

impl Stop {
    fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.bell.wake();
    }
}

fn work(
    index: usize,
    inbox: &Receiver<Request>,
    stop: &Stop,
    done: &Mutex<Vec<(usize, Completion)>>,
    waker: &Waker,
) {
    while let Ok(request) = inbox.recv() {
        let completion = perform(request, stop);
        done.lock().unwrap_or_else(PoisonError::into_inner).push((index, completion));
        waker.wake();
    }
}

fn perform(request: Request, stop: &Stop) -> Completion {
    let Request { key, fd, act } = request;
    match act {
        Act::Read(mut loan, range) => {
            let result = read_when_ready(&fd, &mut loan[range], stop);
            Completion::Filled { key, loan, result }
        }
        Act::Receive(mut loan, range) => {
            let result = receive_all(&fd, &mut loan[range]);
            Completion::Filled { key, loan, result }
        }
        Act::Send(loan, range) | Act::SendZeroCopy(loan, range) => {
            Completion::Sent { key, result: send_all(&fd, &loan[range]) }
        }
        Act::ReadAt(mut loan, range, at) => {
            let result = read_all_at(&fd, &mut loan[range], at);
            Completion::Filled { key, loan, result }
        }
        Act::WriteAt(loan, range, at) => {
            Completion::Written { key, result: write_all_at(&fd, &loan[range], at) }
        }
        Act::Watch => Completion::Watched { key, result: wait_for_end(&fd) },
        Act::Draw(..) | Act::ReceiveBay(..) | Act::SendBay(..) => {
            unreachable!("no port hands a bay to its crew")
        }
    }
}

/// Reads what is there already, or gives the request back: a hand would add two changes of thread
/// to the copy. It cannot block, for nobody else reads from a pipe that we read from.
fn read_at_once(request: Request) -> Result<Completion, Request> {
    match request {
        Request { key, fd, act: Act::Read(mut loan, range) } if is_readable(&fd) => {
            match nix::unistd::read(&fd, &mut loan[range.clone()]) {
                Err(Errno::EINTR | Errno::EAGAIN) => {
                    Err(Request { key, fd, act: Act::Read(loan, range) })
                }
                result => Ok(Completion::Filled { key, loan, result: result.map_err(Into::into) }),
            }
        }
        request => Err(request),
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) == Ok(1)
}

fn read_when_ready(fd: &OwnedFd, buffer: &mut [u8], stop: &Stop) -> io::Result<usize> {
    loop {
        let mut fds = [
            PollFd::new(fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.bell.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds[0].revents().is_some_and(|events| !events.is_empty());
        if ready {
            match nix::unistd::read(fd, buffer) {
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                result => return Ok(result?),
            }
        }
        // A bell left over from a read that ended by itself does not count: the flag was lowered.
        stop.bell.wait(Some(Duration::ZERO))?;
        if stop.raised.swap(false, Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
    }
}

/// Receives until the buffer is full or the peer is done, and counts what came.
fn receive_all(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match recv(fd.as_raw_fd(), &mut buffer[filled..], MsgFlags::MSG_WAITALL) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// Reads until the buffer is full or the file ends, and counts what came.
fn read_all_at(fd: &OwnedFd, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match pread(fd, &mut buffer[filled..], file_offset(at, filled)?) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

/// Writes until all is written or the file takes no more.
fn write_all_at(fd: &OwnedFd, buffer: &[u8], at: u64) -> io::Result<usize> {
    let mut written = 0;
    while written < buffer.len() {
        match pwrite(fd, &buffer[written..], file_offset(at, written)?) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn file_offset(at: u64, moved: usize) -> io::Result<libc::off_t> {
    let sum = at.checked_add(moved as u64).and_then(|sum| libc::off_t::try_from(sum).ok());
    sum.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

/// Sleeps until a socket ends; to shut it down ends it too.
fn wait_for_end(fd: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn send_all(fd: &OwnedFd, buffer: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < buffer.len() {
        match send(fd.as_raw_fd(), &buffer[sent..], MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => sent += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}
