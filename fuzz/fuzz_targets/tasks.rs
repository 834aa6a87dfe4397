//! Any bytes as patches to the memory of parked tasks:
//! `cargo +nightly fuzz run tasks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskprof::fuzzing::tasks(bytes));
