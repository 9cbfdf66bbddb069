//! A pool that receives: `zfs receive -s` with its pipe, its token and its transaction groups.
//!
//! It takes what is in its pipe when it likes to, makes an object prefix durable when it likes to,
//! and believes nothing: a stream must begin where its own state ends, and every object proves the
//! bytes before it. When its input ends early it keeps what it has, which takes a while; until
//! then the dataset is busy.

use std::collections::VecDeque;
use std::time::Duration;

use super::environment::{End, Environment, Event as Due};
use super::server;
use super::source::{BEGIN_BYTES, END, MAGIC, OBJECT_HEAD_BYTES, content};

/// What the pipe holds.
const PIPE_BYTES: usize = 1500;

#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The receive takes some of its pipe.
    Consume(u32),
    /// A transaction group is on disk.
    Sync,
    /// The pool has space again.
    Space,
    /// The receive has kept what it has, and is gone.
    Gone(u32),
}

#[derive(Debug, Default)]
pub struct Target {
    /// It keeps what it has of a stream that was cut; of some streams ZFS does not.
    resumable: bool,
    /// The snapshot that it has.
    pub holds: Option<u64>,
    /// How many objects of a snapshot the partial state has: `(guid, objects)`.
    pub token: Option<(u64, u32)>,
    receive: Option<Receive>,
    runs: u32,
    /// The next objects do not fit: the receive fails.
    pub full: bool,
    /// The receive whose part was given up before it had heard how its stream begins.
    orphaned: Option<u32>,
}

#[derive(Debug)]
struct Receive {
    run: u32,
    pipe: VecDeque<u8>,
    unparsed: Vec<u8>,
    crc: crc32fast::Hasher,
    begun: Option<(u64, u32)>,
    next: u32,
    first: u32,
    taken: u64,
    complete: bool,
    closed: bool,
    ending: bool,
}

impl Target {
    pub fn new(resumable: bool) -> Target {
        Target { resumable, ..Target::default() }
    }

    /// Starts `zfs receive`; `None` while another one is there.
    fn open(&mut self) -> Option<u32> {
        if self.receive.is_some() {
            return None;
        }
        self.runs += 1;
        self.receive = Some(Receive {
            run: self.runs,
            pipe: VecDeque::new(),
            unparsed: Vec::new(),
            crc: crc32fast::Hasher::new(),
            begun: None,
            next: 0,
            first: 0,
            taken: 0,
            complete: false,
            closed: false,
            ending: false,
        });
        Some(self.runs)
    }

    fn running(&mut self, run: u32) -> Option<&mut Receive> {
        self.receive.as_mut().filter(|receive| receive.run == run)
    }

    /// How many bytes of its stream a receive has taken out of its pipe.
    pub fn taken(&mut self, run: u32) -> u64 {
        self.running(run).map_or(u64::MAX, |receive| receive.taken)
    }

    /// Whether nobody receives.
    pub fn is_at_rest(&self) -> bool {
        self.receive.is_none()
    }

    /// Whoever fed a receive is gone.
    pub fn lose_input(&mut self) {
        if let Some(receive) = &mut self.receive {
            receive.closed = true;
        }
    }

    /// `zfs receive -A`: of a receive that has not begun yet, whoever started it being dead, ZFS
    /// knows nothing; it will find nothing to go on from.
    pub fn abort(&mut self) {
        self.token = None;
        let early = self.receive.as_ref().filter(|receive| receive.begun.is_none());
        self.orphaned = early.map(|receive| receive.run);
    }

    /// The host loses its power.
    pub fn crash(&mut self) {
        self.receive = None;
    }

    fn sync(&mut self) {
        let Some(receive) = &self.receive else { return };
        if let Some((guid, _)) = receive.begun
            && receive.next > receive.first
            && self.resumable
        {
            self.token = Some((guid, receive.next));
        }
    }
}

/// The resume token as text: `zfs send -t` understands no other.
pub fn token_text((guid, objects): (u64, u32)) -> String {
    format!("{guid}-{objects}")
}

/// What a resume token says: the snapshot, and how many of its objects are there.
pub fn token_of(text: &str) -> (u64, u32) {
    let (guid, objects) = text.split_once('-').expect("a token of ours");
    (guid.parse().expect("a guid"), objects.parse().expect("a count"))
}

impl Receive {
    /// Reads one piece of the stream. `Err` says what no `zfs send` would have made.
    fn parse(&mut self, token: Option<(u64, u32)>) -> Result<bool, String> {
        if self.complete {
            return if self.unparsed.is_empty() { Ok(false) } else { Err("more".to_owned()) };
        }
        let Some((guid, objects)) = self.begun else { return self.begin(token) };
        let Some(number) = u32_at(&self.unparsed, 0) else { return Ok(false) };
        let body = match number {
            END => 4,
            _ => match self.unparsed.get(4..6) {
                Some(&[low, high]) => {
                    OBJECT_HEAD_BYTES + usize::from(u16::from_le_bytes([low, high]))
                }
                _ => return Ok(false),
            },
        };
        let Some(expected) = u32_at(&self.unparsed, body) else { return Ok(false) };
        self.crc.update(&self.unparsed[..body]);
        if self.crc.clone().finalize() != expected {
            return Err(format!("checksum mismatch at object {}", self.next));
        }
        self.crc.update(&expected.to_le_bytes());
        let found = self.unparsed.get(6..14).map(<[u8]>::to_vec);
        self.unparsed.drain(..body + 4);
        if number == END {
            self.complete = self.next == objects;
            return if self.complete { Ok(true) } else { Err("it ends early".to_owned()) };
        }
        if number != self.next || found != Some(content(guid, number).to_le_bytes().to_vec()) {
            return Err(format!("object {number} where {} is due", self.next));
        }
        self.next += 1;
        Ok(true)
    }

    fn begin(&mut self, token: Option<(u64, u32)>) -> Result<bool, String> {
        let Some(begin) = self.unparsed.get(..BEGIN_BYTES) else { return Ok(false) };
        let begin = begin.to_vec();
        let word = |at| u32_at(&begin, at).expect("it is long enough");
        let guid = u64::from(word(8)) | u64::from(word(12)) << 32;
        let (first, objects) = (word(16), word(20));
        let due = token.map_or(0, |(_, objects)| objects);
        if word(0) != MAGIC || first != due || token.is_some_and(|(of, _)| of != guid) {
            return Err(format!("a stream from object {first} of {guid:x} where {token:?} is"));
        }
        self.crc.update(&begin);
        self.unparsed.drain(..BEGIN_BYTES);
        self.begun = Some((guid, objects));
        (self.first, self.next) = (first, first);
        Ok(true)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

impl Environment {
    pub fn receive(&mut self) -> Option<u32> {
        let run = self.target.open()?;
        self.soon(5, Due::Target(Event::Consume(run)));
        Some(run)
    }

    /// Puts bytes into the pipe of a receive: as many as fit.
    pub fn feed(&mut self, run: u32, bytes: &[u8]) -> usize {
        let Some(receive) = self.target.running(run).filter(|receive| !receive.ending) else {
            return 0;
        };
        assert!(!receive.closed, "fed behind the end");
        let count = bytes.len().min(PIPE_BYTES - receive.pipe.len());
        receive.pipe.extend(&bytes[..count]);
        count
    }

    /// Ends the input of a receive.
    pub fn end_input(&mut self, run: u32) {
        if let Some(receive) = self.target.running(run) {
            receive.closed = true;
        }
    }

    pub fn target_event(&mut self, event: Event) {
        match event {
            Event::Consume(run) => self.consume(run),
            Event::Sync => {
                self.target.sync();
                self.soon(3000, Due::Target(Event::Sync));
            }
            Event::Space => self.target.full = false,
            Event::Gone(run) => self.gone(run),
        }
    }

    fn consume(&mut self, run: u32) {
        let share = self.random.between(1, PIPE_BYTES as u64);
        let token = self.target.token;
        let (full, is_orphaned) = (self.target.full, self.target.orphaned == Some(run));
        let Some(receive) = self.target.running(run).filter(|receive| !receive.ending) else {
            return;
        };
        let count = receive.pipe.len().min(usize::try_from(share).expect("a share"));
        receive.taken += count as u64;
        let front: Vec<u8> = receive.pipe.drain(..count).collect();
        receive.unparsed.extend(front);
        loop {
            match receive.parse(token) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if is_orphaned => {
                    receive.closed = true;
                    receive.pipe.clear();
                    break;
                }
                Err(what) => panic!("zfs receive: invalid stream: {what}"),
            }
        }
        if full || receive.closed && receive.pipe.is_empty() {
            receive.ending = true;
            let patience = self.random.pick(&[1, 50, 2000, 20_000]);
            self.soon(patience, Due::Target(Event::Gone(run)));
        } else {
            let wait = if self.random.chance(2) { 20_000 } else { 30 };
            self.soon(wait, Due::Target(Event::Consume(run)));
        }
        let life = self.lives[End::Server as usize];
        self.at(self.now, Due::Server { life, event: server::Event::Pipe });
    }

    fn gone(&mut self, run: u32) {
        if self.target.running(run).is_none() {
            return;
        }
        self.target.sync();
        let Some(receive) = self.target.receive.take() else { return };
        let success = receive.complete && receive.closed && !self.target.full;
        if success {
            self.target.holds = receive.begun.map(|(guid, _)| guid);
            self.target.token = None;
        }
        let token = self.target.token;
        self.say(|| format!("zfs receive {run} ended, success: {success}, token: {token:?}"));
        let life = self.lives[End::Server as usize];
        let event = server::Event::ReceiveEnded { run, success };
        self.after(Duration::ZERO, Due::Server { life, event });
    }
}
