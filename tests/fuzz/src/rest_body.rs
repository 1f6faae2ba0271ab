//! Drives `gateway::fuzz::rest_body` with bytes of the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzz::rest_body(data));
