//! How much was read and sent in each of the last seconds and minutes: for a plot.
//!
//! By a clock that only goes forward. However long nobody looks or moves anything, to catch up
//! costs no more than one round of the ring.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Ten minutes.
const SECONDS: usize = 600;
/// A day.
const MINUTES: usize = 24 * 60;

/// What moved within one step of time, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Out of sources.
    pub read: u64,
    /// Onto wires.
    pub wire: u64,
}

/// For whoever looks: the oldest first, the last one the newest that is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// In each of the last seconds, 600 at most.
    pub seconds: Vec<Sample>,
    /// In each of the last minutes, 1440 at most.
    pub minutes: Vec<Sample>,
}

/// The memory behind it.
#[derive(Debug)]
pub(super) struct Throughput {
    seconds: Ring,
    minutes: Ring,
}

#[derive(Debug)]
struct Ring {
    step: Duration,
    most: usize,
    /// The number of the step that is not complete, and what has moved in it.
    place: u128,
    moving: Sample,
    past: VecDeque<Sample>,
}

impl Throughput {
    /// Empty.
    pub fn new(up: Duration) -> Throughput {
        let ring = |step: Duration, most| {
            let place = up.as_nanos() / step.as_nanos();
            Ring { step, most, place, moving: Sample::default(), past: VecDeque::new() }
        };
        Throughput {
            seconds: ring(Duration::from_secs(1), SECONDS),
            minutes: ring(Duration::from_secs(60), MINUTES),
        }
    }

    /// So much has moved just now.
    pub fn add(&mut self, moved: Sample, up: Duration) {
        for ring in [&mut self.seconds, &mut self.minutes] {
            ring.advance(up);
            ring.moving.add(moved);
        }
    }

    /// For whoever looks.
    pub fn series(&mut self, up: Duration) -> Series {
        let [seconds, minutes] = [&mut self.seconds, &mut self.minutes].map(|ring| {
            ring.advance(up);
            ring.past.iter().copied().collect()
        });
        Series { seconds, minutes }
    }
}

impl Ring {
    fn advance(&mut self, up: Duration) {
        let place = up.as_nanos() / self.step.as_nanos();
        let steps = usize::try_from(place.saturating_sub(self.place)).unwrap_or(usize::MAX);
        for _ in 0..steps.min(self.most + 1) {
            self.past.push_back(std::mem::take(&mut self.moving));
        }
        self.place = self.place.max(place);
        let surplus = self.past.len().saturating_sub(self.most);
        self.past.drain(..surplus);
    }
}

impl Sample {
    fn add(&mut self, other: Sample) {
        self.read = self.read.saturating_add(other.read);
        self.wire = self.wire.saturating_add(other.wire);
    }
}
