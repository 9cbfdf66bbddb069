//! A receiver alone, with frames made by hand: what no sender of ours would send on purpose.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sys::backend::Backend;
use sys::pipe::Pipe;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use zferry::engine::fault::Fault;
use zferry::engine::receiver::{Agreed, Event, Feed, Receiver, Sink};
use zferry::engine::settings::{Checksum, Compression, RouteChoice, Settings, ZeroCopy};
use zferry::protocol::frame::{Codec, Header};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

const BLOCK: usize = 64 << 10;
const TRANSFER: TransferId = TransferId(1);

struct Bench {
    receiver: Receiver,
    events: UnboundedReceiver<Event>,
    /// The sender's end of each lane.
    lanes: Vec<UnixStream>,
    /// Nobody reads from it before the test does.
    sink: Option<File>,
}

fn block(number: u64) -> Vec<u8> {
    vec![u8::try_from(number % 251).unwrap(); BLOCK]
}

fn frame(number: u64) -> Vec<u8> {
    let payload = block(number);
    let length = u32::try_from(payload.len()).unwrap();
    let header = Header {
        transfer: TRANSFER,
        epoch: 1,
        sequence: Sequence(number),
        offset: StreamOffset(number * u64::from(length)),
        codec: Codec::Raw,
        plain_bytes: length,
        payload_bytes: length,
        crc32: crc32fast::hash(&payload),
    };
    [header.encode().as_slice(), &payload].concat()
}

impl Bench {
    fn new(lanes: u32, blocks: u64) -> Bench {
        let settings = Settings {
            backend: Backend::Uring,
            cache: Bytes(blocks * (BLOCK as u64 + 4096)),
            block_bytes: Bytes::from(BLOCK),
            workers: 1,
            cores: Vec::new(),
            compression: Compression::None,
            checksum: Checksum::Crc32,
            route: RouteChoice::Auto,
            flush_after: Duration::from_millis(100),
            zero_copy: ZeroCopy::Off,
            spool: None,
        };
        let agreed = Agreed { codec: Codec::Raw, block_bytes: Bytes::from(BLOCK) };
        let (inbox, events) = unbounded_channel();
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (0..lanes).map(|_| UnixStream::pair().unwrap()).unzip();
        let places = theirs.into_iter().map(|theirs| Some(theirs.into())).collect();
        let receiver = Receiver::start(&settings, agreed, places, &inbox, Sequence(0)).unwrap();
        let pipe = Pipe::new(1 << 20).unwrap();
        receiver.begin(TRANSFER, 1, Sink { fd: pipe.writer, feed: Feed::Splice }, None);
        Bench { receiver, events, lanes: ours, sink: Some(pipe.reader.into()) }
    }

    fn rejoin(&mut self, lane: usize) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.receiver.join(u32::try_from(lane).unwrap(), theirs.into());
        self.lanes[lane] = ours;
    }

    /// The next event that is no call for a credit.
    #[track_caller]
    fn next(&mut self) -> Event {
        let limit = Instant::now() + Duration::from_secs(20);
        while Instant::now() < limit {
            match self.events.try_recv() {
                Ok(Event::Credit) => drop(self.receiver.receipt()),
                Ok(event) => return event,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("nothing happened");
    }

    #[track_caller]
    fn wait_until(&self, what: &str, happened: impl Fn(&Receiver) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !happened(&self.receiver) {
            assert!(Instant::now() < limit, "{what} did not happen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn read_sink(&mut self) -> JoinHandle<Vec<u8>> {
        let mut sink = self.sink.take().unwrap();
        std::thread::spawn(move || {
            let mut all = Vec::new();
            sink.read_to_end(&mut all).unwrap();
            all
        })
    }

    fn end(&self, blocks: u64) -> Vec<u8> {
        let stream: Vec<u8> = (0..blocks).flat_map(block).collect();
        let total = StreamOffset(stream.len() as u64);
        self.receiver.end(TRANSFER, total, crc32fast::hash(&stream));
        stream
    }
}

#[test]
fn a_copy_of_a_block_that_proves_corrupt_must_come_again_too() {
    // More than the pipe takes, so that the stage that proves blocks stands still for a while.
    const LAST: u64 = 20;
    let mut bench = Bench::new(3, 40);
    for number in 0..LAST {
        bench.lanes[0].write_all(&frame(number)).unwrap();
    }
    let mut corrupt = frame(LAST);
    *corrupt.last_mut().unwrap() ^= 1;
    let whole = frame(LAST);
    bench.lanes[1].write_all(&corrupt).unwrap();
    bench.wait_until("the arrival", |receiver| {
        receiver.progress().wire().0 == (LAST + 1) * whole.len() as u64
    });
    bench.lanes[2].write_all(&whole).unwrap();
    bench.wait_until("the copy's end", |receiver| receiver.progress().resent() > Bytes(0));
    let sink = bench.read_sink();
    let mut lost = Vec::new();
    for _ in 0..2 {
        match bench.next() {
            Event::LaneLost { lane, fault } => lost.push((lane, fault)),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(lost[..], [(1, Fault::Corrupt { .. }), (2, Fault::Copy(2))]), "{lost:?}");
    bench.rejoin(1);
    bench.lanes[1].write_all(&whole).unwrap();
    let stream = bench.end(LAST + 1);
    assert!(matches!(bench.next(), Event::Fed(_)));
    drop(bench.receiver);
    assert!(sink.join().unwrap() == stream);
}

#[test]
fn a_lane_may_be_given_another_connection_in_the_middle_of_a_frame() {
    let mut bench = Bench::new(1, 4);
    let sink = bench.read_sink();
    let whole = frame(0);
    bench.lanes[0].write_all(&whole[..1000]).unwrap();
    bench.rejoin(0);
    bench.lanes[0].write_all(&whole).unwrap();
    let stream = bench.end(1);
    assert!(matches!(bench.next(), Event::Fed(_)), "the old connection was told of");
    drop(bench.receiver);
    assert!(sink.join().unwrap() == stream);
}

#[test]
fn a_connection_closed_in_a_transfer_is_lost_and_between_two_has_ended() {
    let mut bench = Bench::new(2, 8);
    let sink = bench.read_sink();
    bench.lanes[0].shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(bench.next(), Event::LaneLost { lane: 0, fault: Fault::Closed(0) }));
    bench.lanes[1].write_all(&frame(0)).unwrap();
    let stream = bench.end(1);
    assert!(matches!(bench.next(), Event::Fed(_)));
    bench.lanes[1].shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(bench.next(), Event::ConnectionEnded(1)));
    drop(bench.receiver);
    assert!(sink.join().unwrap() == stream);
}

#[test]
fn a_lane_beyond_those_of_the_session_is_refused() {
    let mut bench = Bench::new(1, 4);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    bench.receiver.join(1, theirs.into());
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "it was let in");
    bench.lanes[0].write_all(&frame(0)).unwrap();
    let sink = bench.read_sink();
    let stream = bench.end(1);
    assert!(matches!(bench.next(), Event::Fed(_)));
    drop(bench.receiver);
    assert!(sink.join().unwrap() == stream);
}

/// A block beyond the room that there is.
fn assert_turned_away(event: Event) {
    match event {
        Event::LaneLost { lane: 0, fault: Fault::NoRoom(0, beyond) }
        | Event::Failed(Fault::NoRoom(0, beyond)) => {
            assert_eq!((beyond.room, beyond.got), (Sequence(2), Sequence(2)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_lane_may_bring_a_frame_that_a_former_process_gave_room_for() {
    let mut bench = Bench::new(2, 4);
    for _ in 0..3 {
        bench.lanes[0].write_all(&frame(2)).unwrap();
        let event = bench.next();
        assert!(matches!(event, Event::LaneLost { .. }), "{event:?}");
        assert_turned_away(event);
        bench.rejoin(0);
    }
    let sink = bench.read_sink();
    bench.lanes[0].write_all(&frame(0)).unwrap();
    let stream = bench.end(1);
    assert!(matches!(bench.next(), Event::Fed(_)));
    drop(bench.receiver);
    assert!(sink.join().unwrap() == stream);
}

#[test]
fn frames_that_there_is_no_room_for_end_the_engine() {
    let mut bench = Bench::new(2, 4);
    for _ in 0..3 {
        bench.lanes[0].write_all(&frame(2)).unwrap();
        assert_turned_away(bench.next());
        bench.rejoin(0);
    }
    bench.lanes[0].write_all(&frame(2)).unwrap();
    let event = bench.next();
    assert!(matches!(event, Event::Failed(_)), "{event:?}");
    assert_turned_away(event);
}
