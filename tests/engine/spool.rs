//! A sender with breakpoint files: the source ends at its own speed, whatever the network does, and
//! the stream arrives whole, whatever the disk does short of changing it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use zferry::breakpoint::segment::SegmentPages;
use zferry::engine::settings::{Spool, When};
use zferry::units::Bytes;

use crate::pair::{Outcome, Pair, Plan};
use crate::weather::cut;
use crate::{ZSTD, where_blocks_are_proved};

/// Room for eleven raw blocks.
const SEGMENT: SegmentPages = SegmentPages::new(192).unwrap();

const SEGMENT_BYTES: u64 = 192 * 4096;

fn spool(folder: &Path, max: Option<u64>) -> Spool {
    let (when, folder) = (When::Full, folder.to_owned());
    Spool { when, folder, segment: SEGMENT, max: max.map(Bytes), account: None }
}

/// A receiver that stands still from the start: credit for its cache, and no more.
fn still(folder: &Path, plan: &Plan) -> Plan {
    Plan { sink_waits: true, spool: Some(spool(folder, None)), ..plan.clone() }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        // One may be deleted while we look.
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    let mut files: Vec<PathBuf> = list(folder).iter().flat_map(|inner| list(inner)).collect();
    files.sort();
    files
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

fn on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

#[test]
fn a_source_ends_although_nothing_is_taken_and_everything_arrives_later() {
    where_blocks_are_proved(|plan| {
        let folder = on_disk();
        let mut pair = Pair::new(still(folder.path(), &plan), &[]);
        pair.begin();
        assert!(pair.is_read_whole(), "the source waits, {} bytes are in files", pair.spooled());
        assert!(!files(folder.path()).is_empty());
        pair.start_sink();
        let outcome = pair.finish();
        assert!(outcome.spooled > 2 << 20, "{outcome:?}");
        assert!(is_empty(folder.path()), "files are left");
        outcome
    });
}

#[test]
fn without_a_spool_the_source_waits() {
    let mut pair = Pair::new(Plan { sink_waits: true, ..Plan::default() }, &[]);
    pair.begin();
    assert!(!pair.is_read_whole(), "the tests of the spool prove nothing");
    pair.start_sink();
    assert!(pair.finish().whole);
}

#[test]
fn a_cache_that_is_not_full_touches_no_disk() {
    where_blocks_are_proved(|plan| {
        let folder = on_disk();
        // Two blocks: as many may wait for the receiver in a cache of eight slots.
        let plan = Plan { bytes: 120_000, ..still(folder.path(), &plan) };
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        assert!(pair.is_read_whole());
        assert!(is_empty(folder.path()));
        pair.start_sink();
        let outcome = pair.finish();
        assert_eq!(outcome.spooled, 0);
        outcome
    });
}

#[test]
fn a_slow_reader_and_small_files_change_nothing_in_the_stream() {
    where_blocks_are_proved(|plan| {
        let folder = on_disk();
        let plan = Plan { slow_sink: true, spool: Some(spool(folder.path(), None)), ..plan };
        let mut pair = Pair::new(plan, &[(0, cut(90_000)), (2, cut(7))]);
        pair.begin();
        let outcome = pair.finish();
        assert!(is_empty(folder.path()));
        outcome
    });
}

#[test]
fn lanes_may_be_lost_while_blocks_are_in_files() {
    where_blocks_are_proved(|plan| {
        let folder = on_disk();
        let mut pair = Pair::new(still(folder.path(), &plan), &[]);
        pair.begin();
        assert!(pair.is_read_whole());
        pair.cut_all();
        pair.drive_for(Duration::from_millis(20));
        pair.start_sink();
        for _ in 0..4 {
            pair.drive_for(Duration::from_millis(3));
            pair.cut_all();
        }
        let outcome = pair.finish();
        assert!(outcome.spooled > 2 << 20 && outcome.lost >= 4, "{outcome:?}");
        assert!(is_empty(folder.path()));
        outcome
    });
}

#[test]
fn files_never_take_more_than_they_may_and_then_the_source_waits() {
    where_blocks_are_proved(|plan| {
        let folder = on_disk();
        // Packed blocks take about half as much.
        let max = 2 * SEGMENT_BYTES + 1;
        let plan =
            Plan { spool: Some(spool(folder.path(), Some(max))), ..still(folder.path(), &plan) };
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        assert!(!pair.is_read_whole() && pair.spooled() > 1 << 20, "{} in files", pair.spooled());
        assert_eq!(files(folder.path()).len(), 2);
        pair.start_sink();
        while !pair.is_over() {
            pair.drive_for(Duration::from_millis(1));
            assert!(files(folder.path()).len() <= 2);
        }
        let outcome = pair.finish();
        assert!(outcome.spooled > max, "it was never used again: {outcome:?}");
        outcome
    });
}

/// Runs `words`, which need root.
fn root(words: &str) -> String {
    let output = Command::new("sh").args(["-ec", words]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A file system that is gone with this.
pub struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    pub fn tmpfs(size: &str) -> Mounted {
        let folder = tempfile::tempdir().unwrap();
        root(&format!("mount -t tmpfs -o size={size} spool {}", folder.path().display()));
        Mounted { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        root(&format!("umount --lazy {}", self.path().display()));
    }
}

#[test]
fn a_disk_that_has_no_room_for_another_file_slows_the_source_and_loses_nothing() {
    where_blocks_are_proved(|plan| {
        let mounted = Mounted::tmpfs("1900k");
        // The limit is beyond the disk: it is the disk that says no.
        let limit = Some(1 << 40);
        let plan =
            Plan { spool: Some(spool(mounted.path(), limit)), ..still(mounted.path(), &plan) };
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        assert!(!pair.is_read_whole() && pair.spooled() > 1 << 20, "{} in files", pair.spooled());
        let spooled = pair.spooled();
        pair.start_sink();
        let outcome = pair.finish();
        assert_eq!(outcome.spooled, spooled, "a disk that had failed was written again");
        assert!(is_empty(mounted.path()));
        outcome
    });
}

#[test]
fn a_nearly_full_file_system_is_left_alone_where_no_limit_was_given() {
    let mounted = Mounted::tmpfs("800k");
    let mut pair = Pair::new(still(mounted.path(), &Plan::default()), &[]);
    pair.begin();
    assert!(!pair.is_read_whole());
    pair.start_sink();
    let outcome = pair.finish();
    assert!(outcome.whole && outcome.spooled == 0, "{outcome:?}");
}

/// A file as a disk, detached with this.
struct LoopDevice(String);

impl Drop for LoopDevice {
    fn drop(&mut self) {
        root(&format!("losetup --detach {}", self.0));
    }
}

/// An ext4 on a file as its disk.
struct Disk {
    // In the order in which they can go.
    mounted: Mounted,
    _device: LoopDevice,
    backing: Mounted,
}

impl Disk {
    /// `size` large, made with these flags; its pages are those of a file system in memory.
    fn new(size: &str, flags: &str) -> Disk {
        let backing = Mounted::tmpfs("8m");
        let image = backing.path().join("image").display().to_string();
        root(&format!("truncate -s {size} {image} && mkfs.ext4 -q {flags} {image}"));
        let device = LoopDevice(root(&format!("losetup --find --show {image}")));
        let folder = tempfile::tempdir().unwrap();
        root(&format!("mount -t ext4 {} {}", device.0, folder.path().display()));
        Disk { mounted: Mounted { folder }, _device: device, backing }
    }

    fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// Takes all pages but these away from under it.
    fn leave(&self, kib: u64) {
        let backing = self.backing.path().display();
        let free = root(&format!("df --output=avail -k {backing} | tail -1"));
        let taken = free.parse::<u64>().unwrap() - kib;
        root(&format!("fallocate -l {taken}K {backing}/ballast"));
    }
}

#[test]
fn a_write_that_finds_the_disk_full_slows_the_source_and_loses_nothing() {
    where_blocks_are_proved(|plan| {
        // Without extents it cannot reserve the space of a file.
        let disk = Disk::new("3M", "-b 4096 -m 0 -O ^extent,^has_journal,^64bit");
        let limit = Some(1 << 40);
        let plan = Plan { spool: Some(spool(disk.path(), limit)), ..still(disk.path(), &plan) };
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        assert!(!pair.is_read_whole() && pair.spooled() > 1 << 20, "{} in files", pair.spooled());
        let spooled = pair.spooled();
        pair.start_sink();
        let outcome = pair.finish();
        assert_eq!(outcome.spooled, spooled, "a disk that had failed was written again");
        outcome
    });
}

#[test]
fn a_disk_that_loses_what_it_took_is_found_out() {
    where_blocks_are_proved(|plan| {
        let disk = Disk::new("64M", "-O ^has_journal");
        disk.leave(3 << 10);
        let mut pair = Pair::new(still(disk.path(), &plan), &[]);
        pair.begin();
        pair.is_read_whole();
        pair.start_sink();
        let outcome = pair.finish();
        assert!(outcome.spooled > 0, "{outcome:?}");
        // A loop device calls a write that was cut short a success (seen on 6.18). So either the
        // disk has told its failure, or its blocks have: wrong bytes never come out.
        let named = |failed: &String| failed.contains("read a block back from page");
        assert_eq!(outcome.whole, outcome.failed.is_none(), "{outcome:?}");
        assert!(outcome.failed.as_ref().is_none_or(named), "{outcome:?}");
        Outcome { whole: true, ..outcome }
    });
}

#[test]
fn a_block_that_was_changed_on_the_disk_is_not_sent_and_its_file_is_named() {
    for (compression, byte) in
        [(Plan::default().compression, 80_000), (ZSTD, 5_000), (ZSTD, 4096 - 96)]
    {
        let folder = on_disk();
        let plan = Plan { compression, ..still(folder.path(), &Plan::default()) };
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        assert!(pair.is_read_whole());
        let changed = files(folder.path())[1].clone();
        let file = fs::OpenOptions::new().read(true).write(true).open(&changed).unwrap();
        let mut bit = [0];
        file.read_exact_at(&mut bit, byte).unwrap();
        file.write_all_at(&[bit[0] ^ 1], byte).unwrap();
        file.sync_all().unwrap();
        pair.start_sink();
        let outcome = pair.finish();
        assert!(!outcome.whole, "{outcome:?}");
        let failed = outcome.failed.unwrap();
        assert!(failed.contains(changed.to_str().unwrap()), "{failed}");
        assert!(is_empty(folder.path()), "files are left after a failure");
    }
}

#[test]
fn the_end_of_an_engine_leaves_no_files() {
    where_blocks_are_proved(|plan| {
        let folder = on_disk();
        let mut pair = Pair::new(still(folder.path(), &plan), &[]);
        pair.begin();
        pair.drive_while(|pair| pair.spooled() == 0);
        pair.start_sink();
        pair.stop();
        assert!(is_empty(folder.path()));
        // Nothing was to be carried here.
        let mut pair = Pair::new(Plan { bytes: 0, ..plan }, &[]);
        pair.begin();
        pair.finish()
    });
}
