//! What a record file is about, in words: a small file beside it, written once.
//!
//! Records have numbers only. Whoever looks at one wants to know which copy it is of, and the next
//! run of a copy has to find the records of the last one. The words are for people and for finding:
//! no place in a stream is ever taken from here.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder;
use crate::breakpoint::record::Role;
use crate::small_file::{read_json, write_json};

/// What a record file is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The side that keeps it.
    pub role: Role,
    /// What is copied where: the same for all transfers of one job.
    pub job: String,
    /// What this transfer carries.
    pub transfer: String,
    /// The folder of its breakpoint files, where it has some that outlive its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<PathBuf>,
}

impl Names {
    /// Of a transfer without breakpoint files that outlive its process.
    pub fn new(role: Role, job: String, transfer: String) -> Names {
        Names { role, job, transfer, stream: None }
    }

    /// Where the names of a record file stand.
    pub fn beside(records: &Path) -> PathBuf {
        records.with_extension("names")
    }

    /// Writes them; whole and durable when this returns, or not there at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_json(path, self)
    }

    /// Removes the breakpoint files: nothing goes on from them.
    pub(super) fn remove_stream(&self) {
        if let Some(stream) = &self.stream {
            folder::remove_stream(stream);
        }
    }

    /// Reads the names at `path`; what would spoil a terminal comes back as `_`.
    pub fn read(path: &Path) -> io::Result<Names> {
        let Names { role, job, transfer, stream } = read_json(path)?;
        Ok(Names { role, job: printable(&job), transfer: printable(&transfer), stream })
    }
}

/// The same words as they are read again.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_are_read_as_they_were_written_but_for_what_spoils_a_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let path = Names::beside(&folder.path().join("a.breakpoint"));
        let names = |job: &str| Names {
            stream: Some(folder.path().join("zferry-stream-0")),
            ..Names::new(Role::Client, job.to_owned(), "tank/a@s (full)".to_owned())
        };
        names("tank/a\u{1b}[2J -> b").write(&path).unwrap();
        assert_eq!(Names::read(&path).unwrap(), names("tank/a_[2J -> b"));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_is_not_names_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.names");
        for text in ["", "{}", "{\"role\":\"client\",\"job\":7}", &"[".repeat(100_000)] {
            fs::write(&path, text).unwrap();
            assert!(Names::read(&path).is_err(), "{text:.40}");
        }
    }
}
