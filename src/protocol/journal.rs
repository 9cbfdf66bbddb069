//! What one end of a session has said and the other may not have heard.
//!
//! Pure. A control connection dies with messages on their way, and nobody can tell which of them
//! arrived. So both ends count what they hear, and keep what they have said until the other's count
//! covers it; over the next connection they exchange the counts and say the rest again. The
//! machines above see one conversation: nothing lost, nothing twice, all in order. What must never
//! happen: that a message is forgotten which the other end has not confirmed.
//!
//! A process that took over from one that died has no counts to show. Then the server says where
//! it stands, and both count anew. It numbers each such beginning, for the answer may be lost: a
//! client that counts from another beginning than the server is told once more.

use std::collections::VecDeque;

use super::message::Message;
use super::misbehaved::PeerMisbehaved;
use super::standing::{Return, Returned, Standing};
use crate::units::TransferId;

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
    /// Which beginning the counts are from.
    beginning: u32,
    /// What was said before this process took over is not known.
    unknowing: bool,
    /// The last `Result`, confirmed or not: a client that takes over has to hear it.
    result: Option<(TransferId, Message)>,
}

impl Journal {
    /// The memory of a process that has taken over, and does not know what was said before.
    pub fn unknowing() -> Journal {
        Journal { unknowing: true, ..Journal::default() }
    }

    /// Remembers what is about to be said.
    pub fn say(&mut self, message: &Message) {
        if message.is_remembered() {
            self.kept.push_back(message.clone());
        }
        if let Message::Result { transfer, .. } = message {
            self.result = Some((*transfer, message.clone()));
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

    /// Client: what to say first over a new connection.
    pub fn returning(&self) -> Return {
        Return { heard: self.heard, beginning: self.beginning, anew: self.unknowing }
    }

    /// Server: what to answer a client that comes back; what has to be said again is behind it.
    /// Where the counts of both do not belong together, `stand` is asked where this end stands; if
    /// it cannot tell, the session cannot go on, and nothing has changed here.
    pub fn answer(
        &mut self,
        client: Return,
        stand: impl FnOnce() -> Option<Standing>,
    ) -> Result<Option<Returned>, PeerMisbehaved> {
        if !client.anew && !self.unknowing && client.beginning == self.beginning {
            self.confirm(client.heard)?;
            return Ok(Some(Returned { heard: self.heard, ..Returned::default() }));
        }
        let Some(standing) = stand() else { return Ok(None) };
        // Saturates: a client that has seen 2^32 beginnings confuses nobody but itself.
        let beginning = self.beginning.max(client.beginning).saturating_add(1);
        self.begin_anew(beginning, standing.transfer);
        Ok(Some(Returned { heard: 0, standing: Some(standing), beginning }))
    }

    /// Client: what the server answered; what has to be said again is behind it.
    pub fn accept(&mut self, server: &Returned) -> Result<(), PeerMisbehaved> {
        match &server.standing {
            Some(standing) => self.begin_anew(server.beginning, standing.transfer),
            None if self.unknowing => return Err(PeerMisbehaved::NoStanding),
            None => self.confirm(server.heard)?,
        }
        Ok(())
    }

    /// Counts from 0, and forgets what was kept: where the server stands says as much. But what
    /// became of the transfer that goes on is said again.
    fn begin_anew(&mut self, beginning: u32, transfer: TransferId) {
        let result = self.result.take().filter(|(of, _)| *of == transfer);
        let kept = result.iter().map(|(_, message)| message.clone()).collect();
        *self = Journal { kept, beginning, result, ..Journal::default() };
    }

    fn said(&self) -> u64 {
        self.confirmed + self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::message::{Applied, Outcome, Watermarks};
    use crate::protocol::window::{Arrived, Credit};
    use crate::units::{Bytes, TransferId};

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

    fn standing(transfer: u32) -> Standing {
        Standing {
            transfer: TransferId(transfer),
            reached: Watermarks::default(),
            credit: Credit::default(),
            arrived: Arrived::default(),
            ended: true,
        }
    }

    fn result(transfer: u32) -> Message {
        let applied = Applied { guid: None, bytes: Bytes(0), millis: 0 };
        let (transfer, outcome) = (TransferId(transfer), Outcome::Applied(applied));
        Message::Result { transfer, outcome }
    }

    /// One end, and what went in and came out since it counts from where it counts now.
    struct End {
        journal: Journal,
        said: Vec<Message>,
        arrived: Vec<Message>,
    }

    /// Both ends, connections that die, and processes that do.
    struct Both {
        client: End,
        server: End,
        /// What is on its way to the server, and to the client, while there is a connection.
        wires: Option<[VecDeque<Message>; 2]>,
        /// What a client said first on a connection that the server has yet to look at. It dies
        /// with that server.
        late: Option<Return>,
    }

    impl End {
        fn new(journal: Journal) -> End {
            let said = journal.unconfirmed().cloned().collect();
            End { journal, said, arrived: Vec::new() }
        }

        fn say(&mut self, message: Message, wire: Option<&mut VecDeque<Message>>) {
            self.journal.say(&message);
            if let Some(wire) = wire {
                wire.push_back(message.clone());
            }
            self.said.push(message);
        }

        fn hear(&mut self, wire: &mut VecDeque<Message>, count: usize) {
            for message in wire.drain(..count.min(wire.len())) {
                self.journal.hear(&message);
                self.arrived.push(message);
            }
        }

        /// Counts anew, where it does.
        fn follow(&mut self, before: u32) {
            if self.journal.beginning != before {
                *self = End::new(std::mem::take(&mut self.journal));
            }
        }
    }

    impl Both {
        fn new() -> Both {
            let end = || End::new(Journal::default());
            let wires = Some([VecDeque::new(), VecDeque::new()]);
            Both { client: end(), server: end(), wires, late: None }
        }

        /// The server answers; its old connection is gone. It has no answer to a wrong count.
        fn answer(&mut self, client: Return) -> Option<Returned> {
            self.wires = None;
            let before = self.server.journal.beginning;
            let answer = self.server.journal.answer(client, || Some(standing(1)));
            self.server.follow(before);
            answer.ok().map(|answer| answer.expect("it stands somewhere"))
        }

        fn come_back(&mut self, heard: bool) {
            let client = self.client.journal.returning();
            let answer = self.answer(client).expect("a client that counts right");
            self.late = Some(client);
            if heard {
                let before = self.client.journal.beginning;
                self.client.journal.accept(&answer).expect("a server that counts right");
                self.client.follow(before);
                let again = |end: &End| end.journal.unconfirmed().cloned().collect();
                self.wires = Some([again(&self.client), again(&self.server)]);
            }
        }

        fn step(&mut self, step: u8, count: usize, number: u32) {
            let [to_server, to_client] = match &mut self.wires {
                Some([to_server, to_client]) => [Some(to_server), Some(to_client)],
                None => [None, None],
            };
            match step {
                0 => self.client.say(numbered(number), to_server),
                1 => self.server.say(numbered(number), to_client),
                2 => to_server.into_iter().for_each(|wire| self.server.hear(wire, count)),
                3 => to_client.into_iter().for_each(|wire| self.client.hear(wire, count)),
                4 => self.come_back(true),
                5 => self.come_back(false),
                6 => drop(self.late.take().map(|late| self.answer(late))),
                7 => self.die(|both| &mut both.client),
                _ => {
                    self.late = None;
                    self.die(|both| &mut both.server);
                }
            }
        }

        fn die(&mut self, whose: impl FnOnce(&mut Both) -> &mut End) {
            self.wires = None;
            *whose(self) = End::new(Journal::unknowing());
        }

        fn check(&self) {
            if self.client.journal.beginning == self.server.journal.beginning
                && !self.client.journal.unknowing
                && !self.server.journal.unknowing
            {
                assert!(self.client.said.starts_with(&self.server.arrived));
                assert!(self.server.said.starts_with(&self.client.arrived));
            }
        }
    }

    proptest! {
        #[test]
        fn whoever_loses_its_memory_and_whenever_both_count_from_one_beginning(
            steps in prop::collection::vec((0..9u8, 0..4usize), 0..60)
        ) {
            let mut both = Both::new();
            for (number, (step, count)) in (0..).zip(steps) {
                both.step(step, count, number);
                both.check();
            }
            both.come_back(true);
            for step in [2, 3] {
                both.step(step, usize::MAX, 0);
            }
            prop_assert_eq!(&both.client.said, &both.server.arrived);
            prop_assert_eq!(&both.server.said, &both.client.arrived);
        }
    }

    #[test]
    fn what_became_of_the_transfer_that_goes_on_is_said_again_and_nothing_else() {
        for (confirmed, going_on, again) in
            [(0, 1, Some(result(1))), (1, 1, Some(result(1))), (1, 2, None)]
        {
            let mut server = Journal::default();
            server.say(&result(1));
            server.say(&numbered(1));
            server.confirm(confirmed).unwrap();
            server.hear(&numbered(2));
            let client = Return { heard: 7, beginning: 0, anew: true };
            let returned = server.answer(client, || Some(standing(going_on))).unwrap().unwrap();
            assert_eq!((returned.heard, returned.beginning), (0, 1));
            assert_eq!(server.unconfirmed().cloned().collect::<Vec<_>>(), Vec::from_iter(again));
        }
    }

    #[test]
    fn a_session_that_stands_nowhere_goes_on_with_nobody_new() {
        let mut server = Journal::default();
        server.say(&numbered(1));
        let anew = Return { anew: true, ..Return::default() };
        assert_eq!(server.answer(anew, || None), Ok(None));
        // Whoever was there may still come back.
        let returned = server.answer(Return::default(), || None).unwrap().unwrap();
        assert_eq!(returned, Returned::default());
        assert_eq!(server.unconfirmed().count(), 1);
        let blamed = Journal::unknowing().accept(&returned).unwrap_err();
        assert_eq!(blamed, PeerMisbehaved::NoStanding);
    }

    #[test]
    fn what_the_next_of_its_kind_replaces_is_neither_kept_nor_counted() {
        let (mut us, mut them) = (Journal::default(), Journal::default());
        let ack = Message::Ack {
            transfer: TransferId(1),
            reached: Watermarks::default(),
            credit: Credit::default(),
            arrived: Arrived::default(),
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
