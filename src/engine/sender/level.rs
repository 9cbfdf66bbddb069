//! Which level of compression suits the moment: as much as costs no speed.
//!
//! Pure. Two queues tell where a stream is held up: blocks that wait for a worker, and frames that
//! wait for a connection. The more of all that waits are frames, the higher the level, so that the
//! workers become slower and the wire faster until both are busy: then neither waits for the other,
//! and no other level is faster. Where little waits, the source or the receiver is slow, no level
//! would change that, and blocks go raw. No memory, no mean of what was: two levels in turn are
//! often better than each, a rule of levels that failed would keep away from that, and a mean would
//! tell of queues that are no more.

/// How far blocks are packed: 0 sends them raw, the others are levels of zstd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

/// What waits at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queues {
    /// Blocks that were read, for a worker.
    pub blocks: usize,
    /// Frames for which the receiver has room, for a connection.
    pub frames: usize,
}

/// Where less than this part of all that waits are frames, blocks go raw.
const RAW_BELOW: usize = 20;

impl Level {
    /// Raw.
    pub const RAW: Level = Level(0);
    /// Above it zstd takes more time than a wire can win back.
    pub const HIGHEST: Level = Level(9);

    /// As zstd counts; `None` for raw.
    pub fn zstd(self) -> Option<i32> {
        (self > Level::RAW).then_some(i32::from(self.0))
    }

    /// The level for a block that comes now, where so many can wait.
    pub(super) fn of(queues: Queues, most: usize) -> Level {
        let Queues { blocks, frames } = queues;
        // Less than a quarter is little.
        let all = (blocks + frames).max(most / 4).max(1);
        // A raw block holds the wire up as long as several packed ones: only where next to nothing
        // waits for it.
        let Some(above) = (frames * RAW_BELOW).checked_sub(all) else { return Level::RAW };
        let level = 1 + above * usize::from(Level::HIGHEST.0) / (all * (RAW_BELOW - 1));
        Level(u8::try_from(level).unwrap_or(u8::MAX)).min(Level::HIGHEST)
    }
}

impl From<u8> for Level {
    fn from(number: u8) -> Level {
        Level(number).min(Level::HIGHEST)
    }
}

impl From<Level> for u8 {
    fn from(level: Level) -> u8 {
        level.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A sender whose parts have fixed speeds, in blocks per second.
    #[derive(Clone, Copy, Debug)]
    struct Model {
        source: f64,
        wire: f64,
        /// All workers together at level 1; each level above takes so much longer than the one
        /// before, and packs so much smaller.
        packing: f64,
        slower: f64,
        /// What level 1 leaves of a block.
        left: f64,
        smaller: f64,
        slots: usize,
    }

    impl Model {
        fn packs(&self, level: Level) -> f64 {
            match level.zstd() {
                None => 1e9,
                Some(level) => self.packing / self.slower.powi(level - 1),
            }
        }

        fn leaves(&self, level: Level) -> f64 {
            level.zstd().map_or(1.0, |level| self.left * self.smaller.powi(level - 1))
        }

        /// At one level for ever.
        fn at(&self, level: Level) -> f64 {
            self.source.min(self.packs(level)).min(self.wire / self.leaves(level))
        }

        fn best(&self) -> f64 {
            (0..=Level::HIGHEST.0).map(|level| self.at(Level(level))).fold(0.0, f64::max)
        }

        /// At levels that follow the queues: blocks per second, when they have had time, and the
        /// levels of that time.
        fn followed(&self) -> (f64, Vec<Level>) {
            // A step in which the fastest part moves half a block.
            let step = 0.5 / self.best().max(self.wire);
            let (mut read, mut worked, mut sent) = (0.0, 0.0, 0.0);
            let (mut blocks, mut frames) = (0, VecDeque::new());
            let (mut done, mut levels) = (0_u32, Vec::new());
            let mut level = Level::of(Queues::default(), self.slots);
            let steps = 80_000;
            for at in 0..steps {
                read = f64::min(read + self.source * step, 2.0);
                if read >= 1.0 && blocks + frames.len() < self.slots {
                    (read, blocks) = (read - 1.0, blocks + 1);
                }
                worked = f64::min(worked + self.packs(level) * step, 2.0);
                if worked >= 1.0 && blocks > 0 {
                    (worked, blocks) = (worked - 1.0, blocks - 1);
                    // The first is on its way.
                    let waiting = frames.len().saturating_sub(1);
                    frames.push_back(self.leaves(level));
                    level = Level::of(Queues { blocks, frames: waiting }, self.slots);
                    levels.push(level);
                }
                sent = f64::min(sent + self.wire * step, 2.0);
                while let Some(size) = frames.front().filter(|&&size| size <= sent) {
                    sent -= size;
                    frames.pop_front();
                    done += u32::from(at >= steps / 2);
                }
            }
            let late = levels.split_off(levels.len() / 2);
            (f64::from(done) / (f64::from(steps / 2) * step), late)
        }
    }

    const MODEL: Model = Model {
        source: 3000.0,
        wire: 110.0,
        packing: 800.0,
        slower: 1.4,
        left: 0.5,
        smaller: 0.96,
        slots: 127,
    };

    #[test]
    fn a_wire_that_is_faster_than_any_packing_gets_blocks_raw() {
        let (_, levels) = Model { wire: 5000.0, ..MODEL }.followed();
        assert!(levels.iter().all(|&level| level == Level::RAW), "{levels:?}");
    }

    #[test]
    fn a_source_that_is_slower_than_the_wire_is_not_packed() {
        let (rate, levels) = Model { source: 50.0, ..MODEL }.followed();
        assert!(levels.iter().all(|&level| level == Level::RAW), "{levels:?}");
        assert!(rate > 49.0, "{rate}");
    }

    #[test]
    fn the_slower_the_wire_the_higher_the_level() {
        let mean = |wire| {
            let (_, levels) = Model { wire, ..MODEL }.followed();
            levels.iter().map(|level| usize::from(level.0)).sum::<usize>() * 10 / levels.len()
        };
        let means = [2000.0, 700.0, 300.0, 110.0, 30.0, 10.0].map(mean);
        assert!(means.is_sorted(), "{means:?}");
        assert!(means[0] < 10 && means[5] > 80, "{means:?}");
    }

    #[test]
    fn two_levels_together_are_faster_than_each() {
        let model = Model { packing: 150.0, wire: 100.0, ..MODEL };
        let (rate, _) = model.followed();
        assert!(rate > 1.05 * model.best(), "{rate} of {}", model.best());
    }

    proptest! {
        #[test]
        fn it_is_about_as_fast_as_the_best_level(
            source in 100.0..4000.0,
            wire in 10.0..3000.0,
            packing in 300.0..8000.0,
            slower in 1.1..1.8,
            left in 0.1..0.99,
            smaller in 0.9..1.0,
            slots in 64_usize..512,
        ) {
            let model = Model { source, wire, packing, slower, left, smaller, slots };
            let (rate, _) = model.followed();
            prop_assert!(rate > 0.85 * model.best(), "{rate} of {}", model.best());
        }
    }
}
