//! Puts what comes in any order back into the order of its numbers.
//!
//! Pure. Blocks overtake each other between workers and between connections; both ends restore
//! the order here, the sender before it deals them out, the receiver before it feeds them. How
//! many can wait is bounded by the slots they occupy.

use std::collections::BTreeMap;

use crate::units::Sequence;

/// Items that wait for those before them.
#[derive(Debug)]
pub(super) struct Order<T> {
    next: Sequence,
    waiting: BTreeMap<Sequence, T>,
}

/// An item came whose number was taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondTime(pub Sequence);

impl<T> Order<T> {
    pub fn new() -> Order<T> {
        Order { next: Sequence(0), waiting: BTreeMap::new() }
    }

    /// The number that comes next.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// Takes an item in; each number once.
    pub fn put(&mut self, sequence: Sequence, item: T) -> Result<(), SecondTime> {
        if sequence < self.next || self.waiting.contains_key(&sequence) {
            return Err(SecondTime(sequence));
        }
        self.waiting.insert(sequence, item);
        Ok(())
    }

    /// The next item in order, if it has come.
    pub fn take(&mut self) -> Option<T> {
        let item = self.waiting.remove(&self.next)?;
        self.next = self.next.next();
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_order_of_arrival_items_leave_in_sequence(
            arrivals in Just((0..50u64).collect::<Vec<_>>()).prop_shuffle()
        ) {
            let mut order = Order::new();
            let mut left = Vec::new();
            for number in arrivals {
                order.put(Sequence(number), number).unwrap();
                let again = order.put(Sequence(number), number);
                prop_assert_eq!(again, Err(SecondTime(Sequence(number))));
                left.extend(std::iter::from_fn(|| order.take()));
            }
            prop_assert_eq!(left, (0..50).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_number_that_has_left_is_not_taken_again() {
        let mut order = Order::new();
        order.put(Sequence(0), ()).unwrap();
        order.take().unwrap();
        assert_eq!(order.put(Sequence(0), ()), Err(SecondTime(Sequence(0))));
    }
}
