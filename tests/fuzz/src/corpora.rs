//! Plays every input that was worth keeping, without libFuzzer: what was found once stays found.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::TARGETS;

/// No input takes longer.
const LIMIT: Duration = Duration::from_secs(1);

/// What a corpus may be: it is cloned by everybody.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 300 << 10;

/// What is allocated is counted for all threads together.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_input_that_was_kept_keeps_all_promises() {
    let _alone = ALONE.lock();
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        for path in inputs_of(name) {
            let input = fs::read(&path).unwrap();
            let is_fast = || {
                let begun = Instant::now();
                target.check(&input);
                begun.elapsed() < LIMIT
            };
            // A busy machine may be slow once.
            if !catch_unwind(|| is_fast() || is_fast()).unwrap_or(false) {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "panicked or took longer than {LIMIT:?}: {broken:#?}");
}

/// A target without a program is never fuzzed, and one without inputs begins from nothing.
#[test]
fn every_target_has_a_program_and_a_small_corpus() {
    let _alone = ALONE.lock();
    let manifest = fs::read_to_string(here().join("Cargo.toml")).unwrap();
    let programs: Vec<&str> = manifest.split("[[bin]]\nname = \"").skip(1).collect();
    assert_eq!(programs.len(), TARGETS.len());
    for (name, _) in TARGETS {
        assert!(programs.iter().any(|text| text.starts_with(&format!("{name}\""))), "{name}");
        let program = fs::read_to_string(here().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!(" zferry_fuzz::{name}::TARGET.check(input)")), "{name}");
        let inputs = inputs_of(name);
        let bytes: u64 = inputs.iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!((1..=FILES_MAX).contains(&inputs.len()), "{name} has {} inputs", inputs.len());
        assert!(bytes <= BYTES_MAX, "the corpus of {name} has {bytes} bytes");
    }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn inputs_of(name: &str) -> Vec<PathBuf> {
    let folder = here().join("corpus").join(name);
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}
