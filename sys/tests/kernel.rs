//! What the data plane believes of the kernel, asked of the kernel it runs on.
//!
//! Each test is a fact that a rule of the design rests on; where the fact is a danger, the test
//! shows that the danger is real. No module of ours takes part. Where a kernel or container has no
//! rings, or the tester no rights, a line says what was not checked.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, vmsplice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, geteuid, pipe, setgroups, setresgid, setresuid, write};
use sys::direct::AlignedBuffer;

/// Long enough for what was submitted to be armed.
const MOMENT: Duration = Duration::from_millis(20);

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// "Where the file's position is": the only place a pipe can be read at.
const CURRENT: u64 = u64::MAX;

const NO_RING: &str = "NOT CHECKED: no ring with SINGLE_ISSUER and DEFER_TASKRUN here";

/// A user that runs nothing else: the kernel counts locked memory by user.
const STRANGER: u32 = 61_234;

/// What the kernel says of an operation.
#[derive(Clone, Copy, Debug)]
struct Done {
    tag: u64,
    result: i32,
    more: bool,
    notification: bool,
}

/// A ring whose buffers are all of [`leaked`] memory.
struct Ring(IoUring);

impl Ring {
    /// As the data plane makes it; says so where that is impossible.
    fn new() -> Option<Ring> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(64);
        if let Err(error) = &ring {
            eprintln!("{NO_RING}: {error}");
        }
        ring.ok().map(Ring)
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: every buffer of this file is leaked, so valid for ever, and no test touches one
        // between its submission and its completion, except where the kernel only reads it.
        unsafe { self.0.submission().push(entry) }.expect("room in the submission queue");
    }

    fn submit(&mut self) {
        self.0.submit().expect("submit");
    }

    /// The next completion, or none within the time.
    fn wait_for(&mut self, patience: Duration) -> Option<Done> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(entry) = self.0.completion().next() {
                return Some(Done::from(&entry));
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let limit = types::Timespec::from(left);
            let limit = types::SubmitArgs::new().timespec(&limit);
            match self.0.submitter().submit_with_args(1, &limit) {
                Err(error) if error.raw_os_error() == Some(libc::ETIME) => {}
                other => drop(other.expect("enter")),
            }
        }
    }

    fn wait(&mut self) -> Done {
        self.wait_for(PATIENCE).expect("a completion")
    }
}

impl From<&cqueue::Entry> for Done {
    fn from(entry: &cqueue::Entry) -> Done {
        Done {
            tag: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            notification: cqueue::notif(entry.flags()),
        }
    }
}

/// Memory on whole pages that is never freed: the kernel may keep what a failed test leaves.
fn leaked(bytes: usize) -> &'static mut [u8] {
    /// The buffers' addresses, so that a leak sanitizer sees that these are meant.
    static MEANT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let buffer = Box::leak(Box::new(AlignedBuffer::zeroed(bytes.div_ceil(4096))));
    MEANT.lock().expect("unpoisoned").push((&raw const *buffer).addr());
    &mut buffer[..bytes]
}

fn read_entry(fd: &OwnedFd, buffer: &mut [u8], tag: u64) -> squeue::Entry {
    let bytes = u32::try_from(buffer.len()).expect("small");
    let read = opcode::Read::new(raw(fd), buffer.as_mut_ptr(), bytes).offset(CURRENT);
    read.build().user_data(tag)
}

fn raw(fd: &impl AsRawFd) -> types::Fd {
    types::Fd(fd.as_raw_fd())
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

/// Bytes that lie unread in a pipe; works on both ends.
fn unread(pipe: RawFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, which is one.
    let rc = unsafe { libc::ioctl(pipe, libc::FIONREAD, &raw mut bytes) };
    assert_eq!(rc, 0, "FIONREAD");
    usize::try_from(bytes).expect("a count")
}

/// Why the reader keeps exactly one read in flight. The order is the kernel's to choose: nothing
/// is asserted of it, and what was seen is printed.
#[test]
fn reads_armed_together_on_a_pipe_complete_out_of_order() {
    const TRIALS: usize = 20;
    let Some(mut ring) = Ring::new() else { return };
    let mut reordered = 0;
    for _ in 0..TRIALS {
        let (reader, writer) = pipe().expect("pipe");
        let mut buffers: Vec<_> = (0..4).map(|_| leaked(4)).collect();
        for (tag, buffer) in (0..).zip(&mut buffers) {
            ring.push(&read_entry(&reader, buffer, tag));
        }
        ring.submit();
        thread::sleep(MOMENT);
        write(&writer, b"0000111122223333").expect("write");
        for _ in 0..4 {
            assert_eq!(ring.wait().result, 4);
        }
        let mut arrived: Vec<_> = buffers.iter().map(|buffer| buffer[0]).collect();
        reordered += usize::from(!arrived.is_sorted());
        arrived.sort_unstable();
        assert_eq!(arrived, b"0123", "bytes were lost, or came twice");
    }
    println!("armed order was broken in {reordered} of {TRIALS} trials");
    if reordered == 0 {
        eprintln!("NOT SEEN on this kernel: reads that overtake each other");
    }
}

/// Why a buffer comes home with the completion that has no `F_MORE`, whatever the result says.
#[test]
fn a_failed_zero_copy_send_still_owns_its_buffer() {
    let Some(mut ring) = Ring::new() else { return };
    let (client, server) = tcp_pair();
    reset(server);
    let buffer = leaked(1 << 20);
    let send = opcode::SendZc::new(raw(&client), buffer.as_ptr(), 1 << 20)
        .flags(libc::MSG_NOSIGNAL)
        .build();
    let mut owned_after_failure = false;
    for _ in 0..2 {
        ring.push(&send);
        let first = ring.wait();
        assert!(first.result < 0, "the peer is gone: {first:?}");
        if first.more {
            owned_after_failure = true;
            let release = ring.wait();
            assert!(release.notification && !release.more, "{release:?}");
        }
    }
    assert!(owned_after_failure, "no failed send kept its buffer");
}

/// Closes so that the peer gets a reset, and waits until it has it.
fn reset(socket: TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt};
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&socket, sockopt::Linger, &at_once).expect("linger");
    drop(socket);
    thread::sleep(MOMENT);
}

/// Whether a slot waits, before it is filled again, until its bytes were read.
#[derive(Clone, Copy, PartialEq)]
enum Reuse {
    WhenRead,
    AtOnce,
}

const SLOT_BYTES: usize = 256 << 10;
const SLOTS: usize = 4;
const ROUNDS: usize = 32;

/// Splices numbered slots through a pipe that holds all of them; returns how many bytes arrived
/// with another number than they left with.
///
/// The reader starts when the pipe is full, so that reuse at once meets unread bytes for certain.
fn corrupted_bytes(reuse: Reuse) -> usize {
    let (reader, writer) = pipe().expect("pipe");
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(1 << 20)).expect("a pipe of 1 MiB");
    let (full, start) = mpsc::channel();
    let reading = thread::spawn(move || {
        start.recv().expect("the signal to start");
        count_corrupted(&mut std::fs::File::from(reader))
    });
    let mut spliced = 0;
    let mut slots: Vec<_> = (0..SLOTS).map(|_| (leaked(SLOT_BYTES), 0)).collect();
    for number in 0..SLOTS * ROUNDS {
        let (slot, end) = &mut slots[number % SLOTS];
        if number == SLOTS && reuse == Reuse::WhenRead {
            full.send(()).expect("the reader waits");
        }
        while reuse == Reuse::WhenRead && spliced - unread(writer.as_raw_fd()) < *end {
            thread::sleep(Duration::from_micros(50));
        }
        slot.fill(number_of(number));
        if number == SLOTS && reuse == Reuse::AtOnce {
            full.send(()).expect("the reader waits");
        }
        spliced += splice_whole(&writer, slot);
        *end = spliced;
    }
    drop(writer);
    reading.join().expect("the reader ends")
}

fn splice_whole(pipe: impl AsFd, slot: &[u8]) -> usize {
    let mut done = 0;
    while done < slot.len() {
        let rest = [IoSlice::new(&slot[done..])];
        done += vmsplice(pipe.as_fd(), &rest, SpliceFFlags::empty()).expect("vmsplice");
    }
    done
}

fn number_of(slot: usize) -> u8 {
    u8::try_from(slot % 251).expect("small")
}

fn count_corrupted(pipe: &mut impl Read) -> usize {
    let (mut corrupted, mut at) = (0, 0);
    let mut bytes = vec![0; 100_000];
    loop {
        let room = (SLOT_BYTES - at % SLOT_BYTES).min(bytes.len());
        let count = pipe.read(&mut bytes[..room]).expect("read");
        if count == 0 {
            assert_eq!(at, SLOTS * ROUNDS * SLOT_BYTES, "bytes are missing");
            return corrupted;
        }
        let expected = number_of(at / SLOT_BYTES);
        corrupted += bytes[..count].iter().filter(|&&byte| byte != expected).count();
        at += count;
    }
}

#[test]
fn a_spliced_slot_may_be_filled_again_once_its_bytes_were_read() {
    assert_eq!(corrupted_bytes(Reuse::WhenRead), 0);
}

/// The negative control: without the rule the pipe delivers what the slot holds later.
#[test]
fn a_spliced_slot_that_is_filled_too_early_corrupts_the_stream() {
    let corrupted = corrupted_bytes(Reuse::AtOnce);
    println!("{corrupted} of {} bytes corrupted", SLOTS * ROUNDS * SLOT_BYTES);
    assert!(corrupted >= SLOT_BYTES, "{corrupted}");
}

/// Why a chain of linked reads is no way to keep order on a pipe.
#[test]
fn a_short_read_cancels_the_reads_that_are_linked_behind_it() {
    let Some(mut ring) = Ring::new() else { return };
    let (reader, writer) = pipe().expect("pipe");
    for tag in 0..3 {
        let entry = read_entry(&reader, leaked(8), tag);
        let link = if tag < 2 { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
        ring.push(&entry.flags(link));
    }
    ring.submit();
    write(&writer, b"12345678abc").expect("write");
    let done: Vec<_> = (0..3).map(|_| ring.wait()).collect();
    let results: Vec<_> = done.iter().map(|done| (done.tag, done.result)).collect();
    assert_eq!(results, [(0, 8), (1, 3), (2, -libc::ECANCELED)]);
}

/// Why one receive per frame is enough.
#[test]
fn a_receive_of_all_completes_once_however_the_bytes_arrive() {
    const PART: usize = 64 << 10;
    let Some(mut ring) = Ring::new() else { return };
    let (mut client, server) = tcp_pair();
    let sending = thread::spawn(move || {
        for _ in 0..16 {
            client.write_all(&vec![9; PART]).expect("write");
            thread::sleep(Duration::from_millis(1));
        }
        client
    });
    let buffer = leaked(16 * PART);
    let receive = opcode::Recv::new(raw(&server), buffer.as_mut_ptr(), 16 * 65_536)
        .flags(libc::MSG_WAITALL)
        .build();
    ring.push(&receive);
    assert_eq!(ring.wait().result, 16 * 65_536);
    let mut client = sending.join().expect("join");
    ring.push(&receive);
    ring.submit();
    client.write_all(b"tail").expect("write");
    drop(client);
    assert_eq!(ring.wait().result, 4, "the end of the stream ends the wait");
    assert!(ring.wait_for(MOMENT).is_none(), "a second completion");
}

/// Why a pipe's read can be cancelled to close a block, or to hand the pipe over.
///
/// The data comes while the cancellation does, or before it unseen, or before it and was seen.
#[test]
fn cancelling_an_armed_read_loses_no_data() {
    const TRIALS: u64 = 201;
    let Some(mut ring) = Ring::new() else { return };
    let (reader, writer) = pipe().expect("pipe");
    let buffer = leaked(64);
    let mut cancelled = [0; 3];
    for trial in 0..TRIALS {
        let bytes = trial.to_le_bytes();
        ring.push(&read_entry(&reader, buffer, 1));
        ring.submit();
        thread::scope(|scope| {
            let writing = scope.spawn(|| write(&writer, &bytes).expect("write"));
            if trial % 3 > 0 {
                writing.join().expect("join");
            }
            if trial % 3 > 1 {
                ring.0.submit_and_wait(1).expect("the read completes");
            }
            ring.push(&opcode::AsyncCancel::new(1).build().user_data(2));
            ring.submit();
        });
        let (first, second) = (ring.wait(), ring.wait());
        let mut read = if first.tag == 1 { first } else { second };
        if read.result == -libc::ECANCELED {
            cancelled[usize::try_from(trial % 3).expect("small")] += 1;
            ring.push(&read_entry(&reader, buffer, 1));
            read = ring.wait();
        }
        assert_eq!(read.result, 8, "trial {trial}");
        assert_eq!(buffer[..8], bytes);
        assert_eq!(unread(reader.as_raw_fd()), 0);
    }
    println!("cancelled amid the data, after it, after its completion: {cancelled:?} of 67 each");
    assert_eq!(cancelled[2], 0, "what has completed cannot be cancelled");
}

#[test]
fn a_read_that_is_cancelled_before_data_comes_says_so() {
    let Some(mut ring) = Ring::new() else { return };
    let (reader, _writer) = pipe().expect("pipe");
    ring.push(&read_entry(&reader, leaked(64), 1));
    ring.submit();
    ring.push(&opcode::AsyncCancel::new(1).build().user_data(2));
    let mut done = [ring.wait(), ring.wait()];
    done.sort_by_key(|done| done.tag);
    assert_eq!([done[0].result, done[1].result], [-libc::ECANCELED, 0]);
}

/// Why the data plane always waits with GETEVENTS, and why tokio-uring must not have such a ring.
#[test]
fn a_ring_that_defers_its_work_completes_nothing_until_it_is_asked_for_events() {
    let Some(mut ring) = Ring::new() else { return };
    let (reader, writer) = pipe().expect("pipe");
    ring.push(&read_entry(&reader, leaked(64), 1));
    ring.submit();
    write(&writer, b"hi").expect("write");
    thread::sleep(MOMENT);
    assert!(ring.0.completion().next().is_none(), "seen by looking");
    ring.submit();
    assert!(ring.0.completion().next().is_none(), "seen after a plain submit");
    let mut polled = [PollFd::new(ring_fd(&ring.0), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::ZERO), Ok(1), "although the ring is readable");
    ring.0.submit_and_wait(1).expect("enter with GETEVENTS");
    let done = ring.0.completion().next().expect("seen at last");
    assert_eq!(done.result(), 2);
}

fn ring_fd(ring: &IoUring) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the ring owns the descriptor, and is borrowed for as long as the answer.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(ring.as_raw_fd()) }
}

/// Why `--cache` must be told together with `LimitMEMLOCK`, and why a service makes its rings
/// before it gives up root. Users and limits are of the process: a process of its own asks.
#[test]
fn locked_memory_limits_registered_buffers_of_everybody_but_root() {
    let status = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "as_a_stranger_with_8_mib", "--ignored", "--nocapture"])
        .status();
    assert!(status.expect("run").success());
}

#[test]
#[ignore = "run by locked_memory_limits_registered_buffers_of_everybody_but_root"]
fn as_a_stranger_with_8_mib() {
    const MIB: usize = 1 << 20;
    let Some(made_before) = Ring::new() else { return };
    let was_root = geteuid().is_root();
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK).expect("limit");
    if !was_root && most < 8 * MIB as u64 {
        eprintln!("NOT CHECKED: may not lock 8 MiB");
        return;
    }
    setrlimit(Resource::RLIMIT_MEMLOCK, 8 * MIB as u64, 8 * MIB as u64).expect("limit");
    if was_root {
        become_a_stranger();
    }
    let made_after = Ring::new().expect("a ring for a stranger");
    assert_eq!(register(&made_after, 4 * MIB), Ok(()));
    let second = Ring::new().expect("a second ring");
    assert_eq!(register(&second, 16 * MIB), Err(libc::ENOMEM));
    let over = register(&second, 5 * MIB);
    assert_eq!(over, Err(libc::ENOMEM), "the limit is the user's, not the ring's");
    if was_root {
        assert_eq!(register(&made_before, 64 * MIB), Ok(()), "made while root: not counted");
    } else {
        eprintln!("NOT CHECKED: a ring that root made is not counted");
    }
}

fn become_a_stranger() {
    let (user, group) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
    setgroups(&[]).expect("no groups");
    setresgid(group, group, group).expect("group");
    setresuid(user, user, user).expect("user");
}

/// Registers fresh memory; returns the error number.
fn register(ring: &Ring, bytes: usize) -> Result<(), i32> {
    let memory = leaked(bytes);
    let buffer = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: bytes };
    // SAFETY: the memory is leaked, so it outlives the ring.
    let registered = unsafe { ring.0.submitter().register_buffers(&[buffer]) };
    registered.map_err(|error| error.raw_os_error().expect("an error of the kernel"))
}
