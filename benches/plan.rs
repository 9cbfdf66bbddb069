//! Planning for a dataset with 10,000 snapshots: what a run costs before the first byte moves.
//!
//! `cargo bench --bench plan`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use zferry::dataset::Kind;
use zferry::listing::{Snapshot, SourceState, TargetState};
use zferry::pattern::Chosen;
use zferry::plan::{Goal, Plan, Policy, plan};

const SNAPSHOTS: usize = 10_000;

/// Hourly snapshots since a year ago, as a listing gives them.
fn source() -> SourceState {
    let snapshot = |hour: usize| Snapshot {
        name: format!("hourly-{hour:05}").parse().unwrap(),
        guid: (0x1_0000_0000 + hour).to_string().parse().unwrap(),
        createtxg: 720 * hour as u64,
    };
    SourceState {
        dataset: "tank/a".parse().unwrap(),
        kind: Kind::Filesystem,
        encrypted: false,
        snapshots: (0..SNAPSHOTS).map(snapshot).collect(),
        bookmarks: Vec::new(),
        origin: None,
    }
}

fn holding(source: &SourceState, count: usize) -> TargetState {
    let snapshots = source.snapshots[..count].to_vec();
    TargetState::Present { kind: source.kind, encrypted: false, snapshots, resume_token: None }
}

fn plans(c: &mut Criterion) {
    let source = source();
    let target_name = "backup/a".parse().unwrap();
    let policy = Policy { goal: Goal::Newest, intermediates: true, chosen: Chosen::default() };
    let mut group = c.benchmark_group("plan of 10,000 snapshots");
    for (name, target, steps) in [
        ("all to an empty target", TargetState::Absent, SNAPSHOTS),
        ("the second half", holding(&source, SNAPSHOTS / 2), SNAPSHOTS / 2),
        ("the last one", holding(&source, SNAPSHOTS - 1), 1),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                match plan(black_box(&source), &target_name, black_box(&target), &policy).unwrap() {
                    Plan::Steps(planned) => assert_eq!(planned.len(), steps),
                    Plan::UpToDate { .. } | Plan::Resume(_) => panic!("{steps} steps are missing"),
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = plans
}
criterion_main!(benches);
