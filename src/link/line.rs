//! What a session talks over: one link after another, and nothing that was said is lost.
//!
//! While there is no link, what is said is remembered and nothing is heard. What must never happen:
//! that a message which the peer may have missed is not said again, or one that it has heard is.

use super::{Heard, Link, LinkError};
use crate::protocol::journal::Journal;
use crate::protocol::message::Message;

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
            let Some(link) = &mut self.link else { return std::future::pending().await };
            match link.next().await? {
                Heard::PingDue => self.ping().await?,
                Heard::Message(Message::Ping { heard }) => self.journal.confirm(heard)?,
                Heard::Message(message) => {
                    self.journal.hear(&message);
                    return Ok(message);
                }
            }
        }
    }

    /// Whether the peer has confirmed all that it must hear.
    pub fn is_heard(&self) -> bool {
        self.journal.unconfirmed().next().is_none()
    }

    /// Gives a link up that broke.
    pub fn cut(&mut self) {
        self.link = None;
    }

    /// How many remembered messages of the peer were heard: what it is told at a return.
    pub fn heard(&self) -> u64 {
        self.journal.heard()
    }

    /// Goes on over `link`, whose other end has heard so many of our messages: says the rest again.
    pub async fn go_on(&mut self, mut link: Link, heard: u64) -> Result<(), LinkError> {
        self.link = None;
        self.journal.confirm(heard)?;
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
