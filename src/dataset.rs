//! Names and identities of ZFS datasets and snapshots, checked once and trusted afterwards.
//!
//! Every name that comes from a person, a peer or `zfs` passes through here before it may become
//! an argument of a command. What is not in ZFS's own grammar (`module/zcommon/zfs_namecheck.c`)
//! never gets further: no shell character, no `..`, nothing that looks like an option.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub mod property;

/// The longest full name that ZFS takes (`ZFS_MAX_DATASET_NAME_LEN` less the NUL).
pub const NAME_BYTES_MAX: usize = 255;

/// ZFS's own identity of a snapshot: the same for its received copies and its bookmarks.
///
/// The whole range of 64 bits is used, so it must never pass through a float or a signed integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Guid(pub u64);

/// What a dataset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Files in a tree.
    Filesystem,
    /// A block device (zvol).
    Volume,
}

/// The full name of a filesystem or volume: `pool`, `pool/a`, `pool/a/b`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetName(String);

/// The part of a snapshot's name behind the `@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapName(String);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing between two slashes.
    #[error("'{0}' has an empty part; a name is pool/a/b without a leading or trailing slash")]
    EmptyPart(String),
    /// A character outside letters, digits, `-`, `_`, `.`, `:` and space.
    #[error(
        "'{name}' has the character {character:?}; ZFS names take letters, digits, - _ . : and \
         space"
    )]
    BadCharacter {
        /// The whole text.
        name: String,
        /// The first character that cannot be in a name.
        character: char,
    },
    /// `.` or `..` as a part.
    #[error("'{0}' has a part '.' or '..', which ZFS does not know")]
    DotPart(String),
    /// A pool name that does not begin with a letter, so that it could be taken for an option.
    #[error("'{0}' does not begin with a letter, as every pool name does")]
    BadPool(String),
    /// Over [`NAME_BYTES_MAX`] bytes.
    #[error("the name is {0} bytes long; ZFS takes at most {NAME_BYTES_MAX}")]
    TooLong(usize),
}

impl DatasetName {
    /// The name as `zfs` wants it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pool: the part before the first slash.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// The dataset this one lies in, or `None` for a pool.
    pub fn parent(&self) -> Option<DatasetName> {
        self.0.rsplit_once('/').map(|(parent, _)| DatasetName(parent.to_owned()))
    }

    /// The dataset `relative` (`a/b`) below this one. A client's words end here: the result lies
    /// below `self` for every input that is accepted.
    pub fn join(&self, relative: &str) -> Result<DatasetName, NameError> {
        check_parts(relative)?;
        format!("{}/{relative}", self.0).parse()
    }

    /// Whether this is `root` itself or lies below it.
    pub fn is_within(&self, root: &DatasetName) -> bool {
        self.0.strip_prefix(&root.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The full name of a snapshot of this dataset: `pool/a@name`.
    pub fn at(&self, snapshot: &SnapName) -> String {
        format!("{}@{}", self.0, snapshot.0)
    }
}

impl SnapName {
    /// The name without dataset and `@`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<DatasetName, NameError> {
        check_parts(text)?;
        if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err(NameError::BadPool(text.to_owned()));
        }
        Ok(DatasetName(text.to_owned()))
    }
}

impl FromStr for SnapName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<SnapName, NameError> {
        check_length(text)?;
        check_part(text, text)?;
        Ok(SnapName(text.to_owned()))
    }
}

/// A full name as a person types it in a shell: of all that names may hold, only the space asks
/// for quotes.
pub fn typed(name: &str) -> Cow<'_, str> {
    if name.contains(' ') { format!("'{name}'").into() } else { name.into() }
}

fn check_parts(text: &str) -> Result<(), NameError> {
    check_length(text)?;
    text.split('/').try_for_each(|part| check_part(part, text))
}

fn check_length(text: &str) -> Result<(), NameError> {
    if text.len() > NAME_BYTES_MAX { Err(NameError::TooLong(text.len())) } else { Ok(()) }
}

fn check_part(part: &str, whole: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.: ".contains(c);
    if part.is_empty() {
        return Err(NameError::EmptyPart(whole.to_owned()));
    }
    if part == "." || part == ".." {
        return Err(NameError::DotPart(whole.to_owned()));
    }
    match part.chars().find(|&c| !allowed(c)) {
        Some(character) => Err(NameError::BadCharacter { name: whole.to_owned(), character }),
        None => Ok(()),
    }
}

impl FromStr for Guid {
    type Err = std::num::ParseIntError;

    /// Reads the decimal form that `zfs list -p` prints.
    fn from_str(text: &str) -> Result<Guid, Self::Err> {
        text.parse().map(Guid)
    }
}

impl TryFrom<String> for DatasetName {
    type Error = NameError;

    fn try_from(text: String) -> Result<DatasetName, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for SnapName {
    type Error = NameError;

    fn try_from(text: String) -> Result<SnapName, NameError> {
        text.parse()
    }
}

impl From<DatasetName> for String {
    fn from(name: DatasetName) -> String {
        name.0
    }
}

impl From<SnapName> for String {
    fn from(name: SnapName) -> String {
        name.0
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SnapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Filesystem => "filesystem",
            Kind::Volume => "volume",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DatasetName {
        text.parse().unwrap()
    }

    #[test]
    fn names_of_zfs_are_taken_as_they_are() {
        for text in ["tank", "tank/a", "tank/a b/c:d", "rpool/ROOT/debian-1_2.3"] {
            assert_eq!(name(text).as_str(), text);
        }
        assert!("auto_2026-11-22T10:00:00Z".parse::<SnapName>().is_ok());
    }

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        for text in [
            "",
            "/tank",
            "tank/",
            "tank//a",
            "tank/..",
            "tank/./a",
            "../tank",
            "-rf",
            "tank/a;b",
            "tank/$(x)",
            "tank/a\nb",
            "tank/a@b",
            "tank/a#b",
            "tank/%recv",
            "tank/ä",
            "1tank",
        ] {
            assert!(text.parse::<DatasetName>().is_err(), "{text:?} was taken for a dataset");
        }
        for text in ["", "a/b", "a@b", "..", "a`b"] {
            assert!(text.parse::<SnapName>().is_err(), "{text:?} was taken for a snapshot");
        }
        assert_eq!("a".repeat(256).parse::<DatasetName>(), Err(NameError::TooLong(256)));
    }

    #[test]
    fn whatever_joins_a_root_lies_below_it() {
        let root = name("backup/hosts");
        assert_eq!(root.join("a/b").unwrap(), name("backup/hosts/a/b"));
        for escape in ["..", "../x", "a/../../x", "/etc", "", "a/..", "x@y"] {
            assert!(root.join(escape).is_err(), "{escape:?} left the root");
        }
        assert!(name("backup/hosts/a").is_within(&root));
        assert!(!name("backup/hostsa").is_within(&root));
    }

    #[test]
    fn names_are_typed_with_quotes_where_a_shell_would_cut_them() {
        assert_eq!(typed("tank/a@b"), "tank/a@b");
        assert_eq!(typed("tank/a b@c"), "'tank/a b@c'");
    }

    #[test]
    fn guids_use_all_64_bits() {
        assert_eq!("18446744073709551615".parse::<Guid>().unwrap(), Guid(u64::MAX));
        let wire = serde_json::to_string(&Guid(u64::MAX)).unwrap();
        assert_eq!(serde_json::from_str::<Guid>(&wire).unwrap(), Guid(u64::MAX));
    }

    #[test]
    fn a_hostile_name_does_not_pass_the_wire() {
        assert!(serde_json::from_str::<DatasetName>(r#""tank/a;reboot""#).is_err());
    }
}
