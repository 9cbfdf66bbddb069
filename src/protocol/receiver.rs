//! The server's half of the conversation: the side that wants the snapshot.
//!
//! Messages of the client and news of the server go in, messages and orders come out. It must
//! never report success without the client's `End`: the report takes an [`Ended`], and only an
//! `End` makes one.

mod telling;
mod transfer;

use self::telling::{Telling, check_ahead};
use self::transfer::Transfer;
use super::listing;
use super::message::{
    Hello, Limits, Message, Open, Outcome, RelativeName, Start, Watermarks, Welcome,
};
use super::misbehaved::{PeerMisbehaved, check_transfer};
use super::negotiate::{Agreed, negotiate};
use super::prune::Prune;
use super::secret::JoinSecret;
use super::standing::Standing;
use super::tree::Pages;
use super::version::Version;
use super::window::{Credit, Receipt};
use crate::dataset::{DatasetName, Guid};
use crate::error::Failure;
use crate::listing::{TargetState, TargetTree};
use crate::retention::Report;
use crate::units::{StreamOffset, TransferId};

/// What goes in.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// The client said this.
    Received(Message),
    /// The answer to [`Output::LookUp`].
    Found {
        /// The target's full name.
        dataset: DatasetName,
        /// What it holds.
        target: TargetState,
    },
    /// The answer to [`Output::LookUpTree`].
    FoundTree(TargetTree),
    /// The answer to [`Output::Abort`].
    Aborted,
    /// The answer to [`Output::Prune`], also where nothing could be done.
    Pruned(Report),
    /// The answer to [`Output::Prepare`].
    Prepared(Start, Credit),
    /// How far the transfer came, how far the client may go, and what it need not send again: as
    /// often as is worth a message, and in the order in which it was seen.
    Progress(Watermarks, Receipt),
    /// The answer to [`Output::Finish`]: the target's state was read back and holds the stream.
    /// The last `Progress` before it says that all of the stream was fed.
    Applied {
        /// What [`Output::Finish`] gave.
        ended: Ended,
        /// What was read back; `None` for a pipe.
        guid: Option<Guid>,
        /// How long the transfer took.
        millis: u64,
    },
    /// Something broke on this side or is not allowed: at any time, as answer to anything.
    Failed(Failure),
    /// The client has come back over another connection: at any time. What it has not heard is
    /// said again by whoever keeps the connection; acknowledgements may be lost with one.
    Returned,
}

/// What comes out, to be done in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the client.
    Send(Message),
    /// The session stands: take as many data connections as were agreed. Comes before the client
    /// hears the secret.
    Ready {
        /// What was agreed.
        agreed: Agreed,
        /// Who the client is, for the log.
        software: String,
    },
    /// Read what the target holds; answer with [`Input::Found`].
    LookUp(RelativeName),
    /// Read what the target and all below it hold; answer with [`Input::FoundTree`].
    LookUpTree(RelativeName),
    /// Give up what an interrupted receive left in this dataset, if it still has this token;
    /// answer with [`Input::Aborted`].
    Abort {
        /// Where it is.
        dataset: RelativeName,
        /// What the client was told.
        token: String,
    },
    /// Prune a dataset, if that is allowed; answer with [`Input::Pruned`].
    Prune(Prune),
    /// Check that the transfer is allowed and make all ready for it; answer with
    /// [`Input::Prepared`].
    Prepare(Open),
    /// The stream is complete: once all of it is fed and its CRC32 is right, close the pipe, wait,
    /// read the target's state back; answer with [`Input::Applied`].
    Finish(Ended),
    /// The client gave up, and says why: stop whatever runs for it, and never as if it were the
    /// stream's end. [`Output::Close`] follows.
    Abandon(Failure),
    /// Close the connections once everything is sent.
    Close,
}

/// The client's word that a stream is complete. Nothing but an `End` message makes one, and there
/// is no second: it cannot be copied.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    transfer: TransferId,
    total: StreamOffset,
    crc32: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Receiver(State);

/// What a server brings to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The program and its version, for the client's log.
    pub software: String,
    /// What was agreed with the client's preamble.
    pub version: Version,
    /// What this server can do.
    pub limits: Limits,
    /// What data connections must show, drawn anew for each session.
    pub secret: JoinSecret,
}

#[derive(Debug)]
enum State {
    ExpectHello(Offer),
    Idle(Session),
    LookingUp(Session),
    /// With the pages that the client lets come.
    LookingUpTree(Session, u32),
    Telling(Session, Telling),
    Aborting(Session),
    Pruning(Session),
    Preparing(Session, Open),
    Receiving(Session, Transfer),
    Applying(Session, Transfer, StreamOffset),
    Closed,
}

#[derive(Debug)]
struct Session {
    agreed: Agreed,
    /// The last transfer that ended; 0 before the first.
    done: TransferId,
    /// Where it stood in the end, if it was one of this process.
    stood: Option<Standing>,
}

impl Ended {
    /// The transfer that ended.
    pub fn transfer(&self) -> TransferId {
        self.transfer
    }

    /// How long the stream is.
    pub fn total(&self) -> StreamOffset {
        self.total
    }

    /// CRC32 of all of it.
    pub fn crc32(&self) -> u32 {
        self.crc32
    }
}

impl Receiver {
    /// A session whose preamble has been read.
    pub fn new(offer: Offer) -> Receiver {
        Receiver(State::ExpectHello(offer))
    }

    /// Takes a session over whose process died while it received `open`. `reached` and `credit` say
    /// what was durable.
    pub fn restored(agreed: Agreed, open: Open, reached: Watermarks, credit: Credit) -> Receiver {
        let done = TransferId(open.transfer.0.saturating_sub(1));
        let session = Session { agreed, done, stood: None };
        let receipt = credit.into();
        Receiver(State::Receiving(session, Transfer { open, reached, receipt }))
    }

    /// Advances by one input. Consumes the state, so that no caller can keep a stale one. After
    /// an error: stop whatever runs for the client as if [`Output::Abandon`] had come, tell it with
    /// [`PeerMisbehaved::farewell`], and close.
    ///
    /// # Panics
    ///
    /// When news is given that makes no sense now: that is a mistake of the caller, not the peer.
    pub fn handle(
        self,
        input: Input,
        output: &mut Vec<Output>,
    ) -> Result<Receiver, PeerMisbehaved> {
        match input {
            Input::Received(message) => self.0.hear(message, output).map(Receiver),
            news => self.0.learn(news, output).map(Receiver),
        }
    }

    /// Where this end stands, for a client that knows less than was said, or more. `None`: there is
    /// nothing that it could go on with.
    pub fn standing(&self) -> Option<Standing> {
        match &self.0 {
            State::Receiving(_, running) => Some(running.standing(false)),
            State::Applying(_, running, _) => Some(running.standing(true)),
            // Its result is said again.
            State::Idle(session) => session.stood.clone(),
            _ => None,
        }
    }

    /// Whether nothing runs for the client.
    pub fn is_idle(&self) -> bool {
        matches!(self.0, State::Idle(_))
    }

    /// Whether the conversation is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.0, State::Closed)
    }
}

impl State {
    /// What the client said.
    fn hear(self, message: Message, output: &mut Vec<Output>) -> Result<State, PeerMisbehaved> {
        use Message as M;
        match (self, message) {
            // What was under way when we closed.
            (State::Closed, _) => Ok(State::Closed),
            (_, M::Refused(failure)) => Ok(abandoned(failure, output)),
            (State::ExpectHello(offer), M::Hello(hello)) => greeted(offer, hello, output),
            (State::Idle(session), M::List { dataset }) => {
                output.push(Output::LookUp(dataset));
                Ok(State::LookingUp(session))
            }
            (State::Idle(session), M::ListTree { dataset, pages }) => {
                check_ahead(pages, 0)?;
                output.push(Output::LookUpTree(dataset));
                Ok(State::LookingUpTree(session, pages))
            }
            (State::Telling(session, telling), M::ListOn { pages }) => {
                Ok(telling.let_on(pages)?.tell(session, output))
            }
            // The last page was on its way.
            (State::Idle(session), M::ListOn { .. }) => Ok(State::Idle(session)),
            (State::Idle(session), M::Abort { dataset, token }) => {
                output.push(Output::Abort { dataset, token });
                Ok(State::Aborting(session))
            }
            (State::Idle(session), M::Prune(prune)) => {
                output.push(Output::Prune(prune));
                Ok(State::Pruning(session))
            }
            (State::Idle(session), M::Open(open)) => {
                session.check(&open)?;
                output.push(Output::Prepare(open.clone()));
                Ok(State::Preparing(session, open))
            }
            (State::Receiving(session, running), M::End { transfer, ending }) => {
                check_transfer(running.open.transfer, transfer, "end")?;
                running.end(ending, session, output)
            }
            (State::Idle(_), M::Bye) => {
                output.push(Output::Close);
                Ok(State::Closed)
            }
            (state, message) => Err(state.unexpected(&message)),
        }
    }

    /// What happened on this side.
    fn learn(self, news: Input, output: &mut Vec<Output>) -> Result<State, PeerMisbehaved> {
        match (self, news) {
            // What was under way when the client closed.
            (State::Closed, _) => Ok(State::Closed),
            (state, Input::Failed(failure)) => Ok(state.fail(failure, output)),
            (state, Input::Returned) => Ok(state.repeat(output)),
            (State::LookingUp(session), Input::Found { dataset, target }) => {
                match listing::split(dataset, target) {
                    Ok(messages) => {
                        output.extend(messages.into_iter().map(Output::Send));
                        Ok(State::Idle(session))
                    }
                    Err(failure) => Ok(State::LookingUp(session).fail(failure, output)),
                }
            }
            (State::LookingUpTree(session, room), Input::FoundTree(tree)) => {
                match Pages::of(tree) {
                    Ok(pages) => Ok(Telling::of(pages, room).tell(session, output)),
                    Err(failure) => Ok(State::LookingUp(session).fail(failure, output)),
                }
            }
            (State::Aborting(session), Input::Aborted) => {
                output.push(Output::Send(Message::Aborted));
                Ok(State::Idle(session))
            }
            (State::Pruning(session), Input::Pruned(report)) => {
                output.push(Output::Send(Message::Pruned(report)));
                Ok(State::Idle(session))
            }
            (State::Preparing(session, open), Input::Prepared(start, credit)) => {
                let transfer = open.transfer;
                output.push(Output::Send(Message::Opened { transfer, start, credit }));
                let (reached, receipt) = (Watermarks::default(), credit.into());
                Ok(State::Receiving(session, Transfer { open, reached, receipt }))
            }
            (State::Receiving(session, running), Input::Progress(reached, receipt)) => {
                Ok(State::Receiving(session, running.advanced(reached, receipt, output)))
            }
            (State::Applying(session, running, total), Input::Progress(reached, receipt)) => {
                check_within(total, reached)?;
                Ok(State::Applying(session, running.advanced(reached, receipt, output), total))
            }
            (State::Applying(session, running, _), Input::Applied { ended, guid, millis }) => {
                Ok(running.applied(&ended, guid, millis, session, output))
            }
            (state, news) => panic!("{news:?} makes no sense in {}", state.name()),
        }
    }

    /// Acknowledges once more how far the transfer is.
    fn repeat(self, output: &mut Vec<Output>) -> State {
        if let State::Receiving(_, running) | State::Applying(_, running, _) = &self {
            output.push(Output::Send(running.ack()));
        }
        self
    }

    /// Tells the client why this side gives up, in the words that fit.
    fn fail(self, failure: Failure, output: &mut Vec<Output>) -> State {
        let last_words = match self {
            State::Receiving(_, running) | State::Applying(_, running, _) => {
                let transfer = running.open.transfer;
                Message::Result { transfer, outcome: Outcome::Failed(failure) }
            }
            _ => Message::Refused(failure),
        };
        output.extend([Output::Send(last_words), Output::Close]);
        State::Closed
    }

    fn unexpected(&self, message: &Message) -> PeerMisbehaved {
        PeerMisbehaved::Unexpected { state: self.name(), message: message.name() }
    }

    fn name(&self) -> &'static str {
        match self {
            State::ExpectHello(_) => "ExpectHello",
            State::Idle(_) => "Idle",
            State::LookingUp(_) => "LookingUp",
            State::LookingUpTree(..) => "LookingUpTree",
            State::Telling(..) => "Telling",
            State::Aborting(_) => "Aborting",
            State::Pruning(_) => "Pruning",
            State::Preparing(..) => "Preparing",
            State::Receiving(..) => "Receiving",
            State::Applying(..) => "Applying",
            State::Closed => "Closed",
        }
    }
}

fn greeted(offer: Offer, hello: Hello, output: &mut Vec<Output>) -> Result<State, PeerMisbehaved> {
    let Offer { software, version, limits, secret } = offer;
    let agreed = negotiate(version, &limits, &hello.limits)
        .map_err(|why| PeerMisbehaved::NoAgreement { message: "hello", why })?;
    let limits = agreed.limits.clone();
    let welcome = Welcome { software, version: version.number(), limits, secret };
    output.push(Output::Ready { agreed: agreed.clone(), software: hello.software });
    output.push(Output::Send(Message::Welcome(welcome)));
    Ok(State::Idle(Session { agreed, done: TransferId(0), stood: None }))
}

fn abandoned(failure: Failure, output: &mut Vec<Output>) -> State {
    output.extend([Output::Abandon(failure), Output::Close]);
    State::Closed
}

fn check_within(total: StreamOffset, reached: Watermarks) -> Result<(), PeerMisbehaved> {
    let received = reached.received;
    if received <= total { Ok(()) } else { Err(PeerMisbehaved::DataBeyondEnd { total, received }) }
}

impl Session {
    /// Whether a transfer is the next one and within what was agreed.
    fn check(&self, open: &Open) -> Result<(), PeerMisbehaved> {
        // Saturates: whoever opened 2^32 transfers must open a new session.
        let next = TransferId(self.done.0.saturating_add(1));
        check_transfer(next, open.transfer, "open")?;
        self.agreed
            .permits(&open.request)
            .map_err(|why| PeerMisbehaved::NoAgreement { message: "open", why })
    }
}

#[cfg(test)]
mod tests;
