//! The whole of both sides under a virtual clock, with everything going wrong that can.
//!
//! The pure code is the program's own: machines, journal, envelope, windows, signs of life,
//! frames, records, recovery, segments, keeper and decision. Around it stand models of the
//! network, the disks and ZFS, and drivers as thin as the program's loops. A run is decided by its
//! seed alone. Every step is judged, by the pieces themselves and by what really happened.
//!
//! ```text
//! cargo test --test simulate                              some seeds, and all that ever failed
//! ZFERRY_SEED=7 ZFERRY_SEEDS=1 ZFERRY_TRACE=1 cargo test --test simulate random -- --nocapture
//! ```

mod aftermath;
mod breakage;
mod client;
mod disk;
mod environment;
mod faults;
mod line;
mod met;
mod network;
mod random;
mod recorder;
mod remains;
mod server;
mod source;
mod target;
mod terms;
mod truth;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use breakage::Breakage;
use met::Met;
use world::{Summary, run};

/// As many as a debug build can play within seconds.
const SEEDS: u64 = 1000;

/// Within so many seeds everything happens that can, wherever they begin.
const SEEDS_UNTIL_MET: u64 = 5000;

/// Within so many seeds every broken rule is noticed.
const SEEDS_UNTIL_NOTICED: u64 = 1500;

/// Seeds that found something once, with what it was; they are played before all others.
const PAST: &str = include_str!("seeds.txt");

thread_local! {
    /// What this thread's run broke; empty while it runs, `None` where a panic is a panic.
    static BROKE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Plays a seed; fails with what went wrong.
fn played(seed: u64, broken: Option<Breakage>) -> Result<Summary, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let quiet = BROKE.with_borrow_mut(|broke| {
                broke.as_mut().map(|broke| *broke = info.to_string()).is_some()
            });
            if !quiet {
                loud(info);
            }
        }));
    });
    let trace = std::env::var_os("ZFERRY_TRACE").is_some();
    BROKE.set(Some(String::new()));
    let played = panic::catch_unwind(|| run(seed, broken, trace));
    let broke = BROKE.take().unwrap_or_default();
    played.map_err(|_| broke)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// What became of many seeds.
#[derive(Default)]
struct Played {
    /// How many copies the target holds now.
    done: u64,
    /// In how many runs each case was met.
    met: BTreeMap<Met, u64>,
    failed: Vec<(u64, String)>,
}

impl Played {
    fn add(&mut self, seed: u64, played: Result<Summary, String>) {
        match played {
            Ok(summary) => {
                self.done += u64::from(summary.done);
                for met in summary.met {
                    *self.met.entry(met).or_default() += 1;
                }
            }
            Err(what) => self.failed.push((seed, what)),
        }
    }

    fn join(mut self, other: Played) -> Played {
        self.done += other.done;
        for (met, count) in other.met {
            *self.met.entry(met).or_default() += count;
        }
        self.failed.extend(other.failed);
        self
    }
}

/// Plays the seeds from `first` on, over all cores, until several have failed.
fn play_all(first: u64, count: u64) -> Played {
    let next = AtomicU64::new(0);
    let play = || {
        let mut all = Played::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count || all.failed.len() >= 3 {
                return all;
            }
            let seed = first.wrapping_add(at);
            all.add(seed, played(seed, None));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(play)).collect();
        let played = threads.into_iter().map(|thread| thread.join().expect("a player"));
        played.fold(Played::default(), Played::join)
    })
}

fn assert_none(failed: &[(u64, String)]) {
    for (seed, what) in failed {
        println!(
            "seed {seed}: {what}\n  repeat it: ZFERRY_SEED={seed} ZFERRY_SEEDS=1 ZFERRY_TRACE=1 \
             cargo test --test simulate random -- --nocapture\n  and add it to \
             tests/simulate/seeds.txt"
        );
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
}

#[test]
fn a_seed_that_failed_once_is_played_for_ever() {
    let seeds = PAST.lines().filter_map(|line| line.split_whitespace().next());
    let seeds = seeds.filter(|word| !word.starts_with('#'));
    let failed: Vec<(u64, String)> = seeds
        .map(|seed| seed.parse().expect("a seed at the front of each line"))
        .filter_map(|seed| played(seed, None).err().map(|what| (seed, what)))
        .collect();
    assert_none(&failed);
}

#[test]
fn random_faults_never_lose_a_byte_nor_feed_one_twice_nor_stop_the_copy() {
    let begun = Instant::now();
    let (first, count) = (number("ZFERRY_SEED"), number("ZFERRY_SEEDS"));
    let usual = first.is_none() && count.is_none();
    let (first, count) = (first.unwrap_or(1), count.unwrap_or(SEEDS));
    let Played { done, met, failed } = play_all(first, count);
    println!("{count} seeds from {first} on: {done} copies done in {:?}", begun.elapsed());
    println!("met: {met:?}");
    assert_none(&failed);
    if usual || count >= SEEDS_UNTIL_MET {
        let missed: Vec<Met> = met::ALL.into_iter().filter(|one| !met.contains_key(one)).collect();
        assert_eq!(missed, [], "what no run came by");
        assert!(done * 100 >= count * 80, "hardly a copy is ever done");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..20 {
        assert_eq!(played(seed, None), played(seed, None), "seed {seed}");
    }
}

#[test]
fn whatever_rule_is_broken_is_noticed() {
    let unnoticed: Vec<Breakage> = breakage::ALL
        .into_iter()
        .filter(|&rule| {
            let found = (0..SEEDS_UNTIL_NOTICED)
                .find_map(|seed| played(seed, Some(rule)).err().map(|what| (seed, what)));
            println!("{rule:?}: {found:?}");
            found.is_none()
        })
        .collect();
    assert_eq!(unnoticed, [], "broken rules that nothing noticed");
}

#[test]
fn a_run_takes_no_time_at_all() {
    let took: Duration = (0..20).filter_map(|seed| played(seed, None).ok()).map(|s| s.took).sum();
    assert!(took > Duration::from_secs(20), "the clock is virtual: {took:?}");
}
