//! A stream that is received: how far it came, and what may be said of it.

use super::{Ended, Output, Session, State, abandoned, check_within};
use crate::dataset::Guid;
use crate::error::{Class, Failure, Side};
use crate::protocol::message::{Applied, Ending, Message, Open, Outcome, Watermarks};
use crate::protocol::misbehaved::PeerMisbehaved;
use crate::protocol::standing::Standing;
use crate::protocol::window::Receipt;

#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) open: Open,
    pub(super) reached: Watermarks,
    pub(super) receipt: Receipt,
}

impl Transfer {
    /// Acknowledges what is new; nothing where nothing is.
    pub(super) fn advanced(
        self,
        reached: Watermarks,
        receipt: Receipt,
        output: &mut Vec<Output>,
    ) -> Transfer {
        let reached = self.reached.raised_to(reached);
        let is_newer = receipt.credit.follows(self.receipt.credit);
        let news = reached != self.reached || is_newer && receipt != self.receipt;
        let receipt = if is_newer { receipt } else { self.receipt };
        let advanced = Transfer { reached, receipt, ..self };
        if news {
            output.push(Output::Send(advanced.ack()));
        }
        advanced
    }

    pub(super) fn standing(&self, ended: bool) -> Standing {
        let Receipt { credit, arrived } = self.receipt.clone();
        Standing { transfer: self.open.transfer, reached: self.reached, credit, arrived, ended }
    }

    pub(super) fn ack(&self) -> Message {
        let Receipt { credit, arrived } = self.receipt.clone();
        Message::Ack { transfer: self.open.transfer, reached: self.reached, credit, arrived }
    }

    pub(super) fn end(
        self,
        ending: Ending,
        session: Session,
        output: &mut Vec<Output>,
    ) -> Result<State, PeerMisbehaved> {
        let (total, crc32) = match ending {
            Ending::Complete { total, crc32 } => (total, crc32),
            Ending::Failed(failure) => return Ok(abandoned(failure, output)),
        };
        check_within(total, self.reached)?;
        output.push(Output::Finish(Ended { transfer: self.open.transfer, total, crc32 }));
        Ok(State::Applying(session, self, total))
    }

    /// Reports success, unless this side contradicts itself: then nothing is proved.
    pub(super) fn applied(
        self,
        ended: &Ended,
        guid: Option<Guid>,
        millis: u64,
        session: Session,
        output: &mut Vec<Output>,
    ) -> State {
        let transfer = self.open.transfer;
        assert_eq!(ended.transfer, transfer, "the end of another transfer");
        if let Some(doubt) = self.doubt(ended, guid) {
            let failure = Failure::new(Side::Target, Class::Internal, doubt);
            return State::Applying(session, self, ended.total).fail(failure, output);
        }
        let applied = Applied { guid, bytes: ended.total.bytes_before(), millis };
        let outcome = Outcome::Applied(applied);
        output.push(Output::Send(Message::Result { transfer, outcome }));
        let stood = Some(self.standing(true));
        State::Idle(Session { done: transfer, stood, ..session })
    }

    /// What speaks against a success.
    fn doubt(&self, ended: &Ended, guid: Option<Guid>) -> Option<String> {
        let (fed, total) = (self.reached.fed, ended.total);
        if fed != total {
            return Some(format!("only {fed} of {total} bytes were fed to the target"));
        }
        let stream = &self.open.request.stream;
        (!stream.is_proved_by(guid))
            .then(|| format!("the target holds guid {guid:?} after a transfer of {stream:?}"))
    }
}
