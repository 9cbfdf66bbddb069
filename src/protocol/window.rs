//! Which blocks are on their way: what the sender keeps, and how far the receiver lets it go.
//!
//! A frame that the kernel has taken has not arrived. The sender keeps every frame in its
//! [`SendWindow`] until the receiver has taken it; those of a connection that was lost are dealt
//! again, oldest first, to whichever is free. The receiver's [`ReceiveWindow`] restores the order
//! and drops what comes twice. Between them goes a [`Credit`]: it lets no frame go for which the
//! receiver has no slot, so frames may come over any connection in any order, and no connection
//! is left unread.
//!
//! A lost connection must not cost what others have brought meanwhile: so the receiver also tells
//! what has [`Arrived`] out of order. That is not dealt again unless a later report takes it back.
//!
//! ```text
//!             taken           next          room
//! ------------- | ------------- | ----------- | -----------> numbers
//!   forgotten      kept until      may be        must wait
//!                  it is taken     dealt
//! ```

mod arrived;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::arrived::{Arrived, RANGES_MAX};
pub use self::receive::{Arrival, BeyondRoom, ReceiveWindow};
pub use self::send::{CreditError, Deal, Resent, SendWindow};
use crate::units::Sequence;

/// How far the sender may forget, and how far it may go. Both numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// Every frame numbered below has been taken, in order.
    pub taken: Sequence,
    /// Every frame numbered below has a slot at the receiver; never less than `taken`.
    pub room: Sequence,
}

/// All that a receiver tells of its window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// What the sender may forget, and how far it may go.
    pub credit: Credit,
    /// What it need not send again.
    pub arrived: Arrived,
}

impl From<Credit> for Receipt {
    /// Where nothing came out of order.
    fn from(credit: Credit) -> Receipt {
        Receipt { credit, arrived: Arrived::default() }
    }
}

impl Receipt {
    /// Whether an honest receiver can say so.
    pub fn is_possible(&self) -> bool {
        self.credit.taken <= self.credit.room && self.arrived.fits(self.credit)
    }
}

impl Credit {
    /// Whether it may be told after `earlier`.
    pub fn follows(self, earlier: Credit) -> bool {
        earlier.taken <= self.taken && earlier.room <= self.room && self.taken <= self.room
    }

    /// The higher of both, number by number.
    #[must_use]
    pub fn raised_to(self, other: Credit) -> Credit {
        Credit { taken: self.taken.max(other.taken), room: self.room.max(other.room) }
    }
}
