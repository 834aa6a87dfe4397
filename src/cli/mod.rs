//! The `taskprof` command line.
