//! A tonic server with taskprof in it: task dumps, per-stream state, blocked
//! workers.
//!
//!     cargo run --example embed
//!
//! The service is gRPC's health service, whose `Watch` is a stream that stays
//! open; `cargo run --example client` opens some.

use taskprof::Profiler;
use tokio::net::TcpListener;
use tokio::runtime;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One: the profiler, with its own threads and its own port.
    let profiler = Profiler::builder().http("127.0.0.1:6060").console("127.0.0.1:6669").start()?;
    // Two: the runtime that it watches. The hooks must be there when it is built.
    let runtime = profiler.runtime(runtime::Builder::new_multi_thread()).enable_all().build()?;

    runtime.block_on(async {
        let (reporter, health) = health_reporter();
        reporter.set_service_status("shop", ServingStatus::Serving).await;
        let routes = Routes::new(health);

        let listener = TcpListener::bind("127.0.0.1:50051").await?;
        println!("gRPC           {}", listener.local_addr()?);
        println!("dashboard      http://127.0.0.1:6060/");
        println!("every task     curl -s 'http://127.0.0.1:6060/debug/pprof/goroutine?debug=2'");
        println!("tokio-console  tokio-console http://127.0.0.1:6669");
        println!("Ctrl-C ends it.");

        // Three: the streams. `profiler.serve(routes, listener)` is all that is
        // needed; this longer form ends on Ctrl-C, and lets calls finish first.
        let stop = async { drop(tokio::signal::ctrl_c().await) };
        profiler.serve_with(routes, listener, profiler.serve_config(), stop).await?;
        Ok(())
    })
}
