//! What `zfs` prints: listings, estimates, holds, tokens and versions.

use zferry::dataset::{DatasetName, Kind};
use zferry::zfs::printed;

use crate::Target;

/// A list of all lines, and each of them printed anew.
pub const TARGET: Target = Target { run, allocated_bytes_max: 512 << 10 };

/// Which answer it is, and the answer.
fn run(input: &[u8]) {
    let Some((which, text)) = input.split_first() else { return };
    let text = &*String::from_utf8_lossy(text);
    match which % 7 {
        0 => check_head(text),
        1 => check_points(text),
        2 => text.lines().for_each(check_size),
        3 => text.lines().for_each(check_hold),
        4 => text.lines().for_each(check_token),
        5 => text.lines().for_each(check_tag),
        _ => check_version(text),
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

fn check_version(text: &str) {
    let Some(version) = printed::version(text) else { return };
    for release in version.kernel.iter().chain([&version.userland]) {
        assert!(text.contains(&release.text), "{release}");
        assert!(release.text.starts_with(|digit: char| digit.is_ascii_digit()), "{release}");
    }
}
