//! The `taskprof` program: parse, run, exit code.

fn main() {}
