//! A thread for each enciphered connection: encrypts and sends, receives and decrypts.
//!
//! Stands beside a port's backend and takes the place of its sends and receives, so that several
//! connections are worked on by several cores, and no stage waits for arithmetic. It is also the
//! one that waits where a connection may bring no more for a while. What waits for a socket to end
//! is still the backend's: a sender is told nothing, so anything is the end.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recv, sendmsg, shutdown};

use crate::cipher::{Brake, Cipher};
use crate::operation::{Act, Completion, Request};
use crate::wake::Waker;

/// Plain bytes that are encrypted at once: with what they become, they lie in a core's L2 cache
/// while the kernel copies them.
const PIECE_BYTES: usize = 128 << 10;

/// What is received at once, for the same reason.
const INCOMING_BYTES: usize = 256 << 10;

/// The scribes of one port, and what they have finished.
#[derive(Debug)]
pub(crate) struct Scribes {
    each: Vec<Scribe>,
    done: Arc<Mutex<Vec<Completion>>>,
    waker: Arc<Waker>,
}

/// One connection's thread.
#[derive(Debug)]
struct Scribe {
    /// Not held: it is closed when the last operation on it has ended and its owner is gone.
    socket: Weak<OwnedFd>,
    orders: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// What a scribe works at.
struct Desk {
    cipher: Box<dyn Cipher>,
    brake: Option<Arc<dyn Brake>>,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that the cipher has taken.
    taken: usize,
}

/// Where encrypted bytes go: straight from where they were encrypted.
struct Outgoing<'a>(&'a OwnedFd);

impl Scribes {
    pub(crate) fn new(waker: &Arc<Waker>) -> Scribes {
        Scribes { each: Vec::new(), done: Arc::default(), waker: Arc::clone(waker) }
    }

    /// From now on the socket is only spoken on through `cipher`.
    pub(crate) fn join(
        &mut self,
        socket: &Arc<OwnedFd>,
        cipher: Box<dyn Cipher>,
        brake: Option<Arc<dyn Brake>>,
    ) -> io::Result<()> {
        // Those whose sockets are closed have no more to do: their threads end.
        self.each.retain(|scribe| scribe.socket.strong_count() > 0);
        let mut desk = Desk { cipher, brake, incoming: Vec::new(), taken: 0 };
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new().name("zferry-tls".into()).spawn({
            let (done, waker) = (Arc::clone(&self.done), Arc::clone(&self.waker));
            move || work(&inbox, &mut desk, &done, &waker)
        })?;
        let socket = Arc::downgrade(socket);
        self.each.push(Scribe { socket, orders: Some(orders), thread: Some(thread) });
        Ok(())
    }

    /// Takes a send or receive on a socket that has a cipher; gives back everything else.
    pub(crate) fn take(&self, request: Request) -> Result<io::Result<()>, Request> {
        let speaks =
            matches!(request.act, Act::Receive(..) | Act::Send(..) | Act::SendZeroCopy(..));
        let its = |scribe: &&Scribe| scribe.socket.as_ptr() == Arc::as_ptr(&request.fd);
        let scribe = self.each.iter().find(its).filter(|_| speaks);
        match scribe.and_then(|scribe| scribe.orders.as_ref()) {
            Some(orders) => {
                let died = |_unsent| io::Error::other("the thread of a connection has died");
                Ok(orders.send(request).map_err(died))
            }
            None => Err(request),
        }
    }

    /// Appends what has ended.
    pub(crate) fn finished(&self, completions: &mut Vec<Completion>) {
        completions.append(&mut lock(&self.done));
    }
}

impl Drop for Scribes {
    fn drop(&mut self) {
        for scribe in &mut self.each {
            scribe.orders = None;
            // One that is at work is woken by this; the others see that no more orders come.
            if let Some(socket) = scribe.socket.upgrade() {
                let _already_gone = shutdown(socket.as_raw_fd(), Shutdown::Both);
            }
        }
        for scribe in &mut self.each {
            if let Some(thread) = scribe.thread.take() {
                let _panicked = thread.join();
            }
        }
    }
}

fn work(inbox: &Receiver<Request>, desk: &mut Desk, done: &Mutex<Vec<Completion>>, waker: &Waker) {
    while let Ok(Request { key, fd, act }) = inbox.recv() {
        let completion = match act {
            Act::Receive(mut loan, range) => {
                let result = desk.receive(&fd, &mut loan[range]);
                Completion::Filled { key, loan, result }
            }
            Act::Send(loan, range) | Act::SendZeroCopy(loan, range) => {
                Completion::Sent { key, result: desk.send(&fd, &loan[range]) }
            }
            _ => unreachable!("a scribe only takes what is spoken"),
        };
        // Before the owner hears of it: a connection that it lets go of then is closed at once.
        drop(fd);
        lock(done).push(completion);
        waker.wake();
    }
}

impl Desk {
    fn send(&mut self, socket: &OwnedFd, plain: &[u8]) -> io::Result<usize> {
        for piece in plain.chunks(PIECE_BYTES) {
            self.cipher.encrypt(piece, &mut Outgoing(socket))?;
        }
        Ok(plain.len())
    }

    /// Receives until `plain` is full or the peer is done, and counts what came.
    fn receive(&mut self, socket: &OwnedFd, plain: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            let mut rest = &self.incoming[self.taken..];
            let decrypted = self.cipher.decrypt(&mut rest, &mut plain[filled..])?;
            self.taken = self.incoming.len() - rest.len();
            filled += decrypted.bytes;
            if filled == plain.len() || decrypted.ended || self.fetch(socket)? == 0 {
                return Ok(filled);
            }
        }
    }

    /// Waits for bytes of the socket, once all that came before were taken. As many as there are:
    /// how many more will come nobody knows, for the cipher holds a part of a record.
    fn fetch(&mut self, socket: &OwnedFd) -> io::Result<usize> {
        self.taken = 0;
        let most = self.brake.as_ref().map_or(INCOMING_BYTES, |brake| brake.most());
        self.incoming.resize(most.clamp(1, INCOMING_BYTES), 0);
        let received = loop {
            match recv(socket.as_raw_fd(), &mut self.incoming, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                received => break received,
            }
        };
        self.incoming.truncate(*received.as_ref().unwrap_or(&0));
        if let (Some(brake), Ok(bytes)) = (&self.brake, received) {
            hold(socket, brake.took(bytes));
        }
        Ok(received?)
    }
}

/// Waits so long, or until the connection has ended: whoever shuts it down waits for us. Less than
/// a millisecond is made up for by whatever comes next.
fn hold(socket: &OwnedFd, how_long: Duration) {
    let until = Instant::now() + how_long;
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        // Nothing is asked for, so that only the end of both directions ends it.
        let mut ended = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        match poll(&mut ended, left) {
            Ok(0) if left != PollTimeout::ZERO => {}
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.0.as_raw_fd(), pieces, &[], flags, None) {
                Err(Errno::EINTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
