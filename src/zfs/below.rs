//! Asks about a dataset and what stands above it, up to a root, in one call.
//!
//! For whoever receives below a root: what a client may do there hangs on which dataset the root
//! is, and each question in a call of its own would cost as much as a small stream. What must never
//! happen here: that a dataset which could not be read is taken for one that is not there.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Output;
use super::listing::{TargetHead, read_target, target_arguments};
use super::texts::NO_DATASET;
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, Guid, SnapName};
use crate::listing::TargetState;

/// A root and a dataset below it, before something is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which dataset the root is.
    pub root: Guid,
    /// What is missing between them, from the top: neither the root nor the dataset.
    pub missing: Vec<DatasetName>,
    /// Whether the dataset is there.
    pub exists: bool,
    /// ZFS's resume token, where an interrupted receive has left its state in the dataset.
    pub resume_token: Option<String>,
}

impl Zfs {
    /// What there is from a root down to a dataset; `None` where the root is not there.
    pub fn way(&self, root: &DatasetName, dataset: &DatasetName) -> Result<Option<Way>, ZfsError> {
        let between = between(root, dataset)?;
        let asked: Vec<&DatasetName> =
            [root].into_iter().chain(&between).chain([dataset]).collect();
        let properties = "guid,receive_resume_token";
        let answer = self.get(properties, asked.iter().map(|name| name.as_str()))?;
        let there = answer.rows(|row| {
            let [name, property, value] = row.split('\t').collect::<Vec<_>>().try_into().ok()?;
            Some(((name, property), value))
        })?;
        let is_there = |name: &str| there.contains_key(&(name, "guid"));
        let names = asked.iter().map(|name| name.as_str());
        answer.accounts_for(names, is_there)?;
        let Some(root) = there.get(&(root.as_str(), "guid")) else { return Ok(None) };
        let root = root.parse().map_err(|_| answer.unreadable(root))?;
        let token = there.get(&(dataset.as_str(), "receive_resume_token"));
        Ok(Some(Way {
            root,
            exists: is_there(dataset.as_str()),
            resume_token: token.filter(|token| **token != "-").map(|&token| token.to_owned()),
            missing: between.iter().filter(|name| !is_there(name.as_str())).cloned().collect(),
        }))
    }

    /// The guids of a root and of a snapshot below it, each where it is there: the proof, after a
    /// stream, that it arrived, and where.
    pub fn arrived(
        &self,
        root: &DatasetName,
        dataset: &DatasetName,
        snapshot: &SnapName,
    ) -> Result<(Option<Guid>, Option<Guid>), ZfsError> {
        let snapshot = dataset.at(snapshot);
        let asked = [root.as_str(), &snapshot];
        let answer =
            self.run(&[&["get", "-Hp", "-o", "name,value", "--", "guid"], &asked[..]].concat())?;
        let there = answer.rows(|row| {
            let (name, guid) = row.split_once('\t')?;
            Some((name, guid.parse::<Guid>().ok()?))
        })?;
        answer.accounts_for(asked, |name| there.contains_key(name))?;
        Ok((there.get(root.as_str()).copied(), there.get(snapshot.as_str()).copied()))
    }

    /// Which dataset a root is, and what one below it holds; that this does not exist is an answer.
    /// `None` where the root is not there.
    pub fn target_below(
        &self,
        root: &DatasetName,
        dataset: &DatasetName,
    ) -> Result<Option<(Guid, TargetState)>, ZfsError> {
        let asked = [root.as_str(), dataset.as_str()];
        let answer = self.run(&target_arguments(&asked))?;
        let there = answer.rows(|row| {
            let head = read_target(row)?;
            Some((head.name, head))
        })?;
        answer.accounts_for(asked, |name| there.contains_key(name))?;
        let Some(&TargetHead { guid, .. }) = there.get(root.as_str()) else { return Ok(None) };
        let Some(head) = there.get(dataset.as_str()) else {
            return Ok(Some((guid, TargetState::Absent)));
        };
        Ok(Some((guid, head.holding(self.snapshots(dataset)?))))
    }

    /// The names of all datasets below a root, which must exist.
    pub fn names_below(&self, root: &DatasetName) -> Result<BTreeSet<DatasetName>, ZfsError> {
        let kinds = "filesystem,volume";
        let answer =
            self.ask(&["list", "-H", "-r", "-t", kinds, "-o", "name", "--", root.as_str()])?;
        let mut names: BTreeSet<_> =
            answer.read_lines(|line| line.parse::<DatasetName>().ok())?.into_iter().collect();
        names.remove(root);
        Ok(names)
    }

    fn get<'a>(
        &self,
        properties: &'a str,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Output, ZfsError> {
        let head = ["get", "-Hp", "-o", "name,property,value", "--", properties];
        self.run(&head.into_iter().chain(names).collect::<Vec<_>>())
    }
}

impl Output {
    /// Each line of an answer about several datasets, of which some may be missing.
    fn rows<'a, K: Ord, V>(
        &'a self,
        read: impl Fn(&'a str) -> Option<(K, V)>,
    ) -> Result<BTreeMap<K, V>, ZfsError> {
        let rows = self.text.lines();
        rows.map(|row| read(row).ok_or_else(|| self.unreadable(row))).collect()
    }

    /// Makes sure that each name that is not there was said not to be.
    fn accounts_for<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<(), ZfsError> {
        let missing = names.into_iter().filter(|name| !is_there(name));
        let said = |name: &str| format!("cannot open '{name}': {NO_DATASET}");
        let expected: Vec<String> = missing.map(said).collect();
        let told: BTreeSet<&str> = self.ended.stderr.lines().collect();
        let all_told = expected.iter().all(|words| told.contains(words.as_str()));
        if self.ended.success() == expected.is_empty() && all_told {
            return Ok(());
        }
        Err(ZfsError::Failed { call: self.call.clone(), ended: self.ended.clone() })
    }
}

/// The datasets above one up to a root, without it, from the top.
fn between(root: &DatasetName, dataset: &DatasetName) -> Result<Vec<DatasetName>, ZfsError> {
    if dataset == root || !dataset.is_within(root) {
        return Err(ZfsError::Outside { dataset: dataset.clone(), root: root.clone() });
    }
    let above = std::iter::successors(dataset.parent(), DatasetName::parent);
    let mut between: Vec<_> = above.take_while(|above| above != root).collect();
    between.reverse();
    Ok(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_is_named_from_the_top() {
        let name = |text: &str| text.parse::<DatasetName>().unwrap();
        let names = |root: &str, dataset: &str| between(&name(root), &name(dataset));
        assert_eq!(names("a/b", "a/b/c/d/e").unwrap(), [name("a/b/c"), name("a/b/c/d")]);
        assert_eq!(names("a/b", "a/b/c").unwrap(), []);
        for outside in ["a/b", "a/bc", "a", "x/y"] {
            assert!(matches!(names("a/b", outside), Err(ZfsError::Outside { .. })), "{outside}");
        }
    }
}
