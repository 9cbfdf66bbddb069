//! Connections that die, and processes that die with all that they remember.
//!
//! Each end has a disk: what was acknowledged is durable at the server, a stream whose end was said
//! is durable at the client. A new process has that, and whatever both know of the session.

use zferry::protocol::journal::Journal;
use zferry::protocol::message::{Open, Request, Watermarks};
use zferry::protocol::negotiate::Agreed;
use zferry::protocol::receiver::{self, Receiver};
use zferry::protocol::sender::{self, Sender, WholeStream};
use zferry::protocol::standing::Standing;
use zferry::protocol::window::Credit;
use zferry::units::{Sequence, StreamOffset};

use super::{BLOCKS, Client, Outgoing, Pair, Server, Wire};

/// What is left of a client that died.
pub struct Remains {
    agreed: Agreed,
    whole: WholeStream,
}

impl Pair {
    /// The control connection dies, and another takes its place.
    pub(super) fn cut(&mut self) {
        if self.client.agreed.is_none() {
            return;
        }
        (self.to_server, self.to_client) = (Wire::default(), Wire::default());
        let stand = || self.server.machine.as_ref().and_then(Receiver::standing);
        let said = self.client.journal.returning();
        let answer = self.server.journal.answer(said, stand).unwrap();
        let returned = answer.expect("a session that nobody can go on with");
        self.server.journal.unconfirmed().for_each(|message| self.to_client.say(message));
        self.server_handles(receiver::Input::Returned);
        self.client.journal.accept(&returned).unwrap();
        self.client.journal.unconfirmed().for_each(|message| self.to_server.say(message));
        if let Some(standing) = returned.standing {
            self.client_goes_on(standing);
        }
    }

    /// The answer to a return is lost: the server has changed its mind, and the client does not
    /// know.
    pub(super) fn lose_an_answer(&mut self) {
        if self.client.agreed.is_none() {
            return;
        }
        (self.to_server, self.to_client) = (Wire::default(), Wire::default());
        let stand = || self.server.machine.as_ref().and_then(Receiver::standing);
        let said = self.client.journal.returning();
        self.server.journal.answer(said, stand).unwrap();
        self.cut();
    }

    /// The server's process dies. What it has acknowledged is durable, and goes on from there.
    pub(super) fn server_dies(&mut self) {
        // A client that has given up does not come back.
        let waited_for = self.client.machine.as_ref().is_some_and(|it| !it.is_closed());
        let (Some((transfer, _)), true) = (&self.server.incoming, waited_for) else { return };
        let transfer = *transfer;
        let (request, agreed) = self.client.restart_data();
        let (Watermarks { received, .. }, credit) = self.server.durable;
        let reached = Watermarks { received, spooled: received, fed: StreamOffset(0) };
        let open = Open { transfer, request };
        self.server.machine = Some(Receiver::restored(agreed, open, reached, credit));
        self.server.journal = Journal::unknowing();
        self.server.credit = credit;
        self.server.fed = 0;
        self.server.ended = None;
        self.server.end_heard = None;
        self.cut();
    }

    /// The client's process dies. If the end of its stream was said, another goes on.
    pub(super) fn client_dies(&mut self) {
        let server = self.server.machine.as_ref().and_then(Receiver::standing);
        let running = self.client.machine.as_ref().is_some_and(|it| !it.is_closed());
        let Some(remains) = self.client.remains().filter(|_| running && server.is_some()) else {
            return;
        };
        self.client.machine = None;
        self.client.journal = Journal::unknowing();
        self.client.remains = Some(remains);
        self.cut();
    }

    fn client_goes_on(&mut self, standing: Standing) {
        let Some(Remains { agreed, whole }) = self.client.remains.take() else {
            return self.client_handles(sender::Input::Stands(standing));
        };
        let mut output = Vec::new();
        self.data.sent = whole.total.0;
        let machine = Sender::restored(agreed, whole, &standing, &mut output).unwrap();
        self.client.machine = Some(machine);
        self.client_does(output);
    }
}

impl Client {
    /// What both ends' disks know of a session and its transfer.
    fn restart_data(&self) -> (Request, Agreed) {
        (self.asked.clone().unwrap(), self.agreed.clone().unwrap())
    }

    fn remains(&mut self) -> Option<Remains> {
        let outgoing = self.outgoing.as_mut().filter(|outgoing| outgoing.ended)?;
        outgoing.sent = outgoing.total;
        let Outgoing { transfer, total, .. } = *outgoing;
        let (request, agreed) = self.restart_data();
        let (stream, total) = (request.stream, StreamOffset(total));
        let whole = WholeStream { transfer, stream, total, crc32: 5 };
        Some(Remains { agreed, whole })
    }

    /// What was taken stays taken; all else may fall back.
    pub(super) fn stands(&mut self, reached: Watermarks, credit: Credit) {
        let outgoing = self.outgoing.as_mut().expect("a standing without a stream");
        assert!(reached.received.0 <= outgoing.sent, "{reached:?} of {}", outgoing.sent);
        assert!(credit.taken >= self.credit.taken, "{credit:?} after {:?}", self.credit);
        outgoing.reached = reached;
        self.credit = credit;
    }
}

impl Server {
    /// Nothing is told before it is durable: what the next process begins with.
    pub(super) fn make_durable(&mut self, reached: Watermarks, credit: Credit) {
        let room = Sequence(credit.taken.0 + BLOCKS);
        self.durable = (self.durable.0.raised_to(reached), Credit { room, ..credit });
    }
}
