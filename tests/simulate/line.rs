//! The control connection of one end: the journal and the signs of life of the real program,
//! over connections that follow each other.

use std::time::Duration;

use zferry::link::{PING_EVERY, SILENCE_MAX};
use zferry::protocol::envelope::{Decoder, encode};
use zferry::protocol::journal::Journal;
use zferry::protocol::liveness::{Action, Liveness, Settings};
use zferry::protocol::message::Message;
use zferry::protocol::standing::{Return, Returned, Standing};

use super::breakage::Breakage;
use super::environment::{End, Environment};

/// More than either end ever says before it is answered.
const UNCONFIRMED_MAX: usize = 12;

#[derive(Debug)]
pub struct Line {
    end: End,
    journal: Journal,
    link: Option<Link>,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    pub id: u32,
    end: End,
    decoder: Decoder,
    liveness: Liveness,
}

/// Why a connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What a connection is to do next.
pub enum Beat {
    Ping,
    Dead,
    WaitUntil(Duration),
}

impl Link {
    pub fn new(end: End, id: u32, now: Duration) -> Link {
        let settings = Settings::new(PING_EVERY, SILENCE_MAX).expect("the program's own");
        Link { id, end, decoder: Decoder::default(), liveness: Liveness::new(settings, now) }
    }

    pub fn send(&mut self, message: &Message, env: &mut Environment) {
        env.say(|| format!("{:?} says {} over {}", self.end, message.name(), self.id));
        env.write(self.end, self.id, encode(message));
        self.liveness.sent(env.now);
    }

    /// The next message in the bytes that came.
    pub fn take(&mut self, rest: &mut &[u8], env: &Environment) -> Result<Option<Message>, Lost> {
        self.liveness.heard(env.now);
        self.decoder.take(rest).map_err(|error| {
            assert!(env.network.flipped, "bytes that nobody flipped: {error}");
            Lost
        })
    }

    pub fn beat(&self, now: Duration) -> Beat {
        match self.liveness.next(now) {
            Action::Ping => Beat::Ping,
            Action::Dead { .. } => Beat::Dead,
            Action::WaitUntil(then) => Beat::WaitUntil(then),
        }
    }
}

impl Line {
    pub fn new(link: Link) -> Line {
        Line { end: link.end, journal: Journal::default(), link: Some(link) }
    }

    /// A conversation that another process led.
    pub fn restored(end: End) -> Line {
        Line { end, journal: Journal::unknowing(), link: None }
    }

    pub fn say(&mut self, message: &Message, env: &mut Environment) {
        self.journal.say(message);
        let unconfirmed = self.journal.unconfirmed().count();
        assert!(unconfirmed <= UNCONFIRMED_MAX, "{:?} remembers {unconfirmed}", self.end);
        if let Some(link) = &mut self.link {
            link.send(message, env);
        }
    }

    pub fn ping(&mut self, env: &mut Environment) {
        let heard = self.journal.heard();
        self.say(&Message::Ping { heard }, env);
    }

    /// The next message in the bytes that came; pings are dealt with here.
    pub fn take(&mut self, rest: &mut &[u8], env: &Environment) -> Result<Option<Message>, Lost> {
        loop {
            let Some(link) = &mut self.link else { return Ok(None) };
            match link.take(rest, env)? {
                Some(Message::Ping { heard }) => self.journal.confirm(heard).expect("honest"),
                Some(message) => {
                    self.journal.hear(&message);
                    return Ok(Some(message));
                }
                None => return Ok(None),
            }
        }
    }

    pub fn id(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.id)
    }

    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub fn is_heard(&self) -> bool {
        self.journal.unconfirmed().next().is_none()
    }

    pub fn returning(&self) -> Return {
        self.journal.returning()
    }

    pub fn accept(&mut self, server: &Returned, env: &Environment) {
        let heard = counted(server.heard, env);
        self.journal.accept(&Returned { heard, ..server.clone() }).expect("an honest end");
    }

    pub fn answer(
        &mut self,
        client: Return,
        stand: impl FnOnce() -> Option<Standing>,
        env: &Environment,
    ) -> Option<Returned> {
        let heard = counted(client.heard, env);
        self.journal.answer(Return { heard, ..client }, stand).expect("an honest end counts right")
    }

    /// Gives the connection up.
    pub fn cut(&mut self, env: &mut Environment) {
        if let Some(link) = self.link.take() {
            env.close(self.end, link.id);
        }
    }

    /// Goes on over another connection, where both know what the other has heard.
    pub fn go_on(&mut self, mut link: Link, env: &mut Environment) {
        self.cut(env);
        for message in self.journal.unconfirmed() {
            link.send(message, env);
        }
        self.link = Some(link);
    }
}

/// What the other end is taken to have heard.
fn counted(heard: u64, env: &Environment) -> u64 {
    if env.is_broken(Breakage::ReplayFromWrongCount) { heard.saturating_sub(1) } else { heard }
}
