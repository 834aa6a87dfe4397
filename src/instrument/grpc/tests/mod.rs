//! The layers against real HTTP/2: tonic's client for what should work, a bare
//! h2 client for peers that misbehave.

mod join;
mod lab;
mod limits;
mod peers;
mod state;
mod tls;
mod wire;
