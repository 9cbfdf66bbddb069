//! The `zfs` command as a typed thing: arguments in, listings, streams and failures out.
//!
//! The only door to ZFS. Every call is an `execve` with a list of arguments and an environment of
//! two variables, and every answer is read in its `-Hp` form. What must never happen here: a shell,
//! a name that was not checked by `dataset`, and any of `-F` or `rollback`. Snapshots are destroyed
//! in `destroy` alone, where no option is ever given.
//!
//! Exit statuses of `zfs` are too coarse to be believed: after a stream the caller reads the
//! target back ([`Zfs::arrived`], [`Zfs::target_below`]) and decides from that.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::dataset::DatasetName;
use crate::error::{Class, Failure, Side};
use crate::process::Ended;

pub mod allow;
pub mod below;
pub(crate) mod command;
pub mod destroy;
pub mod estimate;
pub mod failure;
pub mod hold;
pub mod leftover;
mod listing;
#[doc(hidden)]
pub mod printed;
mod properties;
pub mod prune;
pub mod receive;
pub mod send;
pub mod snapshot;
mod texts;
mod tree;
pub mod version;
pub mod written;

/// Where `zfs` lies on systems that keep it out of a user's `PATH`.
const USUAL_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A `zfs` command that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zfs {
    program: PathBuf,
    /// The `PATH` that it runs with: it starts helpers of its own, such as `mount`.
    path: OsString,
}

/// What can go wrong with a call of `zfs`; [`ZfsError::on`] makes a [`Failure`] of it.
#[derive(Debug, thiserror::Error)]
pub enum ZfsError {
    /// There is no `zfs` command.
    #[error("there is no zfs command in {searched}")]
    NotFound {
        /// The folders that were searched, separated by colons.
        searched: String,
    },
    /// It could not be started or talked to.
    #[error("cannot run '{call}': {source}")]
    Run {
        /// The command as one would type it.
        call: String,
        /// Why not.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("{call}: {}", failure::words(.ended))]
    Failed {
        /// The command as one would type it.
        call: String,
        /// How it ended, with its words.
        ended: Ended,
    },
    /// Its output is longer than any true answer.
    #[error("'{call}' printed more than {bytes_max} bytes")]
    TooLong {
        /// The command as one would type it.
        call: String,
        /// Where we stopped to read.
        bytes_max: usize,
    },
    /// Its output is not what it prints in the versions that we know.
    #[error("'{call}' printed something that zferry cannot read: {line:?}")]
    Unreadable {
        /// The command as one would type it.
        call: String,
        /// The line in question, empty if one is missing.
        line: String,
    },
    /// The pool of a dataset is not imported on this host.
    #[error("the pool of {dataset} does not exist on this host")]
    NoPool {
        /// The dataset that was asked for.
        dataset: DatasetName,
    },
    /// A property of ours has a value that means nothing.
    #[error("{dataset} has {property}={value:?}, which is neither on nor off")]
    Property {
        /// The dataset; it may have inherited it.
        dataset: DatasetName,
        /// Its name.
        property: &'static str,
        /// What it says.
        value: String,
    },
    /// Too many datasets to name them all in one call, and only one call is atomic.
    #[error("the names of {datasets} datasets do not fit into one call of zfs snapshot")]
    TooMany {
        /// How many there are.
        datasets: usize,
    },
    /// A dataset was to be made outside of the folder that it must be made in.
    #[error("{dataset} does not lie below {root}")]
    Outside {
        /// The dataset that was asked for.
        dataset: DatasetName,
        /// Where it must lie.
        root: DatasetName,
    },
}

impl Zfs {
    /// Finds `zfs` in `PATH`, then in the folders that administrators' programs lie in.
    pub fn find() -> Result<Zfs, ZfsError> {
        Zfs::find_in(&search_path())
    }

    /// The `zfs` command at `program`: for tests and for systems with several of them.
    pub fn at(program: impl Into<PathBuf>) -> Zfs {
        Zfs { program: program.into(), path: search_path() }
    }

    /// Where it lies.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn find_in(path: &OsStr) -> Result<Zfs, ZfsError> {
        std::env::split_paths(path)
            // An empty or relative entry means wherever we happen to stand, perhaps as root.
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join("zfs"))
            .find(|program| is_executable(program))
            .map(|program| Zfs { program, path: path.to_owned() })
            .ok_or_else(|| ZfsError::NotFound { searched: path.to_string_lossy().into_owned() })
    }
}

fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for folder in USUAL_FOLDERS {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(folder);
    }
    path
}

fn is_executable(program: &Path) -> bool {
    let executable =
        |file: std::fs::Metadata| file.is_file() && file.permissions().mode() & 0o111 != 0;
    program.metadata().is_ok_and(executable)
}

impl ZfsError {
    /// The failure that this is, when it happened on `side`.
    pub fn on(self, side: Side) -> Failure {
        let what = self.to_string();
        match self {
            ZfsError::NotFound { .. } => Failure::new(side, Class::Machine, what).with_remedy(
                "install zfsutils-linux (Debian, Ubuntu) or zfs (Fedora, RHEL, Arch, Alpine), or \
                 add its folder to PATH",
            ),
            ZfsError::Failed { call, ended } => failure::of_call(side, &call, &ended),
            ZfsError::Run { .. } => Failure::new(side, Class::Machine, what),
            ZfsError::TooLong { .. } | ZfsError::Unreadable { .. } => {
                Failure::new(side, Class::Zfs, what)
            }
            ZfsError::NoPool { dataset } => {
                let pool = crate::dataset::typed(dataset.pool());
                Failure::new(side, Class::Refused, what)
                    .with_remedy(format!("check the name, or import the pool: zpool import {pool}"))
            }
            ZfsError::Property { dataset, property, .. } => {
                let dataset = crate::dataset::typed(dataset.as_str());
                Failure::new(side, Class::Refused, what).with_remedy(format!(
                    "zfs set {property}=off {dataset}, or zfs inherit {property} {dataset}"
                ))
            }
            ZfsError::Outside { .. } => Failure::new(side, Class::Refused, what),
            ZfsError::TooMany { .. } => Failure::new(side, Class::Refused, what).with_remedy(
                "exclude nothing, so that the whole tree is snapshotted at once, or copy branches \
                 of it by jobs of their own",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn zfs_is_the_first_executable_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, mode| {
            let folder = folder.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("zfs"), "").unwrap();
            fs::set_permissions(folder.join("zfs"), Permissions::from_mode(mode)).unwrap();
            folder
        };
        let (text, first, second) = (place("text", 0o644), place("a", 0o755), place("b", 0o755));
        fs::create_dir_all(folder.path().join("folder/zfs")).unwrap();
        // The second one again, by a way that depends on where we stand.
        let up = "../".repeat(std::env::current_dir().unwrap().components().count());
        let relative = PathBuf::from(up).join(second.strip_prefix("/").unwrap());
        assert!(relative.join("zfs").exists());
        let path = [relative, folder.path().join("folder"), text, first.clone(), second];
        let found = Zfs::find_in(&std::env::join_paths(path).unwrap()).unwrap();
        assert_eq!(found.program(), first.join("zfs"));
    }

    #[test]
    fn a_missing_zfs_names_the_package() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Zfs::find_in(folder.path().as_os_str()).unwrap_err().on(Side::Target);
        assert_eq!((failure.side, failure.class), (Side::Target, Class::Machine));
        assert!(failure.what.contains(folder.path().to_str().unwrap()));
        assert!(failure.remedy.unwrap().contains("zfsutils-linux"));
    }

    #[test]
    fn the_folders_of_administrators_are_searched_last() {
        let path = search_path().into_string().unwrap();
        assert!(path.ends_with("/usr/local/sbin:/usr/sbin:/sbin"), "{path}");
    }
}
