//! What a session talks over: one link after another, and nothing that was said is lost.
//!
//! While there is no link, what is said is remembered and nothing is heard. What must never happen:
//! that a message which the peer may have missed is not said again, or one that it has heard is,
//! unless one of both has lost its memory.

use super::{Heard, Link, LinkError};
use crate::protocol::journal::Journal;
use crate::protocol::message::Message;
use crate::protocol::standing::{Return, Returned, Standing};

/// One end of a conversation.
#[derive(Debug)]
pub struct Line {
    link: Option<Link>,
    journal: Journal,
}

impl Line {
    /// A conversation that begins over `link`.
    pub fn new(link: Link) -> Line {
        Line { link: Some(link), journal: Journal::default() }
    }

    /// A conversation that another process led before this one. It goes on over the next link.
    pub fn restored() -> Line {
        Line { link: None, journal: Journal::unknowing() }
    }

    /// Says something, now or over the next link.
    pub async fn say(&mut self, message: &Message) -> Result<(), LinkError> {
        self.journal.say(message);
        match &mut self.link {
            Some(link) => link.send(message).await,
            None => Ok(()),
        }
    }

    /// Gives a sign of life, with what was heard so far.
    pub async fn ping(&mut self) -> Result<(), LinkError> {
        let heard = self.journal.heard();
        self.say(&Message::Ping { heard }).await
    }

    /// Waits for what the peer says, and keeps up the signs of life meanwhile; for ever while there
    /// is no link. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Message, LinkError> {
        loop {
            if self.link.is_none() {
                return std::future::pending().await;
            }
            if let Some(message) = self.step().await? {
                return Ok(message);
            }
        }
    }

    /// Waits until the peer has confirmed all that it must hear. What else it says is of no more
    /// use to whoever waits for this.
    pub async fn until_heard(&mut self) -> Result<(), LinkError> {
        while !self.is_heard() {
            self.step().await?;
        }
        Ok(())
    }

    /// What is heard next, unless it is a sign of life.
    async fn step(&mut self) -> Result<Option<Message>, LinkError> {
        match self.link.as_mut().ok_or(LinkError::Closed)?.next().await? {
            Heard::PingDue => self.ping().await?,
            Heard::Message(Message::Ping { heard }) => self.journal.confirm(heard)?,
            Heard::Message(message) => {
                self.journal.hear(&message);
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Whether the peer has confirmed all that it must hear.
    pub fn is_heard(&self) -> bool {
        self.journal.unconfirmed().next().is_none()
    }

    /// Gives a link up that broke.
    pub fn cut(&mut self) {
        self.link = None;
    }

    /// Client: what to tell the server over the next link.
    pub fn returning(&self) -> Return {
        self.journal.returning()
    }

    /// Client: takes what the server answered. [`Line::go_on`] follows.
    pub fn accept(&mut self, server: &Returned) -> Result<(), LinkError> {
        Ok(self.journal.accept(server)?)
    }

    /// Server: what to answer a client over the link that it came back with. [`Line::go_on`]
    /// follows. `None`: it must be told where this end `stand`s, which cannot be said.
    pub fn answer(
        &mut self,
        client: Return,
        stand: impl FnOnce() -> Option<Standing>,
    ) -> Result<Option<Returned>, LinkError> {
        Ok(self.journal.answer(client, stand)?)
    }

    /// Goes on over `link`, where both ends know what the other has heard: says the rest again.
    pub async fn go_on(&mut self, mut link: Link) -> Result<(), LinkError> {
        self.link = None;
        for message in self.journal.unconfirmed() {
            link.send(message).await?;
        }
        self.link = Some(link);
        Ok(())
    }

    /// Says good-bye over the link, if there is one.
    pub async fn close(self) {
        if let Some(link) = self.link {
            link.close().await;
        }
    }
}
