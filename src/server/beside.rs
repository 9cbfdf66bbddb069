//! What comes with a stream besides its data: what it is a clone of, and properties.
//!
//! Judged when the client asks, before anything is received. What must never happen here: a clone
//! of a dataset that its client may not reach, and a property that is not of the list.

use crate::dataset::property::{BadProperty, Properties};
use crate::dataset::{DatasetName, Guid, SnapName};
use crate::error::{Class, Failure, Side};
use crate::protocol::message::{DatasetStream, RelativeName};
use crate::zfs::Zfs;

/// What comes with a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    /// What the stream makes a clone of.
    pub origin: Option<Origin>,
    /// What shall be set.
    pub properties: Properties,
}

/// A snapshot below the root of its client.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    dataset: DatasetName,
    snapshot: SnapName,
    guid: Guid,
}

impl Beside {
    /// What comes with `stream`; `reach` says which dataset a name stands for, if the client may
    /// reach that.
    pub fn of(
        stream: &DatasetStream,
        reach: impl FnOnce(&RelativeName) -> Result<DatasetName, Failure>,
    ) -> Result<Beside, Failure> {
        let told = stream.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let properties =
            Properties::checked(told, stream.dataset).map_err(|bad| not_taken(&bad))?;
        let Some(origin) = &stream.origin else { return Ok(Beside { origin: None, properties }) };
        if stream.from != Some(origin.guid) {
            let what = "a clone was announced that builds on another snapshot than its origin";
            return Err(Failure::new(Side::Source, Class::Peer, what));
        }
        let (snapshot, guid) = (origin.snapshot.clone(), origin.guid);
        let origin = Origin { dataset: reach(&origin.dataset)?, snapshot, guid };
        Ok(Beside { origin: Some(origin), properties })
    }
}

impl Origin {
    /// Its full name.
    pub fn name(&self) -> String {
        self.dataset.at(&self.snapshot)
    }

    /// Makes sure that it is there and is the one that was meant. ZFS asks once more: it makes a
    /// clone of the snapshot that the stream names by guid, or none.
    pub fn check(&self, zfs: &Zfs, root: &DatasetName) -> Result<(), Failure> {
        let arrived = zfs.arrived(root, &self.dataset, &self.snapshot);
        let (_, found) = arrived.map_err(|error| error.on(Side::Target))?;
        let (name, wanted) = (self.name(), self.guid);
        let what = match found {
            Some(found) if found == wanted => return Ok(()),
            Some(found) => {
                format!("a clone of {name} was announced, which has guid {found} and not {wanted}")
            }
            None => format!("a clone of {name} was announced, which does not exist"),
        };
        Err(Failure::new(Side::Target, Class::Refused, what).with_remedy(
            "run it again: what both sides hold is looked at anew, and a clone without its origin \
             is sent as a dataset of its own",
        ))
    }
}

/// Before any data: what was asked for would be there only in part.
fn not_taken(bad: &BadProperty) -> Failure {
    Failure::new(Side::Target, Class::Refused, bad.to_string()).with_remedy(bad.remedy())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dataset::Kind;
    use crate::protocol::message::CloneOf;

    fn stream(origin: Option<CloneOf>, properties: &[(&str, &str)]) -> DatasetStream {
        let text = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        DatasetStream {
            target: "a".parse().unwrap(),
            dataset: Kind::Volume,
            snapshot: "s".parse().unwrap(),
            to: Guid(7),
            from: Some(Guid(3)),
            raw: false,
            first: true,
            resumed: false,
            origin: origin.map(Box::new),
            properties: properties.iter().map(text).collect::<BTreeMap<_, _>>(),
        }
    }

    fn of(stream: &DatasetStream) -> Result<Beside, Failure> {
        let root: DatasetName = "backup".parse().unwrap();
        Beside::of(stream, |name| Ok(root.join(name.as_str()).unwrap()))
    }

    #[test]
    fn a_clone_builds_on_its_origin_and_on_nothing_else() {
        let origin = |guid| CloneOf {
            dataset: "o".parse().unwrap(),
            snapshot: "t".parse().unwrap(),
            guid: Guid(guid),
        };
        let beside = of(&stream(Some(origin(3)), &[])).unwrap();
        assert_eq!(beside.origin.unwrap().name(), "backup/o@t");
        let odd = of(&stream(Some(origin(4)), &[])).unwrap_err();
        assert_eq!((odd.side, odd.class), (Side::Source, Class::Peer), "{odd}");
        assert!(of(&stream(None, &[])).unwrap().origin.is_none());
    }

    #[test]
    fn what_may_not_travel_is_refused_with_its_name_and_what_to_do() {
        for (name, value) in [
            ("mountpoint", "/etc"),
            ("recordsize", "131072"),
            ("zferry:replicate", "off"),
            ("compression", "a\nb"),
        ] {
            let refused = of(&stream(None, &[("copies", "2"), (name, value)])).unwrap_err();
            assert_eq!((refused.side, refused.class), (Side::Target, Class::Refused));
            assert!(refused.what.contains(&format!("'{name}'")), "{refused}");
            assert!(refused.remedy.unwrap().contains("--properties"));
        }
        let taken = of(&stream(None, &[("copies", "2"), ("a:b", "c d")])).unwrap();
        assert_eq!(taken.properties.iter().count(), 2);
    }
}
