//! What lies ahead of the bytes of one connection in one direction. Pure.

use std::collections::VecDeque;

use crate::plan::Fault;

/// Faults in the order in which the bytes reach them.
#[derive(Debug)]
pub(crate) struct Course {
    position: u64,
    ahead: VecDeque<(u64, Fault)>,
}

impl Course {
    /// The course of faults after so many bytes each.
    pub fn new(mut faults: Vec<(u64, Fault)>) -> Course {
        // Stable: of several at one byte, the first comes first.
        faults.sort_by_key(|&(at, _)| at);
        Course { position: 0, ahead: faults.into() }
    }

    /// The next fault that the bytes have reached.
    pub fn due(&mut self) -> Option<Fault> {
        let &(at, fault) = self.ahead.front()?;
        (at <= self.position).then(|| {
            self.ahead.pop_front();
            fault
        })
    }

    /// How many bytes may pass before the next fault.
    pub fn clear(&self) -> u64 {
        self.ahead.front().map_or(u64::MAX, |&(at, _)| at.saturating_sub(self.position))
    }

    /// So many bytes passed.
    pub fn pass(&mut self, bytes: usize) {
        debug_assert!(bytes as u64 <= self.clear(), "bytes passed a fault unharmed");
        self.position += bytes as u64;
    }

    /// How many of the last bytes a fault ahead will ask for.
    pub fn memory_bytes(&self) -> usize {
        let asks = self.ahead.iter().map(|&(_, fault)| match fault {
            Fault::Repeat(bytes) => bytes,
            _ => 0,
        });
        asks.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Ending;

    #[test]
    fn faults_are_due_at_their_bytes_and_in_their_order() {
        let (cut, flip) = (Fault::Cut(Ending::Rst), Fault::Flip(3));
        let mut course = Course::new(vec![(5, cut), (2, flip), (5, Fault::Repeat(4)), (0, flip)]);
        assert_eq!(course.memory_bytes(), 4);
        assert_eq!((course.due(), course.due()), (Some(flip), None));
        assert_eq!(course.clear(), 2);
        course.pass(1);
        assert_eq!((course.due(), course.clear()), (None, 1));
        course.pass(1);
        assert_eq!((course.due(), course.due(), course.clear()), (Some(flip), None, 3));
        course.pass(3);
        assert_eq!((course.due(), course.due()), (Some(cut), Some(Fault::Repeat(4))));
        assert_eq!((course.due(), course.clear(), course.memory_bytes()), (None, u64::MAX, 0));
    }
}
