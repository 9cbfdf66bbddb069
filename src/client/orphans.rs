//! What interrupted copies have left on this host, and whether somebody is still at it.
//!
//! A hold outlives the run that set it, so that the next run finds its snapshots; a copy that is
//! never run again leaves it for ever. What must never happen here: a hold of somebody else's, or
//! one of a copy that runs, is taken off.

use std::fs;

use super::hold::tag_of;
use crate::dataset::DatasetName;
use crate::token::{Token, TokenError};
use crate::zfs::leftover::Held;
use crate::zfs::{Zfs, ZfsError};

/// All that was left, at or below some dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// Snapshots that are held.
    pub held: Vec<HeldSnapshot>,
    /// Datasets that have a part of a snapshot.
    pub partly: Vec<PartlyReceived>,
}

/// A snapshot that is held for a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSnapshot {
    /// The hold.
    pub held: Held,
    /// Whether a `zferry replicate` of this dataset to the target of the tag runs on this host, as
    /// far as can be told: one in a container of its own is not seen.
    pub running: bool,
}

/// A dataset that has a part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartlyReceived {
    /// The dataset.
    pub dataset: DatasetName,
    /// What its token says.
    pub token: Result<Token, TokenError>,
}

/// Looks for all that was left at or below `within`, or on the whole host.
pub fn find(zfs: &Zfs, within: Option<&DatasetName>) -> Result<Orphans, ZfsError> {
    // Before the holds: a copy that ends meanwhile has taken its own off.
    let commands = running_commands();
    let held = zfs.our_holds(within)?.into_iter().map(|held| {
        let running = commands.iter().any(|words| is_copy_of(words, &held));
        HeldSnapshot { held, running }
    });
    let held = held.collect();
    let partly = zfs.partly_received(within)?.into_iter().map(|partly| {
        let token = partly.token.parse();
        PartlyReceived { dataset: partly.dataset, token }
    });
    Ok(Orphans { held, partly: partly.collect() })
}

/// Takes one hold off.
pub fn release(zfs: &Zfs, held: &Held) -> Result<(), ZfsError> {
    zfs.release(&held.dataset, std::slice::from_ref(&held.snapshot), &held.tag)
}

/// Whether a hold belongs to the copy of this source to this target, as they were typed: of the
/// source itself or of a dataset below it.
pub fn is_of(held: &Held, source: &str, target: &str) -> bool {
    let Some(below) = held.dataset.as_str().strip_prefix(source) else { return false };
    let is_there = below.is_empty() || below.starts_with('/');
    is_there
        && [target.to_owned(), format!("{target}{below}")].iter().any(|to| tag_of(to) == held.tag)
}

/// Whether a command line is a copy that this hold belongs to.
fn is_copy_of(words: &[String], held: &Held) -> bool {
    let Some((program, words)) = words.split_first() else { return false };
    let is_zferry = program.rsplit('/').next() == Some("zferry");
    let says = |wanted: &str| words.iter().any(|word| word == wanted);
    let names_target = || words.iter().any(|word| tag_of(word) == held.tag);
    is_zferry && says("replicate") && says(held.dataset.as_str()) && names_target()
}

/// The command lines of all processes that we may see.
fn running_commands() -> Vec<Vec<String>> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let lines = processes
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| split_words(&line)).collect()
}

fn split_words(line: &[u8]) -> Vec<String> {
    let line = String::from_utf8_lossy(line);
    line.split_terminator('\0').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_known_by_source_and_target_of_its_job() {
        let held = |dataset: &str, target: &str| Held {
            dataset: dataset.parse().unwrap(),
            snapshot: "s".parse().unwrap(),
            tag: tag_of(target),
            since: String::new(),
        };
        let is_ours = |held: &Held| is_of(held, "tank/a", "vault/a");
        assert!(is_ours(&held("tank/a", "vault/a")));
        assert!(is_ours(&held("tank/a/b", "vault/a/b")) && is_ours(&held("tank/a/b", "vault/a")));
        for (dataset, target) in [
            ("tank/ab", "vault/ab"),
            ("tank/a", "vault/b"),
            ("tank/b", "vault/a"),
            ("tank", "vault"),
        ] {
            assert!(!is_ours(&held(dataset, target)), "{dataset} {target}");
        }
    }

    #[test]
    fn a_copy_is_known_by_its_program_dataset_and_target() {
        let held = Held {
            dataset: "tank/a".parse().unwrap(),
            snapshot: "s".parse().unwrap(),
            tag: tag_of("zferry://h:1/my data"),
            since: String::new(),
        };
        for (line, expected) in [
            ("/usr/bin/zferry\0replicate\0tank/a\0zferry://h:1/my data\0--plain\0", true),
            ("zferry\0-v\0replicate\0--plain\0tank/a\0zferry://h:1/my data\0", true),
            ("zferry\0replicate\0tank/a\0zferry://h:1/other\0", false),
            ("zferry\0replicate\0tank/b\0zferry://h:1/my data\0", false),
            ("zferry\0status\0tank/a\0zferry://h:1/my data\0", false),
            ("vim\0replicate\0tank/a\0zferry://h:1/my data\0", false),
            ("", false),
        ] {
            assert_eq!(is_copy_of(&split_words(line.as_bytes()), &held), expected, "{line:?}");
        }
    }
}
