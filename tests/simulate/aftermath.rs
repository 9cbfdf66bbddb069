//! What is found after a crash: the newest record that the real recovery believes, and whether all
//! that it says is true.

use zferry::breakpoint::identity::{FileId, RecordSequence, RingSlots};
use zferry::breakpoint::record::{RECORD_BYTES, Record, Role, SLOT_BYTES, SpoolExtent};
use zferry::breakpoint::recovery::recover;
use zferry::breakpoint::segment::scan;
use zferry::units::Bytes;

use super::disk::File;
use super::environment::{End, Environment};
use super::met::Met;

/// A small ring, so that it is gone around often.
pub fn ring() -> RingSlots {
    RingSlots::new(4).expect("two at least")
}

pub fn file_of(end: End) -> FileId {
    FileId([end as u8 + 1; 16])
}

/// The newest record on the disk.
pub fn newest(end: End, env: &Environment) -> Option<Record> {
    recover(env.disks[end as usize].read(File::Records), ring(), file_of(end)).newest
}

/// The record that would be believed if the medium lost the newest one.
pub fn previous(end: End, env: &Environment) -> Option<Record> {
    let newest = newest(end, env)?;
    let mut image = env.disks[end as usize].read(File::Records).to_vec();
    let at = newest.slot().0 as usize * SLOT_BYTES;
    image[at..at + SLOT_BYTES].fill(0);
    let record = recover(&image, ring(), file_of(end)).newest?;
    (record.job == newest.job).then_some(record)
}

/// The highest sequence of which anything is on the disk. A number whose write left nothing at all
/// when the power went was never used, and may be given again.
pub fn highest(end: End, env: &Environment) -> Option<RecordSequence> {
    let image = env.disks[end as usize].read(File::Records);
    let sectors = image.as_chunks::<RECORD_BYTES>().0.iter();
    sectors.filter_map(|sector| Record::decode(sector).ok()).map(|record| record.sequence).max()
}

/// Judges what a process finds that starts now, and says with which sequence it goes on.
pub fn inspect(end: End, env: &mut Environment) -> RecordSequence {
    let recovered = recover(env.disks[end as usize].read(File::Records), ring(), file_of(end));
    if recovered.newest.is_some() {
        env.met(Met::RecordFound);
    }
    let is_there = !env.disks[end as usize].read(File::Records).is_empty();
    for damage in recovered.damage.iter().filter(|_| is_there) {
        env.met(if damage.is_ordinary() { Met::RecordTorn } else { Met::RecordLost });
    }
    let lied = env.disks[end as usize].lied;
    for record in [newest(end, env), previous(end, env)].into_iter().flatten() {
        judge(end, &record, env);
    }
    if lied || env.truth.retired[end as usize] {
        // What a disk has hidden nobody can know; the next number is above all that were given.
        let known = env.truth.sequences[end as usize];
        return known.map_or(recovered.next_sequence, |known| {
            recovered.next_sequence.max(known.after_crash())
        });
    }
    let next = recovered.next_sequence;
    assert!(Some(next) > env.truth.sequences[end as usize], "sequence {next} would be used again");
    let told = env.truth.told;
    if end == End::Server
        && let Some((secret, transfer, spooled)) = told
    {
        let covered = recovered.newest.is_some_and(|record| {
            let same = record.job.session == secret && record.job.transfer == transfer;
            !same || record.progress.acknowledged.to >= spooled
        });
        assert!(covered, "acknowledged {spooled}, and no record says so");
    }
    next
}

/// Whether a record says no more than is true.
fn judge(end: End, record: &Record, env: &Environment) {
    let (job, progress) = (record.job, record.progress);
    let Some(epoch) = env.truth.epoch(job.session, job.transfer) else {
        assert_eq!(progress.received.0, 0, "received of a stream that never began");
        return;
    };
    assert!(progress.received.0 <= epoch.read as u64, "a record received what was not read");
    if job.role == Role::Server {
        assert!(progress.fed.0 <= epoch.fed_most as u64, "a record fed what was not");
    }
    let acknowledged = progress.acknowledged;
    let before = &epoch.stream[..Bytes(acknowledged.to.0).as_usize()];
    assert_eq!(acknowledged.crc32, crc32fast::hash(before), "a record of another stream");
    if let Some(spool) = progress.spool
        && !env.disks[end as usize].lied
        && !env.truth.retired[end as usize]
    {
        assert_spooled(end, record, &spool, &epoch.stream, env);
    }
}

/// Whether the spool that a record names is there, byte by byte.
fn assert_spooled(
    end: End,
    record: &Record,
    spool: &SpoolExtent,
    stream: &[u8],
    env: &Environment,
) {
    let mut at = spool.low;
    for number in spool.first_segment.0..=spool.last_segment.0 {
        let segment = zferry::breakpoint::record::SegmentNumber(number);
        let bytes = env.disks[end as usize].read(File::Segment(number));
        let scan = scan(bytes, file_of(end), segment, Bytes(1 << 20));
        for entry in scan.entries.iter().filter(|entry| entry.frame.offset < spool.high) {
            assert_eq!(entry.frame.epoch, record.job.epoch, "an entry of another epoch");
            if entry.frame.offset < at {
                // Written by a process that died before it was claimed, and once more by the next.
                continue;
            }
            assert_eq!(entry.frame.offset, at, "the spool has a gap");
            let payload = &bytes[entry.payload()];
            let place = Bytes(at.0).as_usize();
            assert_eq!(payload, &stream[place..place + payload.len()], "spooled other bytes");
            at = at.after(Bytes::from(payload.len())).expect("within a stream");
        }
    }
    assert!(at >= spool.high, "a record claims {}, and {at} is there", spool.high);
}
