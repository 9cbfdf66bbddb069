//! Destroys snapshots that are to go, by name and guid, and says which are gone.
//!
//! The only file that says `zfs destroy`, and it says it of snapshots alone: never with `-r`, `-R`,
//! `-f` or `-d`. A name may have been given to another snapshot since the decision, so each call
//! comes right after a listing, and what is another one by its guid there, or held or cloned by
//! now, stays. What is gone is seen in the next listing, whatever `zfs` says. Between a listing and
//! its call there are milliseconds that nothing can close: `zfs` takes no guids.

use std::collections::HashMap;

use jiff::Timestamp;

use super::command::Output;
use super::{Zfs, ZfsError, failure, texts};
use crate::dataset::{DatasetName, Guid, NAME_BYTES_MAX, SnapName};
use crate::listing::Snapshot;
use crate::retention::{Candidate, Stays};

/// How many snapshots one call destroys: `zfs` takes them in one argument.
const SNAPSHOTS_PER_CALL: usize = 256;

/// What Linux takes as one argument, with the NUL at its end (`MAX_ARG_STRLEN`).
const ARGUMENT_BYTES_MAX: usize = 128 << 10;

const _: () = assert!((SNAPSHOTS_PER_CALL + 1) * (NAME_BYTES_MAX + 1) < ARGUMENT_BYTES_MAX);

/// What became of snapshots that were to go.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// Those that were there and are gone.
    pub gone: Vec<SnapName>,
    /// Those that stay for now.
    pub stay: Vec<Stays>,
    /// Why no more was tried.
    pub error: Option<ZfsError>,
}

impl Zfs {
    /// All snapshots of a dataset, oldest first, with what ties them to the pool. Slower than
    /// [`Zfs::source_state`]: `zfs` reads the properties of each.
    pub fn candidates(&self, dataset: &DatasetName) -> Result<Vec<Candidate>, ZfsError> {
        let (columns, dataset_text) =
            ("name,guid,createtxg,creation,userrefs,clones", dataset.as_str());
        let list = self.ask(&[
            "list",
            "-Hp",
            "-t",
            "snapshot",
            "-d1",
            "-o",
            columns,
            "-s",
            "createtxg",
            "--",
            dataset_text,
        ])?;
        list.read_lines(|line| read_candidate(line, dataset))
    }

    /// Destroys snapshots of one dataset, which has been listed just now. What is held, cloned, in
    /// use or another one by now stays.
    pub fn destroy_snapshots(
        &self,
        dataset: &DatasetName,
        listed: Vec<Candidate>,
        doomed: &[Snapshot],
    ) -> Destroyed {
        let mut destroyed = Destroyed::default();
        if !doomed.is_empty() {
            let done = self.destroy_all(dataset, listed, doomed, &mut destroyed);
            destroyed.error = destroyed.error.or(done.err());
        }
        destroyed
    }

    fn destroy_all(
        &self,
        dataset: &DatasetName,
        listed: Vec<Candidate>,
        doomed: &[Snapshot],
        destroyed: &mut Destroyed,
    ) -> Result<(), ZfsError> {
        let mut there = by_guid(listed);
        let mut batches: Vec<Vec<Snapshot>> =
            doomed.chunks(SNAPSHOTS_PER_CALL).rev().map(<[Snapshot]>::to_vec).collect();
        while let Some(batch) = batches.pop() {
            let batch = still_to_go(batch, &there, &mut destroyed.stay);
            if batch.is_empty() {
                continue;
            }
            let answer = self.run(&arguments(dataset, &batch))?;
            there = by_guid(self.candidates(dataset)?);
            let (left, gone): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|snapshot| there.contains_key(&snapshot.guid));
            destroyed.gone.extend(gone.iter().map(|snapshot| snapshot.name.clone()));
            if left.is_empty() {
                continue;
            }
            if !answer.ended.success() && !is_for_now(&answer) {
                return Err(answer.failed());
            }
            // One that cannot go keeps all of its call.
            match left.as_slice() {
                [only] => destroyed.stay.push(Stays {
                    snapshot: only.name.clone(),
                    why: failure::words(&answer.ended),
                }),
                _ if gone.is_empty() => {
                    let (first, second) = left.split_at(left.len() / 2);
                    batches.extend([second.to_vec(), first.to_vec()]);
                }
                _ => batches.push(left),
            }
        }
        Ok(())
    }
}

fn arguments(dataset: &DatasetName, batch: &[Snapshot]) -> [String; 3] {
    let names: Vec<&str> = batch.iter().map(|snapshot| snapshot.name.as_str()).collect();
    ["destroy".to_owned(), "--".to_owned(), format!("{dataset}@{}", names.join(","))]
}

/// What of a batch is still what was decided on, and may go.
fn still_to_go(
    batch: Vec<Snapshot>,
    there: &HashMap<Guid, Candidate>,
    stay: &mut Vec<Stays>,
) -> Vec<Snapshot> {
    let why = |snapshot: &Snapshot| match there.get(&snapshot.guid)? {
        found if found.snapshot.name != snapshot.name => {
            Some(format!("it is called {} now", found.snapshot.name))
        }
        found if found.holds > 0 => Some("it is held".to_owned()),
        found if found.cloned => Some("something was cloned from it".to_owned()),
        _ => None,
    };
    // Where there is none of this guid, somebody else was quicker.
    let mut to_go = batch;
    to_go.retain(|snapshot| match why(snapshot) {
        Some(why) => {
            stay.push(Stays { snapshot: snapshot.name.clone(), why });
            false
        }
        None => there.contains_key(&snapshot.guid),
    });
    to_go
}

fn by_guid(candidates: Vec<Candidate>) -> HashMap<Guid, Candidate> {
    candidates.into_iter().map(|candidate| (candidate.snapshot.guid, candidate)).collect()
}

/// Whether what was in the way may pass.
fn is_for_now(answer: &Output) -> bool {
    texts::STAYS.iter().any(|text| answer.ended.stderr.contains(text))
}

/// Reads `pool/a@name<TAB>GUID<TAB>CREATETXG<TAB>CREATION<TAB>USERREFS<TAB>CLONES`.
pub(super) fn read_candidate(line: &str, dataset: &DatasetName) -> Option<Candidate> {
    let mut columns = line.split('\t');
    let name = columns.next()?.strip_prefix(dataset.as_str())?.strip_prefix('@')?.parse().ok()?;
    let (guid, createtxg) = (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?);
    let created = Timestamp::from_second(columns.next()?.parse().ok()?).ok()?;
    let holds = columns.next()?.parse().ok()?;
    // Where there is none, some versions print nothing and some a dash.
    let cloned = !matches!(columns.next()?, "" | "-");
    columns.next().is_none().then_some(())?;
    Some(Candidate { snapshot: Snapshot { name, guid, createtxg }, created, holds, cloned })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, guid: u64) -> Candidate {
        let line = format!("tank/a@{name}\t{guid}\t7\t1785585600\t0\t-");
        read_candidate(&line, &"tank/a".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_line_says_whether_a_snapshot_is_held_or_cloned() {
        let dataset = "tank/a b".parse().unwrap();
        let read = |rest: &str| {
            read_candidate(&format!("tank/a b@s 1\t{}\t8\t{rest}", u64::MAX), &dataset)
        };
        let plain = read("1785585600\t0\t-").unwrap();
        assert_eq!(plain.snapshot.name.as_str(), "s 1");
        assert_eq!((plain.snapshot.guid, plain.snapshot.createtxg), (Guid(u64::MAX), 8));
        assert_eq!(plain.created.to_string(), "2026-08-01T12:00:00Z");
        assert_eq!((plain.holds, plain.cloned), (0, false));
        assert!(!read("1785585600\t0\t").unwrap().cloned);
        let tied = read("1785585600\t2\ttank/c,tank/d").unwrap();
        assert_eq!((tied.holds, tied.cloned), (2, true));
        for rest in ["1785585600\t0", "1785585600\t-\t-", "x\t0\t-", "1785585600\t0\t-\t"] {
            assert_eq!(read(rest), None, "{rest:?}");
        }
        assert_eq!(read_candidate("tank/c@s\t1\t2\t3\t0\t-", &dataset), None);
    }

    #[test]
    fn only_what_is_still_what_was_decided_on_is_named() {
        let mut held = candidate("held", 1);
        held.holds = 1;
        let mut cloned = candidate("cloned", 2);
        cloned.cloned = true;
        let renamed = candidate("new", 3);
        let reused = candidate("reused", 40);
        let there = by_guid(vec![held, cloned, renamed, reused, candidate("fine", 5)]);
        let doomed = [("held", 1), ("cloned", 2), ("old", 3), ("reused", 4), ("fine", 5)];
        let doomed = doomed.map(|(name, guid)| candidate(name, guid).snapshot);
        let mut stay = Vec::new();
        let to_go = still_to_go(doomed.to_vec(), &there, &mut stay);
        assert_eq!(to_go, [candidate("fine", 5).snapshot]);
        let said: Vec<&str> = stay.iter().map(|stays| stays.why.as_str()).collect();
        assert_eq!(said, ["it is held", "something was cloned from it", "it is called new now"]);
    }
}
