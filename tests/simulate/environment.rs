//! What both hosts stand in: the clock, what is due, chance, the network, the pools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use zferry::breakpoint::decision::DeadTokenPolicy;

use super::breakage::Breakage;
use super::disk::Disk;
use super::met::Met;
use super::network::Network;
use super::random::Random;
use super::source::Source;
use super::target::Target;
use super::truth::Truth;
use super::{client, server, target};

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Client,
    Server,
}

impl End {
    pub fn other(self) -> End {
        match self {
            End::Client => End::Server,
            End::Server => End::Client,
        }
    }
}

/// Something that happens at one moment.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection reaches the server.
    Connect(u32),
    /// Bytes of a connection reach an end.
    Arrive {
        to: End,
        id: u32,
    },
    /// An end learns that a connection is gone.
    Ended {
        to: End,
        id: u32,
    },
    /// Of a process: nothing, once that has died.
    Client {
        life: u32,
        event: client::Event,
    },
    Server {
        life: u32,
        event: server::Event,
    },
    Target(target::Event),
    /// A write to a disk has ended, unless the host lost its power.
    Written {
        of: End,
        id: u64,
    },
    /// The process is started.
    Boot(End),
}

/// What a run is like, drawn from its seed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub lanes: u16,
    /// Frames that the client can keep.
    pub client_slots: usize,
    /// Blocks that the server has room for.
    pub server_blocks: u64,
    pub block_bytes: u64,
    pub grace: Duration,
    pub retry_for: Duration,
    pub dead_token: DeadTokenPolicy,
    /// How many pages the client hears of the tree whose root it copies; 0 where it asks for that
    /// dataset alone.
    pub tree_pages: u64,
    /// Whether this side writes what passes to breakpoint files.
    pub spooled: [bool; 2],
    /// Whether it keeps all of the stream there, for a process that takes over.
    pub always: [bool; 2],
}

pub struct Environment {
    pub now: Duration,
    pub random: Random,
    pub settings: Settings,
    pub network: Network,
    pub source: Source,
    pub target: Target,
    pub disks: [Disk; 2],
    pub truth: Truth,
    pub broken: Option<Breakage>,
    /// The process that runs on each host; counted so that its timers die with it.
    pub lives: [u32; 2],
    due: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    trace: bool,
    /// What the clock of the program showed when the run began; only what passes since matters.
    begun: Instant,
    /// What this run came by.
    pub met: BTreeSet<Met>,
}

impl Environment {
    pub fn new(mut random: Random, broken: Option<Breakage>, trace: bool) -> Environment {
        let all = matches!(broken, Some(Breakage::KeeperOfAll(_)));
        let mut settings = Settings {
            lanes: u16::try_from(random.between(1, 4)).expect("a few"),
            client_slots: 2 + random.index(8),
            server_blocks: random.between(1, 6),
            block_bytes: random.pick(&[40, 200, 700, 2000]),
            grace: random.pick(&[5, 60, 600].map(Duration::from_secs)),
            retry_for: random.pick(&[0, 30, 3600].map(Duration::from_secs)),
            dead_token: random.pick(&[DeadTokenPolicy::Ask, DeadTokenPolicy::AbortAndRestart]),
            tree_pages: 0,
            spooled: [all || random.chance(60), all || random.chance(60)],
            always: [false; 2],
        };
        // A client writes all that passes to its files either way.
        settings.always = settings.spooled.map(|spooled| spooled && (all || random.chance(60)));
        let resumable = random.chance(70);
        let source = Source::new(&mut random);
        let network = Network::new(&mut random);
        Environment {
            now: Duration::ZERO,
            settings,
            network,
            source,
            target: Target::new(resumable),
            disks: [Disk::default(), Disk::default()],
            truth: Truth::default(),
            broken,
            lives: [0; 2],
            due: BTreeMap::new(),
            scheduled: 0,
            random,
            trace,
            begun: Instant::now(),
            met: BTreeSet::new(),
        }
    }

    pub fn at(&mut self, when: Duration, event: Event) {
        self.scheduled += 1;
        self.due.insert((when.max(self.now), self.scheduled), event);
    }

    /// After up to so many milliseconds.
    pub fn soon(&mut self, millis: u64, event: Event) {
        let when = self.now + self.random.millis(millis);
        self.at(when, event);
    }

    pub fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// The next thing to happen; the clock is moved on to it.
    pub fn next(&mut self) -> Option<Event> {
        let ((now, _), event) = self.due.pop_first()?;
        self.now = now;
        Some(event)
    }

    /// The moment as the program's clock has it.
    pub fn instant(&self) -> Instant {
        self.begun + self.now
    }

    /// Something happened that runs are there for.
    pub fn met(&mut self, what: Met) {
        self.met.insert(what);
    }

    pub fn is_broken(&self, rule: Breakage) -> bool {
        self.broken == Some(rule)
    }

    /// For whoever repeats one seed.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", self.now.as_secs_f64(), what());
        }
    }

    pub fn disk(&mut self, of: End) -> &mut Disk {
        &mut self.disks[of as usize]
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}, {:?}", self.now, self.settings)
    }
}
