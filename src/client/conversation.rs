//! The client's end of the control connection: the machine, and the link that it speaks over.

use std::pin::pin;
use std::time::Duration;

use sys::control::Stream;

use crate::error::{Class, Failure, Side};
use crate::link::{Heard, Link, LinkError};
use crate::protocol::message::Hello;
use crate::protocol::negotiate::Agreed;
use crate::protocol::secret::JoinSecret;
use crate::protocol::sender::{Input, Output, Sender};
use crate::protocol::version::Versions;

/// A conversation with one server.
pub(super) struct Conversation {
    link: Link,
    /// `None` once the server has misbehaved.
    machine: Option<Sender>,
    server: String,
    /// Why the server has given up, when nobody waited for its words.
    over: Option<Failure>,
}

impl Conversation {
    /// Says hello to `server` over a connection whose preamble has been sent.
    pub async fn greet(stream: Stream, hello: Hello, server: &str) -> Result<Self, Failure> {
        let mut output = Vec::new();
        let machine = Some(Sender::start(Versions::OURS, hello, &mut output));
        let server = server.to_owned();
        let mut conversation =
            Conversation { link: Link::new(stream), machine, server, over: None };
        conversation.say_all(&mut output).await?;
        Ok(conversation)
    }

    /// Waits for the server's welcome. Whoever is no zferry may never say anything.
    pub async fn welcome(&mut self, limit: Duration) -> Result<(Agreed, JoinSecret), Failure> {
        match tokio::time::timeout(limit, self.hear_welcome()).await {
            Ok(welcome) => welcome,
            Err(_elapsed) => {
                let what = format!(
                    "{} took the connection and said nothing within {} s",
                    self.server,
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
                        tracing::debug!(server = self.server, software, "session");
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
        &self.server
    }

    /// Whether a new wish can be given.
    pub fn is_idle(&self) -> bool {
        self.machine.as_ref().is_none_or(Sender::is_idle)
    }

    /// Waits for what the server says; dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Heard, LinkError> {
        self.link.next().await
    }

    /// Waits for one message or the time for a sign of life, and does what follows.
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

    async fn take_in(&mut self, heard: Result<Heard, LinkError>) -> Result<Vec<Output>, Failure> {
        let input = match heard {
            Ok(Heard::Message(message)) => Input::Received(message),
            Ok(Heard::PingDue) => Input::Ping,
            Err(error) => return Err(error.failure(&self.server)),
        };
        self.advance(input).await
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
                let _ = self.link.send(&misbehaved.farewell(Side::Target)).await;
                return Err(misbehaved.failure(Side::Target));
            }
        }
        self.say_all(&mut output).await?;
        Ok(output)
    }

    /// Ends the connection once all is said.
    pub async fn close(self) {
        self.link.close().await;
    }

    async fn say_all(&mut self, output: &mut Vec<Output>) -> Result<(), Failure> {
        for output in output.extract_if(.., |output| matches!(output, Output::Send(_))) {
            if let Output::Send(message) = output
                && let Err(error) = self.link.send(&message).await
            {
                // A server that has hung up may have said why, which is still to be read; if not,
                // reading tells that it has gone.
                tracing::debug!(server = self.server, %error, "say {}", message.name());
                if matches!(error, LinkError::Silent(_)) {
                    return Err(error.failure(&self.server));
                }
            }
        }
        Ok(())
    }
}
