//! taskprof in a server that keeps tonic's own accept loop, and that has
//! runtime hooks of its own.
//!
//!     cargo run --example layer      # or with addresses: gRPC, HTTP
//!
//! The layer shows streams, but not connections: see `Profiler::grpc_layer`
//! for what else it cannot do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use taskprof::grpc::Limits;
use taskprof::{Hooks, Profiler};
use tokio::runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = |n, usual: &str| std::env::args().nth(n).unwrap_or_else(|| usual.to_owned());
    let (grpc, http) = (address(1, "127.0.0.1:50051"), address(2, "127.0.0.1:6060"));
    let profiler = Profiler::builder().http(http).start()?;

    // tokio keeps one callback of each kind. Give yours to taskprof instead of
    // to the builder, and both run.
    let parks = Arc::new(AtomicU64::new(0));
    let counted = parks.clone();
    let hooks = Hooks::new().on_thread_park(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let runtime = profiler
        .runtime_with("grpc", runtime::Builder::new_multi_thread(), hooks)
        .enable_all()
        .build()?;

    runtime.block_on(async {
        let (reporter, health) = health_reporter();
        reporter.set_service_status("shop", ServingStatus::Serving).await;

        // Remedies against streams that hang: off unless asked for, apart from
        // the caller's own deadline.
        let limits = Limits::new()
            .default_deadline(Duration::from_secs(3600))
            .send_timeout(Duration::from_secs(30));

        let incoming = TcpIncoming::bind(grpc.parse()?)?;
        let http = profiler.http_addr().ok_or("no debug server")?;
        println!("gRPC       {}", incoming.local_addr()?);
        println!("dashboard  http://{http}/");
        println!("streams    curl -s http://{http}/debug/streams");
        println!("Ctrl-C ends it.");
        tokio::select! {
            served = Server::builder()
                .layer(profiler.grpc_layer_with(limits))
                .add_service(health)
                .serve_with_incoming(incoming) => served?,
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    println!("workers parked {} times", parks.load(Ordering::Relaxed));
    Ok(())
}
