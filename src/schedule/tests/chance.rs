//! Whatever may happen to jobs, in any order.

use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;

use super::super::trigger::later;
use super::*;

/// What may happen next in the world.
#[derive(Clone, Debug)]
enum Event {
    Pass(u16),
    End(usize, u8),
    Jump(i32),
    Write(u64),
    Configure(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..4000_u16).prop_map(Event::Pass),
        4 => (any::<usize>(), 0..3_u8).prop_map(|(which, how)| Event::End(which, how)),
        1 => (-200_000..200_000_i32).prop_map(Event::Jump),
        1 => (0..3_u64).prop_map(Event::Write),
        1 => any::<u8>().prop_map(Event::Configure),
    ]
}

proptest! {
    #[test]
    fn nothing_is_forgotten_and_nothing_runs_twice(
        parallel in 1..=3_usize, events in prop::collection::vec(event(), 1..80),
    ) {
        let all = [
            ("a", Trigger { jitter: 5 * MINUTE, ..every(HOUR) }),
            ("b", every(15 * MINUTE)),
            ("c", Trigger { written: written(Bytes(2)).written, ..every(2 * HOUR) }),
        ];
        let mut world = World::new(parallel, &all);
        let parallel = NonZeroUsize::new(parallel).unwrap();
        world.obey();
        for event in events {
            match event {
                // `pass` and `obey` look that no job runs twice, and that nobody is woken in vain.
                Event::Pass(seconds) => world.pass(Duration::from_secs(seconds.into())),
                Event::End(which, how) if !world.running.is_empty() => {
                    let job = world.running[which % world.running.len()].clone();
                    let how = [well(), interrupted(), failed()][usize::from(how)].clone();
                    world.end(job.as_str(), how);
                    world.obey();
                }
                Event::End(..) => {}
                Event::Jump(seconds) => {
                    let by = jiff::SignedDuration::from_secs(seconds.into());
                    world.now.wall = world.now.wall.checked_add(by).unwrap();
                    world.obey();
                }
                Event::Write(bytes) => world.written = Bytes(bytes),
                Event::Configure(kept) => {
                    let kept = all.iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1);
                    let jobs = kept.map(|(_, (job, trigger))| (name(job), trigger.clone()));
                    let now = world.now;
                    world.scheduler.configure(jobs, parallel, now, |_| History::default());
                    world.obey();
                }
            }
            let now = world.now.wall;
            for (job, _, next) in world.scheduler.jobs() {
                let waits = !world.running.contains(job) && world.running.len() < parallel.get();
                let overdue = next.is_some_and(|next| next <= now);
                prop_assert!(!waits || !overdue, "{job} is due since {next:?}, it is {now}");
                let soon = next.is_none_or(|next| next <= later(now, 2 * HOUR + 5 * MINUTE));
                prop_assert!(soon, "{job} would wait until {next:?}, it is {now}");
            }
        }
    }
}
