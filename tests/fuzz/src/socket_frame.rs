//! Drives `gateway::fuzz::socket_frame` with bytes of the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway::fuzz::socket_frame(data));
