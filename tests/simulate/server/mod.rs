//! The server: a resident process with a session for each client that said hello.
//!
//! As thin as the program's own loops. One dataset, which one session receives at a time.

mod receiving;
mod restoring;
mod session;
mod tree;

use zferry::dataset::{Guid, Kind};
use zferry::error::{Class, Failure, Side};
use zferry::listing::{Snapshot, TargetState};
use zferry::protocol::message::Message;
use zferry::protocol::receiver::Input;
use zferry::protocol::standing::Return;

use self::session::{Session, Standing};
use super::environment::{End, Environment, Event as Due};
use super::line::Link;
use super::met::Met;
use super::network::Purpose;
use super::target::token_text;
use zferry::units::Sequence;

#[derive(Clone, Debug)]
pub enum Event {
    Beat {
        session: u32,
        connection: u32,
    },
    /// The answer to a listing is there, if nobody is in its way.
    LookUp {
        session: u32,
    },
    /// The receive is to be started, if all lanes are there.
    Prepare {
        session: u32,
    },
    /// A receive is to be fed anew from breakpoint files.
    Refeed {
        session: u32,
    },
    /// A block was looked at.
    Proved {
        session: u32,
        sequence: Sequence,
        connection: u32,
        right: bool,
    },
    Tick {
        session: u32,
    },
    /// A client that is away was waited for.
    Late {
        session: u32,
    },
    /// The pipe of a receive has moved.
    Pipe,
    ReceiveEnded {
        run: u32,
        success: bool,
    },
    /// A partial state is to be given up, if it is still the one that was listed.
    Abort {
        session: u32,
        token: (u64, u32),
    },
    /// A receive that ended well: the target is read back.
    ReadBack {
        session: u32,
    },
}

#[derive(Debug)]
pub struct Server {
    life: u32,
    sessions: Vec<Session>,
    next: u32,
    /// Connections that have yet to say which session they go on with.
    returning: Vec<(u32, Link)>,
}

impl Server {
    pub fn start(env: &mut Environment) -> Server {
        let life = env.lives[End::Server as usize];
        let restored = env.settings.always[End::Server as usize]
            .then(|| Session::restore(life, 0, env))
            .flatten();
        let sessions = restored.into_iter().collect();
        Server { life, sessions, next: 1, returning: Vec::new() }
    }

    /// Whether there is no session.
    pub fn is_at_rest(&self) -> bool {
        self.sessions.is_empty()
    }

    /// A connection is there.
    pub fn accept(&mut self, id: u32, env: &mut Environment) {
        let purpose = env.network.purpose(id);
        let secret = match purpose {
            Purpose::Control => {
                let session = Session::open(self.life, self.next, id, env);
                self.next += 1;
                self.sessions.push(session);
                return;
            }
            Purpose::ControlAgain(secret) | Purpose::Lane(secret, _) => secret,
        };
        let Some(session) = self.sessions.iter_mut().find(|session| session.secret == secret)
        else {
            if matches!(purpose, Purpose::ControlAgain(_)) {
                let mut link = Link::new(End::Server, id, env.now);
                link.send(&Message::Refused(unknown()), env);
            }
            return env.close(End::Server, id);
        };
        if let Purpose::Lane(_, lane) = purpose {
            session.join(lane, id, env);
        } else {
            let link = Link::new(End::Server, id, env.now);
            self.returning.push((session.number, link));
        }
        self.settle(env);
    }

    pub fn arrive(&mut self, id: u32, bytes: &[u8], env: &mut Environment) {
        let mut rest = bytes;
        if let Some(at) = self.returning.iter().position(|(_, link)| link.id == id) {
            let (session, mut link) = self.returning.remove(at);
            match link.take(&mut rest, env) {
                Ok(None) => self.returning.push((session, link)),
                Ok(Some(Message::Return(client))) => self.take_back(session, link, client, env),
                Ok(Some(other)) => panic!("{} where a client was to return", other.name()),
                Err(_) => env.close(End::Server, id),
            }
        }
        for session in &mut self.sessions {
            session.arrive(id, rest, env);
        }
        self.settle(env);
    }

    fn take_back(&mut self, session: u32, link: Link, client: Return, env: &mut Environment) {
        match self.sessions.iter_mut().find(|other| other.number == session) {
            Some(session) => session.take_back(link, client, env),
            None => env.close(End::Server, link.id),
        }
    }

    pub fn ended(&mut self, id: u32, env: &mut Environment) {
        self.returning.retain(|(_, link)| link.id != id);
        for session in &mut self.sessions {
            session.ended(id, env);
        }
        self.settle(env);
    }

    pub fn written(&mut self, id: u64, well: bool, env: &mut Environment) {
        for session in &mut self.sessions {
            session.written(id, well, env);
        }
        self.settle(env);
    }

    pub fn happen(&mut self, event: Event, env: &mut Environment) {
        match event {
            Event::LookUp { session } => self.look_up(session, env),
            Event::Prepare { session } => self.prepare(session, env),
            Event::Abort { session, token } => self.abort(session, token, env),
            Event::Pipe => self.sessions.iter_mut().for_each(|session| session.feed(env)),
            Event::ReceiveEnded { run, success } => {
                for session in &mut self.sessions {
                    session.receive_ended(run, success, env);
                }
            }
            other => {
                for session in &mut self.sessions {
                    session.happen(&other, env);
                }
            }
        }
        self.settle(env);
    }

    fn settle(&mut self, env: &mut Environment) {
        for session in &mut self.sessions {
            session.settle(env);
            session.check(env);
        }
        self.sessions.retain(|session| session.standing != Standing::Over);
    }

    fn session(&mut self, number: u32) -> Option<&mut Session> {
        let is_it = |session: &&mut Session| session.number == number;
        self.sessions.iter_mut().find(is_it).filter(|session| session.standing == Standing::Open)
    }

    /// Lists the target, once nobody receives into it any more.
    fn look_up(&mut self, number: u32, env: &mut Environment) {
        match self.free(number, env) {
            Some(Ok(())) => {
                let target = listing(env);
                if let Some(session) = self.session(number) {
                    session.found(target, env);
                }
            }
            Some(Err(failure)) => match self.session(number) {
                // What is being received is in nobody's way until its own stream is to begin.
                Some(session) if session.tree => session.found(listing(env), env),
                Some(session) => session.give_up(failure, env),
                None => {}
            },
            None => {
                let event = Event::LookUp { session: number };
                env.soon(40, Due::Server { life: self.life, event });
            }
        }
    }

    /// Whether the dataset is nobody else's; one whose client is away makes room, which takes a
    /// while.
    fn free(&mut self, number: u32, env: &mut Environment) -> Option<Result<(), Failure>> {
        let mut others = self.sessions.iter_mut().filter(|one| one.number != number);
        let Some(other) = others.find(|one| one.has_claim()) else { return Some(Ok(())) };
        if other.standing == Standing::Open && !other.is_away() {
            env.met(Met::Busy);
            let failure = Failure::new(Side::Target, Class::Busy, "it is being received already");
            return Some(Err(failure));
        }
        other.make_room(env);
        None
    }

    fn abort(&mut self, number: u32, token: (u64, u32), env: &mut Environment) {
        let claimed = self.sessions.iter().any(|one| one.number != number && one.has_claim());
        let changed = env.target.token != Some(token);
        let Some(session) = self.session(number) else { return };
        if claimed || changed {
            let what = "what an interrupted receive left has changed";
            return session.give_up(Failure::new(Side::Target, Class::Interrupted, what), env);
        }
        env.target.abort();
        session.tell(Input::Aborted, env);
    }

    fn prepare(&mut self, number: u32, env: &mut Environment) {
        let claimed = self.sessions.iter().any(|one| one.number != number && one.has_claim());
        let Some(session) = self.session(number) else { return };
        if claimed {
            let failure = Failure::new(Side::Target, Class::Busy, "it is being received already");
            return session.give_up(failure, env);
        }
        session.prepare(env);
    }
}

/// What the pool says of the dataset.
fn listing(env: &Environment) -> TargetState {
    let snapshot =
        |guid| Snapshot { name: "daily".parse().expect("a name"), guid: Guid(guid), createtxg: 1 };
    if env.target.holds.is_none() && env.target.token.is_none() {
        return TargetState::Absent;
    }
    TargetState::Present {
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: env.target.holds.into_iter().map(snapshot).collect(),
        resume_token: env.target.token.map(token_text),
    }
}

fn unknown() -> Failure {
    Failure::new(Side::Target, Class::Interrupted, "no such session")
}
