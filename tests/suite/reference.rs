//! The reference server inside this process, over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use taskprof::reference::{Reference, Shutdown};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};

/// Only a failing test waits this long.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct InProcess {
    pub address: SocketAddr,
    pub channel: Channel,
    pub shutdown: Shutdown,
}

pub async fn start(faults: bool) -> InProcess {
    let Reference { routes, shutdown } = Reference::new(faults).await.expect("the services");
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = incoming.local_addr().expect("its address");
    tokio::spawn(
        tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming),
    );
    let channel = connect(address).await;
    InProcess { address, channel, shutdown }
}

/// A connection of one's own, for calls that may take others on it along.
pub async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("the server listens")
}

/// Fails the test instead of waiting forever.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} takes longer than {DEADLINE:?}"),
    }
}
