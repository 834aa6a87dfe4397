//! Any bytes as HTTP/2: `cargo +nightly fuzz run frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskprof::fuzzing::frames(bytes));
