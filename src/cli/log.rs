//! What the server logs, to stderr: warnings, and the Sends and Recvs of the
//! streams that somebody asked to see. `RUST_LOG` chooses otherwise.

use std::io::{IsTerminal as _, stderr};
use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use super::{Failure, style};
#[cfg(feature = "console-full")]
use crate::error::{Error, ErrorKind};

/// Warnings of all, and every event of streams that are switched on.
const FILTER: &str = "warn,taskprof::stream=trace";

/// The layer's address cannot be chosen.
#[cfg(feature = "console-full")]
fn in_the_way(error: Error) -> Failure {
    if error.kind() != ErrorKind::Bind {
        return error.into();
    }
    Failure::failed(format!(
        "{error}; `--console full` listens nowhere else: end what does, or use --console ADDR"
    ))
}

/// Installs the subscriber; with `full`, the real `console_subscriber` beside
/// it. Returns where that listens.
pub fn install(full: bool) -> Result<Option<SocketAddr>, Failure> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("RUST_LOG={text}: {error}")))?,
        _ => EnvFilter::new(FILTER),
    };
    // Left alone, the layer would colour what goes into files, too.
    let ansi = stderr().is_terminal() && style::wanted();
    let log = fmt::layer().with_writer(stderr).with_ansi(ansi).with_filter(filter);
    let registry = tracing_subscriber::registry().with(log);
    if !full {
        // A second subscriber in one process: somebody embeds the command line.
        let _ = registry.try_init();
        return Ok(None);
    }
    #[cfg(feature = "console-full")]
    {
        let address = super::args::CONSOLE_DEFAULT
            .parse()
            .map_err(|_| Failure::failed("the default console address is unreadable"))?;
        let (layer, address) = crate::console::full::layer(address).map_err(in_the_way)?;
        registry
            .with(layer)
            .try_init()
            .map_err(|error| Failure::failed(format!("cannot install the console: {error}")))?;
        Ok(Some(address))
    }
    #[cfg(not(feature = "console-full"))]
    Err(Failure::usage(
        "--console full is not in this build; build it with \
         `cargo build --release --features console-full`, or use --console ADDR",
    ))
}
