//! Drives `node::peer::fuzz::peer_frame` with bytes of the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| node::peer::fuzz::peer_frame(data));
