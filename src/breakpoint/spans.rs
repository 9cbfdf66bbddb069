//! Which bytes of the stream stand in which segment: the list behind a record's spool extent.
//!
//! Segments are filled one after the other, each with a contiguous part of the stream. Where the
//! stream was not spooled for a while the next part begins a new segment, so that a gap never lies
//! inside one. A segment leaves the list from the front only, when it was told to be deleted.

use std::collections::VecDeque;

use super::record::{SegmentNumber, SpoolExtent};
use crate::units::{Bytes, StreamOffset};

/// What one segment holds: the stream from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The segment.
    pub segment: SegmentNumber,
    /// Its first byte of the stream.
    pub low: StreamOffset,
    /// Behind its last byte of the stream.
    pub high: StreamOffset,
}

/// Segments in the order of their numbers and of the stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans(VecDeque<Span>);

impl Spans {
    /// # Panics
    ///
    /// When the spans are out of order: the caller has mixed up its segments.
    pub fn new(spans: Vec<Span>) -> Spans {
        let mut all = Spans::default();
        for span in spans {
            all.append(span);
        }
        all
    }

    /// Adds bytes behind all others, to the last segment or to a new one.
    ///
    /// # Panics
    ///
    /// When they do not stand behind all others, or leave a gap within a segment.
    pub fn append(&mut self, added: Span) {
        assert!(added.low <= added.high, "a span ends before it begins: {added:?}");
        match self.0.back_mut() {
            Some(last) if last.segment == added.segment => {
                assert_eq!(last.high, added.low, "a gap within segment {:?}", added.segment);
                last.high = added.high;
            }
            Some(last) => {
                assert!(last.segment < added.segment, "{added:?} behind {last:?}");
                assert!(last.high <= added.low, "{added:?} behind {last:?}");
                self.0.push_back(added);
            }
            None => self.0.push_back(added),
        }
    }

    /// What a record may claim: the last contiguous part, without the segments at its front that
    /// hold nothing behind `released`. The last segment stays: it is being written.
    pub fn extent(&self, released: StreamOffset, segment_bytes: Bytes) -> Option<SpoolExtent> {
        let last = *self.0.back()?;
        let mut first = last;
        for span in self.0.iter().rev().skip(1) {
            if span.high != first.low || span.high <= released {
                break;
            }
            first = *span;
        }
        Some(SpoolExtent {
            first_segment: first.segment,
            last_segment: last.segment,
            segment_bytes,
            low: first.low,
            high: last.high,
        })
    }

    /// Takes the segments from the front that hold nothing behind `released` and lie before
    /// `claimed`, and returns the first that stays; `None` where nothing was taken.
    pub fn trim(
        &mut self,
        released: StreamOffset,
        claimed: SegmentNumber,
    ) -> Option<SegmentNumber> {
        let before = self.0.len();
        while self.0.len() > 1
            && self.0.front().is_some_and(|span| span.high <= released && span.segment < claimed)
        {
            self.0.pop_front();
        }
        if self.0.len() == before {
            return None;
        }
        self.0.front().map(|span| span.segment)
    }

    /// The segment at the front.
    pub fn first(&self) -> Option<SegmentNumber> {
        self.0.front().map(|span| span.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(segment: u32, low: u64, high: u64) -> Span {
        let segment = SegmentNumber(segment);
        Span { segment, low: StreamOffset(low), high: StreamOffset(high) }
    }

    fn extent(spans: &Spans, released: u64) -> Option<(u32, u32, u64, u64)> {
        let extent = spans.extent(StreamOffset(released), Bytes::MIB)?;
        let SpoolExtent { first_segment, last_segment, low, high, .. } = extent;
        Some((first_segment.0, last_segment.0, low.0, high.0))
    }

    #[test]
    fn an_extent_begins_with_the_first_segment_that_is_still_wanted() {
        let spans = Spans::new(vec![span(1, 0, 10), span(1, 10, 20), span(2, 20, 30)]);
        assert_eq!(extent(&spans, 0), Some((1, 2, 0, 30)));
        assert_eq!(extent(&spans, 19), Some((1, 2, 0, 30)));
        assert_eq!(extent(&spans, 20), Some((2, 2, 20, 30)));
        assert_eq!(extent(&spans, 99), Some((2, 2, 20, 30)), "the last segment stays");
        assert_eq!(extent(&Spans::default(), 0), None);
    }

    #[test]
    fn an_extent_does_not_reach_across_a_gap() {
        let spans = Spans::new(vec![span(1, 0, 10), span(2, 50, 60), span(3, 60, 70)]);
        assert_eq!(extent(&spans, 0), Some((2, 3, 50, 70)));
    }

    #[test]
    fn segments_go_when_they_are_released_and_claimed_no_more() {
        let mut spans = Spans::new(vec![span(1, 0, 10), span(2, 10, 20), span(3, 50, 60)]);
        assert_eq!(spans.trim(StreamOffset(9), SegmentNumber(3)), None, "still wanted");
        assert_eq!(spans.trim(StreamOffset(20), SegmentNumber(1)), None, "still claimed");
        assert_eq!(spans.trim(StreamOffset(19), SegmentNumber(3)), Some(SegmentNumber(2)));
        assert_eq!(spans.trim(StreamOffset(99), SegmentNumber(9)), Some(SegmentNumber(3)));
        assert_eq!(spans.first(), Some(SegmentNumber(3)));
    }

    #[test]
    #[should_panic(expected = "a gap within segment")]
    fn a_gap_within_a_segment_is_our_own_mistake() {
        let _ = Spans::new(vec![span(1, 0, 10), span(1, 20, 30)]);
    }
}
