//! The target `tree` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::tree::TARGET.check(input));
