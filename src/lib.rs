//! The goroutine profile for tokio and tonic.

pub mod error;
pub mod model;

mod analyze;
#[cfg(feature = "console")]
mod console;
mod debuginfo;
mod inspect;
mod instrument;
#[doc(hidden)]
pub mod pb;
mod registry;
mod render;
pub mod serve;
mod sys;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod reference;
