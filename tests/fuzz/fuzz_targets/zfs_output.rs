//! The target `zfs_output` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::zfs_output::TARGET.check(input));
