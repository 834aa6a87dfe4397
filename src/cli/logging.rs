//! Where the program's own tracing events go: stderr, as `RUST_LOG` says.
//!
//! The Send and Recv lines of streams are such events (target
//! `taskprof::stream`); they are silent until somebody turns a stream or a
//! method on, so nothing has to be set here to see them.

use std::io::{IsTerminal as _, stderr};
use std::net::SocketAddr;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::Failure;
use super::args::Console;

/// Warnings of anybody, and what taskprof says by itself.
const DEFAULT: &str = "warn,taskprof=info";

/// Installs the subscriber, with the real console layer if that is asked for;
/// returns where that one listens.
///
/// Must come before the runtime is built: the layer sees what is made after it.
pub fn install(console: &Console) -> Result<Option<SocketAddr>, Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("RUST_LOG={text}: {error}")))?,
        _ => EnvFilter::new(DEFAULT),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal() && super::style::wanted())
        .with_filter(filter);
    let registry = tracing_subscriber::registry().with(lines);
    let twice = |error| Failure::failed(format!("cannot install the log: {error}"));
    if *console != Console::Full {
        return registry.try_init().map(|()| None).map_err(twice);
    }
    #[cfg(feature = "console-full")]
    {
        let address = super::args::CONSOLE_DEFAULT.parse().expect("a constant address");
        let (layer, address) = crate::console::full::layer(address)?;
        registry.with(layer).try_init().map(|()| Some(address)).map_err(twice)
    }
    #[cfg(not(feature = "console-full"))]
    Err(Failure::usage(
        "--console full is not in this build; build it with \
         `cargo build --release --features console-full`, or use --console ADDR",
    ))
}
