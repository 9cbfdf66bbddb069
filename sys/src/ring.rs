//! The `io_uring` behind a port: requests become submission entries, completions give slots back.
//!
//! Everything the kernel touches (slot, descriptor, the bell's counter) is owned here until its
//! completion says that the kernel is done with it. That moment is a completion without
//! `IORING_CQE_F_MORE`, never a result: a failed zero-copy send still owns its buffer. Teardown is
//! in that order too: cancel, drain, close the ring, and only then free.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use nix::sys::socket::{Shutdown, shutdown};

use crate::arena::Arena;
use crate::loan::Loan;
use crate::operation::{Act, Completion, Request};
use crate::wake::Waker;

/// `user_data` of the read on the bell; no slot of `in_flight` has this number.
const BELL: u64 = u64::MAX;
/// `user_data` of cancellations, whose own outcome tells nothing.
const CANCEL: u64 = u64::MAX - 1;

/// `IORING_SEND_ZC_REPORT_USAGE`: the notification says whether the kernel copied (since 6.2).
const REPORT_USAGE: u16 = 1 << 3;
/// `IORING_NOTIF_USAGE_ZC_COPIED`, in the result of a notification.
const USAGE_COPIED: u32 = 1 << 31;

/// How long a ring that goes away waits for the kernel to let go of its slots.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// A ring, made on and used by one thread.
pub(crate) struct Ring {
    // Declared first so that it is closed before anything that the kernel may touch is freed.
    uring: IoUring,
    in_flight: Vec<Option<InFlight>>,
    generation: u32,
    bell_armed: bool,
    /// Where the kernel puts the bell's counter. Boxed: its address must not move.
    bell_count: Box<u64>,
    waker: Arc<Waker>,
    /// The arena's buffers; empty where the kernel has no table for them.
    buffers: Vec<Buffer>,
    zero_copy: bool,
    arena: Arc<Arena>,
}

/// Whether a buffer of the arena is registered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffer {
    NotYet,
    Registered,
    /// Over the limit on locked memory, or one before it was.
    Refused,
}

/// An operation that the kernel has, and all that it may touch.
struct InFlight {
    key: u32,
    generation: u32,
    fd: Arc<OwnedFd>,
    act: Act,
}

impl Ring {
    pub(crate) fn new(arena: &Arc<Arena>, waker: &Arc<Waker>, depth: u32) -> io::Result<Ring> {
        // The bell and one cancellation per operation need room beside the operations.
        let uring = build(2 * depth + 2)?;
        let buffers = prepare_buffers(&uring, arena);
        let zero_copy = supports_zero_copy(&uring);
        Ok(Ring {
            uring,
            in_flight: Vec::new(),
            generation: 0,
            bell_armed: false,
            bell_count: Box::new(0),
            waker: Arc::clone(waker),
            buffers,
            zero_copy,
            arena: Arc::clone(arena),
        })
    }

    pub(crate) fn registered(&self) -> bool {
        !self.buffers.is_empty()
    }

    pub(crate) fn submit(&mut self, request: Request) -> io::Result<()> {
        let Request { key, fd, act } = request;
        let index = self.in_flight.iter().position(Option::is_none).unwrap_or_else(|| {
            self.in_flight.push(None);
            self.in_flight.len() - 1
        });
        self.generation = self.generation.wrapping_add(1);
        self.register_slot_of(&act);
        let operation = InFlight { key, generation: self.generation, fd, act };
        let entry = self.entry(&operation).user_data(operation.user_data(index));
        self.in_flight[index] = Some(operation);
        // SAFETY: the entry points into the slot and names the descriptor that `in_flight` now
        // owns; they stay there until the completion without F_MORE.
        unsafe { self.push(&entry) }
    }

    pub(crate) fn cancel(&mut self, key: u32) -> io::Result<()> {
        let found = self.operations().find(|(_, operation)| operation.key == key);
        let Some(target) = found.map(|(index, operation)| operation.user_data(index)) else {
            return Ok(());
        };
        self.push_cancel(target)
    }

    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.arm_bell()?;
        self.enter(timeout)?;
        self.reap(completions);
        Ok(())
    }

    /// Submits what is queued and sleeps for one completion. With `DEFER_TASKRUN` completions
    /// appear only in this call; peeking at the queue would see nothing for ever.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timespec = timeout.map(types::Timespec::from);
        let mut arguments = types::SubmitArgs::new();
        if let Some(timespec) = &timespec {
            arguments = arguments.timespec(timespec);
        }
        match self.uring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        let Ring { uring, in_flight, waker, bell_armed, .. } = self;
        for cqe in uring.completion() {
            match cqe.user_data() {
                BELL => {
                    waker.clear();
                    *bell_armed = false;
                }
                CANCEL => {}
                user_data => completions.extend(complete(in_flight, user_data, &cqe)),
            }
        }
    }

    fn entry(&self, operation: &InFlight) -> squeue::Entry {
        let fd = types::Fd(operation.fd.as_raw_fd());
        match &operation.act {
            Act::Read(loan, range) => {
                let start = start(loan, range.start);
                // The offset -1 is the descriptor's own position; a pipe has no other.
                if self.owns(loan) {
                    opcode::ReadFixed::new(fd, start, length(range), loan.buffer_index())
                        .offset(u64::MAX)
                        .build()
                } else {
                    opcode::Read::new(fd, start, length(range)).offset(u64::MAX).build()
                }
            }
            Act::Receive(loan, range) => {
                opcode::Recv::new(fd, start(loan, range.start), length(range))
                    .flags(libc::MSG_WAITALL)
                    .build()
            }
            // By address and never as a registered buffer: where that lies in a huge page, the
            // kernel (6.12, `io_sg_from_iter`) charges each segment for the page's beginning as
            // well, up to 2 MiB for 64 KiB. A few segments then fill the send buffer, and over
            // veth, where the other side sees that charge, it offers a window of 24 KiB for good.
            Act::SendZeroCopy(loan, range) if self.zero_copy => {
                opcode::SendZc::new(fd, start(loan, range.start), length(range))
                    .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                    .zc_flags(REPORT_USAGE)
                    .build()
            }
            Act::Send(loan, range) | Act::SendZeroCopy(loan, range) => {
                opcode::Send::new(fd, start(loan, range.start), length(range))
                    .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                    .build()
            }
            Act::ReadAt(loan, range, at) => {
                let start = start(loan, range.start);
                if self.owns(loan) {
                    opcode::ReadFixed::new(fd, start, length(range), loan.buffer_index())
                        .offset(*at)
                        .build()
                } else {
                    opcode::Read::new(fd, start, length(range)).offset(*at).build()
                }
            }
            Act::WriteAt(loan, range, at) => {
                let start = start(loan, range.start);
                if self.owns(loan) {
                    opcode::WriteFixed::new(fd, start, length(range), loan.buffer_index())
                        .offset(*at)
                        .build()
                } else {
                    opcode::Write::new(fd, start, length(range)).offset(*at).build()
                }
            }
            Act::Watch => {
                // The end can be read; an error is told without being asked for.
                let end = u32::from(libc::POLLIN.cast_unsigned());
                opcode::PollAdd::new(fd, end).build()
            }
            Act::Draw(..) | Act::ReceiveBay(..) | Act::SendBay(..) => {
                unreachable!("no port hands a bay to its ring")
            }
        }
    }

    /// Whether a slot lies in the buffers that are registered with this ring.
    fn owns(&self, loan: &Loan) -> bool {
        Arc::ptr_eq(loan.arena(), &self.arena)
            && self.buffers.get(usize::from(loan.buffer_index())) == Some(&Buffer::Registered)
    }

    /// Registers the buffer that a slot lies in with the first operation that has a use for it.
    ///
    /// Not all at the start: that pins, and first of all zeroes, the whole cache on every ring,
    /// 0.1 s for 128 MiB where each short transfer would pay it. Nothing on the receiver's way has
    /// a use for it, for there is no receive into registered buffers.
    fn register_slot_of(&mut self, act: &Act) {
        let loan: &Loan = match act {
            Act::Read(loan, _) | Act::ReadAt(loan, ..) => loan,
            Act::WriteAt(loan, ..) => loan,
            _ => return,
        };
        let index = loan.buffer_index();
        let untried = self.buffers.get(usize::from(index)) == Some(&Buffer::NotYet);
        if !untried || !Arc::ptr_eq(loan.arena(), &self.arena) {
            return;
        }
        let iovec = [self.arena.buffer(index)];
        // SAFETY: the buffer is whole slots of the arena, and `self` keeps the arena until after
        // its `IoUring` is closed.
        match unsafe { self.uring.submitter().register_buffers_update(index.into(), &iovec, None) }
        {
            Ok(()) => self.buffers[usize::from(index)] = Buffer::Registered,
            Err(error) => {
                tracing::debug!(%error, "no more buffers are registered; see `zferry doctor`");
                let left = self.buffers.iter_mut().filter(|buffer| **buffer == Buffer::NotYet);
                left.for_each(|buffer| *buffer = Buffer::Refused);
            }
        }
    }

    fn arm_bell(&mut self) -> io::Result<()> {
        if self.bell_armed {
            return Ok(());
        }
        let bell = types::Fd(self.waker.as_fd().as_raw_fd());
        let count: *mut u64 = &raw mut *self.bell_count;
        let entry = opcode::Read::new(bell, count.cast(), 8).build().user_data(BELL);
        // SAFETY: the counter is boxed and the waker counted by `self`; drop drains the ring
        // before either is freed, and nothing else touches the counter.
        unsafe { self.push(&entry)? };
        self.bell_armed = true;
        Ok(())
    }

    fn push_cancel(&mut self, target: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(target).build().user_data(CANCEL);
        // SAFETY: a cancellation points at no memory.
        unsafe { self.push(&entry) }
    }

    /// Queues an entry; makes room by submitting where the queue is full.
    ///
    /// # Safety
    ///
    /// What the entry points at must stay valid and otherwise unused until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    fn operations(&self) -> impl Iterator<Item = (usize, &InFlight)> {
        self.in_flight.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.as_ref()?)))
    }

    /// Ends all operations and waits for the kernel to let go. `false`: it did not in time.
    fn drain(&mut self) -> bool {
        let targets: Vec<u64> =
            self.operations().map(|(index, operation)| operation.user_data(index)).collect();
        for (_, operation) in self.operations() {
            if !matches!(operation.act, Act::Read(..) | Act::ReadAt(..) | Act::WriteAt(..)) {
                // Also what makes the kernel drop the pages of a zero-copy send.
                let _already_gone = shutdown(operation.fd.as_raw_fd(), Shutdown::Both);
            }
        }
        let bell = self.bell_armed.then_some(BELL);
        for target in targets.into_iter().chain(bell) {
            if self.push_cancel(target).is_err() {
                return false;
            }
        }
        let limit = Instant::now() + DRAIN_LIMIT;
        let mut ended = Vec::new();
        while self.bell_armed || self.operations().next().is_some() {
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() || self.enter(Some(left)).is_err() {
                return false;
            }
            self.reap(&mut ended);
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.drain() {
            // The kernel may still write to these. Memory that is lost can do no harm.
            tracing::warn!("io_uring did not let go of its buffers in time; leaking them");
            std::mem::forget(std::mem::take(&mut self.in_flight));
            std::mem::forget(std::mem::take(&mut self.bell_count));
            std::mem::forget(Arc::clone(&self.waker));
            std::mem::forget(Arc::clone(&self.arena));
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.operations().count())
            .finish_non_exhaustive()
    }
}

impl InFlight {
    /// Place and generation: a stale completion cannot be taken for a younger operation's.
    fn user_data(&self, index: usize) -> u64 {
        u64::from(self.generation) << 32 | index as u64 & 0xffff_ffff
    }
}

/// What one completion means for its operation; frees the place when the kernel is done with it.
fn complete(
    in_flight: &mut [Option<InFlight>],
    user_data: u64,
    cqe: &cqueue::Entry,
) -> Option<Completion> {
    let index = usize::try_from(user_data & 0xffff_ffff).ok()?;
    let place = in_flight.get_mut(index)?;
    let known = place.as_ref().is_some_and(|operation| operation.user_data(index) == user_data);
    assert!(known, "the kernel completed operation {user_data:#x}, which is not in flight");
    let flags = cqe.flags();
    if cqueue::more(flags) {
        let key = place.as_ref()?.key;
        return Some(Completion::Sent { key, result: outcome(cqe.result()) });
    }
    let InFlight { key, act, .. } = place.take()?;
    Some(match act {
        Act::Read(loan, _) | Act::Receive(loan, _) | Act::ReadAt(loan, ..) => {
            Completion::Filled { key, loan, result: outcome(cqe.result()) }
        }
        _ if cqueue::notif(flags) => {
            let copied = cqe.result().cast_unsigned() & USAGE_COPIED != 0;
            Completion::Released { key, copied }
        }
        Act::Send(..) | Act::SendZeroCopy(..) => {
            Completion::Sent { key, result: outcome(cqe.result()) }
        }
        Act::WriteAt(..) => Completion::Written { key, result: outcome(cqe.result()) },
        Act::Watch => Completion::Watched { key, result: outcome(cqe.result()).map(|_| ()) },
        Act::Draw(..) | Act::ReceiveBay(..) | Act::SendBay(..) => {
            unreachable!("no port hands a bay to its ring")
        }
    })
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn start(loan: &Loan, offset: usize) -> *mut u8 {
    // SAFETY: `Port::submit` has checked that the range lies in the slot.
    unsafe { loan.as_non_null().add(offset) }.as_ptr()
}

fn length(range: &std::ops::Range<usize>) -> u32 {
    // The kernel moves at most 2 GiB less a page at once (MAX_RW_COUNT); slots are smaller.
    u32::try_from(range.len()).unwrap_or(i32::MAX.cast_unsigned())
}

/// Makes a ring with the best set of features that this kernel takes (by trying, never by its
/// version): completions batched at the wait (6.1), else no interrupt of the worker's thread
/// (5.19), else plain.
fn build(entries: u32) -> io::Result<IoUring> {
    let mut best = IoUring::builder();
    best.dontfork().setup_clamp().setup_submit_all().setup_cqsize(4 * entries);
    best.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let mut without_array = best.clone();
    without_array.setup_no_sqarray();
    let mut cooperative = IoUring::builder();
    cooperative.dontfork().setup_clamp().setup_submit_all().setup_cqsize(4 * entries);
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    let mut plain = IoUring::builder();
    plain.dontfork().setup_clamp().setup_cqsize(4 * entries);
    let mut refusal = None;
    for builder in [without_array, best, cooperative, plain] {
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refusal.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL)))
}

/// Makes an empty table for the arena's buffers (5.19). Kernels without it read into buffers that
/// are not registered: on a pipe, which is copied out of, that was never seen to be slower.
fn prepare_buffers(uring: &IoUring, arena: &Arc<Arena>) -> Vec<Buffer> {
    match uring.submitter().register_buffers_sparse(arena.buffers()) {
        Ok(()) => vec![Buffer::NotYet; arena.buffers() as usize],
        Err(error) => {
            tracing::debug!(%error, "buffers are not registered");
            Vec::new()
        }
    }
}

fn supports_zero_copy(uring: &IoUring) -> bool {
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::SendZc::CODE)
}
