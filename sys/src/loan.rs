//! A slot lent to one holder, on any thread, and the pool it goes home to.
//!
//! A `Loan` is the only way to the bytes of a slot. It moves from stage to stage, into a ring
//! while the kernel fills it, and back; dropped anywhere, it goes home and wakes the stage that
//! waits for room. Only one stage takes from a pool, and it takes all that a block will ever need
//! at once: a stage that waited for a second slot while holding the first could wait for ever.

use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::arena::Arena;
use crate::ledger::Ledger;
use crate::wake::Waker;

/// A share of an arena's slots with one taker.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    arena: Arc<Arena>,
    ledger: Ledger,
    slots: usize,
    taker: Arc<Waker>,
}

/// The right to the bytes of one slot; `[u8]` of [`Arena::slot_bytes`] bytes.
///
/// The contents are whatever the last holder left.
#[derive(Debug)]
pub struct Loan {
    bytes: NonNull<u8>,
    slot: u32,
    home: Arc<Shared>,
}

// SAFETY: a loan is the one owner of its slot (`Ledger` lends a slot once until it is put back),
// and the slot's bytes are plain memory without ties to a thread.
unsafe impl Send for Loan {}
// SAFETY: `&Loan` gives only `&[u8]`.
unsafe impl Sync for Loan {}

impl Pool {
    /// Splits an arena evenly into `shares` pools; slots that are left over go to the first ones.
    /// `taker` is woken when a slot comes home to a pool that had turned its taker away.
    pub fn split(arena: &Arc<Arena>, shares: u32, taker: &Arc<Waker>) -> Vec<Pool> {
        (0..shares)
            .map(|share| {
                let slots: Vec<u32> =
                    (share..arena.slots()).step_by(shares.max(1) as usize).collect();
                let home = Shared {
                    arena: Arc::clone(arena),
                    slots: slots.len(),
                    ledger: Ledger::new(slots.into_iter().rev()),
                    taker: Arc::clone(taker),
                };
                Pool { shared: Arc::new(home) }
            })
            .collect()
    }

    /// Splits an arena in two pools with a taker each: `first` slots, and the rest.
    pub fn part(arena: &Arc<Arena>, first: u32, takers: [&Arc<Waker>; 2]) -> [Pool; 2] {
        let first = first.min(arena.slots());
        let [one, other] = takers;
        [Pool::of(arena, 0..first, one), Pool::of(arena, first..arena.slots(), other)]
    }

    /// No slot may be in two pools.
    fn of(arena: &Arc<Arena>, slots: Range<u32>, taker: &Arc<Waker>) -> Pool {
        let home = Shared {
            arena: Arc::clone(arena),
            slots: slots.len(),
            ledger: Ledger::new(slots.rev()),
            taker: Arc::clone(taker),
        };
        Pool { shared: Arc::new(home) }
    }

    /// Takes `N` slots or none. After `None` the taker's waker rings when a slot comes home.
    pub fn take<const N: usize>(&self) -> Option<[Loan; N]> {
        let slots = self.shared.ledger.take(N)?;
        let loans: Vec<Loan> = slots.into_iter().map(|slot| self.lend(slot)).collect();
        loans.try_into().ok()
    }

    /// How many slots belong to this pool.
    pub fn slots(&self) -> usize {
        self.shared.slots
    }

    /// How many slots are at home at this moment.
    pub fn free(&self) -> usize {
        self.shared.ledger.free()
    }

    fn lend(&self, slot: u32) -> Loan {
        Loan { bytes: self.shared.arena.slot(slot), slot, home: Arc::clone(&self.shared) }
    }
}

impl Loan {
    /// The arena that the slot belongs to.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.home.arena
    }

    /// The buffer index of the slot where the arena is registered.
    pub(crate) fn buffer_index(&self) -> u16 {
        self.home.arena.buffer_index(self.slot)
    }

    /// The first byte; valid for `slot_bytes` while the loan lives.
    pub(crate) fn as_non_null(&self) -> NonNull<u8> {
        self.bytes
    }
}

impl Deref for Loan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slot is mapped for `slot_bytes` while `home` keeps the arena, its pages are
        // zeroed by the kernel before the first read, and no one else may write it: `self` is the
        // one owner, and an operation of a ring that writes takes the loan by value.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.home.arena.slot_bytes()) }
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` excludes every other reader.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.home.arena.slot_bytes()) }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.home.ledger.put(self.slot) {
            self.home.taker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn pool(slots: u32) -> (Pool, Arc<Waker>) {
        let waker = Arc::new(Waker::new().unwrap());
        let arena = Arena::new(4096, slots).unwrap();
        (Pool::split(&arena, 1, &waker).remove(0), waker)
    }

    #[test]
    fn each_slot_is_lent_once_and_comes_home() {
        let (pool, _) = pool(3);
        let [mut a, mut b] = pool.take().unwrap();
        a.fill(1);
        b.fill(2);
        assert!(a.iter().all(|&byte| byte == 1) && b.iter().all(|&byte| byte == 2));
        assert!(pool.take::<2>().is_none(), "one slot cannot serve two");
        drop(a);
        assert!(pool.take::<2>().is_some());
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn a_loan_dropped_elsewhere_wakes_the_taker() {
        let (pool, waker) = pool(1);
        let [loan] = pool.take().unwrap();
        assert!(pool.take::<1>().is_none());
        let elsewhere = std::thread::spawn(move || drop(loan));
        assert!(waker.wait(Some(Duration::from_secs(10))).unwrap(), "the taker slept on");
        elsewhere.join().unwrap();
        assert!(pool.take::<1>().is_some());
    }

    #[test]
    fn shares_of_an_arena_are_disjoint_and_complete() {
        let waker = Arc::new(Waker::new().unwrap());
        let arena = Arena::new(4096, 7).unwrap();
        let pools = Pool::split(&arena, 3, &waker);
        assert_eq!(pools.iter().map(Pool::slots).collect::<Vec<_>>(), [3, 2, 2]);
        let mut loans: Vec<Loan> = pools
            .iter()
            .flat_map(|pool| std::iter::from_fn(|| pool.take::<1>()).flatten())
            .collect();
        for (index, loan) in (0u8..).zip(&mut loans) {
            loan.fill(index);
        }
        assert_eq!(loans.len(), 7);
        assert!((0u8..).zip(&loans).all(|(index, loan)| loan.iter().all(|&byte| byte == index)));
    }

    #[test]
    fn two_parts_of_an_arena_are_disjoint_and_each_wakes_its_own_taker() {
        let wakers = [(); 2].map(|()| Arc::new(Waker::new().unwrap()));
        let arena = Arena::new(4096, 5).unwrap();
        let [large, small] = Pool::part(&arena, 3, wakers.each_ref());
        assert_eq!((large.slots(), small.slots()), (3, 2));
        let mut lent: Vec<Loan> = large.take::<3>().unwrap().into_iter().collect();
        lent.extend(small.take::<2>().unwrap());
        for (loan, byte) in lent.iter_mut().zip(1..) {
            loan.fill(byte);
        }
        assert!(lent.iter().map(|loan| loan[0]).eq(1..=5));
        assert!(small.take::<1>().is_none() && large.take::<1>().is_none());
        drop(lent.pop());
        assert!(wakers[1].wait(Some(Duration::ZERO)).unwrap());
        assert!(!wakers[0].wait(Some(Duration::ZERO)).unwrap(), "a slot of the other part");
        drop(lent);
        assert!(wakers[0].wait(Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn the_arena_outlives_the_last_loan() {
        let (pool, _) = pool(1);
        let [mut loan] = pool.take().unwrap();
        drop(pool);
        loan.fill(7);
        assert_eq!(loan[4095], 7);
    }
}
