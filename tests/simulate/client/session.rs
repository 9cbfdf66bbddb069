//! One session of the client: connect, list, decide, carry, part.

use std::collections::BTreeSet;
use std::time::Duration;

use zferry::breakpoint::decision::{
    Decision, Knowledge, Peer, Reach, Situation, Source, Target, Token, decide,
};
use zferry::dataset::Guid;
use zferry::error::{Class, Failure, Side};
use zferry::listing::{TargetDataset, TargetState, TargetTree};
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{Hello, Message, Request, Stream};
use zferry::protocol::misbehaved::PeerMisbehaved;
use zferry::protocol::secret::JoinSecret;
use zferry::protocol::sender::{Input, Output, Sender};
use zferry::protocol::standing::Returned;
use zferry::protocol::version::Versions;
use zferry::protocol::window::{Credit, Receipt, SendWindow};

use super::carrying::{Carrying, Frame};
use super::taking_over::Backlog;
use super::{Event, Outcome, interrupted};
use crate::aftermath;
use crate::breakage::Breakage;
use crate::environment::{End, Environment, Event as Due};
use crate::line::{Beat, Line, Link};
use crate::met::Met;
use crate::network::Purpose;
use crate::remains::Remains;
use crate::target::{token_of, token_text};
use crate::terms::{self, BLOCK_BYTES_MAX, target_name};

/// How long a connection may say nothing at its beginning.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

pub(super) const ME: End = End::Client;

#[derive(Debug)]
pub struct Session {
    pub(super) life: u32,
    pub(super) number: u32,
    pub(super) machine: Option<Sender>,
    line: Line,
    pub(super) secret: Option<JoinSecret>,
    /// A connection that is to replace the one that was lost.
    returning: Option<Link>,
    /// Since when there is no control connection.
    pub(super) lost_at: Option<Duration>,
    pub(super) lanes: Vec<Option<Lane>>,
    pub(super) window: SendWindow<Frame>,
    pub(super) carrying: Option<Carrying>,
    /// What a process that died has left, until the server was asked.
    pub(super) remains: Option<Remains>,
    pub(super) backlog: Backlog,
    /// What the server has taken, and how far it lets this end go.
    pub(super) credit: Credit,
    /// A stream was asked for: the session is worth its connections.
    pub(super) asked: bool,
    /// How many objects the target was listed to keep.
    pub kept: u32,
    /// Lanes that are made again once the server can be reached.
    pub(super) missing: BTreeSet<u16>,
    /// The control connection was lost because nothing was heard.
    lost_in_silence: bool,
    /// With which object the stream is to begin.
    first_object: u32,
    moved: bool,
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub connection: u32,
    pub busy: bool,
}

impl Session {
    pub fn open(life: u32, number: u32, env: &mut Environment) -> Session {
        let hello = Hello { software: "client".to_owned(), limits: terms::limits(env) };
        let id = env.dial(Purpose::Control);
        let mut output = Vec::new();
        let machine = Some(Sender::start(Versions::OURS, hello, &mut output));
        let first = Line::new(Link::new(ME, id, env.now));
        let mut session = Session { machine, ..Session::new(life, number, first) };
        session.obey(output, env);
        session.beat(id, env);
        env.after(CONNECT_LIMIT, session.mine(Event::Late { connection: id }));
        session
    }

    /// One that has said nothing.
    pub(super) fn new(life: u32, number: u32, speaker: Line) -> Session {
        Session {
            life,
            number,
            machine: None,
            line: speaker,
            secret: None,
            returning: None,
            lost_at: None,
            lanes: Vec::new(),
            window: SendWindow::new(),
            carrying: None,
            remains: None,
            backlog: Backlog::new(),
            credit: Credit::default(),
            asked: false,
            kept: 0,
            missing: BTreeSet::new(),
            lost_in_silence: false,
            first_object: 0,
            moved: false,
            outcome: None,
        }
    }

    pub(super) fn mine(&self, event: Event) -> Due {
        Due::Client { life: self.life, event }
    }

    /// Whether the server was reached.
    pub fn is_connected(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether the transfer has moved since this was asked last.
    pub fn moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    pub fn happen(&mut self, event: Event, env: &mut Environment) {
        match event {
            Event::Beat(id) => self.beat(id, env),
            Event::Read { session } if session == self.number => self.read(env),
            Event::Free { connection } => self.free(connection, env),
            Event::DialLane { session, lane } if session == self.number => {
                self.dial_lane(lane, env);
            }
            Event::DialControl { session } if session == self.number => self.dial_control(env),
            Event::Late { connection } => self.late(connection, env),
            Event::Tick { session } if session == self.number => self.tick(env),
            Event::NoReason { session } if session == self.number => {
                self.give_up(interrupted("a data connection was lost"), env);
            }
            Event::Begin
            | Event::Read { .. }
            | Event::DialLane { .. }
            | Event::DialControl { .. }
            | Event::Tick { .. }
            | Event::NoReason { .. } => {}
        }
        self.go_on(env);
    }

    pub fn arrive(&mut self, id: u32, bytes: &[u8], env: &mut Environment) {
        let mut rest = bytes;
        if self.returning.as_ref().is_some_and(|link| link.id == id) {
            self.take_back(&mut rest, env);
        }
        while self.outcome.is_none() && self.line.id() == Some(id) {
            match self.line.take(&mut rest, env) {
                Ok(Some(message)) => self.hear(message, env),
                Ok(None) => break,
                Err(_) => self.lose(env),
            }
        }
        self.go_on(env);
    }

    pub fn ended(&mut self, id: u32, env: &mut Environment) {
        if self.line.id() == Some(id) {
            self.lose(env);
        } else if self.returning.as_ref().is_some_and(|link| link.id == id) {
            self.returning = None;
            self.retry_control(env);
        } else if let Some(lane) = self.lane_of(id) {
            self.lose_lane(lane, env);
        }
        self.go_on(env);
    }

    pub fn written(&mut self, id: u64, well: bool, env: &mut Environment) {
        if let Some(carrying) = &mut self.carrying {
            carrying.written(id, well, env);
        }
        self.go_on(env);
    }

    /// The process leaves it.
    pub fn part(&mut self, env: &mut Environment) {
        self.carrying = None;
        self.line.cut(env);
        for lane in self.lanes.iter().flatten() {
            env.close(ME, lane.connection);
        }
        if let Some(link) = self.returning.take() {
            env.close(ME, link.id);
        }
    }

    fn beat(&mut self, id: u32, env: &mut Environment) {
        if self.line.id() != Some(id) {
            return;
        }
        match self.line.link().map(|link| link.beat(env.now)) {
            Some(Beat::Dead) => {
                env.met(Met::Silence);
                self.lost_in_silence = true;
                self.lose(env);
            }
            Some(Beat::Ping) => {
                self.line.ping(env);
                env.after(Duration::ZERO, self.mine(Event::Beat(id)));
            }
            Some(Beat::WaitUntil(then)) => env.at(then, self.mine(Event::Beat(id))),
            None => {}
        }
    }

    fn late(&mut self, id: u32, env: &mut Environment) {
        if self.line.id() == Some(id) && self.secret.is_none() {
            self.outcome = Some(Outcome::Failed(interrupted("no welcome")));
        } else if self.returning.as_ref().is_some_and(|link| link.id == id) {
            self.returning = None;
            env.close(ME, id);
            self.retry_control(env);
        }
    }

    /// The control connection is gone: where a stream is on its way it is made again.
    fn lose(&mut self, env: &mut Environment) {
        self.line.cut(env);
        if !self.asked || env.settings.retry_for.is_zero() {
            self.outcome.get_or_insert(Outcome::Failed(interrupted("the connection was lost")));
            return;
        }
        self.lost_at.get_or_insert(env.now);
        self.dial_control(env);
    }

    fn retry_control(&mut self, env: &mut Environment) {
        if self.lost_at.is_some_and(|at| env.now >= at + env.settings.retry_for) {
            self.outcome = Some(match self.remains.take() {
                Some(_) => Outcome::NotTakenOver,
                None => Outcome::Failed(interrupted("it did not come back")),
            });
            return;
        }
        env.soon(3000, self.mine(Event::DialControl { session: self.number }));
    }

    pub(super) fn dial_control(&mut self, env: &mut Environment) {
        let Some(secret) = self.secret.filter(|_| self.line.id().is_none()) else { return };
        let id = env.dial(Purpose::ControlAgain(secret));
        let mut link = Link::new(ME, id, env.now);
        link.send(&Message::Return(self.line.returning()), env);
        self.returning = Some(link);
        env.after(CONNECT_LIMIT, self.mine(Event::Late { connection: id }));
    }

    /// The server answers on a new connection.
    fn take_back(&mut self, rest: &mut &[u8], env: &mut Environment) {
        let Some(mut link) = self.returning.take() else { return };
        match link.take(rest, env) {
            Ok(None) => self.returning = Some(link),
            Ok(Some(Message::Returned(server))) => {
                env.met(Met::ControlReturned);
                let id = link.id;
                self.line.accept(&server, env);
                self.line.go_on(link, env);
                self.beat(id, env);
                self.stand(server, env);
                if std::mem::take(&mut self.lost_in_silence) {
                    self.renew_lanes(env);
                }
                self.reopen_missing(env);
            }
            Ok(Some(Message::Refused(failure))) => {
                env.met(Met::ReturnRefused);
                self.outcome = Some(match self.remains.take() {
                    Some(_) => Outcome::NotTakenOver,
                    None => Outcome::Failed(failure),
                });
            }
            Ok(Some(other)) => panic!("{} where the session was to go on", other.name()),
            Err(_) => {
                env.close(ME, link.id);
                self.retry_control(env);
            }
        }
    }

    /// Goes on from where the server stands, if one of both has lost its memory.
    fn stand(&mut self, server: Returned, env: &mut Environment) {
        let Some(standing) = server.standing else { return };
        if let Some(remains) = self.remains.take() {
            return self.go_on_with(remains, &standing, env);
        }
        env.met(Met::StoodAnew);
        self.tell_sent(env);
        self.wish(Input::Stands(standing), env);
        self.renew_lanes(env);
    }

    /// Whether the server can be reached.
    pub(super) fn is_up(&self) -> bool {
        self.line.id().is_some()
    }

    /// The machine must know of bytes before it hears that they have arrived.
    fn tell_sent(&mut self, env: &mut Environment) {
        if let Some(read) = self.carrying.as_ref().map(Carrying::read_to)
            && !self.machine.as_ref().is_none_or(Sender::is_idle)
        {
            self.wish(Input::Sent(read), env);
        }
    }

    fn hear(&mut self, message: Message, env: &mut Environment) {
        self.tell_sent(env);
        self.wish(Input::Received(message), env);
    }

    pub(super) fn wish(&mut self, input: Input, env: &mut Environment) {
        let Some(machine) = self.machine.take() else { return };
        let mut output = Vec::new();
        match machine.handle(input, &mut output) {
            Ok(machine) => self.machine = Some(machine),
            Err(gone @ PeerMisbehaved::TakenIsGone { .. })
                if env.disks[End::Server as usize].lied =>
            {
                self.outcome = Some(Outcome::Failed(gone.failure(Side::Target)));
            }
            Err(error) => panic!("the server broke it: {error}"),
        }
        self.obey(output, env);
    }

    pub(super) fn obey(&mut self, output: Vec<Output>, env: &mut Environment) {
        for order in output {
            match order {
                Output::Send(message) => self.line.say(&message, env),
                Output::Ready { agreed, secret, .. } => {
                    self.secret = Some(secret);
                    self.lanes = vec![None; usize::from(agreed.limits.connections)];
                    for lane in 0..agreed.limits.connections {
                        self.dial_lane(lane, env);
                    }
                    self.list(env);
                }
                Output::Listed { target, .. } => self.decide(&target, env),
                Output::TreeListed(tree) => self.decide(&root_of(tree, env), env),
                Output::Stream { transfer, credit, .. } => {
                    self.credited(credit.into(), env);
                    self.begin(transfer, self.first_object, env);
                }
                Output::Stands(marks, receipt) => {
                    self.credit = receipt.credit;
                    drop(self.window.stands(receipt).expect("an honest server"));
                    if let Some(carrying) = &mut self.carrying {
                        carrying.reached(marks, self.credit.taken, env);
                    }
                }
                Output::Reached(marks, receipt) => {
                    self.credited(receipt, env);
                    if let Some(carrying) = &mut self.carrying {
                        self.moved |= carrying.reached(marks, self.credit.taken, env);
                        if self.moved {
                            self.lost_at = None;
                        }
                    }
                }
                Output::Applied(_) => {
                    if let Some(carrying) = &mut self.carrying {
                        carrying.applied(env);
                    }
                    self.wish(Input::Bye, env);
                    self.outcome = Some(Outcome::Done);
                }
                Output::Aborted => {
                    env.met(Met::Aborted);
                    self.list(env);
                }
                Output::Pruned(report) => panic!("nobody asked for it: {report:?}"),
                Output::Failed(failure) => self.outcome = Some(Outcome::Failed(failure)),
                Output::Close => {}
            }
        }
    }

    fn list(&mut self, env: &mut Environment) {
        let name = target_name();
        let is_tree = env.settings.tree_pages > 0;
        self.wish(if is_tree { Input::ListTree(name) } else { Input::List(name) }, env);
    }

    fn credited(&mut self, receipt: Receipt, env: &mut Environment) {
        self.credit = receipt.credit;
        drop(self.window.credit(receipt).expect("an honest credit"));
        if self.window.parked() > 0 {
            env.met(Met::LeftOut);
        }
    }

    /// Where to go on, from what the target says and what is known here.
    fn decide(&mut self, target: &TargetState, env: &mut Environment) {
        let (holds, token) = weigh(target, env);
        self.kept = token.map_or(0, |(_, objects)| objects);
        let recorded = aftermath::newest(ME, env).is_some();
        let situation = Situation {
            target: if holds { Target::Holds } else { Target::Lacks },
            token: match token {
                None => Token::Absent,
                Some((guid, _)) if guid != env.source.guid => Token::Foreign,
                Some(_) if env.source.exists => Token::Matching,
                Some(_) => Token::Dead,
            },
            peer: Peer::Empty,
            source: Source::Gone,
            reach: Reach::Short,
            record: if recorded { Knowledge::Recorded } else { Knowledge::Nothing },
            dead_token: env.settings.dead_token,
        };
        match decide(situation) {
            Decision::Done => {
                env.met(Met::FoundDone);
                self.wish(Input::Bye, env);
                self.outcome = Some(Outcome::Done);
            }
            Decision::Token => {
                env.met(Met::FromToken);
                let skipped = u32::from(env.is_broken(Breakage::SkipAfterToken));
                self.ask(token.map_or(0, |(_, objects)| objects + skipped), env);
            }
            Decision::Restart => self.ask(0, env),
            Decision::Ask(question) => {
                env.met(Met::Asked);
                let what = format!("{question:?}");
                let failure = Failure::new(Side::Target, Class::Refused, what);
                self.wish(Input::Bye, env);
                self.outcome = Some(Outcome::Failed(failure));
            }
            Decision::AbortPartial => {
                let token = token.map(token_text).unwrap_or_default();
                self.wish(Input::Abort { dataset: target_name(), token }, env);
            }
            other => panic!("{other:?} after {situation:?}"),
        }
    }

    fn ask(&mut self, first_object: u32, env: &mut Environment) {
        self.first_object = first_object;
        self.asked = true;
        env.source.held |= !env.is_broken(Breakage::HoldAfterFirstByte);
        let stream = terms::stream(Guid(env.source.guid), first_object > 0);
        let request = Request {
            stream: Stream::Dataset(stream),
            epoch: self.number,
            estimated_bytes: None,
            block_bytes: BLOCK_BYTES_MAX,
            codec: Codec::Raw,
            interrupted_at: None,
        };
        self.wish(Input::Open(request), env);
    }

    /// Tells the server why this end gives up.
    pub(super) fn give_up(&mut self, failure: Failure, env: &mut Environment) {
        self.wish(Input::Failed(failure.clone()), env);
        self.outcome = Some(Outcome::Failed(failure));
    }
}

/// What a tree says of its root. What lies below was not made or lost on the way.
fn root_of(tree: TargetTree, env: &mut Environment) -> TargetState {
    let mut datasets = tree.datasets.into_iter();
    let Some(TargetDataset { state, .. }) = datasets.next() else { return TargetState::Absent };
    let below: Vec<TargetDataset> = datasets.collect();
    let [TargetDataset { state: TargetState::Present { snapshots, .. }, .. }] = &below[..] else {
        panic!("not one dataset below the root: {below:?}");
    };
    let are_in_order = (0..).zip(snapshots).all(|(number, snapshot)| snapshot.createtxg == number);
    assert!(are_in_order, "a tree with other snapshots than it has");
    env.met(if snapshots.len() > 1 { Met::LargeTreeListed } else { Met::TreeListed });
    state
}

/// What the target holds, and the token in it.
fn weigh(target: &TargetState, env: &Environment) -> (bool, Option<(u64, u32)>) {
    match target {
        TargetState::Absent => (false, None),
        TargetState::Present { snapshots, resume_token, .. } => {
            let holds = snapshots.iter().any(|snapshot| snapshot.guid.0 == env.source.guid);
            (holds, resume_token.as_deref().map(token_of))
        }
    }
}
