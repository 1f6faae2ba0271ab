//! Drives `actors::fuzz::peer_message` with bytes of the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| actors::fuzz::peer_message(data));
