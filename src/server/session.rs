//! One client's session at the server: a loop that names what happened, and does what follows.
//!
//! All decisions are the machine's ([`crate::protocol::receiver`]); this file only carries its
//! orders out. What must never happen here: a process that takes the end of a cut stream for the
//! stream's end, and a session that leaves a process behind.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sys::control::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::destination::Prepared;
use super::roster::{Claim, Lane};
use super::transfer::{ProcessState, Transfer};
use super::{Shared, Stopping};
use crate::dataset::{DatasetName, Guid};
use crate::engine::receiver::{Agreed, Event, Fed, Receiver as Engine};
use crate::error::{Class, Failure, Side};
use crate::link::{Heard, Link, LinkError};
use crate::listing::TargetState;
use crate::process::Ended as ProcessEnded;
use crate::protocol::frame::Codec;
use crate::protocol::message::{Message, Open, RelativeName, Start};
use crate::protocol::negotiate::{BLOCK_BYTES_MAX, Limits};
use crate::protocol::receiver::{Input, Offer, Output, Receiver};
use crate::protocol::secret::JoinSecret;
use crate::protocol::version::Version;

/// How long data connections may take to join after the client has asked for a transfer.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// How often the client hears how far a transfer is.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(200);

/// When a data connection breaks, the reason may be on its way on the control connection.
const REASON_LIMIT: Duration = Duration::from_secs(2);

/// How long a `zfs receive` whose stream was cut may take to keep what it has: it waits for a
/// transaction group.
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// How long a command of the user's may take to obey SIGTERM.
const TERMINATE_LIMIT: Duration = Duration::from_secs(5);

/// What other threads tell the session.
enum News {
    Found(DatasetName, Result<TargetState, Failure>),
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
    lanes: UnboundedReceiver<Lane>,
    lane_inbox: UnboundedSender<Lane>,
    secret: JoinSecret,
    joined: Vec<Option<OwnedFd>>,
    engine: Option<Engine>,
    agreed: Option<Agreed>,
    events: UnboundedReceiver<Event>,
    event_inbox: UnboundedSender<Event>,
    news: UnboundedReceiver<News>,
    news_inbox: UnboundedSender<News>,
    /// A transfer that waits for data connections.
    waiting: Option<(Box<Open>, Instant)>,
    claim: Option<Claim>,
    transfer: Option<Transfer>,
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
    let (lane_inbox, lanes) = unbounded_channel();
    let (event_inbox, events) = unbounded_channel();
    let (news_inbox, news) = unbounded_channel();
    let session = Session {
        shared,
        link: Link::new(stream),
        peer,
        machine: Some(Receiver::new(offer)),
        inputs: VecDeque::new(),
        lanes,
        lane_inbox,
        secret,
        joined: Vec::new(),
        engine: None,
        agreed: None,
        events,
        event_inbox,
        news,
        news_inbox,
        waiting: None,
        claim: None,
        transfer: None,
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
            Some(lane) = self.lanes.recv() => Happening::Joined(lane),
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
            Happening::Joined(lane) => self.join(lane).await,
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
        self.transfer.is_none() && self.waiting.is_none()
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
                self.joined.resize_with(usize::from(agreed.limits.connections), || None);
                self.shared.roster.expect(self.secret, self.lane_inbox.clone());
            }
            Output::LookUp(name) => self.look_up(&name).await,
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

    async fn join(&mut self, Lane { lane, fd }: Lane) {
        match self.joined.get_mut(usize::from(lane)) {
            Some(place @ None) if self.engine.is_none() => *place = Some(fd),
            _ => tracing::warn!(peer = self.peer, lane, "refused a data connection too many"),
        }
        self.prepare_if_joined().await;
    }

    async fn prepare_if_joined(&mut self) {
        if self.engine.is_none() && self.joined.iter().any(Option::is_none) {
            return;
        }
        let Some((open, _)) = self.waiting.take() else { return };
        match self.ready_for(&open) {
            Ok(()) => {
                let destination = self.shared.destination.clone();
                self.ask(move || {
                    let prepared = destination.prepare(&open.request.stream);
                    News::Prepared(open, prepared)
                });
            }
            Err(failure) => self.give_up(failure).await,
        }
    }

    /// Checks that the transfer belongs here, claims its dataset, and has an engine running.
    fn ready_for(&mut self, open: &Open) -> Result<(), Failure> {
        let destination = &self.shared.destination;
        if let Some(dataset) = destination.dataset_of(&open.request.stream)? {
            self.claim = Some(self.shared.roster.claim(&dataset, &self.peer)?);
        }
        let wanted = Agreed { codec: open.request.codec, block_bytes: open.request.block_bytes };
        match self.agreed {
            Some(agreed) if agreed == wanted => return Ok(()),
            Some(_) => {
                let what = "a transfer asked for other blocks than the first of its session";
                return Err(Failure::new(Side::Source, Class::Peer, what));
            }
            None => self.agreed = Some(wanted),
        }
        let connections = self.joined.drain(..).flatten().collect();
        let engine =
            Engine::start(&self.shared.options.engine, wanted, connections, &self.event_inbox)?;
        self.engine = Some(engine);
        Ok(())
    }

    async fn learn(&mut self, news: News) {
        match news {
            News::Found(dataset, Ok(target)) => self.tell(Input::Found { dataset, target }),
            News::Found(_, Err(failure)) | News::Prepared(_, Err(failure)) => {
                self.give_up(failure).await;
            }
            News::Prepared(open, Ok(prepared)) => self.begin(*open, prepared),
            News::ProcessEnded(Ok(ended)) => self.process_ended(ended).await,
            News::ProcessEnded(Err(error)) => {
                let what = format!("wait for the process that takes the stream: {error}");
                self.give_up(Failure::new(Side::Target, Class::Machine, what)).await;
            }
            News::Verified(Ok(guid)) => self.applied(guid),
            News::Verified(Err(failure)) => self.give_up(failure).await,
        }
    }

    fn begin(&mut self, open: Open, prepared: Prepared) {
        let Some(engine) = &self.engine else { return };
        let Prepared { sink, process } = prepared;
        let stopper = process.as_ref().map(crate::process::Process::stopper);
        let state = match process {
            None => ProcessState::None,
            Some(process) => {
                self.ask(move || News::ProcessEnded(process.wait()));
                ProcessState::Running
            }
        };
        self.transfer = Some(Transfer {
            id: open.transfer,
            stream: open.request.stream,
            started: Instant::now(),
            base: engine.progress().fed(),
            stopper,
            process: state,
            ended: None,
            fed: false,
            _claim: self.claim.take(),
        });
        engine.begin(open.transfer, open.request.epoch, sink);
        self.tell(Input::Prepared(Start::FromStart));
    }

    async fn engine_says(&mut self, event: Event) {
        match event {
            Event::Fed(Fed { transfer, total }) => {
                tracing::debug!(%transfer, %total, "fed");
                if let Some(transfer) = &mut self.transfer {
                    transfer.fed = true;
                }
            }
            Event::ConnectionEnded(lane) if self.transfer.is_some() => {
                let what = format!("data connection {lane} was closed in the middle of a transfer");
                self.wait_for_reason(Failure::new(Side::Network, Class::Interrupted, what));
            }
            Event::ConnectionEnded(_) => {}
            Event::Failed(fault) if fault.is_broken_pipe() => self.reader_gone().await,
            Event::Failed(fault) => {
                let failure = fault.failure(Side::Target);
                if failure.class == Class::Interrupted {
                    self.wait_for_reason(failure);
                } else {
                    self.give_up(failure).await;
                }
            }
        }
    }

    /// Remembers a failure that most likely follows from another one, about which the client may
    /// be telling us at this moment.
    fn wait_for_reason(&mut self, failure: Failure) {
        if self.fault.is_none() {
            self.fault = Some((failure, Instant::now() + REASON_LIMIT));
        }
    }

    /// The process stopped reading before the stream ended: it knows why.
    async fn reader_gone(&mut self) {
        if let Some(transfer) = &self.transfer
            && transfer.process_ended().is_none()
            && transfer.stopper.is_some()
        {
            let what = "the process that takes the stream does not read it any more";
            self.wait_for_reason(Failure::new(Side::Target, Class::Interrupted, what));
            return;
        }
        let failure = self.early_end();
        self.give_up(failure).await;
    }

    async fn process_ended(&mut self, ended: ProcessEnded) {
        let Some(transfer) = &mut self.transfer else { return };
        let success = ended.success();
        transfer.process = ProcessState::Ended(ended);
        // One that succeeded may be faster than the news that it has taken everything.
        if !transfer.fed && (!success || self.fault.is_some()) {
            let failure = self.early_end();
            self.give_up(failure).await;
        }
    }

    /// What to say of a process that ended before the stream did.
    fn early_end(&self) -> Failure {
        let complaint = self.transfer.as_ref().and_then(|transfer| {
            let ended = transfer.process_ended()?;
            self.shared.destination.complaint(&transfer.stream, ended)
        });
        complaint.unwrap_or_else(|| {
            let what = "whatever takes the stream stopped reading before its end";
            Failure::new(Side::Target, Class::Interrupted, what)
        })
    }

    fn acknowledge(&mut self) {
        let (Some(engine), Some(transfer)) = (&self.engine, &self.transfer) else { return };
        let progress = engine.progress();
        let reached = transfer.watermarks(progress.received(), progress.fed());
        self.tell(Input::Progress(reached));
    }

    async fn late(&mut self) {
        if let Some((failure, _)) = self.fault.take() {
            return self.give_up(failure).await;
        }
        self.waiting = None;
        let joined = self.joined.iter().flatten().count();
        let what = format!(
            "only {joined} of {} data connections arrived within {} seconds",
            self.joined.len(),
            JOIN_LIMIT.as_secs()
        );
        let failure = Failure::new(Side::Network, Class::Interrupted, what)
            .with_remedy("check for a firewall that limits connections, or use --connections 1");
        self.give_up(failure).await;
    }

    async fn stop(&mut self, urgency: Stopping) {
        self.stopping = urgency;
        let failure = Failure::new(Side::Target, Class::Interrupted, "the server is stopping");
        if urgency == Stopping::Now {
            self.give_up(failure).await;
        } else if self.is_idle() {
            self.tell(Input::Failed(failure));
        }
    }

    fn finish_if_over(&mut self) {
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.is_over()) else {
            return;
        };
        // Asked once: `fed` is what made it over.
        transfer.fed = false;
        let destination = self.shared.destination.clone();
        let stream = transfer.stream.clone();
        let ended = transfer.process_ended().cloned();
        self.ask(move || News::Verified(destination.verify(&stream, ended.as_ref())));
    }

    fn applied(&mut self, guid: Option<Guid>) {
        self.acknowledge();
        let Some(transfer) = self.transfer.take() else { return };
        let Some(ended) = transfer.ended else { return };
        let (bytes, taken) = (ended.total().bytes_before(), transfer.started.elapsed());
        tracing::info!(
            peer = self.peer, transfer = %transfer.id, %bytes, seconds = taken.as_secs_f32(),
            "received"
        );
        let millis = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
        self.tell(Input::Applied { ended, guid, millis });
        self.applied = true;
        self.closing |= self.stopping > Stopping::No;
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

    /// Ends the engine and the process that takes the stream. A command of the user's is told to
    /// stop before its input ends, for it would take the end of the bytes for the end of the
    /// stream; a `zfs receive` knows better, and keeps what it has.
    async fn stop_transfer(&mut self) {
        self.waiting = None;
        self.claim = None;
        let Some(transfer) = self.transfer.take() else { return };
        let stopping =
            self.engine.take().map(|engine| tokio::task::spawn_blocking(move || engine.stop()));
        let is_dataset = matches!(transfer.stream, crate::protocol::message::Stream::Dataset(_));
        let running = matches!(transfer.process, ProcessState::Running);
        if let (Some(stopper), true, false) = (&transfer.stopper, running, is_dataset) {
            // That it has just ended by itself is as good.
            let _ = stopper.terminate();
            self.await_process(TERMINATE_LIMIT, &transfer).await;
        }
        if let Some(stopping) = stopping {
            drop(stopping.await);
        }
        if running && is_dataset {
            self.await_process(SAVE_LIMIT, &transfer).await;
        }
    }

    /// Waits for the process to end, and kills it when it does not.
    async fn await_process(&mut self, limit: Duration, transfer: &Transfer) {
        let ended = async {
            while let Some(news) = self.news.recv().await {
                if matches!(news, News::ProcessEnded(_)) {
                    break;
                }
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err()
            && let Some(stopper) = &transfer.stopper
        {
            tracing::warn!(peer = self.peer, "killed a process that did not end by itself");
            let _ = stopper.kill();
        }
    }
}

fn new_secret() -> Result<JoinSecret, getrandom::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(JoinSecret::new(random))
}
