//! What a client of a resident server may do and how much of it, whatever it says of itself.

use std::net::SocketAddr;

use zferry::dataset::Guid;
use zferry::error::{Class, Failure};
use zferry::listing::TargetState;
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{CloneOf, DatasetStream, Message, Outcome, Stream};
use zferry::trust::OwnKey;

use crate::support::host::{Server, wait_for};
use crate::support::peer::{Peer, control_preamble, full_stream};
use crate::support::scene::{Host, Scene};
use crate::support::secure::Secure;
use crate::support::stand_in::Failing;

/// A hand-made client with the key of a host.
fn peer_of(host: &Host, server: SocketAddr) -> Peer {
    let key = OwnKey::load(&host.folder.path().join("key.pem")).unwrap();
    let mut control = Secure::connect(server, &key);
    std::io::Write::write_all(&mut control, &control_preamble()).unwrap();
    Peer::greet_over(Box::new(control), server)
}

fn laptop(scene: &Scene) -> Peer {
    peer_of(&scene.source, scene.server.address)
}

/// A full stream whose sender says that it is not the first of its dataset.
fn not_first(target: &str) -> Stream {
    match full_stream(target, "s", 7) {
        Stream::Dataset(stream) => Stream::Dataset(DatasetStream { first: false, ..stream }),
        Stream::Pipe => unreachable!("it is for a dataset"),
    }
}

/// Asks to send a stream; what the server says to it.
fn asked(peer: &mut Peer, stream: Stream) -> Result<(), Failure> {
    peer.ask(stream, Codec::Raw);
    match peer.hear() {
        Some(Message::Opened { .. }) => Ok(()),
        Some(
            Message::Refused(failure) | Message::Result { outcome: Outcome::Failed(failure), .. },
        ) => Err(failure),
        other => panic!("neither opened nor refused: {other:?}"),
    }
}

fn list(peer: &mut Peer, target: &str) -> Result<TargetState, Failure> {
    peer.say(&Message::List { dataset: target.parse().unwrap() });
    match peer.hear() {
        Some(Message::Listed { target, .. }) => Ok(target),
        Some(Message::Refused(failure)) => Err(failure),
        other => panic!("neither listed nor refused: {other:?}"),
    }
}

fn abort(peer: &mut Peer, target: &str, token: &str) -> Failure {
    let dataset = target.parse().unwrap();
    peer.say(&Message::Abort { dataset, token: token.to_owned() });
    peer.refusal()
}

#[test]
fn what_is_to_be_made_is_what_the_server_sees_and_not_what_the_client_says() {
    let scene = Scene::new(&["--datasets", "1", "--allow", "receive-full"]);
    scene.target.pools.dataset("backup/in/old", "filesystem");
    let refused = asked(&mut laptop(&scene), not_first("new")).unwrap_err();
    assert!(refused.what.contains("2 datasets below backup/in, and 1 are granted"), "{refused}");
    assert!(refused.remedy.unwrap().ends_with("datasets = 2"));
    let refused = asked(&mut laptop(&scene), not_first("deep/er/new")).unwrap_err();
    assert!(refused.what.contains("may not create what is missing above"), "{refused}");
    assert!(!scene.target.pools.exists("backup/in/deep"));
}

#[test]
fn datasets_that_are_made_above_one_count_with_it() {
    let scene = Scene::new(&["--datasets", "3"]);
    scene.target.pools.dataset("backup/in/old", "filesystem");
    let refused = scene.replicate("x/y/a", &[]).ended();
    refused.failed_with(2, &["4 datasets below backup/in, and 3 are granted"]);
    assert!(!scene.target.pools.exists("backup/in/x"), "nothing was made of what was refused");
    scene.replicate("x/a", &[]).ended().succeeded();
    // What is there needs no room, and nothing else has any.
    scene.source.pools.snapshot("tank/a", "two", b"two");
    scene.replicate("x/a", &[]).ended().succeeded();
    scene.replicate("x/b", &[]).ended().failed_with(2, &["4 datasets below"]);
}

#[test]
fn transfers_that_have_made_nothing_yet_count_as_what_they_will_make() {
    let scene = Scene::new(&["--datasets", "2"]);
    let (mut first, mut second) = (laptop(&scene), laptop(&scene));
    asked(&mut first, full_stream("one", "s", 7)).unwrap();
    asked(&mut second, full_stream("two", "s", 8)).unwrap();
    let refused = asked(&mut laptop(&scene), full_stream("three", "s", 9)).unwrap_err();
    assert!(refused.what.contains("3 datasets below backup/in"), "{refused}");
    assert!(!scene.target.pools.exists("backup/in/one"), "nothing came yet");
    // This is no place for it: the server gives the transfer up.
    first.say(&Message::Bye);
    wait_for("room", || asked(&mut laptop(&scene), full_stream("three", "s", 9)).ok());
}

#[test]
fn transfers_are_limited_for_each_root_by_itself() {
    let (target, source) = (Host::new(), Host::source());
    for root in ["backup/in", "backup/inn"] {
        target.pools.dataset(root, "filesystem");
    }
    let key = source.key();
    for (root, prefix) in [("backup/in", "a"), ("backup/inn", "ab")] {
        let grant = ["--root", root, "--prefix", prefix, "--transfers", "1"];
        target.run(&[&["keys", "trust", "client", "db1", &key], &grant[..]].concat()).succeeded();
    }
    let serve = ["serve", "--listen", "127.0.0.1:0", "-v", "--cache", "16MiB"];
    let server = Server::start(&mut target.command(&serve));
    let open = |name: &str| {
        let mut peer = peer_of(&source, server.address);
        asked(&mut peer, full_stream(name, "s", 7)).map(|()| peer)
    };
    // What one grant's names reach is none of the other's.
    source.trusts(server.address, &target.key());
    for name in ["a", "ab", "abc/x", "in/x"] {
        assert!(open(name).is_err(), "{name}");
    }
    source.replicate(server.address, "a/b", &[]).ended().succeeded();
    source.replicate(server.address, "ab/b", &[]).ended().succeeded();
    assert!(target.pools.exists("backup/in/b") && target.pools.exists("backup/inn/b"));
    assert!(!target.pools.exists("backup/in/ab") && !target.pools.exists("backup/inn/a"));
    let under_way = (open("a/one").unwrap(), open("ab/one").unwrap());
    for (name, root) in [("a/two", "backup/in"), ("ab/two", "backup/inn")] {
        let refused = open(name).map(drop).unwrap_err();
        assert_eq!(refused.class, Class::Wait, "it may be tried again");
        let words = format!("2 transfers below {root}, and 1 are granted");
        assert!(refused.what.contains(&words), "{refused}");
    }
    drop(under_way);
}

/// What an interrupted copy to `a` has left.
fn interrupted(scene: &Scene) -> String {
    let words = "cannot receive: failed to read from stream";
    scene.target.pools.fail_receive(&Failing { after_bytes: 150_000, status: "1", words });
    assert_ne!(scene.replicate("a", &[]).ended().code(), 0);
    match list(&mut laptop(scene), "a").unwrap() {
        TargetState::Present { resume_token: Some(token), .. } => token,
        other => panic!("nothing is left: {other:?}"),
    }
}

#[test]
fn nothing_partly_received_is_given_up_without_the_word_for_it() {
    let scene = Scene::new(&[]);
    let token = interrupted(&scene);
    let refused = abort(&mut laptop(&scene), "a", &token);
    assert!(refused.what.contains("may not give up what is partly received"), "{refused}");
    assert!(refused.remedy.unwrap().contains("\"abort-partial\""));
    assert!(scene.target.pools.partly_received("backup/in/a").is_some());
    scene.grants(&["--allow", "abort-partial"]);
    let mut peer = laptop(&scene);
    let dataset = "a".parse().unwrap();
    peer.say(&Message::Abort { dataset, token });
    assert!(matches!(peer.hear(), Some(Message::Aborted)));
    assert!(scene.target.pools.partly_received("backup/in/a").is_none());
}

#[test]
fn below_a_root_that_is_another_dataset_by_now_nothing_is_listed_given_up_or_received() {
    let scene = Scene::new(&["--allow", "receive-full,resume,abort-partial"]);
    let token = interrupted(&scene);
    scene.target.pools.becomes_another("backup/in");
    let refusals = [
        list(&mut laptop(&scene), "a").unwrap_err(),
        abort(&mut laptop(&scene), "a", &token),
        asked(&mut laptop(&scene), not_first("b")).unwrap_err(),
    ];
    for (refused, wish) in refusals.into_iter().zip(["list", "give up", "send a full stream to"]) {
        let words = format!("client laptop may not {wish}");
        assert!(refused.what.starts_with(&words), "{refused}");
        assert!(refused.what.contains("backup/in has guid 7919"), "{refused}");
    }
    assert!(scene.target.pools.partly_received("backup/in/a").is_some());
    assert!(!scene.target.pools.exists("backup/in/b"));
}

#[test]
fn the_root_is_looked_at_again_before_each_of_many_steps() {
    let scene = Scene::new(&[]);
    scene.slow_source();
    scene.source.pools.snapshot("tank/a", "three", b"three");
    let copy = scene.replicate("a", &[]);
    let second = "backup/in/a@one";
    wait_for("the first step", || scene.target.pools.exists(second).then_some(()));
    scene.target.pools.becomes_another("backup/in");
    copy.ended().failed_with(2, &["may not send an incremental stream", "has guid 7919"]);
    assert!(!scene.target.pools.exists("backup/in/a@three"));
}

#[test]
fn a_grant_that_is_narrowed_holds_for_the_next_wish_of_a_session_that_is_there() {
    let scene = Scene::new(&[]);
    let mut peer = laptop(&scene);
    assert_eq!(list(&mut peer, "a").unwrap(), TargetState::Absent);
    scene.grants(&["--allow", "receive-incremental"]);
    let refused = asked(&mut peer, full_stream("a", "s", 7)).unwrap_err();
    assert!(refused.what.contains("receive-full is not granted to it"), "{refused}");
}

/// A clone of a snapshot that the client may name, below `root`.
fn clone_of(target: &str, origin: &str) -> Stream {
    let guid = Guid(3);
    let (dataset, snapshot) = (origin.parse().unwrap(), "t".parse().unwrap());
    match full_stream(target, "s", 7) {
        Stream::Dataset(stream) => Stream::Dataset(DatasetStream {
            from: Some(guid),
            origin: Some(Box::new(CloneOf { dataset, snapshot, guid })),
            ..stream
        }),
        Stream::Pipe => unreachable!("it is for a dataset"),
    }
}

#[test]
fn a_clone_makes_a_dataset_and_is_granted_as_such_below_one_root() {
    let (target, source) = (Host::new(), Host::source());
    for root in ["backup/a", "backup/b"] {
        target.pools.dataset(root, "filesystem");
        target.pools.dataset(&format!("{root}/o"), "filesystem");
        target.pools.snapshot_with_guid(&format!("{root}/o"), "t", 3, b"origin");
    }
    let key = source.key();
    for (root, prefix, words) in
        [("backup/a", "a", "receive-full"), ("backup/b", "b", "receive-incremental,resume")]
    {
        let grant = ["--root", root, "--prefix", prefix, "--allow", words, "--datasets", "2"];
        target.run(&[&["keys", "trust", "client", "db1", &key], &grant[..]].concat()).succeeded();
    }
    let serve = ["serve", "--listen", "127.0.0.1:0", "-v", "--cache", "16MiB"];
    let server = Server::start(&mut target.command(&serve));
    let ask = |stream| asked(&mut peer_of(&source, server.address), stream);
    let refused = ask(clone_of("b/c", "b/o")).unwrap_err();
    assert!(refused.what.contains("receive-full is not granted"), "{refused}");
    let refused = ask(clone_of("a/c", "b/o")).unwrap_err();
    assert!(refused.what.contains("backup/b/o does not lie below backup/a"), "{refused}");
    let refused = ask(clone_of("a/c", "x/o")).unwrap_err();
    assert!(refused.what.contains("its names begin with"), "{refused}");
    let refused = ask(clone_of("a/deep/c", "a/o")).unwrap_err();
    assert!(refused.what.contains("may not create what is missing above"), "{refused}");
    ask(clone_of("a/c", "a/o")).unwrap();
    // It counts as what it makes.
    let refused = ask(clone_of("a/d", "a/o")).unwrap_err();
    assert!(refused.what.contains("3 datasets below backup/a"), "{refused}");
}

#[test]
fn a_property_arrives_where_it_is_granted_and_is_refused_before_any_data_where_not() {
    let scene = Scene::new(&["--properties", "compression,com.example:owner"]);
    let (source, target) = (&scene.source.pools, &scene.target.pools);
    source.set("tank/a", "compression", "zstd-3");
    source.set("tank/a", "com.example:owner", "it is \"mine\" = yes");
    source.set("tank/a", "com.example:other", "x");
    let refused = scene.replicate("a", &["--properties", "compression,com.example:other"]).ended();
    refused.failed_with(
        2,
        &[
            "the property com.example:other is not granted to it below backup/in",
            "leave it out of --properties",
            "properties = [\"com.example:other\", \"com.example:owner\", \"compression\"]",
        ],
    );
    assert!(!target.exists("backup/in/a"), "something was received");
    let both = ["--properties", "compression,com.example:owner"];
    scene.replicate("a", &both).ended().succeeded();
    let set = |property| target.property("backup/in/a", property);
    assert_eq!(set("compression").as_deref(), Some("zstd-3"));
    assert_eq!(set("com.example:owner").as_deref(), Some("it is \"mine\" = yes"));
    assert_eq!((set("com.example:other"), set("readonly").as_deref()), (None, Some("on")));
    // A change arrives with the next snapshot, and what was set there by hand stays.
    target.set("backup/in/a", "readonly", "off");
    source.set("tank/a", "compression", "lz4");
    source.snapshot("tank/a", "two", b"two");
    source.snapshot("tank/a", "three", b"three");
    scene.replicate("a", &both).ended().succeeded();
    assert_eq!(set("compression").as_deref(), Some("lz4"));
    assert_eq!(set("readonly").as_deref(), Some("off"));
    let calls = target.calls();
    let receives = calls.iter().filter(|call| call[0] == "receive");
    let bring = |call: &&Vec<String>| call.contains(&"compression=lz4".to_owned());
    assert_eq!(receives.filter(bring).count(), 1, "they are said once a run");
}

#[test]
fn what_never_travels_is_refused_whatever_a_client_says() {
    let scene = Scene::new(&["--properties", "compression"]);
    for (name, value, told) in [
        ("mountpoint", "/etc", "'mountpoint' cannot be taken along"),
        ("exec", "on", "'exec' cannot be taken along"),
        ("compression", "a b", "its value is none"),
        ("compression", "zstd", ""),
    ] {
        let mut stream = full_stream("a", "s", 7);
        let Stream::Dataset(dataset) = &mut stream else { unreachable!() };
        dataset.properties.insert(name.to_owned(), value.to_owned());
        match asked(&mut laptop(&scene), stream) {
            Ok(()) => assert!(told.is_empty()),
            Err(refused) => {
                assert_eq!(refused.class, Class::Refused, "{refused}");
                assert!(!told.is_empty() && refused.what.contains(told), "{refused}");
            }
        }
    }
    let unknown = scene.replicate("a", &["--properties", "exec"]).ended();
    unknown.failed_with(3, &["'exec' cannot be taken along; these can: aclinherit, aclmode"]);
}
