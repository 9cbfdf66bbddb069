//! A tree of 10,000 datasets with 100 snapshots each: what a run costs before the first byte moves,
//! from the words of `zfs list` on both sides to the tasks. It must take less than 2 seconds, and
//! less than 500 MB of memory.
//!
//! `cargo bench --bench plan_tree`.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use zferry::dataset::DatasetName;
use zferry::listing::TargetTree;
use zferry::pattern::Chosen;
use zferry::plan::tree::{Tree, Verdict, plan_tree};
use zferry::plan::{Goal, Policy};
use zferry::zfs::Zfs;

const DATASETS: usize = 10_000;
const SNAPSHOTS: usize = 100;

/// What both sides may take together.
const TIME_MAX: Duration = Duration::from_secs(2);
const MEMORY_BYTES_MAX: u64 = 500_000_000;

/// A `zfs` that lists a tree below `pool/t`, in which the last `missing` snapshots of each dataset
/// are not there.
fn zfs(folder: &Path, pool: &str, missing: usize) -> Zfs {
    let (mut datasets, mut points) = (String::new(), String::new());
    let name = |number: usize| match number {
        0 => format!("{pool}/t"),
        number => format!("{pool}/t/group-{:02}/host-{number:05}", number % 50),
    };
    let groups = (0..50).map(|group| format!("{pool}/t/group-{group:02}"));
    let all = groups.chain((0..DATASETS - 50).map(name));
    let all: Vec<String> = all.collect();
    for (number, name) in all.iter().enumerate() {
        let (guid, end) = (number + 1, if pool == "tank" { "off\t-\t-" } else { "off\t-" });
        writeln!(datasets, "{name}\tfilesystem\t{guid}\t{end}").unwrap();
    }
    // In the order of their making, as a schedule takes them.
    for snapshot in 0..SNAPSHOTS - missing {
        for (number, name) in all.iter().enumerate() {
            let guid = 1_000_000_000_000 + number * SNAPSHOTS + snapshot;
            let txg = 5000 * snapshot + 17;
            writeln!(points, "{name}@zferry_2026-11-{snapshot:02}T00:00:00Z\t{guid}\t{txg}")
                .unwrap();
        }
    }
    let at = |file: &str| folder.join(format!("{pool}-{missing}-{file}"));
    fs::write(at("datasets"), datasets).unwrap();
    fs::write(at("points"), points).unwrap();
    let script = format!(
        "#!/bin/sh\ncase $* in *snapshot*) exec cat {} ;; *) exec cat {} ;; esac\n",
        at("points").display(),
        at("datasets").display()
    );
    let program: PathBuf = at("zfs");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    Zfs::at(program)
}

fn planned(source: &Zfs, target: &Zfs) -> Tree {
    let root = |pool: &str| -> DatasetName { format!("{pool}/t").parse().unwrap() };
    let listed = source.source_tree(&root("tank")).unwrap();
    let target =
        TargetTree { root: root("backup"), datasets: target.target_tree(&root("backup")).unwrap() };
    let policy = Policy { goal: Goal::Newest, intermediates: true, chosen: Chosen::default() };
    plan_tree(listed, target, &policy, &[]).unwrap()
}

fn peak_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

fn trees(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let source = zfs(folder.path(), "tank", 0);
    let mut group = c.benchmark_group("plan of 10,000 datasets with 100 snapshots each");
    for (name, missing, streams) in
        [("nothing new", 0, 0), ("one new each", 1, 1), ("all of them", SNAPSHOTS - 1, 99)]
    {
        let target = zfs(folder.path(), "backup", missing);
        group.bench_function(name, |b| {
            b.iter(|| {
                let begun = Instant::now();
                let tree = planned(&source, &target);
                // Only a build that people run has to be quick.
                assert!(cfg!(debug_assertions) || begun.elapsed() < TIME_MAX);
                assert_eq!(tree.tasks.len(), DATASETS);
                assert!(tree.tasks.iter().all(|task| match task.verdict {
                    Verdict::UpToDate(_) => streams == 0,
                    Verdict::Carry(count) => count == streams,
                    Verdict::Refused(_) => false,
                }));
            });
        });
    }
    group.finish();
    let peak = peak_rss_bytes();
    println!("peak memory: {} MB", peak / 1_000_000);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = trees
}
criterion_main!(benches);
