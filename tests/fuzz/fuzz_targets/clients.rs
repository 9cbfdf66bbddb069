//! The target `clients` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zferry_fuzz::clients::TARGET.check(input));
