//! `zferry inspect` from outside: what a person and a script learn about files, sound and not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;
use sys::backend::Backend;
use tempfile::TempDir;
use zferry::breakpoint::identity::{BootId, FileId, RecordSequence, RingSlots, SessionId};
use zferry::breakpoint::record::{
    Cargo, Job, Mark, Progress, RECORD_BYTES, Record, Role, SLOT_BYTES, SegmentNumber, SpoolExtent,
    State,
};
use zferry::breakpoint::segment::{ENTRY_HEADER, Entry, PAGE_BYTES, Position};
use zferry::dataset::Guid;
use zferry::protocol::frame::{Codec, Header};
use zferry::spool::record_file::{Existing, RecordFile};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

/// Nobody waits longer for a file.
const LIMIT: Duration = Duration::from_secs(60);

const FILE: FileId = FileId([0xa1; 16]);

/// What the command said, and its exit code.
struct Told {
    code: i32,
    stdout: String,
    stderr: String,
}

fn inspect(words: &[&str], path: &Path) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zferry"));
    command.arg("inspect").args(words).arg(path).timeout(LIMIT);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("it ended by itself");
    Told { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn json(words: &[&str], path: &Path) -> (i32, Value) {
    let told = inspect(&[&["--json"], words].concat(), path);
    (told.code, serde_json::from_str(&told.stdout).unwrap())
}

/// The value of a line of the text.
fn line<'a>(told: &'a Told, name: &str) -> &'a str {
    let named = told.stdout.lines().find(|line| line[..16].trim_end() == name);
    &named.unwrap_or_else(|| panic!("no {name}:\n{}", told.stdout))[16..]
}

fn progress(number: u64) -> Progress {
    let at = |mib: u64| StreamOffset(mib << 20);
    Progress {
        state: State::Streaming,
        received: at(number + 3),
        spooled: at(number + 2),
        fed: at(number + 1),
        acknowledged: Mark { to: at(number), crc32: 0xdead_beef },
        next_frame: Sequence(number + 4),
        end: None,
        spool: Some(SpoolExtent {
            first_segment: SegmentNumber(0),
            last_segment: SegmentNumber(1),
            segment_bytes: Bytes(64 << 20),
            low: at(0),
            high: at(number + 2),
        }),
        last_error: None,
    }
}

/// A file after `count` records, the first of them made in 2026.
fn image(count: u64) -> Vec<u8> {
    let mut image = [0].repeat(64 * SLOT_BYTES);
    let (mut sequence, mut parent) = (RecordSequence::FIRST, None);
    for number in 1..=count {
        let (to, from) = (Guid(77), Some(Guid(66)));
        let record = Record {
            file: FILE,
            ring: RingSlots::STANDARD,
            sequence,
            parent,
            job: Job {
                role: Role::Server,
                session: SessionId([0xb2; 16]),
                transfer: TransferId(3),
                epoch: 5,
                cargo: Cargo::Snapshot { to, from, raw: true, resumed: false },
            },
            progress: progress(number),
            boot: BootId([0xc3; 16]),
            wall_clock_ms: 1_795_000_000_000 + number,
        };
        let slot = record.slot().0 as usize * SLOT_BYTES;
        image[slot..][..SLOT_BYTES].copy_from_slice(&record.encode_slot());
        (sequence, parent) = (sequence.next(), Some(record.checksum()));
    }
    image
}

/// A segment of raw blocks of 5000 bytes, and pages that were never written behind them.
fn segment(blocks: u32) -> Vec<u8> {
    let pages_each = 3;
    let mut bytes = [0].repeat((blocks + 1) as usize * pages_each * PAGE_BYTES);
    for number in 0..blocks {
        let payload = [number.to_le_bytes()[0]; 5000];
        let frame = Header {
            transfer: TransferId(3),
            epoch: 5,
            sequence: Sequence(number.into()),
            offset: StreamOffset(u64::from(number) * 5000),
            codec: Codec::Raw,
            plain_bytes: 5000,
            payload_bytes: 5000,
            crc32: crc32fast::hash(&payload),
        };
        let at = Position { segment: SegmentNumber(4), page: 3 * number };
        let entry = Entry { at, frame, payload_crc32: frame.crc32 };
        let start = number as usize * pages_each * PAGE_BYTES;
        bytes[start..][ENTRY_HEADER].copy_from_slice(&entry.encode(FILE));
        bytes[entry.payload()].copy_from_slice(&payload);
    }
    bytes
}

fn stored(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

#[test]
fn a_sound_record_file_is_told_in_words() {
    let (_directory, path) = stored(&image(70));
    let told = inspect(&[], &path);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    for (name, value) in [
        ("verdict", "sound"),
        ("file", "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"),
        ("slots", "64 of 64 hold a record"),
        ("newest", "record 70 in slot 6, written 2026-11-18T11:06:40.07Z"),
        ("kept by", "the server, in boot c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3"),
        ("transfer", "3, epoch 5"),
        ("cargo", "snapshot with guid 77, since the one with guid 66, raw"),
        ("state", "streaming"),
        ("acknowledged", "73400320 (70.0 MiB), CRC32 0xdeadbeef"),
        ("end", "not known yet"),
        ("spool", "0 (0 B) to 75497472 (72.0 MiB), in segments 0 to 1 of 64.0 MiB"),
        ("next", "record 72"),
    ] {
        assert_eq!(line(&told, name), value, "{name}");
    }
    assert!(!told.stdout.contains("damage") && !told.stdout.contains("slot 3"));
    let all = inspect(&["--all"], &path);
    assert!(line(&all, "slot 3").starts_with("record 67, epoch 5, streaming"));
}

#[test]
fn the_same_is_told_to_programs() {
    let (_directory, path) = stored(&image(70));
    let (code, report) = json(&[], &path);
    assert_eq!(
        (code, &report["verdict"], &report["kind"]),
        (0, &"sound".into(), &"records".into())
    );
    let newest = &report["newest"];
    assert_eq!(newest["sequence"], 70);
    assert_eq!(newest["job"]["cargo"]["to"], 77);
    assert_eq!(newest["progress"]["acknowledged"]["to"], 70 << 20);
    assert_eq!(newest["progress"]["spool"]["last_segment"], 1);
    assert_eq!((&report["next_sequence"], &report["damage"]), (&72.into(), &Value::Array(vec![])));
    assert!(report.get("slots").is_none());
    let (_, all) = json(&["--all"], &path);
    assert_eq!(all["slots"].as_array().unwrap().len(), 64);
}

#[test]
fn a_write_that_a_crash_cut_is_a_note_and_no_damage() {
    let mut bytes = image(70);
    // Record 71 got as far as byte 300 of slot 7.
    bytes[7 * SLOT_BYTES..][..300].copy_from_slice(&image(71)[7 * SLOT_BYTES..][..300]);
    let (_directory, path) = stored(&bytes);
    let told = inspect(&[], &path);
    assert_eq!((told.code, line(&told, "verdict")), (0, "sound"));
    assert!(line(&told, "newest").starts_with("record 70 "));
    assert!(line(&told, "note").starts_with("slot 7: a write was cut short by a crash"));
}

#[test]
fn damage_is_named_and_what_is_left_still_counts() {
    let mut bytes = image(70);
    bytes[30 * SLOT_BYTES..][..SLOT_BYTES].fill(0xa5);
    let (_directory, path) = stored(&bytes);
    let told = inspect(&[], &path);
    assert_eq!((told.code, line(&told, "verdict")), (1, "damaged, but of use"));
    assert!(line(&told, "damage").starts_with("slot 30: damaged (it does not begin as"));
    assert!(line(&told, "newest").starts_with("record 70 "));
    assert_eq!(line(&told, "to do"), "check the disk; the transfer goes on from the record");
    let (code, report) = json(&[], &path);
    assert_eq!((code, &report["damage"][0]["slot"]), (1, &30.into()));
    assert_eq!(report["damage"][0]["ordinary"], false);
    assert!(report["damage"][0]["text"].as_str().unwrap().contains("slot 30"));
}

#[test]
fn a_record_file_without_a_whole_record_is_of_no_use() {
    let mut bytes = image(3);
    for copy in bytes.chunks_mut(RECORD_BYTES) {
        copy[100] ^= 1;
    }
    let (_directory, path) = stored(&bytes);
    let told = inspect(&[], &path);
    assert_eq!((told.code, line(&told, "verdict")), (2, "of no use"));
    assert!(line(&told, "newest").starts_with("none"));
    assert!(line(&told, "to do").ends_with("goes on from the target's resume token"));
}

#[test]
fn a_file_of_a_running_transfer_is_read_and_left_as_it_is() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path().join("records");
    let _open =
        RecordFile::create(&path, FILE, Existing::Refuse, Backend::Threads).expect("create");
    let before = fs::read(&path).unwrap();
    let told = inspect(&[], &path);
    assert_eq!((told.code, line(&told, "verdict")), (0, "sound"));
    assert_eq!(line(&told, "slots"), "0 of 64 hold a record");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_breakpoint_file_is_told_as_far_as_it_is_whole() {
    let (_directory, path) = stored(&segment(4));
    let told = inspect(&[], &path);
    assert_eq!((told.code, line(&told, "verdict")), (0, "sound"));
    assert_eq!((line(&told, "segment"), line(&told, "blocks")), ("4", "4"));
    assert_eq!(line(&told, "stream"), "0 (0 B) to 20000 (19.5 KiB)");
    assert_eq!(line(&told, "rest"), "nothing was written from page 12 on");
    let mut bytes = segment(4);
    bytes[4 * PAGE_BYTES + 10] ^= 1;
    let (_directory, path) = stored(&bytes);
    let told = inspect(&["--all"], &path);
    assert_eq!((told.code, line(&told, "blocks")), (1, "1"));
    assert_eq!(line(&told, "page 0"), "offset 0, 5000 bytes, 5000 stored, raw");
    assert!(line(&told, "damage").starts_with("page 3: its payload's CRC32 is"));
    assert!(told.stdout.contains("2 blocks behind it are of no use"));
    let (code, report) = json(&["--all"], &path);
    assert_eq!((code, &report["kind"], &report["blocks"]), (1, &"segment".into(), &1.into()));
    assert_eq!(report["entries"][0]["plain_bytes"], 5000);
    bytes[10 + PAGE_BYTES] ^= 1;
    let (_directory, path) = stored(&bytes);
    assert_eq!(inspect(&[], &path).code, 2);
}

#[test]
fn what_is_no_file_of_ours_is_refused_with_its_name() {
    for bytes in [&b""[..], b"GET / HTTP/1.1", &[0; 4096], &[0xa5; 8192]] {
        let (_directory, path) = stored(bytes);
        let told = inspect(&[], &path);
        assert_eq!((told.code, told.stdout.as_str()), (2, ""));
        assert!(told.stderr.contains("neither a record file nor a breakpoint file"));
        assert!(told.stderr.contains(path.to_str().unwrap()));
    }
    let told = inspect(&[], Path::new("/nowhere/at/all"));
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("No such file") && told.stderr.contains("to mend it"));
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [Path::new("/"), Path::new("/dev/zero"), &pipe] {
        let told = inspect(&[], path);
        assert_eq!(told.code, 2, "{path:?}");
        assert!(told.stderr.contains("no file of at most 256.0 MiB"), "{}", told.stderr);
    }
}

#[test]
fn no_bytes_behind_a_right_beginning_make_it_fall_over() {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for bytes in [image(70), segment(20)] {
        for _ in 0..8 {
            let mut bytes = bytes.clone();
            for _ in 0..200 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                let at = usize::try_from(noise >> 16).unwrap() % bytes.len();
                bytes[at] = noise.to_le_bytes()[0];
            }
            let (_directory, path) = stored(&bytes);
            let told = inspect(&["--all"], &path);
            assert!(told.code <= 2, "{}", told.stderr);
            assert!(!told.stderr.contains("panicked"), "{}", told.stderr);
        }
    }
}
