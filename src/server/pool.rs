//! The datasets below one root, as a stream finds and leaves them.
//!
//! All of it drives `zfs`, and blocks. Nothing here is ever rolled back, and nothing destroyed but
//! what an interrupted receive has left, by its token.

use super::beside::Beside;
use super::gate::Gate;
use super::taker::{Prepared, Taker};
use crate::dataset::{DatasetName, Guid, typed};
use crate::error::{Class, Failure, Side};
use crate::process::Ended;
use crate::protocol::message::{DatasetStream, RelativeName};
use crate::token::Token;
use crate::zfs::{Zfs, failure};

/// Datasets below `root`.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The command.
    pub zfs: Zfs,
    /// No client gets out of it.
    pub root: DatasetName,
    /// Nothing but this is received, listed or given up, where something was asked for.
    pub only: Option<Only>,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Only {
    /// This dataset.
    pub dataset: RelativeName,
    /// And all below it.
    pub is_tree: bool,
}

impl Only {
    fn is(&self, name: &RelativeName) -> bool {
        if self.is_tree { name.is_within(&self.dataset) } else { *name == self.dataset }
    }
}

impl Pool {
    /// The full name of what a client names below the root.
    pub(super) fn dataset(&self, name: &RelativeName) -> Result<DatasetName, Failure> {
        if let Some(only) = self.only.as_ref().filter(|only| !only.is(name)) {
            let (got, root, asked) = (name.as_str(), &self.root, only.dataset.as_str());
            let what = format!("{root}/{got} is not what was asked for: {root}/{asked}");
            return Err(refused(&what, "see who has changed zferry on the host that sends"));
        }
        self.root.join(name.as_str()).map_err(|error| {
            Failure::new(Side::Target, Class::Refused, format!("{error}"))
                .with_remedy(format!("name a dataset below the server's root, {}", self.root))
        })
    }

    /// Makes ready what takes a stream into `dataset`.
    pub(super) fn prepare(
        &self,
        dataset: DatasetName,
        stream: &DatasetStream,
        beside: Beside,
    ) -> Prepared {
        let taker = Taker::Gated(Gate::new(self.zfs.clone(), dataset, stream, beside));
        Prepared { taker, kept: None, announced: None }
    }

    /// Whether the target holds what was sent: by what ZFS says of it, whatever its process says.
    /// What the root and the snapshot are now.
    pub(super) fn verify(
        &self,
        dataset: &DatasetName,
        stream: &DatasetStream,
        ended: Option<&Ended>,
    ) -> Result<(Option<Guid>, Guid), Failure> {
        let arrived = self.zfs.arrived(&self.root, dataset, &stream.snapshot);
        let (root, found) = arrived.map_err(|error| error.on(Side::Target))?;
        if found == Some(stream.to) {
            for warning in ended.map(failure::warnings).unwrap_or_default() {
                tracing::warn!(%dataset, warning, "zfs receive complained");
            }
            return Ok((root, stream.to));
        }
        Err(ended.and_then(|ended| failure::of_receive(dataset, ended)).unwrap_or_else(|| {
            let name = dataset.at(&stream.snapshot);
            let what = match found {
                Some(guid) => {
                    format!("{name} has guid {guid} after the receive, not {}", stream.to)
                }
                None => format!("{name} does not exist after a receive that said it went well"),
            };
            Failure::new(Side::Target, Class::Zfs, what)
        }))
    }
}

/// Nothing but the partial state that the client was told of is ever thrown away: whatever else is
/// there by now belongs to somebody else. The caller has the dataset's claim.
pub(super) fn abort(
    zfs: &Zfs,
    dataset: &DatasetName,
    present: Option<&str>,
    token: &str,
) -> Result<(), Failure> {
    if present != Some(token) {
        let what = format!(
            "what an interrupted receive left in {dataset} has changed since it was listed, and \
             was not given up"
        );
        return Err(Failure::new(Side::Target, Class::Interrupted, what));
    }
    zfs.abort_receive(dataset).map_err(|error| error.on(Side::Target))?;
    tracing::warn!(%dataset, "gave up a part of a snapshot, as its client asked");
    Ok(())
}

/// A stream goes on where it was interrupted, or begins where none was. `zfs receive` would say so
/// too, in words that fit every case.
pub(super) fn check_partial_state(
    dataset: &DatasetName,
    present: Option<&str>,
    wanted: &DatasetStream,
) -> Result<(), Failure> {
    // The client lists and plans anew.
    let changed = |what| Err(Failure::new(Side::Target, Class::Interrupted, what));
    match (present, wanted.resumed) {
        (Some(token), true) if !is_of(token, wanted) => changed(format!(
            "{dataset} has a part of another snapshot by now than of @{}, which was to be finished",
            wanted.snapshot
        )),
        (Some(_), true) | (None, false) => Ok(()),
        (None, true) => changed(format!(
            "{dataset} has no partly received snapshot any more that could be finished"
        )),
        (Some(_), false) => Err(refused(
            &format!(
                "{dataset} contains partially-complete state of an interrupted receive, and a new \
                 stream was sent"
            ),
            &format!(
                "finish it with its resume token, or give it up: zfs receive -A {}",
                typed(dataset.as_str())
            ),
        )),
    }
}

/// Whether a token is of the stream that was announced as its rest. One that cannot be read is left
/// to ZFS, which made it: it resumes nothing but what it has a part of.
fn is_of(token: &str, wanted: &DatasetStream) -> bool {
    let of = |token: Token| (token.to, token.from, token.flags.raw);
    token.parse().map_or(true, |token| of(token) == (wanted.to, wanted.from, wanted.raw))
}

fn refused(what: &str, remedy: &str) -> Failure {
    Failure::new(Side::Target, Class::Refused, what).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dataset::Kind;
    use crate::token::example::Example;

    fn stream(resumed: bool) -> DatasetStream {
        DatasetStream {
            target: "a b".parse().unwrap(),
            dataset: Kind::Filesystem,
            snapshot: "s".parse().unwrap(),
            to: Guid(7),
            from: Some(Guid(3)),
            raw: false,
            first: false,
            resumed,
            origin: None,
            properties: BTreeMap::new(),
        }
    }

    #[test]
    fn nothing_is_reached_beside_what_was_asked_for_nor_below_it_if_that_was_no_tree() {
        let pool = |is_tree| {
            let only = Some(Only { dataset: "a/b".parse().unwrap(), is_tree });
            Pool { zfs: Zfs::at("/nowhere/zfs"), root: "backup".parse().unwrap(), only }
        };
        let reach = |is_tree, name: &str| pool(is_tree).dataset(&name.parse().unwrap());
        assert_eq!(reach(false, "a/b").unwrap().as_str(), "backup/a/b");
        for below in ["a/b/c", "a/b/c/d e"] {
            assert_eq!(reach(true, below).unwrap().as_str(), format!("backup/{below}"));
            assert_eq!(reach(false, below).unwrap_err().class, Class::Refused, "{below}");
        }
        for other in ["a", "a/bc", "a/c/b", "c", "a/B", "b"] {
            for is_tree in [false, true] {
                assert_eq!(reach(is_tree, other).unwrap_err().class, Class::Refused, "{other}");
            }
        }
    }

    #[test]
    fn a_rest_of_another_stream_is_not_taken() {
        let dataset: DatasetName = "backup/a".parse().unwrap();
        for other in [
            Example::of(Some(3), 8, "tank/a@s"),
            Example::of(Some(4), 7, "tank/a@s"),
            Example::of(None, 7, "tank/a@s"),
            Example::of(Some(3), 7, "tank/a@s").with("rawok"),
        ] {
            let refused = check_partial_state(&dataset, Some(&other.token()), &stream(true));
            assert_eq!(refused.unwrap_err().class, Class::Interrupted, "{other:?}");
        }
    }

    #[test]
    fn a_rest_needs_partial_state_and_a_whole_stream_none() {
        let dataset: DatasetName = "backup/a b".parse().unwrap();
        let check = |present: Option<&str>, resumed| {
            check_partial_state(&dataset, present, &stream(resumed))
        };
        let token = Example::of(Some(3), 7, "tank/a@s").token();
        assert_eq!((check(Some(&token), true), check(None, false)), (Ok(()), Ok(())));
        assert_eq!(check(Some("1-unreadable"), true), Ok(()));
        let gone = check(None, true).unwrap_err();
        assert_eq!(gone.class, Class::Interrupted, "{gone}");
        let in_the_way = check(Some(&token), false).unwrap_err();
        assert_eq!(in_the_way.class, Class::Refused, "{in_the_way}");
        assert!(in_the_way.remedy.unwrap().contains("zfs receive -A 'backup/a b'"));
    }
}
