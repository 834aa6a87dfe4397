//! pprof's `profile.proto`, gzipped: what `pprof`, speedscope, Pyroscope and
//! Parca read.
//!
//! Four things of the format that matter for Rust, found with the real tools:
//! `system_name` stays empty, or pprof strips what it takes for C++ templates
//! from the names; a Location has one Line, or speedscope drops the inlined
//! ones; the preferred sample type is the last and also named as default,
//! because tools look at either; and there is a mapping that says it needs no
//! symbols.

mod builder;
mod contention;
mod cpu;
mod empty;
mod goroutine;

pub use contention::{Contention, UNSEEN, contention, contention_delta, contentions};
pub use cpu::cpu;
pub use empty::{Empty, empty, empty_text};
pub use goroutine::{Tasks, goroutine, goroutine_delta, spawned_at};

#[cfg(test)]
pub(crate) use builder::decode;
