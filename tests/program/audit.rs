//! What a server writes of each thing that was asked of it, however little it shall say.

use zferry::protocol::message::Message;
use zferry::trust::OwnKey;
use zferry_chaos::{Ending, Fault, Plan, Proxy, Rule, Way, Who};

use crate::support::host::{Running, Server, replicate, wait_for, zferry_on};
use crate::support::peer::{Peer, control_preamble};
use crate::support::scene::Scene;
use crate::support::secure::Secure;
use crate::support::stand_in::{Failing, StandIn};

/// The lines so far, as soon as there are so many.
#[track_caller]
fn lines(server: &Server, count: usize) -> Vec<String> {
    let lines = || -> Vec<String> {
        let said = server.running.said();
        said.lines().filter(|line| line.contains("audit: ")).map(str::to_owned).collect()
    };
    wait_for("lines", || (lines().len() >= count).then_some(()));
    let lines = lines();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[track_caller]
fn says(line: &str, all: &[&str]) {
    for words in all {
        assert!(line.contains(words), "{words} is not in: {line}");
    }
}

#[test]
fn each_stream_leaves_one_line_that_says_whose_it_was_and_what_became_of_it() {
    for flags in [&[][..], &["--quiet"], &["-vv"]] {
        let scene = Scene::serving(&["--allow", "receive-full,abort-partial"], flags);
        let key = scene.source.key();
        let whose = ["client=\"laptop (127.0.0.1:", &format!("key={key}")];
        let (words, after_bytes) = ("cannot receive: out of space", 150_000);
        scene.target.pools.fail_receive(&Failing { after_bytes, status: "1", words });
        assert_ne!(scene.replicate("a", &[]).ended().code(), 0);
        let line = lines(&scene.server, 1).remove(0);
        says(&line, &whose);
        says(&line, &["audit: failed", "wish=\"full\"", "dataset=\"backup/in/a\"", "bytes="]);
        says(&line, &["snapshot=\"one\"", "seconds=", "reason=", "cannot receive: out of space"]);

        let own = OwnKey::load(&scene.source.folder.path().join("key.pem")).unwrap();
        let mut control = Secure::connect(scene.server.address, &own);
        std::io::Write::write_all(&mut control, &control_preamble()).unwrap();
        let mut peer = Peer::greet_over(Box::new(control), scene.server.address);
        let dataset = "a".parse().unwrap();
        peer.say(&Message::List { dataset });
        let Some(Message::Listed { target, .. }) = peer.hear() else { panic!("nothing listed") };
        let zferry::listing::TargetState::Present { resume_token: Some(token), .. } = target else {
            panic!("{target:?}")
        };
        peer.say(&Message::Abort { dataset: "a".parse().unwrap(), token });
        assert!(matches!(peer.hear(), Some(Message::Aborted)));
        peer.say(&Message::Bye);
        let line = lines(&scene.server, 2).remove(1);
        says(&line, &whose);
        says(&line, &["audit: given up", "wish=\"give up a part\"", "dataset=\"backup/in/a\""]);

        scene.replicate("b", &[]).ended().succeeded();
        let line = lines(&scene.server, 3).remove(2);
        says(&line, &whose);
        says(&line, &["audit: received", "wish=\"full\"", "dataset=\"backup/in/b\"", "seconds="]);
        // Records besides the 200000 bytes of its file.
        says(&line, &["snapshot=\"one\"", "bytes=200936 "]);
        assert!(!line.contains("reason"), "{line}");

        scene.source.pools.snapshot("tank/a", "two", b"two");
        scene.replicate("b", &[]).ended().failed_with(2, &["receive-incremental"]);
        let line = lines(&scene.server, 4).remove(3);
        says(&line, &whose);
        says(&line, &["audit: refused", "wish=\"incremental\"", "dataset=\"b\"", "\"two\""]);
        says(&line, &["reason=", "receive-incremental is not granted"]);
        assert!(!line.contains("bytes="), "{line}");

        scene.target.pools.becomes_another("backup/in");
        scene.replicate("b", &[]).ended().failed_with(2, &["7919"]);
        let line = lines(&scene.server, 5).remove(4);
        says(&line, &whose);
        says(&line, &["audit: refused", "wish=\"list\"", "dataset=\"backup/in/b\"", "7919"]);
    }
}

#[test]
fn nobody_who_sets_what_is_logged_can_leave_it_out() {
    let target = StandIn::new();
    let words = ["serve", "--listen", "127.0.0.1:0", "--plain", "--root", "backup"];
    let mut command = zferry_on(&target, &words);
    let server = Server::start(command.env("ZFERRY_LOG", "off,audit=off"));
    let source = StandIn::new();
    source.dataset("tank/a", "filesystem");
    source.snapshot("tank/a", "one", b"one");
    replicate(&source, "tank/a", &server.url("a"), &["--no-snapshot"]).ended().succeeded();
    let line = lines(&server, 1).remove(0);
    says(&line, &["audit: received client=\"127.0.0.1:", "dataset=\"backup/a\""]);
    assert!(!line.contains("key="), "{line}");
}

#[test]
fn a_copy_within_one_host_says_nothing_of_the_kind() {
    let host = StandIn::new();
    host.dataset("tank/a", "filesystem");
    host.snapshot("tank/a", "one", b"one");
    let words = ["replicate", "tank/a", "backup/a", "--no-snapshot", "-v"];
    let mut command = zferry_on(&host, &words);
    let ended = Running::start(&mut command).ended().succeeded();
    assert!(!ended.stderr.contains("audit"), "{}", ended.stderr);
}

#[test]
fn a_client_that_came_back_is_still_the_one_that_it_was() {
    let scene = Scene::new(&[]);
    // The first connection is the control connection, and acknowledgements come over it.
    let cut = Rule::new(Who::Any, 6000, Fault::Cut(Ending::Fin)).only(1).on(Way::Down);
    let proxy = Proxy::start(scene.server.address, &Plan::none().with(cut)).unwrap();
    scene.source.trusts(proxy.address(), &scene.target.key());
    scene.slow_source();
    let to = format!("zferry://{}/a", proxy.address());
    let words = ["replicate", "tank/a", &to, "--no-snapshot", "--retry-for", "30"];
    scene.source.run(&words).succeeded();
    let said = scene.server.running.said();
    assert!(said.contains("a client came back"), "{:?} {said}", proxy.counters());
    let line = lines(&scene.server, 2).remove(1);
    says(&line, &["audit: received", "client=\"laptop (127.0.0.1:", "wish=\"incremental\""]);
}
