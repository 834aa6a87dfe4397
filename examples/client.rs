//! The client's side: its streams, seen from here, with the server's address.
//!
//!     cargo run --example embed      # in another terminal: something to call
//!     cargo run --example client     # or with addresses: the server's, ours for HTTP
//!
//! Both ends of a hanging stream, side by side, tell who waits for whom.

use taskprof::Profiler;
use taskprof::grpc::GrpcClient;
use tokio::runtime;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = |n, usual: &str| std::env::args().nth(n).unwrap_or_else(|| usual.to_owned());
    let (server, http) = (address(1, "127.0.0.1:50051"), address(2, "127.0.0.1:6061"));
    let profiler = Profiler::builder().http(http).start()?;
    let runtime = profiler.runtime(runtime::Builder::new_multi_thread()).enable_all().build()?;

    runtime.block_on(async {
        // tonic's endpoint, with keepalive: a server that vanishes is noticed.
        let endpoint = profiler.endpoint(format!("http://{server}"))?;
        // It goes where tonic's channel would; the generated client is the same.
        let channel = profiler
            .connect(endpoint)
            .await
            .map_err(|_| format!("nobody answers at {server}; is the server running?"))?;
        for _ in 0..3 {
            tokio::spawn(watch(HealthClient::new(channel.clone())));
        }

        let http = profiler.http_addr().ok_or("no debug server")?;
        println!("dashboard  http://{http}/");
        println!("streams    curl -s 'http://{http}/debug/streams?filter=side:client'");
        println!("Ctrl-C ends it.");
        tokio::signal::ctrl_c().await?;
        Ok(())
    })
}

/// Reads a stream that stays open: it waits in `await_recv` for most of its life.
async fn watch(mut client: HealthClient<GrpcClient<Channel>>) {
    let request = HealthCheckRequest { service: String::new() };
    let mut updates = match client.watch(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return eprintln!("the call failed: {status}"),
    };
    loop {
        match updates.message().await {
            Ok(Some(update)) => println!("the server is {:?}", update.status()),
            Ok(None) => return println!("the server ended the stream"),
            Err(status) => return eprintln!("the stream broke: {status}"),
        }
    }
}
