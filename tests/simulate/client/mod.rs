//! The client: a process that tries until the target holds the snapshot, or its patience ends.
//!
//! As thin as the program's own loops: the machine, the journal, the window, the keeper and the
//! decision are the real ones.

mod carrying;
mod session;
mod taking_over;

use std::time::Instant;

use zferry::client::retry::{Attempts, Next};
use zferry::error::{Class, Failure, Side};

use self::session::Session;
use super::environment::{End, Environment, Event as Due};

#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Begin a session.
    Begin,
    /// Look whether the control connection lives.
    Beat(u32),
    /// The next bytes of `zfs send` are there.
    Read {
        session: u32,
    },
    /// A data connection can take another frame.
    Free {
        connection: u32,
    },
    /// Try to make a data connection, or the control connection, again.
    DialLane {
        session: u32,
        lane: u16,
    },
    DialControl {
        session: u32,
    },
    /// A connection said nothing.
    Late {
        connection: u32,
    },
    Tick {
        session: u32,
    },
    /// The reason of a lost data connection did not come.
    NoReason {
        session: u32,
    },
}

/// What a session came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The target holds the snapshot.
    Done,
    Failed(Failure),
    /// Nothing goes on where the process before this one died: it begins as ever.
    NotTakenOver,
}

#[derive(Debug)]
pub struct Client {
    life: u32,
    sessions: u32,
    session: Option<Session>,
    /// Whether it is worth to try again, as the program decides it.
    attempts: Attempts,
    /// The server can be reached.
    connected: bool,
    /// When the target took something last.
    moved: Option<Instant>,
    /// The most objects that it was listed to keep, and when that was seen.
    kept: (u32, Option<Instant>),
    /// How the process ended.
    pub exit: Option<Outcome>,
}

impl Client {
    pub fn start(env: &mut Environment) -> Client {
        let life = env.lives[End::Client as usize];
        let attempts = Attempts::new(env.settings.retry_for, env.random.next(), env.instant());
        let mut client = Client {
            life,
            sessions: 0,
            session: None,
            attempts,
            connected: false,
            moved: None,
            kept: (0, None),
            exit: None,
        };
        let follows = env.settings.always[End::Client as usize];
        client.session = follows.then(|| Session::take_over(life, 0, env)).flatten();
        if client.session.is_none() {
            client.begin(env);
        }
        client
    }

    fn begin(&mut self, env: &mut Environment) {
        self.sessions += 1;
        self.session = Some(Session::open(self.life, self.sessions, env));
    }

    pub fn happen(&mut self, event: Event, env: &mut Environment) {
        if self.exit.is_some() {
            return;
        }
        if matches!(event, Event::Begin) {
            self.begin(env);
        } else if let Some(session) = &mut self.session {
            session.happen(event, env);
        }
        self.settle(env);
    }

    pub fn arrive(&mut self, id: u32, bytes: &[u8], env: &mut Environment) {
        if let Some(session) = &mut self.session {
            session.arrive(id, bytes, env);
        }
        self.settle(env);
    }

    pub fn ended(&mut self, id: u32, env: &mut Environment) {
        if let Some(session) = &mut self.session {
            session.ended(id, env);
        }
        self.settle(env);
    }

    pub fn written(&mut self, id: u64, well: bool, env: &mut Environment) {
        if let Some(session) = &mut self.session {
            session.written(id, well, env);
        }
        self.settle(env);
    }

    /// Looks whether the session has come to an end, and whether to try again.
    fn settle(&mut self, env: &mut Environment) {
        let Some(session) = &mut self.session else { return };
        session.check(env);
        let now = env.instant();
        if session.moved() {
            self.moved = Some(now);
        }
        if session.kept > self.kept.0 {
            self.kept = (session.kept, Some(now));
        }
        self.connected |= session.is_connected();
        let Some(outcome) = session.outcome.take() else { return };
        session.part(env);
        self.session = None;
        env.say(|| format!("session of the client: {outcome:?}"));
        match outcome {
            Outcome::Done => {
                let holds = env.target.holds == Some(env.source.guid);
                assert!(holds, "a success, and the target lacks the snapshot");
                env.source.held = false;
                self.exit = Some(Outcome::Done);
            }
            Outcome::Failed(failure) => self.try_again(failure, env),
            Outcome::NotTakenOver => self.begin(env),
        }
    }

    fn try_again(&mut self, failure: Failure, env: &mut Environment) {
        let Failure { class, what, .. } = &failure;
        assert!(
            !matches!(class, Class::Peer | Class::Internal),
            "an honest end was blamed: {what}"
        );
        self.attempts.moved(self.moved.take(), self.kept.1);
        match self.attempts.after(&failure, env.instant()) {
            Next::Again { wait, .. } if self.connected => {
                env.after(wait, Due::Client { life: self.life, event: Event::Begin });
            }
            _ => self.exit = Some(Outcome::Failed(failure)),
        }
    }
}

pub fn interrupted(what: &str) -> Failure {
    Failure::new(Side::Network, Class::Interrupted, what)
}
