//! Integration tests: real processes, real tools.

mod suite;
