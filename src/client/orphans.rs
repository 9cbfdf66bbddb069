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
    /// Whether the copy that it is for runs on this host.
    pub running: Running,
}

/// Whether a copy runs, as far as can be told: one in a container of its own is not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// Nothing that could be it.
    No,
    /// Some host fetches something by ssh. What that is, `zferry deliver` has heard on its stdin.
    Perhaps,
    /// It does.
    Yes,
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
        let running = running(&commands, &held);
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

/// Whether one of these command lines is the copy that a hold belongs to.
fn running(commands: &[Vec<String>], held: &Held) -> Running {
    if commands.iter().any(|words| is_copy_of(words, held)) {
        return Running::Yes;
    }
    let is_perhaps = is_of_ssh(held) && commands.iter().any(|words| runs("deliver", words));
    if is_perhaps { Running::Perhaps } else { Running::No }
}

/// Whether a command line is a copy that this hold belongs to. Flags may stand between source and
/// target: any two words may be the pair.
fn is_copy_of(words: &[String], held: &Held) -> bool {
    let is_of_pair = |source: &String| words.iter().any(|target| is_of(held, source, target));
    runs("replicate", words) && words.iter().any(is_of_pair)
}

/// Whether the target is another host's as ssh knows it, `[USER@]HOST:POOL/DATASET`: a copy that
/// is fetched has such a one.
fn is_of_ssh(held: &Held) -> bool {
    let target = held.tag.transfer();
    target.contains(':') && !target.contains("://")
}

/// Whether a command line is this command of ours.
fn runs(command: &str, words: &[String]) -> bool {
    let Some((program, words)) = words.split_first() else { return false };
    program.rsplit('/').next() == Some("zferry") && words.iter().any(|word| word == command)
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

    fn held(dataset: &str, target: &str) -> Held {
        Held {
            dataset: dataset.parse().unwrap(),
            snapshot: "s".parse().unwrap(),
            tag: tag_of(target),
            since: String::new(),
        }
    }

    #[test]
    fn a_copy_is_known_by_its_program_dataset_and_target() {
        let whole = held("tank/a", "zferry://h:1/my data");
        let below = held("tank/a/b", "zferry://h:1/my data/b");
        for (line, expected) in [
            ("/usr/bin/zferry\0replicate\0tank/a\0zferry://h:1/my data\0--plain\0", true),
            ("zferry\0-v\0replicate\0--plain\0tank/a\0-r\0zferry://h:1/my data\0", true),
            ("zferry\0replicate\0tank/a\0zferry://h:1/other\0", false),
            ("zferry\0replicate\0tank/b\0zferry://h:1/my data\0", false),
            ("zferry\0status\0tank/a\0zferry://h:1/my data\0", false),
            ("vim\0replicate\0tank/a\0zferry://h:1/my data\0", false),
            ("", false),
        ] {
            for held in [&whole, &below] {
                let is_seen = is_copy_of(&split_words(line.as_bytes()), held);
                assert_eq!(is_seen, expected, "{line:?} {held:?}");
            }
        }
        let of_child = split_words(b"zferry\0replicate\0tank/a/b\0zferry://h:1/my data/b\0");
        assert!(is_copy_of(&of_child, &below) && !is_copy_of(&of_child, &whole));
    }

    #[test]
    fn while_another_host_fetches_whatever_is_held_for_one_by_ssh_may_be_it() {
        let commands = [split_words(b"zferry\0-v\0deliver\0")];
        for (target, expected) in [
            ("laptop:backup/a", Running::Perhaps),
            ("zferry://laptop/a", Running::No),
            ("backup/a", Running::No),
        ] {
            assert_eq!(running(&commands, &held("tank/a", target)), expected, "{target}");
            assert_eq!(running(&[], &held("tank/a", target)), Running::No);
        }
    }
}
