//! The datasets that transfers are about to make, for the limit on how many there may be.
//!
//! A dataset is there only some time after its transfer was let in: when `zfs receive` has taken
//! the beginning of its stream. Until then it is counted from here, so that many who come at once
//! do not make more than one who comes after the other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::dataset::DatasetName;
use crate::error::Failure;

/// The books of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Making(Arc<Mutex<Vec<DatasetName>>>);

/// Datasets that are counted as long as this lives.
#[derive(Debug)]
pub(super) struct Announced {
    books: Making,
    names: Vec<DatasetName>,
}

impl Making {
    /// Announces datasets below a root where `may_be` says that there may be so many: those that
    /// are `there`, those that are announced, and these. Others wait meanwhile.
    pub fn announce(
        &self,
        root: &DatasetName,
        names: Vec<DatasetName>,
        there: impl FnOnce() -> Result<BTreeSet<DatasetName>, Failure>,
        may_be: impl FnOnce(usize) -> Result<(), Failure>,
    ) -> Result<Announced, Failure> {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = there()?;
        all.extend(books.iter().filter(|name| name.is_within(root)).cloned());
        all.extend(names.iter().cloned());
        may_be(all.len())?;
        books.extend(names.iter().cloned());
        Ok(Announced { books: self.clone(), names })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let mut books = self.books.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            // Another transfer may have announced the same parent.
            if let Some(place) = books.iter().position(|announced| announced == name) {
                books.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Class, Side};

    #[test]
    fn what_is_announced_counts_until_it_is_given_up_and_once_however_often_it_was_named() {
        let names = |text: &[&str]| -> Vec<DatasetName> {
            text.iter().map(|name| name.parse().unwrap()).collect()
        };
        let making = Making::default();
        let announce = |new: &[&str], most: usize| {
            let may_be = |count| match count {
                count if count <= most => Ok(()),
                count => Err(Failure::new(Side::Target, Class::Refused, format!("{count}"))),
            };
            let there = || Ok(names(&["r/a"]).into_iter().collect());
            making.announce(&"r".parse().unwrap(), names(new), there, may_be)
        };
        let first = announce(&["r/x", "r/x/1"], 3).unwrap();
        assert_eq!(announce(&["r/b"], 3).unwrap_err().what, "4");
        let second = announce(&["r/x", "r/x/2"], 4).unwrap();
        drop(first);
        assert_eq!(announce(&["r/b"], 3).unwrap_err().what, "4");
        drop(second);
        drop(announce(&["r/b", "r/c"], 3).unwrap());
        assert_eq!(making.0.lock().unwrap().len(), 0);
    }
}
