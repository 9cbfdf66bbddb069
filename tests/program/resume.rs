//! Copies that are interrupted and go on: from ZFS's own resume token, in a new run or by
//! themselves.
//!
//! After each, the target holds what the source holds, nothing is held that need not be, and no
//! more was sent twice than what had not reached the target.

use std::time::Duration;

use zferry::error::Class;
use zferry::listing::TargetState;
use zferry::protocol::frame::Codec;
use zferry::protocol::message::{Message, Stream};

use crate::support::host::{
    Ended, Running, Server, replicate, replicate_for, wait_for, wait_for_words, zferry_on,
};
use crate::support::peer::{Peer, full_stream};
use crate::support::stand_in::{Failing, StandIn};

/// Bytes of which no two stretches are alike.
fn content(seed: u64) -> Vec<u8> {
    (0..300_000u64).flat_map(|place| (place * 0x9E37_79B9 + seed).to_le_bytes()).collect()
}

/// Two hosts: tank/a with @s1 to @s3 on the first.
struct Hosts {
    source: StandIn,
    target: StandIn,
}

const FLAGS: &[&str] = &["--cache", "16MiB", "--block-size", "64KiB"];

impl Hosts {
    fn new(kind: &str) -> Hosts {
        let (source, target) = (StandIn::new(), StandIn::new());
        source.dataset("tank/a", kind);
        for number in 1..=3 {
            source.snapshot("tank/a", &format!("s{number}"), &content(number));
        }
        Hosts { source, target }
    }

    fn serve(&self) -> Server {
        Server::serve(&self.target, &["--cache", "16MiB"])
    }

    /// A run that tells every failure.
    fn replicate(&self, server: &Server, flags: &[&str]) -> Running {
        replicate(&self.source, "tank/a", &server.url("a"), &[FLAGS, flags].concat())
    }

    /// A run that tries again.
    fn replicate_for(&self, seconds: u32, server: &Server, flags: &[&str]) -> Running {
        let (url, flags) = (server.url("a"), [FLAGS, flags].concat());
        replicate_for(seconds, &self.source, "tank/a", &url, &flags)
    }

    /// Demands that the target holds these snapshots, as the source has them, and nothing is left
    /// of how they came there.
    #[track_caller]
    fn are_alike(&self, snapshots: &[&str]) {
        assert_eq!(self.target.snapshots("backup/a"), snapshots);
        for snapshot in snapshots {
            let (ours, theirs) = (format!("tank/a@{snapshot}"), format!("backup/a@{snapshot}"));
            assert_eq!(self.target.guid(&theirs), self.source.guid(&ours), "{snapshot}");
            assert!(self.target.content(&theirs) == self.source.content(&ours), "{snapshot}");
        }
        assert_eq!(self.target.partly_received("backup/a"), None);
        self.nothing_is_held();
    }

    #[track_caller]
    fn nothing_is_held(&self) {
        for snapshot in self.source.snapshots("tank/a") {
            assert_eq!(self.source.holds(&format!("tank/a@{snapshot}")), [""; 0], "@{snapshot}");
        }
    }

    /// Interrupts a copy of `snapshot` after a part of it, and returns what the target has then.
    fn interrupted(&self, server: &Server, snapshot: &str) -> Vec<u8> {
        self.target.fail_receive(&Failing { after_bytes: 700_000, status: "KILL", words: "" });
        let flags = ["--snapshot", snapshot];
        self.replicate(server, &flags).ended().failed_with(2, &["killed by signal 9"]);
        self.target.partly_received("backup/a").expect("a part")
    }

    /// The calls of `zfs send` that sent something.
    fn sends(&self) -> Vec<String> {
        let calls = self.source.calls().into_iter();
        let sends = calls.filter(|call| call[0] == "send" && !call.contains(&"-n".to_owned()));
        sends.map(|call| call.join(" ")).collect()
    }

    /// How many bytes were received that came from a second `zfs send`, from what it was asked.
    fn resumed_at(&self) -> Vec<usize> {
        let calls = self.sends().into_iter();
        let tokens = calls.filter_map(|call| Some(call.strip_prefix("send -t ")?.to_owned()));
        let offset = |token: String| {
            let token: zferry::token::Token = token.parse().unwrap();
            usize::try_from(token.offset).unwrap()
        };
        tokens.map(offset).collect()
    }
}

#[track_caller]
fn told(ended: Ended) -> String {
    String::from_utf8(ended.succeeded().stdout).unwrap()
}

/// Slow enough to be caught in the middle: some 6 MB/s.
fn slow(host: &StandIn) {
    host.slow_send(64 << 10, Duration::from_millis(10));
}

fn at_full_speed(host: &StandIn) {
    host.slow_send(64 << 20, Duration::ZERO);
}

#[track_caller]
fn wait_for_a_part(hosts: &Hosts) {
    wait_for("a part of the snapshot", || {
        hosts.target.partly_received("backup/a").filter(|part| part.len() > 300_000)
    });
}

#[test]
fn a_first_copy_goes_on_in_the_next_run_where_it_was_cut() {
    for kind in ["filesystem", "volume"] {
        let hosts = Hosts::new(kind);
        let server = hosts.serve();
        let part = hosts.interrupted(&server, "s1");
        assert_eq!(part.len(), 700_000 - 624);
        assert_eq!(hosts.source.holds("tank/a@s1").len(), 1, "what is needed to go on is not held");
        let told = told(hosts.replicate(&server, &["--no-snapshot"]).ended());
        assert!(told.contains("3 streams") && told.contains("683.6 KiB had been sent"), "{told}");
        hosts.are_alike(&["s1", "s2", "s3"]);
        // Not a byte that the target had was sent again.
        assert_eq!(hosts.resumed_at(), [part.len()]);
        assert_eq!(hosts.sends().len(), 4, "{:?}", hosts.sends());
        assert_eq!(hosts.target.property("backup/a", "readonly").as_deref(), Some("on"));
        let receives: Vec<_> =
            hosts.target.calls().into_iter().filter(|call| call[0] == "receive").collect();
        assert_eq!(receives[1].join(" "), "receive -s -u -- backup/a");
    }
}

#[test]
fn an_incremental_goes_on_where_it_was_cut_with_snapshot_and_base_held() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.replicate(&server, &["--snapshot", "s1"]).ended().succeeded();
    let part = hosts.interrupted(&server, "s2");
    for snapshot in ["tank/a@s1", "tank/a@s2"] {
        assert_eq!(hosts.source.holds(snapshot).len(), 1, "{snapshot}");
    }
    hosts.replicate(&server, &["--snapshot", "s2"]).ended().succeeded();
    hosts.are_alike(&["s1", "s2"]);
    assert_eq!(hosts.resumed_at(), [part.len()]);
}

#[test]
fn an_encrypted_source_goes_on_raw_and_a_clear_part_is_refused() {
    let hosts = Hosts::new("filesystem");
    hosts.source.encrypt("tank/a");
    let server = hosts.serve();
    hosts.interrupted(&server, "s1");
    hosts.replicate(&server, &["--no-snapshot"]).ended().succeeded();
    hosts.are_alike(&["s1", "s2", "s3"]);

    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.interrupted(&server, "s1");
    hosts.source.encrypt("tank/a");
    let words = ["not raw, but tank/a is encrypted", "zfs receive -A backup/a"];
    hosts.replicate(&server, &["--no-snapshot"]).ended().failed_with(2, &words);
    assert!(hosts.resumed_at().is_empty());
}

#[test]
fn a_snapshot_that_was_renamed_meanwhile_is_finished_under_its_new_name() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.interrupted(&server, "s1");
    hosts.source.rename("tank/a@s1", "tank/a@kept");
    hosts.replicate(&server, &["--snapshot", "kept"]).ended().succeeded();
    hosts.are_alike(&["kept"]);
}

#[test]
fn a_killed_client_is_followed_by_one_that_goes_on() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    slow(&hosts.source);
    let client = hosts.replicate(&server, &["--snapshot", "s1"]);
    wait_for_a_part(&hosts);
    client.signal("KILL");
    drop(client);
    at_full_speed(&hosts.source);
    // The server may still be busy with the end of the first one: that is nobody's trouble.
    let ended = hosts.replicate_for(60, &server, &["--no-snapshot"]).ended().succeeded();
    assert_eq!(ended.stderr, "", "somebody was bothered");
    hosts.are_alike(&["s1", "s2", "s3"]);
    assert!(hosts.resumed_at()[0] > 300_000, "{:?}", hosts.resumed_at());
}

#[test]
fn a_killed_server_is_followed_by_one_that_knows_no_session_and_the_copy_goes_on() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    slow(&hosts.source);
    let client = hosts.replicate_for(60, &server, &["--no-snapshot"]);
    wait_for_a_part(&hosts);
    let address = server.address.to_string();
    server.running.signal("KILL");
    drop(server);
    at_full_speed(&hosts.source);
    let words = ["serve", "--listen", &address, "--plain", "--root", "backup", "--cache", "16MiB"];
    let _server = Server::start(&mut zferry_on(&hosts.target, &words));
    let ended = client.ended().succeeded();
    assert_eq!(ended.stderr.matches("interrupted, tried again").count(), 1, "{}", ended.stderr);
    let told = told(ended);
    assert!(told.contains("tank/a@s3 -> ") && told.contains("had been sent before"), "{told}");
    hosts.are_alike(&["s1", "s2", "s3"]);
    assert!(hosts.resumed_at()[0] > 300_000, "{:?}", hosts.resumed_at());
}

#[test]
fn a_copy_within_one_host_rides_through_too() {
    let host = StandIn::new();
    host.dataset("tank/a", "filesystem");
    host.snapshot("tank/a", "s", &content(1));
    host.fail_receive(&Failing { after_bytes: 700_000, status: "KILL", words: "" });
    let flags = ["--no-snapshot", "--cache", "16MiB"];
    let ended = replicate_for(60, &host, "tank/a", "backup/b", &flags).ended().succeeded();
    assert_eq!(ended.stderr.matches("tried again").count(), 1, "{}", ended.stderr);
    assert!(host.content("backup/b@s") == content(1));
    assert_eq!(host.holds("tank/a@s"), [""; 0]);
}

#[test]
fn one_run_takes_one_snapshot_however_often_it_is_cut() {
    let hosts = Hosts::new("filesystem");
    hosts.source.write("tank/a", &content(4));
    let server = hosts.serve();
    hosts.target.fail_receive(&Failing { after_bytes: 700_000, status: "KILL", words: "" });
    let ended = hosts.replicate_for(60, &server, &["--newest-only"]).ended().succeeded();
    assert_eq!(ended.stderr.matches("interrupted, tried again").count(), 1, "{}", ended.stderr);
    let taken = hosts.source.snapshots("tank/a").into_iter().find(|name| name.len() > 2);
    assert_eq!(hosts.source.snapshots("tank/a").len(), 4);
    hosts.are_alike(&[&taken.unwrap()]);
    assert_eq!(hosts.resumed_at(), [700_000 - 624]);
}

#[test]
fn what_a_person_must_mend_is_told_at_once_and_so_is_a_server_that_was_never_there() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    let words = "cannot receive new filesystem stream: permission denied";
    hosts.target.fail_receive(&Failing { after_bytes: 1000, status: "1", words });
    let ended = hosts.replicate_for(3600, &server, &["--no-snapshot"]).ended();
    let ended = ended.failed_with(2, &["permission denied"]);
    assert!(!ended.stderr.contains("tried again"), "{}", ended.stderr);
    let url = server.url("a");
    drop(server);
    let ended = replicate_for(3600, &hosts.source, "tank/a", &url, &["--no-snapshot"]).ended();
    let ended = ended.failed_with(2, &["no connection to"]);
    assert!(!ended.stderr.contains("tried again"), "{}", ended.stderr);
}

#[test]
fn a_signal_ends_a_client_that_waits_for_its_next_attempt() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    let words = "cannot receive new filesystem stream: out of space";
    hosts.target.fail_receive(&Failing { after_bytes: 700_000, status: "1", words });
    let client = hosts.replicate_for(3600, &server, &["--no-snapshot"]);
    wait_for_words(&client, "interrupted, tried again");
    client.signal("INT");
    client.ended().failed_with(2, &["out of space", "make room in backup"]);
}

#[test]
fn a_part_of_another_datasets_snapshot_is_refused_by_name_and_left_alone() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    let part = hosts.interrupted(&server, "s1");
    let other = StandIn::new();
    other.dataset("tank/other", "filesystem");
    other.snapshot("tank/other", "s", b"other");
    for policy in ["ask", "abort-and-restart"] {
        let flags = ["--no-snapshot", "--on-dead-token", policy];
        let guid = format!("it belongs to tank/a@s1 (guid {})", hosts.source.guid("tank/a@s1"));
        let words = [&guid, "not to tank/other", "zfs receive -A backup/a"];
        replicate(&other, "tank/other", &server.url("a"), &flags).ended().failed_with(2, &words);
    }
    assert_eq!(hosts.target.partly_received("backup/a"), Some(part));
    hosts.replicate(&server, &["--snapshot", "s1"]).ended().succeeded();
    hosts.are_alike(&["s1"]);
}

#[test]
fn a_part_whose_snapshot_is_gone_is_given_up_only_on_order() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.replicate(&server, &["--snapshot", "s1"]).ended().succeeded();
    let part = hosts.interrupted(&server, "s2");
    hosts.source.destroy("tank/a@s2");
    let words = ["@s2 (guid ", "no longer exists on the source", "zfs receive -A backup/a; then"];
    hosts.replicate(&server, &["--no-snapshot"]).ended().failed_with(2, &words);
    assert_eq!(hosts.target.partly_received("backup/a"), Some(part));

    let flags = ["--no-snapshot", "--on-dead-token", "abort-and-restart"];
    let ended = hosts.replicate(&server, &flags).ended().succeeded();
    assert!(ended.stderr.contains("it is given up, as --on-dead-token says"), "{}", ended.stderr);
    hosts.are_alike(&["s1", "s3"]);
    let aborts = |call: &Vec<String>| call.join(" ") == "receive -A -- backup/a";
    assert_eq!(hosts.target.calls().iter().filter(|call| aborts(call)).count(), 1);
}

#[test]
fn a_part_whose_base_is_gone_is_given_up_only_on_order() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.replicate(&server, &["--snapshot", "s1"]).ended().succeeded();
    hosts.replicate(&server, &["--snapshot", "s2"]).ended().succeeded();
    hosts.interrupted(&server, "s3");
    hosts.source.destroy("tank/a@s2");
    let words = ["@s3 (guid ", "builds on guid ", "--on-dead-token abort-and-restart"];
    hosts.replicate(&server, &["--no-snapshot"]).ended().failed_with(2, &words);
    // Given up, it is as it was before: the base is still gone.
    let flags = ["--no-snapshot", "--on-dead-token", "abort-and-restart"];
    let words = ["backup/a has gone its own way", "zfs rollback -r backup/a@s1"];
    hosts.replicate(&server, &flags).ended().failed_with(2, &words);
    assert_eq!(hosts.target.snapshots("backup/a"), ["s1", "s2"]);
    assert_eq!(hosts.target.partly_received("backup/a"), None);
}

#[test]
fn an_interrupted_first_copy_whose_snapshot_is_gone_begins_at_nothing() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.interrupted(&server, "s1");
    hosts.source.destroy("tank/a@s1");
    let flags = ["--no-snapshot", "--on-dead-token", "abort-and-restart"];
    hosts.replicate(&server, &flags).ended().succeeded();
    hosts.are_alike(&["s2", "s3"]);
}

#[test]
fn a_server_gives_up_nothing_but_what_it_has_listed() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    let part = hosts.interrupted(&server, "s1");
    let dataset = || "a".parse().unwrap();
    let mut peer = Peer::greet(server.address);
    peer.say(&Message::List { dataset: dataset() });
    let Some(Message::Listed { target: TargetState::Present { resume_token, .. }, .. }) =
        peer.hear()
    else {
        panic!("nothing listed");
    };
    let token = resume_token.expect("a token");
    let other = token.replacen("1-", "1-0", 1);
    peer.say(&Message::Abort { dataset: dataset(), token: other });
    let refusal = peer.refusal();
    assert!(refusal.what.contains("has changed since it was listed"), "{refusal}");
    assert_eq!(hosts.target.partly_received("backup/a"), Some(part));
    let mut peer = Peer::greet(server.address);
    peer.say(&Message::Abort { dataset: dataset(), token });
    assert_eq!(peer.hear(), Some(Message::Aborted));
    assert!(!hosts.target.exists("backup/a"));
}

#[test]
fn a_server_takes_a_rest_only_where_a_part_is_and_a_whole_only_where_none_is() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    let ask = |resumed: bool| {
        let mut stream = full_stream("a", "s1", hosts.source.guid("tank/a@s1"));
        let Stream::Dataset(dataset) = &mut stream else { unreachable!() };
        (dataset.resumed, dataset.first) = (resumed, !resumed);
        let mut peer = Peer::greet(server.address);
        let _lane = peer.lane(0, peer.secret);
        peer.ask(stream, Codec::Raw);
        peer.refusal()
    };
    let refusal = ask(true);
    assert_eq!(refusal.class, Class::Interrupted);
    assert!(refusal.what.contains("no partly received snapshot any more"), "{refusal}");
    hosts.interrupted(&server, "s1");
    let before = hosts.target.calls().len();
    let refusal = ask(false);
    assert_eq!(refusal.class, Class::Refused);
    assert!(refusal.what.contains("backup/a contains partially-complete state"), "{refusal}");
    assert!(hosts.target.calls()[before..].iter().all(|call| call[0] != "receive"));
}

#[test]
fn a_target_that_gained_a_snapshot_is_refused_before_anything_is_sent() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.replicate(&server, &["--snapshot", "s1"]).ended().succeeded();
    hosts.interrupted(&server, "s2");
    hosts.target.snapshot("backup/a", "own", b"own");
    let words = ["newest snapshot of the target is @own", "zfs destroy backup/a@own"];
    hosts.replicate(&server, &["--snapshot", "s2"]).ended().failed_with(2, &words);
    assert!(hosts.resumed_at().is_empty());
    hosts.target.destroy("backup/a@own");
    hosts.replicate(&server, &["--snapshot", "s2"]).ended().succeeded();
    hosts.are_alike(&["s1", "s2"]);
}

#[test]
fn holds_of_a_run_that_died_after_the_last_byte_are_released_by_the_next() {
    // Whether the next run has nothing to do or goes on to another snapshot.
    for goal in ["s2", "s3"] {
        let hosts = Hosts::new("filesystem");
        let server = hosts.serve();
        hosts.replicate(&server, &["--snapshot", "s1"]).ended().succeeded();
        hosts.source.pause_before("release", Duration::from_secs(10));
        let client = hosts.replicate(&server, &["--snapshot", "s2"]);
        let is_release = |call: &Vec<String>| call[0] == "release" && call[3] == "tank/a@s2";
        wait_for("the last step", || hosts.source.calls().into_iter().find(is_release));
        client.signal("KILL");
        drop(client);
        for snapshot in ["tank/a@s1", "tank/a@s2"] {
            assert_eq!(hosts.source.holds(snapshot).len(), 1, "{snapshot}");
        }
        hosts.replicate_for(60, &server, &["--snapshot", goal]).ended().succeeded();
        hosts.nothing_is_held();
        assert_eq!(hosts.target.snapshots("backup/a").last().unwrap(), goal);
    }
}

#[test]
fn what_a_killed_run_had_held_for_later_steps_is_let_go_by_one_that_leaves_them_out() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.replicate(&server, &["--snapshot", "s1"]).ended().succeeded();
    hosts.source.snapshot("tank/a", "s4", b"the newest");
    hosts.source.slow_send(100_000, Duration::from_millis(100));
    let client = hosts.replicate(&server, &["--no-snapshot"]);
    wait_for("the hold for a later step", || {
        (hosts.source.holds("tank/a@s3").len() == 1).then_some(())
    });
    client.signal("KILL");
    drop(client);
    let newest = ["--no-snapshot", "--newest-only"];
    hosts.replicate_for(60, &server, &newest).ended().succeeded();
    hosts.nothing_is_held();
    assert!(hosts.target.exists("backup/a@s4") && !hosts.target.exists("backup/a@s3"));
}

#[test]
fn a_cut_before_anything_is_kept_begins_again() {
    let hosts = Hosts::new("filesystem");
    let server = hosts.serve();
    hosts.target.fail_receive(&Failing { after_bytes: 300, status: "KILL", words: "" });
    hosts.replicate_for(60, &server, &["--no-snapshot"]).ended().succeeded();
    hosts.are_alike(&["s1", "s2", "s3"]);
    assert!(hosts.resumed_at().is_empty());
}
