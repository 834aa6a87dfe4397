//! taskprof in a server that keeps tonic's own accept loop, and that has
//! runtime hooks of its own.
//!
//!     cargo run --example layer
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
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profiler = Profiler::builder().http("127.0.0.1:6060").start()?;

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

        println!("gRPC       127.0.0.1:50051");
        println!("dashboard  http://127.0.0.1:6060/");
        println!("streams    curl -s http://127.0.0.1:6060/debug/streams");
        println!("Ctrl-C ends it.");
        tokio::select! {
            served = Server::builder()
                .layer(profiler.grpc_layer_with(limits))
                .add_service(health)
                .serve(([127, 0, 0, 1], 50051).into()) => served,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })?;
    println!("workers parked {} times", parks.load(Ordering::Relaxed));
    Ok(())
}
