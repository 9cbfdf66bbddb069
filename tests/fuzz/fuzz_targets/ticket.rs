//! The target `ticket` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::ticket::TARGET.check(input));
