//! `zferry replicate` to `zferry serve`, and within one host: what ends up where, and by which
//! calls of `zfs`.

use std::thread;
use std::time::{Duration, Instant};

use zferry::dataset::DatasetName;
use zferry::error::Side;
use zferry::zfs::Zfs;
use zferry::zfs::hold::Tag;

use crate::support::host::{Running, Server, replicate, wait_for, zferry_on};
use crate::support::stand_in::StandIn;

/// Bytes of which no two stretches are alike; longer than a pipe and some blocks.
fn content(seed: u64) -> Vec<u8> {
    (0..300_000u64).flat_map(|place| (place * 0x9E37_79B9 + seed).to_le_bytes()).collect()
}

/// Two hosts and a server on the second.
struct Pair {
    source: StandIn,
    target: StandIn,
    server: Server,
}

impl Pair {
    fn new() -> Pair {
        let (source, target) = (StandIn::new(), StandIn::new());
        let server = Server::serve(&target, &["--cache", "16MiB"]);
        Pair { source, target, server }
    }

    /// The same with tank/a on the source, and @s1 to @s3 of it.
    fn with_history() -> Pair {
        let pair = Pair::new();
        pair.source.dataset("tank/a", "filesystem");
        for number in 1..=3 {
            pair.source.snapshot("tank/a", &format!("s{number}"), &content(number));
        }
        pair
    }

    /// Replicates and returns what was said on stdout.
    #[track_caller]
    fn replicate(&self, from: &str, to: &str, flags: &[&str]) -> String {
        let flags = [&["--cache", "16MiB", "--block-size", "256KiB"], flags].concat();
        let ended = replicate(&self.source, from, &self.server.url(to), &flags).ended();
        String::from_utf8(ended.succeeded().stdout).unwrap()
    }

    /// Demands that the target holds these snapshots of the source and no others.
    #[track_caller]
    fn holds(&self, from: &str, to: &str, snapshots: &[&str]) {
        assert_eq!(self.target.snapshots(to), snapshots);
        for snapshot in snapshots {
            let (ours, theirs) = (format!("{from}@{snapshot}"), format!("{to}@{snapshot}"));
            assert_eq!(self.target.guid(&theirs), self.source.guid(&ours), "{snapshot}");
            assert!(self.target.content(&theirs) == self.source.content(&ours), "{snapshot}");
            assert_eq!(self.source.holds(&ours), [""; 0], "{ours} is still held");
        }
    }
}

/// The calls of a subcommand, each as one would type it.
fn calls(host: &StandIn, subcommand: &str) -> Vec<String> {
    let calls = host.calls().into_iter();
    calls.filter(|call| call[0] == subcommand).map(|call| call.join(" ")).collect()
}

/// The calls that move or hold something, without their options.
fn deeds(host: &StandIn) -> Vec<String> {
    let deeds = ["snapshot", "hold", "send", "receive", "release"];
    let is_estimate =
        |call: &[String]| call.iter().any(|word| word.contains('n') && word.starts_with('-'));
    let calls = host.calls().into_iter();
    calls
        .filter(|call| deeds.contains(&call[0].as_str()) && !is_estimate(call))
        .map(|call| {
            let named = call.iter().filter(|word| word.contains('@'));
            let named: Vec<_> = named.map(String::as_str).collect();
            match call[0].as_str() {
                "hold" | "release" => format!("{} {}", call[0], named.join(" ")),
                _ => format!("{} {}", call[0], call.last().unwrap()),
            }
        })
        .collect()
}

#[test]
fn a_full_copy_comes_first_and_then_what_is_new_through_all_that_is_between() {
    let pair = Pair::with_history();
    let told = pair.replicate("tank/a", "a", &["--snapshot", "s1"]);
    pair.holds("tank/a", "backup/a", &["s1"]);
    assert!(told.starts_with("tank/a@s1 -> zferry://127.0.0.1:"), "{told}");
    assert!(told.contains("/a, 1 stream: 2.3 MiB in "), "{told}");
    let told = pair.replicate("tank/a", "a", &["--no-snapshot"]);
    pair.holds("tank/a", "backup/a", &["s1", "s2", "s3"]);
    assert!(told.contains("tank/a@s3 -> ") && told.contains(", 2 streams: "), "{told}");
    assert_eq!(
        calls(&pair.source, "send").iter().filter(|call| !call.contains(" -n")).collect::<Vec<_>>(),
        [
            "send -L -c -- tank/a@s1",
            "send -L -c -i tank/a@s1 -- tank/a@s2",
            "send -L -c -i tank/a@s2 -- tank/a@s3",
        ]
    );
}

/// Whether it gets that port, or another process of this machine has it.
#[test]
fn a_server_that_is_not_told_where_to_listen_does_so_on_port_7001() {
    let host = StandIn::new();
    let words = ["serve", "--plain", "--root", "backup"];
    let server = Running::start(&mut zferry_on(&host, &words));
    let said = wait_for("the port", || Some(server.said()).filter(|said| said.contains(":7001")));
    assert!(said.contains("[::]:7001") || said.contains("0.0.0.0:7001"), "{said}");
}

#[test]
fn only_the_newest_leaves_out_what_is_between() {
    let pair = Pair::with_history();
    pair.replicate("tank/a", "a", &["--snapshot", "s1"]);
    pair.replicate("tank/a", "a", &["--no-snapshot", "--newest-only"]);
    pair.holds("tank/a", "backup/a", &["s1", "s3"]);
    pair.replicate("tank/a", "b", &["--no-snapshot", "--newest-only"]);
    pair.holds("tank/a", "backup/b", &["s3"]);
}

#[test]
fn when_the_target_has_all_there_is_nothing_to_do() {
    let pair = Pair::with_history();
    pair.replicate("tank/a", "a", &["--no-snapshot"]);
    let before = pair.target.calls().len();
    let told = pair.replicate("tank/a", "a", &["--no-snapshot"]);
    assert!(told.starts_with("tank/a@s3: nothing to do, zferry://"), "{told}");
    assert!(pair.target.calls()[before..].iter().all(|call| call[0] != "receive"));
}

#[test]
fn a_volume_is_received_as_a_volume() {
    let pair = Pair::new();
    pair.source.dataset("tank/v", "volume");
    pair.source.snapshot("tank/v", "s", &content(1));
    pair.replicate("tank/v", "v", &["--no-snapshot"]);
    pair.holds("tank/v", "backup/v", &["s"]);
    let received = "receive -s -u -o readonly=on -o volmode=none -- backup/v";
    assert_eq!(calls(&pair.target, "receive"), [received]);
}

#[test]
fn an_encrypted_dataset_travels_raw_and_nothing_is_ever_forced() {
    let pair = Pair::with_history();
    pair.source.encrypt("tank/a");
    pair.replicate("tank/a", "a", &["--snapshot", "s1"]);
    pair.replicate("tank/a", "a", &["--no-snapshot"]);
    pair.holds("tank/a", "backup/a", &["s1", "s2", "s3"]);
    assert!(calls(&pair.source, "send").iter().all(|call| call.contains(" -w ")));
    for call in pair.source.calls().into_iter().chain(pair.target.calls()) {
        assert!(!call.contains(&"-F".to_owned()), "{call:?}");
        assert!(!["destroy", "rollback"].contains(&call[0].as_str()), "{call:?}");
    }
}

#[test]
fn names_with_spaces_and_colons_arrive_as_they_are() {
    let pair = Pair::new();
    pair.source.dataset("tank/my data:1", "filesystem");
    pair.source.snapshot("tank/my data:1", "a b:c", &content(1));
    pair.replicate("tank/my data:1", "hosts/web 1/my data:1", &["--no-snapshot"]);
    pair.holds("tank/my data:1", "backup/hosts/web 1/my data:1", &["a b:c"]);
    for parent in ["backup/hosts", "backup/hosts/web 1"] {
        assert!(pair.target.exists(parent), "{parent}");
    }
}

#[test]
fn a_copy_within_one_host_needs_no_server() {
    let host = StandIn::new();
    host.dataset("tank/a", "filesystem");
    for number in 1..=2 {
        host.snapshot("tank/a", &format!("s{number}"), &content(number));
        for io in ["uring", "threads"] {
            let to = format!("backup/copies/{io}");
            let words = ["replicate", "tank/a", &to, "--no-snapshot", "--connections", "2"];
            let mut command = zferry_on(&host, &words);
            let ended = Running::start(command.args(["--io", io, "--cache", "16MiB"])).ended();
            let told = String::from_utf8(ended.succeeded().stdout).unwrap();
            assert!(told.contains(&format!("tank/a@s{number} -> {to}, 1 stream: ")), "{told}");
            assert!(host.content(&format!("{to}@s{number}")) == content(number));
        }
    }
}

#[test]
fn by_default_a_snapshot_is_taken_and_named_after_the_time() {
    let pair = Pair::new();
    pair.source.dataset("tank/a", "filesystem");
    pair.source.write("tank/a", b"as it is now");
    pair.replicate("tank/a", "a", &[]);
    let names = pair.source.snapshots("tank/a");
    let [name] = names.as_slice() else { panic!("{names:?}") };
    assert!(name.starts_with("zferry_20") && name.ends_with('Z') && name.len() == 27, "{name}");
    pair.holds("tank/a", "backup/a", &[name]);
    assert_eq!(pair.target.content(&format!("backup/a@{name}")), b"as it is now");
}

#[test]
fn a_snapshot_that_is_named_must_exist_and_none_is_taken() {
    let pair = Pair::with_history();
    pair.replicate("tank/a", "a", &["--snapshot", "s2"]);
    pair.holds("tank/a", "backup/a", &["s1", "s2"]);
    let unknown = ["--snapshot", "S3"];
    replicate(&pair.source, "tank/a", &pair.server.url("a"), &unknown)
        .ended()
        .failed_with(2, &["source: tank/a has no snapshot @S3", "s3"]);
    assert_eq!(pair.source.snapshots("tank/a"), ["s1", "s2", "s3"]);
    let neither = ["--no-snapshot", "--snapshot", "s1"];
    replicate(&pair.source, "tank/a", &pair.server.url("a"), &neither).ended().failed_with(3, &[]);
}

#[test]
fn a_snapshot_and_its_base_are_held_from_before_the_stream_until_the_target_has_it() {
    let pair = Pair::with_history();
    pair.replicate("tank/a", "a", &["--snapshot", "s1"]);
    pair.replicate("tank/a", "a", &["--snapshot", "s3"]);
    let mut deeds = deeds(&pair.source);
    let place = |deed: &str| deeds.iter().position(|found| found == deed).unwrap();
    // For the step after the one that is on its way.
    let ahead = place("hold tank/a@s3");
    assert!((place("hold tank/a@s2 tank/a@s1")..place("send tank/a@s3")).contains(&ahead));
    deeds.remove(ahead);
    assert_eq!(
        deeds,
        [
            "hold tank/a@s1",
            "send tank/a@s1",
            "release tank/a@s1",
            "hold tank/a@s2 tank/a@s1",
            "send tank/a@s2",
            "send tank/a@s3",
            "release tank/a@s2 tank/a@s1 tank/a@s3",
        ]
    );
    let tag = &calls(&pair.source, "hold")[0];
    assert!(tag.contains(" zferry:") && tag.contains(&pair.server.address.to_string()), "{tag}");
}

#[test]
fn many_small_steps_cost_a_send_a_receive_and_a_look_at_the_guid_each() {
    const STEPS: usize = 20;
    let pair = Pair::new();
    pair.source.dataset("tank/a", "filesystem");
    let names: Vec<_> = (1..=STEPS).map(|number| format!("s{number:02}")).collect();
    for name in &names {
        pair.source.snapshot("tank/a", name, name.as_bytes());
    }
    let (ours, theirs) = (pair.source.calls().len(), pair.target.calls().len());
    let began = Instant::now();
    pair.replicate("tank/a", "a", &["--no-snapshot"]);
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    pair.holds("tank/a", "backup/a", &names.iter().map(String::as_str).collect::<Vec<_>>());

    let count = |host: &StandIn, before: usize, words: &str| {
        let calls = host.calls().into_iter().skip(before).map(|call| call.join(" "));
        calls.filter(|call| call.starts_with(words)).count()
    };
    let [source, target] = [(&pair.source, ours), (&pair.target, theirs)]
        .map(|(host, before)| move |words: &str| count(host, before, words));
    let estimates = source("send -n");
    assert_eq!(source("send") - estimates, STEPS);
    // The first, and each after one that took a second, as only on a machine that is very busy.
    assert!((1..=1 + seconds).contains(&estimates), "{estimates} in {seconds} s");
    // The first for itself, then 16 at a time; 16 at a time, and the rest.
    assert_eq!((source("hold"), source("release")), (3, 2));
    // What it is and what it has: when the command begins, and for the plan.
    assert_eq!(source("list"), 4);
    assert_eq!(source("") - estimates, STEPS + 3 + 2 + 4);

    assert_eq!((target("receive"), target("get -Hp -o name,value -- guid")), (STEPS, STEPS));
    assert_eq!(target("get -Hp -o name,property,value -- guid,receive_resume_token"), 1);
    let lists = target("list");
    assert!(lists <= 3, "{lists}");
    assert_eq!(target(""), 2 * STEPS + 1 + lists);
}

#[test]
fn what_a_killed_run_has_left_held_far_before_the_goal_is_let_go_of() {
    let pair = Pair::new();
    pair.source.dataset("tank/a", "filesystem");
    let names: Vec<_> = (1..=60).map(|number| format!("s{number:02}")).collect();
    for name in &names {
        pair.source.snapshot("tank/a", name, name.as_bytes());
    }
    pair.replicate("tank/a", "a", &["--snapshot", "s20", "--newest-only"]);
    let calls = pair.source.calls();
    let tag = &calls.iter().find(|call| call[0] == "hold").unwrap()[2];
    // As many as stay held when a run dies behind them.
    for name in &names[4..20] {
        pair.source.hold(&format!("tank/a@{name}"), tag);
    }
    pair.replicate("tank/a", "a", &["--no-snapshot", "--newest-only"]);
    for name in &names {
        assert_eq!(pair.source.holds(&format!("tank/a@{name}")), [""; 0], "{name}");
    }
}

#[test]
fn many_are_held_by_one_call_and_one_that_is_gone_keeps_none_of_the_others_from_it() {
    let Pair { source: host, .. } = Pair::with_history();
    let (zfs, tag) = (Zfs::at(host.program()), Tag::of_transfer("f00d"));
    let a: DatasetName = "tank/a".parse().unwrap();
    let snap = |name: &str| name.parse().unwrap();
    let held = || ["s1", "s2"].map(|name| host.holds(&format!("tank/a@{name}")).len());
    let before = host.calls().len();
    zfs.hold(&a, &[snap("s2")], &tag).unwrap();
    zfs.hold(&a, &[snap("s1"), snap("s2")], &tag).unwrap();
    assert_eq!((held(), host.calls().len() - before), ([1, 1], 2));
    zfs.release(&a, &[snap("s2")], &tag).unwrap();
    let failed = zfs.hold(&a, &[snap("s1"), snap("none"), snap("s2")], &tag).unwrap_err();
    let failure = failed.on(Side::Source);
    assert!(failure.what.contains("'tank/a@none': dataset does not exist"), "{failure}");
    assert_eq!(held(), [1, 1]);
    zfs.release(&a, &[snap("s1")], &tag).unwrap();
    zfs.release(&a, &[snap("s1"), snap("s2")], &tag).unwrap();
    assert_eq!(held(), [0, 0]);
}

#[test]
fn a_new_target_is_made_safe_and_never_touched_again() {
    let pair = Pair::with_history();
    // Two streams of one run, and one of another.
    pair.replicate("tank/a", "a", &["--snapshot", "s2"]);
    pair.replicate("tank/a", "a", &["--snapshot", "s3"]);
    assert_eq!(
        calls(&pair.target, "receive"),
        [
            "receive -s -u -o readonly=on -o canmount=noauto -o setuid=off -o devices=off \
             -o exec=off -x mountpoint -- backup/a",
            "receive -s -u -- backup/a",
            "receive -s -u -- backup/a",
        ]
    );
    assert_eq!(pair.target.property("backup/a", "readonly").as_deref(), Some("on"));
}

#[test]
fn clients_with_datasets_of_their_own_are_served_at_once() {
    let pair = Pair::new();
    let names: Vec<_> = (0..4).map(|number| format!("tank/{number}")).collect();
    for (seed, name) in (0..).zip(&names) {
        pair.source.dataset(name, "filesystem");
        pair.source.snapshot(name, "s", &content(seed));
    }
    // Slow enough that all of them run at the same time.
    pair.source.slow_send(512 << 10, Duration::from_millis(50));
    thread::scope(|scope| {
        for name in &names {
            let to = name.replace("tank", "copies");
            scope.spawn(|| {
                let to = to;
                pair.replicate(name, &to, &["--no-snapshot", "--connections", "2"]);
            });
        }
    });
    for name in &names {
        pair.holds(name, &name.replace("tank", "backup/copies"), &["s"]);
    }
    assert_eq!(pair.server.stopped().succeeded().stderr.matches("session failed").count(), 0);
}

#[test]
fn a_second_client_for_the_same_dataset_is_told_that_it_is_busy_already() {
    let pair = Pair::with_history();
    pair.source.slow_send(256 << 10, Duration::from_millis(200));
    let url = pair.server.url("a");
    let first = replicate(&pair.source, "tank/a", &url, &["--snapshot", "s1"]);
    wait_for("the first transfer", || pair.target.partly_received("backup/a"));
    let other = StandIn::new();
    other.dataset("tank/b", "filesystem");
    other.snapshot("tank/b", "s", b"other");
    replicate(&other, "tank/b", &url, &["--no-snapshot"])
        .ended()
        .failed_with(4, &["target: backup/a is being received from 127.0.0.1:", "already"]);
    first.ended().succeeded();
    pair.holds("tank/a", "backup/a", &["s1"]);
}

#[test]
fn a_zfs_that_takes_longer_than_a_dead_peer_does_not_cost_the_session() {
    let pause = Duration::from_secs(23);
    thread::scope(|scope| {
        for (at_source, subcommand) in [(true, "hold"), (true, "release"), (false, "receive")] {
            scope.spawn(move || {
                let pair = Pair::with_history();
                let host = if at_source { &pair.source } else { &pair.target };
                host.pause_before(subcommand, pause);
                pair.replicate("tank/a", "a", &["--snapshot", "s2"]);
                pair.holds("tank/a", "backup/a", &["s1", "s2"]);
            });
        }
    });
}

#[test]
fn a_snapshot_without_content_is_a_snapshot_too() {
    let pair = Pair::new();
    pair.source.dataset("tank/a", "filesystem");
    pair.source.snapshot("tank/a", "s", b"");
    pair.replicate("tank/a", "a", &["--no-snapshot", "--compress", "zstd", "--connections", "3"]);
    pair.holds("tank/a", "backup/a", &["s"]);
}

#[test]
fn a_quiet_client_says_nothing_at_all() {
    let pair = Pair::with_history();
    let url = pair.server.url("a");
    let ended = replicate(&pair.source, "tank/a", &url, &["--no-snapshot", "--quiet"]).ended();
    let ended = ended.succeeded();
    assert_eq!((ended.stdout.as_slice(), ended.stderr.as_str()), (b"".as_slice(), ""));
}
