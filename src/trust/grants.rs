//! What each client may do here, and the judgement of what it asks for.
//!
//! Pure: a client, a name and a wish in, a [`Permit`] or a [`Denied`] out. A client names datasets
//! relative to a root that it was granted, and knows of nothing else. Whatever is not granted is
//! denied. What must never happen here: a permit for a dataset outside of the root, or for
//! anything that destroys without the word for it.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;

use super::fingerprint::Fingerprint;
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, Guid, NameError};
use crate::retention::Rules;
use crate::units::{Bytes, Rate};

mod denied;
#[cfg(test)]
mod tests;
mod words;

pub use self::denied::{Denied, Why};
pub use self::words::{BadClientName, ClientName, Operation, Prefix, UnknownOperation};

/// Somebody with a key who may ask for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    name: ClientName,
    fingerprint: Fingerprint,
    grants: Vec<Grant>,
}

/// What a client may do below one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How the client's names for this root begin, where it has more than one.
    pub prefix: Option<Prefix>,
    /// The dataset that it may write below; never the dataset itself.
    pub root: DatasetName,
    /// Which dataset that was when the grant was made: a name may be given to another one later.
    pub root_guid: Option<Guid>,
    /// What it may do there.
    pub allow: BTreeSet<Operation>,
    /// Whether it may send nothing but raw streams, whose blocks this host cannot read.
    pub raw_only: bool,
    /// Which properties may be set there by its streams.
    pub properties: BTreeSet<PropertyName>,
    /// What stays of what is there, whatever the client wants pruned; without it, all.
    pub keep: Option<Rules>,
    /// How much of it.
    pub limits: Limits,
}

/// How much a client may have of this host below one root; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many datasets may be there.
    pub datasets: Option<NonZeroU32>,
    /// How many transfers may run at once.
    pub transfers: Option<NonZeroU32>,
    /// What its streams may take of the spool.
    pub spool: Option<Bytes>,
    /// How fast its streams may come in, all together.
    pub bandwidth: Option<Rate>,
}

/// What a client asks for, of one dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be told what it holds.
    List,
    /// To send it a stream.
    Receive(Receive),
    /// That the datasets above it, which are missing, are made.
    CreateParents,
    /// That what an interrupted receive has left in it is given up.
    AbortPartial,
    /// That its snapshots are pruned.
    Prune,
}

/// What a stream is, as far as grants tell one from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receive {
    /// Whether it builds on a snapshot that is here already, of the same dataset.
    pub incremental: bool,
    /// Whether it is the rest of a stream that was interrupted.
    pub resumed: bool,
    /// Whether its blocks come as they lie on the source's disks.
    pub raw: bool,
}

/// That a wish may be done, where, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    client: ClientName,
    root: DatasetName,
    root_guid: Option<Guid>,
    dataset: DatasetName,
    wish: Wish,
    /// Why datasets above it may not be made.
    parents: Option<Why>,
    properties: BTreeSet<PropertyName>,
    keep: Option<Rules>,
    limits: Limits,
}

/// Why grants cannot stand side by side. The number is the one of the grant that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGrants {
    /// Names would not say which one is meant.
    #[error(
        "a client with more than one grant needs a prefix in each, as in prefix = \"archive\": it \
         then names the datasets of that grant archive/..."
    )]
    NoPrefix(usize),
    /// Names would not say which one is meant.
    #[error("prefix \"{1}\" is the one of another grant of this client: each needs its own")]
    SamePrefix(usize, Prefix),
    /// What one of them denies, the other may allow.
    #[error(
        "root \"{1}\" lies within root \"{2}\" of another grant of this client, which would reach \
         it too: choose roots that lie apart, or give one grant for both"
    )]
    Nested(usize, DatasetName, DatasetName),
    /// Nothing would say what must stay.
    #[error(
        "prune is granted below \"{1}\" without a word of what stays there whatever the client \
         wants: add keep = \"last=7,daily=30\", or what you want"
    )]
    NoFloor(usize, DatasetName),
}

impl Client {
    /// A client with grants that do not contradict each other.
    pub fn new(
        name: ClientName,
        fingerprint: Fingerprint,
        grants: Vec<Grant>,
    ) -> Result<Client, BadGrants> {
        for (number, grant) in grants.iter().enumerate() {
            if grant.prefix.is_none() && grants.len() > 1 {
                return Err(BadGrants::NoPrefix(number));
            }
            if grant.allow.contains(&Operation::Prune) && grant.keep.is_none() {
                return Err(BadGrants::NoFloor(number, grant.root.clone()));
            }
            for earlier in &grants[..number] {
                grant.stands_beside(number, earlier)?;
            }
        }
        Ok(Client { name, fingerprint, grants })
    }

    /// What it is called here.
    pub fn name(&self) -> &ClientName {
        &self.name
    }

    /// The key that it has.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// All that it may do.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Whether a wish about the dataset that the client calls `name` may be done.
    pub fn judge(&self, name: &str, wish: Wish) -> Result<Permit, Denied> {
        let denied = |why| Denied::of(self, name, wish, why);
        let (grant, below) = self.grant_of(name).map_err(denied)?;
        let dataset = grant.dataset(below).map_err(|error| denied(Why::BadName(error)))?;
        if let Some(why) = wish.needs().find_map(|needed| grant.missing(needed)) {
            return Err(denied(why));
        }
        if grant.raw_only && wish.is_readable_stream() {
            return Err(denied(Why::NotRaw(grant.root.clone())));
        }
        Ok(Permit {
            client: self.name.clone(),
            root: grant.root.clone(),
            root_guid: grant.root_guid,
            dataset,
            wish,
            parents: grant.missing(Operation::CreateParents),
            properties: grant.properties.clone(),
            keep: grant.keep.clone(),
            limits: grant.limits,
        })
    }

    /// The grant that a name belongs to, and what of the name is below its root.
    fn grant_of<'a>(&self, name: &'a str) -> Result<(&Grant, &'a str), Why> {
        if let [Grant { prefix: None, .. }] = self.grants.as_slice() {
            return Ok((&self.grants[0], name));
        }
        let (first, below) = name.split_once('/').unwrap_or((name, ""));
        let is_named =
            |grant: &&Grant| grant.prefix.as_ref().is_some_and(|prefix| prefix.as_str() == first);
        match self.grants.iter().find(is_named) {
            Some(grant) if !below.is_empty() => Ok((grant, below)),
            Some(_) => Err(Why::RootItself),
            None if self.grants.is_empty() => Err(Why::NoGrant),
            None => {
                let prefixes = self.grants.iter().filter_map(|grant| grant.prefix.clone());
                Err(Why::NoSuchPrefix(prefixes.collect()))
            }
        }
    }
}

impl BadGrants {
    /// Which of the grants is wrong, counted from 0.
    pub fn number(&self) -> usize {
        match self {
            BadGrants::NoPrefix(number)
            | BadGrants::SamePrefix(number, _)
            | BadGrants::Nested(number, ..)
            | BadGrants::NoFloor(number, _) => *number,
        }
    }
}

impl Grant {
    /// The full name of what a client calls `below`.
    fn dataset(&self, below: &str) -> Result<DatasetName, NameError> {
        self.root.join(below)
    }

    /// Why an operation may not be done.
    fn missing(&self, needed: Operation) -> Option<Why> {
        let grant = || Box::new(self.clone());
        let is_granted = self.allow.contains(&needed);
        (!is_granted).then(|| Why::NotGranted { missing: needed, grant: grant() })
    }

    fn stands_beside(&self, number: usize, earlier: &Grant) -> Result<(), BadGrants> {
        match &self.prefix {
            Some(prefix) if earlier.prefix.as_ref() == Some(prefix) => {
                return Err(BadGrants::SamePrefix(number, prefix.clone()));
            }
            _ => {}
        }
        let (own, other) = (&self.root, &earlier.root);
        if own.is_within(other) {
            Err(BadGrants::Nested(number, own.clone(), other.clone()))
        } else if other.is_within(own) {
            Err(BadGrants::Nested(number, other.clone(), own.clone()))
        } else {
            Ok(())
        }
    }
}

impl Wish {
    /// All that must be granted for it.
    fn needs(self) -> impl Iterator<Item = Operation> {
        let needed = match self {
            Wish::List => [None; 2],
            Wish::Receive(receive) => [
                Some(if receive.incremental {
                    Operation::ReceiveIncremental
                } else {
                    Operation::ReceiveFull
                }),
                receive.resumed.then_some(Operation::Resume),
            ],
            Wish::CreateParents => [Some(Operation::CreateParents), None],
            Wish::AbortPartial => [Some(Operation::AbortPartial), None],
            Wish::Prune => [Some(Operation::Prune), None],
        };
        needed.into_iter().flatten()
    }

    /// Whether it brings data that this host could read.
    fn is_readable_stream(self) -> bool {
        matches!(self, Wish::Receive(Receive { raw: false, .. }))
    }
}

impl fmt::Display for Wish {
    /// What a client may do or not: `list`, `send a full stream to`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receive = match self {
            Wish::List => return f.write_str("list"),
            Wish::CreateParents => return f.write_str("create what is missing above"),
            Wish::AbortPartial => return f.write_str("give up what is partly received in"),
            Wish::Prune => return f.write_str("have pruned the snapshots of"),
            Wish::Receive(receive) => receive,
        };
        f.write_str(if receive.resumed { "send the rest of " } else { "send " })?;
        let form = if receive.incremental { "an incremental" } else { "a full" };
        write!(f, "{form} stream to")
    }
}

impl Permit {
    /// Whose it is.
    pub fn client(&self) -> &ClientName {
        &self.client
    }

    /// What the client's names are relative to.
    pub fn root(&self) -> &DatasetName {
        &self.root
    }

    /// The full name of the dataset; always below the root.
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// How much may be done.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What stays whatever the client wants pruned; `None`: everything.
    pub fn keep(&self) -> Option<&Rules> {
        self.keep.as_ref()
    }

    /// The guid that the root must have, where the grant says so.
    pub fn root_guid(&self) -> Option<Guid> {
        self.root_guid
    }

    /// Whether the root, which now has the guid `found`, is the dataset that was granted.
    pub fn check_root(&self, found: Guid) -> Result<(), Denied> {
        match self.root_guid {
            Some(granted) if granted != found => {
                Err(self.denied(Why::OtherRoot { root: self.root.clone(), granted, found }))
            }
            _ => Ok(()),
        }
    }

    /// Whether datasets above this one may be made.
    pub fn check_parents(&self) -> Result<(), Denied> {
        match &self.parents {
            Some(why) => Err(self.denied_as(Wish::CreateParents, why.clone())),
            None => Ok(()),
        }
    }

    /// Whether this property may be set.
    pub fn check_property(&self, name: &PropertyName) -> Result<(), Denied> {
        if self.properties.contains(name) {
            return Ok(());
        }
        let (root, granted) = (self.root.clone(), self.properties.clone());
        Err(self.denied(Why::Property { missing: name.clone(), granted, root }))
    }

    /// Whether the client, of which so many transfers run below the root, may have one more.
    pub fn check_transfers(&self, running: usize) -> Result<(), Denied> {
        self.check_count("transfers", self.limits.transfers, running.saturating_add(1))
    }

    /// Whether there may be so many datasets below the root.
    pub fn check_datasets(&self, wanted: usize) -> Result<(), Denied> {
        self.check_count("datasets", self.limits.datasets, wanted)
    }

    fn check_count(
        &self,
        key: &'static str,
        limit: Option<NonZeroU32>,
        wanted: usize,
    ) -> Result<(), Denied> {
        match limit {
            Some(limit) if wanted > limit.get() as usize => {
                Err(self.denied(Why::Limit { key, limit, wanted, root: self.root.clone() }))
            }
            _ => Ok(()),
        }
    }

    fn denied(&self, why: Why) -> Denied {
        self.denied_as(self.wish, why)
    }

    fn denied_as(&self, wish: Wish, why: Why) -> Denied {
        Denied::about(&self.client, wish, self.dataset.as_str(), why)
    }
}
