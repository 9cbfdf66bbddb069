//! Whose a file is that we may not read, for whoever has to be told as whom to try again.
//!
//! For words alone: nothing is believed or refused by what is found here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::small_file;

/// A user, and what is his.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The file that was asked for, or the nearest folder above it that can be seen.
    pub path: PathBuf,
    /// What he is called; `#1000` where that is not known, which sudo takes as well.
    pub name: String,
    /// It is we ourselves.
    pub is_us: bool,
}

/// The owner of a file; of one that cannot be seen, that of the folder which hides it.
pub fn nearest(path: &Path) -> Owner {
    let seen = path.ancestors().find_map(|path| Some((path, fs::metadata(path).ok()?.uid())));
    // `/` can be seen by all.
    let (path, user) = seen.unwrap_or((Path::new("/"), 0));
    let is_us = small_file::user().is_ok_and(|us| us == user);
    Owner { path: path.to_owned(), name: name(user), is_us }
}

/// What a user is called.
pub fn name(user: u32) -> String {
    sys::probe::user_name(user).unwrap_or_else(|| format!("#{user}"))
}

/// What to do about an error of the kernel's, where it is that we are not allowed to.
pub(super) fn remedy(path: &Path, error: &io::Error) -> Option<String> {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    let owner = nearest(path);
    let shown = owner.path.display();
    if owner.is_us {
        return Some(format!("chmod u+rw {shown}"));
    }
    let what = if owner.path == path { "it".to_owned() } else { shown.to_string() };
    let name = owner.name;
    Some(format!(
        "{what} belongs to {name}: run this as that user (sudo -u {name} zferry ...), or give it \
         to another: chown USER {shown}"
    ))
}
