//! What waits on the sender's way, counted where it passes, and the level that follows from it.
//!
//! Workers and the last stage count; nobody waits for anybody. The counts are of different moments,
//! by less than a block's time.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::level::{Level, Queues};

/// What packing follows, and how far it has come to. Workers and the last stage tell it.
#[derive(Debug)]
pub(super) struct Pressure {
    slots: usize,
    /// Frames that were packed, ever; and those of them that a connection has been given.
    packed: AtomicUsize,
    dealt: AtomicUsize,
    /// How many more the receiver has room for.
    room: AtomicUsize,
    /// Frames that are under way: nothing waits in their slots.
    under_way: AtomicUsize,
    level: AtomicU8,
}

impl Pressure {
    /// In a cache of so many slots.
    pub fn new(slots: usize) -> Pressure {
        Pressure {
            slots,
            packed: AtomicUsize::new(0),
            dealt: AtomicUsize::new(0),
            room: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            level: AtomicU8::new(Level::RAW.into()),
        }
    }

    /// Another frame was given to a connection.
    pub fn count_dealt(&self) {
        self.dealt.fetch_add(1, Ordering::Relaxed);
    }

    /// The receiver has room for so many more frames now, and so many are under way.
    pub fn set_room(&self, room: usize, under_way: usize) {
        self.room.store(room, Ordering::Relaxed);
        self.under_way.store(under_way, Ordering::Relaxed);
    }

    /// The level at the moment.
    pub fn level(&self) -> Level {
        Level::from(self.level.load(Ordering::Relaxed))
    }

    /// Another frame is about to be packed.
    pub fn count_packed(&self) {
        self.packed.fetch_add(1, Ordering::Relaxed);
    }

    /// The level for a block that comes now, when so many wait behind it.
    pub fn follow(&self, blocks: usize) -> Level {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let frames = of(&self.packed).saturating_sub(of(&self.dealt)).min(of(&self.room));
        let level =
            Level::of(Queues { blocks, frames }, self.slots.saturating_sub(of(&self.under_way)));
        self.level.store(level.into(), Ordering::Relaxed);
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_room_at_the_receiver_do_not_wait_for_a_connection() {
        let pressure = Pressure::new(100);
        (0..50).for_each(|_| pressure.count_packed());
        pressure.set_room(0, 0);
        assert_eq!(pressure.follow(0), Level::RAW);
        pressure.set_room(50, 0);
        assert_eq!(pressure.follow(0), Level::HIGHEST);
        (0..49).for_each(|_| pressure.count_dealt());
        assert_eq!(pressure.follow(0), Level::RAW, "one of a hundred is next to nothing");
        pressure.set_room(50, 92);
        assert!(pressure.follow(0) > Level::RAW, "one of eight is something");
    }
}
