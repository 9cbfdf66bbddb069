//! Drives the calls that destroy and take many snapshots against the stand-in.
//!
//! What real ZFS does with them is tried in ci/vm.

use std::thread;
use std::time::Duration;

use zferry::dataset::{DatasetName, Guid, SnapName};
use zferry::error::{Class, Side};
use zferry::listing::Snapshot;
use zferry::zfs::destroy::Destroyed;
use zferry::zfs::snapshot::Members;
use zferry::zfs::{Zfs, ZfsError};

use super::dataset;
use crate::support::stand_in::StandIn;

fn host() -> (StandIn, Zfs) {
    let host = StandIn::new();
    let zfs = Zfs::at(host.program());
    host.dataset("tank/a", "filesystem");
    for number in 1..=4 {
        host.snapshot_with_guid("tank/a", &format!("s{number}"), number, b"x");
    }
    (host, zfs)
}

fn snapshot(name: &str, guid: u64) -> Snapshot {
    Snapshot { name: name.parse().unwrap(), guid: Guid(guid), createtxg: guid }
}

/// Of `tank/a`, as it is now.
fn destroy(zfs: &Zfs, doomed: &[Snapshot]) -> Destroyed {
    let listed = zfs.candidates(&dataset("tank/a")).unwrap();
    zfs.destroy_snapshots(&dataset("tank/a"), listed, doomed)
}

fn texts(names: &[SnapName]) -> Vec<&str> {
    names.iter().map(SnapName::as_str).collect()
}

#[test]
fn a_name_that_was_given_to_another_snapshot_meanwhile_is_left_alone() {
    let (host, zfs) = host();
    let doomed = [snapshot("s1", 1), snapshot("s2", 77), snapshot("s3", 3), snapshot("gone", 5)];
    let done = destroy(&zfs, &doomed);
    assert!(done.error.is_none() && done.stay.is_empty(), "{done:?}");
    assert_eq!(texts(&done.gone), ["s1", "s3"]);
    assert_eq!(host.snapshots("tank/a"), ["s2", "s4"]);
    host.rename("tank/a@s4", "tank/a@other");
    let done = destroy(&zfs, &[snapshot("s4", 4)]);
    assert_eq!(done.stay[0].why, "it is called other now");
    assert!(host.exists("tank/a@other"));
}

#[test]
fn what_somebody_holds_in_the_last_moment_stays_and_the_rest_goes() {
    let (host, zfs) = host();
    host.pause_before("destroy", Duration::from_millis(1500));
    let doomed = [snapshot("s1", 1), snapshot("s2", 2), snapshot("s3", 3)];
    let pruning = thread::spawn(move || destroy(&zfs, &doomed));
    let is_called = || host.calls().iter().any(|call| call[0] == "destroy");
    while !is_called() {
        thread::sleep(Duration::from_millis(5));
    }
    host.hold("tank/a@s2", "in the last moment");
    let done = pruning.join().unwrap();
    assert!(done.error.is_none(), "{done:?}");
    assert_eq!(texts(&done.gone), ["s1", "s3"]);
    assert_eq!((done.stay[0].snapshot.as_str(), done.stay[0].why.as_str()), ("s2", "it is held"));
    assert_eq!(host.snapshots("tank/a"), ["s2", "s4"]);
}

#[test]
fn what_may_not_be_destroyed_is_an_error_and_not_tried_one_by_one() {
    let (host, zfs) = host();
    host.may_not_be_destroyed("tank/a");
    let doomed = [snapshot("s1", 1), snapshot("s2", 2)];
    let done = destroy(&zfs, &doomed);
    assert_eq!(done.gone, []);
    let failure = done.error.unwrap().on(Side::Target);
    assert_eq!(failure.class, Class::Machine);
    assert!(failure.what.contains("permission denied"), "{failure}");
    let calls = host.calls().into_iter().filter(|call| call[0] == "destroy");
    assert_eq!(calls.collect::<Vec<_>>(), [["destroy", "--", "tank/a@s1,s2"]]);
}

#[test]
fn what_is_to_go_and_is_nothing_asks_nobody() {
    let (host, zfs) = host();
    assert_eq!(zfs.destroy_snapshots(&dataset("tank/a"), Vec::new(), &[]).gone, []);
    assert_eq!(host.calls(), [[""; 0]; 0]);
}

#[test]
fn snapshots_of_many_datasets_are_taken_by_one_call_or_not_at_all() {
    let (host, zfs) = host();
    host.dataset("tank/a/b", "filesystem");
    host.dataset("tank/c", "volume");
    let name = "now".parse().unwrap();
    zfs.snapshot_tree(&Members::These(vec![dataset("tank/a"), dataset("tank/c")]), &name).unwrap();
    assert_eq!(host.calls(), [["snapshot", "--", "tank/a@now", "tank/c@now"]]);
    assert!(host.exists("tank/c@now") && !host.exists("tank/a/b@now"));
    let txg = |of: &str| zfs.candidates(&dataset(of)).unwrap().pop().unwrap().snapshot.createtxg;
    assert_eq!(txg("tank/a"), txg("tank/c"), "they are of one moment");
    // One of them is there already.
    let taken =
        zfs.snapshot_tree(&Members::These(vec![dataset("tank/a/b"), dataset("tank/a")]), &name);
    assert!(taken.unwrap_err().to_string().contains("no snapshots were created"));
    assert!(!host.exists("tank/a/b@now"));
    zfs.snapshot_tree(&Members::All(dataset("tank")), &"all".parse().unwrap()).unwrap();
    for dataset in ["tank", "tank/a", "tank/a/b", "tank/c"] {
        assert!(host.exists(&format!("{dataset}@all")), "{dataset}");
    }
    zfs.snapshot_tree(&Members::All(dataset("tank")), &name).unwrap_err();
    assert!(!host.exists("tank@now"));
}

#[test]
fn more_datasets_than_one_call_can_name_are_refused_before_any_is_taken() {
    let (host, zfs) = host();
    let long = |number: u32| dataset(&format!("tank/{number}/{}", "x".repeat(200)));
    let many: Vec<DatasetName> = (0..5000).map(long).collect();
    let refused =
        zfs.snapshot_tree(&Members::These(many.clone()), &"now".parse().unwrap()).unwrap_err();
    assert!(matches!(refused, ZfsError::TooMany { datasets: 5000 }), "{refused}");
    assert!(refused.on(Side::Source).remedy.unwrap().contains("whole tree"));
    assert_eq!(host.calls(), [[""; 0]; 0]);
    zfs.snapshot_tree(&Members::These(Vec::new()), &"now".parse().unwrap()).unwrap();
    assert_eq!(host.calls(), [[""; 0]; 0]);
    // So many do fit: that no such dataset exists is what `zfs` says itself.
    let fits = zfs
        .snapshot_tree(&Members::These(many[..4000].to_vec()), &"now".parse().unwrap())
        .unwrap_err();
    assert!(fits.to_string().contains("dataset does not exist"));
}
