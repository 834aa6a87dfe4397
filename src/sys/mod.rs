//! Every syscall and every `unsafe` of the crate.
#![allow(unsafe_code)]

pub mod zeroed;
