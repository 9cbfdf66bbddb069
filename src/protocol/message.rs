//! What is said on a control connection.
//!
//! JSON objects that name their type. Fields that a reader does not know are ignored and new ones
//! are optional, so that old and new versions talk; a new type of message needs a new version.
//! Names and secrets have types that check themselves: what decodes is well-formed. Whether it is
//! true, and whether it may be said now, is for `sender` and `receiver` to judge.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use super::frame::Codec;
use super::piece::Piece;
use super::prune::{self, Prune};
pub use super::relative::RelativeName;
use super::secret::JoinSecret;
use super::standing::{Return, Returned};
use super::text::{self, TEXT_BYTES_MAX};
pub use super::watermarks::Watermarks;
use super::window::{Arrived, Credit};
use crate::dataset::{DatasetName, Guid, Kind, SnapName};
use crate::error::Failure;
use crate::listing::{Snapshot, TargetState};
use crate::retention::Report;
use crate::units::{Bytes, StreamOffset, TransferId};

/// Everything that can be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Message {
    /// Client: who I am and what I can do.
    Hello(Hello),
    /// Server: who I am and what we shall do.
    Welcome(Welcome),
    /// Client: what do you hold of this dataset?
    List {
        /// Below the server's root for this client.
        dataset: RelativeName,
    },
    /// Server: this, and perhaps more.
    Listed {
        /// Its full name on the server, for messages to people.
        dataset: DatasetName,
        /// What it holds, with the oldest of its snapshots.
        target: TargetState,
        /// Whether [`Message::ListedMore`] follows.
        more: bool,
    },
    /// Server: the next snapshots of a listing too long for one message.
    ListedMore {
        /// In order; never empty.
        snapshots: Vec<Snapshot>,
        /// Whether another follows.
        more: bool,
    },
    /// Client: what do you hold of this dataset, and of all below it?
    ListTree {
        /// Below the server's root for this client.
        dataset: RelativeName,
        /// How many pages may come.
        pages: u32,
    },
    /// Server: this, and perhaps more.
    TreeListed {
        /// Its full name on the server, for messages to people.
        root: DatasetName,
        /// The first of its datasets, itself before all others; none where it does not exist.
        pieces: Vec<Piece>,
        /// Whether [`Message::TreeListedMore`] follows.
        more: bool,
    },
    /// Server: the next page of a tree too large for one message.
    TreeListedMore {
        /// In order; never empty.
        pieces: Vec<Piece>,
        /// Whether another follows.
        more: bool,
    },
    /// Client: go on with the tree. It may be over by the time this comes.
    ListOn {
        /// How many pages may come, with those that came.
        pages: u32,
    },
    /// Client: give up what an interrupted receive left in this dataset.
    Abort {
        /// Below the server's root for this client.
        dataset: RelativeName,
        /// The resume token that was listed: nothing is given up if another is there by now.
        token: String,
    },
    /// Server: it is given up.
    Aborted,
    /// Client: destroy what need not be kept of this dataset's snapshots.
    Prune(Prune),
    /// Server: that much was done, or why nothing.
    Pruned(Report),
    /// Client: take this stream.
    Open(Open),
    /// Server: ready to take it.
    Opened {
        /// The transfer that was asked for.
        transfer: TransferId,
        /// Where the stream is to go on.
        start: Start,
        /// How many blocks may come.
        credit: Credit,
    },
    /// Server: so far it came.
    Ack {
        /// The transfer.
        transfer: TransferId,
        /// How far.
        reached: Watermarks,
        /// What the client may forget, and how many more blocks may come.
        credit: Credit,
        /// What it need not send again.
        #[serde(default, skip_serializing_if = "Arrived::is_empty")]
        arrived: Arrived,
    },
    /// Client: no more blocks, and why.
    End {
        /// The transfer.
        transfer: TransferId,
        /// Why.
        ending: Ending,
    },
    /// Server: what became of the transfer. Never a success unless `End` said that all was sent.
    Result {
        /// The transfer.
        transfer: TransferId,
        /// What became of it.
        outcome: Outcome,
    },
    /// Either: no, and that is the last that I say.
    Refused(Failure),
    /// Either: I am alive.
    Ping {
        /// How many remembered messages of the other end were heard in this session.
        #[serde(default)]
        heard: u64,
    },
    /// Client, first on a control connection that goes on with a session: here I am again.
    Return(Return),
    /// Server: go on. Both say again what the other has not heard.
    Returned(Returned),
    /// Client: nothing more to do.
    Bye,
}

/// The client's opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The program and its version, for the other end's log.
    pub software: String,
    /// What the client can do and how many connections it would like.
    pub limits: Limits,
}

/// What one end can do, or what two agreed to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest block, uncompressed.
    pub block_bytes_max: Bytes,
    /// How many data connections.
    pub connections: u16,
    /// How payloads may be packed. An unknown codec is one that a newer end offers in vain.
    #[serde(deserialize_with = "known_codecs")]
    pub codecs: BTreeSet<Codec>,
}

/// The server's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The program and its version, for the other end's log.
    pub software: String,
    /// The protocol version, out of those that the client's preamble offered.
    pub version: u16,
    /// What was agreed: nowhere beyond what the client can do.
    pub limits: Limits,
    /// What data connections show to join this session.
    pub secret: JoinSecret,
}

/// The client's wish to send a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The number of the transfer: one more than the last.
    pub transfer: TransferId,
    /// What is asked for.
    pub request: Request,
}

/// A stream and how it would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What it is.
    pub stream: Stream,
    /// The run of `zfs send` that its frames will come out of.
    pub epoch: u32,
    /// How long it will be, as far as `zfs send -n` can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_bytes: Option<Bytes>,
    /// No block will be larger.
    pub block_bytes: Bytes,
    /// How blocks are packed that get smaller by it; all others are raw.
    pub codec: Codec,
    /// Where the last copy was interrupted, as far as the client's record knows. The server says
    /// in `Opened` whether it can go on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted_at: Option<InterruptedAt>,
}

/// What a stream is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Stream {
    /// One snapshot, for `zfs receive`.
    Dataset(DatasetStream),
    /// Any bytes, for whatever the other end runs.
    Pipe,
}

/// One snapshot on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetStream {
    /// The dataset that receives.
    pub target: RelativeName,
    /// What it is.
    pub dataset: Kind,
    /// What the snapshot is called.
    pub snapshot: SnapName,
    /// The snapshot that the target will hold afterwards.
    pub to: Guid,
    /// The snapshot that the target must hold already; `None` for a full stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Guid>,
    /// Whether blocks come as they lie on the source's disks (`zfs send -w`).
    pub raw: bool,
    /// Whether this stream makes the target, as its sender believes. The server goes by what is
    /// there, and not by this.
    pub first: bool,
    /// Whether this is the rest of a stream that the target holds a part of (`zfs send -t`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// What the target is cloned from, where the stream makes a clone. Then `from` is the guid of
    /// that snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<CloneOf>>,
    /// Properties that the target shall have, by name. What the server takes of them it says; of
    /// what it does not take it refuses the whole stream.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// A snapshot of another dataset, as the target of a clone has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneOf {
    /// The other dataset, below the same root.
    pub dataset: RelativeName,
    /// What the snapshot is called there.
    pub snapshot: SnapName,
    /// The snapshot.
    pub guid: Guid,
}

/// A resume point that is valid inside one epoch only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptedAt {
    /// The run of `zfs send`.
    pub epoch: u32,
    /// How far it was acknowledged.
    pub offset: StreamOffset,
    /// CRC32 of the stream up to there.
    pub crc32: u32,
}

/// Where a stream begins to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Start {
    /// At byte 0 of a new run of `zfs send`.
    FromStart,
}

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Ending {
    /// `zfs send` said all it had to say, and exited with 0.
    Complete {
        /// How long the stream is.
        total: StreamOffset,
        /// CRC32 of all of it.
        crc32: u32,
    },
    /// It will never be complete.
    Failed(Failure),
}

/// What became of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The target holds it.
    Applied(Applied),
    /// It does not.
    Failed(Failure),
}

/// A transfer that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The snapshot's guid, read back from the target; `None` for a pipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<Guid>,
    /// The stream's length, uncompressed.
    pub bytes: Bytes,
    /// From `Opened` to the end, in milliseconds.
    pub millis: u64,
}

fn known_codecs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Codec>, D::Error> {
    let known = |name: String| {
        let named: Result<Codec, serde::de::value::Error> =
            Codec::deserialize(name.into_deserializer());
        named.ok()
    };
    Ok(Vec::<String>::deserialize(deserializer)?.into_iter().filter_map(known).collect())
}

impl Message {
    /// Every name that [`Message::name`] gives and the wire knows.
    pub const NAMES: [&str; 23] = [
        "hello",
        "welcome",
        "list",
        "listed",
        "listed-more",
        "list-tree",
        "tree-listed",
        "tree-listed-more",
        "list-on",
        "abort",
        "aborted",
        "prune",
        "pruned",
        "open",
        "opened",
        "ack",
        "end",
        "result",
        "refused",
        "ping",
        "return",
        "returned",
        "bye",
    ];

    /// What kind of message it is, by its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "hello",
            Message::Welcome(_) => "welcome",
            Message::List { .. } => "list",
            Message::Listed { .. } => "listed",
            Message::ListedMore { .. } => "listed-more",
            Message::ListTree { .. } => "list-tree",
            Message::TreeListed { .. } => "tree-listed",
            Message::TreeListedMore { .. } => "tree-listed-more",
            Message::ListOn { .. } => "list-on",
            Message::Abort { .. } => "abort",
            Message::Aborted => "aborted",
            Message::Prune(_) => "prune",
            Message::Pruned(_) => "pruned",
            Message::Open(_) => "open",
            Message::Opened { .. } => "opened",
            Message::Ack { .. } => "ack",
            Message::End { .. } => "end",
            Message::Result { .. } => "result",
            Message::Refused(_) => "refused",
            Message::Ping { .. } => "ping",
            Message::Return(_) => "return",
            Message::Returned(_) => "returned",
            Message::Bye => "bye",
        }
    }

    /// Whether it must be said again if it was lost with its connection. All are but those that
    /// the next of their kind replaces, and those that are about the connection itself.
    pub fn is_remembered(&self) -> bool {
        !matches!(
            self,
            Message::Ack { .. } | Message::Ping { .. } | Message::Return(_) | Message::Returned(_)
        )
    }

    /// Whether these are a client's last words. It waits until they are confirmed, for a server
    /// that missed them would wait for it.
    pub fn is_farewell(&self) -> bool {
        matches!(
            self,
            Message::Bye | Message::Refused(_) | Message::End { ending: Ending::Failed(_), .. }
        )
    }

    /// The same message with free text that a person can be shown and that surely fits.
    pub(super) fn made_printable(mut self) -> Message {
        match &mut self {
            Message::Refused(failure)
            | Message::End { ending: Ending::Failed(failure), .. }
            | Message::Result { outcome: Outcome::Failed(failure), .. } => {
                failure.what = text::printable(&failure.what, TEXT_BYTES_MAX);
                failure.remedy =
                    failure.remedy.as_ref().map(|order| text::printable(order, TEXT_BYTES_MAX));
            }
            Message::Pruned(report) => *report = prune::made_fit(std::mem::take(report)),
            Message::Hello(Hello { software, .. }) | Message::Welcome(Welcome { software, .. }) => {
                *software = text::one_line(software, 80);
            }
            _ => {}
        }
        self
    }
}

impl Stream {
    /// Whether the target holds this stream if `guid` was read back from it.
    pub fn is_proved_by(&self, guid: Option<Guid>) -> bool {
        match self {
            Stream::Dataset(stream) => guid == Some(stream.to),
            Stream::Pipe => guid.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guid_that_was_sent_proves_a_dataset() {
        let stream = Stream::Dataset(DatasetStream {
            target: "a".parse().unwrap(),
            dataset: Kind::Volume,
            snapshot: "s".parse().unwrap(),
            to: Guid(7),
            from: None,
            raw: false,
            first: true,
            resumed: false,
            origin: None,
            properties: BTreeMap::new(),
        });
        assert!(stream.is_proved_by(Some(Guid(7))));
        assert!(!stream.is_proved_by(Some(Guid(8))) && !stream.is_proved_by(None));
        assert!(Stream::Pipe.is_proved_by(None) && !Stream::Pipe.is_proved_by(Some(Guid(7))));
    }
}
