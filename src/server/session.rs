//! One client's session at the server: a loop that names what happened, and does what follows.
//!
//! All decisions are the machine's ([`crate::protocol::receiver`]); this file only carries its
//! orders out. A client whose connection is lost in the middle of a transfer is away, and the
//! transfer waits for it. What must never happen here: a process that takes the end of a cut stream
//! for the stream's end, and a session that leaves a process behind.

mod asking;
mod audited;
mod away;
mod pruning;
mod receiving;
mod records;
mod restored;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(super) use self::restored::restore_all;
use super::audit::Entry;
use super::lanes::Lanes;
use super::portion::{self, Portion};
use super::roster::{Arrival, Claim, Presence, Who};
use super::taker::Prepared;
use super::target::Target;
use super::transfer::Transfer;
use super::wished::Verified;
use super::{Destination, Lasts, Shared, Stopping};
use crate::breakpoint::identity::SessionId;
use crate::breakpoint::record::Mark;
use crate::dataset::DatasetName;
use crate::engine::receiver::{Agreed, Event, Receiver as Engine};
use crate::error::{Class, Failure, Side};
use crate::link::{Line, Link, LinkError, Wire};
use crate::listing::{TargetState, TargetTree};
use crate::process::Ended as ProcessEnded;
use crate::protocol::message::{Limits, Message, Open, RelativeName};
use crate::protocol::negotiate::{Agreed as Terms, BLOCK_BYTES_MAX};
use crate::protocol::receiver::{Input, Offer, Output, Receiver};
use crate::protocol::secret::JoinSecret;
use crate::protocol::version::Version;
use crate::retention::Report;
use crate::trust::Fingerprint;

/// How often the client hears how far a transfer is.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(200);

/// What other threads tell the session.
enum News {
    Found(DatasetName, Result<TargetState, Failure>),
    FoundTree(Result<TargetTree, Failure>),
    Aborted(Result<(), Failure>),
    Pruned(Report),
    /// Nobody else has what a pipe's stream is for.
    Free(Box<Asked>, Result<(), Failure>),
    Prepared(Box<Asked>, Box<Result<Prepared, Failure>>),
    ProcessEnded(std::io::Result<ProcessEnded>),
    Verified(Result<Verified, Failure>),
}

/// What the client has asked for, and where that goes: judged once.
#[derive(Debug)]
struct Asked {
    open: Open,
    target: Target,
}

/// Everything that can happen to a session.
enum Happening {
    Heard(Result<Message, LinkError>),
    Arrived(Arrival),
    Engine(Event),
    News(News),
    /// Time to tell how far the transfer is.
    Tick,
    /// Something did not come in time.
    Late,
    /// Another client wants what this one has left.
    Evicted,
    /// The server stops, more urgently than before.
    Stop(Stopping),
}

pub(super) struct Session {
    shared: Rc<Shared>,
    line: Line,
    peer: String,
    /// The client's; `None` in clear.
    key: Option<Fingerprint>,
    presence: Rc<Presence>,
    /// Until when a client that is away may come back.
    back_until: Option<Instant>,
    machine: Option<Receiver>,
    /// What the machine is still to be told.
    inputs: VecDeque<Input>,
    lanes: Lanes,
    secret: JoinSecret,
    /// What all transfers of the client share that go where this one does.
    portion: Option<Arc<Portion>>,
    /// What it may be received into.
    destination: Destination,
    /// What its records call it.
    id: SessionId,
    /// What was agreed with the client.
    terms: Option<Terms>,
    engine: Option<Engine>,
    agreed: Option<Agreed>,
    events: UnboundedReceiver<Event>,
    event_inbox: UnboundedSender<Event>,
    news: UnboundedReceiver<News>,
    news_inbox: UnboundedSender<News>,
    /// Another thread is starting what takes the stream, or prunes.
    preparing: bool,
    claim: Option<Claim>,
    transfer: Option<Transfer>,
    /// A failure that follows from another, and until when that may be told.
    fault: Option<(Failure, Instant)>,
    /// The failure that ended the session, for the log and for `zferry receive`.
    failure: Option<Failure>,
    applied: bool,
    /// What was asked for and has not ended, where that is written down.
    entry: Option<Entry>,
    /// What the last stream was for, if the target holds it, and when that was seen.
    whole: Option<(RelativeName, Instant)>,
    closing: bool,
    stopping: Stopping,
}

impl Session {
    /// A session with a client that has just connected.
    pub(super) fn greeting(
        shared: &Rc<Shared>,
        wire: Wire,
        version: Version,
        peer: String,
    ) -> Result<Session, getrandom::Error> {
        let (secret, id) = (JoinSecret::new(random()?), SessionId(random()?));
        let (engine, key) = (&shared.options.engine, wire.peer());
        let destination = shared.destination.to(key);
        let (most, block) = (shared.options.connections_max, BLOCK_BYTES_MAX.min(engine.cache));
        let slowest = destination.slowest();
        let (connections, block_bytes_max) =
            slowest.map_or((most, block), |slowest| portion::offer(slowest, most, block));
        let offer = Offer {
            software: concat!("zferry ", env!("CARGO_PKG_VERSION")).to_owned(),
            version,
            limits: Limits { block_bytes_max, connections, codecs: engine.codecs() },
            secret,
        };
        let peer = destination.name_of(peer);
        let line = Line::new(Link::new(wire));
        let mut session = Session::new(Rc::clone(shared), line, (peer, key), secret, id);
        session.machine = Some(Receiver::new(offer));
        Ok(session)
    }

    /// One that has no machine yet.
    fn new(
        shared: Rc<Shared>,
        line: Line,
        (peer, key): (String, Option<Fingerprint>),
        secret: JoinSecret,
        id: SessionId,
    ) -> Session {
        let (event_inbox, events) = unbounded_channel();
        let (news_inbox, news) = unbounded_channel();
        Session {
            destination: shared.destination.to(key),
            shared,
            line,
            peer,
            key,
            presence: Rc::default(),
            back_until: None,
            machine: None,
            inputs: VecDeque::new(),
            lanes: Lanes::new(),
            portion: None,
            secret,
            id,
            terms: None,
            engine: None,
            agreed: None,
            events,
            event_inbox,
            news,
            news_inbox,
            preparing: false,
            claim: None,
            transfer: None,
            fault: None,
            failure: None,
            applied: false,
            entry: None,
            whole: None,
            closing: false,
            stopping: Stopping::No,
        }
    }

    /// Runs to its end.
    pub(super) async fn run(mut self) {
        while !self.closing {
            let happening = self.select().await;
            self.apply(happening).await;
        }
        self.stop_transfer().await;
        let failure = self.failure.clone();
        self.write_entry(Some(&failure.unwrap_or_else(gone)));
        self.line.close().await;
        if let Some(engine) = self.engine {
            let _ = tokio::task::spawn_blocking(move || drop(engine)).await;
        }
        let outcome = match self.failure {
            Some(failure) => {
                tracing::warn!(peer = self.peer, %failure, "session failed");
                Err(failure)
            }
            None => Ok(()),
        };
        let counts = match self.shared.options.lasts {
            Lasts::Forever => false,
            // A look at what the target holds is not the transfer that is waited for, nor is one
            // that made room for another.
            Lasts::OneTransfer => {
                self.applied || (outcome.is_err() && !self.presence.superseded.get())
            }
            // A client that carries several datasets at once has a session for each.
            Lasts::OneClient(_) => self.terms.is_some() && self.shared.sessions.get() == 1,
        };
        if counts {
            self.shared.outcome.send_replace(Some(outcome));
        }
    }

    /// Names what happens next. Dropping it loses nothing.
    async fn select(&mut self) -> Happening {
        let deadline = self.deadline();
        let (mut stop, known) = (self.shared.stop.clone(), self.stopping);
        let urgency = async { stop.wait_for(|&stop| stop > known).await.map(|stop| *stop) };
        tokio::select! {
            heard = self.line.next() => Happening::Heard(heard),
            arrival = self.lanes.next() => Happening::Arrived(arrival),
            Some(event) = self.events.recv() => Happening::Engine(event),
            Some(news) = self.news.recv() => Happening::News(news),
            () = tokio::time::sleep(ACKNOWLEDGE_EVERY), if self.transfer.is_some() => {
                Happening::Tick
            }
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now).into()),
                if deadline.is_some() => Happening::Late,
            () = self.presence.evicted.notified() => Happening::Evicted,
            Ok(urgency) = urgency => Happening::Stop(urgency),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let fault = self.fault.as_ref().map(|&(_, until)| until);
        fault.into_iter().chain(self.back_until).min()
    }

    async fn apply(&mut self, happening: Happening) {
        match happening {
            Happening::Heard(Ok(message)) => {
                if message.is_farewell() {
                    // What we have heard is in each sign of life.
                    drop(self.line.ping().await);
                }
                self.tell(Input::Received(message));
            }
            Happening::Heard(Err(error)) => self.lose(error).await,
            Happening::Arrived(Arrival::Lane(lane)) => {
                self.lanes.join(lane, self.engine.as_ref(), &self.peer);
            }
            Happening::Arrived(Arrival::Client(returning)) => self.take_back(*returning).await,
            Happening::Arrived(Arrival::Revoked) => {
                let what = "the key of this client was revoked on the server";
                self.give_up(Failure::new(Side::Target, Class::Refused, what)).await;
            }
            Happening::Engine(event) => self.engine_says(event).await,
            Happening::News(news) => self.learn(news).await,
            Happening::Tick => self.acknowledge(),
            Happening::Late => self.late().await,
            Happening::Evicted => self.make_room().await,
            Happening::Stop(urgency) => self.stop(urgency).await,
        }
        self.finish_if_over();
        self.settle().await;
    }

    fn is_idle(&self) -> bool {
        self.transfer.is_none() && !self.preparing
    }

    /// Has the machine told of something, after all that it was told before.
    fn tell(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    /// Tells the machine and does what it orders, until it has nothing more to do.
    async fn settle(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.advance(input).await;
        }
    }

    async fn advance(&mut self, input: Input) {
        let Some(machine) = self.machine.take() else { return };
        let mut orders = Vec::new();
        match machine.handle(input, &mut orders) {
            Ok(machine) => self.machine = Some(machine),
            Err(misbehaved) => {
                self.failure = Some(misbehaved.failure(Side::Source));
                self.stop_transfer().await;
                self.say(&misbehaved.farewell(Side::Source)).await;
                self.closing = true;
            }
        }
        for order in orders {
            self.obey(order).await;
        }
    }

    async fn obey(&mut self, order: Output) {
        match order {
            Output::Send(message) => self.say(&message).await,
            Output::Ready { agreed, software } => {
                tracing::debug!(peer = self.peer, software, "session");
                let count = agreed.limits.connections;
                self.terms = Some(agreed);
                self.lanes.expect(count, self.secret, self.key, &self.shared.roster);
            }
            Output::LookUp(name) => self.look_up(&name).await,
            Output::LookUpTree(name) => self.look_up_tree(&name).await,
            Output::Abort { dataset, token } => self.abort(&dataset, token).await,
            Output::Prune(prune) => self.prune(prune),
            Output::Prepare(open) => self.open(open).await,
            Output::Finish(ended) => {
                if let (Some(engine), Some(transfer)) = (&self.engine, &mut self.transfer) {
                    engine.end(ended.transfer(), ended.total(), ended.crc32());
                    if let Some(records) = &transfer.records {
                        records.ended(Mark { to: ended.total(), crc32: ended.crc32() });
                    }
                    transfer.ended = Some(ended);
                }
            }
            Output::Abandon(failure) => {
                self.failure = Some(failure);
                self.stop_transfer().await;
            }
            Output::Close => self.closing = true,
        }
    }

    /// The client, for those who keep the books.
    fn who(&self) -> Who<'_> {
        Who { peer: &self.peer, key: self.key }
    }

    async fn say(&mut self, message: &Message) {
        if let Err(error) = self.line.say(message).await {
            // What is lost is said again, should the client come back.
            tracing::debug!(peer = self.peer, %error, "say {}", message.name());
        }
    }

    /// Runs something that blocks on another thread; what it finds comes back as news.
    fn ask(&self, question: impl FnOnce() -> News + Send + 'static) {
        let inbox = self.news_inbox.clone();
        // Nobody listens any more when the session is over.
        tokio::task::spawn_blocking(move || drop(inbox.send(question())));
    }

    async fn learn(&mut self, news: News) {
        match news {
            News::Found(dataset, Ok(target)) => {
                self.write_entry(None);
                self.tell(Input::Found { dataset, target });
            }
            News::FoundTree(Ok(tree)) => {
                self.write_entry(None);
                self.tell(Input::FoundTree(tree));
            }
            News::Aborted(aborted) => {
                self.claim = None;
                match aborted {
                    Ok(()) => {
                        self.write_entry(None);
                        self.tell(Input::Aborted);
                    }
                    Err(failure) => self.give_up(failure).await,
                }
            }
            News::Pruned(report) => self.pruned(report),
            News::Free(asked, Ok(())) => self.prepare(*asked).await,
            News::Prepared(asked, prepared) => {
                self.preparing = false;
                match *prepared {
                    Ok(prepared) => self.begin(*asked, prepared),
                    Err(failure) => self.give_up(failure).await,
                }
            }
            News::ProcessEnded(Ok(ended)) => self.process_ended(ended).await,
            News::ProcessEnded(Err(error)) => {
                let what = format!("wait for the process that takes the stream: {error}");
                self.give_up(Failure::new(Side::Target, Class::Machine, what)).await;
            }
            News::Verified(Ok(verified)) => self.applied(verified),
            News::Found(_, Err(failure))
            | News::FoundTree(Err(failure))
            | News::Free(_, Err(failure))
            | News::Verified(Err(failure)) => {
                self.give_up(failure).await;
            }
        }
    }

    async fn late(&mut self) {
        if self.back_until.is_some_and(|until| until <= Instant::now()) {
            return self.stay_away().await;
        }
        if let Some((failure, _)) = self.fault.take() {
            self.give_up(failure).await;
        }
    }

    async fn stop(&mut self, urgency: Stopping) {
        self.stopping = urgency;
        // Nobody knows whether a client that is away will ever let its transfer end.
        if urgency == Stopping::Now || self.presence.away.get() {
            self.give_up(stopping()).await;
        } else if self.is_idle() {
            self.tell(Input::Failed(stopping()));
        }
    }

    /// Ends what runs for the client, and tells it why.
    async fn give_up(&mut self, failure: Failure) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(failure.clone());
        self.stop_transfer().await;
        self.tell(Input::Failed(failure));
    }
}

/// What a client hears that is not served any more.
pub(super) fn stopping() -> Failure {
    Failure::new(Side::Target, Class::Interrupted, "the server is stopping")
}

/// Why a wish came to nothing whose session has no failure.
fn gone() -> Failure {
    Failure::new(Side::Network, Class::Interrupted, "the client went away")
}

fn random() -> Result<[u8; 16], getrandom::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(random)
}
