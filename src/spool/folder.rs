//! The folders that breakpoint files stand in, and what dead processes have left.
//!
//! Made inside the folder that the user gave, and locked while they are used. One for what the
//! cache has no room for has a name of its own, and is removed at the end; what a process that was
//! killed leaves of it is known by that name, and by a lock that nobody holds. One for a stream
//! that shall outlive its process is called after its record file, and stays until that goes. What
//! must never happen here: a file removed that this program did not make, or one that a living
//! process uses.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::breakpoint::identity::FileId;
use crate::units::Bytes;

/// How the names of folders begin that go with their process; the number of the files in it
/// follows.
const FOLDER_PREFIX: &str = "zferry-spool-";

/// The same for a stream that outlives its process; the number of its record file follows.
const STREAM_PREFIX: &str = "zferry-stream-";

/// How the names of the files in it begin.
pub(super) const SEGMENT_PREFIX: &str = "segment-";

/// How often another name is tried. A folder may be taken for a leftover before it is locked.
const ATTEMPTS: usize = 8;

/// A locked folder. Dropped, it is removed with all that this program has put there, unless it is
/// that of a stream.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    id: FileId,
    outlives: bool,
    /// Held for its lock.
    _locked: File,
}

/// What was found of processes that have died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Folders that were removed.
    pub folders: usize,
    /// The length of the files in them.
    pub bytes: Bytes,
}

impl Folder {
    /// Makes a folder inside of `parent`, which must be there.
    pub fn create(parent: &Path) -> io::Result<Folder> {
        for _ in 0..ATTEMPTS {
            let id = new_id()?;
            let path = parent.join(format!("{FOLDER_PREFIX}{id}"));
            DirBuilder::new().mode(0o700).create(&path)?;
            if let Some(locked) = lock(&path)? {
                return Ok(Folder { path, id, outlives: false, _locked: locked });
            }
        }
        Err(io::Error::other("somebody removes every folder that is made there"))
    }

    /// Where that of a stream is, by the number of its record file.
    pub fn of_stream(parent: &Path, id: FileId) -> PathBuf {
        parent.join(format!("{STREAM_PREFIX}{id}"))
    }

    /// Makes the folder of a stream; it is durable under its name when this returns.
    pub fn create_for_stream(path: &Path) -> io::Result<Folder> {
        DirBuilder::new().mode(0o700).create(path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Folder::open_stream(path)
    }

    /// Opens the folder of a stream whose process has died.
    ///
    /// Fails with `ResourceBusy` where somebody uses it.
    pub fn open_stream(path: &Path) -> io::Result<Folder> {
        let id = stream_id(path).ok_or(io::ErrorKind::InvalidFilename)?;
        let locked = lock(path)?.ok_or(io::ErrorKind::ResourceBusy)?;
        Ok(Folder { path: path.to_owned(), id, outlives: true, _locked: locked })
    }

    /// Whether it stays when this process ends.
    pub fn outlives(&self) -> bool {
        self.outlives
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number in its name, which the entries of its files bear too.
    pub fn id(&self) -> FileId {
        self.id
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.outlives
            && let Err(error) = empty_and_remove(&self.path)
        {
            tracing::warn!("remove {}: {error}", self.path.display());
        }
    }
}

/// Removes the folder of a stream that nobody needs any more; that it is gone is as good.
pub(super) fn remove_stream(path: &Path) {
    if stream_id(path).is_none() {
        return;
    }
    match empty_and_remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("remove {}: {error}", path.display());
        }
        _ => {}
    }
}

/// A number that no other file or folder has.
pub(super) fn new_id() -> io::Result<FileId> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(FileId(id))
}

fn stream_id(path: &Path) -> Option<FileId> {
    FileId::parse(path.file_name()?.to_str()?.strip_prefix(STREAM_PREFIX)?)
}

/// Finds out whether breakpoint files can be made inside of `parent`, and removes those that dead
/// processes of the same user have left there.
pub fn prepare(parent: &Path) -> io::Result<Leftovers> {
    let probe = Folder::create(parent)?;
    let owner = fs::symlink_metadata(probe.path())?.uid();
    let mut found = Leftovers::default();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let is_ours =
            entry.file_name().to_str().is_some_and(|name| name.starts_with(FOLDER_PREFIX));
        if is_ours && entry.path() != probe.path() {
            found.add(remove_if_left(&entry.path(), owner));
        }
    }
    Ok(found)
}

impl Leftovers {
    fn add(&mut self, removed: io::Result<Option<Bytes>>) {
        match removed {
            Ok(Some(bytes)) => {
                self.folders += 1;
                self.bytes.0 = self.bytes.0.saturating_add(bytes.0);
            }
            Ok(None) => {}
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("breakpoint files of a dead process stay: {error}"),
        }
    }
}

/// The length of what was removed; `None` where somebody uses the folder, or another user owns it.
fn remove_if_left(path: &Path, owner: u32) -> io::Result<Option<Bytes>> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("remove {}: {error}", path.display()))
    };
    let metadata = fs::symlink_metadata(path).map_err(named)?;
    if !metadata.is_dir() || metadata.uid() != owner {
        return Ok(None);
    }
    let Some(_locked) = lock(path).map_err(named)? else { return Ok(None) };
    empty_and_remove(path).map(Some).map_err(named)
}

/// Locks a folder; `None` where another has, or where it is gone.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // Another may have had the lock, and removed the folder, before we got it.
    let is_there = fs::symlink_metadata(path).is_ok_and(|found| {
        file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (found.dev(), found.ino()))
    });
    Ok(is_there.then_some(file))
}

/// Removes our files in a folder, and then the folder, if nothing else is in it.
fn empty_and_remove(path: &Path) -> io::Result<Bytes> {
    let mut bytes = Bytes(0);
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(SEGMENT_PREFIX)) {
            bytes.0 = bytes.0.saturating_add(entry.metadata()?.len());
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(path)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What a process that was killed leaves: the folder without its lock.
    fn leave(parent: &Path) -> PathBuf {
        let folder = Folder::create(parent).unwrap();
        let path = folder.path().to_owned();
        drop(folder);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("segment-00000001"), [7; 5000]).unwrap();
        path
    }

    #[test]
    fn a_folder_is_private_and_gone_at_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(parent.path()).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        fs::write(folder.path().join("segment-00000001"), b"x").unwrap();
        drop(folder);
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn leftovers_of_the_dead_are_removed_and_folders_of_the_living_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = Folder::create(parent.path()).unwrap();
        fs::write(living.path().join("segment-00000001"), b"x").unwrap();
        leave(parent.path());
        let found = prepare(parent.path()).unwrap();
        assert_eq!(found, Leftovers { folders: 1, bytes: Bytes(5000) });
        assert_eq!(names(parent.path()).len(), 1);
        assert!(living.path().join("segment-00000001").exists());
    }

    #[test]
    fn what_this_program_did_not_make_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = leave(parent.path());
        fs::write(path.join("letter"), b"mine").unwrap();
        fs::write(parent.path().join("segment-00000001"), b"mine").unwrap();
        fs::write(parent.path().join("zferry-spool-notes"), b"mine").unwrap();
        std::os::unix::fs::symlink("/etc", parent.path().join("zferry-spool-link")).unwrap();
        assert_eq!(prepare(parent.path()).unwrap(), Leftovers::default());
        assert_eq!(fs::read(path.join("letter")).unwrap(), b"mine");
        assert_eq!(names(parent.path()).len(), 4);
    }

    #[test]
    fn the_folder_of_a_stream_outlives_its_process_and_everybody_who_clears_up() {
        let parent = tempfile::tempdir().unwrap();
        let path = Folder::of_stream(parent.path(), FileId([7; 16]));
        let folder = Folder::create_for_stream(&path).unwrap();
        assert!(Folder::create_for_stream(&path).is_err(), "made twice");
        let busy = Folder::open_stream(&path).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        fs::write(path.join("segment-00000001"), b"x").unwrap();
        drop(folder);
        assert_eq!(prepare(parent.path()).unwrap(), Leftovers::default());
        assert_eq!(Folder::open_stream(&path).unwrap().id(), FileId([7; 16]));
        assert!(path.join("segment-00000001").exists());
        remove_stream(&path);
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn only_the_folder_of_a_stream_is_removed_as_one() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["mine", "zferry-stream-mine"] {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            remove_stream(&path);
            assert!(path.exists());
            let strange = Folder::open_stream(&path).unwrap_err();
            assert_eq!(strange.kind(), io::ErrorKind::InvalidFilename);
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        assert!(prepare(Path::new("/proc")).is_err());
        assert!(prepare(Path::new("/nowhere/at/all")).is_err());
    }
}
