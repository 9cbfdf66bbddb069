//! Connections with a toy cipher, on ports of both backends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;
use crate::arena::Arena;
use crate::backend::Backend;
use crate::cipher::{Brake, Conduit, Decrypted};
use crate::loan::{Loan, Pool};
use crate::port::Port;

const SLOT: usize = 512 << 10;

/// Pieces of up to 1000 bytes, each with its length in front and other bytes than were given.
#[derive(Debug, Default)]
struct Toy {
    plain: Vec<u8>,
    held: Vec<u8>,
}

const PIECE: usize = 1000;

impl Cipher for Toy {
    fn encrypt(&mut self, plain: &[u8], wire: &mut dyn Write) -> io::Result<()> {
        let mut whole = Vec::new();
        for piece in plain.chunks(PIECE) {
            whole.extend(u16::try_from(piece.len()).unwrap().to_le_bytes());
            whole.extend(piece.iter().map(|byte| byte ^ 0x5a));
        }
        wire.write_all(&whole)
    }

    fn decrypt(&mut self, wire: &mut &[u8], plain: &mut [u8]) -> io::Result<Decrypted> {
        self.held.extend_from_slice(std::mem::take(wire));
        let mut ended = false;
        while let Some((length, rest)) = self.held.split_first_chunk() {
            let length = u16::from_le_bytes(*length);
            let carried = usize::from(length);
            let Some(piece) = rest.get(..carried) else { break };
            self.plain.extend(piece.iter().map(|byte| byte ^ 0x5a));
            ended |= length == 0;
            self.held.drain(..2 + carried);
        }
        let bytes = plain.len().min(self.plain.len());
        plain[..bytes].copy_from_slice(&self.plain[..bytes]);
        self.plain.drain(..bytes);
        Ok(Decrypted { bytes, ended: ended && self.plain.is_empty() })
    }
}

struct Bench {
    port: Port,
    pool: Pool,
    /// A connection of the port, and its other end.
    ours: Arc<OwnedFd>,
    theirs: UnixStream,
}

fn on_both(test: impl Fn(Bench)) {
    for backend in [Backend::Uring, Backend::Threads] {
        let waker = Arc::new(Waker::new().unwrap());
        let arena = Arena::new(SLOT, 4).unwrap();
        let pool = Pool::split(&arena, 1, &waker).remove(0);
        let mut port = Port::new(backend, &arena, &waker, 8).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let ours = port.join(Conduit::enciphered(ours.into(), Box::new(Toy::default()))).unwrap();
        test(Bench { port, pool, ours, theirs });
    }
}

impl Bench {
    fn loan(&self) -> Loan {
        let [loan] = self.pool.take().expect("a slot");
        loan
    }

    fn start(&mut self, key: u32, act: Act) {
        self.port.submit(Request { key, fd: Arc::clone(&self.ours), act }).unwrap();
    }

    fn next(&mut self) -> Completion {
        let limit = Instant::now() + Duration::from_secs(10);
        let mut completions = Vec::new();
        while completions.is_empty() && Instant::now() < limit {
            self.port.wait(Some(Duration::from_millis(20)), &mut completions).unwrap();
        }
        completions.pop().expect("something ends in 10 s")
    }
}

fn sample() -> Vec<u8> {
    (0..SLOT).map(|at| (at * 7 / 3).to_le_bytes()[0]).collect()
}

fn enciphered(plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    Toy::default().encrypt(plain, &mut wire).unwrap();
    wire
}

#[test]
fn what_is_sent_travels_enciphered_and_whole() {
    on_both(|mut bench| {
        let mut loan = bench.loan();
        loan.copy_from_slice(&sample());
        bench.start(1, Act::Send(Arc::new(loan), 3..SLOT));
        let mut theirs = bench.theirs.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut wire = Vec::new();
            theirs.read_to_end(&mut wire).unwrap();
            wire
        });
        let Completion::Sent { key: 1, result } = bench.next() else { panic!("no send") };
        assert_eq!(result.unwrap(), SLOT - 3);
        crate::socket::shutdown_both(&bench.ours).unwrap();
        let (mut cipher, wire, mut plain) =
            (Toy::default(), reader.join().unwrap(), vec![0; SLOT - 3]);
        cipher.decrypt(&mut wire.as_slice(), &mut plain).unwrap();
        assert!(plain == sample()[3..] && wire[..100] != plain[..100]);
    });
}

#[test]
fn what_is_received_fills_each_range_whatever_pieces_it_came_in() {
    on_both(|mut bench| {
        let mut theirs = bench.theirs.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            for part in enciphered(&sample()).chunks(77_777) {
                theirs.write_all(part).unwrap();
            }
        });
        let mut came = Vec::new();
        for range in [0..48, 48..49, 49..300_000, 300_000..SLOT] {
            let loan = bench.loan();
            bench.start(2, Act::Receive(loan, range.clone()));
            let Completion::Filled { loan, result, .. } = bench.next() else { panic!("nothing") };
            assert_eq!(result.unwrap(), range.len());
            came.extend_from_slice(&loan[range]);
        }
        writer.join().unwrap();
        assert!(came == sample());
    });
}

#[test]
fn a_connection_that_ends_early_gives_what_came() {
    on_both(|mut bench| {
        bench.theirs.write_all(&enciphered(b"tail")).unwrap();
        bench.theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let loan = bench.loan();
        bench.start(2, Act::Receive(loan, 0..SLOT));
        let Completion::Filled { result, .. } = bench.next() else { panic!("nothing") };
        assert_eq!(result.unwrap(), 4);
    });
}

#[test]
fn a_watch_ends_where_something_is_said_or_the_connection_ends() {
    for words in [Some(&[1, 0, 7][..]), None] {
        on_both(|mut bench| {
            bench.start(9, Act::Watch);
            match words {
                Some(words) => bench.theirs.write_all(words).unwrap(),
                None => bench.theirs.shutdown(std::net::Shutdown::Both).unwrap(),
            }
            assert!(matches!(bench.next(), Completion::Watched { key: 9, result: Ok(()) }));
        });
    }
}

#[test]
fn a_port_that_goes_away_ends_a_receive_that_waits() {
    on_both(|mut bench| {
        let loan = bench.loan();
        bench.start(2, Act::Receive(loan, 0..SLOT));
        let before = Instant::now();
        drop(bench.port);
        assert!(before.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_connection_that_its_owner_lets_go_of_is_closed() {
    on_both(|Bench { port, ours, theirs, .. }| {
        drop(ours);
        assert_eq!((&theirs).read(&mut [0; 1]).unwrap(), 0);
        drop(port);
    });
}

/// Lets so many bytes pass at once, and then nothing for so long.
#[derive(Debug)]
struct Held(usize, Duration);

impl Brake for Held {
    fn most(&self) -> usize {
        self.0
    }

    fn took(&self, bytes: usize) -> Duration {
        assert!(bytes <= self.0, "{bytes} bytes were taken at once");
        self.1
    }
}

/// A bench whose connection is held back so.
fn braked(brake: Held, test: impl Fn(Bench)) {
    let waker = Arc::new(Waker::new().unwrap());
    let arena = Arena::new(SLOT, 4).unwrap();
    let pool = Pool::split(&arena, 1, &waker).remove(0);
    let mut port = Port::new(Backend::Threads, &arena, &waker, 8).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let conduit = Conduit::enciphered(ours.into(), Box::new(Toy::default()));
    let ours = port.join(conduit.braked(Arc::new(brake))).unwrap();
    test(Bench { port, pool, ours, theirs });
}

#[test]
fn a_connection_brings_no_more_at_once_than_it_may_and_then_waits() {
    let pause = Duration::from_millis(20);
    braked(Held(1000, pause), |mut bench| {
        let wire = enciphered(&sample()[..9000]);
        let loan = bench.loan();
        let begun = Instant::now();
        bench.start(1, Act::Receive(loan, 0..9000));
        bench.theirs.write_all(&wire).unwrap();
        let Completion::Filled { loan, result, .. } = bench.next() else { panic!("no receive") };
        assert_eq!(result.unwrap(), 9000);
        assert!(loan[..9000] == sample()[..9000]);
        // Each pause may be up to a millisecond shorter.
        let least = Duration::from_millis(19) * u32::try_from(wire.len().div_ceil(1000)).unwrap();
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    });
}

#[test]
fn whoever_ends_a_connection_does_not_wait_for_what_is_held_back() {
    braked(Held(1000, Duration::from_secs(3600)), |mut bench| {
        let loan = bench.loan();
        bench.start(1, Act::Receive(loan, 0..9000));
        bench.theirs.write_all(&enciphered(&sample()[..9000])).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        crate::socket::shutdown_both(&bench.ours).unwrap();
        let Completion::Filled { .. } = bench.next() else { panic!("no receive") };
    });
    let begun = Instant::now();
    braked(Held(1000, Duration::from_secs(3600)), |mut bench| {
        let loan = bench.loan();
        bench.start(1, Act::Receive(loan, 0..9000));
        bench.theirs.write_all(&enciphered(&sample()[..9000])).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    });
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
