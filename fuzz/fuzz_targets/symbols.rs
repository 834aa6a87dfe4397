//! Any bytes as an executable: `cargo +nightly fuzz run symbols`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskprof::fuzzing::symbols(bytes));
