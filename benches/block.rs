//! What is done to every block, by itself: its header, its CRC32, its compression.
//!
//! For changes of these pieces and their libraries; `ci/bench` measures what they come to. Run
//! with `cargo bench --bench block`; `cargo test --benches` only sees that they work.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zferry::protocol::frame::{Codec, Header};
use zferry::units::{Bytes, Sequence, StreamOffset, TransferId};
use zstd_safe::{CCtx, DCtx};

const BLOCK_BYTES: usize = 1 << 20;

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
    let mut group = c.benchmark_group("header");
    group.bench_function("encode", |b| b.iter(|| black_box(&header).encode()));
    group.bench_function("decode", |b| {
        b.iter(|| Header::decode(black_box(&bytes), Bytes::MIB).unwrap());
    });
    group.finish();
}

fn crc32(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32");
    for bytes in [4 << 10, 128 << 10, BLOCK_BYTES, 16 << 20] {
        let block = pages(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &block, |b, block| {
            b.iter(|| crc32fast::hash(black_box(block)));
        });
    }
    group.finish();
}

fn zstd(c: &mut Criterion) {
    let block = pages(BLOCK_BYTES);
    let mut packed = vec![0; zstd_safe::compress_bound(BLOCK_BYTES)];
    let mut unpacked = vec![0; BLOCK_BYTES];
    let (mut compressor, mut decompressor) = (CCtx::create(), DCtx::create());
    let mut group = c.benchmark_group("zstd");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64)).sample_size(10);
    for level in [1, 3, 9] {
        let length = compressor.compress(&mut packed[..], &block, level).unwrap();
        decompressor.decompress(&mut unpacked[..], &packed[..length]).unwrap();
        assert!(unpacked == block, "level {level} gives other bytes back");
        group.bench_function(BenchmarkId::new("unpack", level), |b| {
            let frame = &packed[..length];
            b.iter(|| decompressor.decompress(&mut unpacked[..], black_box(frame)).unwrap());
        });
        group.bench_function(BenchmarkId::new("pack", level), |b| {
            b.iter(|| compressor.compress(&mut packed[..], black_box(&block), level).unwrap());
        });
    }
    group.finish();
}

/// Pages of which every other one is noise and the rest repeat themselves: shrinks to about half.
fn pages(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let byte = |at: usize| if (at / 4096).is_multiple_of(2) { noise() } else { b"zferry"[at % 6] };
    (0..bytes).map(byte).collect()
}

criterion_group!(benches, header, crc32, zstd);
criterion_main!(benches);
