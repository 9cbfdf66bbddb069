//! Whether a stream is the one that was announced, and one that is received here.
//!
//! A sender announces a stream before it sends it, and is authorised for what it announced. So a
//! stream that differs comes from a sender that is broken or hostile, and no part of it is to reach
//! `zfs receive`. Whether the target has what the stream builds on is for ZFS to say: without `-F`
//! it adds a stream only to the very snapshot that the record names, and resumes only the very
//! stream that it has a part of.

use super::begin::{Begin, BeginError, Content, Features, Form};
use crate::dataset::{Guid, Kind, SnapName};
use crate::error::Class;

/// What was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// What the dataset is.
    pub kind: Kind,
    /// What the snapshot is called.
    pub snapshot: SnapName,
    /// The snapshot.
    pub to: Guid,
    /// What it builds on; `None` for a full stream.
    pub from: Option<Guid>,
    /// Whether blocks come as they lie on the source's disks.
    pub raw: bool,
    /// Whether this is the rest of a stream that the target has a part of.
    pub resumed: bool,
    /// Whether it makes a clone of what it builds on.
    pub clone: bool,
}

/// What `zfs receive` is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What the stream holds.
    pub kind: Kind,
    /// Whether it makes the dataset that it goes into.
    pub makes_dataset: bool,
}

/// Why a stream is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its beginning is none.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// It ended before its beginning was whole.
    #[error("it ended after {0} bytes, within its BEGIN record")]
    CutShort(usize),
    /// It could make, change or destroy more than one snapshot.
    #[error("it is a package stream (zfs send -R, -I, -p, -b or -h); announced was one snapshot")]
    Package,
    /// A form that no ZFS has.
    #[error("its BEGIN record has the unknown form {0}")]
    Form(u8),
    /// Its blocks refer to others (`zfs send -D` of old).
    #[error("it is a deduplicated stream, which no ZFS of today receives")]
    Deduplicated,
    /// It is no copy of the snapshot.
    #[error("it is redacted: it leaves parts of the snapshot out")]
    Redacted,
    /// It would make a clone of some dataset of the target: ZFS looks for the snapshot in all of
    /// the pool, also where its sender may not look.
    #[error("it makes a clone: it builds on a snapshot of another dataset; that was not announced")]
    Clone,
    /// It adds to the dataset that it goes into.
    #[error("it makes no clone; announced was one")]
    NoClone,
    /// It takes what nobody here knows.
    #[error("it has features that this zferry does not know (bits {})", bits(*.0))]
    Features(Features),
    /// It is of something that is no dataset.
    #[error("it is of neither a filesystem nor a volume, but of type {0}")]
    Content(u32),
    /// It is of the other kind.
    #[error("it is of a {got}; announced was a {announced}")]
    Kind {
        /// What was announced.
        announced: Kind,
        /// What it is.
        got: Kind,
    },
    /// It is of another snapshot.
    #[error("it is of the snapshot with guid {got}; announced was guid {announced}")]
    To {
        /// What was announced.
        announced: Guid,
        /// What it is.
        got: Guid,
    },
    /// It builds on something else.
    #[error("it {}; announced was that it {}", builds(*.got), builds(*.announced))]
    From {
        /// What was announced.
        announced: Option<Guid>,
        /// What it is.
        got: Option<Guid>,
    },
    /// It would give the snapshot another name.
    #[error("it names its snapshot {got:?}; announced was the name '{announced}'")]
    Snapshot {
        /// What was announced.
        announced: SnapName,
        /// What it says.
        got: String,
    },
    /// It is raw and should not be, or the other way round.
    #[error("it is {}; announced was one that is {}", form_of(!*.announced), form_of(*.announced))]
    Raw {
        /// Whether raw was announced.
        announced: bool,
    },
    /// It goes on with another stream and should not, or the other way round.
    #[error("it is {}; announced was {}", part_of(!*.announced), part_of(*.announced))]
    Resumed {
        /// Whether the rest of a stream was announced.
        announced: bool,
    },
}

/// All features of OpenZFS up to 2.4 that one snapshot may need: system attributes in spill blocks,
/// embedded data, lz4, large blocks, rests, compressed blocks, large dnodes, raw blocks, zstd, the
/// switch to large blocks, long names and large microzaps.
const KNOWN: Features = Features(
    1 << 2
        | 1 << 16
        | 1 << 17
        | 1 << 19
        | Features::RESUMING.0
        | 1 << 22
        | 1 << 23
        | Features::RAW.0
        | 1 << 25
        | 1 << 27
        | 1 << 28
        | 1 << 29,
);

/// Whether the stream that begins like this is let in.
pub fn judge(begin: &Begin, announced: &Announced) -> Result<Admitted, Refusal> {
    match begin.form {
        Form::Single => {}
        Form::Package => return Err(Refusal::Package),
        Form::Unknown(form) => return Err(Refusal::Form(form)),
    }
    judge_features(begin, announced)?;
    let kind = match begin.content {
        Content::Dataset(kind) => kind,
        Content::Other(content) => return Err(Refusal::Content(content)),
    };
    let announced_kind = announced.kind;
    if kind != announced_kind {
        return Err(Refusal::Kind { announced: announced_kind, got: kind });
    }
    match (begin.clone, announced.clone) {
        (true, false) => return Err(Refusal::Clone),
        (false, true) => return Err(Refusal::NoClone),
        _ => {}
    }
    if begin.to != announced.to {
        return Err(Refusal::To { announced: announced.to, got: begin.to });
    }
    if begin.from != announced.from {
        return Err(Refusal::From { announced: announced.from, got: begin.from });
    }
    if begin.snapshot() != announced.snapshot.as_str() {
        let (announced, got) = (announced.snapshot.clone(), begin.to_name.clone());
        return Err(Refusal::Snapshot { announced, got });
    }
    let is_first = begin.from.is_none() || begin.clone;
    // The first part of such a stream has made the dataset; its rest finds it there.
    Ok(Admitted { kind, makes_dataset: is_first && !announced.resumed })
}

fn judge_features(begin: &Begin, announced: &Announced) -> Result<(), Refusal> {
    let features = begin.features;
    if features.any_of(Features::DEDUPLICATED) {
        return Err(Refusal::Deduplicated);
    }
    if features.any_of(Features::REDACTED) {
        return Err(Refusal::Redacted);
    }
    let unknown = features.without(KNOWN);
    if unknown != Features(0) {
        return Err(Refusal::Features(unknown));
    }
    if features.any_of(Features::RAW) != announced.raw {
        return Err(Refusal::Raw { announced: announced.raw });
    }
    if features.any_of(Features::RESUMING) != announced.resumed {
        return Err(Refusal::Resumed { announced: announced.resumed });
    }
    Ok(())
}

impl Refusal {
    /// Who must act: an operator, for what a ZFS may well send and is not taken here; for all else
    /// whoever looks after the sender, which did not send what it announced.
    pub fn class(&self) -> Class {
        match self {
            Refusal::Package
            | Refusal::Deduplicated
            | Refusal::Redacted
            | Refusal::Clone
            | Refusal::Features(_) => Class::Refused,
            _ => Class::Peer,
        }
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Refusal::Package => {
                "send one snapshot a stream, by zferry replicate; or take the package between \
                 pipes, where nobody looks at it: zferry receive ... -- zfs receive ..."
            }
            Refusal::Deduplicated => "send it without -D, or through zstream redup",
            Refusal::Redacted => "send it without --redact",
            Refusal::Clone => {
                "replicate the clone as a dataset of its own, by a full stream; or together with \
                 what it was cloned from, by zferry replicate -r"
            }
            Refusal::Features(_) => "update zferry on the target",
            _ => {
                "run zferry replicate again, which looks anew at what there is to send; if this is \
                 said again, the sending host is broken or not to be trusted"
            }
        }
    }
}

fn bits(features: Features) -> String {
    let bits = (0..u64::BITS).filter(|bit| features.0 >> bit & 1 == 1);
    bits.map(|bit| bit.to_string()).collect::<Vec<_>>().join(", ")
}

fn builds(from: Option<Guid>) -> String {
    match from {
        Some(guid) => format!("builds on the snapshot with guid {guid}"),
        None => "builds on nothing".to_owned(),
    }
}

fn form_of(raw: bool) -> &'static str {
    if raw { "raw" } else { "not raw" }
}

fn part_of(resumed: bool) -> &'static str {
    if resumed { "the rest of a stream" } else { "a stream from its beginning" }
}
