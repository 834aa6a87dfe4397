//! The reference server inside this process, over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use taskprof::Profiler;
use taskprof::reference::{Reference, Shutdown};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tower::util::BoxCloneService;
use tower::{Service, ServiceExt as _};

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

/// Who watches a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nobody: tonic's server and tonic's channel.
    Nobody,
    /// The layer in tonic's server.
    Layer,
    /// `Profiler::serve`.
    Server,
    /// `Profiler::connect`, and the other end is tonic's server.
    Client,
    /// `Profiler::serve` and `Profiler::connect`.
    Both,
}

/// Any channel: what clients see of it is the same.
pub type AnyChannel = BoxCloneService<http::Request<Body>, http::Response<Body>, tonic::Status>;

/// The reference services behind a server and a channel that are watched so.
pub struct Watching {
    pub address: SocketAddr,
    pub channel: AnyChannel,
    pub shutdown: Shutdown,
    // What it watches for stays with it.
    _profiler: Option<Profiler>,
}

fn any<S, B>(channel: S) -> AnyChannel
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<tonic::codegen::StdError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    let channel = channel.map_response(|response| response.map(Body::new));
    BoxCloneService::new(channel.map_err(|error| tonic::Status::from_error(error.into())))
}

pub async fn start_watched(faults: bool, watched: By) -> Watching {
    // Dozens of them at once would each read this program's debug information.
    let profiler = (watched != By::Nobody)
        .then(|| Profiler::builder().await_chains(false).start().expect("a profiler"));
    let Reference { routes, shutdown } = Reference::new(faults).await.expect("the services");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    match (&profiler, watched) {
        (Some(profiler), By::Server | By::Both) => {
            let profiler = profiler.clone();
            tokio::spawn(async move { profiler.serve(routes, listener).await });
        }
        (Some(profiler), By::Layer) => {
            let server = Server::builder().layer(profiler.grpc_layer()).add_routes(routes);
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        }
        _ => {
            let server = Server::builder().add_routes(routes);
            tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        }
    }
    let channel = match (&profiler, watched) {
        (Some(profiler), By::Client | By::Both) => {
            let endpoint = profiler.endpoint(format!("http://{address}")).expect("an address");
            any(profiler.connect(endpoint).await.expect("the server listens"))
        }
        _ => any(connect(address).await),
    };
    Watching { address, channel, shutdown, _profiler: profiler }
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
