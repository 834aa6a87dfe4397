//! Any bytes as debug information and as saved layouts:
//! `cargo +nightly fuzz run layouts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskprof::fuzzing::layouts(bytes));
