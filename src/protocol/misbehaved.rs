//! What a peer did that no peer may do.
//!
//! Whatever the machines do not list ends here, with the evidence. The connection is closed after
//! it; nothing the peer said since is believed, least of all that something succeeded.

use super::envelope::MessageError;
use super::message::{Message, Watermarks};
use super::negotiate::NoAgreement;
use super::text::{TEXT_BYTES_MAX, printable};
use super::version::Versions;
use super::window::{Credit, Receipt};
use crate::dataset::{DatasetName, Guid, NameError};
use crate::error::{Class, Failure, Side};
use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

/// The evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// Bytes that are no message.
    #[error(transparent)]
    Unreadable(#[from] MessageError),
    /// A message that makes no sense now.
    #[error("it said {message} while this end was in {state}")]
    Unexpected {
        /// What we expected, by the state's name.
        state: &'static str,
        /// What came.
        message: &'static str,
    },
    /// A message about a transfer that is not the current one, or out of turn.
    #[error("its {message} is for transfer {got}, where transfer {expected} is next or running")]
    OtherTransfer {
        /// What came.
        message: &'static str,
        /// The transfer that it had to be for.
        expected: TransferId,
        /// The transfer that it was for.
        got: TransferId,
    },
    /// A version that nobody offered.
    #[error("it chose protocol version {got}; offered were {offered}")]
    VersionNotOffered {
        /// What the preamble said.
        offered: Versions,
        /// What it chose.
        got: u16,
    },
    /// It cannot work with us, or wants what was not agreed.
    #[error("its {message} does not fit: {why}")]
    NoAgreement {
        /// What came.
        message: &'static str,
        /// What does not fit.
        why: NoAgreement,
    },
    /// A welcome that grants more than was asked for.
    #[error("its welcome goes beyond what the hello asked for")]
    WelcomeBeyondHello,
    /// A listing with a piece that adds nothing.
    #[error("its listing goes on without another snapshot")]
    ListingStands,
    /// A listing that does not end.
    #[error("its listing goes on after {max} snapshots")]
    ListingTooLong {
        /// How many are taken.
        max: usize,
    },
    /// A tree that does not end.
    #[error("its tree goes on after {max} {of}")]
    TreeTooLarge {
        /// How many are taken.
        max: usize,
        /// Of what.
        of: &'static str,
    },
    /// A dataset of a tree that cannot lie there.
    #[error("its tree has a dataset that cannot be: {0}")]
    TreeName(NameError),
    /// A dataset of a tree that comes twice, before what it lies in, or without the tree's root.
    #[error("its tree has {dataset} in the wrong place")]
    TreeOrder {
        /// Its full name.
        dataset: DatasetName,
    },
    /// It wants more of a tree than this end will tell ahead.
    #[error("it wants {wanted} pages of a tree, when {told} were told")]
    TreeAhead {
        /// How many it lets come.
        wanted: u32,
        /// How many came.
        told: u32,
    },
    /// Watermarks that went back or contradict each other.
    #[error("it acknowledged {to:?} after {from:?}")]
    AckFellBack {
        /// What it had acknowledged.
        from: Watermarks,
        /// What it acknowledged then.
        to: Watermarks,
    },
    /// A credit that takes room back or contradicts itself.
    #[error("it let this end go to {to:?} after {from:?}")]
    CreditFellBack {
        /// What it had said.
        from: Credit,
        /// What it said then.
        to: Credit,
    },
    /// It lists blocks that it cannot have, or lists them in disorder.
    #[error("it says that blocks have arrived that cannot: {0:?}")]
    ArrivedElsewhere(Receipt),
    /// It acknowledged what was never sent.
    #[error("it acknowledged {got} bytes when {sent} were sent")]
    AckBeyondSent {
        /// How far we sent.
        sent: StreamOffset,
        /// What it acknowledged.
        got: StreamOffset,
    },
    /// It reported success over something else than what was sent.
    #[error(
        "it reported {got_bytes} applied with guid {got_guid:?}; \
         {sent} of {total} bytes were sent, with guid {expected_guid:?}"
    )]
    AppliedOther {
        /// How far we sent.
        sent: StreamOffset,
        /// How long the stream is.
        total: StreamOffset,
        /// What the snapshot is, for a dataset.
        expected_guid: Option<Guid>,
        /// What it says to have received.
        got_bytes: Bytes,
        /// What it says to hold.
        got_guid: Option<Guid>,
    },
    /// It says to have heard what was never said, or to have forgotten what it had heard.
    #[error("it says to have heard {got} messages; {confirmed} were heard before, {said} said")]
    HeardOther {
        /// What it had said to have heard.
        confirmed: u64,
        /// How many there were.
        said: u64,
        /// What it says now.
        got: u64,
    },
    /// It goes on with a session of which this end knows nothing, and does not help.
    #[error("it goes on with a session without a word of where it stands")]
    NoStanding,
    /// What it had acknowledged is gone, although it was to be durable.
    #[error("it had taken the blocks before {told} for good, and has only those before {got}")]
    TakenIsGone {
        /// What it had told.
        told: Sequence,
        /// What it tells now.
        got: Sequence,
    },
    /// It heard the end of a stream that this end has not ended.
    #[error("it says that transfer {transfer} has ended, which this end never said")]
    EndNeverSaid {
        /// Which one.
        transfer: TransferId,
    },
    /// More blocks than the stream has bytes, by its own `End`.
    #[error("it sent {received} bytes of a stream that ends at {total}")]
    DataBeyondEnd {
        /// The end, as it said.
        total: StreamOffset,
        /// What came.
        received: StreamOffset,
    },
}

/// Whether a message is for the transfer that is next or running.
pub(super) fn check_transfer(
    expected: TransferId,
    got: TransferId,
    message: &'static str,
) -> Result<(), PeerMisbehaved> {
    let right = got == expected;
    if right { Ok(()) } else { Err(PeerMisbehaved::OtherTransfer { message, expected, got }) }
}

impl PeerMisbehaved {
    /// As a failure that happened at `peer`, the other end's side.
    pub fn failure(&self, peer: Side) -> Failure {
        let what = format!("the {peer} broke the protocol: {self}");
        Failure::new(peer, self.class(), printable(&what, TEXT_BYTES_MAX))
    }

    /// A disk that loses what it took makes a liar of an honest peer. What `zfs receive` has kept
    /// is as it was, so the copy goes on from there.
    fn class(&self) -> Class {
        match self {
            PeerMisbehaved::TakenIsGone { .. } => Class::Interrupted,
            _ => Class::Peer,
        }
    }

    /// What to tell `peer` before the connection is closed.
    pub fn farewell(&self, peer: Side) -> Message {
        Message::Refused(self.failure(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_blames_the_peer_and_shows_the_evidence() {
        let misbehaved = PeerMisbehaved::Unexpected { state: "Idle", message: "ack" };
        let failure = misbehaved.failure(Side::Target);
        assert_eq!(
            failure.to_string(),
            "target: the target broke the protocol: it said ack while this end was in Idle"
        );
        assert_eq!(failure.class, Class::Peer);
        assert_eq!(misbehaved.farewell(Side::Target), Message::Refused(failure));
    }

    #[test]
    fn a_disk_that_lost_what_was_acknowledged_ends_the_session_and_not_the_copy() {
        let gone = PeerMisbehaved::TakenIsGone { told: Sequence(5), got: Sequence(3) };
        let failure = gone.failure(Side::Target);
        assert_eq!(failure.class, Class::Interrupted);
        assert_eq!(
            failure.what,
            "the target broke the protocol: it had taken the blocks before #5 for good, and has \
             only those before #3"
        );
    }
}
