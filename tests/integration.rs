//! Integration tests: real processes, real tools.
