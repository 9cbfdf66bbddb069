//! How far a transfer is at a server, as it is told to its client.

use serde::{Deserialize, Serialize};

use crate::units::StreamOffset;

/// How far a transfer is, in bytes of the uncompressed stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermarks {
    /// Everything before it arrived.
    pub received: StreamOffset,
    /// Everything before it is durable in a breakpoint file.
    pub spooled: StreamOffset,
    /// Everything before it was taken by the pipe of this epoch; not yet safe in ZFS.
    pub fed: StreamOffset,
}

impl Watermarks {
    /// The higher of both, mark by mark; what is spooled or fed was surely received.
    #[must_use]
    pub fn raised_to(self, other: Watermarks) -> Watermarks {
        let spooled = self.spooled.max(other.spooled);
        let fed = self.fed.max(other.fed);
        let received = self.received.max(other.received).max(spooled).max(fed);
        Watermarks { received, spooled, fed }
    }

    /// Whether no mark lies before the one in `earlier`, and none beyond `received`.
    pub fn follows(self, earlier: Watermarks) -> bool {
        earlier.raised_to(self) == self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(received: u64, spooled: u64, fed: u64) -> Watermarks {
        Watermarks {
            received: StreamOffset(received),
            spooled: StreamOffset(spooled),
            fed: StreamOffset(fed),
        }
    }

    #[test]
    fn watermarks_only_rise_and_received_is_the_highest() {
        assert_eq!(at(5, 0, 3).raised_to(at(4, 2, 9)), at(9, 2, 9));
        assert!(at(5, 5, 5).follows(at(5, 0, 4)));
        for (earlier, later) in [
            (at(5, 0, 0), at(4, 0, 0)),
            (at(5, 2, 0), at(5, 1, 0)),
            (at(5, 0, 2), at(9, 0, 1)),
            (at(0, 0, 0), at(5, 6, 0)),
            (at(0, 0, 0), at(5, 0, 6)),
        ] {
            assert!(!later.follows(earlier), "{later:?} after {earlier:?}");
        }
    }
}
