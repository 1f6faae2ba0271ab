//! Drives `raft::disk::fuzz::wal_record` with bytes of the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raft::disk::fuzz::wal_record(data));
