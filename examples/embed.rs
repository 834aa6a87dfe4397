//! A tonic server with taskprof in it: task dumps, per-stream state, blocked
//! workers.
//!
//!     cargo run --example embed      # or with addresses: gRPC, HTTP, tokio-console
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
    let address = |n, usual: &str| std::env::args().nth(n).unwrap_or_else(|| usual.to_owned());
    let (grpc, http) = (address(1, "127.0.0.1:50051"), address(2, "127.0.0.1:6060"));
    let console = address(3, "127.0.0.1:6669");

    // One: the profiler, with its own threads and its own port.
    let profiler = Profiler::builder().http(http).console(console).start()?;
    // Two: the runtime that it watches. The hooks must be there when it is built.
    let runtime = profiler.runtime(runtime::Builder::new_multi_thread()).enable_all().build()?;

    runtime.block_on(async {
        let (reporter, health) = health_reporter();
        reporter.set_service_status("shop", ServingStatus::Serving).await;
        let routes = Routes::new(health);

        let listener = TcpListener::bind(grpc).await?;
        let http = profiler.http_addr().ok_or("no debug server")?;
        let console = profiler.console_addr().ok_or("nothing for tokio-console")?;
        println!("gRPC           {}", listener.local_addr()?);
        println!("dashboard      http://{http}/");
        println!("every task     curl -s 'http://{http}/debug/pprof/goroutine?debug=2'");
        println!("tokio-console  tokio-console http://{console}");
        println!("Ctrl-C ends it.");

        // Three: the streams. `profiler.serve(routes, listener)` is all that is
        // needed; this longer form ends on Ctrl-C, and lets calls finish first.
        let stop = async { drop(tokio::signal::ctrl_c().await) };
        profiler.serve_with(routes, listener, profiler.serve_config(), stop).await?;
        Ok(())
    })
}
