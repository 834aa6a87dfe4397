//! The debug server: HTTP on its own thread and runtime.

mod source;

pub use source::{LogTarget, Source, Want};
