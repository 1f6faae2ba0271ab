//! Drives `model::fuzz::sequence_rules` with bytes of the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| model::fuzz::sequence_rules(data));
