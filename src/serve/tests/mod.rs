//! The server over real sockets.

mod endpoints;
mod fixture;
