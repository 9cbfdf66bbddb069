//! How records follow what happens to their transfer.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sys::backend::Backend;
use tempfile::TempDir;

use super::recorder::{INTERVAL, LOOK_EVERY};
use super::*;
use crate::breakpoint::identity::SessionId;
use crate::breakpoint::keeper::Reached;
use crate::breakpoint::record::{Cargo, Progress, Role, State};
use crate::error::Class;
use crate::spool::transfers::{Entry, list};
use crate::units::{Sequence, StreamOffset, TransferId};

/// A transfer whose place a test sets.
struct Kept {
    state: TempDir,
    folder: Transfers,
    place: Arc<Mutex<Reached>>,
}

fn mark(bytes: u64) -> Mark {
    Mark { to: StreamOffset(bytes), crc32: u32::from(bytes > 0) }
}

impl Kept {
    fn new() -> Kept {
        let state = tempfile::tempdir_in("/var/tmp").unwrap();
        let folder = Transfers::open(state.path(), Backend::Threads).unwrap();
        Kept { state, folder, place: Arc::default() }
    }

    fn begin(&self, role: Role) -> Keeping {
        let (session, transfer) = (SessionId([1; 16]), TransferId(1));
        let job = Job { role, session, transfer, epoch: 1, cargo: Cargo::Pipe };
        let names = Names::new(role, "a".to_owned(), "b".to_owned());
        let place = Arc::clone(&self.place);
        self.folder.begin(job, names, Box::new(move || *place.lock().unwrap())).unwrap()
    }

    fn reach(&self, bytes: u64) {
        let next_frame = Sequence(bytes);
        *self.place.lock().unwrap() = Reached { mark: mark(bytes), next_frame };
    }

    fn entries(&self) -> Vec<Entry> {
        list(self.state.path()).unwrap()
    }

    fn newest(&self) -> Progress {
        self.entries()[0].newest.expect("a record").progress
    }
}

#[test]
fn the_epoch_is_durable_before_a_byte_may_flow() {
    let kept = Kept::new();
    let _keeping = kept.begin(Role::Client);
    assert_eq!((kept.newest(), kept.entries()[0].running), (Progress::BEGUN, true));
}

#[test]
fn an_interval_is_recorded_long_before_a_second_has_passed() {
    let kept = Kept::new();
    for role in [Role::Client, Role::Server] {
        let keeping = kept.begin(role);
        keeping.opened();
        kept.reach(INTERVAL.0);
        let begun = Instant::now();
        while kept.newest().fed.0 < INTERVAL.0 {
            assert!(begun.elapsed() < 20 * LOOK_EVERY, "not recorded");
            thread::sleep(Duration::from_millis(1));
        }
        kept.reach(0);
        keeping.over(Over::Applied);
    }
}

#[test]
fn what_failed_says_so_and_what_arrived_is_gone() {
    let kept = Kept::new();
    for (role, over) in [
        (Role::Client, Over::Applied),
        (Role::Server, Over::Applied),
        (Role::Client, Over::Failed(Class::Wait)),
        (Role::Server, Over::Failed(Class::Wait)),
    ] {
        let keeping = kept.begin(role);
        keeping.opened();
        kept.reach(7);
        keeping.ended(mark(7));
        keeping.over(over);
        match over {
            Over::Applied => assert!(kept.entries().is_empty()),
            Over::Failed(class) => {
                let Progress { state, fed, last_error, .. } = kept.newest();
                assert_eq!((state, fed.0), (State::Abandoned, 7));
                assert_eq!((last_error, kept.entries()[0].running), (Some(class), false));
            }
        }
    }
    // The failure at the server is another's; that of the client was superseded by nothing.
    assert_eq!(kept.entries().len(), 2);
}

#[test]
fn what_was_never_opened_leaves_nothing_and_does_not_take_the_place_of_anything() {
    let kept = Kept::new();
    let interrupted = kept.begin(Role::Client);
    interrupted.opened();
    interrupted.over(Over::Failed(Class::Interrupted));
    kept.begin(Role::Client).over(Over::Failed(Class::Busy));
    let dropped = kept.begin(Role::Client);
    let Keeping { notes, thread } = dropped;
    drop(notes);
    thread.join().unwrap();
    assert_eq!(kept.entries().len(), 1);
    let again = kept.begin(Role::Client);
    assert_eq!(kept.entries().len(), 2);
    again.opened();
    again.over(Over::Applied);
    assert!(kept.entries().is_empty(), "the older one is superseded");
}

#[test]
fn an_end_that_cannot_be_ends_nothing() {
    let kept = Kept::new();
    // Before the stream, and at the same place with another CRC32.
    for end in [mark(6), Mark { crc32: 9, ..mark(7) }] {
        kept.reach(0);
        let keeping = kept.begin(Role::Server);
        keeping.opened();
        kept.reach(7);
        keeping.ended(end);
        keeping.over(Over::Failed(Class::Peer));
        assert_eq!((kept.newest().fed.0, kept.newest().end), (7, None));
    }
    // A stream that goes on behind its end is recorded up to there.
    kept.reach(0);
    let keeping = kept.begin(Role::Server);
    keeping.opened();
    keeping.ended(mark(5));
    while kept.newest().end.is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    kept.reach(7);
    keeping.over(Over::Failed(Class::Peer));
    let progress = kept.newest();
    assert_eq!((progress.end, progress.state), (Some(mark(5)), State::Abandoned));
    assert!(progress.fed.0 <= 5);
}
