//! What packing a block costs, by level and by the block's size, and what unpacking it does.
//!
//! Of bytes that shrink, like a log, and of bytes that do not. The rates say from which network on
//! a level is in the way. Run with `cargo bench --bench compress`; `ci/test` only sees that every
//! level gives back what it was given.

use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use zstd_safe::{CCtx, DCtx};

const BLOCK_BYTES: [usize; 3] = [64 << 10, 1 << 20, 4 << 20];
const LEVELS: [i32; 6] = [-5, -1, 1, 3, 6, 9];

fn pack(c: &mut Criterion) {
    for (name, make) in INPUTS {
        let mut group = c.benchmark_group(format!("pack {name}"));
        group.sampling_mode(SamplingMode::Flat);
        let mut compressor = CCtx::create();
        for bytes in BLOCK_BYTES {
            let block = make(bytes);
            let mut packed = vec![0; zstd_safe::compress_bound(bytes)];
            group.throughput(Throughput::Bytes(bytes as u64));
            for level in LEVELS {
                let id = BenchmarkId::new(format!("level {level}"), bytes >> 10);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        compressor.compress(&mut packed[..], black_box(&block), level).unwrap()
                    });
                });
            }
        }
        group.finish();
    }
}

fn unpack(c: &mut Criterion) {
    for (name, make) in INPUTS {
        let mut group = c.benchmark_group(format!("unpack {name}"));
        group.sampling_mode(SamplingMode::Flat);
        let (mut compressor, mut decompressor) = (CCtx::create(), DCtx::create());
        for bytes in BLOCK_BYTES {
            let block = make(bytes);
            let mut packed = vec![0; zstd_safe::compress_bound(bytes)];
            let mut unpacked = vec![0; bytes];
            group.throughput(Throughput::Bytes(bytes as u64));
            for level in LEVELS {
                let length = compressor.compress(&mut packed[..], &block, level).unwrap();
                assert_eq!(length < bytes, name == "text", "{name}, level {level}: {length}");
                decompressor.decompress(&mut unpacked[..], &packed[..length]).unwrap();
                assert!(unpacked == block, "level {level} gives other bytes back");
                let id = BenchmarkId::new(format!("level {level}"), bytes >> 10);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        decompressor.decompress(&mut unpacked[..], black_box(&packed[..length]))
                    });
                });
            }
        }
        group.finish();
    }
}

type Make = fn(usize) -> Vec<u8>;
const INPUTS: [(&str, Make); 2] = [("text", text), ("noise", noise)];

/// Lines of a log: they begin alike, and numbers and words in them differ.
fn text(bytes: usize) -> Vec<u8> {
    let words = ["snapshot", "tank", "backup", "received", "blocks", "in", "of", "finished", "at"];
    let mut numbers = Numbers(7);
    let mut made = Vec::with_capacity(bytes + 200);
    for line in 0.. {
        if made.len() >= bytes {
            break;
        }
        write!(made, "2026-11-28T10:{:02}:{:02}Z zferry[{}]:", line / 60 % 60, line % 60, 4711)
            .unwrap();
        for _ in 0..8 {
            let number = numbers.next();
            let word = words[usize::try_from(number % 9).unwrap()];
            write!(made, " {word}={}", (number >> 32) % 5000).unwrap();
        }
        made.push(b'\n');
    }
    made.truncate(bytes);
    made
}

/// What encrypted and packed data looks like.
fn noise(bytes: usize) -> Vec<u8> {
    let mut numbers = Numbers(11);
    let mut made: Vec<u8> =
        (0..bytes.div_ceil(8)).flat_map(|_| numbers.next().to_le_bytes()).collect();
    made.truncate(bytes);
    made
}

/// splitmix64: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = pack, unpack
}
criterion_main!(benches);
