//! A clone as its client sends it: one stream from the snapshot that it was made of, as a clone
//! again, and gone on with as one where it was cut. In a tree, what it is made of is not pruned
//! before it is there.

use std::time::Duration;

use sys::control::Runtime;
use tokio::sync::watch;
use zferry::client::job::{CloneBase, Job, OnDeadToken, Wanted};
use zferry::client::prune::Retention;
use zferry::client::replicate::replicate;
use zferry::client::{Dial, Held, Manner, Moment, Stop, Watch};
use zferry::dataset::Guid;
use zferry::error::Failure;
use zferry::listing::{OriginSnapshot, Snapshot};
use zferry::pattern::Chosen;
use zferry::protocol::message::CloneOf;
use zferry::server::Stopping;
use zferry::units::Bytes;
use zferry::zfs::Zfs;

use crate::support::host::{self, Ended, Server};
use crate::support::small;
use crate::support::stand_in::{Failing, StandIn};

struct Nobody;

impl Watch for Nobody {
    fn begin(&mut self, _what: &str, _estimated: Option<Bytes>) {}
    fn moment(&mut self, _moment: Moment) {}
    fn end(&mut self) {}
}

fn content(seed: u64) -> Vec<u8> {
    (0..300_000u64).flat_map(|place| (place * 0x9E37_79B9 + seed).to_le_bytes()).collect()
}

/// A source with tank/o@t and its clone tank/c, of which there are two snapshots; a target that has
/// the first as backup/old@was.
fn hosts() -> (StandIn, StandIn) {
    let (source, target) = (StandIn::new(), StandIn::new());
    source.dataset("tank/o", "filesystem");
    source.snapshot("tank/o", "t", b"origin");
    source.dataset("tank/c", "filesystem");
    source.is_clone("tank/c", "tank/o@t");
    source.snapshot("tank/c", "one", &content(1));
    source.snapshot("tank/c", "two", &content(2));
    target.dataset("backup/old", "filesystem");
    target.snapshot_with_guid("backup/old", "was", source.guid("tank/o@t"), b"origin");
    (source, target)
}

fn job(source: &StandIn) -> Job {
    let guid = Guid(source.guid("tank/o@t"));
    let snapshot = Snapshot { name: "t".parse().unwrap(), guid, createtxg: 1 };
    let origin = OriginSnapshot { dataset: "tank/o".parse().unwrap(), snapshot };
    let held = CloneOf { dataset: "old".parse().unwrap(), snapshot: "was".parse().unwrap(), guid };
    Job {
        source: "tank/c".parse().unwrap(),
        target: "c".parse().unwrap(),
        target_text: "there/c".to_owned(),
        wanted: Wanted::Newest,
        intermediates: true,
        chosen: Chosen::default(),
        retention: Retention::default(),
        around: None,
        on_dead_token: OnDeadToken::Ask,
        clone_of: Some(CloneBase { origin, held }),
        properties: Vec::new(),
    }
}

/// Makes the copy, and tries again what was cut.
fn copy(source: &StandIn, server: &Server, job: &Job) -> Result<Held, Failure> {
    let options = small::client(Duration::from_secs(60));
    let dial = Dial::Network {
        name: server.address.to_string(),
        addresses: vec![server.address],
        limit: Duration::from_secs(10),
        manner: Manner::Plain,
    };
    let (_never, stop) = watch::channel(Stopping::No);
    Runtime::new(options.engine.backend).unwrap().block_on(async {
        let zfs = Zfs::at(source.program());
        let stop = &mut Stop::new(stop);
        Box::pin(replicate(&zfs, job, &dial, options, &mut Nobody, stop)).await
    })
}

fn sends(host: &StandIn) -> Vec<String> {
    let calls = host.calls().into_iter().filter(|call| call[0] == "send");
    let real = calls.filter(|call| !call.contains(&"-n".to_owned()));
    real.map(|call| call.join(" ").trim_end().to_owned()).collect()
}

#[track_caller]
fn assert_is_clone(source: &StandIn, target: &StandIn) {
    assert_eq!(target.snapshots("backup/c"), ["one", "two"]);
    assert_eq!(target.content("backup/c@two"), source.content("tank/c@two"));
    let made = |call: &Vec<String>| call[0] == "receive" && call.join(" ").contains(" origin=");
    let calls = target.calls();
    let made: Vec<_> = calls.iter().filter(|call| made(call)).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(made[0].contains(&"origin=backup/old@was".to_owned()), "{made:?}");
    assert!(made[0].contains(&"readonly=on".to_owned()), "{made:?}");
    for snapshot in ["tank/o@t", "tank/c@one", "tank/c@two"] {
        assert!(source.holds(snapshot).is_empty(), "{snapshot} is still held");
    }
}

#[test]
fn a_clone_is_sent_from_its_origin_and_then_like_any_dataset() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    copy(&source, &server, &job(&source)).unwrap();
    assert_is_clone(&source, &target);
    let first = "send -L -c -i tank/o@t -- tank/c@one";
    assert_eq!(sends(&source), [first, "send -L -c -i tank/c@one -- tank/c@two"]);
    assert!(source.calls().iter().all(|call| call[0] != "hold" || !call.join(" ").contains("/o@")));
    // The next run finds a dataset as any other, whatever it was made of.
    let again = copy(&source, &server, &job(&source)).unwrap();
    assert_eq!(again.summary.streams, 0, "{again:?}");
}

#[test]
fn a_clone_that_was_cut_is_finished_as_a_clone() {
    let (source, target) = hosts();
    let server = Server::serve(&target, &["--cache", "8MiB"]);
    target.fail_receive(&Failing { after_bytes: 1_000_000, status: "KILL", words: "" });
    copy(&source, &server, &job(&source)).unwrap();
    assert_is_clone(&source, &target);
    let sent = sends(&source);
    assert!(sent[1].starts_with("send -t 1-"), "it began anew: {sent:?}");
}

/// A host with tank/t/o, which has five snapshots, and tank/t/c, a clone of the first.
fn template() -> StandIn {
    let host = StandIn::new();
    for name in ["tank/t", "tank/t/c", "tank/t/o"] {
        host.dataset(name, "filesystem");
    }
    for name in ["tank/t", "tank/t/o"] {
        for day in 1..=5 {
            host.snapshot(name, &of_day(day), name.as_bytes());
        }
    }
    host.is_clone("tank/t/c", "tank/t/o@s_20260101-000000");
    host.snapshot("tank/t/c", &of_day(5), b"clone");
    host
}

fn of_day(day: u32) -> String {
    format!("s_2026010{day}-000000")
}

/// Copies the tree, and keeps one snapshot of each dataset at the target.
fn copy_and_prune(host: &StandIn, more: &[&str]) -> Ended {
    let flags = ["-r", "--no-snapshot", "--cache", "64MiB", "--template", "s_%Y%m%d-%H%M%S"];
    let keep = ["--keep-target", "last=1"];
    host::replicate(host, "tank/t", "backup/t", &[&flags, &keep[..], more].concat()).ended()
}

#[track_caller]
fn is_a_clone_of_what_was_pruned(host: &StandIn) {
    let calls: Vec<String> = host.calls().iter().map(|call| call.join(" ")).collect();
    let made =
        calls.iter().position(|call| call.contains("-o origin=backup/t/o@s_20260101-000000"));
    let pruned = calls.iter().position(|call| call.starts_with("destroy -- backup/t/o@"));
    assert!(made.unwrap() < pruned.unwrap(), "{calls:?}");
    assert_eq!(host.content(&format!("backup/t/c@{}", of_day(5))), b"clone");
    for name in ["backup/t", "backup/t/o", "backup/t/c"] {
        assert_eq!(host.snapshots(name), [of_day(5)], "{name}");
    }
}

#[test]
fn what_a_clone_is_made_of_is_pruned_when_the_clone_is_there() {
    for parallel in ["1", "4"] {
        let host = template();
        let told = copy_and_prune(&host, &["--json", "--parallel", parallel]).succeeded();
        is_a_clone_of_what_was_pruned(&host);
        let told = String::from_utf8(told.stdout).unwrap();
        let events: Vec<serde_json::Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let copied = |name: &str| {
            let all = events.iter().filter(|event| event["event"] == "copied");
            all.filter(|event| event["dataset"] == name).collect::<Vec<_>>()
        };
        for (name, pruned) in [("tank/t", 4), ("tank/t/o", 4), ("tank/t/c", 0)] {
            let copied = copied(name);
            assert_eq!((copied.len(), &copied[0]["pruned"]), (1, &pruned.into()), "{told}");
        }
        let done = events.last().unwrap();
        assert_eq!((&done["event"], &done["pruned"]), (&"done".into(), &8.into()), "{told}");
    }
}

#[test]
fn what_a_clone_is_still_to_be_made_of_stays_and_that_is_told() {
    let host = template();
    let flags = ["-r", "--no-snapshot", "--cache", "64MiB", "--exclude-dataset", "c"];
    host::replicate(&host, "tank/t", "backup/t", &flags).ended().succeeded();
    host.fail_send(&Failing { after_bytes: 10, status: "1", words: "Input/output error" });
    copy_and_prune(&host, &[]).failed_with(
        1,
        &[
            "zferry: tank/t/c: source: ",
            "zferry: tank/t/o: copied, but pruning failed: target: tank/t/c is still to be made",
            "1 of 3 datasets were not copied: tank/t/c; ",
            "; and pruning failed of 1: tank/t/o; ",
        ],
    );
    assert_eq!(host.snapshots("backup/t/o").len(), 5);
    assert_eq!(host.snapshots("backup/t"), [of_day(5)], "others are pruned");
    copy_and_prune(&host, &[]).succeeded();
    is_a_clone_of_what_was_pruned(&host);
}
