//! How many connections may stand at the door that have not said yet who they are.
//!
//! Pure. Each costs a descriptor, a few KiB and at most five seconds; whoever opens thousands must
//! not keep others out. So there is a limit for all and one for each source; where it is reached, a
//! newcomer takes the place of somebody who stands there already, by lot. (sshd turns newcomers
//! away by lot, `MaxStartups`: then whoever fills the door and says nothing keeps nearly everybody
//! out for five seconds each. Here a client needs its place for two round trips only.) A source
//! that has a session is known: it may open as many as that has, and gives way last.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::Notify;

/// All together.
const STRANGERS_MAX: usize = 64;

/// Of one source that has no session.
const OF_ONE_SOURCE_MAX: usize = 4;

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
    strangers: Vec<Place>,
    sessions: BTreeMap<Source, u32>,
}

#[derive(Debug)]
struct Place {
    source: Source,
    taken: Rc<Notify>,
}

/// A place at the door; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    books: Rc<RefCell<Books>>,
    taken: Rc<Notify>,
}

/// A session's being known; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Known {
    books: Rc<RefCell<Books>>,
    source: Source,
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
    /// A stranger's place, for which another may have to go. `lot` is a random number.
    pub fn knock(&self, source: Source, lot: u32) -> Pass {
        let mut books = self.books.borrow_mut();
        if let Some(leaves) = books.who_leaves_for(source, lot) {
            books.strangers.swap_remove(leaves).taken.notify_one();
        }
        let taken = Rc::new(Notify::new());
        books.strangers.push(Place { source, taken: Rc::clone(&taken) });
        Pass { books: Rc::clone(&self.books), taken }
    }

    /// A session from this source has begun, and goes on until that is dropped.
    pub fn know(&self, source: Source) -> Known {
        *self.books.borrow_mut().sessions.entry(source).or_default() += 1;
        Known { books: Rc::clone(&self.books), source }
    }
}

impl Books {
    /// Where a stranger stands who has to go for one from `source`.
    fn who_leaves_for(&self, source: Source, lot: u32) -> Option<usize> {
        let is_known = self.sessions.contains_key(&source);
        let of_source = self.those(|stranger| stranger.source == source);
        if !is_known && of_source.len() >= OF_ONE_SOURCE_MAX {
            return drawn(&of_source, lot);
        }
        if self.strangers.len() < STRANGERS_MAX {
            return None;
        }
        let unknown = self.those(|stranger| !self.sessions.contains_key(&stranger.source));
        drawn(&unknown, lot).or_else(|| drawn(&self.those(|_| true), lot))
    }

    fn those(&self, are: impl Fn(&Place) -> bool) -> Vec<usize> {
        let strangers = self.strangers.iter().enumerate();
        strangers.filter(|(_, stranger)| are(stranger)).map(|(at, _)| at).collect()
    }
}

fn drawn(among: &[usize], lot: u32) -> Option<usize> {
    let count = u32::try_from(among.len()).ok().filter(|&count| count > 0)?;
    among.get(usize::try_from(lot % count).ok()?).copied()
}

impl Pass {
    /// Waits until another has taken this place.
    pub async fn taken(&self) {
        self.taken.notified().await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut books = self.books.borrow_mut();
        books.strangers.retain(|stranger| !Rc::ptr_eq(&stranger.taken, &self.taken));
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let sessions = &mut self.books.borrow_mut().sessions;
        if let Some(count) = sessions.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn source(number: u32) -> Source {
        Source::V4(number.to_be_bytes())
    }

    fn fill(doorman: &Doorman, sources: std::ops::Range<u32>) -> Vec<Pass> {
        sources.map(|number| doorman.knock(source(number), 0)).collect()
    }

    /// Which places have been taken by others.
    fn gone(places: &[Pass]) -> Vec<usize> {
        let is_gone = |place: &Pass| {
            pin!(place.taken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        (0..places.len()).filter(|&at| is_gone(&places[at])).collect()
    }

    fn standing(doorman: &Doorman) -> usize {
        doorman.books.borrow().strangers.len()
    }

    #[test]
    fn one_source_has_few_places_and_its_newcomers_take_those_of_its_own() {
        let doorman = Doorman::default();
        let other = fill(&doorman, 2..3);
        let mut places: Vec<_> = (0..4).map(|_| doorman.knock(source(1), 0)).collect();
        assert_eq!(gone(&places), [0; 0]);
        places.push(doorman.knock(source(1), 6));
        assert_eq!((gone(&places), gone(&other)), (vec![2], vec![]));
        assert_eq!(standing(&doorman), 5);
        drop(places);
        assert_eq!(standing(&doorman), 1, "they get their places back");
    }

    #[test]
    fn where_all_places_are_taken_the_lot_decides_who_leaves() {
        let doorman = Doorman::default();
        let crowd = fill(&doorman, 0..64);
        assert_eq!(gone(&crowd), [0; 0]);
        let newcomer = doorman.knock(source(500), 64 + 9);
        assert_eq!(gone(&crowd), [9]);
        assert_eq!((gone(&crowd[10..]), standing(&doorman)), (vec![], 64));
        drop(newcomer);
        assert_eq!(standing(&doorman), 63);
    }

    #[test]
    fn a_source_with_a_session_may_open_what_the_session_has_and_gives_way_last() {
        let doorman = Doorman::default();
        let known = doorman.know(source(1));
        let lanes: Vec<_> = (0..60).map(|_| doorman.knock(source(1), 0)).collect();
        let mut crowd = fill(&doorman, 2..6);
        for lot in 0..200 {
            crowd.push(doorman.knock(source(100 + lot), lot));
        }
        assert_eq!((gone(&lanes), standing(&doorman)), (vec![], 64));
        drop(known);
        doorman.knock(source(1), 3);
        assert_eq!(gone(&lanes), [3], "it is a stranger again");
        drop((lanes, crowd));
        assert_eq!(standing(&doorman), 0);
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
