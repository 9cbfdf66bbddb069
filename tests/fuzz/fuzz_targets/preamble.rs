//! The target `preamble` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::preamble::TARGET.check(input));
