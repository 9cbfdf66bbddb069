//! The target `zfs_failure` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::zfs_failure::TARGET.check(input));
