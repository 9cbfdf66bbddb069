//! When which job ran last: a small file for each, for the next process.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::super::machine;
use crate::error::{Failure, Side};
use crate::schedule::{History, JobName};
use crate::small_file::{read_json, write_json};

/// The folder of these files.
#[derive(Debug)]
pub(super) struct Histories {
    folder: PathBuf,
}

impl Histories {
    pub fn open(state: &Path) -> Result<Histories, Failure> {
        let folder = state.join("jobs");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| {
            machine(Side::Source, &format!("use the folder {}", folder.display()), &error)
        })?;
        Ok(Histories { folder })
    }

    /// What is known of a job; what cannot be read is nothing: then it runs once more than it need.
    pub fn read(&self, job: &JobName) -> History {
        let path = self.path(job);
        read_json(&path).unwrap_or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(%job, %error, "when it ran last is not known: {}", path.display());
            }
            History::default()
        })
    }

    /// Keeps it, if that is possible: a scheduler that cannot write still runs its jobs.
    pub fn write(&self, job: &JobName, history: &History) {
        if let Err(error) = write_json(&self.path(job), history) {
            tracing::error!(%job, %error, "after a restart nobody knows that it ran");
        }
    }

    fn path(&self, job: &JobName) -> PathBuf {
        self.folder.join(format!("{job}.json"))
    }
}
