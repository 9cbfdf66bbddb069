//! The client's half of the conversation: the side that holds the snapshot.
//!
//! Messages of the server and wishes of the client go in, messages and news come out. It must
//! never report a success that the server did not report, nor one that the stream's end did not
//! precede.

mod standing;
mod transfer;

pub use self::standing::WholeStream;
use self::transfer::Transfer;
use super::listing::Listing;
use super::message::{
    Applied, Ending, Hello, Limits, Message, Open, Outcome, RelativeName, Request, Start,
    Watermarks, Welcome,
};
use super::misbehaved::{PeerMisbehaved, check_transfer};
use super::negotiate::{Agreed, negotiate};
use super::prune::Prune;
use super::secret::JoinSecret;
use super::standing::Standing;
use super::tree::{Heard, PAGES_AHEAD, Tree};
use super::version::{Versions, agree};
use super::window::{Credit, Receipt};
use crate::dataset::DatasetName;
use crate::error::Failure;
use crate::listing::{TargetState, TargetTree};
use crate::retention::Report;
use crate::units::{StreamOffset, TransferId};

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The server said this.
    Received(Message),
    /// The server said in its [`Returned`](super::standing::Returned) where it stands: at any time.
    Stands(Standing),
    /// Ask what the target holds. Only when idle.
    List(RelativeName),
    /// Ask what the target and all below it hold. Only when idle.
    ListTree(RelativeName),
    /// Have what an interrupted receive left given up. Only when idle.
    Abort {
        /// Where it is.
        dataset: RelativeName,
        /// The resume token that was listed.
        token: String,
    },
    /// Have a dataset pruned. Only when idle.
    Prune(Prune),
    /// Send a stream. Only when idle.
    Open(Request),
    /// Blocks up to here are about to be given to the sockets. Told before the first byte goes
    /// out, or the server could acknowledge it too early.
    Sent(StreamOffset),
    /// `zfs send` ended well: it exited with 0 after so many bytes.
    StreamEnded {
        /// The stream's length.
        total: StreamOffset,
        /// CRC32 of all of it.
        crc32: u32,
    },
    /// Something broke on this side: at any time.
    Failed(Failure),
    /// Nothing more to do. Only when idle.
    Bye,
}

/// What comes out, to be done in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the server.
    Send(Message),
    /// The session stands: open the data connections, as many as were agreed. Idle.
    Ready {
        /// What was agreed.
        agreed: Agreed,
        /// What they show to join.
        secret: JoinSecret,
        /// Who the server is, for the log.
        software: String,
    },
    /// What the target holds. Idle.
    Listed {
        /// The target's full name on the server, for messages to people.
        dataset: DatasetName,
        /// What it holds.
        target: TargetState,
    },
    /// What the target and all below it hold. Idle.
    TreeListed(TargetTree),
    /// It is given up. Idle.
    Aborted,
    /// What was pruned, or why nothing. Idle.
    Pruned(Report),
    /// The server is ready: let the stream flow.
    Stream {
        /// For the frames.
        transfer: TransferId,
        /// From where.
        start: Start,
        /// How many blocks may go.
        credit: Credit,
    },
    /// The server came so far, lets this side go so far, and has what it lists.
    Reached(Watermarks, Receipt),
    /// The server stands here, where it may have stood further before, and its data connections are
    /// gone: what it has not taken is to be sent again.
    Stands(Watermarks, Receipt),
    /// The target holds the stream. Idle.
    Applied(Applied),
    /// The server gave up, and says why. [`Output::Close`] follows.
    Failed(Failure),
    /// Close the connections once everything is sent.
    Close,
}

/// The machine.
#[derive(Debug)]
pub struct Sender(State);

#[derive(Debug)]
enum State {
    ExpectWelcome { offered: Versions, limits: Limits },
    Idle(Session),
    ExpectListed(Session),
    ExpectListedMore(Session, DatasetName, TargetState),
    ExpectTreeListed(Session),
    ExpectTreeListedMore(Session, Tree),
    ExpectAborted(Session),
    ExpectPruned(Session),
    ExpectOpened(Session, Request),
    Streaming(Session, Transfer),
    ExpectResult(Session, Transfer, End),
    Closed,
}

#[derive(Debug)]
struct Session {
    agreed: Agreed,
    /// The current transfer or the last one; 0 before the first.
    transfer: TransferId,
    /// What the server said last; it goes on from transfer to transfer.
    credit: Credit,
}

/// What was said of the end of a stream, and may have to be said again.
#[derive(Clone, Copy, Debug)]
struct End {
    total: StreamOffset,
    crc32: u32,
}

impl Sender {
    /// Begins a session: the preamble with `offered` is on its way, the hello goes out.
    pub fn start(offered: Versions, hello: Hello, output: &mut Vec<Output>) -> Sender {
        let limits = hello.limits.clone();
        output.push(Output::Send(Message::Hello(hello)));
        Sender(State::ExpectWelcome { offered, limits })
    }

    /// Advances by one input. Consumes the state, so that no caller can keep a stale one. After
    /// an error: tell the server with [`PeerMisbehaved::farewell`], and close.
    ///
    /// # Panics
    ///
    /// When a wish is given that makes no sense now: that is a mistake of the caller, not the peer.
    pub fn handle(self, input: Input, output: &mut Vec<Output>) -> Result<Sender, PeerMisbehaved> {
        match input {
            Input::Received(message) => self.0.hear(message, output).map(Sender),
            Input::Stands(standing) => self.0.stands(&standing, output).map(Sender),
            wish => Ok(Sender(self.0.obey(wish, output))),
        }
    }

    /// Whether a new wish can be given.
    pub fn is_idle(&self) -> bool {
        matches!(self.0, State::Idle(_))
    }

    /// Whether the server is to answer a wish, and no stream flows.
    pub fn is_asking(&self) -> bool {
        matches!(
            self.0,
            State::ExpectListed(_)
                | State::ExpectListedMore(..)
                | State::ExpectAborted(_)
                | State::ExpectOpened(..)
        )
    }

    /// Whether the conversation is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.0, State::Closed)
    }
}

impl State {
    /// What the server said.
    fn hear(self, message: Message, output: &mut Vec<Output>) -> Result<State, PeerMisbehaved> {
        use Message as M;
        match (self, message) {
            // What was under way when we closed.
            (State::Closed, _) => Ok(State::Closed),
            (_, M::Refused(failure)) => Ok(failed(failure, output)),
            (State::ExpectWelcome { offered, limits }, M::Welcome(welcome)) => {
                welcomed(offered, &limits, welcome, output)
            }
            (State::ExpectListed(session), M::Listed { dataset, target, more }) => {
                Ok(listed(session, dataset, Listing::begin(target, more)?, output))
            }
            (
                State::ExpectListedMore(session, dataset, so_far),
                M::ListedMore { snapshots, more },
            ) => Ok(listed(session, dataset, Listing::join(so_far, snapshots, more)?, output)),
            (State::ExpectTreeListed(session), M::TreeListed { root, pieces, more }) => {
                Ok(tree_listed(session, Tree::begin(root, pieces, more)?, output))
            }
            (State::ExpectTreeListedMore(session, so_far), M::TreeListedMore { pieces, more }) => {
                Ok(tree_listed(session, so_far.join(pieces, more)?, output))
            }
            (State::ExpectAborted(session), M::Aborted) => {
                output.push(Output::Aborted);
                Ok(State::Idle(session))
            }
            (State::ExpectPruned(session), M::Pruned(report)) => {
                output.push(Output::Pruned(report));
                Ok(State::Idle(session))
            }
            (State::ExpectOpened(session, request), M::Opened { transfer, start, credit }) => {
                check_transfer(session.transfer, transfer, "opened")?;
                let session = session.credited(credit)?;
                output.push(Output::Stream { transfer, start, credit });
                Ok(State::Streaming(session, Transfer::of(request.stream)))
            }
            (State::Streaming(session, running), M::Ack { transfer, reached, credit, arrived }) => {
                check_transfer(session.transfer, transfer, "ack")?;
                let receipt = Receipt { credit, arrived };
                let (session, running) = acknowledged(session, running, reached, receipt, output)?;
                Ok(State::Streaming(session, running))
            }
            (
                State::ExpectResult(session, running, end),
                M::Ack { transfer, reached, credit, arrived },
            ) => {
                check_transfer(session.transfer, transfer, "ack")?;
                let receipt = Receipt { credit, arrived };
                let (session, running) = acknowledged(session, running, reached, receipt, output)?;
                Ok(State::ExpectResult(session, running, end))
            }
            (
                State::Streaming(session, _) | State::ExpectResult(session, ..),
                M::Result { transfer, outcome: Outcome::Failed(failure) },
            ) => {
                check_transfer(session.transfer, transfer, "result")?;
                Ok(failed(failure, output))
            }
            (
                State::ExpectResult(session, running, end),
                M::Result { transfer, outcome: Outcome::Applied(applied) },
            ) => {
                check_transfer(session.transfer, transfer, "result")?;
                running.check_applied(applied, end.total)?;
                output.push(Output::Applied(applied));
                Ok(State::Idle(session))
            }
            (state, message) => Err(state.unexpected(&message)),
        }
    }

    /// What this side wishes.
    fn obey(self, wish: Input, output: &mut Vec<Output>) -> State {
        match (self, wish) {
            // What was under way when the server closed.
            (State::Closed, _) => State::Closed,
            (state, Input::Failed(failure)) => state.fail(failure, output),
            (State::Idle(session), Input::List(dataset)) => {
                output.push(Output::Send(Message::List { dataset }));
                State::ExpectListed(session)
            }
            (State::Idle(session), Input::ListTree(dataset)) => {
                output.push(Output::Send(Message::ListTree { dataset, pages: PAGES_AHEAD }));
                State::ExpectTreeListed(session)
            }
            (State::Idle(session), Input::Abort { dataset, token }) => {
                output.push(Output::Send(Message::Abort { dataset, token }));
                State::ExpectAborted(session)
            }
            (State::Idle(session), Input::Prune(prune)) => {
                output.push(Output::Send(Message::Prune(prune)));
                State::ExpectPruned(session)
            }
            (State::Idle(session), Input::Open(request)) => session.open(request, output),
            (State::Idle(_), Input::Bye) => {
                output.extend([Output::Send(Message::Bye), Output::Close]);
                State::Closed
            }
            (State::Streaming(session, running), Input::Sent(offset)) => {
                State::Streaming(session, running.sent_to(offset))
            }
            (State::ExpectResult(session, running, end), Input::Sent(offset)) => {
                let total = end.total;
                assert!(offset <= total, "sent up to {offset} of a stream of {total} bytes");
                State::ExpectResult(session, running.sent_to(offset), end)
            }
            (State::Streaming(session, running), Input::StreamEnded { total, crc32 }) => {
                assert!(running.sent <= total, "{} sent of {total} bytes", running.sent);
                let end = End { total, crc32 };
                output.push(Output::Send(end.of(session.transfer)));
                State::ExpectResult(session, running, end)
            }
            (state, wish) => panic!("{wish:?} makes no sense in {}", state.name()),
        }
    }

    /// Tells the server why this side gives up, in the words that fit.
    fn fail(self, failure: Failure, output: &mut Vec<Output>) -> State {
        let last_words = match self {
            State::Streaming(Session { transfer, .. }, _) => {
                Message::End { transfer, ending: Ending::Failed(failure) }
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
            State::ExpectWelcome { .. } => "ExpectWelcome",
            State::Idle(_) => "Idle",
            State::ExpectListed(_) => "ExpectListed",
            State::ExpectListedMore(..) => "ExpectListedMore",
            State::ExpectTreeListed(_) => "ExpectTreeListed",
            State::ExpectTreeListedMore(..) => "ExpectTreeListedMore",
            State::ExpectAborted(_) => "ExpectAborted",
            State::ExpectPruned(_) => "ExpectPruned",
            State::ExpectOpened(..) => "ExpectOpened",
            State::Streaming(..) => "Streaming",
            State::ExpectResult(..) => "ExpectResult",
            State::Closed => "Closed",
        }
    }
}

fn welcomed(
    offered: Versions,
    limits: &Limits,
    welcome: Welcome,
    output: &mut Vec<Output>,
) -> Result<State, PeerMisbehaved> {
    let Welcome { software, version: got, limits: granted, secret } = welcome;
    let version = agree(offered, Versions { min: got, max: got })
        .map_err(|_| PeerMisbehaved::VersionNotOffered { offered, got })?;
    let agreed = negotiate(version, limits, &granted)
        .map_err(|why| PeerMisbehaved::NoAgreement { message: "welcome", why })?;
    if agreed.limits != granted {
        return Err(PeerMisbehaved::WelcomeBeyondHello);
    }
    output.push(Output::Ready { agreed: agreed.clone(), secret, software });
    Ok(State::Idle(Session { agreed, transfer: TransferId(0), credit: Credit::default() }))
}

fn listed(
    session: Session,
    dataset: DatasetName,
    listing: Listing,
    output: &mut Vec<Output>,
) -> State {
    match listing {
        Listing::Partial(so_far) => State::ExpectListedMore(session, dataset, so_far),
        Listing::Whole(target) => {
            output.push(Output::Listed { dataset, target });
            State::Idle(session)
        }
    }
}

fn tree_listed(session: Session, heard: Heard, output: &mut Vec<Output>) -> State {
    match heard {
        Heard::Partial(so_far) => {
            let news = so_far.room().map(|pages| Output::Send(Message::ListOn { pages }));
            output.extend(news);
            State::ExpectTreeListedMore(session, so_far)
        }
        Heard::Whole(tree) => {
            output.push(Output::TreeListed(tree));
            State::Idle(session)
        }
    }
}

fn failed(failure: Failure, output: &mut Vec<Output>) -> State {
    output.extend([Output::Failed(failure), Output::Close]);
    State::Closed
}

fn acknowledged(
    session: Session,
    running: Transfer,
    reached: Watermarks,
    receipt: Receipt,
    output: &mut Vec<Output>,
) -> Result<(Session, Transfer), PeerMisbehaved> {
    let (session, running) = (session.credited(receipt.credit)?, running.acknowledged(reached)?);
    check_arrived(&receipt)?;
    output.push(Output::Reached(reached, receipt));
    Ok((session, running))
}

fn check_arrived(receipt: &Receipt) -> Result<(), PeerMisbehaved> {
    if receipt.is_possible() {
        return Ok(());
    }
    Err(PeerMisbehaved::ArrivedElsewhere(receipt.clone()))
}

impl Session {
    fn credited(self, credit: Credit) -> Result<Session, PeerMisbehaved> {
        if !credit.follows(self.credit) {
            return Err(PeerMisbehaved::CreditFellBack { from: self.credit, to: credit });
        }
        Ok(Session { credit, ..self })
    }

    fn open(self, request: Request, output: &mut Vec<Output>) -> State {
        assert_eq!(self.agreed.permits(&request), Ok(()), "a request beyond what was agreed");
        let transfer = TransferId(self.transfer.0.checked_add(1).expect("2^32 transfers"));
        output.push(Output::Send(Message::Open(Open { transfer, request: request.clone() })));
        State::ExpectOpened(Session { transfer, ..self }, request)
    }
}

impl End {
    fn of(self, transfer: TransferId) -> Message {
        let End { total, crc32 } = self;
        Message::End { transfer, ending: Ending::Complete { total, crc32 } }
    }
}

#[cfg(test)]
mod tests;
