//! One client's session at the server: its machine, its line, and whether the client is there.

use std::collections::BTreeSet;
use std::time::Duration;

use zferry::breakpoint::identity::SessionId;
use zferry::error::{Class, Failure, Side};
use zferry::listing::TargetState;
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{Limits, Message, Open};
use zferry::protocol::receiver::{Input, Offer, Output, Receiver};
use zferry::protocol::secret::JoinSecret;
use zferry::protocol::standing::Return;
use zferry::protocol::version::Version;
use zferry::protocol::window::{Arrived, Receipt, ReceiveWindow};
use zferry::units::{Bytes, Sequence};

use super::Event;
use super::receiving::{Block, Intake, Transfer};
use super::tree::tree_of;
use crate::breakage::Breakage;
use crate::environment::{End, Environment, Event as Due};
use crate::line::{Beat, Line, Link};
use crate::met::Met;
use crate::recorder::session_id;
use crate::target::token_of;

pub(super) const ME: End = End::Server;

/// How long a result waits for a client that has not heard it.
const RESULT_GRACE: Duration = Duration::from_secs(30);

/// How often the client hears how far a transfer is.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(200);

/// How far a session is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Open,
    /// Its receive has yet to end.
    Ending,
    Over,
}

#[derive(Debug)]
pub struct Session {
    pub life: u32,
    pub number: u32,
    pub secret: JoinSecret,
    pub standing: Standing,
    pub(super) machine: Option<Receiver>,
    pub(super) line: Line,
    pub(super) back_until: Option<Duration>,
    pub(super) lanes: Vec<Option<Intake>>,
    pub(super) window: ReceiveWindow<Block>,
    /// What proved corrupt.
    pub(super) rejected: BTreeSet<Sequence>,
    /// What is asked for, until its receive has been started.
    pub(super) preparing: Option<Open>,
    pub(super) transfer: Option<Transfer>,
    pub(super) failure: Option<Failure>,
    pub(super) applied: bool,
    pub(super) looking_up: bool,
    /// What is looked up is a tree.
    pub(super) tree: bool,
    /// The token that the client was told.
    pub(super) listed: Option<(u64, u32)>,
}

impl Session {
    pub fn open(life: u32, number: u32, id: u32, env: &mut Environment) -> Session {
        let secret = JoinSecret::new(env.random.bytes());
        let limits = Limits {
            block_bytes_max: Bytes(1 << 14),
            connections: 8,
            codecs: [Codec::Raw, Codec::Zstd].into(),
        };
        let software = "server".to_owned();
        let offer = Offer { software, version: Version::V1, limits, secret };
        let session = Session {
            life,
            number,
            secret,
            standing: Standing::Open,
            machine: Some(Receiver::new(offer)),
            line: Line::new(Link::new(ME, id, env.now)),
            back_until: None,
            lanes: Vec::new(),
            window: ReceiveWindow::new(env.settings.server_blocks),
            rejected: BTreeSet::new(),
            preparing: None,
            transfer: None,
            failure: None,
            applied: false,
            looking_up: false,
            tree: false,
            listed: None,
        };
        env.after(Duration::ZERO, session.mine(Event::Beat { session: number, connection: id }));
        session
    }

    pub(super) fn mine(&self, event: Event) -> Due {
        Due::Server { life: self.life, event }
    }

    pub(super) fn id(&self) -> SessionId {
        session_id(self.secret)
    }

    /// Whether another process began it. Then a client that has not heard so yet goes by the room
    /// that it was given before.
    pub(super) fn was_restored(&self) -> bool {
        self.number == 0
    }

    pub fn is_away(&self) -> bool {
        self.back_until.is_some()
    }

    pub fn has_claim(&self) -> bool {
        self.transfer.is_some()
    }

    fn is_idle(&self) -> bool {
        self.transfer.is_none() && self.preparing.is_none()
    }

    pub fn happen(&mut self, event: &Event, env: &mut Environment) {
        let number = self.number;
        match *event {
            Event::Beat { session, connection } if session == number => {
                self.beat(connection, env);
            }
            Event::Proved { session, sequence, connection, right } if session == number => {
                self.proved(sequence, connection, right, env);
            }
            Event::Tick { session } if session == number => self.tick(env),
            Event::Refeed { session } if session == number => self.refeed(env),
            Event::Late { session } if session == number => self.late(env),
            Event::ReadBack { session } if session == number => self.read_back(env),
            _ => {}
        }
    }

    pub fn arrive(&mut self, id: u32, bytes: &[u8], env: &mut Environment) {
        let mut rest = bytes;
        while self.standing == Standing::Open && self.line.id() == Some(id) {
            match self.line.take(&mut rest, env) {
                Ok(Some(message)) => self.tell(Input::Received(message), env),
                Ok(None) => break,
                Err(_) => self.lose(env),
            }
        }
        self.take_in(id, bytes, env);
    }

    pub fn ended(&mut self, id: u32, env: &mut Environment) {
        if self.line.id() == Some(id) {
            self.lose(env);
        }
        self.lane_ended(id, env);
    }

    fn beat(&mut self, connection: u32, env: &mut Environment) {
        if self.line.id() != Some(connection) || self.standing != Standing::Open {
            return;
        }
        let again = self.mine(Event::Beat { session: self.number, connection });
        match self.line.link().map(|link| link.beat(env.now)) {
            Some(Beat::Dead) => self.lose(env),
            Some(Beat::Ping) => {
                self.line.ping(env);
                env.after(Duration::ZERO, again);
            }
            Some(Beat::WaitUntil(then)) => env.at(then, again),
            None => {}
        }
    }

    /// The control connection is gone; what is under way waits for the client.
    fn lose(&mut self, env: &mut Environment) {
        self.line.cut(env);
        let grace = env.settings.grace;
        if self.machine.is_none() || self.failure.is_some() {
            self.close(env);
        } else if !self.is_idle() {
            self.wait_for_client(grace, env);
        } else if self.applied && !self.line.is_heard() {
            self.wait_for_client(grace.min(RESULT_GRACE), env);
        } else {
            self.close(env);
        }
    }

    fn wait_for_client(&mut self, grace: Duration, env: &mut Environment) {
        self.back_until = Some(env.now + grace);
        env.after(grace, self.mine(Event::Late { session: self.number }));
    }

    /// The client is here again, perhaps before its old connection was missed.
    pub fn take_back(&mut self, mut link: Link, client: Return, env: &mut Environment) {
        if self.standing != Standing::Open {
            return env.close(ME, link.id);
        }
        if self.line.id().is_some() {
            env.met(Met::ReturnedUnmissed);
        }
        let stand = || self.machine.as_ref().and_then(Receiver::standing);
        let Some(returned) = self.line.answer(client, stand, env) else {
            link.send(&Message::Refused(interrupted("nothing goes on here")), env);
            return env.close(ME, link.id);
        };
        link.send(&Message::Returned(returned), env);
        let id = link.id;
        self.line.go_on(link, env);
        self.back_until = None;
        self.acknowledge(env);
        self.tell(Input::Returned, env);
        self.beat(id, env);
    }

    fn late(&mut self, env: &mut Environment) {
        if self.back_until.is_some_and(|until| until <= env.now) {
            self.make_room(env);
        }
    }

    /// Ends without a client that is away.
    pub fn make_room(&mut self, env: &mut Environment) {
        if self.back_until.take().is_none() {
            return;
        }
        if !self.is_idle() {
            env.met(Met::MadeRoom);
            self.give_up(interrupted("the client went away"), env);
        }
        self.close(env);
    }

    pub(super) fn tell(&mut self, input: Input, env: &mut Environment) {
        let Some(machine) = self.machine.take() else { return };
        let mut output = Vec::new();
        let next = machine.handle(input, &mut output);
        self.machine = Some(next.unwrap_or_else(|error| panic!("the client broke it: {error}")));
        for order in output {
            self.obey(order, env);
        }
    }

    fn obey(&mut self, order: Output, env: &mut Environment) {
        let number = self.number;
        match order {
            Output::Send(message) => self.line.say(&message, env),
            Output::Ready { agreed, .. } => {
                self.lanes = (0..agreed.limits.connections).map(|_| None).collect();
            }
            Output::LookUp(_) => {
                self.looking_up = true;
                env.soon(50, self.mine(Event::LookUp { session: number }));
            }
            Output::LookUpTree(_) => {
                (self.looking_up, self.tree) = (true, true);
                env.soon(50, self.mine(Event::LookUp { session: number }));
            }
            Output::Abort { token, .. } => {
                env.soon(50, self.mine(Event::Abort { session: number, token: token_of(&token) }));
            }
            Output::Prune(_) => panic!("no client of the simulator prunes"),
            Output::Prepare(open) => {
                self.preparing = Some(open);
                env.soon(50, self.mine(Event::Prepare { session: number }));
            }
            Output::Finish(ended) => self.finish(ended, env),
            Output::Abandon(failure) => {
                self.failure = Some(failure);
                self.stop(env);
            }
            Output::Close => self.close(env),
        }
    }

    pub fn found(&mut self, target: TargetState, env: &mut Environment) {
        if std::mem::take(&mut self.looking_up) {
            self.listed = env.target.token;
            let dataset = "backup/a".parse().expect("a name");
            let found = if std::mem::take(&mut self.tree) {
                Input::FoundTree(tree_of(dataset, target, env.settings.tree_pages))
            } else {
                Input::Found { dataset, target }
            };
            self.tell(found, env);
        }
    }

    /// Ends what runs for the client, and tells it why.
    pub fn give_up(&mut self, failure: Failure, env: &mut Environment) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(failure.clone());
        self.stop(env);
        self.tell(Input::Failed(failure), env);
    }

    fn close(&mut self, env: &mut Environment) {
        if self.standing == Standing::Open {
            self.line.cut(env);
            self.stop(env);
            for intake in self.lanes.iter_mut().filter_map(Option::take) {
                env.close(ME, intake.connection);
            }
            self.standing = Standing::Ending;
        }
    }

    pub fn settle(&mut self, env: &mut Environment) {
        if self.standing == Standing::Open {
            self.feed(env);
        }
        if self.standing == Standing::Ending && self.transfer.is_none() {
            self.standing = Standing::Over;
        }
    }

    fn tick(&mut self, env: &mut Environment) {
        if self.transfer.is_some() && self.standing == Standing::Open {
            self.acknowledge(env);
            self.tick_again(env);
        }
    }

    pub(super) fn tick_again(&mut self, env: &mut Environment) {
        if let Some(recorder) = self.transfer.as_mut().and_then(|t| t.recorder.as_mut()) {
            recorder.tick(env);
        }
        env.after(ACKNOWLEDGE_EVERY, self.mine(Event::Tick { session: self.number }));
    }

    /// What may be told to the client now.
    pub(super) fn tell_receipt(&mut self, env: &Environment) -> Receipt {
        let mut receipt = self.window.tell();
        if env.is_broken(Breakage::CreditBeyondRoom) {
            receipt.credit.room.0 += 2;
        }
        if env.is_broken(Breakage::ListRejected) {
            let listed = receipt.arrived.ranges().flat_map(|range| range.start.0..range.end.0);
            let rejected = self.rejected.iter().map(|number| number.0);
            let all: BTreeSet<u64> =
                listed.chain(rejected).filter(|&number| number >= receipt.credit.taken.0).collect();
            let singles = all.into_iter().map(|number| Sequence(number)..Sequence(number + 1));
            receipt.arrived = Arrived::of(singles);
        }
        self.assert_durable(receipt.credit.taken, env);
        receipt
    }

    pub(super) fn applied(&mut self, input: Input, env: &mut Environment) {
        self.acknowledge(env);
        self.transfer = None;
        self.applied = true;
        self.tell(input, env);
    }

    /// What must hold after every step.
    pub fn check(&self, env: &Environment) {
        let (occupied, room) = (self.window.occupied(), self.window.blocks());
        assert!(occupied <= room, "{occupied} blocks where there is room for {room}");
        assert!(self.lanes.len() <= usize::from(env.settings.lanes), "lanes without bound");
    }
}

pub(super) fn interrupted(what: &str) -> Failure {
    Failure::new(Side::Network, Class::Interrupted, what)
}
