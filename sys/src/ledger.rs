//! Who holds which slot: the bookkeeping under a pool, small enough to be modelled.
//!
//! Loans are dropped on any thread while the one taker looks for a slot and goes to sleep. Two
//! things must never happen: one slot in two hands, and a taker that sleeps on although a slot
//! came home. `loom` runs every interleaving of this file (`ci/loom`).

#[cfg(zferry_loom)]
use loom::sync::Mutex;
#[cfg(not(zferry_loom))]
use std::sync::Mutex;

use std::sync::PoisonError;

/// Free slots, last in first out so that the slot taken next is the one still warm in the cache.
#[derive(Debug)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    free: Vec<u32>,
    /// The taker was turned away and will sleep until it is woken.
    hungry: bool,
}

impl Ledger {
    pub(crate) fn new(slots: impl IntoIterator<Item = u32>) -> Ledger {
        let free = slots.into_iter().collect();
        Ledger { books: Mutex::new(Books { free, hungry: false }) }
    }

    /// Takes a set of `count` slots, or none of them. After `None` the next slot that comes home
    /// asks for a wake-up.
    pub(crate) fn take(&self, count: usize) -> Option<Vec<u32>> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if books.free.len() < count {
            books.hungry = true;
            return None;
        }
        let kept = books.free.len() - count;
        Some(books.free.split_off(kept))
    }

    /// Puts a slot back. `true`: the taker waits and must be woken by the caller.
    #[must_use]
    pub(crate) fn put(&self, slot: u32) -> bool {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(!books.free.contains(&slot), "slot {slot} came home twice");
        books.free.push(slot);
        std::mem::take(&mut books.hungry)
    }

    /// How many slots are at home at this moment.
    pub(crate) fn free(&self) -> usize {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).free.len()
    }
}

#[cfg(all(test, zferry_loom))]
mod model {
    use super::Ledger;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Condvar, Mutex};

    struct World {
        ledger: Ledger,
        slots: [UnsafeCell<u32>; 2],
        woken: Mutex<bool>,
        bell: Condvar,
    }

    fn put(world: &World, slot: u32) {
        // loom reports this access when another thread still holds the slot.
        world.slots[slot as usize].with_mut(|_| ());
        if world.ledger.put(slot) {
            *world.woken.lock().unwrap() = true;
            world.bell.notify_one();
        }
    }

    fn take(world: &World, count: usize) -> Vec<u32> {
        loop {
            if let Some(slots) = world.ledger.take(count) {
                for &slot in &slots {
                    world.slots[slot as usize].with_mut(|_| ());
                }
                return slots;
            }
            let mut woken = world.woken.lock().unwrap();
            while !*woken {
                woken = world.bell.wait(woken).unwrap();
            }
            *woken = false;
        }
    }

    /// Two slots are out with two threads; the taker wants `count`. A lost wake-up shows as a
    /// deadlock, a slot in two hands as a concurrent access.
    fn taker_wants(count: usize) {
        loom::model(move || {
            let world = Arc::new(World {
                ledger: Ledger::new([0, 1]),
                slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
                woken: Mutex::new(false),
                bell: Condvar::new(),
            });
            let out = world.ledger.take(2).unwrap();
            let holders: Vec<_> = out
                .into_iter()
                .map(|slot| {
                    let world = Arc::clone(&world);
                    loom::thread::spawn(move || put(&world, slot))
                })
                .collect();
            for slot in take(&world, count) {
                put(&world, slot);
            }
            holders.into_iter().for_each(|holder| holder.join().unwrap());
            assert_eq!(world.ledger.free(), 2);
        });
    }

    #[test]
    fn one_slot_is_never_in_two_hands_and_no_wake_up_is_lost() {
        taker_wants(1);
    }

    #[test]
    fn a_taker_of_a_pair_is_woken_until_it_has_both() {
        taker_wants(2);
    }
}
