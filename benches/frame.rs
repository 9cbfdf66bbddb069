//! What every block costs beside its bytes' way: its header, and its CRC32 by the block's size.
//!
//! For changes of these pieces and their libraries; `ci/bench` measures what they come to. Run
//! with `cargo bench --bench frame`; `ci/test` only sees that they work.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zferry::protocol::frame::{Codec, Header};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};

/// The sizes that `--block-size` is likely to get.
const BLOCK_BYTES: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];

fn header(c: &mut Criterion) {
    let header = Header {
        transfer: TransferId(1),
        epoch: 2,
        sequence: Sequence(3),
        offset: StreamOffset(3 << 20),
        codec: Codec::Zstd,
        plain_bytes: 1 << 20,
        payload_bytes: 5000,
        crc32: 0xdead_beef,
    };
    let bytes = header.encode();
    assert_eq!(Header::decode(&bytes, Bytes::MIB).unwrap(), header);
    let mut group = c.benchmark_group("header");
    group.bench_function("encode", |b| b.iter(|| black_box(&header).encode()));
    group.bench_function("decode", |b| {
        b.iter(|| Header::decode(black_box(&bytes), Bytes::MIB).unwrap());
    });
    group.finish();
}

/// One block again and again: the smaller ones are in a cache by then, as they are when `read`
/// takes the CRC32 of what it has just got.
fn crc32(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32");
    for bytes in BLOCK_BYTES {
        let block = [0x5a].repeat(bytes);
        let mut piece_by_piece = crc32fast::Hasher::new();
        block.chunks(1000).for_each(|part| piece_by_piece.update(part));
        assert_eq!(crc32fast::hash(&block), piece_by_piece.finalize());
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes >> 10), &block, |b, block| {
            b.iter(|| crc32fast::hash(black_box(block)));
        });
    }
    group.finish();
}

/// What `send` does to know the CRC32 of a stream from those of its blocks.
fn combine(c: &mut Criterion) {
    let block = crc32fast::Hasher::new_with_initial_len(7, 1 << 20);
    c.bench_function("crc32 of a stream, one block more", |b| {
        b.iter(|| {
            let mut stream = crc32fast::Hasher::new_with_initial_len(9, 1 << 30);
            stream.combine(black_box(&block));
            stream.finalize()
        });
    });
}

criterion_group!(benches, header, crc32, combine);
criterion_main!(benches);
