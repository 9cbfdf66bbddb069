//! Who is told what became of what clients have asked for, to count it.
//!
//! Of the same things as the log of [`super::audit`], and at the same moments: figures and lines
//! never differ.

use std::fmt;

use crate::units::Bytes;

/// Somebody who counts. The server waits for it.
pub trait Onlooker: fmt::Debug + Send + Sync {
    /// So many sessions run from now on.
    fn sessions(&self, running: usize);

    /// Something that was asked for has ended.
    fn ended(&self, told: &Told);
}

/// What has ended, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The client, as the list of clients names it; `None` in clear, where nobody has a name.
    pub client: Option<String>,
    /// How.
    pub outcome: Outcome,
    /// By its full name; of a wish that was refused, as far as it was known.
    pub dataset: String,
    /// What the target has taken of a stream, uncompressed.
    pub bytes: Option<Bytes>,
    /// How many snapshots were destroyed.
    pub destroyed: Option<u64>,
}

/// How it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A snapshot is there.
    Received,
    /// What was to go has gone.
    Pruned,
    /// A part of a snapshot is gone.
    GivenUp,
    /// It was begun, and not done.
    Failed,
    /// It was not begun.
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Received => "received",
            Outcome::Pruned => "pruned",
            Outcome::GivenUp => "given up",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
        })
    }
}
