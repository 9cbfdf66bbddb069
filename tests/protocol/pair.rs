//! A client and a server, joined by two queues of bytes.
//!
//! Each has the machine and a small model of the engine around it: the client's sends numbers of
//! bytes, the server's takes them. A script moves bytes in pieces of any size, lets either side
//! act, fail, die or be lied to. Every step checks what must never happen.

mod given;
mod held;
mod memory;
mod wire;

use std::collections::VecDeque;

use zferry::dataset::Guid;
use zferry::error::Failure;
use zferry::listing::{TargetState, TargetTree};
use zferry::protocol::journal::Journal;
use zferry::protocol::message::{
    Ending, Hello, Message, Outcome, Request, Start, Stream, Watermarks,
};
use zferry::protocol::misbehaved::PeerMisbehaved;
use zferry::protocol::negotiate::Agreed;
use zferry::protocol::prune::Prune;
use zferry::protocol::receiver::{self, Ended, Offer, Receiver};
use zferry::protocol::secret::JoinSecret;
use zferry::protocol::sender::{self, Sender};
use zferry::protocol::standing::Standing;
use zferry::protocol::version::{Version, Versions};
use zferry::protocol::window::Credit;
use zferry::retention::Report;
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

pub use self::given::{PRUNED, target};
use self::given::{limits, prune, request};
pub use self::held::tree;
use self::memory::Remains;
use self::wire::Wire;

/// What a client wants.
#[derive(Clone, Debug)]
pub enum Job {
    /// To know what the target holds.
    List,
    /// To know what the target and all below it hold.
    ListTree,
    /// To have a partial state given up.
    Abort,
    /// To have snapshots pruned.
    Prune,
    /// To send so many bytes.
    Send { bytes: u64, dataset: bool },
    /// To leave.
    Bye,
}

/// One step of a script.
#[derive(Clone, Debug)]
pub enum Step {
    /// So many bytes reach the server.
    ToServer(usize),
    /// So many bytes reach the client.
    ToClient(usize),
    /// The client does what it can do next; the number decides how much.
    ClientActs(u64),
    /// The server does what it can do next.
    ServerActs(u64),
    /// Something breaks at the client.
    ClientFails(Failure),
    /// Something breaks at the server.
    ServerFails(Failure),
    /// The control connection dies with all that is on its way, and another takes its place.
    Cut,
    /// As a cut, and the first answer to the client's return is lost with its connection.
    LoseAnswer,
    /// The process of the client dies, and another takes over if it can.
    ClientDies,
    /// The process of the server dies, and another takes over if it can.
    ServerDies,
    /// Somebody says this to the server in the client's name.
    LieToServer(Message),
    /// Somebody says this to the client in the server's name.
    LieToClient(Message),
    /// Somebody tells the client that the server stands here.
    LieOfStanding(Standing),
}

/// What flows over the data connections: of which transfer, how far.
#[derive(Clone, Copy, Default)]
struct Data {
    transfer: TransferId,
    sent: u64,
}

/// A stream that the client sends.
struct Outgoing {
    transfer: TransferId,
    total: u64,
    sent: u64,
    ended: bool,
    reached: Watermarks,
}

pub struct Client {
    /// `None` once the peer misbehaved.
    machine: Option<Sender>,
    journal: Journal,
    /// The session stands: what is lost from here on is said again.
    agreed: Option<Agreed>,
    /// What was asked for last.
    asked: Option<Request>,
    remains: Option<Remains>,
    jobs: VecDeque<Job>,
    asked_bytes: u64,
    outgoing: Option<Outgoing>,
    credit: Credit,
    pub listed: Vec<TargetState>,
    pub trees: Vec<TargetTree>,
    pub aborted: usize,
    pub pruned: Vec<u64>,
    pub applied: Vec<TransferId>,
    pub failed: Option<Failure>,
}

pub struct Server {
    /// `None` once the peer misbehaved.
    machine: Option<Receiver>,
    journal: Journal,
    target: TargetState,
    must_look_up: bool,
    must_look_up_tree: bool,
    must_abort: bool,
    must_prune: Option<Prune>,
    must_prepare: Option<(TransferId, Stream)>,
    incoming: Option<(TransferId, Stream)>,
    fed: u64,
    credit: Credit,
    durable: (Watermarks, Credit),
    ended: Option<Ended>,
    end_heard: Option<TransferId>,
    pub applied: Vec<TransferId>,
    pub abandoned: Option<Failure>,
}

pub struct Pair {
    pub client: Client,
    pub server: Server,
    to_server: Wire,
    to_client: Wire,
    data: Data,
    pub misbehaved: Vec<PeerMisbehaved>,
}

pub const GUID: Guid = Guid(7);

/// The blocks that a server has slots for.
pub const BLOCKS: u64 = 4;

impl Pair {
    /// A client with jobs to do and a server that holds `target`.
    pub fn new(jobs: &[Job], target: TargetState) -> Pair {
        let mut output = Vec::new();
        let hello = Hello { software: "client".to_owned(), limits: limits(4) };
        let client = Client {
            machine: Some(Sender::start(Versions::OURS, hello, &mut output)),
            journal: Journal::default(),
            agreed: None,
            asked: None,
            remains: None,
            jobs: jobs.iter().cloned().collect(),
            asked_bytes: 0,
            outgoing: None,
            credit: Credit::default(),
            listed: Vec::new(),
            trees: Vec::new(),
            aborted: 0,
            pruned: Vec::new(),
            applied: Vec::new(),
            failed: None,
        };
        let server = Server {
            machine: Some(Receiver::new(Offer {
                software: "server".to_owned(),
                version: Version::V1,
                limits: limits(2),
                secret: JoinSecret::new([9; 16]),
            })),
            journal: Journal::default(),
            target,
            must_look_up: false,
            must_look_up_tree: false,
            must_abort: false,
            must_prune: None,
            must_prepare: None,
            incoming: None,
            fed: 0,
            credit: Credit { taken: Sequence(0), room: Sequence(BLOCKS) },
            durable: Default::default(),
            ended: None,
            end_heard: None,
            applied: Vec::new(),
            abandoned: None,
        };
        let (to_server, to_client) = (Wire::default(), Wire::default());
        let data = Data::default();
        let mut pair = Pair { client, server, to_server, to_client, data, misbehaved: Vec::new() };
        pair.client_does(output);
        pair
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::ToServer(count) => {
                for message in self.to_server.deliver(count) {
                    self.server.journal.hear(&message);
                    self.server_hears(message);
                }
            }
            Step::ToClient(count) => {
                for message in self.to_client.deliver(count) {
                    self.client.journal.hear(&message);
                    self.client_handles(sender::Input::Received(message));
                }
            }
            Step::ClientActs(dice) => self.client_acts(dice),
            Step::ServerActs(dice) => self.server_acts(dice),
            Step::ClientFails(failure) => self.client_handles(sender::Input::Failed(failure)),
            Step::ServerFails(failure) => self.server_handles(receiver::Input::Failed(failure)),
            Step::Cut => self.cut(),
            Step::LoseAnswer => self.lose_an_answer(),
            Step::ClientDies => self.client_dies(),
            Step::ServerDies => self.server_dies(),
            Step::LieToServer(message) => self.server_hears(message),
            Step::LieToClient(message) => self.client_handles(sender::Input::Received(message)),
            Step::LieOfStanding(lie) => self.client_handles(sender::Input::Stands(lie)),
        }
    }

    /// Lets both do all they can until neither has anything left to do.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            if self.is_settled() {
                return;
            }
            self.step(Step::ToServer(usize::MAX));
            self.step(Step::ServerActs(u64::MAX));
            self.step(Step::ToClient(usize::MAX));
            self.step(Step::ClientActs(u64::MAX));
        }
        panic!("the conversation hangs");
    }

    fn is_settled(&self) -> bool {
        let silent = self.to_server.bytes.is_empty() && self.to_client.bytes.is_empty();
        silent && (self.both_closed() || self.both_idle() && self.client.jobs.is_empty())
    }

    fn client_handles(&mut self, input: sender::Input) {
        let Some(machine) = self.client.machine.take() else { return };
        let mut output = Vec::new();
        match machine.handle(input, &mut output) {
            Ok(machine) => self.client.machine = Some(machine),
            Err(misbehaved) => self.misbehaved.push(misbehaved),
        }
        self.client_does(output);
    }

    fn client_does(&mut self, output: Vec<sender::Output>) {
        for one in output {
            match one {
                sender::Output::Send(message) => {
                    self.client.journal.say(&message);
                    self.to_server.say(&message);
                }
                sender::Output::Ready { agreed, .. } => {
                    assert!((1..=4).contains(&agreed.limits.connections));
                    self.client.agreed = Some(agreed);
                }
                sender::Output::Listed { target, .. } => self.client.listed.push(target),
                sender::Output::TreeListed(tree) => self.client.trees.push(tree),
                sender::Output::Aborted => self.client.aborted += 1,
                sender::Output::Pruned(report) => self.client.pruned.push(report.count),
                sender::Output::Stream { transfer, credit, .. } => {
                    self.client.credited(credit);
                    let total = self.client.asked_bytes;
                    let reached = Watermarks::default();
                    let outgoing = Outgoing { transfer, total, sent: 0, ended: false, reached };
                    self.client.outgoing = Some(outgoing);
                    self.data = Data { transfer, sent: 0 };
                }
                sender::Output::Reached(reached, told) => self.client.reached(reached, told.credit),
                sender::Output::Stands(reached, told) => self.client.stands(reached, told.credit),
                sender::Output::Applied(applied) => self.client.applied(applied.bytes),
                sender::Output::Failed(failure) => {
                    assert_eq!(self.client.failed.replace(failure), None, "failed twice");
                }
                sender::Output::Close => self.client.outgoing = None,
            }
        }
    }

    fn client_acts(&mut self, dice: u64) {
        if self.client.machine.as_ref().is_some_and(Sender::is_idle) {
            if let Some(wish) = self.client.next_wish() {
                self.client_handles(wish);
            }
            return;
        }
        let Some(outgoing) = &mut self.client.outgoing else { return };
        // `zfs send` may be through before all of it went out.
        if !outgoing.ended && (outgoing.sent == outgoing.total || dice.is_multiple_of(8)) {
            outgoing.ended = true;
            let total = StreamOffset(outgoing.total);
            self.client_handles(sender::Input::StreamEnded { total, crc32: 5 });
        } else if outgoing.sent < outgoing.total {
            outgoing.sent = outgoing.total.min(outgoing.sent.saturating_add(dice));
            self.data.sent = outgoing.sent;
            let offset = StreamOffset(outgoing.sent);
            self.client_handles(sender::Input::Sent(offset));
        }
    }

    fn server_hears(&mut self, message: Message) {
        if let Message::End { transfer, ending: Ending::Complete { .. } } = &message {
            self.server.end_heard = Some(*transfer);
        }
        self.server_handles(receiver::Input::Received(message));
    }

    fn server_handles(&mut self, input: receiver::Input) {
        let Some(machine) = self.server.machine.take() else { return };
        let mut output = Vec::new();
        match machine.handle(input, &mut output) {
            Ok(machine) => self.server.machine = Some(machine),
            Err(misbehaved) => {
                self.misbehaved.push(misbehaved);
                self.server.stop();
            }
        }
        self.server_does(output);
    }

    fn server_does(&mut self, output: Vec<receiver::Output>) {
        for one in output {
            match one {
                receiver::Output::Send(message) => {
                    self.server.check_success(&message);
                    self.server.journal.say(&message);
                    self.to_client.say(&message);
                }
                receiver::Output::Ready { .. } => {}
                receiver::Output::LookUp(_) => self.server.must_look_up = true,
                receiver::Output::LookUpTree(_) => self.server.must_look_up_tree = true,
                receiver::Output::Abort { .. } => self.server.must_abort = true,
                receiver::Output::Prune(prune) => self.server.must_prune = Some(prune),
                receiver::Output::Prepare(open) => {
                    self.server.must_prepare = Some((open.transfer, open.request.stream));
                }
                receiver::Output::Finish(ended) => self.server.ended = Some(ended),
                receiver::Output::Abandon(failure) => {
                    assert_eq!(self.server.abandoned.replace(failure), None, "abandoned twice");
                }
                receiver::Output::Close => self.server.stop(),
            }
        }
    }

    fn server_acts(&mut self, dice: u64) {
        if std::mem::take(&mut self.server.must_look_up) {
            let found = receiver::Input::Found {
                dataset: "backup/a".parse().unwrap(),
                target: self.server.target.clone(),
            };
            return self.server_handles(found);
        }
        if std::mem::take(&mut self.server.must_look_up_tree) {
            let found = tree(&self.server.target);
            return self.server_handles(receiver::Input::FoundTree(found));
        }
        if std::mem::take(&mut self.server.must_abort) {
            return self.server_handles(receiver::Input::Aborted);
        }
        if let Some(prune) = self.server.must_prune.take() {
            let report = Report { count: prune.newest_common.0, ..Report::default() };
            return self.server_handles(receiver::Input::Pruned(report));
        }
        if let Some(prepared) = self.server.must_prepare.take() {
            self.server.incoming = Some(prepared);
            self.server.fed = 0;
            self.server.durable.0 = Watermarks::default();
            self.server.make_durable(Watermarks::default(), self.server.credit);
            let prepared = receiver::Input::Prepared(Start::FromStart, self.server.credit);
            return self.server_handles(prepared);
        }
        let Some((transfer, stream)) = self.server.incoming.clone() else { return };
        let sent = if self.data.transfer == transfer { self.data.sent } else { 0 };
        let arrived = sent.max(self.server.durable.0.received.0);
        let total = self.server.ended.as_ref().map(Ended::total);
        if total == Some(StreamOffset(self.server.fed)) {
            let ended = self.server.ended.take().unwrap();
            assert_eq!(ended.transfer(), transfer);
            self.server.incoming = None;
            let guid = matches!(stream, Stream::Dataset(_)).then_some(GUID);
            self.server.applied.push(transfer);
            self.server_handles(receiver::Input::Applied { ended, guid, millis: 1 });
        } else if self.server.fed < arrived {
            let received = arrived.min(self.server.fed.saturating_add(dice));
            self.server.fed = received;
            let received = StreamOffset(received);
            let spooled = StreamOffset(received.0 / 2);
            let reached = Watermarks { received, spooled, fed: received };
            // Not every block sets a slot free: some stay in the pipe for a while.
            self.server.credit.taken.0 += 1;
            self.server.credit.room.0 += dice % 2;
            self.server.credit.room = self.server.credit.room.max(self.server.credit.taken);
            let credit = self.server.credit;
            self.server.make_durable(reached, credit);
            self.server_handles(receiver::Input::Progress(reached, credit.into()));
        }
    }

    pub fn is_streaming(&self) -> bool {
        self.client.outgoing.is_some()
    }

    pub fn both_closed(&self) -> bool {
        let client = self.client.machine.as_ref().is_some_and(Sender::is_closed);
        let server = self.server.machine.as_ref().is_some_and(Receiver::is_closed);
        client && server
    }

    pub fn both_idle(&self) -> bool {
        let client = self.client.machine.as_ref().is_some_and(Sender::is_idle);
        let server = self.server.machine.as_ref().is_some_and(Receiver::is_idle);
        client && server
    }
}

impl Client {
    fn next_wish(&mut self) -> Option<sender::Input> {
        let dataset = "hosts/a".parse().unwrap();
        Some(match self.jobs.pop_front()? {
            Job::List => sender::Input::List(dataset),
            Job::ListTree => sender::Input::ListTree(dataset),
            Job::Abort => sender::Input::Abort { dataset, token: "1-f00-8-ba4".to_owned() },
            Job::Prune => sender::Input::Prune(prune()),
            Job::Bye => sender::Input::Bye,
            Job::Send { bytes, dataset } => {
                self.asked_bytes = bytes;
                self.asked = Some(request(dataset));
                sender::Input::Open(request(dataset))
            }
        })
    }

    fn reached(&mut self, reached: Watermarks, credit: Credit) {
        let outgoing = self.outgoing.as_mut().expect("an acknowledgement without a stream");
        assert!(reached.follows(outgoing.reached), "{reached:?} after {:?}", outgoing.reached);
        assert!(reached.received.0 <= outgoing.sent, "{reached:?} of {}", outgoing.sent);
        outgoing.reached = reached;
        self.credited(credit);
    }

    fn credited(&mut self, credit: Credit) {
        assert!(credit.follows(self.credit), "{credit:?} after {:?}", self.credit);
        self.credit = credit;
    }

    fn applied(&mut self, bytes: Bytes) {
        let outgoing = self.outgoing.take().expect("a success without a stream");
        assert!(outgoing.ended, "a success without an end");
        assert_eq!((outgoing.sent, bytes.0), (outgoing.total, outgoing.total));
        self.applied.push(outgoing.transfer);
    }
}

impl Server {
    fn stop(&mut self) {
        self.must_look_up = false;
        self.must_look_up_tree = false;
        self.must_abort = false;
        self.must_prune = None;
        self.must_prepare = None;
        self.incoming = None;
        self.ended = None;
    }

    fn check_success(&self, message: &Message) {
        if let Message::Result { transfer, outcome: Outcome::Applied(_) } = message {
            assert_eq!(self.end_heard, Some(*transfer), "a success without an end");
            assert_eq!(self.applied.last(), Some(transfer), "a success without a target");
        }
    }
}
