//! Changes of the lists that leave everything else in them as it is: comments, order, spaces.
//!
//! Pure: a text in, a text out. Whoever calls parses both, so that no list is written that would
//! not be read. What must never happen here: a change that widens a grant beyond what was asked.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value};

use super::fingerprint::Fingerprint;
use super::grants::{ClientName, Operation, Prefix};
use super::servers::Authority;
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, Guid};
use crate::retention::{Keep, Template};
use crate::units::{Bytes, Rate};

#[cfg(test)]
mod tests;

/// Why a list was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It cannot be read.
    #[error("{0}")]
    NoToml(String),
    /// It is not written as it would have to be.
    #[error("{0} are written here in another form than [[{0}]], which only you can change")]
    OtherForm(&'static str),
    /// The name has another key.
    #[error("{name} is known here by another key, {known}")]
    OtherKey {
        /// Whose.
        name: String,
        /// The key that is in the list.
        known: String,
    },
    /// The key has another name.
    #[error("the key {key} is the one of {name}")]
    OtherName {
        /// The key.
        key: Fingerprint,
        /// The name that is in the list.
        name: String,
    },
    /// What was granted is another dataset, which had the name of the root then.
    #[error("{root} has guid {found}, and the dataset that was granted to {name} had {granted}")]
    OtherRoot {
        /// Whose grant.
        name: String,
        /// The root.
        root: DatasetName,
        /// What the list says.
        granted: String,
        /// What it has now.
        found: Guid,
    },
}

/// What is to be granted to a client; what is `None` or false stays as it is, where it is there.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// How its names begin.
    pub prefix: Option<Prefix>,
    /// Below which dataset.
    pub root: DatasetName,
    /// Which dataset that is.
    pub root_guid: Option<Guid>,
    /// What it may do; for a new grant what only adds.
    pub allow: Option<BTreeSet<Operation>>,
    /// Whether nothing but raw streams.
    pub raw_only: bool,
    /// Which properties its streams may set.
    pub properties: Option<BTreeSet<PropertyName>>,
    /// How many datasets.
    pub datasets: Option<NonZeroU32>,
    /// How many transfers at once.
    pub transfers: Option<NonZeroU32>,
    /// How much of the spool.
    pub spool: Option<Bytes>,
    /// How fast.
    pub bandwidth: Option<Rate>,
    /// What stays whatever it wants pruned.
    pub keep: Option<Keep>,
    /// How the snapshots are called that may be pruned.
    pub template: Option<Template>,
}

const CLIENTS: Entries = Entries {
    table: "client",
    name: "name",
    keys_are_unique: true,
    head: "# Who may send to this host, and what: docs/keys.md.\n",
};

const SERVERS: Entries = Entries {
    table: "server",
    name: "address",
    keys_are_unique: false,
    head: "# Which key each server has that this host sends to: docs/keys.md.\n",
};

/// One kind of list.
struct Entries {
    table: &'static str,
    /// What an entry goes by besides its key.
    name: &'static str,
    /// Whether no two may have the same: a client is one, but a server may have many names.
    keys_are_unique: bool,
    /// How a new list begins.
    head: &'static str,
}

const KEY: &str = "fingerprint";
const GRANT: &str = "grant";

/// The list of clients with one more of them, or with one more grant, or with a grant changed.
pub fn trust_client(
    text: &str,
    name: &ClientName,
    key: Fingerprint,
    grant: &NewGrant,
) -> Result<String, EditError> {
    let mut document = CLIENTS.open(text)?;
    let is_named = |known: &str| known.eq_ignore_ascii_case(name.as_str());
    let client = CLIENTS.entry(&mut document, name.as_str(), key, is_named)?;
    let grants = array(client, GRANT)?;
    let is_it = |table: &Table| said(table, "root") == Some(grant.root.as_str());
    let known = grants.iter().position(is_it);
    let place = known.unwrap_or_else(|| push(grants, Table::new()));
    let table = grants.get_mut(place).ok_or(EditError::OtherForm(GRANT))?;
    grant.check_root(table, name)?;
    grant.write(table, known.is_none());
    Ok(document.to_string())
}

/// The list without a client, whom `who` names or shows the key of; `None` where there is none.
pub fn revoke_client(text: &str, who: &str) -> Result<Option<String>, EditError> {
    CLIENTS.without(text, |table| {
        let is_named = |name: &str| name.eq_ignore_ascii_case(who);
        said(table, CLIENTS.name).is_some_and(is_named) || said(table, KEY) == Some(who)
    })
}

/// The list of servers with one more of them.
pub fn trust_server(text: &str, at: &Authority, key: Fingerprint) -> Result<String, EditError> {
    let mut document = SERVERS.open(text)?;
    SERVERS.entry(&mut document, &at.to_string(), key, |known| is_at(known, at))?;
    Ok(document.to_string())
}

/// The list without a server; `None` where there is none.
pub fn revoke_server(text: &str, at: &Authority) -> Result<Option<String>, EditError> {
    let is_meant = |table: &Table| said(table, SERVERS.name).is_some_and(|known| is_at(known, at));
    SERVERS.without(text, is_meant)
}

fn is_at(known: &str, at: &Authority) -> bool {
    known.parse().as_ref() == Ok(at)
}

impl Entries {
    fn open(&self, text: &str) -> Result<DocumentMut, EditError> {
        let text = if text.is_empty() { self.head } else { text };
        text.parse().map_err(|error: toml_edit::TomlError| EditError::NoToml(error.to_string()))
    }

    /// The entry of this name and key, which is made where there is none.
    fn entry<'a>(
        &self,
        document: &'a mut DocumentMut,
        name: &str,
        key: Fingerprint,
        is_named: impl Fn(&str) -> bool,
    ) -> Result<&'a mut Table, EditError> {
        let entries = array(document, self.table)?;
        let mut found = None;
        for (place, table) in entries.iter().enumerate() {
            let (its_name, its_key) = (said(table, self.name), said(table, KEY));
            let has_key = its_key == Some(key.to_string().as_str());
            if its_name.is_some_and(&is_named) {
                if !has_key {
                    let known = its_key.unwrap_or_default().to_owned();
                    return Err(EditError::OtherKey { name: name.to_owned(), known });
                }
                found = Some(place);
            } else if has_key && self.keys_are_unique {
                let name = its_name.unwrap_or_default().to_owned();
                return Err(EditError::OtherName { key, name });
            }
        }
        let place = if let Some(place) = found {
            place
        } else {
            let mut table = Table::new();
            table.insert(self.name, toml_edit::value(name));
            table.insert(KEY, toml_edit::value(key.to_string()));
            push_behind_everything(document, self.table, table)?
        };
        let entries = array(document, self.table)?;
        entries.get_mut(place).ok_or(EditError::OtherForm(self.table))
    }

    fn without(
        &self,
        text: &str,
        is_meant: impl Fn(&Table) -> bool,
    ) -> Result<Option<String>, EditError> {
        let mut document = self.open(text)?;
        let entries = array(&mut document, self.table)?;
        let Some(place) = entries.iter().position(is_meant) else { return Ok(None) };
        let above = entries.get(place).map(comments_above).unwrap_or_default();
        entries.remove(place);
        if let Some(next) = entries.get_mut(place) {
            prepend(next, &above);
        } else {
            // What stood above the last one belongs to the end of the file now.
            let end = document.trailing().as_str().unwrap_or_default().to_owned();
            document.set_trailing(above + &end);
        }
        Ok(Some(document.to_string()))
    }
}

impl NewGrant {
    /// A grant is not moved to another dataset because that has the name now.
    fn check_root(&self, table: &Table, name: &ClientName) -> Result<(), EditError> {
        match (said(table, "root-guid"), self.root_guid) {
            (Some(granted), Some(found)) if granted != found.to_string() => {
                let (name, granted) = (name.to_string(), granted.to_owned());
                Err(EditError::OtherRoot { name, root: self.root.clone(), granted, found })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, table: &mut Table, is_new: bool) {
        if let Some(prefix) = &self.prefix {
            set(table, "prefix", prefix.as_str());
        }
        set(table, "root", self.root.as_str());
        if let Some(guid) = self.root_guid {
            set(table, "root-guid", guid.to_string());
        }
        let append_only = || BTreeSet::from(Operation::APPEND_ONLY);
        if let Some(allow) = self.allow.clone().or_else(|| is_new.then(append_only)) {
            set(table, "allow", allow.iter().map(|operation| operation.word()).collect::<Array>());
        }
        if self.raw_only {
            set(table, "raw-only", true);
        }
        if let Some(properties) = &self.properties {
            set(
                table,
                "properties",
                properties.iter().map(PropertyName::as_str).collect::<Array>(),
            );
        }
        for (key, count) in [("datasets", self.datasets), ("transfers", self.transfers)] {
            if let Some(count) = count {
                set(table, key, i64::from(count.get()));
            }
        }
        let rate = self.bandwidth.map(Rate::per_second);
        for (key, bytes) in [("spool", self.spool), ("bandwidth", rate)] {
            if let Some(bytes) = bytes {
                set(table, key, exact(bytes));
            }
        }
        if let Some(keep) = self.keep {
            set(table, "keep", keep.to_string());
        }
        if let Some(template) = &self.template {
            set(table, "template", template.as_str());
        }
    }
}

/// The tables `[[key]]`; none of them where there is no such key.
fn array<'a>(table: &'a mut Table, key: &'static str) -> Result<&'a mut ArrayOfTables, EditError> {
    let item = table.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or(EditError::OtherForm(key))
}

/// Adds a table, and says at which place.
fn push(tables: &mut ArrayOfTables, table: Table) -> usize {
    tables.push(table);
    tables.len() - 1
}

/// Adds a table at the end, behind the comments that end the text.
fn push_behind_everything(
    document: &mut DocumentMut,
    key: &'static str,
    mut table: Table,
) -> Result<usize, EditError> {
    let mut above = document.trailing().as_str().unwrap_or_default().to_owned();
    if !above.is_empty() && !above.ends_with('\n') {
        above.push('\n');
    }
    document.set_trailing("");
    if !above.is_empty() || !document.as_table().is_empty() {
        above.push('\n');
    }
    table.decor_mut().set_prefix(above);
    Ok(push(array(document, key)?, table))
}

/// What a table says of a key, if that is a text.
fn said<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str()
}

/// Sets a value; what stands behind it on its line stays.
fn set(table: &mut Table, key: &str, value: impl Into<Value>) {
    let mut value = value.into();
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
}

/// What stands above an entry and is not about it: all but the comment that touches it.
fn comments_above(table: &Table) -> String {
    let prefix = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    prefix.rfind("\n\n").map(|end| prefix[..=end].to_owned()).unwrap_or_default()
}

fn prepend(table: &mut Table, above: &str) {
    let prefix = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let both = format!("{above}{prefix}");
    table.decor_mut().set_prefix(both);
}

/// A size that is read back as the same: `100GiB`, `1500`.
fn exact(Bytes(bytes): Bytes) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = |&(_, shift): &(&str, u32)| bytes != 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(whole) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}
