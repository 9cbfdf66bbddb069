//! A sender and a receiver in one process, and what a client and a server would do for them: carry
//! credits, dial again what was lost.

mod kept;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sys::backend::Backend;
use sys::cipher::Conduit;
use sys::pipe::Pipe;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zferry::breakpoint::record::Mark;
use zferry::engine::progress::Progress;
use zferry::engine::receiver::{self, Agreed, Feed, Receiver, Sink};
use zferry::engine::sender::{self, Sender};
use zferry::engine::settings::{
    Checksum, Compression, Route, RouteChoice, Settings, Spool, ZeroCopy,
};
use zferry::error::Class;
use zferry::protocol::window::Credit;
use zferry::spool::keeping::Keeping;
use zferry::units::{Bytes, Sequence, TransferId};

use crate::handshake::enciphered;
use crate::weather::{self, Holes, Weather};

const BLOCK_BYTES: u64 = 64 << 10;
/// The longest stream.
const CONTENT_BYTES: u64 = 6 << 20;

const TRANSFER: TransferId = TransferId(1);

/// How long a transfer may take before it is called stuck.
const LIMIT: Duration = Duration::from_secs(30);

/// What is carried, and by what.
#[derive(Clone, Debug)]
pub struct Plan {
    pub backend: Backend,
    pub compression: Compression,
    pub checksum: Checksum,
    pub route: RouteChoice,
    pub receiver_route: RouteChoice,
    pub bytes: u64,
    pub lanes: u32,
    /// How many of the lanes have a connection at the start.
    pub present: u32,
    pub over: Over,
    pub slow_sink: bool,
    /// The sink reads nothing before [`Pair::start_sink`].
    pub sink_waits: bool,
    /// The caches, in blocks for each lane.
    pub receiver_blocks: u64,
    /// Breakpoint files of the sender.
    pub spool: Option<Spool>,
    /// Those of the receiver.
    pub receiver_spool: Option<Spool>,
    /// Where the records of streams lie that are kept.
    pub state: Option<PathBuf>,
}

/// What connections are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Socket pairs, in clear.
    Plain,
    /// The same, enciphered: the weather is that of the bytes on the wire.
    Tls,
    /// TCP, sent from our own pages; there is no weather then.
    Tcp,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The sink got the bytes of the source, all and no more; and all were counted as sent, once,
    /// whoever sent them.
    pub whole: bool,
    /// Lanes that the sender lost.
    pub lost: usize,
    /// Lanes that the receiver dropped for what they brought.
    pub wrong: usize,
    /// Bytes that were sent again, and those that came again.
    pub resent: u64,
    pub came_twice: u64,
    /// Bytes of the stream that went by way of files.
    pub spooled: u64,
    pub failed: Option<String>,
    pub took: Duration,
}

pub struct Pair {
    plan: Plan,
    sender: Sender,
    receiver: Receiver,
    sender_events: UnboundedReceiver<sender::Event>,
    receiver_events: UnboundedReceiver<receiver::Event>,
    /// What the next connections of each lane meet.
    weather: Vec<VecDeque<Weather>>,
    holes: Holes,
    /// Clones of the sender's ends, to be cut.
    ends: Vec<Option<Cut>>,
    progress: Arc<Progress>,
    source: Option<JoinHandle<()>>,
    sink: Option<JoinHandle<Vec<u8>>>,
    /// Dropped, it starts the sink.
    start: Option<mpsc::Sender<()>>,
    acknowledged: Instant,
    started: Instant,
    fed: bool,
    lost: usize,
    wrong: usize,
    failed: Option<String>,
    sender_inbox: UnboundedSender<sender::Event>,
    receiver_inbox: UnboundedSender<receiver::Event>,
    sender_records: Option<Keeping>,
    receiver_records: Option<Keeping>,
    /// The stream's end, once the sender has all of it in files, or has dealt all of it.
    pub kept: Option<Mark>,
    end: Option<Mark>,
}

enum Cut {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            backend: Backend::Uring,
            compression: Compression::None,
            checksum: Checksum::Crc32,
            route: RouteChoice::Auto,
            receiver_route: RouteChoice::Auto,
            bytes: CONTENT_BYTES,
            lanes: 4,
            present: 4,
            over: Over::Plain,
            slow_sink: false,
            sink_waits: false,
            receiver_blocks: 2,
            spool: None,
            receiver_spool: None,
            state: None,
        }
    }
}

impl Plan {
    /// Blocks that stay in the kernel.
    pub fn spliced() -> Plan {
        let route = RouteChoice::Only(Route::Splice);
        Plan { checksum: Checksum::None, route, ..Plan::default() }
    }

    fn receiver_settings(&self) -> Settings {
        let (spool, route) = (self.receiver_spool.clone(), self.receiver_route);
        Settings { spool, route, ..self.settings(self.receiver_blocks) }
    }

    fn settings(&self, blocks_per_lane: u64) -> Settings {
        let slots = if self.compression == Compression::None { 1 } else { 2 };
        let blocks = u64::from(self.lanes) * blocks_per_lane;
        Settings {
            backend: self.backend,
            cache: Bytes(blocks * slots * (BLOCK_BYTES + 4096)),
            block_bytes: Bytes(BLOCK_BYTES),
            workers: 2,
            cores: Vec::new(),
            compression: self.compression,
            checksum: self.checksum,
            route: self.route,
            flush_after: Duration::from_millis(100),
            zero_copy: if self.over == Over::Tcp { ZeroCopy::On } else { ZeroCopy::Off },
            spool: self.spool.clone(),
        }
    }
}

impl Pair {
    /// Engines whose connections meet `weather`, each lane's in its order, and fair weather then.
    pub fn new(plan: Plan, weather: &[(u32, Weather)]) -> Pair {
        // Made once, and not within anybody's time.
        content(0);
        let (sender_inbox, sender_events) = unbounded_channel();
        let (receiver_inbox, receiver_events) = unbounded_channel();
        let places = || (0..plan.lanes).map(|_| None).collect::<Vec<Option<Conduit>>>();
        let settings = plan.receiver_settings();
        let agreed = Agreed { codec: settings.codec(), block_bytes: Bytes(BLOCK_BYTES) };
        let receiver =
            Receiver::start(&settings, agreed, places(), &receiver_inbox, Sequence(0)).unwrap();
        let sender = Sender::start(&plan.settings(2), places(), &sender_inbox, None).unwrap();
        let mut lanes: Vec<VecDeque<Weather>> = (0..plan.lanes).map(|_| VecDeque::new()).collect();
        for &(lane, one) in weather {
            lanes[lane as usize].push_back(one);
        }
        let mut pair = Pair {
            sender,
            receiver,
            sender_events,
            receiver_events,
            weather: lanes,
            holes: Holes::default(),
            ends: (0..plan.lanes).map(|_| None).collect(),
            progress: Arc::default(),
            source: None,
            sink: None,
            start: None,
            acknowledged: Instant::now(),
            started: Instant::now(),
            fed: false,
            lost: 0,
            wrong: 0,
            failed: None,
            sender_inbox,
            receiver_inbox,
            sender_records: None,
            receiver_records: None,
            kept: None,
            end: None,
            plan,
        };
        (0..pair.plan.present).for_each(|lane| pair.join(lane));
        pair
    }

    /// Starts the transfer.
    pub fn begin(&mut self) {
        let (from, to) = (Pipe::new(1 << 20).unwrap(), Pipe::new(1 << 20).unwrap());
        let Plan { bytes, slow_sink, sink_waits, .. } = self.plan;
        let mut writer = File::from(from.writer);
        self.source = Some(std::thread::spawn(move || {
            // An engine that gave up does not read to the end.
            let _ = writer.write_all(&content(bytes));
        }));
        let (start, starts) = channel();
        self.start = sink_waits.then_some(start);
        self.sink = Some(std::thread::spawn(move || {
            // Also started when the test has failed and is gone.
            let _ = starts.recv();
            read_out(File::from(to.reader), slow_sink)
        }));
        let sink = Sink { fd: to.writer, feed: Feed::Splice };
        let kept = self.keep_received();
        self.receiver.begin(TRANSFER, 1, sink, kept);
        self.sender.credit(self.receiver.receipt());
        let stream = self.keep_sent();
        self.sender.carry(TRANSFER, 1, from.reader, &self.progress, stream);
    }

    /// Gives a lane a new connection at both ends.
    pub fn join(&mut self, lane: u32) {
        let weather = self.weather[lane as usize].pop_front().unwrap_or(Weather::Fair);
        let (ours, theirs, end): (OwnedFd, OwnedFd, Cut) = if self.plan.over == Over::Tcp {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (theirs, _) = listener.accept().unwrap();
            let end = Cut::Tcp(theirs.try_clone().unwrap());
            (ours.into(), theirs.into(), end)
        } else {
            let (ours, theirs) = weather::connect(weather, &self.holes);
            let end = Cut::Unix(ours.try_clone().unwrap());
            (ours.into(), theirs.into(), end)
        };
        self.ends[lane as usize] = Some(end);
        let (ours, theirs) = if self.plan.over == Over::Tls {
            enciphered(ours, theirs)
        } else {
            (Conduit::plain(ours), Conduit::plain(theirs))
        };
        self.receiver.join(lane, theirs);
        self.sender.join(lane, ours);
    }

    pub fn leave(&mut self, lane: u32) {
        self.sender.leave(lane);
        self.receiver.leave(lane);
    }

    /// Cuts every connection that stands.
    pub fn cut_all(&mut self) {
        for end in self.ends.iter().flatten() {
            // One that is gone already cannot be cut again.
            let _ = match end {
                Cut::Unix(end) => end.shutdown(std::net::Shutdown::Both),
                Cut::Tcp(end) => end.shutdown(std::net::Shutdown::Both),
            };
        }
    }

    /// Bytes that the sender gave its sockets, and those that the receiver took out of its own.
    pub fn on_the_wire(&self) -> (u64, u64) {
        (self.progress.wire().0, self.receiver.progress().wire().0)
    }

    /// Drives until the source has given all that it has. `false`: it waits, and has for long.
    pub fn is_read_whole(&mut self) -> bool {
        loop {
            let before = self.progress.read().0;
            if before == self.plan.bytes {
                return true;
            }
            self.drive_for(Duration::from_millis(400));
            // It has begun, and given nothing since.
            let stands_still = before > 0 && self.progress.read().0 == before;
            if stands_still || self.started.elapsed() > LIMIT {
                return false;
            }
        }
    }

    /// Bytes of the stream that went to files.
    pub fn spooled(&self) -> u64 {
        self.progress.spooled().0
    }

    /// Tells the sender what the receiver never said.
    pub fn lie(&self, credit: Credit) {
        self.sender.credit(credit);
    }

    pub fn start_sink(&mut self) {
        self.start = None;
    }

    pub fn is_over(&self) -> bool {
        self.fed || self.failed.is_some()
    }

    pub fn drive_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_over() {
            self.drive();
        }
    }

    /// Drives until no byte has gone or come while everything was told twice.
    pub fn drive_until_nothing_moves(&mut self) {
        loop {
            let before = self.on_the_wire();
            self.drive_for(Duration::from_millis(500));
            if self.on_the_wire() == before || self.started.elapsed() > LIMIT {
                return;
            }
        }
    }

    /// Drives as long as `so` holds, for 2 s at most.
    pub fn drive_while(&mut self, so: impl Fn(&Pair) -> bool) {
        let until = Instant::now() + Duration::from_secs(2);
        while so(self) && Instant::now() < until {
            self.drive();
        }
    }

    /// Drives the transfer to its end and judges it.
    pub fn finish(mut self) -> Outcome {
        while !self.is_over() && self.started.elapsed() < LIMIT {
            self.drive();
        }
        let (took, fed) = (self.started.elapsed(), self.fed);
        let came_twice = self.receiver.progress().resent().0;
        let sent = self.progress.sent().0;
        drop(self.sender);
        drop(self.receiver.stop());
        self.source.take().unwrap().join().unwrap();
        let got = self.sink.take().unwrap().join().unwrap();
        Outcome {
            whole: fed && got == content(self.plan.bytes) && sent == self.plan.bytes,
            lost: self.lost,
            wrong: self.wrong,
            resent: self.progress.resent().0,
            came_twice,
            spooled: self.progress.spooled().0,
            failed: self.failed,
            took,
        }
    }

    /// Ends both engines in the middle; how long that takes.
    pub fn stop(mut self) -> Duration {
        let started = Instant::now();
        drop(self.sender);
        drop(self.receiver.stop());
        let took = started.elapsed();
        self.source.take().unwrap().join().unwrap();
        self.sink.take().unwrap().join().unwrap();
        took
    }

    fn drive(&mut self) {
        let mut idle = true;
        while let Ok(event) = self.sender_events.try_recv() {
            idle = false;
            match event {
                sender::Event::Sent(sent) => {
                    self.receiver.end(sent.transfer, sent.total, sent.crc32);
                    self.end = Some(Mark { to: sent.total, crc32: sent.crc32 });
                }
                sender::Event::Kept(sent) => {
                    self.kept = Some(Mark { to: sent.total, crc32: sent.crc32 });
                }
                sender::Event::LaneLost { lane, .. } => {
                    self.lost += 1;
                    self.join(lane);
                }
                sender::Event::Failed(fault) => self.failed = Some(fault.to_string()),
            }
        }
        while let Ok(event) = self.receiver_events.try_recv() {
            idle = false;
            match event {
                receiver::Event::Fed(fed) => {
                    assert_eq!(fed.total.0, self.plan.bytes);
                    self.fed = true;
                }
                receiver::Event::Credit => self.acknowledge(),
                // A server waits for its client to dial again.
                receiver::Event::LaneLost { fault, .. } => {
                    let class = fault.failure(zferry::error::Side::Target).class;
                    self.wrong += usize::from(class == Class::Peer);
                }
                receiver::Event::ConnectionEnded(_) => {}
                receiver::Event::Failed(fault) => self.failed = Some(fault.to_string()),
            }
        }
        if self.acknowledged.elapsed() > Duration::from_millis(200) {
            self.acknowledge();
        } else if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn acknowledge(&mut self) {
        self.acknowledged = Instant::now();
        self.sender.credit(self.receiver.receipt());
    }
}

/// A stream of so many bytes: half noise, half text.
fn content(bytes: u64) -> Vec<u8> {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    let all = CONTENT.get_or_init(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let piece = |_| [(0..256).flat_map(|_| noise()).collect(), noise().repeat(256)].concat();
        (0..CONTENT_BYTES / 4096).flat_map(piece).collect()
    });
    all[..usize::try_from(bytes).unwrap()].to_vec()
}

/// All that comes; a slow reader takes a pause now and then.
fn read_out(mut from: File, slow: bool) -> Vec<u8> {
    if !slow {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        return all;
    }
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&buffer[..count]),
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
