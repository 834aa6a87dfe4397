//! The debug server: HTTP on its own thread and runtime.
//!
//! [`start`] binds a loopback address (or a unix socket, or with a token any
//! address) and answers from a [`Source`] until [`Server::shutdown`]. Nothing
//! of it runs on the watched runtime, so it answers while that one stands
//! still. What comes in passes the gate (host, origin, token, size), then a
//! handler in `api`; snapshots are shared through `flight`; bodies are rendered
//! while they are sent.

mod api;
mod assets;
mod body;
mod config;
mod events;
mod flight;
mod gate;
mod guard;
mod listen;
mod problem;
mod server;
mod source;
mod stats;
mod timed;

#[cfg(test)]
mod tests;

pub use config::{Limits, Listen, ServeConfig, TOKEN_MIN_BYTES, Token};
pub use server::{Server, start};
pub use source::{LogTarget, Source, Want};
