//! What a breakpoint record costs: to make one, to write it for good, and to find the newest in a
//! full ring.
//!
//! A record is written about once a second and a ring is read once after a crash, so both may cost
//! little and need not cost nothing. Run with `cargo bench --bench record`; `ci/test` only sees
//! that they work.

use std::hint::black_box;
use std::mem::replace;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sys::backend::Backend;
use zferry::breakpoint::identity::{BootId, FileId, RecordSequence, RingSlots, SessionId};
use zferry::breakpoint::record::{Cargo, Job, Progress, Record, Role, SLOT_BYTES};
use zferry::breakpoint::recovery::recover;
use zferry::spool::record_file::{Existing, RecordFile};
use zferry::units::TransferId;

const FILE: FileId = FileId([1; 16]);

fn record(sequence: RecordSequence, before: Option<&Record>) -> Record {
    let job = Job {
        role: Role::Server,
        session: SessionId([2; 16]),
        transfer: TransferId(3),
        epoch: 4,
        cargo: Cargo::Pipe,
    };
    Record {
        file: FILE,
        ring: RingSlots::STANDARD,
        sequence,
        parent: before.map(Record::checksum),
        job,
        progress: Progress::BEGUN,
        boot: BootId([5; 16]),
        wall_clock_ms: 6,
    }
}

/// A ring that has come around.
fn full_ring() -> (Vec<u8>, Record) {
    let mut image = [0].repeat(RingSlots::STANDARD.get() as usize * SLOT_BYTES);
    let mut last = record(RecordSequence::FIRST, None);
    for _ in 0..100 {
        let at = last.slot().0 as usize * SLOT_BYTES;
        image[at..][..SLOT_BYTES].copy_from_slice(&last.encode_slot());
        last = record(last.sequence.next(), Some(&last));
    }
    let at = last.slot().0 as usize * SLOT_BYTES;
    image[at..][..SLOT_BYTES].copy_from_slice(&last.encode_slot());
    (image, last)
}

fn encode(c: &mut Criterion) {
    let record = record(RecordSequence::FIRST, None);
    let bytes = record.encode();
    let mut group = c.benchmark_group("record");
    group.bench_function("encode slot", |b| b.iter(|| black_box(&record).encode_slot()));
    group.bench_function("decode", |b| b.iter(|| Record::decode(black_box(&bytes)).unwrap()));
    group.finish();
}

/// Past the page cache, and durable when it returns: mostly the disk's own time, in `/var/tmp`.
fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("record write");
    group.sample_size(20);
    for backend in [Backend::Uring, Backend::Threads] {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("records");
        let mut file = RecordFile::create(&path, FILE, Existing::Refuse, backend).unwrap();
        let mut next = record(RecordSequence::FIRST, None);
        let mut written = None;
        group.bench_function(backend.to_string(), |b| {
            b.iter(|| {
                file.write(&next).unwrap();
                let following = record(next.sequence.next(), Some(&next));
                written = Some(replace(&mut next, following));
            });
        });
        drop(file);
        let (_file, recovered) = RecordFile::open(&path, FILE, backend).unwrap();
        assert_eq!((recovered.newest, recovered.damage), (written, Vec::new()));
    }
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let (mut image, last) = full_ring();
    let found = |image: &[u8]| recover(image, RingSlots::STANDARD, FILE);
    assert_eq!(found(&image).newest, Some(last));
    let mut group = c.benchmark_group("recovery");
    group.throughput(Throughput::Bytes(image.len() as u64)).sample_size(20);
    group.bench_function("full ring", |b| b.iter(|| found(black_box(&image))));
    // The next one was being written, over the oldest, when the power went.
    let next = record(last.sequence.next(), Some(&last));
    let half = next.slot().0 as usize * SLOT_BYTES..;
    let mut torn = image.clone();
    torn[half][..SLOT_BYTES / 2 + 100].copy_from_slice(&next.encode_slot()[..SLOT_BYTES / 2 + 100]);
    assert_eq!(found(&torn).newest, Some(next));
    group.bench_function("torn ring", |b| b.iter(|| found(black_box(&torn))));
    // Every copy differs from its neighbours: nothing is saved by comparing them.
    for (index, byte) in image.iter_mut().step_by(509).enumerate() {
        *byte ^= index.to_le_bytes()[0] | 1;
    }
    group.bench_function("damaged ring", |b| b.iter(|| found(black_box(&image))));
    group.finish();
}

criterion_group!(benches, encode, write, recovery);
criterion_main!(benches);
