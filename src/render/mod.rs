//! Snapshots as bytes: pprof, text, JSON, metrics. No clock, no I/O.
