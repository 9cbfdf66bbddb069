//! A stream that is kept in breakpoint files: what follows from its writes, and what is left of it
//! when its process has died.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sys::backend::Backend;
use tempfile::TempDir;

use super::*;
use crate::breakpoint::identity::SessionId;
use crate::breakpoint::keeper::Reached;
use crate::breakpoint::record::{Cargo, Progress, Role, SegmentNumber, State};
use crate::breakpoint::segment::{ENTRY_HEADER, Entry, PAGE_BYTES, SegmentPages};
use crate::error::Class;
use crate::protocol;
use crate::protocol::frame::{Codec, Header};
use crate::protocol::message::{Limits, Open, Request};
use crate::protocol::negotiate::Agreed;
use crate::protocol::secret::JoinSecret;
use crate::protocol::version::Version;
use crate::spool::segments::When;
use crate::spool::transfers::list;
use crate::units::{Bytes, Sequence, StreamOffset, TransferId};

/// Room for two entries of a page's payload.
const SMALL: SegmentPages = SegmentPages::new(4).unwrap();

const BLOCK: u32 = 100;

/// One side's folders, and what followed from its records.
struct Side {
    state: TempDir,
    spool: Spool,
    _spool_folder: TempDir,
    folder: Transfers,
    place: Arc<Mutex<Reached>>,
    orders: Arc<Mutex<Vec<Order>>>,
}

fn content(number: u64) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); BLOCK as usize]
}

fn frame(number: u64) -> Header {
    Header {
        codec: Codec::Raw,
        transfer: TransferId(1),
        epoch: 1,
        sequence: Sequence(number),
        offset: StreamOffset(number * u64::from(BLOCK)),
        plain_bytes: BLOCK,
        payload_bytes: BLOCK,
        crc32: crc32fast::hash(&content(number)),
    }
}

fn mark(blocks: u64) -> Mark {
    let bytes: Vec<u8> = (0..blocks).flat_map(content).collect();
    Mark { to: StreamOffset(blocks * u64::from(BLOCK)), crc32: crc32fast::hash(&bytes) }
}

fn reached(blocks: u64) -> Reached {
    Reached { mark: mark(blocks), next_frame: Sequence(blocks) }
}

fn handover() -> Handover {
    let limits =
        Limits { block_bytes_max: Bytes::MIB, connections: 1, codecs: [Codec::Raw].into() };
    let request = Request {
        stream: protocol::message::Stream::Pipe,
        epoch: 1,
        estimated_bytes: None,
        block_bytes: Bytes::MIB,
        codec: Codec::Raw,
        interrupted_at: None,
    };
    let open = Open { transfer: TransferId(1), request };
    let agreed = Agreed { version: Version::V1, limits };
    Handover::new(("a peer".to_owned(), None), JoinSecret::new([7; 16]), &agreed, open, Sequence(0))
}

/// Writes a block as an engine does.
fn write(stream: &mut Stream, number: u64) {
    let place = stream.segments.place(BLOCK).unwrap().unwrap();
    let entry = Entry { at: place.at, frame: frame(number), payload_crc32: frame(number).crc32 };
    let mut pages = sys::direct::AlignedBuffer::zeroed(2);
    pages[ENTRY_HEADER].copy_from_slice(&stream.segments.stamp(&entry));
    pages[PAGE_BYTES..PAGE_BYTES + BLOCK as usize].copy_from_slice(&content(number));
    let file = fs::File::from(place.fd.try_clone().unwrap());
    file.write_all_at(&pages, place.at.file_offset().0).unwrap();
    stream.trail.begin(frame(number), place);
    stream.trail.written(Sequence(number));
}

impl Side {
    fn new() -> Side {
        let state = tempfile::tempdir_in("/var/tmp").unwrap();
        let spool_folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let folder = spool_folder.path().to_owned();
        Side {
            folder: Transfers::open(state.path(), Backend::Threads).unwrap(),
            state,
            spool: Spool { when: When::Always, folder, segment: SMALL, max: None, account: None },
            _spool_folder: spool_folder,
            place: Arc::default(),
            orders: Arc::default(),
        }
    }

    fn look(&self) -> Look {
        let place = Arc::clone(&self.place);
        Box::new(move || *place.lock().unwrap())
    }

    fn follow(&self) -> Follow {
        let orders = Arc::clone(&self.orders);
        Box::new(move |order| orders.lock().unwrap().push(order))
    }

    fn begin(&self, role: Role) -> (Keeping, Stream) {
        let (session, transfer) = (SessionId([1; 16]), TransferId(1));
        let job = Job { role, session, transfer, epoch: 1, cargo: Cargo::Pipe };
        let names = Names::new(role, "a".to_owned(), "b".to_owned());
        let (look, follow) = (self.look(), self.follow());
        let (keeping, stream) =
            self.folder.begin_kept(job, names, handover(), look, &self.spool, follow).unwrap();
        keeping.opened();
        (keeping, stream)
    }

    fn left(&self, role: Role) -> io::Result<Option<Left>> {
        self.folder.left(role, "a")
    }

    /// As `kill -9` of the process: nobody says how it ended.
    fn die(keeping: Keeping, stream: Stream) {
        let Keeping { notes, thread } = keeping;
        drop((notes, stream));
        thread.join().unwrap();
    }

    fn progress(&self) -> Progress {
        list(self.state.path()).unwrap()[0].newest.unwrap().progress
    }

    fn wait(&self, until: impl Fn(&Side) -> bool) {
        let begun = Instant::now();
        while !until(self) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", self.orders);
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn has(&self, order: Order) -> bool {
        self.orders.lock().unwrap().contains(&order)
    }

    fn streams(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.spool.folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn durable(blocks: u64) -> Order {
    Order::Durable { to: mark(blocks).to, next_frame: Sequence(blocks) }
}

#[test]
fn a_server_may_acknowledge_what_a_record_claims_and_nothing_else() {
    let side = Side::new();
    let (keeping, mut stream) = side.begin(Role::Server);
    // Fed from memory, and not written: that is nobody's business.
    *side.place.lock().unwrap() = reached(9);
    thread::sleep(Duration::from_millis(50));
    assert!(side.orders.lock().unwrap().is_empty());
    for number in 0..5 {
        write(&mut stream, number);
    }
    side.wait(|side| side.has(durable(5)));
    let Progress { spooled, acknowledged, next_frame, received, .. } = side.progress();
    assert_eq!((spooled, acknowledged, received), (mark(5).to, mark(5), mark(5).to));
    assert_eq!(next_frame, Sequence(5));
    Side::die(keeping, stream);
}

#[test]
fn what_a_server_was_left_with_is_found_and_gone_on_with_as_often_as_it_dies() {
    let side = Side::new();
    let (keeping, mut stream) = side.begin(Role::Server);
    (0..5).for_each(|number| write(&mut stream, number));
    side.wait(|side| side.has(durable(5)));
    // Written, but recorded by nobody.
    let Stream { segments, trail } = stream;
    let (notes, _nobody) = crossbeam_channel::unbounded();
    let mut unheard = Stream { segments, trail: Trail::new(notes, mark(5)) };
    (5..8).for_each(|number| write(&mut unheard, number));
    drop(trail);
    Side::die(keeping, unheard);
    for round in 1..4 {
        let left = side.left(Role::Server).unwrap().expect("a stream");
        let end = 4 + round;
        assert_eq!(left.handover, handover());
        assert!(left.handover.agreed().is_some() && !left.is_whole());
        assert_eq!((left.found.start, left.found.end), (Mark::default(), mark(end)));
        assert_eq!(left.found.next_frame(), Some(Sequence(end)));
        assert_eq!(left.found.place_of(Sequence(3)), Some(mark(3)));
        assert_eq!(left.found.place_of(Sequence(end)), Some(mark(end)));
        assert_eq!(left.found.place_of(Sequence(end + 1)), None);
        let numbers: Vec<u64> =
            left.found.entries.iter().map(|entry| entry.frame.sequence.0).collect();
        assert_eq!(numbers, (0..end).collect::<Vec<_>>());
        let gone_on = side.folder.go_on(left, side.look(), &side.spool, side.follow());
        let (keeping, mut stream) = gone_on.unwrap();
        write(&mut stream, end);
        side.wait(|side| side.has(durable(end + 1)));
        Side::die(keeping, stream);
    }
    let (keeping, stream) = {
        let left = side.left(Role::Server).unwrap().unwrap();
        side.folder.go_on(left, side.look(), &side.spool, side.follow()).unwrap()
    };
    assert_eq!(side.left(Role::Server).unwrap().map(|left| left.record), None, "it is in use");
    keeping.ended(mark(8));
    *side.place.lock().unwrap() = reached(8);
    keeping.over(Over::Applied);
    drop(stream);
    assert!(side.streams().is_empty() && list(side.state.path()).unwrap().is_empty());
}

#[test]
fn a_client_keeps_what_was_not_acknowledged_until_two_records_say_that_it_was() {
    let side = Side::new();
    let (keeping, mut stream) = side.begin(Role::Client);
    (0..7).for_each(|number| write(&mut stream, number));
    keeping.ended(mark(7));
    side.wait(|side| side.progress().spooled == mark(7).to);
    assert!(side.orders.lock().unwrap().is_empty());
    *side.place.lock().unwrap() = reached(5);
    side.wait(|side| side.has(Order::Trim { before: SegmentNumber(3) }));
    stream.segments.trim(SegmentNumber(3));
    Side::die(keeping, stream);
    let left = side.left(Role::Client).unwrap().unwrap();
    assert_eq!(
        (left.record.progress.state, left.record.progress.end),
        (State::Ended, Some(mark(7)))
    );
    assert_eq!((left.found.start, left.found.end), (mark(5), mark(7)));
    assert_eq!(left.found.place_of(Sequence(6)), Some(mark(6)));
    assert_eq!(left.found.place_of(Sequence(4)), None, "nobody asks for that again");
    let gone_on = side.folder.go_on(left, side.look(), &side.spool, side.follow());
    let (keeping, stream) = gone_on.unwrap();
    *side.place.lock().unwrap() = reached(7);
    side.wait(|side| side.has(Order::Trim { before: SegmentNumber(4) }));
    keeping.over(Over::Applied);
    drop(stream);
    assert!(side.streams().is_empty());
}

#[test]
fn files_that_are_not_what_their_record_says_are_not_taken_up() {
    let harm: [fn(&std::path::Path); 5] = [
        |folder| fs::remove_file(folder.join("segment-00000002")).unwrap(),
        |folder| fs::write(folder.join("segment-00000003"), [0; 8192]).unwrap(),
        |folder| fs::write(folder.join("segment-00000001"), b"short").unwrap(),
        |folder| {
            let (one, other) = ("segment-00000001", "segment-00000002");
            fs::copy(folder.join(one), folder.join(other)).unwrap();
        },
        |folder| {
            let file = fs::File::options().write(true).open(folder.join("segment-00000002"));
            file.unwrap().write_all_at(b"x", ENTRY_HEADER.start as u64 + 50).unwrap();
        },
    ];
    for harm in harm {
        let side = Side::new();
        let (keeping, mut stream) = side.begin(Role::Server);
        (0..5).for_each(|number| write(&mut stream, number));
        side.wait(|side| side.has(durable(5)));
        Side::die(keeping, stream);
        harm(&side.streams()[0]);
        assert!(side.left(Role::Server).is_err());
    }
    let side = Side::new();
    assert!(side.left(Role::Server).unwrap().is_none());
    let (keeping, stream) = side.begin(Role::Server);
    Side::die(keeping, stream);
    let left = side.left(Role::Server).unwrap().unwrap();
    assert_eq!((left.found.end, left.next_frame()), (Mark::default(), Sequence(0)));
}

#[test]
fn a_write_that_failed_ends_the_keeping_and_nothing_is_promised_any_more() {
    let side = Side::new();
    let (keeping, mut stream) = side.begin(Role::Server);
    write(&mut stream, 0);
    side.wait(|side| side.has(durable(1)));
    stream.trail.broken(io::ErrorKind::StorageFull.into());
    side.wait(|side| side.has(Order::Retired));
    write(&mut stream, 1);
    thread::sleep(Duration::from_millis(50));
    assert!(!side.has(durable(2)));
    keeping.over(Over::Failed(Class::Wait));
    drop(stream);
    assert!(side.streams().is_empty(), "nothing goes on from a transfer that is given up");
    assert!(side.left(Role::Server).unwrap().is_none());
    assert_eq!(list(side.state.path()).unwrap().len(), 1);
}

#[test]
fn files_of_a_stream_go_with_its_records() {
    let side = Side::new();
    let (keeping, stream) = side.begin(Role::Client);
    Side::die(keeping, stream);
    assert_eq!(side.streams().len(), 1);
    let (keeping, stream) = side.begin(Role::Client);
    side.wait(|side| side.streams().len() == 1);
    keeping.over(Over::Failed(Class::Interrupted));
    drop(stream);
    assert!(side.streams().is_empty());
    assert!(side.left(Role::Client).unwrap().is_none());
}
