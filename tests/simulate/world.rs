//! One run: two hosts, a network, two pools, and faults; every step is judged.

use std::collections::BTreeSet;
use std::time::Duration;

use zferry::error::Class;

use super::aftermath::{highest, inspect};
use super::breakage::Breakage;
use super::client::{Client, Outcome};
use super::environment::{End, Environment, Event};
use super::faults::{Fault, Faults};
use super::met::Met;
use super::random::Random;
use super::server::Server;
use super::target;

/// How long after the last fault the copy may take.
const DEADLINE: Duration = Duration::from_secs(4 * 3600);

/// More steps than any run needs: beyond it something spins.
const STEPS_MAX: u64 = 400_000;

pub struct World {
    env: Environment,
    client: Option<Client>,
    server: Option<Server>,
    faults: Faults,
    last_fault: Duration,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub steps: u64,
    pub took: Duration,
    pub done: bool,
    /// What was drawn at the end: the same in the same history.
    pub dice: u64,
    /// What it came by.
    pub met: BTreeSet<Met>,
}

/// Runs a seed to its end. Panics with what went wrong.
pub fn run(seed: u64, broken: Option<Breakage>, trace: bool) -> Summary {
    let mut random = Random::new(seed);
    let faults = Faults::draw(&mut random);
    let mut env = Environment::new(random, broken, trace);
    env.settings.tree_pages = tree_pages(seed);
    env.say(|| format!("{env:?}\n{faults:?}"));
    let last_fault = Duration::ZERO;
    let mut world = World { env, client: None, server: None, faults, last_fault };
    world.play()
}

/// How many pages of a tree are listed. Drawn by dice of its own, which spare the seeds that found
/// something before there were trees: they play as they did.
fn tree_pages(seed: u64) -> u64 {
    let mut random = Random::new(seed ^ 3);
    if random.chance(40) { random.pick(&[1, 1, 1, 3]) } else { 0 }
}

impl World {
    fn play(&mut self) -> Summary {
        self.env.at(Duration::ZERO, Event::Boot(End::Server));
        self.env.at(Duration::ZERO, Event::Boot(End::Client));
        self.env.at(Duration::ZERO, Event::Target(target::Event::Sync));
        let mut done = None;
        for step in 0..STEPS_MAX {
            while let Some(fault) = self.faults.after(step) {
                self.last_fault = self.env.now;
                self.fault(fault);
            }
            let late = self.env.now > self.last_fault + DEADLINE;
            assert!(!late || !self.faults.are_over(), "no end is in sight");
            let event = self.env.next().expect("a pool has always something to do");
            self.happen(event);
            self.check();
            done = done.or_else(|| self.outcome());
            let at_rest = self.server.as_ref().is_some_and(Server::is_at_rest);
            if let Some(done) = done
                && at_rest
                && self.env.target.is_at_rest()
            {
                let dice = self.env.random.next();
                let met = std::mem::take(&mut self.env.met);
                return Summary { steps: step, took: self.env.now, done, dice, met };
            }
        }
        panic!("no end after {STEPS_MAX} steps");
    }

    fn happen(&mut self, event: Event) {
        let env = &mut self.env;
        match event {
            Event::Connect(id) => match &mut self.server {
                Some(server) => server.accept(id, env),
                None => env.close(End::Server, id),
            },
            Event::Arrive { to, id } => {
                let Some(bytes) = env.read(to, id) else { return };
                match (to, &mut self.client, &mut self.server) {
                    (End::Client, Some(client), _) => client.arrive(id, &bytes, env),
                    (End::Server, _, Some(server)) => server.arrive(id, &bytes, env),
                    _ => {}
                }
            }
            Event::Ended { to, id } => match (to, &mut self.client, &mut self.server) {
                (End::Client, Some(client), _) => client.ended(id, env),
                (End::Server, _, Some(server)) => server.ended(id, env),
                _ => {}
            },
            Event::Client { life, event } => {
                if let Some(client) = &mut self.client
                    && life == env.lives[End::Client as usize]
                {
                    client.happen(event, env);
                }
            }
            Event::Server { life, event } => {
                if let Some(server) = &mut self.server
                    && life == env.lives[End::Server as usize]
                {
                    server.happen(event, env);
                }
            }
            Event::Target(event) => env.target_event(event),
            Event::Written { of, id } => {
                let Some(well) = env.disk(of).end(id) else { return };
                match (of, &mut self.client, &mut self.server) {
                    (End::Client, Some(client), _) => client.written(id, well, env),
                    (End::Server, _, Some(server)) => server.written(id, well, env),
                    // Nobody was told.
                    _ => return,
                }
                // Even where the session that wrote is over.
                env.truth.retired[of as usize] |= !well;
            }
            Event::Boot(end) => self.boot(end),
        }
    }

    /// What must hold after every step, beside what each part says of itself.
    fn check(&self) {
        let Environment { source, target, truth, .. } = &self.env;
        let safe = source.held || !source.exists || target.holds == Some(source.guid);
        assert!(safe || !truth.has_begun(), "a stream has begun, and nothing holds its snapshot");
    }

    /// Starts the process, unless it runs; what it finds is judged.
    fn boot(&mut self, end: End) {
        let env = &mut self.env;
        let runs = match end {
            End::Client => self.client.is_some(),
            End::Server => self.server.is_some(),
        };
        if runs {
            return;
        }
        inspect(end, env);
        match end {
            End::Client => self.client = Some(Client::start(env)),
            End::Server => self.server = Some(Server::start(env)),
        }
    }

    /// How the copy has ended, if it has. A client that may be run again is.
    fn outcome(&mut self) -> Option<bool> {
        let exit = self.client.as_ref()?.exit.clone()?;
        let env = &mut self.env;
        match exit {
            Outcome::Done => {
                assert!(!env.source.held, "a hold was left");
                Some(true)
            }
            Outcome::Failed(failure) if failure.class == Class::Refused => {
                assert!(!env.source.exists, "gave up, and the snapshot is there: {failure}");
                Some(false)
            }
            Outcome::Failed(_) | Outcome::NotTakenOver => {
                // It waits for its writes before it goes.
                let well = env.disk(End::Client).settle();
                env.truth.retired[End::Client as usize] |= !well;
                self.client = None;
                env.lives[End::Client as usize] += 1;
                env.soon(60_000, Event::Boot(End::Client));
                None
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        let env = &mut self.env;
        env.say(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::CutOne => env.cut_one(),
            Fault::CutAll => env.cut_all(),
            Fault::Stall => env.stall_one(),
            Fault::Outage => env.outage(),
            Fault::Flip => env.flip(),
            Fault::Kill(end) => self.kill(end, false),
            Fault::Power(end) => self.kill(end, true),
            Fault::PoolFull => {
                env.target.full = true;
                env.soon(60_000, Event::Target(target::Event::Space));
            }
            Fault::SendFails => env.source.fails_at = Some(env.random.below(101)),
            Fault::Destroy => (env.source.exists, env.source.held) = (false, false),
            Fault::Disk(end, fate) => env.disk(end).fate = fate,
        }
    }

    /// A process dies, or its host with it. It is started again after a while.
    fn kill(&mut self, end: End, with_host: bool) {
        let env = &mut self.env;
        match end {
            End::Client if self.client.as_ref().is_some_and(|client| client.exit.is_some()) => {
                return;
            }
            End::Client => self.client = None,
            End::Server => self.server = None,
        }
        env.lives[end as usize] += 1;
        env.leave(end, with_host);
        if with_host {
            let (disks, random) = (&mut env.disks, &mut env.random);
            disks[end as usize].crash(random);
        } else {
            // Nobody is there to be told of an error.
            let _failed = env.disk(end).settle();
        }
        if !env.disk(end).lied {
            env.truth.sequences[end as usize] = highest(end, env);
        }
        match end {
            End::Client => {}
            End::Server if with_host => env.target.crash(),
            End::Server => env.target.lose_input(),
        }
        inspect(end, env);
        let pause = env.random.pick(&[10, 3000, 60_000]);
        env.soon(pause, Event::Boot(end));
    }
}
