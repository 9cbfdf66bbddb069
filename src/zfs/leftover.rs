//! Finds what interrupted transfers have left on this host: holds of ours, and parts of snapshots.
//!
//! Nothing but listing. Whether something is still needed is for others to say, and taking a hold
//! off is [`Zfs::release`]'s, which takes tags of ours alone.

use super::hold::Tag;
use super::{Zfs, ZfsError};
use crate::dataset::{DatasetName, SnapName};

/// How many snapshots one call is asked about: names of 255 bytes, far below what a command line
/// may hold.
const NAMES_PER_CALL: usize = 200;

/// A snapshot that some zferry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its dataset.
    pub dataset: DatasetName,
    /// Its name behind the `@`.
    pub snapshot: SnapName,
    /// Of the hold.
    pub tag: Tag,
    /// Since when: in UTC, or as a `zfs` older than 2.3 prints it.
    pub since: String,
}

/// A dataset that has a part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partly {
    /// The dataset.
    pub dataset: DatasetName,
    /// ZFS's resume token.
    pub token: String,
}

impl Zfs {
    /// All holds that some zferry has set on this host, at or below `within` where that is given.
    pub fn our_holds(&self, within: Option<&DatasetName>) -> Result<Vec<Held>, ZfsError> {
        let mut held = Vec::new();
        for names in self.snapshots_with_holds(within)?.chunks(NAMES_PER_CALL) {
            held.extend(self.our_holds_of(names)?);
        }
        Ok(held)
    }

    /// All datasets of this host that have a part of a snapshot, at or below `within`.
    pub fn partly_received(&self, within: Option<&DatasetName>) -> Result<Vec<Partly>, ZfsError> {
        let columns = "name,receive_resume_token";
        let list = self.ask(&listing("filesystem,volume", columns, within))?;
        let mut found = Vec::new();
        for line in list.text.lines() {
            let (dataset, token) = read_token(line).ok_or_else(|| list.unreadable(line))?;
            if token != "-" {
                found.push(Partly { dataset, token: token.to_owned() });
            }
        }
        Ok(found)
    }

    fn snapshots_with_holds(&self, within: Option<&DatasetName>) -> Result<Vec<String>, ZfsError> {
        let list = self.ask(&listing("snapshot", "name,userrefs", within))?;
        let mut names = Vec::new();
        for line in list.text.lines() {
            let (name, count) = line.split_once('\t').ok_or_else(|| list.unreadable(line))?;
            let count: u64 = count.parse().map_err(|_| list.unreadable(line))?;
            if count > 0 {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn our_holds_of(&self, names: &[String]) -> Result<Vec<Held>, ZfsError> {
        let call = |option: &str| {
            let words = ["holds", option, "--"].into_iter();
            self.run(&words.chain(names.iter().map(String::as_str)).collect::<Vec<_>>())
        };
        let mut answer = call("-Hp")?;
        if answer.failed_with("invalid option") {
            answer = call("-H")?;
        }
        if !answer.ended.success() {
            return Err(answer.failed());
        }
        let mut held = Vec::new();
        for line in answer.text.lines() {
            let (dataset, snapshot, tag, since) =
                read_hold(line).ok_or_else(|| answer.unreadable(line))?;
            let ours = Tag::read(tag);
            held.extend(ours.map(|tag| Held { dataset, snapshot, tag, since: read_time(since) }));
        }
        Ok(held)
    }
}

fn listing<'a>(types: &'a str, columns: &'a str, within: Option<&'a DatasetName>) -> Vec<&'a str> {
    let mut words = vec!["list", "-Hp", "-t", types, "-o", columns];
    if let Some(dataset) = within {
        words.extend(["-r", "--", dataset.as_str()]);
    }
    words
}

/// Reads `pool/a@name<TAB>TAG<TAB>SINCE`.
pub(super) fn read_hold(line: &str) -> Option<(DatasetName, SnapName, &str, &str)> {
    let mut columns = line.split('\t');
    let (name, tag, since) = (columns.next()?, columns.next()?, columns.next()?);
    let (dataset, snapshot) = name.split_once('@')?;
    Some((dataset.parse().ok()?, snapshot.parse().ok()?, tag, since))
}

/// Seconds since 1970 as a time of day; any other text as it is.
pub(super) fn read_time(text: &str) -> String {
    let seconds = text.parse().ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| text.to_owned(), |time| time.to_string())
}

/// Reads `pool/a<TAB>TOKEN`; the token is `-` where there is none.
pub(super) fn read_token(line: &str) -> Option<(DatasetName, &str)> {
    let (dataset, token) = line.split_once('\t')?;
    (!token.is_empty()).then_some(())?;
    Some((dataset.parse().ok()?, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_has_a_snapshot_a_tag_and_a_time() {
        let (dataset, snapshot, tag, since) = read_hold("tank/a b@s 1\tzferry:h:1/a\t17").unwrap();
        assert_eq!((dataset.as_str(), snapshot.as_str()), ("tank/a b", "s 1"));
        assert_eq!((tag, since), ("zferry:h:1/a", "17"));
        for line in ["", "tank/a@s", "tank/a@s\tzferry:x", "tank/a\tzferry:x\t1", "a;b@s\tx\t1"] {
            assert_eq!(read_hold(line), None, "{line:?}");
        }
    }

    #[test]
    fn times_of_an_old_zfs_are_shown_as_they_are() {
        assert_eq!(read_time("1785585600"), "2026-08-01T12:00:00Z");
        assert_eq!(read_time("Sat Aug  1 12:00 2026"), "Sat Aug  1 12:00 2026");
        assert_eq!(read_time("99999999999999999"), "99999999999999999");
    }

    #[test]
    fn a_dataset_stands_before_its_token() {
        assert_eq!(read_token("tank/a\t-").unwrap().1, "-");
        assert_eq!(read_token("tank/a\t1-f-8-78").unwrap().1, "1-f-8-78");
        for line in ["", "tank/a", "tank/a\t", "a;b\t-"] {
            assert_eq!(read_token(line), None, "{line:?}");
        }
    }
}
