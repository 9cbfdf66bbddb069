//! A thread for each enciphered connection: encrypts and sends, receives and decrypts.
//!
//! Stands beside a port's backend and takes the place of its sends and receives, so that several
//! connections are worked on by several cores, and no stage waits for arithmetic. What waits for a
//! socket to end is still the backend's; what it finds there may be no end (see
//! [`Scribes::hears`]).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use crate::cipher::{Cipher, Decrypted};
use crate::operation::{Act, Completion, Request};
use crate::wake::Waker;

/// Plain bytes that are encrypted at once: with what they become, they lie in a core's L2 cache
/// while the kernel copies them.
const PIECE_BYTES: usize = 128 << 10;

/// What is received at once: as large, so that a connection with little to say costs little.
const INCOMING_BYTES: usize = 256 << 10;

/// The scribes of one port, and what they have finished.
#[derive(Debug)]
pub(crate) struct Scribes {
    each: Vec<Scribe>,
    done: Arc<Mutex<Vec<Completion>>>,
    waker: Arc<Waker>,
}

/// One connection.
#[derive(Debug)]
struct Scribe {
    /// Not held: it is closed when the last operation on it has ended and its owner is gone.
    socket: Weak<OwnedFd>,
    number: RawFd,
    desk: Arc<Mutex<Desk>>,
    orders: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// A cipher, and what came for it.
#[derive(Debug)]
struct Desk {
    cipher: Box<dyn Cipher>,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that the cipher has taken.
    taken: usize,
}

impl Scribes {
    pub(crate) fn new(waker: &Arc<Waker>) -> Scribes {
        Scribes { each: Vec::new(), done: Arc::default(), waker: Arc::clone(waker) }
    }

    /// From now on the socket is only spoken on through `cipher`.
    pub(crate) fn join(
        &mut self,
        socket: &Arc<OwnedFd>,
        cipher: Box<dyn Cipher>,
    ) -> io::Result<()> {
        self.each.retain(|scribe| scribe.socket.strong_count() > 0);
        let desk = Arc::new(Mutex::new(Desk { cipher, incoming: Vec::new(), taken: 0 }));
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new().name("zferry-tls".into()).spawn({
            let (desk, done, waker) =
                (Arc::clone(&desk), Arc::clone(&self.done), Arc::clone(&self.waker));
            move || work(&inbox, &desk, &done, &waker)
        })?;
        self.each.push(Scribe {
            socket: Arc::downgrade(socket),
            number: socket.as_raw_fd(),
            desk,
            orders: Some(orders),
            thread: Some(thread),
        });
        Ok(())
    }

    /// Takes a send or receive on a socket that has a cipher; gives back everything else.
    pub(crate) fn take(&self, request: Request) -> Result<io::Result<()>, Request> {
        let speaks =
            matches!(request.act, Act::Receive(..) | Act::Send(..) | Act::SendZeroCopy(..));
        let scribe = self.of(&request.fd);
        let (true, Some(orders)) = (speaks, scribe.and_then(|scribe| scribe.orders.as_ref()))
        else {
            return Err(request);
        };
        Ok(orders.send(request).map_err(|_| io::Error::other("a connection's thread has died")))
    }

    fn of(&self, socket: &Arc<OwnedFd>) -> Option<&Scribe> {
        self.each.iter().find(|scribe| scribe.socket.as_ptr() == Arc::as_ptr(socket))
    }

    /// Appends what has ended.
    pub(crate) fn finished(&self, completions: &mut Vec<Completion>) {
        completions.append(&mut lock(&self.done));
    }

    /// A watched socket has something to read: the socket, where that is not its end. The cipher
    /// has then dealt with it (in TLS: the peer's new keys), and it is to be watched again.
    pub(crate) fn hears(&self, number: RawFd) -> Option<Arc<OwnedFd>> {
        let lives = |scribe: &&Scribe| scribe.number == number && scribe.socket.strong_count() > 0;
        let scribe = self.each.iter().find(lives)?;
        let socket = scribe.socket.upgrade()?;
        lock(&scribe.desk).goes_on(&socket).then_some(socket)
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

fn work(
    inbox: &Receiver<Request>,
    desk: &Mutex<Desk>,
    done: &Mutex<Vec<Completion>>,
    waker: &Waker,
) {
    let mut outgoing = Vec::new();
    while let Ok(request) = inbox.recv() {
        let completion = perform(request, desk, &mut outgoing);
        lock(done).push(completion);
        waker.wake();
    }
}

fn perform(request: Request, desk: &Mutex<Desk>, outgoing: &mut Vec<u8>) -> Completion {
    let Request { key, fd, act } = request;
    match act {
        Act::Receive(mut loan, range) => {
            let result = lock(desk).receive(&fd, &mut loan[range]);
            Completion::Filled { key, loan, result }
        }
        Act::Send(loan, range) | Act::SendZeroCopy(loan, range) => {
            Completion::Sent { key, result: send_all(&fd, desk, &loan[range], outgoing) }
        }
        _ => unreachable!("a scribe only takes what is spoken"),
    }
}

/// The desk is free while the socket takes what was written on it: a watch may look at it.
fn send_all(
    socket: &OwnedFd,
    desk: &Mutex<Desk>,
    plain: &[u8],
    outgoing: &mut Vec<u8>,
) -> io::Result<usize> {
    for piece in plain.chunks(PIECE_BYTES) {
        outgoing.clear();
        lock(desk).cipher.encrypt(piece, outgoing)?;
        send_plain(socket, outgoing)?;
    }
    Ok(plain.len())
}

impl Desk {
    /// Receives until `plain` is full or the peer is done, and counts what came.
    fn receive(&mut self, socket: &OwnedFd, plain: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            let decrypted = self.decrypt(&mut plain[filled..])?;
            filled += decrypted.bytes;
            self.answer(socket)?;
            if filled == plain.len() || decrypted.ended {
                return Ok(filled);
            }
            if self.fetch(socket, MsgFlags::empty())? == 0 {
                return Ok(filled);
            }
        }
    }

    fn decrypt(&mut self, plain: &mut [u8]) -> io::Result<Decrypted> {
        let mut rest = &self.incoming[self.taken..];
        let decrypted = self.cipher.decrypt(&mut rest, plain);
        self.taken = self.incoming.len() - rest.len();
        decrypted
    }

    /// Says what the cipher has to say by itself.
    fn answer(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let mut wire = Vec::new();
        self.cipher.encrypt(&[], &mut wire)?;
        send_plain(socket, &wire)
    }

    /// Takes what the socket has, once all that came before was taken.
    fn fetch(&mut self, socket: &OwnedFd, flags: MsgFlags) -> io::Result<usize> {
        self.taken = 0;
        self.incoming.resize(INCOMING_BYTES, 0);
        let received = loop {
            match recv(socket.as_raw_fd(), &mut self.incoming, flags) {
                Err(Errno::EINTR) => {}
                received => break received,
            }
        };
        self.incoming.truncate(*received.as_ref().unwrap_or(&0));
        Ok(received?)
    }

    /// Whether what the socket has to read is neither its end nor anything that was said to us.
    fn goes_on(&mut self, socket: &OwnedFd) -> bool {
        match self.fetch(socket, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => false,
            Ok(_) => {
                // Room for a byte that nobody may say.
                let decrypted = self.decrypt(&mut [0]);
                let silent = |decrypted: Decrypted| decrypted.bytes == 0 && !decrypted.ended;
                decrypted.is_ok_and(silent) && self.taken == self.incoming.len()
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

fn send_plain(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        match send(socket.as_raw_fd(), &bytes[sent..], MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => sent += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
