//! Bytes of a stream that are wrong, and ends that are none, sent by a hand-made peer.

use std::fs;
use std::io::Write;

use zferry::error::{Class, Failure, Side};
use zferry::protocol::frame::{Codec, HEADER_BYTES, Header};
use zferry::protocol::message::{Message, Outcome, Stream};
use zferry::units::{Sequence, StreamOffset, TransferId};

use super::{
    assert_partly_received, content, hosts, stream_of, until_the_end, wait_until_some_came,
};
use crate::support::host::{Server, wait_for, wait_for_words};
use crate::support::peer::{self, BLOCK_BYTES, Peer, frame, full_stream, header};

/// How many blocks are as they should be: more than the stand-in takes at once.
const GOOD: usize = 4;

/// How often bytes may be wrong, each time over another connection, before they are no accident.
const STRIKES: usize = 3;

/// Sends some good blocks, then `bad`, again over a new connection whenever one is dropped for it;
/// returns what the server says in the end and demands that nothing behind the good blocks reached
/// `zfs receive`.
#[track_caller]
fn answer_to(bad: impl Fn(&[u8]) -> Vec<u8>) -> Failure {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let stream = stream_of(&source, "tank/a@s");
    let mut peer = Peer::greet(server.address);
    let mut lane = peer.open(full_stream("a", "s", source.guid("tank/a@s")));
    for (number, block) in stream.chunks(BLOCK_BYTES).enumerate().take(GOOD) {
        lane.write_all(&frame(header(number, block), block)).unwrap();
    }
    wait_until_some_came(&target);
    let next = &stream[GOOD * BLOCK_BYTES..][..BLOCK_BYTES];
    for _ in 0..STRIKES {
        // A session that is over takes no more.
        let _ = lane.write_all(&bad(next));
        peer::hear_out(lane);
        lane = peer.lane(0, peer.secret);
    }
    let failure = peer.refusal();
    assert_partly_received(&target);
    let part = target.partly_received("backup/a").unwrap();
    let records_bytes = 2 * 312;
    assert!(part.len() <= GOOD * BLOCK_BYTES - records_bytes, "bad bytes went in: {}", part.len());
    let told = failure.to_string();
    wait_for_words(&server.running, told.lines().next().unwrap());
    assert!(server.running.said().contains("session failed"));
    failure
}

#[test]
fn a_block_that_was_changed_on_its_way_is_not_let_in() {
    let failure = answer_to(|block| {
        let mut bytes = frame(header(GOOD, block), block);
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("the block at byte 262144 is corrupt"), "{failure}");
}

#[test]
fn a_header_that_was_changed_on_its_way_is_not_believed() {
    for byte in [0, 9, 34, 47] {
        let failure = answer_to(|block| {
            let mut bytes = frame(header(GOOD, block), block);
            bytes[byte] ^= 0x40;
            bytes
        });
        assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer), "byte {byte}");
        let told = if byte < 4 { "a frame begins with" } else { "frame header's CRC32" };
        assert!(failure.what.contains(told), "byte {byte}: {failure}");
    }
}

#[test]
fn a_block_in_the_wrong_place_is_not_let_in() {
    let failure = answer_to(|block| {
        let wrong = Header { offset: StreamOffset(5 * BLOCK_BYTES as u64), ..header(GOOD, block) };
        frame(wrong, block)
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("due was byte 262144"), "{failure}");
}

#[test]
fn a_block_of_another_transfer_or_run_is_not_let_in() {
    let other = TransferId(2);
    let failure =
        answer_to(|block| frame(Header { transfer: other, ..header(GOOD, block) }, block));
    assert!(failure.what.contains("of transfer 2 arrived"), "{failure}");
    answer_to(|block| frame(Header { epoch: 2, ..header(GOOD, block) }, block));
}

#[test]
fn a_block_that_comes_twice_is_let_in_once() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let stream = stream_of(&source, "tank/a@s");
    let mut peer = Peer::greet(server.address);
    let mut lane = peer.open(full_stream("a", "s", source.guid("tank/a@s")));
    for (number, block) in stream.chunks(BLOCK_BYTES).enumerate() {
        for _ in 0..=number % 2 {
            lane.write_all(&frame(header(number, block), block)).unwrap();
        }
    }
    peer.end(&stream);
    match peer.hear() {
        Some(Message::Result { outcome: Outcome::Applied(_), .. }) => {}
        other => panic!("not applied: {other:?}"),
    }
    assert!(target.content("backup/a@s") == content(1), "the blocks were not put together");
}

#[test]
fn a_block_for_which_there_is_no_room_is_not_let_in() {
    let failure = answer_to(|block| {
        let far = Header { sequence: Sequence(1 << 40), ..header(GOOD, block) };
        frame(far, block)
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("block #1099511627776 came where there was room"), "{failure}");
}

#[test]
fn a_length_beyond_what_was_agreed_is_not_believed() {
    let oversize = u32::MAX.to_le_bytes();
    let failure = answer_to(|block| {
        let mut bytes: [u8; HEADER_BYTES] = header(GOOD, block).encode();
        bytes[32..36].copy_from_slice(&oversize);
        bytes[36..40].copy_from_slice(&oversize);
        peer::sealed(bytes).to_vec()
    });
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
    assert!(failure.what.contains("a block of 4294967295 bytes; agreed were 1 to 65536"));
}

#[test]
fn a_packed_block_where_none_was_agreed_is_not_let_in() {
    let failure = answer_to(|block| {
        let packed = Header { codec: Codec::Zstd, payload_bytes: 1000, ..header(GOOD, block) };
        frame(packed, &block[..1000])
    });
    assert!(failure.what.contains("codec"), "{failure}");
}

#[test]
fn garbage_on_a_data_connection_ends_the_transfer() {
    let failure =
        answer_to(|_| b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n\r\n\r\n".repeat(3));
    assert_eq!((failure.side, failure.class), (Side::Network, Class::Peer));
}

#[test]
fn an_end_that_does_not_fit_the_bytes_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    for (total, crc32, told) in [
        (5, 0xdead_beef, "the stream ended at byte 5 with CRC32"),
        (4, crc32fast::hash(b"byte"), "4"),
    ] {
        let done = folder.path().join("done");
        let receiver = Server::receive(&["--", "sh", "-c", &until_the_end(&done)]);
        let mut peer = Peer::greet(receiver.address);
        let mut lane = peer.open(Stream::Pipe);
        lane.write_all(&frame(header(0, b"bytes"), b"bytes")).unwrap();
        peer.end_with(total, crc32);
        let failure = peer.refusal();
        assert!(failure.what.contains(told), "{failure}");
        receiver.running.ended().failed_with(2, &["network: "]);
        assert!(!done.exists(), "the command saw a clean end");
    }
}

#[test]
fn a_stream_whose_end_is_never_told_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    for leaves_politely in [true, false] {
        let done = folder.path().join("done");
        let receiver = Server::receive(&["--grace", "0", "--", "sh", "-c", &until_the_end(&done)]);
        let mut peer = Peer::greet(receiver.address);
        let mut lane = peer.open(Stream::Pipe);
        lane.write_all(&frame(header(0, b"all there is"), b"all there is")).unwrap();
        let part = folder.path().join("done.part");
        wait_for("the bytes", || fs::read(&part).is_ok_and(|part| part.len() == 12).then_some(()));
        if leaves_politely {
            peer.say(&Message::Bye);
        }
        drop(lane);
        drop(peer);
        receiver.running.ended().failed_with(2, &["zferry: "]);
        assert!(!done.exists(), "the command saw a clean end");
        fs::remove_file(part).unwrap();
    }
}

#[test]
fn nothing_runs_for_a_client_that_leaves_while_all_is_made_ready() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..10 {
        let done = folder.path().join("done");
        let receiver = Server::receive(&["--grace", "0", "--", "sh", "-c", &until_the_end(&done)]);
        let mut peer = Peer::greet(receiver.address);
        let lane = peer.lane(0, peer.secret);
        peer.ask(Stream::Pipe, Codec::Raw);
        drop(lane);
        drop(peer);
        receiver.running.ended().failed_with(2, &["zferry: "]);
        assert!(!done.exists(), "the command saw a clean end");
    }
}
