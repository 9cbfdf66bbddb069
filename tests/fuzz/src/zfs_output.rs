//! What `zfs` prints: listings, estimates, holds, tokens and versions.

use zferry::dataset::{DatasetName, Kind};
use zferry::listing::{SourceDataset, TargetState};
use zferry::zfs::printed;

use crate::Target;

/// A list of all lines, and each of them printed anew.
pub const TARGET: Target = Target { run, allocated_bytes_max: 512 << 10 };

/// Lines of a tree that receives.
const TARGETS: u8 = b'T';

/// Lines of a tree that is to be replicated.
const SOURCES: u8 = b'S';

/// Lines of snapshots and bookmarks of all kinds of datasets.
const POINTS: u8 = b'P';

/// Which answer it is, and the answer.
fn run(input: &[u8]) {
    let Some((which, text)) = input.split_first() else { return };
    let text = &*String::from_utf8_lossy(text);
    match which % 8 {
        // Inputs of old keep their meaning.
        _ if *which == TARGETS => text.lines().for_each(check_target),
        _ if *which == SOURCES => text.lines().for_each(check_source),
        _ if *which == POINTS => text.lines().for_each(check_point),
        0 => check_head(text),
        1 => check_points(text),
        2 => text.lines().for_each(check_size),
        3 => text.lines().for_each(check_hold),
        4 => text.lines().for_each(check_token),
        5 => text.lines().for_each(check_tag),
        6 => check_version(text),
        _ => text.lines().for_each(check_candidate),
    }
}

fn check_head(text: &str) {
    let Some((kind, value)) = printed::head(text) else { return };
    let kind = match kind {
        Kind::Filesystem => "filesystem",
        Kind::Volume => "volume",
    };
    assert_eq!(format!("{kind}\t{value}\n"), text);
    assert!(!value.is_empty() && value.lines().count() == 1, "{value:?}");
}

/// All lines are read, or none; what was read says the same if it is printed again.
fn check_points(text: &str) {
    let dataset: DatasetName = "tank/a b".parse().expect("it is a name");
    let Some((snapshots, bookmarks)) = printed::points(text, &dataset) else { return };
    assert_eq!(snapshots.len() + bookmarks.len(), text.lines().count());
    assert!(snapshots.is_sorted_by_key(|snapshot| snapshot.createtxg));
    assert!(bookmarks.is_sorted_by_key(|bookmark| bookmark.createtxg));
    let again: String = snapshots
        .iter()
        .map(|s| format!("{}\t{}\t{}\n", dataset.at(&s.name), s.guid.0, s.createtxg))
        .chain(bookmarks.iter().map(|b| {
            format!("{dataset}#{}\t{}\t{}\n", b.name.as_str(), b.guid.0, b.createtxg)
        }))
        .collect();
    assert_eq!(printed::points(&again, &dataset), Some((snapshots, bookmarks)));
}

fn check_target(line: &str) {
    let Some((name, guid, state)) = printed::target(line) else { return };
    let TargetState::Present { kind, encrypted, snapshots, resume_token } = state else {
        panic!("it was printed, and is absent: {line:?}")
    };
    assert!(snapshots.is_empty());
    let columns: Vec<&str> = line.split('\t').collect();
    let guid = guid.0.to_string();
    let zeros = columns[2].trim_start_matches(['0', '+']);
    assert_eq!((name, &*kind.to_string()), (columns[0], columns[1]));
    assert!(zeros == guid || zeros.is_empty() && guid == "0", "{line:?}");
    assert_eq!(encrypted, !["off", "-"].contains(&columns[3]));
    assert_eq!(resume_token.as_deref().unwrap_or("-"), columns[4]);
    assert_eq!(columns.len(), 5);
}

fn check_source(line: &str) {
    let columns: Vec<&str> = line.splitn(6, '\t').collect();
    match printed::source(line) {
        None => {}
        Some(Ok(SourceDataset { state, origin, excluded, .. })) => {
            let (name, kind) = (state.dataset.as_str(), state.kind.to_string());
            assert_eq!((name, &*kind), (columns[0], columns[1]));
            assert_eq!(state.encrypted, !["off", "-"].contains(&columns[3]));
            let origin = origin.map(|of| of.dataset.at(&of.snapshot));
            assert_eq!(origin.as_deref().unwrap_or("-"), columns[4]);
            assert_eq!(excluded, ["off", "false", "no"].contains(&columns[5]));
        }
        Some(Err(told)) => assert!(told.to_string().contains("zferry:replicate"), "{told}"),
    }
}

fn check_point(line: &str) {
    let Some((dataset, snapshot, bookmark)) = printed::any_point(line) else { return };
    assert!(snapshot.is_some() != bookmark.is_some());
    let named = snapshot.map(|one| format!("{dataset}@{}", one.name));
    let named = named.or_else(|| bookmark.map(|one| format!("{dataset}#{}", one.name)));
    assert_eq!(named.as_deref(), line.split('\t').next());
}

fn check_size(line: &str) {
    let Some(size) = printed::size(line) else { return };
    assert_eq!(printed::size(&format!("size\t{}", size.0)), Some(size));
}

fn check_hold(line: &str) {
    let Some((dataset, snapshot, tag, since)) = printed::hold(line) else { return };
    let front = format!("{}\t{tag}\t", dataset.at(&snapshot));
    assert!(line.starts_with(&front), "{line:?}");
    assert!(!since.contains('\t'), "{since:?}");
}

fn check_token(line: &str) {
    let Some((dataset, token)) = printed::token(line) else { return };
    assert_eq!(format!("{dataset}\t{token}"), line);
}

fn check_tag(line: &str) {
    let Some(tag) = printed::tag(line) else { return };
    assert!(line.contains(&format!("\t{tag}\t")), "{line:?}");
}

fn check_candidate(line: &str) {
    let dataset: DatasetName = "tank/a b".parse().expect("it is a name");
    let Some(found) = printed::candidate(line, &dataset) else { return };
    let snapshot = &found.snapshot;
    let clones = if found.cloned { "tank/c" } else { "-" };
    let again = format!(
        "{}\t{}\t{}\t{}\t{}\t{clones}",
        dataset.at(&snapshot.name),
        snapshot.guid,
        snapshot.createtxg,
        found.created.as_second(),
        found.holds
    );
    assert_eq!(printed::candidate(&again, &dataset), Some(found));
}

fn check_version(text: &str) {
    let Some(version) = printed::version(text) else { return };
    for release in version.kernel.iter().chain([&version.userland]) {
        assert!(text.contains(&release.text), "{release}");
        assert!(release.text.starts_with(|digit: char| digit.is_ascii_digit()), "{release}");
    }
}
