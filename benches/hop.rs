//! What it costs a stage to sleep and be woken: by the end of an operation, and by its bell.
//!
//! Each figure is a round trip: something is asked of another thread, and the answer wakes the
//! sleeper. The same without a port stands beside it. Run with `cargo bench --bench hop`; `ci/test`
//! only sees that nobody sleeps for ever.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use sys::arena::Arena;
use sys::backend::Backend;
use sys::loan::{Loan, Pool};
use sys::pipe::Pipe;
use sys::port::{Act, Completion, Port, Request};
use sys::wake::Waker;

const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Threads];

/// After this nobody will answer any more.
const LIMIT: Duration = Duration::from_secs(10);

fn reads(c: &mut Criterion) {
    let mut group = c.benchmark_group("there and back through two pipes");
    group.bench_function("read(2)", |b| {
        let (mut ask, answer, echo) = echo();
        let mut answer = std::fs::File::from(answer);
        b.iter(|| {
            ask.write_all(b"?").unwrap();
            answer.read_exact(&mut [0]).unwrap();
        });
        drop(ask);
        echo.join().unwrap();
    });
    for backend in BACKENDS {
        group.bench_function(format!("port, {backend}"), |b| {
            let (mut ask, answer, echo) = echo();
            let answer = Arc::new(answer);
            let (mut port, pool, _waker) = port(backend);
            let [loan] = pool.take().unwrap();
            let mut loan = Some(loan);
            let mut ended = Vec::new();
            b.iter(|| {
                ask.write_all(b"?").unwrap();
                let act = Act::Read(loan.take().unwrap(), 0..4096);
                port.submit(Request { key: 0, fd: Arc::clone(&answer), act }).unwrap();
                loan = Some(filled(&mut port, &mut ended));
            });
            drop(ask);
            echo.join().unwrap();
        });
    }
    group.finish();
}

fn bells(c: &mut Criterion) {
    let mut group = c.benchmark_group("there and back by bells");
    group.bench_function("no port", |b| {
        let ours = Arc::new(Waker::new().unwrap());
        let echo = BellEcho::start(&ours, None);
        b.iter(|| echo.ask(|| ours.wait(Some(LIMIT)).map(drop)));
        echo.end();
    });
    for backend in BACKENDS {
        group.bench_function(format!("port, {backend}"), |b| {
            let (mut port, _pool, ours) = port(backend);
            let echo = BellEcho::start(&ours, Some(backend));
            let mut ended = Vec::new();
            b.iter(|| echo.ask(|| port.wait(Some(LIMIT), &mut ended)));
            echo.end();
        });
    }
    group.finish();
}

fn port(backend: Backend) -> (Port, Pool, Arc<Waker>) {
    let waker = Arc::new(Waker::new().unwrap());
    let arena = Arena::new(64 << 10, 1).unwrap();
    let pool = Pool::split(&arena, 1, &waker).remove(0);
    (Port::new(backend, &arena, &waker, 8).unwrap(), pool, waker)
}

/// Waits for the only operation that there is.
fn filled(port: &mut Port, ended: &mut Vec<Completion>) -> Loan {
    let asked = Instant::now();
    while ended.is_empty() {
        port.wait(Some(LIMIT), ended).unwrap();
        assert!(asked.elapsed() < LIMIT, "a wake-up was lost");
    }
    match ended.pop() {
        Some(Completion::Filled { loan, result: Ok(1), .. }) => loan,
        other => panic!("{other:?}"),
    }
}

/// A thread that answers each byte with a byte, until there are no more.
fn echo() -> (std::fs::File, OwnedFd, JoinHandle<()>) {
    let (asked, answered) = (Pipe::new(4096).unwrap(), Pipe::new(4096).unwrap());
    let mut questions = std::fs::File::from(asked.reader);
    let mut answers = std::fs::File::from(answered.writer);
    let thread = std::thread::spawn(move || {
        while questions.read(&mut [0]).unwrap() == 1 {
            answers.write_all(b"!").unwrap();
        }
    });
    (asked.writer.into(), answered.reader, thread)
}

/// A thread that answers each ring of its bell by a ring of ours, and sleeps as we do.
struct BellEcho {
    bell: Arc<Waker>,
    rounds: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl BellEcho {
    fn start(ours: &Arc<Waker>, backend: Option<Backend>) -> BellEcho {
        let bell = Arc::new(Waker::new().unwrap());
        let (rounds, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (ours, bell) = (Arc::clone(ours), Arc::clone(&bell));
            let (rounds, over) = (Arc::clone(&rounds), Arc::clone(&over));
            std::thread::spawn(move || {
                let arena = Arena::new(4096, 1).unwrap();
                let port = backend.map(|backend| Port::new(backend, &arena, &bell, 1));
                let mut port = port.transpose().unwrap();
                while !over.load(Ordering::SeqCst) {
                    let asked = rounds.load(Ordering::SeqCst);
                    if asked % 2 == 1 {
                        rounds.store(asked + 1, Ordering::SeqCst);
                        ours.wake();
                    }
                    match &mut port {
                        None => bell.wait(Some(LIMIT)).map(drop).unwrap(),
                        Some(port) => port.wait(Some(LIMIT), &mut Vec::new()).unwrap(),
                    }
                }
            })
        };
        BellEcho { bell, rounds, over, thread }
    }

    /// Asks, and sleeps until there is an answer.
    fn ask(&self, mut sleep: impl FnMut() -> std::io::Result<()>) {
        let round = self.rounds.fetch_add(1, Ordering::SeqCst) + 1;
        self.bell.wake();
        let asked = Instant::now();
        while self.rounds.load(Ordering::SeqCst) == round {
            sleep().unwrap();
            assert!(asked.elapsed() < LIMIT, "a ring was lost");
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.bell.wake();
        self.thread.join().unwrap();
    }
}

criterion_group!(benches, reads, bells);
criterion_main!(benches);
