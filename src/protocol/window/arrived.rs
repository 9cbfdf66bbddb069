//! Which blocks are at the receiver although others before them are not.
//!
//! A newer report replaces an older one. What a report lists is not sent again, for as long as the
//! newest lists it; it is kept all the same until it is taken, for a block that has arrived may
//! still prove corrupt.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Credit;
use crate::units::Sequence;

/// More gaps are not told of: what is behind them counts as not arrived, and may come twice.
pub const RANGES_MAX: usize = 64;

/// Blocks at or above the first that was not taken: ranges that begin with the first number and end
/// before the second, each behind the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arrived(Vec<(Sequence, Sequence)>);

impl Arrived {
    /// The lowest of these blocks, which come in order: all, unless there are too many gaps.
    pub fn of(blocks: impl IntoIterator<Item = Range<Sequence>>) -> Arrived {
        let mut ranges: Vec<(Sequence, Sequence)> = Vec::new();
        for Range { start, end } in blocks.into_iter().filter(|range| !range.is_empty()) {
            let full = ranges.len() == RANGES_MAX;
            match ranges.last_mut() {
                Some((_, last)) if *last == start => *last = end,
                _ if full => break,
                _ => ranges.push((start, end)),
            }
        }
        Arrived(ranges)
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<Sequence>> {
        self.0.iter().map(|&(start, end)| start..end)
    }

    /// Whether nothing has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a block has.
    pub fn contains(&self, sequence: Sequence) -> bool {
        let behind = self.0.partition_point(|&(start, _)| start <= sequence);
        behind.checked_sub(1).is_some_and(|at| sequence < self.0[at].1)
    }

    /// Whether an honest receiver can have said so together with `credit`.
    pub fn fits(&self, credit: Credit) -> bool {
        let mut end = credit.taken;
        let in_order = self.0.iter().all(|&(start, next)| {
            let behind = start >= end && start < next;
            end = next;
            behind
        });
        in_order && end <= credit.room && self.0.len() <= RANGES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn arrived(ranges: &[(u64, u64)]) -> Arrived {
        Arrived(ranges.iter().map(|&(start, end)| (Sequence(start), Sequence(end))).collect())
    }

    fn single(number: u64) -> Range<Sequence> {
        Sequence(number)..Sequence(number + 1)
    }

    proptest! {
        #[test]
        fn a_report_says_of_every_block_whether_it_is_there(
            blocks in prop::collection::btree_set(0..60_u64, 0..40), taken in 0..10_u64,
        ) {
            let here: BTreeSet<u64> = blocks.into_iter().filter(|&block| block >= taken).collect();
            let report = Arrived::of(here.iter().copied().map(single));
            for block in 0..70 {
                prop_assert_eq!(report.contains(Sequence(block)), here.contains(&block));
            }
            prop_assert_eq!(report.is_empty(), here.is_empty());
            let room = here.last().map_or(taken, |last| last + 1);
            let credit = |taken, room| Credit { taken: Sequence(taken), room: Sequence(room) };
            prop_assert!(report.fits(credit(taken, room)));
            if let (Some(&first), Some(&last)) = (here.first(), here.last()) {
                prop_assert!(!report.fits(credit(taken, last)));
                prop_assert!(!report.fits(credit(first + 1, room)));
            }
        }
    }

    #[test]
    fn of_too_many_gaps_the_lowest_are_told() {
        let report = Arrived::of((0..100).map(|number| single(2 * number)));
        assert_eq!(report.0.len(), RANGES_MAX);
        assert!(report.contains(Sequence(126)) && !report.contains(Sequence(128)));
        // What lies close behind the last is no gap.
        let tail = [single(127), single(300)];
        let report = Arrived::of((0..64).map(|number| single(2 * number)).chain(tail));
        assert!(report.contains(Sequence(127)) && !report.contains(Sequence(300)));
    }

    #[test]
    fn a_report_that_contradicts_itself_fits_nothing() {
        let credit = Credit { taken: Sequence(3), room: Sequence(20) };
        assert!(arrived(&[(3, 5), (7, 20)]).fits(credit) && arrived(&[]).fits(credit));
        for bad in [
            &[(2, 5)][..],
            &[(3, 21)],
            &[(5, 5)],
            &[(6, 5)],
            &[(3, 7), (6, 9)],
            &[(8, 9), (3, 5)],
            &[(3, 5), (3, 5)],
        ] {
            assert!(!arrived(bad).fits(credit), "{bad:?}");
        }
        let room = Sequence(1000);
        let many: Vec<_> = (0..65).map(|number| (2 * number, 2 * number + 1)).collect();
        assert!(!arrived(&many).fits(Credit { taken: Sequence(0), room }));
        assert!(arrived(&many[..64]).fits(Credit { taken: Sequence(0), room }));
    }
}
