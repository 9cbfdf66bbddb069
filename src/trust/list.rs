//! The lists that say who is trusted, as files: read with distrust, replaced whole or not at all.
//!
//! Below `clients` and `servers`, which know what the lines mean. What must never happen here:
//! that a list counts which somebody else could have written, or that a reader finds half of one.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::owner;
use crate::error::{Class, Failure, Side};
use crate::small_file::{self, Aside, Distrust, check_writers, folder_of, read_text};

/// Room for ten thousand clients.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Characters of a mistake; the rest is cut off.
const WORDS_MAX: usize = 300;

/// What a new list may be read by: it holds no secret.
const NEW_MODE: u32 = 0o644;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Others may change it, or put another in its place.
    #[error("{} can be changed by others (mode {mode:03o}), and is not believed", path.display())]
    Exposed {
        /// The file, or the folder that it lies in.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody who is neither root nor us.
    #[error("{} belongs to user {owner}, and is not believed", path.display())]
    Foreign {
        /// The file, or the folder that it lies in.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It is no file, or far longer than a list is.
    #[error("{} is no file of at most {} MiB", path.display(), FILE_BYTES_MAX >> 20)]
    NoList {
        /// What it is not.
        path: PathBuf,
    },
    /// It does not mean anything.
    #[error("{}:{mistake}", path.display())]
    Wrong {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        mistake: Mistake,
    },
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {what}")]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is there, and what would be right.
    pub what: String,
}

impl Mistake {
    /// At a range of bytes in a text.
    pub fn at(text: &str, span: &Range<usize>, what: &str) -> Mistake {
        let end = (0..=span.start.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        let before = &text[..end.unwrap_or(0)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Mistake {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: shown(what),
        }
    }
}

/// Words with what the file says in them: short, on one line, and no terminal obeys them.
fn shown(what: &str) -> String {
    let words = what.replace('\n', ", ");
    words.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(WORDS_MAX).collect()
}

/// What a text says in TOML.
pub(super) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    toml_edit::de::from_str(text)
        .map_err(|error| Mistake::at(text, &error.span().unwrap_or(0..0), error.message()))
}

/// The text of a list; empty where there is no such file.
pub fn read(path: &Path) -> Result<String, ListError> {
    let user = small_file::user();
    read_as(path, user.map_err(|error| ListError::File { path: path.to_owned(), error })?)
}

/// The same as it will be for the user whose folder it lies in, if that is a service's and root
/// asks on its behalf: only to look at it, for root must not do what such a list says.
pub fn read_for_its_owner(path: &Path) -> Result<String, ListError> {
    let failed = |error| ListError::File { path: path.to_owned(), error };
    match small_file::user().map_err(failed)? {
        0 => read_as(path, fs::metadata(folder_of(path)).map_err(failed)?.uid()),
        user => read_as(path, user),
    }
}

fn read_as(path: &Path, user: u32) -> Result<String, ListError> {
    let failed = |error| ListError::File { path: path.to_owned(), error };
    // Before it is opened: to open a pipe is to wait for its writer.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => {}
        Ok(_) => return Err(ListError::NoList { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    }
    let file = File::open(path).map_err(failed)?;
    check(path, &file.metadata().map_err(failed)?, user)?;
    // Whoever can put another link in the place of this one writes the list as well.
    let true_path = fs::canonicalize(path).map_err(failed)?;
    for folder in [folder_of(path), folder_of(&true_path)] {
        check(folder, &fs::metadata(folder).map_err(failed)?, user)?;
    }
    read_text(&file, FILE_BYTES_MAX).map(|text| text.to_string()).map_err(|error| {
        if error.kind() != io::ErrorKind::InvalidData {
            return failed(error);
        }
        let mistake = Mistake { line: 1, column: 1, what: "this is no UTF-8 text".to_owned() };
        ListError::Wrong { path: path.to_owned(), mistake }
    })
}

/// A list counts only if nobody else can have written it.
fn check(path: &Path, metadata: &Metadata, user: u32) -> Result<(), ListError> {
    check_writers(metadata, user).map_err(|why| match why {
        Distrust::Mode(mode) => ListError::Exposed { path: path.to_owned(), mode },
        Distrust::Owner(owner) => ListError::Foreign { path: path.to_owned(), owner },
    })
}

/// Puts a text in the place of a list, or makes one: durable when this returns, and whole for
/// whoever reads meanwhile. Mode and owner stay as they were.
pub fn replace(path: &Path, text: &str) -> Result<(), ListError> {
    let failed = |error| ListError::File { path: path.to_owned(), error };
    // Behind a symbolic link lies what is to be replaced, not the link.
    let path = &match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed(error)),
    };
    let written = Aside::write(path, text.as_bytes()).and_then(|aside| {
        look_like(path, aside.file())?;
        aside.replace()
    });
    written.map_err(failed)
}

/// Gives a new file the owner and mode of another, if that exists.
fn look_like(model: &Path, file: &File) -> io::Result<()> {
    let model = match fs::metadata(model) {
        Ok(model) => Some(model),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(model) = &model {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
            std::os::unix::fs::fchown(file, Some(model.uid()), Some(model.gid()))?;
        }
    }
    let mode = model.map_or(NEW_MODE, |model| model.mode() & 0o7777);
    file.set_permissions(Permissions::from_mode(mode))
}

impl ListError {
    /// The failure on one side.
    pub fn on(&self, side: Side) -> Failure {
        let class = match self {
            ListError::Wrong { .. } | ListError::NoList { .. } => Class::Usage,
            _ => Class::Machine,
        };
        let failure = Failure::new(side, class, self.to_string());
        match self {
            ListError::Exposed { path, .. } => failure.with_remedy(format!(
                "see that it says what you want, then: chmod go-w {}",
                path.display()
            )),
            ListError::Foreign { path, .. } => failure.with_remedy(format!(
                "see that it says what you want, then: chown root {}",
                path.display()
            )),
            ListError::Wrong { path, mistake } => {
                failure.with_remedy(format!("mend line {} of {}", mistake.line, path.display()))
            }
            ListError::File { path, error } => {
                let remedy = owner::remedy(path, error);
                Failure { remedy, ..failure }
            }
            ListError::NoList { .. } => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_place_in_a_text_is_told_as_editors_count() {
        let text = "a\nü = x\n";
        let place = |at: usize| {
            let mistake = Mistake::at(text, &(at..at), "wrong");
            (mistake.line, mistake.column)
        };
        // The ü is two bytes; the second is inside of it.
        let places = [place(0), place(1), place(2), place(3), place(4), place(7), place(99)];
        assert_eq!(places, [(1, 1), (1, 2), (2, 1), (2, 1), (2, 2), (2, 5), (3, 1)]);
    }

    #[test]
    fn what_others_can_write_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        assert_eq!(read(&path).unwrap(), "", "no file is an empty list");
        replace(&path, "x").unwrap();
        assert_eq!(read(&path).unwrap(), "x");
        for mode in [0o664, 0o646, 0o622] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = read(&path).unwrap_err();
            assert!(matches!(refused, ListError::Exposed { .. }), "{refused}");
            let failure = refused.on(Side::Target);
            assert!(failure.remedy.unwrap().ends_with(&format!("chmod go-w {}", path.display())));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let refused = read(&path).unwrap_err();
        assert!(refused.to_string().starts_with(folder.path().to_str().unwrap()), "{refused}");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(read(&path).unwrap(), "x");
    }

    #[test]
    fn what_is_no_list_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        assert!(matches!(read(folder.path()), Err(ListError::NoList { .. })));
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(read(&path), Err(ListError::NoList { .. })));
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(read(&path), Err(ListError::Wrong { .. })));
    }

    #[test]
    fn a_list_is_replaced_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        replace(&path, "one").unwrap();
        assert_eq!(mode(), NEW_MODE);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let reader = File::open(&path).unwrap();
        replace(&path, "two").unwrap();
        assert_eq!((mode(), fs::read_to_string(&path).unwrap()), (0o640, "two".to_owned()));
        assert_eq!(io::read_to_string(reader).unwrap(), "one", "it was not written over");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_goes_on_to_lead_to_the_list() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, file) = (here.path().join("clients.toml"), there.path().join("list"));
        replace(&file, "one").unwrap();
        symlink(&file, &link).unwrap();
        replace(&link, "two").unwrap();
        assert_eq!(read(&link).unwrap(), "two");
        fs::set_permissions(here.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(read(&link), Err(ListError::Exposed { .. })), "the link could be another");
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
