//! How two ends find together again: over a new connection, and after one of them has forgotten.
//!
//! A process that takes the place of one that died knows the session's secret, what is in its
//! breakpoint files, and nothing of what was said. Then the server says where it stands, both
//! [`Journal`](super::journal::Journal)s begin to count anew, and the machines go on from there.

use serde::{Deserialize, Serialize};

use super::watermarks::Watermarks;
use super::window::{Arrived, Credit, Receipt};
use crate::units::TransferId;

/// What a client says first on a connection that goes on with a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// How many remembered messages of the server were heard, since the counts last began.
    pub heard: u64,
    /// Which beginning of the counts that is: 0 for the session's own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beginning: u32,
    /// It is a new process, and does not know what was said before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
}

/// What a server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// How many remembered messages of the client were heard, since the counts last began.
    pub heard: u64,
    /// Where the server stands. If it says so, both begin to count anew, at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Which beginning that is; of no meaning otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beginning: u32,
}

/// What a server has of the transfer that is under way, or that was the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which one.
    pub transfer: TransferId,
    /// How far it came. After a crash of the server that may be less than it had told.
    pub reached: Watermarks,
    /// What the client may forget, never less than it was told; and how far it may go.
    pub credit: Credit,
    /// What it need not send again.
    #[serde(default, skip_serializing_if = "Arrived::is_empty")]
    pub arrived: Arrived,
    /// The client's `End` was heard. If not, it has to be said again.
    pub ended: bool,
}

impl Standing {
    /// What it tells of its window.
    pub fn receipt(&self) -> Receipt {
        Receipt { credit: self.credit, arrived: self.arrived.clone() }
    }
}

// Serde asks with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}
