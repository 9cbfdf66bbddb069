//! Connections as TCP gives them: bytes in order, in pieces, late, and lost from some byte on.
//!
//! Between two connections there is no order. A connection may end at any byte, be heard of no
//! more in one direction or in both, or be slow; now and then a bit is flipped that no checksum of
//! the network has seen.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use zferry::protocol::secret::JoinSecret;

use super::environment::{End, Environment, Event};
use super::random::Random;

/// How long the kernel tries to deliver before it gives a connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Control,
    ControlAgain(JoinSecret),
    Lane(JoinSecret, u16),
}

#[derive(Debug)]
pub struct Network {
    connections: BTreeMap<u32, Connection>,
    next: u32,
    latency: u64,
    /// Nothing passes until then.
    down_until: Duration,
    pub flipped: bool,
    /// Until when what was late or silent may have hindered a stream.
    hindered_until: Duration,
    /// The next frame is not what was sent.
    flip_next: bool,
}

#[derive(Debug)]
struct Connection {
    purpose: Purpose,
    /// By the end that reads.
    ways: [Way; 2],
}

#[derive(Debug, Default)]
struct Way {
    pieces: VecDeque<Vec<u8>>,
    /// When the last piece arrives.
    last: Duration,
    not_before: Duration,
    slow: u64,
    /// Nothing more enters.
    ended: bool,
    /// What is on its way never arrives.
    lost: bool,
}

impl Network {
    pub fn new(random: &mut Random) -> Network {
        let latency = random.pick(&[1, 20, 200]);
        let (connections, down_until) = (BTreeMap::new(), Duration::ZERO);
        Network {
            connections,
            next: 1,
            latency,
            down_until,
            flipped: false,
            hindered_until: Duration::ZERO,
            flip_next: false,
        }
    }

    pub fn purpose(&self, id: u32) -> Purpose {
        self.connections[&id].purpose
    }

    fn standing(&self) -> Vec<u32> {
        let stands = |connection: &Connection| connection.ways.iter().any(|way| !way.ended);
        self.connections.iter().filter(|(_, c)| stands(c)).map(|(&id, _)| id).collect()
    }

    fn way(&mut self, to: End, id: u32) -> &mut Way {
        &mut self.connections.get_mut(&id).expect("a connection that was made").ways[to as usize]
    }
}

impl Environment {
    /// Begins a connection to the server. Whether it stands, the client learns from what it hears.
    pub fn dial(&mut self, purpose: Purpose) -> u32 {
        let id = self.network.next;
        self.network.next += 1;
        let ways = [Way::default(), Way::default()];
        self.network.connections.insert(id, Connection { purpose, ways });
        if self.now < self.network.down_until {
            self.fall_silent(id);
        } else {
            let there = self.now + self.random.millis(self.network.latency);
            self.network.way(End::Server, id).last = there;
            self.at(there, Event::Connect(id));
        }
        id
    }

    /// Gives bytes to the kernel.
    pub fn write(&mut self, from: End, id: u32, mut bytes: Vec<u8>) {
        let is_lane = matches!(self.network.purpose(id), Purpose::Lane(..));
        let flip = is_lane && self.network.flip_next;
        if flip {
            self.network.flip_next = false;
            let bit = self.random.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            self.network.flipped = true;
        }
        let pieces = if bytes.len() > 1 && self.random.chance(30) {
            let rest = bytes.split_off(1 + self.random.index(bytes.len() - 1));
            vec![bytes, rest]
        } else {
            vec![bytes]
        };
        let down_until = self.network.down_until;
        for piece in pieces {
            let latency = self.network.latency;
            let way = self.network.way(from.other(), id);
            if way.ended {
                return;
            }
            let (last, begin, slow) = (way.last, way.not_before.max(down_until), way.slow);
            let delay = Duration::from_micros(latency * 500) + self.random.millis(latency + slow);
            let when = (self.now.max(begin) + delay).max(last);
            let way = self.network.way(from.other(), id);
            way.last = when;
            way.pieces.push_back(piece);
            self.at(when, Event::Arrive { to: from.other(), id });
        }
        if flip && self.random.chance(50) {
            // What was sent is sent again while it is being looked at.
            self.cut_after(true, id);
        }
    }

    /// What has arrived.
    pub fn read(&mut self, to: End, id: u32) -> Option<Vec<u8>> {
        let way = self.network.way(to, id);
        let piece = way.pieces.pop_front()?;
        (!way.lost && !piece.is_empty()).then_some(piece)
    }

    /// An end closes a connection: the other one reads what was written, and then the end.
    pub fn close(&mut self, from: End, id: u32) {
        self.network.way(from, id).ended = true;
        self.network.way(from, id).lost = true;
        self.end_way(from.other(), id, Duration::ZERO);
    }

    fn end_way(&mut self, to: End, id: u32, late: Duration) {
        let now = self.now;
        let way = self.network.way(to, id);
        if std::mem::replace(&mut way.ended, true) {
            return;
        }
        let when = way.last.max(now + late);
        self.at(when, Event::Ended { to, id });
    }

    /// A connection dies at some byte, and either end learns of it sooner or later.
    pub fn cut(&mut self, id: u32) {
        let whole = self.random.chance(30);
        self.cut_after(whole, id);
    }

    /// Cuts a connection; `whole`: behind the last byte that is on its way.
    fn cut_after(&mut self, whole: bool, id: u32) {
        // Cut again and again, a stream may begin to move just when it is wondered at.
        self.hinder(self.now);
        for to in [End::Client, End::Server] {
            let in_flight: usize = self.network.way(to, id).pieces.iter().map(Vec::len).sum();
            let cut = self.random.index(in_flight + 1);
            let mut keep = if whole { in_flight } else { cut };
            for piece in &mut self.network.way(to, id).pieces {
                piece.truncate(keep);
                keep -= piece.len();
            }
            let late = if self.random.chance(20) { 20_000 } else { 50 };
            let late = self.random.millis(late);
            self.end_way(to, id, late);
        }
    }

    /// Nothing is heard over a connection any more; the kernels notice in the end,
    /// most times.
    fn fall_silent(&mut self, id: u32) {
        self.hinder(self.now);
        let unnoticed = self.random.chance(30);
        for to in [End::Client, End::Server] {
            let late = USER_TIMEOUT + self.random.millis(10_000);
            let way = self.network.way(to, id);
            way.lost = true;
            if unnoticed {
                way.ended = true;
            } else {
                self.end_way(to, id, late);
            }
        }
    }

    /// A process is gone, and its kernel says so; or the kernel is gone as well.
    pub fn leave(&mut self, end: End, with_kernel: bool) {
        for id in self.network.standing() {
            if with_kernel {
                self.fall_silent(id);
            } else {
                self.cut(id);
                self.network.way(end, id).lost = true;
            }
        }
    }

    /// What goes wrong until then may keep a stream from moving for a while longer.
    fn hinder(&mut self, until: Duration) {
        let then = until + 3 * USER_TIMEOUT;
        self.network.hindered_until = self.network.hindered_until.max(then);
    }

    /// Whether a connection may be to blame for a stream that stands still.
    pub fn is_doubtful(&self, id: u32) -> bool {
        let to_server = &self.network.connections[&id].ways[End::Server as usize];
        to_server.lost || to_server.slow > 0 || self.now < self.network.hindered_until
    }

    fn any_connection(&mut self) -> Option<u32> {
        let standing = self.network.standing();
        (!standing.is_empty()).then(|| self.random.pick(&standing))
    }

    pub fn cut_one(&mut self) {
        if let Some(id) = self.any_connection() {
            self.say(|| format!("FAULT connection {id} is cut"));
            self.cut(id);
        }
    }

    pub fn cut_all(&mut self) {
        self.say(|| "FAULT all connections are cut".to_owned());
        for id in self.network.standing() {
            self.cut(id);
        }
    }

    /// One connection is late, silent for a while or for ever, in one direction or both.
    pub fn stall_one(&mut self) {
        let Some(id) = self.any_connection() else { return };
        let pause = self.random.pick(&[100, 5_000, 30_000]);
        let until = self.now + self.random.millis(pause);
        self.hinder(until);
        match self.random.below(4) {
            0 => self.network.way(End::Client, id).not_before = until,
            1 => self.network.way(End::Server, id).not_before = until,
            2 => self.fall_silent(id),
            _ => {
                for to in [End::Client, End::Server] {
                    self.network.way(to, id).slow = pause / 10;
                }
            }
        }
        self.say(|| format!("FAULT connection {id} stalls"));
    }

    /// Nothing passes for a while, over any connection; no new one is made.
    pub fn outage(&mut self) {
        let pause = self.random.pick(&[1_000, 15_000, 60_000, 1_200_000]);
        self.network.down_until = self.now + self.random.millis(pause);
        self.hinder(self.network.down_until);
        self.say(|| format!("FAULT outage until {:?}", self.network.down_until));
    }

    /// A bit of what is on its way is another.
    pub fn flip(&mut self) {
        if self.random.chance(50) {
            self.network.flip_next = true;
            return;
        }
        let mut all = Vec::new();
        for (&id, connection) in &self.network.connections {
            for (to, way) in [End::Client, End::Server].into_iter().zip(&connection.ways) {
                let pieces = way.pieces.iter().enumerate();
                let some = pieces.filter(|(_, piece)| !way.lost && !piece.is_empty());
                all.extend(some.map(|(at, _)| (id, to, at)));
            }
        }
        if all.is_empty() {
            return;
        }
        let (id, to, at) = self.random.pick(&all);
        let bit = self.random.index(self.network.way(to, id).pieces[at].len() * 8);
        self.network.way(to, id).pieces[at][bit / 8] ^= 1 << (bit % 8);
        self.network.flipped = true;
        self.say(|| format!("FAULT a bit of connection {id} is flipped"));
    }
}
