//! Both backends of a port do the same, on pipes, sockets and files of the kernel.

use super::*;
use crate::loan::{Loan, Pool};
use crate::pipe::Pipe;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

const SLOT: usize = 64 << 10;

struct Bench {
    port: Port,
    pool: Pool,
    waker: Arc<Waker>,
    ended: Vec<Completion>,
}

fn on_both(test: impl Fn(Bench)) {
    for backend in [Backend::Uring, Backend::Threads] {
        let waker = Arc::new(Waker::new().unwrap());
        let arena = Arena::new(SLOT, 8).unwrap();
        let pool = Pool::split(&arena, 1, &waker).remove(0);
        let port = Port::new(backend, &arena, &waker, 8).unwrap();
        test(Bench { port, pool, waker, ended: Vec::new() });
    }
}

impl Bench {
    fn loan(&self) -> Loan {
        let [loan] = self.pool.take().expect("a slot");
        loan
    }

    fn start(&mut self, key: u32, fd: &Arc<OwnedFd>, act: Act) {
        self.port.submit(Request { key, fd: Arc::clone(fd), act }).unwrap();
    }

    fn next(&mut self) -> Completion {
        let limit = Instant::now() + Duration::from_secs(10);
        let mut completions = std::mem::take(&mut self.ended);
        while completions.is_empty() {
            assert!(Instant::now() < limit, "nothing ended in 10 s");
            self.port.wait(Some(Duration::from_millis(100)), &mut completions).unwrap();
        }
        // Those that ended together are told one by one.
        let next = completions.remove(0);
        self.ended = completions;
        next
    }
}

fn filled(completion: Completion) -> (u32, Loan, io::Result<usize>) {
    match completion {
        Completion::Filled { key, loan, result } => (key, loan, result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_gives_what_is_there_and_then_the_end() {
    on_both(|mut bench| {
        let pipe = Pipe::new(SLOT).unwrap();
        let reader = Arc::new(pipe.reader);
        std::fs::File::from(pipe.writer).write_all(b"tail").unwrap();
        let loan = bench.loan();
        bench.start(3, &reader, Act::Read(loan, 10..SLOT));
        let (key, loan, result) = filled(bench.next());
        assert_eq!((key, result.unwrap()), (3, 4));
        assert_eq!(&loan[10..14], b"tail");
        bench.start(4, &reader, Act::Read(loan, 0..SLOT));
        let (_, _, result) = filled(bench.next());
        assert_eq!(result.unwrap(), 0);
    });
}

#[test]
fn a_receive_waits_until_its_range_is_full() {
    on_both(|mut bench| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(OwnedFd::from(ours));
        let loan = bench.loan();
        bench.start(1, &ours, Act::Receive(loan, 0..1000));
        for part in [[1u8; 400].as_slice(), &[2; 400], &[3; 200]] {
            theirs.write_all(part).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let (_, loan, result) = filled(bench.next());
        assert_eq!(result.unwrap(), 1000);
        assert_eq!((loan[0], loan[799], loan[999]), (1, 2, 3));
        bench.start(1, &ours, Act::Receive(loan, 0..1000));
        theirs.write_all(b"short").unwrap();
        drop(theirs);
        let (_, _, result) = filled(bench.next());
        assert_eq!(result.unwrap(), 5, "the end of the stream is a short receive");
    });
}

#[test]
fn a_send_larger_than_the_socket_holds_is_sent_whole() {
    on_both(|mut bench| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let ours = Arc::new(OwnedFd::from(ours));
        let mut loan = bench.loan();
        loan.fill(9);
        let loan = Arc::new(loan);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        for _ in 0..100 {
            bench.start(0, &ours, Act::Send(Arc::clone(&loan), 0..SLOT));
            match bench.next() {
                Completion::Sent { result, .. } => assert_eq!(result.unwrap(), SLOT),
                other => panic!("{other:?}"),
            }
        }
        drop(ours);
        assert_eq!(reader.join().unwrap(), vec![9; 100 * SLOT]);
    });
}

#[test]
fn a_zero_copy_send_releases_its_slot_once_and_says_that_loopback_copied() {
    let waker = Arc::new(Waker::new().unwrap());
    let arena = Arena::new(SLOT, 2).unwrap();
    let pool = Pool::split(&arena, 1, &waker).remove(0);
    let port = Port::new(Backend::Uring, &arena, &waker, 8).unwrap();
    let mut bench = Bench { port, pool, waker, ended: Vec::new() };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut theirs, _) = listener.accept().unwrap();
    let ours = Arc::new(OwnedFd::from(ours));
    let loan = Arc::new(bench.loan());
    bench.start(5, &ours, Act::SendZeroCopy(loan, 0..SLOT));
    let reader = std::thread::spawn(move || theirs.read_exact(&mut vec![0; SLOT]));
    assert!(matches!(bench.next(), Completion::Sent { key: 5, result: Ok(SLOT) }));
    assert!(matches!(bench.next(), Completion::Released { key: 5, copied: true }));
    reader.join().unwrap().unwrap();
    assert_eq!(bench.pool.free(), 2);
}

#[test]
fn a_zero_copy_send_that_fails_gives_its_slot_back() {
    let waker = Arc::new(Waker::new().unwrap());
    let arena = Arena::new(SLOT, 1).unwrap();
    let pool = Pool::split(&arena, 1, &waker).remove(0);
    let mut port = Port::new(Backend::Uring, &arena, &waker, 8).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let [loan] = pool.take().unwrap();
    let act = Act::SendZeroCopy(Arc::new(loan), 0..SLOT);
    port.submit(Request { key: 1, fd: Arc::new(ours.into()), act }).unwrap();
    let mut completions = Vec::new();
    let limit = Instant::now() + Duration::from_secs(10);
    while pool.free() == 0 && Instant::now() < limit {
        port.wait(Some(Duration::from_millis(100)), &mut completions).unwrap();
    }
    assert!(
        completions.iter().any(|c| matches!(c, Completion::Sent { result: Err(_), .. })),
        "{completions:?}"
    );
    assert_eq!(pool.free(), 1);
}

#[test]
fn a_cancelled_read_ends_and_loses_no_byte() {
    on_both(|mut bench| {
        let pipe = Pipe::new(SLOT).unwrap();
        let reader = Arc::new(pipe.reader);
        let loan = bench.loan();
        bench.start(7, &reader, Act::Read(loan, 0..SLOT));
        let mut none = Vec::new();
        bench.port.wait(Some(Duration::from_millis(20)), &mut none).unwrap();
        assert!(none.is_empty());
        bench.port.cancel(7).unwrap();
        let (_, loan, result) = filled(bench.next());
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        std::fs::File::from(pipe.writer).write_all(b"later").unwrap();
        bench.start(7, &reader, Act::Read(loan, 0..SLOT));
        let (_, loan, result) = filled(bench.next());
        assert_eq!(&loan[..result.unwrap()], b"later");
    });
}

#[test]
fn a_send_that_nobody_takes_ends_when_we_shut_the_socket_down() {
    on_both(|mut bench| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        while (&ours).write(&[0; 4096]).is_ok() {}
        ours.set_nonblocking(false).unwrap();
        let ours = Arc::new(OwnedFd::from(ours));
        let loan = Arc::new(bench.loan());
        bench.start(2, &ours, Act::Send(loan, 0..SLOT));
        let mut none = Vec::new();
        bench.port.wait(Some(Duration::from_millis(50)), &mut none).unwrap();
        assert!(none.is_empty(), "somebody took it: {none:?}");
        crate::socket::shutdown_both(&ours).unwrap();
        match bench.next() {
            Completion::Sent { key: 2, result } => assert!(!matches!(result, Ok(SLOT))),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.pool.free(), 8);
        drop(theirs);
    });
}

fn watched(bench: &mut Bench) -> u32 {
    match bench.next() {
        Completion::Watched { key, result: Ok(()) } => key,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_watched_socket_tells_its_end_beside_a_send() {
    on_both(|mut bench| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(OwnedFd::from(ours));
        bench.start(1, &ours, Act::Watch);
        let loan = Arc::new(bench.loan());
        bench.start(0, &ours, Act::Send(loan, 0..100));
        assert!(matches!(bench.next(), Completion::Sent { key: 0, result: Ok(100) }));
        let mut none = Vec::new();
        bench.port.wait(Some(Duration::from_millis(20)), &mut none).unwrap();
        assert!(none.is_empty(), "a socket in order was called ended: {none:?}");
        drop(theirs);
        assert_eq!(watched(&mut bench), 1);
    });
}

#[test]
fn a_watch_ends_when_we_shut_the_socket_down() {
    on_both(|mut bench| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(OwnedFd::from(ours));
        bench.start(7, &ours, Act::Watch);
        bench.port.wait(Some(Duration::from_millis(20)), &mut Vec::new()).unwrap();
        crate::socket::shutdown_both(&ours).unwrap();
        assert_eq!(watched(&mut bench), 7);
        drop(theirs);
    });
}

#[test]
fn a_connection_that_was_reset_says_so_when_it_is_asked() {
    on_both(|mut bench| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        (&ours).write_all(b"never read").unwrap();
        let ours = Arc::new(OwnedFd::from(ours));
        bench.start(3, &ours, Act::Watch);
        // To close a socket with unread bytes resets it.
        drop(theirs);
        assert_eq!(watched(&mut bench), 3);
        let error = crate::socket::take_error(&ours).unwrap().expect("no reason");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn the_bell_wakes_a_port_that_waits_for_nothing_else() {
    on_both(|mut bench| {
        let waker = Arc::clone(&bench.waker);
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        let started = Instant::now();
        bench.port.wait(Some(Duration::from_secs(10)), &mut Vec::new()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "the bell was not heard");
        ringer.join().unwrap();
    });
}

#[test]
fn a_wait_without_events_ends_at_its_time_limit() {
    on_both(|mut bench| {
        let started = Instant::now();
        bench.port.wait(Some(Duration::from_millis(50)), &mut Vec::new()).unwrap();
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(49) && waited < Duration::from_secs(5));
    });
}

#[test]
fn many_places_of_a_file_are_written_and_read_at_once() {
    on_both(|mut bench| {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        let file = Arc::new(OwnedFd::from(file));
        for (key, byte) in (0..4).zip(1..) {
            let mut loan = bench.loan();
            loan.fill(byte);
            let at = u64::from(3 - key) * SLOT as u64;
            bench.start(key, &file, Act::WriteAt(Arc::new(loan), 0..SLOT, at));
        }
        for _ in 0..4 {
            assert!(matches!(bench.next(), Completion::Written { result: Ok(SLOT), .. }));
        }
        assert_eq!(bench.pool.free(), 8);
        for key in 0..4 {
            let loan = bench.loan();
            bench.start(key, &file, Act::ReadAt(loan, 0..SLOT, u64::from(key) * SLOT as u64));
        }
        for _ in 0..4 {
            let (key, loan, result) = filled(bench.next());
            assert_eq!(result.unwrap(), SLOT);
            let expected = u8::try_from(4 - key).unwrap();
            assert!(loan[..SLOT].iter().all(|&byte| byte == expected), "place {key}");
        }
        let loan = bench.loan();
        bench.start(0, &file, Act::ReadAt(loan, 0..SLOT, 4 * SLOT as u64 - 100));
        let (_, _, result) = filled(bench.next());
        assert_eq!(result.unwrap(), 100, "the end of the file is a short read");
        let closed = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let loan = Arc::new(bench.loan());
        bench.start(0, &closed, Act::WriteAt(loan, 0..SLOT, 0));
        assert!(matches!(bench.next(), Completion::Written { result: Err(_), .. }));
        assert_eq!(bench.pool.free(), 8);
    });
}

#[test]
fn a_port_dropped_in_mid_flight_brings_every_slot_home() {
    on_both(|mut bench| {
        let pipe = Pipe::new(SLOT).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (quiet, full) = UnixStream::pair().unwrap();
        let (a, b, c) = (bench.loan(), bench.loan(), Arc::new(bench.loan()));
        bench.start(1, &Arc::new(pipe.reader), Act::Read(a, 0..SLOT));
        bench.start(2, &Arc::new(ours.into()), Act::Receive(b, 0..SLOT));
        full.set_nonblocking(true).unwrap();
        while (&full).write(&[0; 4096]).is_ok() {}
        full.set_nonblocking(false).unwrap();
        bench.start(3, &Arc::new(full.into()), Act::Send(c, 0..SLOT));
        bench.port.wait(Some(Duration::from_millis(20)), &mut Vec::new()).unwrap();
        assert_eq!(bench.pool.free(), 5);
        drop(bench.port);
        assert_eq!(bench.pool.free(), 8);
        drop((pipe.writer, theirs, quiet));
    });
}

#[test]
#[should_panic(expected = "second in flight")]
fn two_reads_on_one_pipe_are_refused() {
    let waker = Arc::new(Waker::new().unwrap());
    let arena = Arena::new(SLOT, 2).unwrap();
    let pool = Pool::split(&arena, 1, &waker).remove(0);
    let mut port = Port::new(Backend::Threads, &arena, &waker, 8).unwrap();
    let pipe = Pipe::new(SLOT).unwrap();
    let reader = Arc::new(pipe.reader);
    for (key, [loan]) in (0..2).zip(std::iter::from_fn(|| pool.take::<1>())) {
        let act = Act::Read(loan, 0..SLOT);
        port.submit(Request { key, fd: Arc::clone(&reader), act }).unwrap();
    }
}
