//! The server over real sockets.

#[cfg(feature = "cli")]
mod endpoints;
mod fixture;
mod flight;
mod panics;
mod safety;
