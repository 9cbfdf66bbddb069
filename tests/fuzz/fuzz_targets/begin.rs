//! The target `begin` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::begin::TARGET.check(input));
