//! Every syscall and every `unsafe` of the crate.
#![allow(unsafe_code)]

pub mod cpu_clock;
pub mod polled;
pub mod thread;
pub mod zeroed;
