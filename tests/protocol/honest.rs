//! Two honest ends: whatever the pieces, the order of events and the failures, they agree.

use proptest::prelude::*;
use zferry::dataset::{Guid, Kind};
use zferry::error::Failure;
use zferry::listing::{Snapshot, TargetState};
use zferry::units::TransferId;

use crate::arbitrary;
use crate::pair::{Job, PRUNED, Pair, Step, target, tree};

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let job = prop_oneof![
        Just(Job::List),
        Just(Job::ListTree),
        Just(Job::Abort),
        Just(Job::Prune),
        (0..100_u64, any::<bool>()).prop_map(|(bytes, dataset)| Job::Send { bytes, dataset }),
    ];
    (prop::collection::vec(job, 0..6), any::<bool>()).prop_map(|(mut jobs, bye)| {
        jobs.extend(bye.then_some(Job::Bye));
        jobs
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..400_usize).prop_map(Step::ToServer),
        (0..400_usize).prop_map(Step::ToClient),
        (1..60_u64).prop_map(Step::ClientActs),
        (1..60_u64).prop_map(Step::ServerActs),
        prop_oneof![
            3 => Just(Step::Cut),
            1 => Just(Step::LoseAnswer),
            1 => Just(Step::ClientDies),
            1 => Just(Step::ServerDies),
        ],
    ]
}

fn script() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..120)
}

fn transfers(jobs: &[Job]) -> Vec<TransferId> {
    let count = jobs.iter().filter(|job| matches!(job, Job::Send { .. })).count();
    (1..=u32::try_from(count).unwrap()).map(TransferId).collect()
}

/// Whether the client was through with everything and said so: nobody is left to be told.
fn left(jobs: &[Job], pair: &Pair) -> bool {
    matches!(jobs.last(), Some(Job::Bye)) && pair.client.applied == transfers(jobs)
}

fn play(jobs: &[Job], snapshots: u64, script: &[Step]) -> Pair {
    let mut pair = Pair::new(jobs, target(snapshots));
    for step in script {
        pair.step(step.clone());
    }
    pair.settle();
    assert_eq!(pair.misbehaved, [], "an honest end was blamed");
    pair
}

/// `script` with a failure put in at `at`.
fn broken(script: &[Step], at: prop::sample::Index, failing: Step) -> Vec<Step> {
    let mut script = script.to_vec();
    script.insert(at.index(script.len() + 1), failing);
    script
}

proptest! {
    #[test]
    fn every_job_is_done_over_whatever_connections_and_by_however_many_processes(
        jobs in jobs(), snapshots in prop_oneof![0..3_u64, Just(300)], script in script(),
    ) {
        let pair = play(&jobs, snapshots, &script);
        prop_assert_eq!(&pair.client.applied, &transfers(&jobs));
        prop_assert_eq!(&pair.server.applied, &transfers(&jobs));
        let lists = jobs.iter().filter(|job| matches!(job, Job::List)).count();
        prop_assert_eq!(&pair.client.listed, &vec![target(snapshots); lists]);
        let trees = jobs.iter().filter(|job| matches!(job, Job::ListTree)).count();
        prop_assert_eq!(&pair.client.trees, &vec![tree(&target(snapshots)); trees]);
        let aborts = jobs.iter().filter(|job| matches!(job, Job::Abort)).count();
        prop_assert_eq!(pair.client.aborted, aborts);
        let prunes = jobs.iter().filter(|job| matches!(job, Job::Prune)).count();
        prop_assert_eq!(&pair.client.pruned, &vec![PRUNED; prunes]);
        prop_assert_eq!(&pair.client.failed, &None);
        prop_assert_eq!(&pair.server.abandoned, &None);
        let bye = matches!(jobs.last(), Some(Job::Bye));
        prop_assert_eq!((pair.both_closed(), pair.both_idle()), (bye, !bye));
    }

    #[test]
    fn a_failure_of_the_server_reaches_the_client_and_never_as_a_success(
        jobs in jobs(), script in script(), at in any::<prop::sample::Index>(),
        failure in arbitrary::failure(),
    ) {
        let script = broken(&script, at, Step::ServerFails(failure.clone()));
        let pair = play(&jobs, 2, &script);
        prop_assert!(pair.both_closed());
        // What was reported before it is all that was applied, and nothing more.
        prop_assert_eq!(&pair.client.applied, &pair.server.applied);
        let parted_before = left(&jobs, &pair);
        prop_assert!(pair.client.failed == Some(failure) || parted_before);
    }

    #[test]
    fn a_failure_of_the_client_reaches_the_server(
        jobs in jobs(), script in script(), at in any::<prop::sample::Index>(),
        failure in arbitrary::failure(),
    ) {
        let script = broken(&script, at, Step::ClientFails(failure.clone()));
        let pair = play(&jobs, 2, &script);
        prop_assert!(pair.both_closed());
        prop_assert_eq!(&pair.client.failed, &None);
        // The last success may have been on its way when the client left: it is not claimed.
        let claimed = pair.client.applied.len();
        let applied = pair.server.applied.len();
        prop_assert!(claimed == applied || claimed + 1 == applied, "{claimed} of {applied}");
        let parted_before = left(&jobs, &pair);
        prop_assert!(pair.server.abandoned == Some(failure) || parted_before);
    }

    #[test]
    fn failures_of_both_leave_both_closed(
        jobs in jobs(), script in script(),
        at in any::<[prop::sample::Index; 2]>(),
        failures in (arbitrary::failure(), arbitrary::failure()),
    ) {
        let (client, server): (Failure, Failure) = failures;
        let script = broken(&script, at[0], Step::ClientFails(client));
        let script = broken(&script, at[1], Step::ServerFails(server));
        let pair = play(&jobs, 2, &script);
        prop_assert!(pair.both_closed());
        let claimed = &pair.client.applied;
        prop_assert!(pair.server.applied.starts_with(claimed));
    }
}

/// A dataset whose snapshots take far more pages than may come at once.
fn large() -> TargetState {
    let snapshot = |number: u64| Snapshot {
        name: format!("{number:0>250}").parse().unwrap(),
        guid: Guid(u64::MAX - number),
        createtxg: number,
    };
    let snapshots = (0..3000).map(snapshot).collect();
    TargetState::Present { kind: Kind::Filesystem, encrypted: true, snapshots, resume_token: None }
}

#[test]
fn a_large_tree_comes_as_far_as_its_client_lets_it_and_over_whatever_connections() {
    let mut pair = Pair::new(&[Job::ListTree, Job::Send { bytes: 9, dataset: true }], large());
    let mut most = 0;
    for step in 0..10_000 {
        pair.step(Step::ToServer(usize::MAX));
        pair.step(Step::ServerActs(9));
        most = most.max(pair.bytes_to_client());
        // Now and then a page is lost with its connection, here or there in it.
        pair.step(Step::ToClient(200_000 + step));
        if step % 7 == 6 {
            pair.step(Step::Cut);
        }
        pair.step(Step::ClientActs(9));
        if pair.client.trees.len() == 1 {
            break;
        }
    }
    assert_eq!(pair.client.trees, [tree(&large())]);
    pair.settle();
    assert_eq!((&pair.misbehaved[..], &pair.client.applied[..]), (&[][..], &[TransferId(1)][..]));
    // 64 pages of 64 KiB, of eight megabytes.
    assert!(most <= 65 * (64 << 10) && most > 60 * (60 << 10), "{most} bytes on their way");
}
