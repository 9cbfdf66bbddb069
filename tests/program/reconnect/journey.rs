//! One stream through the relay, from the stdin of a `send` to the stdout of a `receive`.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use zferry_chaos::{Counters, Plan, Proxy, Random};

use crate::support::host::{Ended, LIMIT, Running, Server, send_open};

/// Blocks of a stream here: small, so that a short stream has many.
pub const BLOCK: usize = 4 << 10;
/// A frame with a full block, sent as it is.
pub const FRAME: u64 = 48 + BLOCK as u64;
/// What opens each connection.
pub const PREAMBLE: u64 = 32;
/// Memory of either side: what was sent and not taken is never more.
pub const CACHE: u64 = 2 << 20;

/// How much is written at a time while the relay still has harm to do.
const PIECE: usize = 8 * BLOCK;

/// A stream that goes on until the relay has done its harm.
pub struct Journey<'a> {
    plan: Plan,
    send: Vec<&'a str>,
    receive: Vec<&'a str>,
    bytes_min: usize,
    faults: u64,
}

/// A stream on its way.
pub struct UnderWay {
    pub sender: Running,
    pub receiver: Server,
    pub proxy: Proxy,
}

/// What became of it: all of it arrived.
pub struct Arrived {
    pub counters: Counters,
    pub bytes: u64,
    /// What the sender said on stdout.
    pub told: String,
}

/// Writes into a pipe that may not be read.
struct Feeder(SyncSender<Vec<u8>>);

impl<'a> Journey<'a> {
    /// A short stream under the plan with this text.
    pub fn new(plan: &str) -> Journey<'a> {
        Journey {
            plan: plan.parse().unwrap(),
            send: vec!["--cache", "2MiB", "--block-size", "4KiB"],
            receive: vec!["--cache", "2MiB"],
            bytes_min: 0,
            faults: 0,
        }
    }

    /// More flags for the `send`.
    pub fn send(mut self, flags: &[&'a str]) -> Self {
        self.send.extend(flags);
        self
    }

    /// More flags for the `receive`.
    pub fn receive(mut self, flags: &[&'a str]) -> Self {
        self.receive.extend(flags);
        self
    }

    /// Goes on until so many faults were done.
    pub fn until(mut self, faults: u64) -> Self {
        self.faults = faults;
        self
    }

    /// Is no shorter.
    pub fn at_least(mut self, bytes: usize) -> Self {
        self.bytes_min = bytes;
        self
    }

    /// Sets out.
    pub fn begin(&self) -> UnderWay {
        let receiver = Server::receive(&self.receive);
        let proxy = Proxy::start(receiver.address, &self.plan).unwrap();
        let sender = send_open(proxy.address(), &self.send);
        UnderWay { sender, receiver, proxy }
    }

    /// Demands that the stream arrives, each byte once, and that nothing was sent again that need
    /// not be.
    #[track_caller]
    pub fn arrives(self) -> Arrived {
        let mut under_way = self.begin();
        let stream = self.feed(&mut under_way);
        let plan = &self.plan;
        let arrived = under_way.arrived(&stream);
        let Counters { lanes, faults, .. } = &arrived.counters;
        let done: u64 = faults.values().sum();
        assert!(done >= self.faults, "{done} faults of {} were done, by\n{plan}", self.faults);
        // What was not taken when a connection was lost, and the head of each frame.
        let frames = arrived.bytes.div_ceil(BLOCK as u64);
        let once = arrived.bytes + 48 * frames.max(arrived.bytes / 512) + 32 * lanes.connections;
        let most = once + done * CACHE;
        assert!(lanes.up_bytes <= most, "{} bytes for {}", lanes.up_bytes, arrived.bytes);
        arrived
    }

    /// Feeds the `send` until the harm is done, and returns what it was fed.
    fn feed(&self, under_way: &mut UnderWay) -> Vec<u8> {
        let feeder = Feeder::new(under_way.sender.stdin());
        let mut random = Random::new(1);
        let (mut stream, started) = (Vec::new(), Instant::now());
        loop {
            let done: u64 = under_way.proxy.counters().faults.values().sum();
            if done >= self.faults && stream.len() >= self.bytes_min {
                return stream;
            }
            let piece = noise(&mut random, PIECE);
            stream.extend_from_slice(&piece);
            let told = || format!("{done} of {}; {}", self.faults, under_way.told());
            // Of one that has given up, what it said is told by whoever waits for its end.
            if !feeder.feed(piece, started + LIMIT, told) {
                return stream;
            }
        }
    }
}

impl Feeder {
    fn new(mut stdin: ChildStdin) -> Feeder {
        let (inbox, pieces) = sync_channel::<Vec<u8>>(1);
        thread::spawn(move || pieces.iter().all(|piece| stdin.write_all(&piece).is_ok()));
        Feeder(inbox)
    }

    /// Whether it was taken; by `deadline` nobody may hold it up any more.
    fn feed(&self, mut piece: Vec<u8>, deadline: Instant, told: impl Fn() -> String) -> bool {
        loop {
            match self.0.try_send(piece) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => piece = back,
            }
            assert!(Instant::now() < deadline, "it stands still: {}", told());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl UnderWay {
    /// What happened so far.
    fn told(&self) -> String {
        let (send, receive) = (self.sender.said(), self.receiver.running.said());
        format!("{}\nsend: {send}\nreceive: {receive}", self.proxy.counters())
    }

    /// Demands that both sides end well, and that `stream` is what came out.
    #[track_caller]
    pub fn arrived(self, stream: &[u8]) -> Arrived {
        let UnderWay { sender, receiver, proxy } = self;
        let (sender, receiver): (Ended, Ended) = (sender.ended(), receiver.running.ended());
        let told = format!("send: {}\nreceive: {}", sender.stderr, receiver.stderr);
        let codes = (sender.status.code(), receiver.status.code());
        assert_eq!(codes, (Some(0), Some(0)), "{told}");
        let got = &receiver.stdout;
        let differs = got.iter().zip(stream).position(|(a, b)| a != b);
        assert!(
            got == stream,
            "{} of {} bytes came, the first that differs is {differs:?}\n{told}",
            got.len(),
            stream.len()
        );
        let told = String::from_utf8(sender.stdout).unwrap();
        Arrived { counters: proxy.counters(), bytes: stream.len() as u64, told }
    }
}

/// Bytes that no compression makes shorter.
pub fn noise(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length / 8).flat_map(|_| random.number().to_le_bytes()).collect()
}

/// The lines of a plan.
pub fn lines(rules: impl IntoIterator<Item = String>) -> String {
    rules.into_iter().collect::<Vec<_>>().join("\n")
}
