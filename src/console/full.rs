//! The real `console_subscriber` layer, for what our own server does not have:
//! resources, async operations, wakes and histograms.
//!
//! It costs what it costs: each spawn, poll and wake becomes a tracing event.
//! On gRPC echo streams that was 2.7 to 4.7 times the CPU a message, and 54 KB
//! for every live task; tokio's `tracing` feature alone makes each live task
//! 256 bytes larger, attached or not. Hence the cargo feature `console-full`.

use std::net::SocketAddr;
use std::time::Duration;

use console_subscriber::{ConsoleLayer, ServerParts};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use super::{CONNECTIONS, bind, incoming};
use crate::error::{Error, Result};

/// How long ended tasks and resources are kept for clients that attach later.
/// The layer's own default is an hour, which a busy server has no memory for.
const RETENTION: Duration = Duration::from_secs(60);

/// Serves `tokio-console` on a loopback address from `console_subscriber`.
///
/// Returns the layer to add to the `tracing` subscriber, which must be
/// installed before the runtime to be seen is built, and the address bound. The
/// server runs on a thread of its own until the process ends.
///
/// # Errors
/// As [`start`](super::start): `Unsafe` for an address others can reach, `Bind`
/// if it is in use.
pub fn layer<S>(addr: SocketAddr) -> Result<(impl Layer<S>, SocketAddr)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (listener, addr) = bind(addr)?;
    let (layer, server) = ConsoleLayer::builder().server_addr(addr).retention(RETENTION).build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot build the runtime for tokio-console", error))?;
    let serve = move || {
        // What this thread does is not to be recorded by the layer it serves.
        let _quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::new());
        let ServerParts { instrument_server, aggregator, .. } = server.into_parts();
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let serve = tonic::transport::Server::builder()
                .add_service(instrument_server)
                .serve_with_incoming(incoming::incoming(listener, CONNECTIONS));
            tokio::select! {
                served = serve => served.map_err(std::io::Error::other),
                () = aggregator.run() => Ok(()),
            }
        });
        if let Err(error) = served {
            eprintln!("taskprof: the server for tokio-console ended: {error}");
        }
    };
    std::thread::Builder::new()
        .name("taskprof-console-full".into())
        .spawn(serve)
        .map_err(|error| Error::io("cannot start the thread for tokio-console", error))?;
    Ok((layer.with_filter(FilterFn::new(is_of_the_runtime)), addr))
}

/// tokio's own spans and events, the only ones the layer understands.
fn is_of_the_runtime(metadata: &tracing::Metadata<'_>) -> bool {
    let target = metadata.target();
    let name = if metadata.is_event() { target } else { metadata.name() };
    name.starts_with("runtime") || target.starts_with("tokio")
}
