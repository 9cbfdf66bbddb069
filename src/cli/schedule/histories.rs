//! When which job ran last, and what its runs came to: small files for the next process, and for
//! whoever looks while none runs.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::machine;
use crate::board::Card;
use crate::error::{Failure, Side};
use crate::schedule::{History, JobName};
use crate::small_file::{read_json, read_json_up_to, write_json};

/// The folders of these files. A history decides when a job runs; a card is for people, may be
/// long, and is written only when a run has ended.
#[derive(Debug)]
pub(super) struct Histories {
    histories: PathBuf,
    cards: PathBuf,
}

/// A job, as the last scheduler has left it.
pub(in crate::cli) struct Left {
    pub name: String,
    pub card: Card,
    /// `Err`: it cannot be read.
    pub history: io::Result<History>,
}

/// A card has a line for each dataset of its job.
const CARD_BYTES_MAX: u64 = 64 << 20;

impl Histories {
    pub fn open(state: &Path) -> Result<Histories, Failure> {
        let [histories, cards] = [state.join("jobs"), state.join("cards")];
        for folder in [&histories, &cards] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
                machine(Side::Source, &format!("use the folder {}", folder.display()), &error)
            })?;
        }
        Ok(Histories { histories, cards })
    }

    /// What is known of a job; what cannot be read is nothing: then it runs once more than it need.
    pub fn read(&self, job: &JobName) -> History {
        let path = file(&self.histories, job.as_str());
        known(read_json(&path)).unwrap_or_else(|error| {
            tracing::warn!(%job, %error, "when it ran last is not known: {}", path.display());
            History::default()
        })
    }

    /// Keeps it, if that is possible: a scheduler that cannot write still runs its jobs.
    pub fn write(&self, job: &JobName, history: &History) {
        if let Err(error) = write_json(&file(&self.histories, job.as_str()), history) {
            tracing::error!(%job, %error, "after a restart nobody knows that it ran");
        }
    }

    /// What is shown of a job; one that cannot be read begins anew.
    pub fn card(&self, job: &JobName) -> Card {
        let path = file(&self.cards, job.as_str());
        known(read_json_up_to(&path, CARD_BYTES_MAX)).unwrap_or_else(|error| {
            tracing::warn!(%job, %error, "its counts begin anew: {}", path.display());
            Card::default()
        })
    }

    /// Keeps it, if that is possible.
    pub fn write_card(&self, job: &str, card: &Card) {
        if let Err(error) = write_json(&file(&self.cards, job), card) {
            tracing::error!(job, %error, "after a restart its counts are older");
        }
    }

    /// All others are no jobs any more.
    pub fn retire_all_but<'a>(&self, jobs: impl Iterator<Item = &'a JobName>) {
        let jobs: BTreeSet<&str> = jobs.map(JobName::as_str).collect();
        for name in names(&self.cards).unwrap_or_default() {
            if jobs.contains(name.as_str()) {
                continue;
            }
            match read_json_up_to::<Card>(&file(&self.cards, &name), CARD_BYTES_MAX) {
                Ok(card) if card.gone => {}
                Ok(card) => self.write_card(&name, &Card { gone: true, ..card }),
                Err(error) => tracing::warn!(job = name, %error, "read what is kept of it"),
            }
        }
    }
}

/// When a scheduler has last kept something in a state folder, if one ever has; where we may not
/// look, just now: that has to be told rather than passed over.
pub(super) fn used_last(state: &Path) -> Option<SystemTime> {
    match fs::metadata(state.join("jobs")).and_then(|jobs| jobs.modified()) {
        Ok(at) => Some(at),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(SystemTime::now()),
        Err(_) => None,
    }
}

/// All jobs of a state folder but those that were taken away, in the order of their names.
pub(in crate::cli) fn left(state: &Path) -> io::Result<Vec<Left>> {
    let (histories, cards) = (state.join("jobs"), state.join("cards"));
    let of_old = names(&histories)?;
    let all: BTreeSet<String> = known::<Vec<_>>(names(&cards))?.into_iter().chain(of_old).collect();
    let all = all.into_iter().map(|name| {
        // Without a card it is of an older zferry, or has not run yet.
        let card: Card = read_json_up_to(&file(&cards, &name), CARD_BYTES_MAX).unwrap_or_default();
        let history = known(read_json(&file(&histories, &name)));
        Left { name, card, history }
    });
    Ok(all.filter(|left| !left.card.gone).collect())
}

fn file(folder: &Path, job: &str) -> PathBuf {
    folder.join(format!("{job}.json"))
}

/// What is not there is the beginning.
fn known<T: Default>(read: io::Result<T>) -> io::Result<T> {
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        read => read,
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let files = fs::read_dir(folder)?.filter_map(Result::ok);
    // What is being written has another end.
    Ok(files
        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(left: &[Left]) -> Vec<&str> {
        left.iter().map(|left| left.name.as_str()).collect()
    }

    #[test]
    fn a_job_that_is_no_more_is_not_shown_and_its_counts_are_there_when_it_comes_back() {
        let state = tempfile::tempdir().unwrap();
        assert!(left(state.path()).is_err(), "no scheduler was ever here");
        let histories = Histories::open(state.path()).unwrap();
        let [a, b] = ["a", "b.x"].map(JobName::new);
        let mut card = Card::default();
        card.totals.runs = 3;
        for job in [&a, &b] {
            histories.write(job, &History::default());
            histories.write_card(job.as_str(), &card);
        }
        assert_eq!(named(&left(state.path()).unwrap()), ["a", "b.x"]);
        histories.retire_all_but([&b].into_iter());
        assert_eq!(named(&left(state.path()).unwrap()), ["b.x"]);
        assert_eq!(histories.card(&a), Card { gone: true, ..card });
        // One of an older zferry has no card; one that cannot be read is there all the same.
        histories.write(&JobName::new("old"), &History::default());
        fs::write(file(&histories.histories, "odd"), "{").unwrap();
        let left = left(state.path()).unwrap();
        assert_eq!(named(&left), ["b.x", "odd", "old"]);
        assert!(left[1].history.is_err() && left[2].history.is_ok());
    }
}
