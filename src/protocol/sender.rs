//! The client's half of the conversation: the side that holds the snapshot.
//!
//! Messages of the server and wishes of the client go in, messages and news come out. It must
//! never report a success that the server did not report, nor one that the stream's end did not
//! precede.

use super::listing::Listing;
use super::message::{
    Applied, Ending, Hello, Limits, Message, Open, Outcome, RelativeName, Request, Start, Stream,
    Watermarks, Welcome,
};
use super::misbehaved::{PeerMisbehaved, check_transfer};
use super::negotiate::{Agreed, negotiate};
use super::secret::JoinSecret;
use super::version::{Versions, agree};
use crate::dataset::{DatasetName, Guid};
use crate::error::Failure;
use crate::listing::TargetState;
use crate::units::{StreamOffset, TransferId};

/// What goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The server said this.
    Received(Message),
    /// Ask what the target holds. Only when idle.
    List(RelativeName),
    /// Have what an interrupted receive left given up. Only when idle.
    Abort {
        /// Where it is.
        dataset: RelativeName,
        /// The resume token that was listed.
        token: String,
    },
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
    /// A sign of life is due: at any time.
    Ping,
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
    /// It is given up. Idle.
    Aborted,
    /// The server is ready: let the stream flow.
    Stream {
        /// For the frames.
        transfer: TransferId,
        /// From where.
        start: Start,
    },
    /// The server came so far.
    Reached(Watermarks),
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
    ExpectAborted(Session),
    ExpectOpened(Session, Request),
    Streaming(Session, Transfer),
    ExpectResult(Session, Transfer, StreamOffset),
    Closed,
}

#[derive(Debug)]
struct Session {
    agreed: Agreed,
    /// The current transfer or the last one; 0 before the first.
    transfer: TransferId,
}

#[derive(Debug)]
struct Transfer {
    stream: Stream,
    sent: StreamOffset,
    reached: Watermarks,
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
            wish => Ok(Sender(self.0.obey(wish, output))),
        }
    }

    /// Whether a new wish can be given.
    pub fn is_idle(&self) -> bool {
        matches!(self.0, State::Idle(_))
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
            (state @ State::ExpectWelcome { .. }, message) => Err(state.unexpected(&message)),
            (state, M::Ping) => Ok(state),
            (State::ExpectListed(session), M::Listed { dataset, target, more }) => {
                Ok(listed(session, dataset, Listing::begin(target, more)?, output))
            }
            (
                State::ExpectListedMore(session, dataset, so_far),
                M::ListedMore { snapshots, more },
            ) => Ok(listed(session, dataset, Listing::join(so_far, snapshots, more)?, output)),
            (State::ExpectAborted(session), M::Aborted) => {
                output.push(Output::Aborted);
                Ok(State::Idle(session))
            }
            (State::ExpectOpened(session, request), M::Opened { transfer, start }) => {
                check_transfer(session.transfer, transfer, "opened")?;
                output.push(Output::Stream { transfer, start });
                Ok(State::Streaming(session, Transfer::of(request.stream)))
            }
            (State::Streaming(session, running), M::Ack { transfer, reached }) => {
                check_transfer(session.transfer, transfer, "ack")?;
                Ok(State::Streaming(session, running.acknowledged(reached, output)?))
            }
            (State::ExpectResult(session, running, total), M::Ack { transfer, reached }) => {
                check_transfer(session.transfer, transfer, "ack")?;
                Ok(State::ExpectResult(session, running.acknowledged(reached, output)?, total))
            }
            (
                State::Streaming(session, _) | State::ExpectResult(session, ..),
                M::Result { transfer, outcome: Outcome::Failed(failure) },
            ) => {
                check_transfer(session.transfer, transfer, "result")?;
                Ok(failed(failure, output))
            }
            (
                State::ExpectResult(session, running, total),
                M::Result { transfer, outcome: Outcome::Applied(applied) },
            ) => {
                check_transfer(session.transfer, transfer, "result")?;
                running.check_applied(applied, total)?;
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
            // A ping before the welcome would be out of turn, and the hello was a sign of life.
            (state @ State::ExpectWelcome { .. }, Input::Ping) => state,
            (state, Input::Ping) => {
                output.push(Output::Send(Message::Ping));
                state
            }
            (State::Idle(session), Input::List(dataset)) => {
                output.push(Output::Send(Message::List { dataset }));
                State::ExpectListed(session)
            }
            (State::Idle(session), Input::Abort { dataset, token }) => {
                output.push(Output::Send(Message::Abort { dataset, token }));
                State::ExpectAborted(session)
            }
            (State::Idle(session), Input::Open(request)) => session.open(request, output),
            (State::Idle(_), Input::Bye) => {
                output.extend([Output::Send(Message::Bye), Output::Close]);
                State::Closed
            }
            (State::Streaming(session, running), Input::Sent(offset)) => {
                State::Streaming(session, running.sent_to(offset))
            }
            (State::ExpectResult(session, running, total), Input::Sent(offset)) => {
                assert!(offset <= total, "sent up to {offset} of a stream of {total} bytes");
                State::ExpectResult(session, running.sent_to(offset), total)
            }
            (State::Streaming(session, running), Input::StreamEnded { total, crc32 }) => {
                assert!(running.sent <= total, "{} sent of {total} bytes", running.sent);
                let ending = Ending::Complete { total, crc32 };
                output.push(Output::Send(Message::End { transfer: session.transfer, ending }));
                State::ExpectResult(session, running, total)
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
            State::ExpectAborted(_) => "ExpectAborted",
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
    Ok(State::Idle(Session { agreed, transfer: TransferId(0) }))
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

fn failed(failure: Failure, output: &mut Vec<Output>) -> State {
    output.extend([Output::Failed(failure), Output::Close]);
    State::Closed
}

impl Session {
    fn open(self, request: Request, output: &mut Vec<Output>) -> State {
        assert_eq!(self.agreed.permits(&request), Ok(()), "a request beyond what was agreed");
        let transfer = TransferId(self.transfer.0.checked_add(1).expect("2^32 transfers"));
        output.push(Output::Send(Message::Open(Open { transfer, request: request.clone() })));
        State::ExpectOpened(Session { transfer, ..self }, request)
    }
}

impl Transfer {
    fn of(stream: Stream) -> Transfer {
        Transfer { stream, sent: StreamOffset(0), reached: Watermarks::default() }
    }

    /// Connections finish their blocks in any order, so an offset may come late.
    fn sent_to(self, offset: StreamOffset) -> Transfer {
        Transfer { sent: self.sent.max(offset), ..self }
    }

    fn acknowledged(
        self,
        reached: Watermarks,
        output: &mut Vec<Output>,
    ) -> Result<Transfer, PeerMisbehaved> {
        if !reached.follows(self.reached) {
            return Err(PeerMisbehaved::AckFellBack { from: self.reached, to: reached });
        }
        if reached.received > self.sent {
            let (sent, got) = (self.sent, reached.received);
            return Err(PeerMisbehaved::AckBeyondSent { sent, got });
        }
        output.push(Output::Reached(reached));
        Ok(Transfer { reached, ..self })
    }

    /// Whether the success that was reported is that of this stream, all of it.
    fn check_applied(&self, applied: Applied, total: StreamOffset) -> Result<(), PeerMisbehaved> {
        let whole = self.sent == total && applied.bytes == total.bytes_before();
        if whole && self.stream.is_proved_by(applied.guid) {
            return Ok(());
        }
        Err(PeerMisbehaved::AppliedOther {
            sent: self.sent,
            total,
            expected_guid: self.guid(),
            got_bytes: applied.bytes,
            got_guid: applied.guid,
        })
    }

    fn guid(&self) -> Option<Guid> {
        match &self.stream {
            Stream::Dataset(stream) => Some(stream.to),
            Stream::Pipe => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Class, Side};
    use crate::protocol::frame::Codec;
    use crate::units::Bytes;

    fn limits(connections: u16) -> Limits {
        let codecs = [Codec::Raw].into_iter().collect();
        Limits { block_bytes_max: Bytes::MIB, connections, codecs }
    }

    fn request() -> Request {
        Request {
            stream: Stream::Pipe,
            epoch: 1,
            estimated_bytes: None,
            block_bytes: Bytes::MIB,
            codec: Codec::Raw,
            interrupted_at: None,
        }
    }

    /// A client that asked for four connections, and hears this.
    fn welcomed_with(version: u16, limits_granted: Limits) -> Result<Sender, PeerMisbehaved> {
        let hello = Hello { software: String::new(), limits: limits(4) };
        let secret = JoinSecret::new([0; 16]);
        let welcome = Welcome { software: String::new(), version, limits: limits_granted, secret };
        Sender::start(Versions::OURS, hello, &mut Vec::new())
            .handle(Input::Received(Message::Welcome(welcome)), &mut Vec::new())
    }

    fn step(machine: Sender, input: Input) -> (Sender, Vec<Output>) {
        let mut output = Vec::new();
        (machine.handle(input, &mut output).unwrap(), output)
    }

    fn streaming() -> Sender {
        let (machine, _) = step(welcomed_with(1, limits(2)).unwrap(), Input::Open(request()));
        let opened = Message::Opened { transfer: TransferId(1), start: Start::FromStart };
        step(machine, Input::Received(opened)).0
    }

    #[test]
    fn a_welcome_grants_nothing_that_was_not_asked_for() {
        assert!(welcomed_with(1, limits(4)).unwrap().is_idle());
        let blamed = welcomed_with(1, limits(5)).unwrap_err();
        assert_eq!(blamed, PeerMisbehaved::WelcomeBeyondHello);
        let blamed = welcomed_with(2, limits(1)).unwrap_err();
        let offered = Versions::OURS;
        assert_eq!(blamed, PeerMisbehaved::VersionNotOffered { offered, got: 2 });
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_moment() {
        let failure = || Failure::new(Side::Source, Class::Zfs, "pool I/O is suspended");
        let ended = Input::StreamEnded { total: StreamOffset(0), crc32: 0 };
        let idle = welcomed_with(1, limits(1)).unwrap();
        for machine in [idle, step(streaming(), ended).0] {
            let (machine, output) = step(machine, Input::Failed(failure()));
            assert_eq!(output, [Output::Send(Message::Refused(failure())), Output::Close]);
            assert!(machine.is_closed());
        }
        let (machine, output) = step(streaming(), Input::Failed(failure()));
        let end = Message::End { transfer: TransferId(1), ending: Ending::Failed(failure()) };
        assert_eq!(output, [Output::Send(end), Output::Close]);
        assert!(machine.is_closed());
    }

    #[test]
    fn blocks_may_be_told_in_any_order_and_after_the_end() {
        let (machine, _) = step(streaming(), Input::Sent(StreamOffset(8)));
        let (machine, _) = step(machine, Input::Sent(StreamOffset(4)));
        let end = Input::StreamEnded { total: StreamOffset(9), crc32: 0 };
        let (machine, _) = step(machine, end);
        let (machine, _) = step(machine, Input::Sent(StreamOffset(9)));
        let reached = Watermarks { received: StreamOffset(9), ..Watermarks::default() };
        let ack = Message::Ack { transfer: TransferId(1), reached };
        let (_, output) = step(machine, Input::Received(ack));
        assert_eq!(output, [Output::Reached(reached)]);
    }

    #[test]
    #[should_panic(expected = "a request beyond what was agreed")]
    fn a_request_beyond_the_agreement_is_our_own_mistake() {
        let request = Request { codec: Codec::Zstd, ..request() };
        step(welcomed_with(1, limits(1)).unwrap(), Input::Open(request));
    }

    #[test]
    #[should_panic(expected = "makes no sense in Streaming")]
    fn a_wish_out_of_place_is_our_own_mistake() {
        step(streaming(), Input::Bye);
    }
}
