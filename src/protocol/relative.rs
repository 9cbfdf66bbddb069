//! A dataset as a client names it.
//!
//! The server joins it to a root that the client cannot choose. What must never happen here: a name
//! that leaves whatever root it is joined to.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dataset::{DatasetName, NameError};

/// A dataset as a client names it: `a/b`, below whatever root the server grants that client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativeName(String);

impl RelativeName {
    /// What to join to the root: [`DatasetName::join`] checks it there once more.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `other` itself or lies below it.
    pub fn is_within(&self, other: &RelativeName) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for RelativeName {
    type Err = NameError;

    /// Takes whatever [`DatasetName::join`] would take: nothing that leaves the root.
    fn from_str(name: &str) -> Result<RelativeName, NameError> {
        let any_root: DatasetName = "root".parse()?;
        any_root.join(name)?;
        Ok(RelativeName(name.to_owned()))
    }
}

impl TryFrom<String> for RelativeName {
    type Error = NameError;

    fn try_from(name: String) -> Result<RelativeName, NameError> {
        name.parse()
    }
}

impl From<RelativeName> for String {
    fn from(name: RelativeName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_name_cannot_leave_its_root() {
        for name in ["", "/a", "a/", "../a", "a/../..", "a@b", "a\nb"] {
            assert!(name.parse::<RelativeName>().is_err(), "{name:?}");
        }
        assert_eq!("hosts/a b".parse::<RelativeName>().unwrap().as_str(), "hosts/a b");
    }

    #[test]
    fn what_lies_within_another_begins_with_all_of_it() {
        let name = |text: &str| text.parse::<RelativeName>().unwrap();
        for (inner, outer, is) in [
            ("a/b", "a/b", true),
            ("a/b/c", "a/b", true),
            ("a/bc", "a/b", false),
            ("a", "a/b", false),
            ("b/a", "a", false),
        ] {
            assert_eq!(name(inner).is_within(&name(outer)), is, "{inner} in {outer}");
        }
    }
}
