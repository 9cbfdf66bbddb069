//! How many connections may stand at the door that have not said yet who they are.
//!
//! Pure. Each costs a descriptor, a few KiB and at most five seconds; whoever opens thousands must
//! not keep others out. So there is a limit for all, one for each source, and as the first fills,
//! newcomers are turned away by lot (as sshd does with `MaxStartups`): of many, the few real ones
//! get through soon. A source that has a session is known, and may open as many as that has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

/// All together.
const STRANGERS_MAX: u32 = 64;

/// From here on the lot decides.
const STRANGERS_FREE: u32 = 32;

/// Of one source that has no session.
const OF_ONE_SOURCE_MAX: u32 = 4;

/// Whose connections count together: an IPv4 address, or the /64 that one IPv6 host may have to
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// The books of one door.
#[derive(Clone, Debug, Default)]
pub(super) struct Doorman {
    books: Rc<RefCell<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    strangers: BTreeMap<Source, u32>,
    sessions: BTreeMap<Source, u32>,
    all: u32,
}

/// A place at the door, or a session's being known; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    books: Rc<RefCell<Books>>,
    source: Source,
    is_session: bool,
}

impl Source {
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.octets()),
            IpAddr::V6(address) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Source::V6(network)
            }
        }
    }
}

impl Doorman {
    /// A stranger's place; `None`: it is turned away. `lot` is a random number.
    pub fn knock(&self, source: Source, lot: u32) -> Option<Pass> {
        let mut books = self.books.borrow_mut();
        let of_source = books.strangers.get(&source).copied().unwrap_or(0);
        let is_known = books.sessions.contains_key(&source);
        if books.all >= STRANGERS_MAX || (of_source >= OF_ONE_SOURCE_MAX && !is_known) {
            return None;
        }
        let crowd = books.all.saturating_sub(STRANGERS_FREE);
        if !is_known && lot % (STRANGERS_MAX - STRANGERS_FREE) < crowd {
            return None;
        }
        *books.strangers.entry(source).or_default() += 1;
        books.all += 1;
        Some(self.pass(source, false))
    }

    /// A session from this source has begun, and goes on as long as the pass.
    pub fn know(&self, source: Source) -> Pass {
        *self.books.borrow_mut().sessions.entry(source).or_default() += 1;
        self.pass(source, true)
    }

    fn pass(&self, source: Source, is_session: bool) -> Pass {
        Pass { books: Rc::clone(&self.books), source, is_session }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut books = self.books.borrow_mut();
        let counts = if self.is_session {
            &mut books.sessions
        } else {
            books.all -= 1;
            &mut books.strangers
        };
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> Source {
        Source::V4(number.to_be_bytes())
    }

    /// Wins against any crowd, and loses against every.
    const LUCKY: u32 = STRANGERS_MAX - STRANGERS_FREE - 1;
    const UNLUCKY: u32 = 0;

    #[test]
    fn one_source_has_few_places_and_gets_them_back() {
        let doorman = Doorman::default();
        let mut places: Vec<_> = (0..4).map(|_| doorman.knock(source(1), LUCKY).unwrap()).collect();
        assert!(doorman.knock(source(1), LUCKY).is_none());
        assert!(doorman.knock(source(2), LUCKY).is_some(), "another is not kept out by it");
        places.pop();
        assert!(doorman.knock(source(1), LUCKY).is_some());
    }

    #[test]
    fn as_the_door_fills_the_lot_decides_and_in_the_end_nobody_is_let_in() {
        let doorman = Doorman::default();
        let fill = |count: u32, from: u32| -> Vec<Pass> {
            (0..count).map(|at| doorman.knock(source(from + at), LUCKY).unwrap()).collect()
        };
        let half = fill(STRANGERS_FREE, 0);
        assert!(doorman.knock(source(500), UNLUCKY).is_some(), "there is room for all");
        let rest = fill(STRANGERS_FREE, 100);
        assert!(doorman.knock(source(501), LUCKY).is_none(), "it is full");
        drop(rest);
        let some = fill(8, 200);
        let admitted = (0..32).filter(|&lot| doorman.knock(source(600), lot).is_some()).count();
        assert_eq!(admitted, 24, "a quarter of the crowd, a quarter turned away");
        drop((half, some));
    }

    #[test]
    fn a_source_with_a_session_may_open_what_the_session_has() {
        let doorman = Doorman::default();
        let known = doorman.know(source(1));
        let lanes: Vec<_> = (0..60).map(|_| doorman.knock(source(1), UNLUCKY).unwrap()).collect();
        drop(known);
        assert!(doorman.knock(source(1), LUCKY).is_none());
        drop(lanes);
        assert_eq!(doorman.books.borrow().all, 0);
        assert!(doorman.books.borrow().strangers.is_empty());
        assert!(doorman.books.borrow().sessions.is_empty());
    }

    #[test]
    fn addresses_of_one_host_are_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
