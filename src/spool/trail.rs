//! Which blocks of a stream stand in its breakpoint files, in order and without a gap.
//!
//! Writes end in any order, and what stands behind a hole is of no use. So the stage that writes
//! leaves a trail of what it has begun, and as far as that is written without a gap it is told to
//! the thread that makes it durable and keeps the records.

use std::collections::VecDeque;
use std::io;

use crossbeam_channel::Sender;

use super::notes::{Note, Written};
use super::segments::Place;
use crate::breakpoint::prefix::Prefix;
use crate::breakpoint::record::Mark;
use crate::protocol::frame::Header;
use crate::units::Sequence;

/// The writes of one stream, in the order of its frames.
#[derive(Debug)]
pub struct Trail {
    notes: Sender<Note>,
    begun: VecDeque<Begun>,
    /// All before the first that was begun and is not written.
    prefix: Prefix,
    /// The number of that one.
    next: Option<Sequence>,
}

#[derive(Debug)]
struct Begun {
    frame: Header,
    place: Place,
    written: bool,
}

impl Trail {
    /// Of a stream of which `before` stands in its files already.
    pub(super) fn new(notes: Sender<Note>, before: Mark) -> Trail {
        Trail { notes, begun: VecDeque::new(), prefix: before.into(), next: None }
    }

    /// The write of a frame begins, behind those of all before it.
    pub fn begin(&mut self, frame: Header, place: Place) {
        self.next.get_or_insert(frame.sequence);
        self.begun.push_back(Begun { frame, place, written: false });
    }

    /// A write has ended well.
    pub fn written(&mut self, sequence: Sequence) {
        if let Some(begun) = self.begun.iter_mut().find(|begun| begun.frame.sequence == sequence) {
            begun.written = true;
        }
        while self.begun.front().is_some_and(|first| first.written) {
            let Some(Begun { frame, place, .. }) = self.begun.pop_front() else { return };
            self.pass(frame, place);
        }
    }

    /// A write has not ended well, or none can be made: nothing more is kept of the stream.
    pub fn broken(&mut self, error: io::Error) {
        self.begun.clear();
        self.tell(Note::Broken(error));
    }

    /// The end of what is written without a gap.
    pub fn mark(&self) -> Mark {
        self.prefix.mark()
    }

    /// The number of the first frame that is not written, once the first write has begun.
    pub fn next(&self) -> Option<Sequence> {
        self.next
    }

    fn pass(&mut self, frame: Header, place: Place) {
        let from = self.prefix.to();
        self.prefix.append(frame.crc32, frame.length());
        let next_frame = frame.sequence.next();
        self.next = Some(next_frame);
        let (segment, fd, mark) = (place.at.segment, place.fd, self.prefix.mark());
        self.tell(Note::Written(Written { segment, fd, from, mark, next_frame }));
    }

    fn tell(&self, note: Note) {
        // A recorder that is gone has panicked; the transfer does not depend on it.
        let _ = self.notes.send(note);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::breakpoint::record::SegmentNumber;
    use crate::breakpoint::segment::Position;
    use crate::protocol::frame::Codec;
    use crate::units::StreamOffset;
    use crate::units::TransferId;

    fn frame(number: u64) -> Header {
        Header {
            codec: Codec::Raw,
            transfer: TransferId(1),
            epoch: 1,
            sequence: Sequence(number),
            offset: StreamOffset(number * 10),
            plain_bytes: 10,
            payload_bytes: 10,
            crc32: 7,
        }
    }

    fn place(segment: u32) -> Place {
        let at = Position { segment: SegmentNumber(segment), page: 0 };
        Place { at, fd: Arc::new(std::fs::File::open("/dev/null").unwrap().into()) }
    }

    #[test]
    fn nothing_behind_a_hole_is_told_and_everything_once_it_is_closed() {
        let (notes, told) = crossbeam_channel::unbounded();
        let mut trail = Trail::new(notes, Mark::default());
        for (number, segment) in [(4, 1), (5, 1), (6, 2)] {
            trail.begin(frame(number), place(segment));
        }
        let parts = || -> Vec<_> {
            told.try_iter()
                .map(|note| match note {
                    Note::Written(part) => (part.segment.0, part.from.0, part.mark.to.0),
                    _ => panic!("{note:?}"),
                })
                .collect()
        };
        trail.written(Sequence(5));
        trail.written(Sequence(6));
        assert_eq!((parts(), trail.next()), (vec![], Some(Sequence(4))));
        trail.written(Sequence(4));
        assert_eq!(parts(), [(1, 0, 10), (1, 10, 20), (2, 20, 30)]);
        assert_eq!((trail.next(), trail.mark().to), (Some(Sequence(7)), StreamOffset(30)));
        trail.begin(frame(7), place(2));
        trail.broken(io::ErrorKind::StorageFull.into());
        trail.written(Sequence(7));
        assert!(matches!(told.try_recv(), Ok(Note::Broken(_))));
        assert!(told.try_recv().is_err());
    }
}
