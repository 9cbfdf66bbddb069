//! Both sides of a copy are pruned after it, by the library and over a session of its own.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sys::backend::Backend;
use sys::control::Runtime;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;
use zferry::client::prune::{Pruned, Retention, after_copy};
use zferry::client::{Dial, Session};
use zferry::dataset::Guid;
use zferry::retention::{Rules, Template, Why};
use zferry::server::{self, Destination, Door, Incoming, Lasts, Pool, Stopping};
use zferry::zfs::Zfs;

use crate::support::small;
use crate::support::stand_in::StandIn;

/// What `after_copy` does to `tank/a` and `backup/a` of a host.
fn pruned(host: &StandIn, retention: Retention) -> Pruned {
    pruned_after(None, host, retention)
}

/// The same, right after a snapshot has arrived.
fn pruned_after(arrived: Option<Guid>, host: &StandIn, retention: Retention) -> Pruned {
    let (sockets, incoming) = unbounded_channel();
    let (stop, stopping) = watch::channel(Stopping::No);
    let zfs = Zfs::at(host.program());
    let pool = Pool { zfs: zfs.clone(), root: "backup".parse().unwrap(), only: None };
    let server = thread::spawn(move || {
        let options = server::Options {
            engine: small::engine(),
            connections_max: 1,
            lasts: Lasts::Forever,
            grace: Duration::ZERO,
            records: None,
            onlooker: None,
        };
        let peer = "this host".to_owned();
        let incoming = Incoming::Handed { sockets: incoming, peer, door: Door::Plain };
        let runtime = Runtime::new(Backend::Threads).unwrap();
        runtime.block_on(server::serve(incoming, Destination::Pool(pool), options, stopping))
    });
    let (told, pruned) = mpsc::channel();
    thread::spawn(move || {
        let options = small::client(Duration::ZERO);
        let runtime = Runtime::new(Backend::Threads).unwrap();
        let done = runtime.block_on(async {
            let mut session = Session::open(Dial::Local(sockets), &options).await.unwrap();
            let (source, target) = ("tank/a".parse().unwrap(), "a".parse().unwrap());
            let ends = (&source, &target);
            let done = after_copy(&mut session, &zfs, ends, &retention, arrived).await;
            session.close().await;
            done.unwrap()
        });
        told.send(done).unwrap();
    });
    let done = pruned.recv_timeout(Duration::from_secs(60)).expect("a pruning that ends");
    stop.send_replace(Stopping::Drained);
    drop(server.join().unwrap());
    done
}

fn keeping(rules: &str) -> Rules {
    Rules { keep: rules.parse().unwrap(), template: Template::default() }
}

fn of_day(day: u64) -> String {
    format!("zferry_2020-01-{day:02}T00:00:00Z")
}

/// `tank/a` with the days 1 to 9, `backup/a` with those of them.
fn both_with(there: &[u64]) -> StandIn {
    let host = StandIn::new();
    for (dataset, days) in [("tank/a", (1..=9).collect()), ("backup/a", there.to_vec())] {
        host.dataset(dataset, "filesystem");
        for day in days {
            host.snapshot_with_guid(dataset, &of_day(day), day, b"x");
        }
    }
    host
}

fn days_of(host: &StandIn, dataset: &str) -> Vec<u64> {
    let names = host.snapshots(dataset);
    (1..=31).filter(|day| names.contains(&of_day(*day))).collect()
}

#[test]
fn each_side_is_pruned_by_rules_of_its_own_around_the_newest_that_both_have() {
    let host = both_with(&[1, 2, 3, 5, 6]);
    let retention = Retention {
        source: Some(keeping("last=1")),
        target: Some(keeping("last=3")),
        dry_run: false,
    };
    let done = pruned(&host, retention);
    // 7 to 9 were not copied; 6 is what the next copy builds on.
    assert_eq!(days_of(&host, "tank/a"), [6, 7, 8, 9]);
    assert_eq!(days_of(&host, "backup/a"), [3, 5, 6]);
    let (source, target) = (done.source.unwrap(), done.target.unwrap());
    assert_eq!((source.count, source.failure), (5, None));
    assert_eq!(source.kept[&Why::NewestCommon], 1);
    assert_eq!(source.kept[&Why::NotConfirmed], 2);
    assert_eq!((target.count, target.destroyed.len(), target.failure), (2, 2, None));
}

#[test]
fn what_has_just_arrived_is_asked_for_on_neither_side() {
    let host = both_with(&[1, 2, 3, 5, 6]);
    let retention = Retention {
        source: Some(keeping("last=1")),
        target: Some(keeping("last=3")),
        dry_run: false,
    };
    pruned_after(Some(Guid(6)), &host, retention);
    assert_eq!(days_of(&host, "tank/a"), [6, 7, 8, 9]);
    assert_eq!(days_of(&host, "backup/a"), [3, 5, 6]);
    let called: Vec<String> = host.calls().into_iter().map(|call| call[0].clone()).collect();
    // What the root is; then on each side what there is, what goes, and what is left.
    assert_eq!(called, ["get", "list", "destroy", "list", "list", "destroy", "list"]);
}

#[test]
fn a_dry_run_of_both_sides_says_all_and_destroys_nothing() {
    let host = both_with(&[1, 2, 3]);
    let done = pruned(
        &host,
        Retention {
            source: Some(keeping("last=1")),
            target: Some(keeping("last=1")),
            dry_run: true,
        },
    );
    assert_eq!((done.source.unwrap().count, done.target.unwrap().count), (2, 2));
    assert_eq!((days_of(&host, "tank/a").len(), days_of(&host, "backup/a").len()), (9, 3));
}

#[test]
fn where_both_have_nothing_in_common_nothing_goes_on_either_side() {
    for there in [&[][..], &[21, 22, 23]] {
        let host = both_with(there);
        let done = pruned(
            &host,
            Retention {
                source: Some(keeping("last=1")),
                target: Some(keeping("last=1")),
                dry_run: false,
            },
        );
        for report in [done.source.unwrap(), done.target.unwrap()] {
            assert_eq!(report.count, 0);
            assert!(report.failure.unwrap().what.contains("no snapshot in common"));
        }
        assert_eq!(
            (days_of(&host, "tank/a").len(), host.snapshots("backup/a").len()),
            (9, there.len())
        );
    }
}

#[test]
fn a_side_without_rules_is_left_alone() {
    let host = both_with(&[1, 2, 3]);
    assert_eq!(pruned(&host, Retention::default()), Pruned::default());
    assert!(host.calls().is_empty(), "nobody was asked anything");
    let done = pruned(&host, Retention { target: Some(keeping("last=1")), ..Retention::default() });
    assert!(done.source.is_none() && done.target.is_some());
    assert_eq!((days_of(&host, "tank/a").len(), days_of(&host, "backup/a")), (9, vec![3]));
}
