//! Streams that make a clone: taken as they were announced, of a snapshot below the root, and
//! otherwise not at all.

use std::io::Write;
use std::process::Command;

use zferry::dataset::Guid;
use zferry::error::{Class, Failure, Side};
use zferry::protocol::message::{CloneOf, DatasetStream, Message, Outcome, Stream};

use super::{SMALL, content, replicate};
use crate::support::host::Server;
use crate::support::peer::{BLOCK_BYTES, Peer, frame, full_stream, header};
use crate::support::stand_in::{Failing, StandIn};

/// A source with tank/o@t and its clone tank/c@s; a target with a copy of the first as backup/o.
fn hosts() -> (StandIn, StandIn) {
    let (source, target) = (StandIn::new(), StandIn::new());
    for (dataset, snapshot) in [("tank/o", "t"), ("tank/c", "s")] {
        source.dataset(dataset, "filesystem");
        source.snapshot(dataset, snapshot, &content(1));
    }
    for dataset in ["backup/o", "backup/p"] {
        target.dataset(dataset, "filesystem");
    }
    target.snapshot_with_guid("backup/o", "t", source.guid("tank/o@t"), &content(1));
    target.snapshot("backup/p", "t", &content(2));
    (source, target)
}

/// The bytes of the clone, or of another snapshot from another base.
fn sent(source: &StandIn, words: &[&str]) -> Vec<u8> {
    let output = Command::new(source.program()).args(words).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn of_clone(source: &StandIn) -> Vec<u8> {
    sent(source, &["send", "-i", "tank/o@t", "--", "tank/c@s"])
}

/// Announces tank/c@s as the clone of o@t that it is, but for what `change` says.
fn announced(source: &StandIn, change: impl FnOnce(&mut DatasetStream)) -> Stream {
    let mut stream = full_stream("c", "s", source.guid("tank/c@s"));
    let Stream::Dataset(dataset) = &mut stream else { unreachable!() };
    let guid = Guid(source.guid("tank/o@t"));
    let (of, snapshot) = ("o".parse().unwrap(), "t".parse().unwrap());
    dataset.origin = Some(Box::new(CloneOf { dataset: of, snapshot, guid }));
    dataset.from = Some(guid);
    change(dataset);
    stream
}

fn outcome(peer: &mut Peer) -> Result<(), Failure> {
    loop {
        match peer.hear().expect("an outcome") {
            Message::Result { outcome: Outcome::Applied(_), .. } => return Ok(()),
            Message::Result { outcome: Outcome::Failed(failure), .. }
            | Message::Refused(failure) => return Err(failure),
            _ => {}
        }
    }
}

/// Sends `bytes` as the stream that was announced.
fn send(server: &Server, stream: Stream, bytes: &[u8]) -> Result<(), Failure> {
    let mut peer = Peer::greet(server.address);
    let mut lane = peer.open(stream);
    for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        // A session that is over takes no more.
        let _ = lane.write_all(&frame(header(number, block), block));
    }
    peer.end(bytes);
    outcome(&mut peer)
}

/// What is said to a stream of which no byte is sent.
fn refused(server: &Server, stream: Stream) -> Failure {
    let mut peer = Peer::greet(server.address);
    peer.ask(stream, zferry::protocol::frame::Codec::Raw);
    outcome(&mut peer).unwrap_err()
}

/// One property of a dataset.
fn asked(host: &StandIn, property: &str, dataset: &str) -> String {
    let value = sent(host, &["get", "-Hp", "-o", "value", "--", property, dataset]);
    String::from_utf8(value).unwrap().trim_end().to_owned()
}

#[track_caller]
fn assert_untouched(target: &StandIn) {
    let calls = target.calls();
    assert!(calls.iter().all(|call| call[0] != "receive"), "it was started: {calls:?}");
    assert!(!target.exists("backup/c"));
}

#[test]
fn a_clone_is_made_of_the_snapshot_that_was_announced_and_is_safe_as_any_new_dataset() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    send(&server, announced(&source, |_| {}), &of_clone(&source)).unwrap();
    assert_eq!(target.guid("backup/c@s"), source.guid("tank/c@s"));
    let set = |property| target.property("backup/c", property);
    assert_eq!(asked(&target, "origin", "backup/c"), "backup/o@t");
    // By its name: ZFS would find another one of this guid, too.
    let named = |call: &Vec<String>| call.contains(&"origin=backup/o@t".to_owned());
    assert!(target.calls().iter().any(|call| call[0] == "receive" && named(call)));
    assert_eq!((set("readonly").as_deref(), set("exec").as_deref()), (Some("on"), Some("off")));
    // From then on it is sent to like any other.
    source.snapshot("tank/c", "u", &content(3));
    replicate(&source, "tank/c", &server.url("c"), &SMALL).ended().succeeded();
    assert_eq!(target.snapshots("backup/c"), ["s", "u"]);
}

#[test]
fn a_clone_that_was_cut_is_gone_on_with_and_names_its_origin_again() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB", "--grace", "0"]);
    target.fail_receive(&Failing { after_bytes: 1_000_000, status: "KILL", words: "" });
    let cut = send(&server, announced(&source, |_| {}), &of_clone(&source)).unwrap_err();
    assert_eq!(cut.class, Class::Interrupted, "{cut}");
    let part = target.partly_received("backup/c").expect("nothing was kept");
    assert!(!part.is_empty() && part.len() < content(1).len());
    let token = asked(&target, "receive_resume_token", "backup/c");
    let rest = sent(&source, &["send", "-t", &token]);
    // As a stream that would add to the dataset, it is none.
    let odd = announced(&source, |stream| (stream.resumed, stream.origin) = (true, None));
    let failure = send(&server, odd, &rest).unwrap_err();
    assert!(failure.what.contains("it makes a clone"), "{failure}");
    send(&server, announced(&source, |stream| stream.resumed = true), &rest).unwrap();
    assert_eq!(target.content("backup/c@s"), content(1));
    assert_eq!(asked(&target, "origin", "backup/c"), "backup/o@t");
}

#[test]
fn an_origin_that_is_not_there_or_is_another_is_refused_before_any_data() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    let of = |dataset: &'static str, snapshot: &'static str| {
        announced(&source, |stream| {
            let origin = stream.origin.as_mut().unwrap();
            (origin.dataset, origin.snapshot) =
                (dataset.parse().unwrap(), snapshot.parse().unwrap());
        })
    };
    for (stream, told) in [
        (of("o", "x"), "a clone of backup/o@x was announced, which does not exist"),
        (of("x", "t"), "a clone of backup/x@t was announced, which does not exist"),
        (of("p", "t"), "a clone of backup/p@t was announced, which has guid"),
    ] {
        let failure = refused(&server, stream);
        assert_eq!((failure.side, failure.class), (Side::Target, Class::Refused), "{failure}");
        assert!(failure.what.contains(told), "{failure}");
        assert!(failure.remedy.unwrap().contains("sent as a dataset of its own"));
    }
    let other = announced(&source, |stream| stream.from = Some(Guid(7)));
    assert_eq!(refused(&server, other).class, Class::Peer);
    let none = announced(&source, |stream| stream.from = None);
    assert_eq!(refused(&server, none).class, Class::Peer);
    assert_untouched(&target);
    server.still_serves();
}

#[test]
fn what_is_announced_as_a_clone_and_is_none_or_of_another_origin_is_turned_away() {
    let (source, target) = hosts();
    source.snapshot("tank/c", "u", &content(3));
    source.dataset("tank/q", "filesystem");
    source.snapshot("tank/q", "t", &content(4));
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    source.snapshot("tank/c", "v", &content(5));
    let later = |stream: &mut DatasetStream| {
        (stream.to, stream.snapshot) = (Guid(source.guid("tank/c@v")), "v".parse().unwrap());
    };
    let of_other = sent(&source, &["send", "-i", "tank/q@t", "--", "tank/c@v"]);
    let full = sent(&source, &["send", "--", "tank/c@s"]);
    let adds = sent(&source, &["send", "-i", "tank/c@u", "--", "tank/c@v"]);
    for (stream, bytes, told) in [
        (announced(&source, later), of_other, "it builds on the snapshot with guid"),
        (announced(&source, |_| {}), full, "it makes no clone; announced was one"),
        (announced(&source, later), adds, "it makes no clone; announced was one"),
    ] {
        let failure = send(&server, stream, &bytes).unwrap_err();
        assert_eq!((failure.side, failure.class), (Side::Source, Class::Peer), "{failure}");
        assert!(failure.what.contains(told) && failure.remedy.is_some(), "{failure}");
    }
    assert_untouched(&target);
    server.still_serves();
}
