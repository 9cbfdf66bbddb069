//! A target's snapshots in pieces that fit into messages, and back.
//!
//! The server splits, the client joins. Tens of thousands of snapshots are common, so a listing
//! has no natural end: what a client holds of it must be bounded, and every piece must move it on.

use super::message::Message;
use super::misbehaved::PeerMisbehaved;
use crate::dataset::{DatasetName, NAME_BYTES_MAX};
use crate::error::{Class, Failure, Side};
use crate::listing::{Snapshot, TargetState};
use crate::protocol::envelope::MESSAGE_BYTES_MAX;

/// How many snapshots of one dataset a client is ready to hear of: at 90 bytes each, 24 MiB.
pub(super) const LISTING_SNAPSHOTS_MAX: usize = 1 << 18;

/// How many fit into a message beside the longest resume token.
const CHUNK_SNAPSHOTS: usize = 128;

/// ZFS's tokens have some hundred bytes, as hex; a redaction list makes them longer.
pub(super) const TOKEN_BYTES_MAX: usize = 16 << 10;

/// `{"name":"...","guid":...,"createtxg":...},` with the longest name and numbers of 20 digits.
/// Names have no character that JSON would escape.
const SNAPSHOT_BYTES_MAX: usize = 33 + NAME_BYTES_MAX + 20 + 20;

/// All other fields of `listed`, generously.
const REST_BYTES_MAX: usize = 256 + NAME_BYTES_MAX;

const _: () = assert!(
    CHUNK_SNAPSHOTS * SNAPSHOT_BYTES_MAX + TOKEN_BYTES_MAX + REST_BYTES_MAX <= MESSAGE_BYTES_MAX
);

/// The messages that tell what `dataset` holds: `target`.
pub(super) fn split(dataset: DatasetName, target: TargetState) -> Result<Vec<Message>, Failure> {
    let TargetState::Present { kind, encrypted, mut snapshots, resume_token } = target else {
        return Ok(vec![Message::Listed { dataset, target, more: false }]);
    };
    check(&snapshots, resume_token.as_deref())?;
    let rest = snapshots.split_off(snapshots.len().min(CHUNK_SNAPSHOTS));
    let more = !rest.is_empty();
    let head = TargetState::Present { kind, encrypted, snapshots, resume_token };
    let chunks = rest.chunks(CHUNK_SNAPSHOTS);
    let last = chunks.len();
    let tail = chunks
        .enumerate()
        .map(|(at, chunk)| Message::ListedMore { snapshots: chunk.to_vec(), more: at + 1 < last });
    Ok(std::iter::once(Message::Listed { dataset, target: head, more }).chain(tail).collect())
}

fn check(snapshots: &[Snapshot], token: Option<&str>) -> Result<(), Failure> {
    let count = snapshots.len();
    if count > LISTING_SNAPSHOTS_MAX {
        let what = format!("{count} snapshots are more than the {LISTING_SNAPSHOTS_MAX} of a list");
        return Err(Failure::new(Side::Target, Class::Refused, what)
            .with_remedy("destroy snapshots that are no longer needed"));
    }
    check_token(token)
}

/// Whether a resume token can be told.
pub(super) fn check_token(token: Option<&str>) -> Result<(), Failure> {
    let token_bytes = token.map_or(0, quoted_bytes);
    if token_bytes > TOKEN_BYTES_MAX {
        let what = format!("a resume token of {token_bytes} bytes does not fit into a message");
        return Err(Failure::new(Side::Target, Class::Zfs, what)
            .with_remedy("give the interrupted receive up: zfs receive -A DATASET"));
    }
    Ok(())
}

/// How long a text is in JSON, between its quotes.
pub(super) fn quoted_bytes(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    });
    bytes.sum()
}

/// What came of a listing so far.
#[derive(Debug)]
pub(super) enum Listing {
    /// All of it.
    Whole(TargetState),
    /// [`Message::ListedMore`] must follow.
    Partial(TargetState),
}

impl Listing {
    /// From the first message.
    pub(super) fn begin(target: TargetState, more: bool) -> Result<Listing, PeerMisbehaved> {
        match (&target, more) {
            (TargetState::Present { snapshots, .. }, true) if !snapshots.is_empty() => {
                Ok(Listing::Partial(target))
            }
            (_, true) => Err(PeerMisbehaved::ListingStands),
            (_, false) => Ok(Listing::Whole(target)),
        }
    }

    /// With one more message.
    pub(super) fn join(
        so_far: TargetState,
        next: Vec<Snapshot>,
        more: bool,
    ) -> Result<Listing, PeerMisbehaved> {
        let TargetState::Present { kind, encrypted, mut snapshots, resume_token } = so_far else {
            return Err(PeerMisbehaved::ListingStands);
        };
        if next.is_empty() {
            return Err(PeerMisbehaved::ListingStands);
        }
        if snapshots.len() + next.len() > LISTING_SNAPSHOTS_MAX {
            return Err(PeerMisbehaved::ListingTooLong { max: LISTING_SNAPSHOTS_MAX });
        }
        snapshots.extend(next);
        let target = TargetState::Present { kind, encrypted, snapshots, resume_token };
        Ok(if more { Listing::Partial(target) } else { Listing::Whole(target) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Guid, Kind};
    use crate::protocol::envelope::encode;

    fn name() -> DatasetName {
        "a".repeat(NAME_BYTES_MAX).parse().unwrap()
    }

    fn target(count: usize, name_bytes: usize, token_bytes: usize) -> TargetState {
        let snapshot = |number: usize| Snapshot {
            name: format!("{number:0>name_bytes$}").parse().unwrap(),
            guid: Guid(u64::MAX - number as u64),
            createtxg: u64::MAX,
        };
        TargetState::Present {
            kind: Kind::Filesystem,
            encrypted: count % 2 == 1,
            snapshots: (0..count).map(snapshot).collect(),
            resume_token: (token_bytes > 0).then(|| "f".repeat(token_bytes)),
        }
    }

    fn joined(messages: Vec<Message>) -> TargetState {
        let mut so_far = None;
        for message in messages {
            let listing = match (so_far.take(), message) {
                (None, Message::Listed { target, more, .. }) => Listing::begin(target, more),
                (Some(Listing::Partial(target)), Message::ListedMore { snapshots, more }) => {
                    Listing::join(target, snapshots, more)
                }
                other => panic!("{other:?}"),
            };
            so_far = Some(listing.unwrap());
        }
        let Some(Listing::Whole(target)) = so_far else { panic!("not whole: {so_far:?}") };
        target
    }

    #[test]
    fn a_listing_of_any_length_arrives_whole_in_messages_that_fit() {
        for count in [0, 1, 127, 128, 129, 256, 257, 30_000] {
            let whole = target(count, 255, TOKEN_BYTES_MAX);
            let messages = split(name(), whole.clone()).unwrap();
            // `encode` panics where a message does not fit.
            for message in &messages {
                encode(message);
            }
            assert_eq!(messages.len(), count.div_ceil(CHUNK_SNAPSHOTS).max(1));
            assert_eq!(joined(messages), whole, "{count} snapshots");
        }
        assert_eq!(joined(split(name(), TargetState::Absent).unwrap()), TargetState::Absent);
    }

    #[test]
    fn what_could_not_be_told_is_refused_at_its_source() {
        let told = split(name(), target(LISTING_SNAPSHOTS_MAX + 1, 8, 0)).unwrap_err();
        assert!(told.what.contains("262145 snapshots"), "{told}");
        let told = split(name(), target(0, 0, TOKEN_BYTES_MAX + 1)).unwrap_err();
        assert!(told.what.contains("resume token of 16385 bytes"), "{told}");
    }

    #[test]
    fn a_listing_that_does_not_move_on_or_never_ends_is_cut_off() {
        let stands = |listing| matches!(listing, Err(PeerMisbehaved::ListingStands));
        assert!(stands(Listing::begin(TargetState::Absent, true)));
        assert!(stands(Listing::begin(target(0, 0, 0), true)));
        assert!(stands(Listing::join(target(1, 8, 0), Vec::new(), true)));
        let TargetState::Present { snapshots, .. } = target(2, 8, 0) else { unreachable!() };
        let too_long = Listing::join(target(LISTING_SNAPSHOTS_MAX - 1, 8, 0), snapshots, false);
        assert!(matches!(too_long, Err(PeerMisbehaved::ListingTooLong { .. })));
    }
}
