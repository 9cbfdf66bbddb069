//! The target `nvlist` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::nvlist::TARGET.check(input));
