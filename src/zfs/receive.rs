//! Starts `zfs receive`, and makes the place that it receives into.
//!
//! Where the data's way ends. What must never happen here: `-F`, which rolls back and destroys; a
//! mount, which could hide a live folder of the target host; a receive without `-s`, which throws
//! everything away when it is cut. The one thing that is ever given up is the state of a receive
//! that was interrupted, and only by its name ([`Zfs::abort_receive`]).

use std::os::fd::OwnedFd;
use std::process::Stdio;

use super::command::call;
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, Kind};
use crate::process::{Process, Stderr};

/// What a dataset is made with. Nobody may change what is received: a changed target refuses the
/// next incremental. The rest is for the one who makes a filesystem visible later, perhaps in a
/// hurry: its programs are another host's, and whoever is root there could have left one that makes
/// root of everybody here, or a device node that opens a disk of this host.
///
/// A copy of `/etc` or `/usr` must not be mounted over the real one at the next boot. `-x` makes
/// the mountpoint that of the parent whatever the stream says. `sharenfs` and `sharesmb` need no
/// such word: properties come in packages alone, which `stream` turns away, and a filesystem that
/// is not mounted is not shared.
const FILESYSTEM: [&str; 12] = [
    "-o",
    "readonly=on",
    "-o",
    "canmount=noauto",
    "-o",
    "setuid=off",
    "-o",
    "devices=off",
    "-o",
    "exec=off",
    "-x",
    "mountpoint",
];

/// Without a device node nobody looks into a volume by himself: udev would search it for
/// filesystems, partitions and parts of LVM groups and arrays, and set those up on this host. The
/// options of filesystems would fail the receive.
const VOLUME: [&str; 4] = ["-o", "readonly=on", "-o", "volmode=none"];

/// The folders above a target are places in a tree of names and nothing else.
const SAFE_FOR_PARENTS: [&str; 4] = ["-o", "canmount=off", "-o", "mountpoint=none"];

impl Zfs {
    /// Starts to receive one stream into `dataset`; the descriptor is where the stream goes in.
    ///
    /// `makes_dataset` says that the stream makes the dataset, a `kind`: then it gets safe
    /// properties. They are set only once, for an operator may have changed them since, and a
    /// receive that sets them again would undo that.
    pub fn receive(
        &self,
        dataset: &DatasetName,
        kind: Kind,
        makes_dataset: bool,
    ) -> Result<(Process, OwnedFd), ZfsError> {
        let arguments = arguments(dataset, kind, makes_dataset);
        let mut command = self.command(&arguments);
        // It says there what we find out by reading the target back.
        command.stdout(Stdio::null());
        Process::reading(command, Stderr::Kept)
            .map_err(|source| ZfsError::Run { call: call(&arguments), source })
    }

    /// Throws away what an interrupted receive has left in `dataset`: a part of one snapshot, and
    /// the dataset itself where it has nothing else. No snapshot is touched.
    pub fn abort_receive(&self, dataset: &DatasetName) -> Result<(), ZfsError> {
        self.ask(&["receive", "-A", "--", dataset.as_str()]).map(drop)
    }

    /// Makes datasets that are missing above a target, from the top.
    ///
    /// What is made is never mounted and leads to no mountpoint; its children get mountpoints only
    /// when an operator sets them.
    pub fn create_parents(&self, missing: &[DatasetName]) -> Result<(), ZfsError> {
        missing.iter().try_for_each(|parent| self.create_parent(parent))
    }

    fn create_parent(&self, parent: &DatasetName) -> Result<(), ZfsError> {
        let mut arguments = vec!["create", "-u"];
        arguments.extend(SAFE_FOR_PARENTS);
        arguments.extend(["--", parent.as_str()]);
        let answer = self.run(&arguments)?;
        // Another transfer into the same tree may have been faster.
        if answer.ended.success() || answer.failed_with("dataset already exists") {
            Ok(())
        } else {
            Err(answer.failed())
        }
    }
}

/// What `zfs` is called with to receive into `dataset`.
pub fn arguments(dataset: &DatasetName, kind: Kind, makes_dataset: bool) -> Vec<String> {
    let mut arguments = vec!["receive", "-s", "-u"];
    match kind {
        _ if !makes_dataset => {}
        Kind::Filesystem => arguments.extend(FILESYSTEM),
        Kind::Volume => arguments.extend(VOLUME),
    }
    arguments.extend(["--", dataset.as_str()]);
    arguments.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_target_is_made_safe_after_its_kind() {
        let safe = "-o readonly=on -o canmount=noauto -o setuid=off -o devices=off -o exec=off \
                    -x mountpoint";
        for (kind, first, expected) in [
            (Kind::Filesystem, true, format!("receive -s -u {safe} -- b/a")),
            (Kind::Volume, true, "receive -s -u -o readonly=on -o volmode=none -- b/a".to_owned()),
            (Kind::Filesystem, false, "receive -s -u -- b/a".to_owned()),
            (Kind::Volume, false, "receive -s -u -- b/a".to_owned()),
        ] {
            assert_eq!(arguments(&"b/a".parse().unwrap(), kind, first).join(" "), expected);
        }
    }
}
