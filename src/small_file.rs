//! Small files that are ours alone: keys, lists, tickets, what lies beside records.
//!
//! A file is written aside and put in its place when it is whole and durable. What must never
//! happen here: that a reader finds half of one, that somebody can read a secret because he had the
//! file open before, or that a file is believed which others have access to.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

/// For its owner alone.
pub const SECRET_MODE: u32 = 0o600;

/// What others may do with a secret: nothing.
const ANY_BY_OTHERS: u32 = 0o077;

/// Who besides its owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// In a folder with this bit nobody replaces the files of others.
const STICKY: u32 = 0o1000;

/// A file that is not in its place yet. Dropped before, it is gone.
#[derive(Debug)]
pub struct Aside {
    file: NamedTempFile,
    path: PathBuf,
}

impl Aside {
    /// Holds `bytes`, beside `path`; nobody but us can open it.
    pub fn write(path: &Path, bytes: &[u8]) -> io::Result<Aside> {
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".");
        let mut file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".new")
            .permissions(Permissions::from_mode(SECRET_MODE))
            .tempfile_in(folder_of(path))?;
        file.write_all(bytes)?;
        Ok(Aside { file, path: path.to_owned() })
    }

    /// The file itself, for its mode and owner.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Puts it in its place, where there may be a file already; durable when this returns.
    pub fn replace(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_folder(&self.path)
    }

    /// Puts it in its place, where there must be no file: [`io::ErrorKind::AlreadyExists`].
    pub fn put(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        sync_folder(&self.path)
    }
}

/// The folder that a file lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// What a file holds, which is at most `most` bytes of UTF-8; wiped when dropped. Anything else is
/// [`io::ErrorKind::InvalidData`].
pub fn read_text(file: &File, most: u64) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    file.take(most.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        let what = format!("longer than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(text)
}

/// Longer JSON is none of ours.
const JSON_BYTES_MAX: u64 = 64 << 10;

/// Writes something small as JSON, for its owner alone: whole and durable when this returns.
pub fn write_json(path: &Path, what: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(what)?;
    text.push(b'\n');
    Aside::write(path, &text)
        .and_then(Aside::replace)
        .map_err(|error| io::Error::new(error.kind(), format!("write {}: {error}", path.display())))
}

/// Reads what [`write_json`] wrote.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    read_json_up_to(path, JSON_BYTES_MAX)
}

/// The same of something that may be longer.
pub fn read_json_up_to<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> io::Result<T> {
    Ok(serde_json::from_str(&read_text(&File::open(path)?, bytes_max)?)?)
}

/// Why a file or folder is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Others have access to it: its permissions.
    Mode(u32),
    /// It is of this user, who is neither root nor we.
    Owner(u32),
}

/// Demands that nobody but `user` can have read it, nor root, who can read everything.
pub fn check_secret(metadata: &Metadata, user: u32) -> Result<(), Distrust> {
    judge(metadata.mode(), metadata.mode() & ANY_BY_OTHERS != 0, metadata.uid(), user)
}

/// Demands that nobody but `user` and root can have written it, or what lies in it if it is a
/// folder.
pub fn check_writers(metadata: &Metadata, user: u32) -> Result<(), Distrust> {
    let (mode, is_folder) = (metadata.mode(), metadata.is_dir());
    judge(mode, is_writable_by_others(mode, is_folder), metadata.uid(), user)
}

fn is_writable_by_others(mode: u32, is_folder: bool) -> bool {
    let is_sticky = is_folder && mode & STICKY != 0;
    mode & WRITABLE_BY_OTHERS != 0 && !is_sticky
}

fn judge(mode: u32, is_exposed: bool, owner: u32, user: u32) -> Result<(), Distrust> {
    if is_exposed {
        Err(Distrust::Mode(mode & 0o7777))
    } else if owner != 0 && owner != user {
        Err(Distrust::Owner(owner))
    } else {
        Ok(())
    }
}

/// The user whose rights this process has.
pub fn user() -> io::Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, for files.
    let effective = ids.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    effective.ok_or_else(|| io::Error::other("no Uid in /proc/self/status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_the_file_open_does_not_get_to_see_what_comes_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let reader = File::open(&path).unwrap();
        Aside::write(&path, b"new").unwrap().replace().unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, SECRET_MODE);
    }

    #[test]
    fn what_must_be_new_replaces_nothing_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        Aside::write(&path, b"first").unwrap().put().unwrap();
        let refused = Aside::write(&path, b"second").unwrap().put().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        drop(Aside::write(&path, b"third").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_longer_file_is_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "12345").unwrap();
        let read = |most| read_text(&File::open(&path).unwrap(), most);
        assert_eq!(*read(5).unwrap(), "12345");
        assert_eq!(read(4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn only_root_and_we_ourselves_write_what_is_believed() {
        let judge = |mode, is_folder, owner, user| {
            judge(mode, is_writable_by_others(mode, is_folder), owner, user)
        };
        assert_eq!(judge(0o644, false, 0, 1000), Ok(()));
        assert_eq!(judge(0o644, false, 1000, 1000), Ok(()));
        assert_eq!(judge(0o644, false, 1001, 1000), Err(Distrust::Owner(1001)));
        assert_eq!(judge(0o755, true, 1001, 0), Err(Distrust::Owner(1001)));
        assert_eq!(judge(0o1666, false, 0, 0), Err(Distrust::Mode(0o1666)));
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = |mode| {
            let path = folder.path().join("secret");
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            fs::metadata(&path).unwrap()
        };
        let us = user().unwrap();
        assert_eq!(metadata(0o600).uid(), us);
        assert_eq!(check_secret(&metadata(0o400), us), Ok(()));
        for mode in [0o640, 0o604, 0o660, 0o601] {
            assert_eq!(check_secret(&metadata(mode), us), Err(Distrust::Mode(mode)));
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(check_writers(&fs::metadata(folder.path()).unwrap(), us), Ok(()));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(check_writers(&fs::metadata(folder.path()).unwrap(), us).is_err());
    }
}
