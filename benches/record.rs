//! What a breakpoint record costs: to make one, and to find the newest in a full ring.
//!
//! A record is made about once a second and a ring is read once after a crash, so both may cost
//! little and need not cost nothing. Run with `cargo bench --bench record`; `cargo test --benches`
//! only sees that they work.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zferry::breakpoint::identity::{BootId, FileId, RecordSequence, RingSlots, SessionId};
use zferry::breakpoint::record::{Cargo, Job, Progress, Record, Role, SLOT_BYTES};
use zferry::breakpoint::recovery::recover;
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

fn recovery(c: &mut Criterion) {
    let (mut image, last) = full_ring();
    let found = |image: &[u8]| recover(image, RingSlots::STANDARD, FILE);
    assert_eq!(found(&image).newest, Some(last));
    let mut group = c.benchmark_group("recovery");
    group.throughput(Throughput::Bytes(image.len() as u64)).sample_size(20);
    group.bench_function("full ring", |b| b.iter(|| found(black_box(&image))));
    // Every copy differs from its neighbours: nothing is saved by comparing them.
    for (index, byte) in image.iter_mut().step_by(509).enumerate() {
        *byte ^= index.to_le_bytes()[0] | 1;
    }
    group.bench_function("damaged ring", |b| b.iter(|| found(black_box(&image))));
    group.finish();
}

criterion_group!(benches, encode, recovery);
criterion_main!(benches);
