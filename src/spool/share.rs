//! What several streams may take of a spool together.
//!
//! Beside the limit that each has for itself. What must never happen here: room that is given back
//! while its files are there, or that nobody gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::Bytes;

/// The books of those who share.
#[derive(Debug)]
pub struct Share {
    taken: AtomicU64,
    /// `u64::MAX` for no limit.
    max: AtomicU64,
}

/// What one stream has of it. When the last who holds this drops it, all is given back: files that
/// outlive their stream are there until their records go.
#[derive(Debug)]
pub struct Account {
    share: Arc<Share>,
    taken: AtomicU64,
}

/// No two streams have the same.
impl PartialEq for Account {
    fn eq(&self, other: &Account) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Account {}

impl Share {
    /// Of which nothing is taken; `None` is no limit.
    pub fn new(max: Option<Bytes>) -> Share {
        let share = Share { taken: AtomicU64::new(0), max: AtomicU64::new(0) };
        share.limit(max);
        share
    }

    /// Sets how much may be taken; `None` is no limit. What is taken stays.
    pub fn limit(&self, max: Option<Bytes>) {
        self.max.store(max.map_or(u64::MAX, |max| max.0), Ordering::Relaxed);
    }

    /// For one more stream.
    pub fn account(self: &Arc<Share>) -> Arc<Account> {
        Arc::new(Account { share: Arc::clone(self), taken: AtomicU64::new(0) })
    }
}

impl Account {
    /// Takes room, and says whether there was so much.
    pub fn take(&self, bytes: Bytes) -> bool {
        let max = self.share.max.load(Ordering::Relaxed);
        let more = |taken: u64| taken.checked_add(bytes.0).filter(|&taken| taken <= max);
        let taken = self.share.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if taken.is_ok() {
            self.taken.fetch_add(bytes.0, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Counts files that are there already.
    pub fn count(&self, bytes: Bytes) {
        self.share.taken.fetch_add(bytes.0, Ordering::Relaxed);
        self.taken.fetch_add(bytes.0, Ordering::Relaxed);
    }

    /// A file of this size is gone, or was not made.
    pub fn give_back(&self, bytes: Bytes) {
        self.taken.fetch_sub(bytes.0, Ordering::Relaxed);
        self.share.taken.fetch_sub(bytes.0, Ordering::Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let left = self.taken.load(Ordering::Relaxed);
        self.share.taken.fetch_sub(left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_share_take_no_more_than_the_limit_together() {
        let share = Arc::new(Share::new(Some(Bytes(10))));
        let (first, second) = (share.account(), share.account());
        assert!(first.take(Bytes(6)) && second.take(Bytes(4)) && !second.take(Bytes(1)));
        first.give_back(Bytes(2));
        assert!(!second.take(Bytes(3)) && second.take(Bytes(2)));
        let third = share.account();
        third.count(Bytes(20));
        drop(first);
        assert!(!second.take(Bytes(1)), "what is there counts, too");
        share.limit(None);
        assert!(second.take(Bytes(1 << 40)) && !second.take(Bytes(u64::MAX)));
        drop((second, third));
        share.limit(Some(Bytes(10)));
        assert!(share.account().take(Bytes(10)), "all was given back");
    }
}
