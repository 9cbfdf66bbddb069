//! Goes on after one end has lost its memory, from where the server says that it stands.
//!
//! Either the server is a new process, which has only what was durable: then marks may fall back,
//! and this end may have to say once more that the stream has ended. Or this end is, and has all of
//! the stream in breakpoint files. What was acknowledged never falls back: this end has forgotten
//! it.

use super::{End, Output, Sender, Session, State, Transfer, check_arrived};
use crate::protocol::message::{Start, Stream, Watermarks};
use crate::protocol::misbehaved::{PeerMisbehaved, check_transfer};
use crate::protocol::negotiate::Agreed;
use crate::protocol::standing::Standing;
use crate::units::{StreamOffset, TransferId};

/// A stream that is whole on this side's disks, and that a process which died was sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeStream {
    /// As the server knows it.
    pub transfer: TransferId,
    /// What it is.
    pub stream: Stream,
    /// Its length.
    pub total: StreamOffset,
    /// CRC32 of all of it.
    pub crc32: u32,
}

impl Sender {
    /// Takes a session over in which `whole` was being sent: says its end, where the server has
    /// not heard it, and expects the result. Comes out with [`Output::Stands`].
    pub fn restored(
        agreed: Agreed,
        whole: WholeStream,
        standing: &Standing,
        output: &mut Vec<Output>,
    ) -> Result<Sender, PeerMisbehaved> {
        let WholeStream { transfer, stream, total, crc32 } = whole;
        // Nothing was told to this process; what was told to the other one it must not know.
        let session = Session { agreed, transfer, credit: standing.credit };
        let running = Transfer { sent: total, ..Transfer::of(stream) };
        State::ExpectResult(session, running, End { total, crc32 })
            .stands(standing, output)
            .map(Sender)
    }
}

impl State {
    /// Where the server stands, told at any time while a transfer is under way.
    pub(super) fn stands(
        self,
        standing: &Standing,
        output: &mut Vec<Output>,
    ) -> Result<State, PeerMisbehaved> {
        match self {
            State::Closed => Ok(State::Closed),
            State::ExpectOpened(session, request) => {
                let running = Transfer::of(request.stream);
                let (session, running) = session.resumed(running, standing)?;
                check_not_ended(standing)?;
                let (transfer, credit) = (session.transfer, session.credit);
                output.push(Output::Stream { transfer, start: Start::FromStart, credit });
                Ok(State::Streaming(session, running))
            }
            State::Streaming(session, running) => {
                let (session, running) = session.resumed(running, standing)?;
                check_not_ended(standing)?;
                output.push(Output::Stands(standing.reached, standing.receipt()));
                Ok(State::Streaming(session, running))
            }
            State::ExpectResult(session, running, end) => {
                let (session, running) = session.resumed(running, standing)?;
                output.push(Output::Stands(standing.reached, standing.receipt()));
                if !standing.ended {
                    output.push(Output::Send(end.of(session.transfer)));
                }
                Ok(State::ExpectResult(session, running, end))
            }
            state => Err(PeerMisbehaved::Unexpected { state: state.name(), message: "returned" }),
        }
    }
}

fn check_not_ended(standing: &Standing) -> Result<(), PeerMisbehaved> {
    let transfer = standing.transfer;
    if standing.ended { Err(PeerMisbehaved::EndNeverSaid { transfer }) } else { Ok(()) }
}

impl Session {
    /// Both as the server stands. Marks and room may fall back, what was acknowledged may not.
    fn resumed(
        self,
        running: Transfer,
        standing: &Standing,
    ) -> Result<(Session, Transfer), PeerMisbehaved> {
        check_transfer(self.transfer, standing.transfer, "returned")?;
        let (told, credit) = (self.credit, standing.credit);
        if credit.taken < told.taken {
            return Err(PeerMisbehaved::TakenIsGone { told: told.taken, got: credit.taken });
        }
        if credit.room < credit.taken {
            return Err(PeerMisbehaved::CreditFellBack { from: told, to: credit });
        }
        check_arrived(&standing.receipt())?;
        let running = Transfer { reached: Watermarks::default(), ..running };
        Ok((Session { credit, ..self }, running.acknowledged(standing.reached)?))
    }
}
