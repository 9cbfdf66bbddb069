//! Why something is denied, in words that both ends can act on.
//!
//! The client reads what it asked for and who it is taken for; whoever looks after the server
//! reads the line of `clients.toml` that would allow it. That line is a text for a person:
//! nothing here changes a grant.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

use super::{Client, ClientName, Grant, Operation, Prefix, Wish};
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, Guid, NameError};
use crate::error::{Class, Failure, Side};

/// A wish that is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client {client} may not {asked}: {why}")]
pub struct Denied {
    /// Whose it is.
    client: ClientName,
    /// What was asked, and of what.
    asked: String,
    /// Why not.
    why: Why,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Nothing is.
    #[error("it is known, and nothing is granted to it")]
    NoGrant,
    /// The name belongs to none of the client's grants.
    #[error("its names begin with {}", list(.0))]
    NoSuchPrefix(Vec<Prefix>),
    /// Names are below roots.
    #[error("a name is missing behind the prefix")]
    RootItself,
    /// It is no name.
    #[error("{0}")]
    BadName(NameError),
    /// The word is missing.
    #[error("{missing} is not granted to it below {}", .grant.root)]
    NotGranted {
        /// The word.
        missing: Operation,
        /// Where it is missing.
        grant: Box<Grant>,
    },
    /// This host could read it.
    #[error("only raw streams are granted to it below {0}, and this is none")]
    NotRaw(DatasetName),
    /// The word is missing.
    #[error("the property {missing} is not granted to it below {root}")]
    Property {
        /// The word.
        missing: PropertyName,
        /// Which are granted.
        granted: BTreeSet<PropertyName>,
        /// Below it.
        root: DatasetName,
    },
    /// The root's name was given to another dataset.
    #[error("{root} has guid {found}, and the dataset that was granted had {granted}")]
    OtherRoot {
        /// The root.
        root: DatasetName,
        /// What the grant says.
        granted: Guid,
        /// What is there.
        found: Guid,
    },
    /// It would have more than it may have.
    #[error("that would be {wanted} {key} below {root}, and {limit} are granted to it")]
    Limit {
        /// Of what.
        key: &'static str,
        /// How many it may have.
        limit: NonZeroU32,
        /// How many it would have.
        wanted: usize,
        /// Below it.
        root: DatasetName,
    },
}

impl Denied {
    pub(super) fn of(client: &Client, name: &str, wish: Wish, why: Why) -> Denied {
        Denied::about(&client.name, wish, name, why)
    }

    pub(super) fn about(client: &ClientName, wish: Wish, name: &str, why: Why) -> Denied {
        let asked = format!("{wish} {}", name.escape_debug());
        Denied { client: client.clone(), asked, why }
    }

    /// Why not.
    pub fn why(&self) -> &Why {
        &self.why
    }

    /// The failure of the client's session.
    pub fn on_target(&self) -> Failure {
        let class = match self.why {
            Why::Limit { key: "transfers", .. } => Class::Wait,
            _ => Class::Refused,
        };
        Failure::new(Side::Target, class, self.to_string()).with_remedy(self.remedy())
    }

    fn remedy(&self) -> String {
        let (root, line) = match &self.why {
            Why::NoGrant => {
                return format!(
                    "on the server: zferry keys trust client {} FINGERPRINT --root POOL/DATASET",
                    self.client
                );
            }
            Why::NoSuchPrefix(_) | Why::RootItself => {
                return "name it PREFIX/DATASET".to_owned();
            }
            Why::BadName(_) => {
                return "name a dataset by letters, digits, - _ . : and /".to_owned();
            }
            Why::NotGranted { missing, grant } => (&grant.root, allow_with(*missing, &grant.allow)),
            Why::Property { missing, granted, root } => {
                let all: BTreeSet<_> = granted.iter().chain([missing]).collect();
                let line = self.place(root, &line_of("properties", &all));
                return format!("leave it out of --properties; or {line}");
            }
            Why::NotRaw(root) => {
                let line = self.place(root, "raw-only = false");
                return format!("encrypted datasets are sent raw; to take others, too: {line}");
            }
            Why::OtherRoot { root, found, .. } => {
                let line = self.place(root, &format!("root-guid = \"{found}\""));
                return format!("if {root} is the right one: {line}");
            }
            Why::Limit { key, wanted, root, .. } => (root, format!("{key} = {wanted}")),
        };
        self.place(root, &line)
    }

    fn place(&self, root: &DatasetName, line: &str) -> String {
        format!("in clients.toml of the server, in the grant of {} for {root}: {line}", self.client)
    }
}

/// The line that grants one operation more.
fn allow_with(missing: Operation, granted: &BTreeSet<Operation>) -> String {
    let mut all = granted.clone();
    all.insert(missing);
    line_of("allow", &all)
}

fn line_of(key: &str, words: &BTreeSet<impl fmt::Display>) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("{key} = [{}]", words.join(", "))
}

fn list(prefixes: &[Prefix]) -> String {
    let parts: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}/")).collect();
    parts.join(" or ")
}
