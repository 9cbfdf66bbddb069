//! Which frames stand in breakpoint files, in order, in little memory: four bytes for each.
//!
//! The place of an entry follows from that of the first and the lengths of all between them, as
//! when it was written. The rest of what there is to know of a frame stands in the file.

use std::collections::VecDeque;

use crate::breakpoint::segment::{PAGE_BYTES, Position, SegmentPages, entry_pages};
use crate::units::Sequence;

/// Frames in the order of their numbers, from the first that has not been read back.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    first: Sequence,
    /// The lengths of their payloads.
    payloads: VecDeque<u32>,
    /// Where the first stands, or behind the one before it.
    at: Position,
}

/// A frame in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shelved {
    pub sequence: Sequence,
    pub at: Position,
    payload_bytes: u32,
    behind: Position,
}

impl Shelved {
    /// How many bytes of the file it takes.
    pub fn length(&self) -> usize {
        entry_pages(self.payload_bytes) as usize * PAGE_BYTES
    }
}

impl Backlog {
    /// Adds the frame behind all others, which was written `at` this place.
    ///
    /// # Panics
    ///
    /// When a number is left out: then it would be taken for another one.
    pub fn push(&mut self, sequence: Sequence, payload_bytes: u32, at: Position) {
        if self.payloads.is_empty() {
            (self.first, self.at) = (sequence, at);
        }
        let next = self.first.0 + self.payloads.len() as u64;
        assert_eq!(sequence.0, next, "frames are written in order");
        self.payloads.push_back(payload_bytes);
    }

    /// The frame that is read back next.
    pub fn front(&self, size: SegmentPages) -> Option<Shelved> {
        let &payload_bytes = self.payloads.front()?;
        let (at, behind) = self.at.place(payload_bytes, size)?;
        Some(Shelved { sequence: self.first, at, payload_bytes, behind })
    }

    /// Takes off what [`Backlog::front`] gave.
    pub fn pop(&mut self, front: Shelved) {
        self.payloads.pop_front();
        self.first = front.sequence.next();
        self.at = front.behind;
    }

    /// Whether every frame has been taken off.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breakpoint::record::SegmentNumber;

    #[test]
    fn a_frame_is_looked_for_where_it_was_placed() {
        let size = SegmentPages::new(5).unwrap();
        let payloads = [1, 4096, 4097, 9000, 1, 16384];
        let mut backlog = Backlog::default();
        let start = |segment| Position { segment: SegmentNumber(segment), page: 0 };
        let mut written = start(1);
        let mut places = Vec::new();
        for (sequence, payload) in (7..).zip(payloads) {
            let (at, behind) = written.place(payload, size).unwrap();
            backlog.push(Sequence(sequence), payload, at);
            places.push((sequence, at));
            written = behind;
        }
        let mut found = Vec::new();
        while let Some(shelved) = backlog.front(size) {
            found.push((shelved.sequence.0, shelved.at));
            backlog.pop(shelved);
        }
        assert_eq!(found, places);
        assert_eq!(places[2].1, Position { segment: SegmentNumber(2), page: 0 });
        assert!(backlog.is_empty());
        backlog.push(Sequence(13), 1, start(9));
        assert_eq!(backlog.front(size).map(|shelved| shelved.at), Some(start(9)));
    }

    #[test]
    #[should_panic(expected = "frames are written in order")]
    fn no_number_is_left_out() {
        let mut backlog = Backlog::default();
        let at = Position::default();
        backlog.push(Sequence(1), 1, at);
        backlog.push(Sequence(3), 1, at);
    }
}
