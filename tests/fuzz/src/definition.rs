//! Drives `model::fuzz::definition` with bytes of the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| model::fuzz::definition(data));
