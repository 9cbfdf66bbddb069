//! One client's session at the server: a loop that names what happened, and does what follows.
//!
//! All decisions are the machine's ([`crate::protocol::receiver`]); this file only carries its
//! orders out. What must never happen here: a process that takes the end of a cut stream for the
//! stream's end, and a session that leaves a process behind.

mod receiving;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sys::control::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::destination::Prepared;
use super::lanes::{JOIN_LIMIT, Lanes};
use super::roster::{Claim, Lane};
use super::transfer::Transfer;
use super::{Shared, Stopping};
use crate::dataset::{DatasetName, Guid};
use crate::engine::receiver::{Agreed, Event, Receiver as Engine};
use crate::error::{Class, Failure, Side};
use crate::link::{Heard, Link, LinkError};
use crate::listing::TargetState;
use crate::process::Ended as ProcessEnded;
use crate::protocol::frame::Codec;
use crate::protocol::message::{Limits, Message, Open, RelativeName};
use crate::protocol::negotiate::BLOCK_BYTES_MAX;
use crate::protocol::receiver::{Input, Offer, Output, Receiver};
use crate::protocol::secret::JoinSecret;
use crate::protocol::version::Version;

/// How often the client hears how far a transfer is.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(200);

/// What other threads tell the session.
enum News {
    Found(DatasetName, Result<TargetState, Failure>),
    Aborted(Result<(), Failure>),
    Prepared(Box<Open>, Result<Prepared, Failure>),
    ProcessEnded(std::io::Result<ProcessEnded>),
    Verified(Result<Option<Guid>, Failure>),
}

/// Everything that can happen to a session.
enum Happening {
    Heard(Result<Heard, LinkError>),
    Joined(Lane),
    Engine(Event),
    News(News),
    /// Time to tell how far the transfer is.
    Tick,
    /// Something did not come in time.
    Late,
    /// The server stops, more urgently than before.
    Stop(Stopping),
}

struct Session {
    shared: Rc<Shared>,
    link: Link,
    peer: String,
    machine: Option<Receiver>,
    /// What the machine is still to be told.
    inputs: VecDeque<Input>,
    lanes: Lanes,
    secret: JoinSecret,
    engine: Option<Engine>,
    agreed: Option<Agreed>,
    events: UnboundedReceiver<Event>,
    event_inbox: UnboundedSender<Event>,
    news: UnboundedReceiver<News>,
    news_inbox: UnboundedSender<News>,
    /// A transfer that waits for data connections.
    waiting: Option<(Box<Open>, Instant)>,
    /// Another thread is starting what takes the stream.
    preparing: bool,
    claim: Option<Claim>,
    transfer: Option<Transfer>,
    /// A data connection that the client has closed.
    lost_lane: Option<u32>,
    /// A broken data connection, and until when a better reason may come.
    fault: Option<(Failure, Instant)>,
    /// The failure that ended the session, for the log and for `zferry receive`.
    failure: Option<Failure>,
    applied: bool,
    closing: bool,
    stopping: Stopping,
}

/// Runs a session to its end.
pub(super) async fn run(shared: Rc<Shared>, stream: Stream, version: Version, peer: String) {
    let secret = match new_secret() {
        Ok(secret) => secret,
        Err(error) => return tracing::error!(%error, "no random bytes for a session"),
    };
    let offer = Offer {
        software: concat!("zferry ", env!("CARGO_PKG_VERSION")).to_owned(),
        version,
        limits: Limits {
            block_bytes_max: BLOCK_BYTES_MAX.min(shared.options.engine.cache),
            connections: shared.options.connections_max,
            codecs: [Codec::Raw, Codec::Zstd].into(),
        },
        secret,
    };
    let (event_inbox, events) = unbounded_channel();
    let (news_inbox, news) = unbounded_channel();
    let session = Session {
        shared,
        link: Link::new(stream),
        peer,
        machine: Some(Receiver::new(offer)),
        inputs: VecDeque::new(),
        lanes: Lanes::new(),
        secret,
        engine: None,
        agreed: None,
        events,
        event_inbox,
        news,
        news_inbox,
        waiting: None,
        preparing: false,
        claim: None,
        transfer: None,
        lost_lane: None,
        fault: None,
        failure: None,
        applied: false,
        closing: false,
        stopping: Stopping::No,
    };
    session.run().await;
}

impl Session {
    async fn run(mut self) {
        while !self.closing {
            let happening = self.select().await;
            self.apply(happening).await;
        }
        self.stop_transfer().await;
        self.link.close().await;
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
        // A look at what the target holds is not the transfer that a one-shot server waits for.
        if self.shared.options.one_transfer && (self.applied || outcome.is_err()) {
            self.shared.outcome.send_replace(Some(outcome));
        }
    }

    /// Names what happens next. Dropping it loses nothing.
    async fn select(&mut self) -> Happening {
        let deadline = self.deadline();
        let (mut stop, known) = (self.shared.stop.clone(), self.stopping);
        let urgency = async { stop.wait_for(|&stop| stop > known).await.map(|stop| *stop) };
        tokio::select! {
            heard = self.link.next() => Happening::Heard(heard),
            lane = self.lanes.next() => Happening::Joined(lane),
            Some(event) = self.events.recv() => Happening::Engine(event),
            Some(news) = self.news.recv() => Happening::News(news),
            () = tokio::time::sleep(ACKNOWLEDGE_EVERY), if self.transfer.is_some() => {
                Happening::Tick
            }
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now).into()),
                if deadline.is_some() => Happening::Late,
            Ok(urgency) = urgency => Happening::Stop(urgency),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref().map(|&(_, until)| until);
        let fault = self.fault.as_ref().map(|&(_, until)| until);
        waiting.into_iter().chain(fault).min()
    }

    async fn apply(&mut self, happening: Happening) {
        match happening {
            Happening::Heard(Ok(Heard::Message(message))) => {
                self.tell(Input::Received(message));
            }
            Happening::Heard(Ok(Heard::PingDue)) => self.tell(Input::Ping),
            Happening::Heard(Err(LinkError::Closed)) if self.is_idle() => self.closing = true,
            Happening::Heard(Err(error)) => {
                let failure = match self.fault.take() {
                    Some((failure, _)) => failure,
                    None => error.failure(&self.peer),
                };
                self.give_up(failure).await;
                self.closing = true;
            }
            Happening::Joined(lane) => {
                self.lanes.join(lane, &self.peer);
                self.prepare_if_joined().await;
            }
            Happening::Engine(event) => self.engine_says(event).await,
            Happening::News(news) => self.learn(news).await,
            Happening::Tick => self.acknowledge(),
            Happening::Late => self.late().await,
            Happening::Stop(urgency) => self.stop(urgency).await,
        }
        self.finish_if_over();
        self.settle().await;
    }

    fn is_idle(&self) -> bool {
        self.transfer.is_none() && self.waiting.is_none() && !self.preparing
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
                self.stop_transfer().await;
                self.failure = Some(misbehaved.failure(Side::Source));
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
                self.lanes.expect(count, self.secret, &self.shared.roster);
            }
            Output::LookUp(name) => self.look_up(&name).await,
            Output::Abort { dataset, token } => self.abort(&dataset, token).await,
            Output::Prepare(open) => {
                self.waiting = Some((Box::new(open), Instant::now() + JOIN_LIMIT));
                self.prepare_if_joined().await;
            }
            Output::Finish(ended) => {
                if let (Some(engine), Some(transfer)) = (&self.engine, &mut self.transfer) {
                    engine.end(ended.transfer(), ended.total(), ended.crc32());
                    transfer.ended = Some(ended);
                }
            }
            Output::Abandon(failure) => {
                self.stop_transfer().await;
                self.failure = Some(failure);
            }
            Output::Close => self.closing = true,
        }
    }

    /// Looks a target up. One that is being received shows the state of that receive, which is
    /// nobody's to plan from: that is said at once.
    async fn look_up(&mut self, name: &RelativeName) {
        let dataset = self.shared.destination.dataset_named(name);
        let free = dataset.and_then(|dataset| {
            self.shared.roster.claim(&dataset, &self.peer).map(|_given_back| dataset)
        });
        match free {
            Ok(dataset) => {
                let destination = self.shared.destination.clone();
                self.ask(move || {
                    let found = destination.look_up(&dataset);
                    News::Found(dataset, found)
                });
            }
            Err(failure) => self.give_up(failure).await,
        }
    }

    /// Gives up a partial state, while nobody else can receive into its dataset.
    async fn abort(&mut self, name: &RelativeName, token: String) {
        let named = self.shared.destination.dataset_named(name);
        let claimed = named.and_then(|dataset| {
            let claim = self.shared.roster.claim(&dataset, &self.peer)?;
            Ok((dataset, claim))
        });
        match claimed {
            Ok((dataset, claim)) => {
                self.claim = Some(claim);
                let destination = self.shared.destination.clone();
                self.ask(move || News::Aborted(destination.abort(&dataset, &token)));
            }
            Err(failure) => self.give_up(failure).await,
        }
    }

    async fn say(&mut self, message: &Message) {
        if let Err(error) = self.link.send(message).await {
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
            News::Found(dataset, Ok(target)) => self.tell(Input::Found { dataset, target }),
            News::Aborted(aborted) => {
                self.claim = None;
                match aborted {
                    Ok(()) => self.tell(Input::Aborted),
                    Err(failure) => self.give_up(failure).await,
                }
            }
            News::Prepared(open, prepared) => {
                self.preparing = false;
                match prepared {
                    Ok(prepared) => self.begin(*open, prepared),
                    Err(failure) => self.give_up(failure).await,
                }
            }
            News::ProcessEnded(Ok(ended)) => self.process_ended(ended).await,
            News::ProcessEnded(Err(error)) => {
                let what = format!("wait for the process that takes the stream: {error}");
                self.give_up(Failure::new(Side::Target, Class::Machine, what)).await;
            }
            News::Verified(Ok(guid)) => self.applied(guid),
            News::Found(_, Err(failure)) | News::Verified(Err(failure)) => {
                self.give_up(failure).await;
            }
        }
    }

    async fn late(&mut self) {
        if let Some((failure, _)) = self.fault.take() {
            return self.give_up(failure).await;
        }
        self.waiting = None;
        self.give_up(self.lanes.missing()).await;
    }

    async fn stop(&mut self, urgency: Stopping) {
        self.stopping = urgency;
        if urgency == Stopping::Now {
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
fn stopping() -> Failure {
    Failure::new(Side::Target, Class::Interrupted, "the server is stopping")
}

fn new_secret() -> Result<JoinSecret, getrandom::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(JoinSecret::new(random))
}
