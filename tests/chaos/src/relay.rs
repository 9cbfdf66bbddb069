//! One connection through the proxy: two ways, each with its course of faults.
//!
//! The ways know each other only by their silence: while one is silent, it does not even tell that
//! an end has gone, for on a real line nobody would learn of that either.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{sleep, sleep_until, timeout};

use crate::course::Course;
use crate::delay::{Intake, PIECE_BYTES};
use crate::opening::{OPENING_BYTES, Role, recognize};
use crate::plan::{Ending, Fault, Way};
use crate::proxy::Shared;
use crate::throttle::Throttle;

/// How long the peers of a connection that was closed may take to close it too.
const FAREWELL: Duration = Duration::from_secs(1);

/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What both ways of a connection share.
struct Line {
    shared: Rc<Shared>,
    role: Role,
    silent_up: Cell<Instant>,
    silent_down: Cell<Instant>,
}

/// One way of a connection.
struct Pump<'a> {
    intake: Intake<ReadHalf<'a>>,
    outlet: Outlet<'a>,
}

/// What the plan does to bytes on one way, and where they go.
struct Outlet<'a> {
    line: &'a Line,
    way: Way,
    to: WriteHalf<'a>,
    course: Course,
    /// The last bytes that passed, as many as a fault ahead will ask for.
    memory: Vec<u8>,
    flip: Option<u8>,
    throttle: Option<Throttle>,
    /// It takes its turn on the line that all share.
    shares: bool,
    latency: Duration,
    segment_bytes: usize,
}

/// Carries a connection until it ends, by itself or by the plan.
pub(crate) async fn relay(shared: Rc<Shared>, mut client: TcpStream) {
    // One that is gone before it says what it is has passed nothing.
    let Ok((role, early)) = meet(&mut client).await else { return };
    let courses = shared.deal(role);
    let now = Cell::new(Instant::now());
    let line = Line { shared, role, silent_up: now.clone(), silent_down: now };
    line.wait_out(Way::Up).await;
    let Ok(mut server) = line.shared.connect().await else {
        drop(client.set_zero_linger());
        return;
    };
    let mut cuts = line.shared.cuts.subscribe();
    let cut = async {
        loop {
            match cuts.recv().await {
                Ok((who, ending)) if who.includes(role) => break ending,
                Ok(_) => {}
                // The proxy ends.
                Err(_) => break Ending::Rst,
            }
        }
    };
    let (client_from, client_to) = client.split();
    let (server_from, server_to) = server.split();
    let up = Pump::new(&line, Way::Up, client_from, server_to, courses.up, early);
    let down = Pump::new(&line, Way::Down, server_from, client_to, courses.down, Vec::new());
    let ending = tokio::select! {
        ended = async { tokio::try_join!(up.run(), down.run()) } => ended.err(),
        ending = cut => Some(ending),
    };
    part(client, server, ending).await;
}

/// Reads until it is known what a connection is for. One that ends before is a stranger.
async fn meet(client: &mut TcpStream) -> io::Result<(Role, Vec<u8>)> {
    client.set_nodelay(true)?;
    let mut first = Vec::new();
    loop {
        if let Some(role) = recognize(&first) {
            return Ok((role, first));
        }
        let mut piece = [0; OPENING_BYTES];
        match client.read(&mut piece[first.len()..]).await? {
            0 => return Ok((Role::Stranger, first)),
            count => first.extend_from_slice(&piece[first.len()..][..count]),
        }
    }
}

/// Ends both connections; where `None`, they have ended by themselves.
async fn part(mut client: TcpStream, mut server: TcpStream, ending: Option<Ending>) {
    match ending {
        None => {}
        Some(Ending::Rst) => {
            // One that has gone cannot be reset and need not be.
            drop(client.set_zero_linger());
            drop(server.set_zero_linger());
        }
        Some(Ending::Fin) => {
            let _ = tokio::join!(client.shutdown(), server.shutdown());
            // To close a socket with something unread would reset it.
            let farewell = async { tokio::join!(read_out(&mut client), read_out(&mut server)) };
            let _ = timeout(FAREWELL, farewell).await;
        }
    }
}

async fn read_out(stream: &mut TcpStream) {
    let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}

impl Line {
    /// Waits until this way is not silent.
    async fn wait_out(&self, way: Way) {
        let own = if way == Way::Up { &self.silent_up } else { &self.silent_down };
        loop {
            let until = own.get().max(self.shared.silent.get());
            if until <= Instant::now() {
                return;
            }
            sleep_until(until.into()).await;
        }
    }

    fn silence(&self, way: Way, lasting: Option<Duration>) {
        let until = Instant::now() + lasting.unwrap_or(FOR_EVER);
        if way != Way::Down {
            self.silent_up.set(until);
        }
        if way != Way::Up {
            self.silent_down.set(until);
        }
    }
}

impl<'a> Pump<'a> {
    fn new(
        line: &'a Line,
        way: Way,
        from: ReadHalf<'a>,
        to: WriteHalf<'a>,
        course: Course,
        early: Vec<u8>,
    ) -> Pump<'a> {
        let outlet = Outlet {
            line,
            way,
            to,
            course,
            memory: Vec::new(),
            flip: None,
            throttle: None,
            shares: false,
            latency: Duration::ZERO,
            segment_bytes: PIECE_BYTES,
        };
        Pump { intake: Intake::new(from, early), outlet }
    }

    /// Passes on what comes until its end; an error is how the whole connection is to end.
    async fn run(mut self) -> Result<(), Ending> {
        loop {
            while let Some(fault) = self.outlet.course.due() {
                self.outlet.line.shared.count(fault);
                match fault {
                    Fault::Delay(delay) => self.intake.delay_by(delay),
                    Fault::Window(bytes) => self.intake.hold_at_most(bytes),
                    fault => self.outlet.suffer(fault).await?,
                }
            }
            let clear = usize::try_from(self.outlet.course.clear()).unwrap_or(usize::MAX);
            let piece = self.intake.take(clear).await;
            if self.intake.meanwhile(self.outlet.pass(piece)).await? {
                return Ok(());
            }
        }
    }
}

impl Outlet<'_> {
    /// Passes on what came, which was nothing at the end: whether that was it.
    async fn pass(&mut self, piece: io::Result<Vec<u8>>) -> Result<bool, Ending> {
        self.line.wait_out(self.way).await;
        let mut piece = piece.map_err(|_gone| Ending::Rst)?;
        if piece.is_empty() {
            // One that has gone does not mind.
            let _ = self.to.shutdown().await;
            return Ok(true);
        }
        self.harm(&mut piece).await?;
        Ok(false)
    }

    async fn suffer(&mut self, fault: Fault) -> Result<(), Ending> {
        match fault {
            Fault::Cut(ending) => return Err(ending),
            Fault::CutAll(ending) => {
                self.line.shared.cut_all(ending);
                return Err(ending);
            }
            Fault::Hole(lasting) => self.line.silence(self.way, lasting),
            Fault::HoleBoth(lasting) => self.line.silence(Way::Both, lasting),
            Fault::HoleAll(lasting) => self.line.shared.silence(lasting.unwrap_or(FOR_EVER)),
            Fault::Refuse(time) => self.line.shared.refuse(time),
            // The intake sees to these.
            Fault::Delay(_) | Fault::Window(_) => {}
            Fault::RateAll(rate) => {
                self.line.shared.narrow(self.way, rate);
                self.shares = true;
            }
            Fault::Rate(rate) => self.throttle = Some(Throttle::new(rate, Instant::now())),
            Fault::Latency(latency) => self.latency = latency,
            Fault::Segments(bytes) => self.segment_bytes = bytes,
            Fault::Flip(bit) => self.flip = Some(bit),
            Fault::Repeat(bytes) => {
                let again = self.memory.len().saturating_sub(bytes);
                let again = self.memory[again..].to_vec();
                self.write(&again).await?;
            }
        }
        Ok(())
    }

    async fn harm(&mut self, piece: &mut [u8]) -> Result<(), Ending> {
        if let Some(bit) = self.flip.take() {
            piece[0] ^= 1 << bit;
        }
        self.remember(piece);
        self.course.pass(piece.len());
        if !self.latency.is_zero() {
            sleep(self.latency).await;
        }
        self.write(piece).await
    }

    fn remember(&mut self, piece: &[u8]) {
        let most = self.course.memory_bytes();
        self.memory.extend_from_slice(piece);
        self.memory.drain(..self.memory.len().saturating_sub(most));
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        for segment in bytes.chunks(self.segment_bytes.min(self.bytes_at_once())) {
            if self.to.write_all(segment).await.is_err() {
                // That this end has gone is news for the other way.
                let back = if self.way == Way::Up { Way::Down } else { Way::Up };
                self.line.wait_out(back).await;
                return Err(Ending::Rst);
            }
            self.line.shared.passed(self.line.role, self.way, segment.len());
            if self.shares {
                sleep_until(self.line.shared.turn(self.way, segment.len()).into()).await;
            }
            if let Some(throttle) = &mut self.throttle {
                sleep_until(throttle.pass(segment.len(), Instant::now()).into()).await;
            }
        }
        Ok(())
    }

    fn bytes_at_once(&self) -> usize {
        let own = self.throttle.as_ref().map_or(usize::MAX, Throttle::bytes_at_once);
        if self.shares { own.min(self.line.shared.bytes_at_once(self.way)) } else { own }
    }
}
