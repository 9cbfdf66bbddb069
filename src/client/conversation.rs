//! The client's end of the conversation: the machine, and the line that it speaks over.

use std::pin::pin;
use std::time::Duration;

use sys::control::Stream;

use super::dial::Dial;
use super::reconnect::{Back, Patience, Reconnect, try_once};
use crate::error::{Class, Failure, Side};
use crate::link::{Answer, Line, Link, LinkError};
use crate::protocol::message::{Hello, Message};
use crate::protocol::negotiate::Agreed;
use crate::protocol::secret::JoinSecret;
use crate::protocol::sender::{Input, Output, Sender};
use crate::protocol::version::Versions;

/// How long the last words are worth waiting for: two round trips of a slow line, and a handshake
/// if its connection is lost. A server that did not get them ends as well, after half a minute.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// A conversation with one server.
pub(super) struct Conversation {
    line: Line,
    dial: Dial,
    /// What the server knows this session by, once it stands.
    secret: Option<JoinSecret>,
    /// The attempts to get a lost connection back.
    reconnect: Option<Reconnect>,
    /// What is left of the patience with connections that are lost, until the transfer moves on.
    patience: Option<Patience>,
    retry_for: Duration,
    /// `None` once the server has misbehaved.
    machine: Option<Sender>,
    /// Why the server has given up, when nobody waited for its words.
    over: Option<Failure>,
}

/// What can happen on the line.
pub(super) enum Heard {
    Message(Message),
    /// The connection is gone.
    Lost(LinkError),
    /// There is another one.
    Back(Box<Back>),
    /// There will be none.
    Gone(Failure),
}

/// Why a conversation does not go on over a new connection.
pub(super) enum NotBack {
    /// It was lost as well.
    Lost(LinkError),
    /// The conversation is over.
    Over(Failure),
}

impl From<LinkError> for NotBack {
    fn from(error: LinkError) -> NotBack {
        NotBack::Lost(error)
    }
}

impl From<Failure> for NotBack {
    fn from(failure: Failure) -> NotBack {
        NotBack::Over(failure)
    }
}

impl Conversation {
    /// Connects, says hello to the server, and waits for its welcome.
    pub async fn begin(
        mut dial: Dial,
        hello: Hello,
        retry_for: Duration,
    ) -> Result<(Conversation, Agreed, JoinSecret), Failure> {
        let mut patience = Patience::begin(dial.door_patience().min(retry_for));
        let mut last = None;
        while patience.next().await {
            let stream = dial.connect().await?;
            match Conversation::meet(dial.clone(), stream, hello.clone(), retry_for).await {
                Err(closed) if closed.class == Class::Interrupted => last = Some(closed),
                met => return met,
            }
        }
        Err(last.unwrap_or_else(|| patience.exhausted(None)))
    }

    /// The same over one connection.
    async fn meet(
        dial: Dial,
        stream: Stream,
        hello: Hello,
        retry_for: Duration,
    ) -> Result<(Conversation, Agreed, JoinSecret), Failure> {
        let line = Line::new(Link::new(dial.control(stream).await?));
        let mut output = Vec::new();
        let machine = Some(Sender::start(Versions::OURS, hello, &mut output));
        let mut conversation = Conversation {
            line,
            dial,
            secret: None,
            reconnect: None,
            patience: None,
            retry_for,
            machine,
            over: None,
        };
        conversation.say_all(&mut output).await?;
        let (agreed, secret) = conversation.welcome().await?;
        Ok((conversation, agreed, secret))
    }

    /// Goes on where a process led the conversation that has died: `line` has heard the server's
    /// answer `over` a link, and `output` is what the machine orders.
    pub async fn restored(
        mut line: Line,
        over: Link,
        dial: Dial,
        secret: JoinSecret,
        (machine, output): (Sender, &mut Vec<Output>),
        retry_for: Duration,
    ) -> Result<Self, Failure> {
        line.go_on(over).await.map_err(|error| error.failure(dial.name()))?;
        let mut conversation = Conversation {
            line,
            dial,
            secret: Some(secret),
            reconnect: None,
            patience: None,
            retry_for,
            machine: Some(machine),
            over: None,
        };
        conversation.say_all(output).await?;
        Ok(conversation)
    }

    /// Waits for the server's welcome. Whoever is no zferry may never say anything.
    async fn welcome(&mut self) -> Result<(Agreed, JoinSecret), Failure> {
        let limit = self.dial.limit();
        match tokio::time::timeout(limit, self.hear_welcome()).await {
            Ok(welcome) => welcome,
            Err(_elapsed) => {
                let what = format!(
                    "{} took the connection and said nothing within {} s",
                    self.server(),
                    limit.as_secs()
                );
                Err(Failure::new(Side::Network, Class::Interrupted, what).with_remedy(
                    "check that it is a zferry that listens there, or use --connect-timeout",
                ))
            }
        }
    }

    async fn hear_welcome(&mut self) -> Result<(Agreed, JoinSecret), Failure> {
        loop {
            for output in self.hear().await? {
                match output {
                    Output::Ready { agreed, secret, software } => {
                        tracing::debug!(server = self.server(), software, "session");
                        self.secret = Some(secret);
                        return Ok((agreed, secret));
                    }
                    Output::Failed(failure) => return Err(failure),
                    _ => {}
                }
            }
        }
    }

    /// What messages call the server.
    pub fn server(&self) -> &str {
        self.dial.name()
    }

    /// How the server is reached.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Whether a new wish can be given.
    pub fn is_idle(&self) -> bool {
        self.machine.as_ref().is_none_or(Sender::is_idle)
    }

    /// Whether there is a connection to the server.
    pub fn is_up(&self) -> bool {
        self.reconnect.is_none()
    }

    /// Waits for what happens on the line; dropping the future loses nothing.
    pub async fn next(&mut self) -> Heard {
        if let Some(reconnect) = &mut self.reconnect {
            return match reconnect.back().await {
                Ok(back) => Heard::Back(Box::new(back)),
                Err(failure) => {
                    self.reconnect = None;
                    self.over = Some(failure.clone());
                    Heard::Gone(failure)
                }
            };
        }
        match self.line.next().await {
            Ok(message) => Heard::Message(message),
            Err(error) => Heard::Lost(error),
        }
    }

    /// Begins to get a lost connection back. What is said meanwhile is said then.
    pub fn reconnect(&mut self, lost: &LinkError) -> Result<(), Failure> {
        self.line.cut();
        let Some(secret) = self.secret.filter(|_| !self.retry_for.is_zero()) else {
            return Err(lost.failure(self.server()));
        };
        tracing::warn!(server = self.server(), %lost, "lost the connection; connecting again");
        let retry_for = self.retry_for;
        let patience = self.patience.get_or_insert_with(|| Patience::begin(retry_for)).clone();
        let client = self.line.returning();
        self.reconnect = Some(Reconnect::start(self.dial.clone(), secret, client, patience));
        Ok(())
    }

    /// The transfer moves: whatever is lost from now on is lost for the first time.
    pub fn moves_on(&mut self) {
        if self.reconnect.is_none() {
            self.patience = None;
        }
    }

    /// Goes on over a new connection. What the machine orders follows from where a server stands
    /// that has lost its memory.
    pub async fn come_back(&mut self, back: Back) -> Result<Vec<Output>, NotBack> {
        self.reconnect = None;
        let Back { link, server, patience } = back;
        self.line.accept(&server)?;
        self.line.go_on(link).await?;
        tracing::info!(server = self.server(), attempts = patience.made(), "connected again");
        self.patience = Some(patience);
        match server.standing {
            Some(standing) => Ok(self.advance(Input::Stands(standing)).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Waits for one message, and does what follows.
    pub async fn hear(&mut self) -> Result<Vec<Output>, Failure> {
        let heard = self.next().await;
        self.take_in(heard).await
    }

    /// Waits for `work`, and goes on to give and take signs of life meanwhile. That the server has
    /// given up is told by the next wish: what `work` does for the last one is still of use.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        while self.over.is_none() {
            let heard = tokio::select! {
                done = work.as_mut() => return done,
                heard = self.next() => heard,
            };
            self.over = match self.take_in(heard).await {
                Ok(news) => news.into_iter().find_map(|news| match news {
                    Output::Failed(failure) => Some(failure),
                    _ => None,
                }),
                Err(failure) => Some(failure),
            };
        }
        work.await
    }

    /// Gives the machine a wish; fails if the server has given up since the last one.
    pub async fn wish(&mut self, wish: Input) -> Result<Vec<Output>, Failure> {
        match self.over.take() {
            Some(failure) => Err(failure),
            None => self.advance(wish).await,
        }
    }

    /// Where nothing is under way, a lost connection is the end: to start anew costs no more.
    async fn take_in(&mut self, heard: Heard) -> Result<Vec<Output>, Failure> {
        match heard {
            Heard::Message(message) => self.advance(Input::Received(message)).await,
            Heard::Lost(error) => Err(error.failure(self.server())),
            Heard::Gone(failure) => Err(failure),
            Heard::Back(back) => match self.come_back(*back).await {
                Ok(news) => Ok(news),
                Err(NotBack::Lost(error)) => Err(error.failure(self.server())),
                Err(NotBack::Over(failure)) => Err(failure),
            },
        }
    }

    /// Gives the machine an input, says what it wants said, and returns the rest of its orders.
    pub async fn advance(&mut self, input: Input) -> Result<Vec<Output>, Failure> {
        let Some(running) = self.machine.take() else {
            return Err(Failure::new(Side::Network, Class::Interrupted, "the session is over"));
        };
        let mut output = Vec::new();
        match running.handle(input, &mut output) {
            Ok(next) => self.machine = Some(next),
            Err(misbehaved) => {
                let _ = self.line.say(&misbehaved.farewell(Side::Target)).await;
                return Err(misbehaved.failure(Side::Target));
            }
        }
        self.say_all(&mut output).await?;
        Ok(output)
    }

    /// Parts from the server: tells it that nothing more will come, or the failure because of which
    /// that is so, unless it knows.
    pub async fn part(mut self, failure: Option<&Failure>) {
        if let Some(words) = self.last_words(failure) {
            // A server that has misbehaved hears nothing.
            let _ = self.advance(words).await;
            if tokio::time::timeout(FAREWELL_LIMIT, Box::pin(self.is_heard_out())).await.is_err() {
                tracing::debug!(server = self.server(), "has not confirmed the last words");
            }
        }
        self.line.close().await;
    }

    /// What a server does not know that waits for a wish, or answers one. In a transfer it learns
    /// of failures otherwise.
    fn last_words(&self, failure: Option<&Failure>) -> Option<Input> {
        let machine = self.machine.as_ref()?;
        if machine.is_idle() {
            return Some(Input::Bye);
        }
        failure.filter(|_| machine.is_asking()).cloned().map(Input::Failed)
    }

    /// Waits until the server has confirmed the last words, and says them again where a connection
    /// is lost before: it would wait for us to come back.
    async fn is_heard_out(&mut self) {
        let Some(secret) = self.secret else { return };
        let mut patience = Patience::begin(FAREWELL_LIMIT);
        while self.line.until_heard().await.is_err() {
            self.line.cut();
            if !patience.next().await {
                return;
            }
            match try_once(&self.dial, secret, self.line.returning()).await {
                Ok((Answer::Returned(server), link)) => {
                    // What fails here shows at the next look.
                    if self.line.accept(&server).is_ok() {
                        let _ = self.line.go_on(link).await;
                    }
                }
                // It has ended the session, so it has heard them, or needs them no more.
                Ok((Answer::Refused(_), _)) => return,
                Err(failure) => tracing::debug!(%failure, "say the last words again"),
            }
        }
    }

    async fn say_all(&mut self, output: &mut Vec<Output>) -> Result<(), Failure> {
        for output in output.extract_if(.., |output| matches!(output, Output::Send(_))) {
            let Output::Send(message) = output else { continue };
            let mut said = self.line.say(&message).await;
            if said.is_ok() && matches!(message, Message::ListOn { .. }) {
                // What was heard of a large tree need not stay in the server's memory.
                said = self.line.ping().await;
            }
            if let Err(error) = said {
                // A server that has hung up may have said why, which is still to be read; if not,
                // reading tells that it has gone.
                tracing::debug!(server = self.server(), %error, "say {}", message.name());
            }
        }
        Ok(())
    }
}
