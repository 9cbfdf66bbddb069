//! Streams that are not what was announced: `zfs receive` is not even started for them.

use std::io::Write;
use std::time::Duration;

use zferry::dataset::{Guid, Kind};
use zferry::error::{Class, Failure, Side};
use zferry::protocol::frame::Header;
use zferry::protocol::message::{DatasetStream, Message, Outcome, Stream};
use zferry::units::StreamOffset;

use super::{content, copy, hosts, replicate, stream_of};
use crate::support::host::{Server, wait_for_words};
use crate::support::peer::{BLOCK_BYTES, Peer, frame, full_stream, header};
use crate::support::stand_in::StandIn;

/// Real BEGIN records; what each is of stands in front of it.
const GOLDEN: &str = include_str!("../../golden/begins.txt");

const RECORD_BYTES: usize = 312;

/// The beginning of a stream of a real pool.
fn real(name: &str) -> Vec<u8> {
    let lines = GOLDEN.lines().filter_map(|line| line.split_once(' '));
    let hex = lines.filter(|(of, _)| *of == name).map(|(_, hex)| hex).next().unwrap();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Announces tank/a@s as it is but for what `change` says.
fn announced(source: &StandIn, change: impl FnOnce(&mut DatasetStream)) -> Stream {
    let mut stream = full_stream("a", "s", source.guid("tank/a@s"));
    let Stream::Dataset(dataset) = &mut stream else { unreachable!() };
    change(dataset);
    stream
}

/// Sends the whole of `bytes` as the stream that was announced; what the server says of it.
#[track_caller]
fn answer_to(server: &Server, stream: Stream, bytes: &[u8]) -> Failure {
    let mut peer = Peer::greet(server.address);
    let mut lane = peer.open(stream);
    for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        // A session that is over takes no more.
        let _ = lane.write_all(&frame(header(number, block), block));
    }
    peer.end(bytes);
    let failure = peer.refusal();
    wait_for_words(&server.running, "turned a stream away before zfs receive was started");
    failure
}

#[track_caller]
fn assert_untouched(target: &StandIn) {
    let calls = target.calls();
    assert!(calls.iter().all(|call| call[0] != "receive"), "it was started: {calls:?}");
    assert!(!target.exists("backup/a"));
}

#[test]
fn a_package_a_clone_and_a_redacted_stream_are_turned_away() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    for (name, told) in [
        ("package-R", "package stream"),
        ("package-p", "package stream"),
        ("package-I", "package stream"),
        ("clone", "it makes a clone"),
        ("redacted", "it is redacted"),
    ] {
        let bytes = [real(name), content(7)].concat();
        let failure = answer_to(&server, announced(&source, |_| {}), &bytes);
        assert_eq!((failure.side, failure.class), (Side::Source, Class::Refused), "{failure}");
        assert!(failure.what.contains(told) && failure.remedy.is_some(), "{name}: {failure}");
        assert!(failure.what.starts_with("the stream for backup/a was turned away"), "{failure}");
    }
    assert_untouched(&target);
    server.still_serves();
}

/// What is announced otherwise.
type Change = fn(&mut DatasetStream);

#[test]
fn a_stream_that_is_not_the_one_that_was_announced_is_turned_away() {
    let (source, target) = hosts();
    source.snapshot("tank/a", "t", &content(2));
    source.dataset("tank/v", "volume");
    source.snapshot("tank/v", "s", &content(3));
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let (whole, volume) = (stream_of(&source, "tank/a@s"), stream_of(&source, "tank/v@s"));
    let later = stream_of(&source, "tank/a@t");
    let cases: [(Change, &[u8], &str); 7] = [
        (|_| {}, &later, "it is of the snapshot with guid"),
        (|_| {}, &volume, "it is of a volume; announced was a filesystem"),
        (|stream| stream.dataset = Kind::Volume, &whole, "it is of a filesystem"),
        (|stream| stream.from = Some(Guid(7)), &whole, "it builds on nothing; announced was"),
        (|stream| stream.raw = true, &whole, "it is not raw"),
        (|stream| stream.snapshot = "x".parse().unwrap(), &whole, "announced was the name 'x'"),
        (|_| {}, &whole[RECORD_BYTES..], "it does not begin as a stream of `zfs send` does"),
    ];
    for (change, bytes, told) in cases {
        let failure = answer_to(&server, announced(&source, change), bytes);
        assert_eq!((failure.side, failure.class), (Side::Source, Class::Peer), "{failure}");
        assert!(failure.what.contains(told) && failure.remedy.is_some(), "{failure}");
    }
    assert_untouched(&target);
    server.still_serves();
}

#[test]
fn garbage_and_streams_that_end_too_early_are_turned_away() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let stream = || announced(&source, |_| {});
    let failure = answer_to(&server, stream(), &b"GET / HTTP/1.1\r\n".repeat(50));
    assert!(failure.what.contains("does not begin as a stream"), "{failure}");
    for length in [0, 1, RECORD_BYTES - 1] {
        let failure = answer_to(&server, stream(), &stream_of(&source, "tank/a@s")[..length]);
        assert!(failure.what.contains(&format!("it ended after {length} bytes")), "{failure}");
        assert_eq!((failure.side, failure.class), (Side::Source, Class::Peer), "{failure}");
    }
    // The record is right, and the list behind it never comes.
    let mut record = stream_of(&source, "tank/a@s")[..RECORD_BYTES].to_vec();
    record[4..8].copy_from_slice(&(1u32 << 20).to_le_bytes());
    let failure = answer_to(&server, stream(), &record);
    assert!(failure.what.contains("it ended after 312 bytes"), "{failure}");
    record[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let failure = answer_to(&server, stream(), &record);
    assert!(failure.what.contains("announces a list of 4294967295 bytes"), "{failure}");
    assert_untouched(&target);
    server.still_serves();
}

/// A stream whose BEGIN record has a list of so many bytes.
fn with_payload(source: &StandIn, bytes: u32) -> Vec<u8> {
    let mut stream = stream_of(source, "tank/a@s");
    stream[4..8].copy_from_slice(&bytes.to_le_bytes());
    let rest = stream.split_off(RECORD_BYTES);
    [stream, vec![7; bytes as usize], rest].concat()
}

#[test]
fn a_beginning_that_comes_in_many_blocks_is_put_together() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let stream = with_payload(&source, 3 << 16);
    let mut peer = Peer::greet(server.address);
    let mut lane = peer.open(announced(&source, |_| {}));
    let (small, large) = stream.split_at(400);
    let blocks = small.chunks(100).chain(large.chunks(BLOCK_BYTES));
    let mut offset = 0;
    for (number, block) in blocks.enumerate() {
        if (1..5).contains(&number) {
            let calls = target.calls();
            assert!(calls.iter().all(|call| call[0] != "receive"), "before block {number}");
        }
        let header = Header { offset: StreamOffset(offset), ..header(number, block) };
        lane.write_all(&frame(header, block)).unwrap();
        offset += block.len() as u64;
        if number < 5 {
            // Each comes by itself.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    peer.end(&stream);
    match peer.hear() {
        Some(Message::Result { outcome: Outcome::Applied(_), .. }) => {}
        other => panic!("not applied: {other:?}"),
    }
    assert!(target.content("backup/a@s") == content(1), "the blocks were not put together");
}

/// By either lane, from a client that does not know what its `zfs` does.
#[test]
fn the_user_is_told_what_was_sent_instead_and_what_to_do() {
    for flags in [&["--no-snapshot"][..], &["--no-snapshot", "--checksum", "none"]] {
        let (source, target) = hosts();
        let server = Server::serve(&target, &["--cache", "8MiB"]);
        source.send_instead(&[real("package-R"), content(7)].concat());
        replicate(&source, "tank/a", &server.url("a"), flags).ended().failed_with(
            2,
            &[
                "zferry: source: the stream for backup/a was turned away before `zfs receive`",
                "it is a package stream (zfs send -R",
                "to mend it: send one snapshot a stream",
            ],
        );
        assert_untouched(&target);
        server.still_serves();
    }
}

#[test]
fn a_stream_that_nobody_proves_is_looked_at_all_the_same() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let flags = ["--no-snapshot", "--checksum", "none", "--block-size", "64KiB"];
    source.send_instead(&with_payload(&source, 3 << 16));
    replicate(&source, "tank/a", &server.url("a"), &flags).ended().succeeded();
    assert!(target.content("backup/a@s") == content(1));
    let received = target.calls().into_iter().filter(|call| call[0] == "receive").count();
    assert_eq!(received, 1);
}

#[test]
fn a_stream_that_is_kept_at_the_server_is_looked_at_as_well() {
    let (source, target) = hosts();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let spool = folder.path().to_str().unwrap();
    let server = Server::serve(&target, &["--cache", "8MiB", "--spool", spool]);
    let good = with_payload(&source, 3 << 16);
    source.send_instead(&[real("package-p"), content(7)].concat());
    copy(&source, &server.url("a")).ended().failed_with(2, &["package stream"]);
    assert_untouched(&target);
    source.send_instead(&good);
    copy(&source, &server.url("a")).ended().succeeded();
    assert!(target.content("backup/a@s") == content(1));
}
