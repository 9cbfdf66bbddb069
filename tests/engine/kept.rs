//! Streams that outlive the process at either end.

use std::path::Path;

use sys::backend::Backend;
use zferry::breakpoint::segment::SegmentPages;
use zferry::engine::settings::{Spool, When};
use zferry::units::Bytes;

use crate::pair::{Pair, Plan};
use crate::spool::Mounted;
use crate::weather::cut;
use crate::{ZSTD, where_blocks_are_proved};

/// Room for eleven raw blocks.
const SEGMENT: SegmentPages = SegmentPages::new(192).unwrap();

struct Folders {
    state: tempfile::TempDir,
    spool: tempfile::TempDir,
}

impl Folders {
    fn new() -> Folders {
        let folder = || tempfile::tempdir_in("/var/tmp").unwrap();
        Folders { state: folder(), spool: folder() }
    }

    fn sender_keeps(&self, plan: Plan) -> Plan {
        Plan { spool: Some(always(self.spool.path())), ..self.recorded(plan) }
    }

    fn receiver_keeps(&self, plan: Plan) -> Plan {
        Plan { receiver_spool: Some(always(self.spool.path())), ..self.recorded(plan) }
    }

    fn recorded(&self, plan: Plan) -> Plan {
        Plan { state: Some(self.state.path().to_owned()), ..plan }
    }
}

fn always(folder: &Path) -> Spool {
    Spool {
        when: When::Always,
        folder: folder.to_owned(),
        segment: SEGMENT,
        max: None,
        account: None,
    }
}

#[test]
fn a_stream_that_is_kept_on_both_sides_arrives_whatever_the_weather() {
    where_blocks_are_proved(|plan| {
        let folders = Folders::new();
        let plan = folders.receiver_keeps(folders.sender_keeps(plan));
        let mut pair = Pair::new(plan, &[(0, cut(90_000)), (2, cut(7)), (1, cut(1 << 20))]);
        pair.begin();
        pair.finish()
    });
}

#[test]
fn a_sender_that_dies_is_followed_by_one_that_sends_the_rest_out_of_files() {
    where_blocks_are_proved(|plan| {
        let folders = Folders::new();
        let plan = Plan { sink_waits: true, ..folders.sender_keeps(plan) };
        let bytes = plan.bytes;
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        pair.drive_while(|pair| pair.kept.is_none());
        let whole = pair.kept.map(|end| end.to.0);
        assert_eq!(whole, Some(bytes), "{} in files, {}", pair.spooled(), pair.is_read_whole());
        pair.sender_dies();
        pair.start_sink();
        pair.drive_for(std::time::Duration::from_millis(30));
        pair.cut_all();
        pair.finish()
    });
}

#[test]
fn a_receiver_that_dies_is_followed_by_one_that_feeds_everything_anew() {
    where_blocks_are_proved(|plan| {
        let folders = Folders::new();
        let plan = Plan { slow_sink: true, ..folders.receiver_keeps(plan) };
        let bytes = plan.bytes;
        let mut pair = Pair::new(plan, &[]);
        pair.begin();
        for part in [8, 2] {
            pair.drive_while(|pair| pair.durable() < bytes / part);
            assert!(pair.durable() >= bytes / part);
            pair.receiver_dies();
        }
        let outcome = pair.finish();
        // What was durable did not come again: at most a window each time.
        assert!(outcome.resent < 3 << 20, "{outcome:?}");
        outcome
    });
}

#[test]
fn a_disk_that_is_full_ends_the_keeping_and_not_the_stream() {
    where_blocks_are_proved(|plan| {
        let (folders, mounted) = (Folders::new(), Mounted::tmpfs("1900k"));
        // The limit is beyond the disk: it is the disk that says no.
        let spool = Spool { max: Some(Bytes(1 << 40)), ..always(mounted.path()) };
        let plan = folders.recorded(Plan { slow_sink: true, ..plan });
        let receiving = Plan { receiver_spool: Some(spool.clone()), ..plan.clone() };
        let mut pair = Pair::new(receiving, &[(1, cut(200_000))]);
        pair.begin();
        let outcome = pair.finish();
        assert!(outcome.whole, "{outcome:?}");
        let mut pair = Pair::new(Plan { spool: Some(spool), ..plan }, &[(1, cut(200_000))]);
        pair.begin();
        pair.drive_for(std::time::Duration::from_millis(20));
        assert_eq!(pair.kept, None);
        pair.finish()
    });
}

#[test]
fn nothing_is_told_as_taken_that_is_not_durable() {
    let folders = Folders::new();
    let plan = Plan { lanes: 1, present: 1, ..folders.receiver_keeps(Plan::default()) };
    let mut pair = Pair::new(plan, &[]);
    pair.begin();
    while !pair.is_over() {
        let durable = pair.durable();
        pair.drive_for(std::time::Duration::from_millis(1));
        // Blocks are of one size here, and the last is no longer one.
        assert!(pair.told_as_taken() <= pair.durable().max(durable), "before it was durable");
    }
    assert!(pair.finish().whole);
}

#[test]
fn packed_blocks_are_kept_as_well() {
    let folders = Folders::new();
    let plan = Plan { compression: ZSTD, backend: Backend::Threads, ..Plan::default() };
    let plan = folders.receiver_keeps(Plan { slow_sink: true, ..plan });
    let bytes = plan.bytes;
    let mut pair = Pair::new(plan, &[]);
    pair.begin();
    pair.drive_while(|pair| pair.durable() < bytes / 2);
    pair.receiver_dies();
    assert!(pair.finish().whole);
}
