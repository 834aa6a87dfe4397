//! Any bytes as a core dump: `cargo +nightly fuzz run core`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskprof::fuzzing::core_dump(bytes));
