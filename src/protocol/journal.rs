//! What one end of a session has said and the other may not have heard.
//!
//! Pure. A control connection dies with messages on their way, and nobody can tell which of them
//! arrived. So both ends count what they hear, and keep what they have said until the other's count
//! covers it; over the next connection they exchange the counts and say the rest again. The
//! machines above see one conversation: nothing lost, nothing twice, all in order. What must never
//! happen: that a message is forgotten which the other end has not confirmed.

use std::collections::VecDeque;

use super::message::Message;
use super::misbehaved::PeerMisbehaved;

/// The memory of one end.
///
/// Short by the nature of the conversation: neither end says much before it is answered, and what
/// is said often ([`Message::is_remembered`]) is not kept.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Messages that the other end has confirmed.
    confirmed: u64,
    /// Those after them, in order.
    kept: VecDeque<Message>,
    /// Messages of the other end that were heard.
    heard: u64,
}

impl Journal {
    /// Remembers what is about to be said.
    pub fn say(&mut self, message: &Message) {
        if message.is_remembered() {
            self.kept.push_back(message.clone());
        }
    }

    /// Counts what was heard.
    pub fn hear(&mut self, message: &Message) {
        if message.is_remembered() {
            self.heard += 1;
        }
    }

    /// How many messages of the other end were heard: what to tell it.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// The other end has heard so many of our messages: forgets them.
    pub fn confirm(&mut self, heard: u64) -> Result<(), PeerMisbehaved> {
        let newly = heard
            .checked_sub(self.confirmed)
            .and_then(|newly| usize::try_from(newly).ok())
            .filter(|&newly| newly <= self.kept.len());
        let Some(newly) = newly else {
            let (confirmed, said) = (self.confirmed, self.said());
            return Err(PeerMisbehaved::HeardOther { confirmed, said, got: heard });
        };
        self.kept.drain(..newly);
        self.confirmed = heard;
        Ok(())
    }

    /// What has to be said again over a new connection, in order.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Message> {
        self.kept.iter()
    }

    fn said(&self) -> u64 {
        self.confirmed + self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::message::Watermarks;
    use crate::protocol::window::Credit;
    use crate::units::TransferId;

    fn numbered(number: u32) -> Message {
        Message::List { dataset: format!("a/{number}").parse().unwrap() }
    }

    /// One direction of a conversation over connections that die.
    #[derive(Default)]
    struct OneWay {
        speaker: Journal,
        listener: Journal,
        in_flight: VecDeque<Message>,
        arrived: Vec<Message>,
    }

    impl OneWay {
        fn say(&mut self, message: Message) {
            self.speaker.say(&message);
            self.in_flight.push_back(message);
        }

        fn deliver(&mut self, count: usize) {
            for message in self.in_flight.drain(..count.min(self.in_flight.len())) {
                self.listener.hear(&message);
                self.arrived.push(message);
            }
        }

        fn cut(&mut self) {
            self.speaker.confirm(self.listener.heard()).unwrap();
            self.in_flight = self.speaker.unconfirmed().cloned().collect();
        }
    }

    proptest! {
        #[test]
        fn every_message_arrives_once_and_in_order_wherever_connections_die(
            steps in prop::collection::vec((0..4u8, 0..4usize), 0..60)
        ) {
            let mut way = OneWay::default();
            let mut said = Vec::new();
            for (number, (step, count)) in (0..).zip(steps) {
                match step {
                    0 | 1 => {
                        said.push(numbered(number));
                        way.say(numbered(number));
                    }
                    2 => way.deliver(count),
                    _ => way.cut(),
                }
                prop_assert!(said.starts_with(&way.arrived));
            }
            way.cut();
            way.deliver(usize::MAX);
            prop_assert_eq!(said, way.arrived);
        }
    }

    #[test]
    fn what_the_next_of_its_kind_replaces_is_neither_kept_nor_counted() {
        let (mut us, mut them) = (Journal::default(), Journal::default());
        let ack = Message::Ack {
            transfer: TransferId(1),
            reached: Watermarks::default(),
            credit: Credit::default(),
        };
        for message in [ack, Message::Ping { heard: 0 }] {
            us.say(&message);
            them.hear(&message);
        }
        assert_eq!((us.unconfirmed().count(), them.heard()), (0, 0));
    }

    #[test]
    fn a_count_beyond_what_was_said_or_below_what_was_confirmed_is_a_lie() {
        let mut us = Journal::default();
        us.say(&numbered(1));
        us.say(&numbered(2));
        us.confirm(1).unwrap();
        let told = us.confirm(3).unwrap_err().to_string();
        assert_eq!(told, "it says to have heard 3 messages; 1 were heard before, 2 said");
        assert!(us.confirm(0).is_err());
        assert!(us.confirm(u64::MAX).is_err());
        assert_eq!(us.unconfirmed().collect::<Vec<_>>(), [&numbered(2)]);
    }
}
