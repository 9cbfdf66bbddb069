//! Each pruning, of datasets with a snapshot of each day; and the table that a page shows.

use std::time::Duration;

use zferry::retention::Template;

use super::{calls, dataset, typed_pages};
use crate::support::host::{Ended, Running, zferry_on};
use crate::support::stand_in::StandIn;

/// Far more than the rules of any page keep.
const DAYS: u32 = 60;

fn run(host: &StandIn, words: &[String]) -> Ended {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Running::start(&mut zferry_on(host, &words)).ended().succeeded()
}

/// What the word behind a flag says.
fn value<'a>(words: &'a [String], flag: &str) -> Option<&'a String> {
    words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1))
}

/// Runs it, and demands that it has done what it says.
fn prune(words: &[String]) {
    let host = StandIn::new();
    let name = words.iter().find(|word| word.contains('/')).unwrap();
    let template: Template =
        value(words, "--template").map_or_else(Template::default, |text| text.parse().unwrap());
    dataset(&host, name);
    host.snapshot(name, "by-hand", b"x");
    for day in 0..DAYS {
        let at = jiff::Timestamp::from_second(1_600_000_000).unwrap()
            + Duration::from_secs(86400 * u64::from(day));
        host.snapshot(name, template.name_at(at).unwrap().as_str(), b"x");
    }
    let before = host.snapshots(name);

    let ended = run(&host, words);
    let said = String::from_utf8(ended.stdout).unwrap();
    let left = host.snapshots(name);
    if words.iter().any(|word| word == "-n") {
        assert!(said.contains("would be destroyed"), "{said}");
        assert_eq!(left, before);
    } else {
        assert!(left.len() < before.len(), "{said}");
    }
    assert!(left.contains(&"by-hand".to_owned()));
}

#[test]
fn every_pruning_is_done() {
    let prunings = calls("prune");
    let prunings = prunings.iter().filter(|words| words.iter().any(|word| word.contains('/')));
    let count = prunings.inspect(|words| prune(words)).count();
    assert!(count > 5, "{count}");
}

#[test]
fn the_table_of_the_page_is_what_is_printed() {
    let block = typed_pages().find_map(|page| {
        page.blocks("").find(|block| block.contains("VERDICT")).map(str::to_owned)
    });
    let block = block.unwrap();
    let (typed, printed) = block.split_once('\n').unwrap();
    let words: Vec<String> = typed.split(' ').skip(2).map(str::to_owned).collect();
    let host = StandIn::new();
    let mut rows: Vec<&str> = printed.lines().filter(|line| line.contains('@')).collect();
    rows.reverse();
    for row in rows {
        let [snapshot, created] =
            row.split_whitespace().take(2).collect::<Vec<_>>().try_into().unwrap();
        let (name, snapshot) = snapshot.split_once('@').unwrap();
        dataset(&host, name);
        host.snapshot(name, snapshot, b"x");
        host.was_created(
            &format!("{name}@{snapshot}"),
            created.parse::<jiff::Timestamp>().unwrap().as_second(),
        );
    }
    assert_eq!(String::from_utf8(run(&host, &words).stdout).unwrap(), printed);
}
