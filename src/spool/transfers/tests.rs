//! What is found in a folder, and what is removed from it.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::breakpoint::identity::{RecordSequence, SessionId};
use crate::breakpoint::record::{Job, Mark, State as Life};
use crate::dataset::Guid;
use crate::listing::Snapshot;
use crate::spool::record_file::{Existing, RecordFile};
use crate::units::{StreamOffset, TransferId};

const ONE: Cargo = Cargo::Snapshot { to: Guid(1), from: None, raw: false, resumed: false };
const TWO: Cargo = Cargo::Snapshot { to: Guid(2), from: Some(Guid(1)), raw: false, resumed: false };

/// A state folder whose records are `number`ed.
struct State(TempDir);

impl State {
    fn new() -> State {
        let state = State(tempfile::tempdir_in("/var/tmp").unwrap());
        fs::create_dir(transfers(state.0.path())).unwrap();
        state
    }

    fn open(&self) -> Transfers {
        Transfers::open(self.0.path(), Backend::Threads).unwrap()
    }

    fn records_of(&self, number: u8) -> PathBuf {
        transfers(self.0.path()).join(format!("{}.breakpoint", FileId([number; 16])))
    }

    /// A transfer of the job "a" that came to `bytes`; it runs for as long as what comes back.
    fn transfer(&self, number: u8, epoch: u32, cargo: Cargo, progress: Progress) -> RecordFile {
        let (id, path) = (FileId([number; 16]), self.records_of(number));
        let mut file = RecordFile::create(&path, id, Existing::Refuse, Backend::Threads).unwrap();
        let (job, transfer) = ("a".to_owned(), String::new());
        Names::new(Role::Client, job, transfer).write(&Names::beside(&path)).unwrap();
        let (role, session) = (Role::Client, SessionId([7; 16]));
        let record = Record {
            file: id,
            ring: RingSlots::STANDARD,
            sequence: RecordSequence::FIRST,
            parent: None,
            job: Job { role, session, transfer: TransferId(1), epoch, cargo },
            progress,
            boot: BootId::default(),
            wall_clock_ms: 0,
        };
        file.write(&record).unwrap();
        file
    }

    /// The numbers of the records that are there; each has names.
    fn numbers(&self) -> Vec<u8> {
        let here = |number: &u8| self.records_of(*number).exists();
        let numbers: Vec<u8> = (0..=255).filter(here).collect();
        let files = fs::read_dir(transfers(self.0.path())).unwrap().count();
        assert_eq!(files, 2 * numbers.len(), "names and records do not go together");
        numbers
    }
}

fn at(bytes: u64) -> Progress {
    let mark = Mark { to: StreamOffset(bytes), crc32: u32::from(bytes > 0) };
    Progress { received: mark.to, fed: mark.to, acknowledged: mark, ..Progress::BEGUN }
}

fn finished(state: Life) -> Progress {
    let acknowledged = at(5).acknowledged;
    Progress { state, end: Some(acknowledged), ..at(5) }
}

#[test]
fn what_is_finished_or_never_began_is_removed_and_what_was_interrupted_stays() {
    let state = State::new();
    let running = state.transfer(1, 1, ONE, finished(Life::Applied));
    drop(state.transfer(2, 1, ONE, finished(Life::Applied)));
    drop(state.transfer(3, 1, ONE, finished(Life::Ended)));
    drop(state.transfer(4, 1, ONE, at(0)));
    let nameless = state.records_of(5);
    drop(state.transfer(5, 1, ONE, at(0)));
    fs::remove_file(Names::beside(&nameless)).unwrap();
    fs::write(Names::beside(&state.records_of(6)), "{}").unwrap();
    fs::write(state.records_of(7).with_extension("names.new"), "").unwrap();
    let id = FileId([8; 16]);
    drop(RecordFile::create(&state.records_of(8), id, Existing::Refuse, Backend::Threads));
    fs::copy(Names::beside(&state.records_of(3)), Names::beside(&state.records_of(8))).unwrap();
    state.open();
    assert_eq!(state.numbers(), [1, 3, 4]);
    drop(running);
    state.open();
    assert_eq!(state.numbers(), [3, 4]);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let state = State::new();
    let foreign = ["a.names", "notes.txt", "x.breakpoint", "0123.names.new"];
    let folder = transfers(state.0.path());
    for name in foreign {
        fs::write(folder.join(name), "").unwrap();
    }
    state.open();
    assert!(foreign.iter().all(|name| folder.join(name).exists()));
    assert!(list(state.0.path()).unwrap().is_empty());
}

#[test]
fn only_so_many_interrupted_transfers_are_kept_and_the_newest_of_them() {
    let state = State::new();
    let count = u8::try_from(KEPT_MAX).unwrap() + 3;
    for number in 0..count {
        drop(state.transfer(number, 1, ONE, at(5)));
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - u64::from(number));
        let file = File::options().write(true).open(state.records_of(number)).unwrap();
        file.set_modified(written).unwrap();
    }
    state.open();
    assert_eq!(state.numbers(), (0..count - 3).collect::<Vec<u8>>());
    assert_eq!(list(state.0.path()).unwrap()[0].path, state.records_of(0));
}

#[test]
fn the_last_interruption_of_the_same_snapshot_is_found_and_the_highest_epoch_of_the_job() {
    let state = State::new();
    drop(state.transfer(1, 3, ONE, at(900)));
    drop(state.transfer(2, 4, ONE, at(500)));
    drop(state.transfer(3, 5, ONE, at(0)));
    drop(state.transfer(4, 9, TWO, at(700)));
    let folder = state.open();
    let past = folder.past(Role::Client, "a", ONE);
    let interrupted_at = InterruptedAt { epoch: 4, offset: StreamOffset(500), crc32: 1 };
    assert_eq!(past, Past { epoch: 9, interrupted_at: Some(interrupted_at) });
    for past in [folder.past(Role::Client, "b", ONE), folder.past(Role::Server, "a", ONE)] {
        assert_eq!(past, Past::default());
    }
    assert_eq!(folder.past(Role::Client, "a", Cargo::Pipe).interrupted_at, None);
}

#[test]
fn a_newer_transfer_of_the_job_takes_the_place_of_those_that_do_not_run() {
    let state = State::new();
    let running = state.transfer(1, 1, ONE, at(1));
    drop(state.transfer(2, 2, TWO, at(1)));
    drop(state.transfer(3, 3, TWO, at(1)));
    let folder = state.open();
    folder.supersede(Role::Client, "b", FileId([3; 16])).unwrap();
    folder.supersede(Role::Server, "a", FileId([3; 16])).unwrap();
    assert_eq!(state.numbers(), [1, 2, 3]);
    folder.supersede(Role::Client, "a", FileId([3; 16])).unwrap();
    assert_eq!(state.numbers(), [1, 3]);
    drop(running);
}

#[test]
fn records_of_a_snapshot_that_the_target_holds_are_forgotten() {
    let state = State::new();
    drop(state.transfer(1, 1, ONE, at(1)));
    drop(state.transfer(2, 2, TWO, at(1)));
    let held = Snapshot { name: "s".parse().unwrap(), guid: Guid(1), createtxg: 1 };
    let kind = crate::dataset::Kind::Volume;
    let target =
        TargetState::Present { kind, encrypted: false, snapshots: vec![held], resume_token: None };
    let folder = state.open();
    folder.forget_arrived(Role::Client, "b", &target);
    folder.forget_arrived(Role::Client, "a", &TargetState::Absent);
    assert_eq!(state.numbers(), [1, 2]);
    folder.forget_arrived(Role::Client, "a", &target);
    assert_eq!(state.numbers(), [2]);
}

#[test]
fn a_tree_that_holds_snapshots_has_the_records_of_each_forgotten() {
    let state = State::new();
    drop(state.transfer(1, 1, ONE, at(1)));
    drop(state.transfer(2, 2, TWO, at(1)));
    let folder = state.open();
    let holds = |dataset: &str, guid| TargetDataset {
        dataset: dataset.parse().unwrap(),
        state: TargetState::Present {
            kind: crate::dataset::Kind::Volume,
            encrypted: false,
            snapshots: vec![Snapshot {
                name: "s".parse().unwrap(),
                guid: Guid(guid),
                createtxg: 1,
            }],
            resume_token: None,
        },
    };
    let beside = [holds("b", 1), holds("b", 2)];
    folder.forget_arrived_below(Role::Client, &beside);
    folder.forget_arrived_below(Role::Server, &[holds("a", 1)]);
    assert_eq!(state.numbers(), [1, 2]);
    folder.forget_arrived_below(Role::Client, &[holds("b", 7), holds("a", 1)]);
    assert_eq!(state.numbers(), [2]);
}
