//! The words of a grant: what a client is called, what it may do, how its names begin.
//!
//! Each is checked where it comes in, from a file or a command line, and trusted afterwards.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::dataset::{DatasetName, NameError};

/// What a client is called on this host: in its list, its log and its messages. Never a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientName(String);

/// Why a text is no name of a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is no name for a client: that is 1 to 64 letters, digits, - _ or ., and begins with a \
     letter or digit",
    .0.escape_debug()
)]
pub struct BadClientName(String);

/// How a client's names begin that belong to one of several grants: the part before the first `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// What may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Streams that make a dataset.
    ReceiveFull,
    /// Streams that add a snapshot to what is there.
    ReceiveIncremental,
    /// The rest of streams that were interrupted.
    Resume,
    /// The datasets between the root and one that is made.
    CreateParents,
    /// To throw away what was partly received, and never became a snapshot.
    AbortPartial,
    /// To have snapshots pruned, down to what the grant keeps.
    Prune,
}

/// A word that grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownOperation {
    /// Nobody may do it, whatever a list says: a word that does nothing must not stand there.
    #[error(
        "'{word}' is not something that a client can be granted yet: no client can ask this \
         version to {what}. Leave the word out; expected {}",
        expected()
    )]
    NotYet {
        /// The word.
        word: &'static str,
        /// What nobody may do.
        what: &'static str,
    },
    /// It means nothing.
    #[error("'{}' is nothing that can be granted; expected {}", .0.escape_debug(), expected())]
    Unknown(String),
}

/// What a client can never do, and what that would be.
const NOT_YET: [(&str, &str); 3] = [
    ("rollback", "roll a dataset back"),
    ("destroy", "destroy a dataset, or a snapshot that it names"),
    ("package-streams", "take a stream that holds several"),
];

const NAME_BYTES_MAX: usize = 64;

impl Operation {
    /// All that there are.
    pub const ALL: [Operation; 6] = [
        Operation::ReceiveFull,
        Operation::ReceiveIncremental,
        Operation::Resume,
        Operation::CreateParents,
        Operation::AbortPartial,
        Operation::Prune,
    ];

    /// What only ever adds: whoever has no more can harm nothing that is here.
    pub const APPEND_ONLY: [Operation; 4] = [
        Operation::ReceiveFull,
        Operation::ReceiveIncremental,
        Operation::Resume,
        Operation::CreateParents,
    ];

    /// What stands in a file for it.
    pub fn word(self) -> &'static str {
        match self {
            Operation::ReceiveFull => "receive-full",
            Operation::ReceiveIncremental => "receive-incremental",
            Operation::Resume => "resume",
            Operation::CreateParents => "create-parents",
            Operation::AbortPartial => "abort-partial",
            Operation::Prune => "prune",
        }
    }
}

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(word: &str) -> Result<Operation, UnknownOperation> {
        if let Some(known) = Operation::ALL.into_iter().find(|known| known.word() == word) {
            return Ok(known);
        }
        Err(match NOT_YET.into_iter().find(|(not_yet, _)| *not_yet == word) {
            Some((word, what)) => UnknownOperation::NotYet { word, what },
            None => UnknownOperation::Unknown(word.to_owned()),
        })
    }
}

/// By a visitor, so that a mistake is told with the place of the word and not of the list.
impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Operation, D::Error> {
        deserializer.deserialize_str(WordReader)
    }
}

struct WordReader;

impl Visitor<'_> for WordReader {
    type Value = Operation;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&expected())
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Operation, E> {
        word.parse().map_err(E::custom)
    }
}

fn expected() -> String {
    let words = Operation::ALL.map(|operation| format!("`{operation}`"));
    format!("one of {}", words.join(", "))
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for ClientName {
    type Err = BadClientName;

    fn from_str(text: &str) -> Result<ClientName, BadClientName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if begins_well && text.len() <= NAME_BYTES_MAX && text.chars().all(allowed) {
            return Ok(ClientName(text.to_owned()));
        }
        Err(BadClientName(text.chars().take(NAME_BYTES_MAX).collect()))
    }
}

impl ClientName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = NameError;

    /// Takes one part of a dataset's name.
    fn from_str(text: &str) -> Result<Prefix, NameError> {
        if text.contains('/') {
            return Err(NameError::BadCharacter { name: text.to_owned(), character: '/' });
        }
        let any_root: DatasetName = "root".parse()?;
        any_root.join(text)?;
        Ok(Prefix(text.to_owned()))
    }
}

impl Prefix {
    /// The part.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClientName {
    type Error = BadClientName;

    fn try_from(text: String) -> Result<ClientName, BadClientName> {
        text.parse()
    }
}

impl TryFrom<String> for Prefix {
    type Error = NameError;

    fn try_from(text: String) -> Result<Prefix, NameError> {
        text.parse()
    }
}

impl From<ClientName> for String {
    fn from(name: ClientName) -> String {
        name.0
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_the_same_in_a_file_and_on_a_command_line() {
        for operation in Operation::ALL {
            let in_a_file = serde_json::to_value(operation).unwrap();
            assert_eq!(in_a_file, operation.word());
            assert_eq!(operation.word().parse(), Ok(operation));
        }
        let unknown = "receive".parse::<Operation>().unwrap_err().to_string();
        assert!(
            unknown.ends_with(
                "expected one of `receive-full`, `receive-incremental`, \
                                   `resume`, `create-parents`, `abort-partial`, `prune`"
            ),
            "{unknown}"
        );
    }

    #[test]
    fn what_no_client_can_do_is_no_word_and_that_is_said() {
        for (word, what) in NOT_YET {
            let refused = word.parse::<Operation>().unwrap_err().to_string();
            assert!(
                refused.contains("not something that a client can be granted yet"),
                "{refused}"
            );
            assert!(refused.contains(what) && refused.contains("Leave the word out"), "{refused}");
            assert!(serde_json::from_str::<Operation>(&format!("\"{word}\"")).is_err());
        }
    }

    #[test]
    fn what_only_adds_is_everything_but_what_throws_away() {
        let rest: Vec<&str> = Operation::ALL
            .iter()
            .filter(|operation| !Operation::APPEND_ONLY.contains(operation))
            .map(|operation| operation.word())
            .collect();
        assert_eq!(rest, ["abort-partial", "prune"]);
    }

    #[test]
    fn a_client_has_a_name_that_no_line_or_path_can_be_broken_with() {
        for name in ["laptop", "db-1.example", "7"] {
            assert_eq!(name.parse::<ClientName>().unwrap().as_str(), name);
        }
        let long = "a".repeat(65);
        for name in ["", "-x", "..", "a b", "a/b", "a\nb", "SHA256:x", "ä", &long] {
            assert!(name.parse::<ClientName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_prefix_is_one_part_of_a_name() {
        assert_eq!("a b".parse::<Prefix>().unwrap().as_str(), "a b");
        for text in ["", "a/b", "/", "..", ".", "a@b"] {
            assert!(text.parse::<Prefix>().is_err(), "{text:?}");
        }
    }
}
