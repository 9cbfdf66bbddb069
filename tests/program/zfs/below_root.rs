//! What `zferry::zfs` asks and makes below a root, against the stand-in and against scripts.

use zferry::dataset::Guid;
use zferry::error::Side;
use zferry::listing::TargetState;
use zferry::zfs::{Zfs, ZfsError};

use super::{dataset, host, snap};
use crate::support::executable;

#[test]
fn missing_parents_are_made_below_the_root_only() {
    let (host, zfs) = host();
    host.dataset("backup/hosts", "filesystem");
    host.dataset("backup/hosts/a", "filesystem");
    let root = dataset("backup/hosts");
    let way = |target: &str| zfs.way(&root, &dataset(target));
    let create = |target: &str| zfs.create_parents(&way(target).unwrap().unwrap().missing);
    create("backup/hosts/a/b/c/d").unwrap();
    assert!(host.exists("backup/hosts/a/b/c") && !host.exists("backup/hosts/a/b/c/d"));
    assert_eq!(host.property("backup/hosts/a/b", "mountpoint").as_deref(), Some("none"));
    assert_eq!(host.property("backup/hosts/a/b", "canmount").as_deref(), Some("off"));
    assert_eq!(host.property("backup/hosts/a", "canmount"), None, "it was there before");
    let creations = host.calls().into_iter().filter(|call| call[0] == "create").count();
    assert_eq!(creations, 2, "what exists is not tried again: it may not be ours to make");
    create("backup/hosts/a/b/c/d").unwrap();
    create("backup/hosts/x").unwrap();
    for outside in ["backup/other/x", "backup/hosts"] {
        let outside = way(outside).unwrap_err();
        assert!(matches!(outside, ZfsError::Outside { .. }), "{outside}");
    }
    let failure = zfs.create_parents(&[dataset("backup/none/a")]).unwrap_err().on(Side::Target);
    assert!(failure.what.contains("parent does not exist"), "{failure}");
}

#[test]
fn one_call_tells_what_there_is_from_a_root_down_to_a_dataset() {
    let (host, zfs) = host();
    host.dataset("backup/hosts", "filesystem");
    host.dataset("backup/hosts/a", "filesystem");
    host.becomes_another("backup/hosts");
    let way = |root: &str, target: &str| zfs.way(&dataset(root), &dataset(target)).unwrap();
    let before = host.calls().len();
    let found = way("backup/hosts", "backup/hosts/a/b c/d/e").unwrap();
    assert_eq!(found.missing, [dataset("backup/hosts/a/b c"), dataset("backup/hosts/a/b c/d")]);
    assert_eq!((found.root, found.exists, found.resume_token), (Guid(7919), false, None));
    assert_eq!(host.calls().len() - before, 1);
    let found = way("backup", "backup/hosts/a").unwrap();
    assert_eq!((found.root, found.exists, found.missing), (Guid(1), true, vec![]));
    assert_eq!(way("backup/none", "backup/none/a"), None);
    let state = zfs.target_below(&dataset("backup/hosts"), &dataset("backup/hosts/x")).unwrap();
    assert_eq!(state, Some((Guid(7919), TargetState::Absent)));
    let state = zfs.target_below(&dataset("backup/none"), &dataset("backup/none/x")).unwrap();
    assert_eq!(state, None);
    let arrived = |snapshot| {
        zfs.arrived(&dataset("backup"), &dataset("backup/hosts/a"), &snap(snapshot)).unwrap()
    };
    assert_eq!(arrived("s"), (Some(Guid(1)), None));
    let guid = host.snapshot("backup/hosts/a", "s", b"x");
    assert_eq!(arrived("s"), (Some(Guid(1)), Some(Guid(guid))));
}

#[test]
fn a_dataset_that_cannot_be_read_is_not_taken_for_one_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("zfs");
    let script = |said: &str, status: u8| {
        let rows = "printf 'r\\tguid\\t1\\nr\\treceive_resume_token\\t-\\n'";
        let text = format!("#!/bin/sh\n{rows}\necho \"{said}\" >&2\nexit {status}\n");
        executable::script(&text, &program);
        Zfs::at(&program).way(&dataset("r"), &dataset("r/a"))
    };
    assert!(!script("cannot open 'r/a': dataset does not exist", 1).unwrap().unwrap().exists);
    for (said, status) in [
        ("cannot open 'r/a': I/O error", 1),
        ("cannot open 'r/b': dataset does not exist", 1),
        ("cannot open 'r/a': dataset does not exist", 0),
        ("", 1),
    ] {
        let read = script(said, status);
        assert!(matches!(read, Err(ZfsError::Failed { .. })), "{said}: {read:?}");
    }
}
