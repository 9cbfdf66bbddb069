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
use crate::dataset::property::Properties;
use crate::dataset::{DatasetName, Kind};
use crate::process::{Process, Stderr};

/// What a dataset is made with. Nobody may change what is received: a changed target refuses the
/// next incremental. The rest is for the one who makes a filesystem visible later, perhaps in a
/// hurry: its programs are another host's, and whoever is root there could have left one that makes
/// root of everybody here, or a device node that opens a disk of this host.
///
/// A copy of `/etc` or `/usr` must not be mounted over the real one at the next boot. `-x` makes
/// the mountpoint that of the parent whatever the stream says. `sharenfs` and `sharesmb` need no
/// such word: in a stream properties come in packages alone, which `stream` turns away, those that
/// come beside it are of a list without these, and a filesystem that is not mounted is not shared.
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

/// One stream that is received, and what becomes of the dataset by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// The dataset that it goes into.
    pub dataset: DatasetName,
    /// What that is.
    pub kind: Kind,
    /// Whether the stream makes it: then it gets safe properties. They are set only once, for an
    /// operator may have changed them since, and a receive that sets them again would undo that.
    pub makes_dataset: bool,
    /// The snapshot that it is made a clone of, in full. Without it ZFS would look for one of the
    /// guid that the stream names in all of the pool; with it, it takes this one or nothing.
    pub origin: Option<String>,
    /// What was set at the source and shall be here, whether or not the stream makes the dataset:
    /// whoever has named these wants a change of them to arrive too. Ours are not among them.
    pub properties: Properties,
}

impl Receive {
    /// A stream that brings nothing but data.
    pub fn new(dataset: DatasetName, kind: Kind, makes_dataset: bool) -> Receive {
        let (origin, properties) = (None, Properties::default());
        Receive { dataset, kind, makes_dataset, origin, properties }
    }
}

impl Zfs {
    /// Starts to receive one stream; the descriptor is where it goes in.
    pub fn receive(&self, receive: &Receive) -> Result<(Process, OwnedFd), ZfsError> {
        let arguments = arguments(receive);
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
        let answer = self.run(&parent_arguments(parent))?;
        // Another transfer into the same tree may have been faster.
        if answer.ended.success() || answer.failed_with("dataset already exists") {
            Ok(())
        } else {
            Err(answer.failed())
        }
    }
}

/// What `zfs` is called with to make a dataset that is missing above a target.
pub fn parent_arguments(parent: &DatasetName) -> Vec<String> {
    let mut arguments = vec!["create", "-u"];
    arguments.extend(SAFE_FOR_PARENTS);
    arguments.extend(["--", parent.as_str()]);
    arguments.into_iter().map(str::to_owned).collect()
}

/// What `zfs` is called with to receive a stream.
pub fn arguments(receive: &Receive) -> Vec<String> {
    let Receive { dataset, kind, makes_dataset, origin, properties } = receive;
    let mut arguments = vec!["receive".to_owned(), "-s".to_owned(), "-u".to_owned()];
    let mut set = |text: String| arguments.extend(["-o".to_owned(), text]);
    // A rest has its origin already: it was made with it.
    if let Some(origin) = origin.as_ref().filter(|_| *makes_dataset) {
        set(format!("origin={origin}"));
    }
    for (name, value) in properties.iter() {
        set(format!("{name}={value}"));
    }
    let safe: &[&str] = match kind {
        _ if !makes_dataset => &[],
        Kind::Filesystem => &FILESYSTEM,
        Kind::Volume => &VOLUME,
    };
    arguments.extend(safe.iter().chain(&["--", dataset.as_str()]).map(|&word| word.to_owned()));
    arguments
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
            let receive = Receive::new("b/a".parse().unwrap(), kind, first);
            assert_eq!(arguments(&receive).join(" "), expected);
        }
    }

    #[test]
    fn a_clone_is_made_of_the_snapshot_that_is_named_and_its_rest_names_none() {
        let receive = Receive {
            origin: Some("b/o@s 1".to_owned()),
            ..Receive::new("b/a".parse().unwrap(), Kind::Volume, true)
        };
        let safe = ["-o", "readonly=on", "-o", "volmode=none", "--", "b/a"];
        let made = [&["receive", "-s", "-u", "-o", "origin=b/o@s 1"][..], &safe].concat();
        assert_eq!(arguments(&receive), made);
        let rest = Receive { makes_dataset: false, ..receive };
        assert_eq!(arguments(&rest), ["receive", "-s", "-u", "--", "b/a"]);
    }

    #[test]
    fn properties_are_set_by_every_stream_that_brings_them() {
        let all = [("compression", "zstd-3"), ("com.example:note", "a=b -o x")];
        let properties = Properties::checked(all, Kind::Filesystem).unwrap();
        let later = Receive {
            properties: properties.clone(),
            ..Receive::new("b/a".parse().unwrap(), Kind::Filesystem, false)
        };
        let set = ["-o", "com.example:note=a=b -o x", "-o", "compression=zstd-3"];
        let expected = [&["receive", "-s", "-u"], &set[..], &["--", "b/a"]].concat();
        assert_eq!(arguments(&later), expected);
        let first = arguments(&Receive { makes_dataset: true, ..later });
        let both = [&set[..], &FILESYSTEM].concat();
        assert!(first.windows(both.len()).any(|words| words == both), "{first:?}");
    }
}
