//! The server over real sockets.

#[cfg(feature = "cli")]
mod endpoints;
mod fixture;
mod panics;
mod safety;
