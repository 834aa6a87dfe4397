//! A tonic server with taskprof in it: the three lines, and nothing else of it.

use tokio::net::TcpListener;
use tonic::service::Routes;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profiler = taskprof::Profiler::builder().http("127.0.0.1:0").start()?;
    let runtime =
        profiler.runtime(tokio::runtime::Builder::new_multi_thread()).enable_all().build()?;

    println!("http listening on {}", profiler.http_addr().ok_or("no address")?);
    runtime.block_on(async {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("embed", tonic_health::ServingStatus::Serving).await;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(watch(address));
        profiler.serve(Routes::new(health), listener).await?;
        Ok(())
    })
}

/// A stream that stays open: the server has something to show.
async fn watch(address: std::net::SocketAddr) {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{address}"));
    let channel = endpoint.expect("an address").connect().await.expect("connect");
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: "embed".to_owned() };
    let mut updates = client.watch(request).await.expect("call").into_inner();
    while let Some(update) = updates.message().await.expect("update") {
        println!("status {}", update.status);
    }
}
