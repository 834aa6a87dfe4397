//! A small service without generated code, a server for it, and its clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::instrument::grpc::{GrpcClient, ServeConfig, StreamBody, serve};
use crate::instrument::scope;
use crate::model::Stream as Seen;
use crate::registry::{Registry, clock};

/// `message Msg { bytes data = 1; }`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Msg {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) data: Bytes,
}

/// A message of so many payload bytes.
pub(super) fn msg(len: usize) -> Msg {
    Msg { data: vec![7; len].into() }
}

type Out = Pin<Box<dyn Stream<Item = Result<Msg, Status>> + Send>>;

async fn handle(method: String, request: Request<Streaming<Msg>>) -> Result<Response<Out>, Status> {
    assert!(request.extensions().get::<scope::Scope>().is_some());
    let mut incoming = request.into_inner();
    let out: Out = match method.as_str() {
        // Bidi (and unary): each message back.
        "Echo" => Box::pin(incoming),
        // Client streaming: one answer when the client is done.
        "Collect" => {
            while incoming.message().await?.is_some() {}
            Box::pin(stream::once(async { Ok(msg(1)) }))
        }
        // Server streaming: three messages.
        "Three" => {
            incoming.message().await?;
            Box::pin(stream::iter([msg(10), msg(20), msg(30)].map(Ok)))
        }
        // More than anybody's window.
        "Flood" => Box::pin(stream::repeat(msg(1000)).map(Ok)),
        // One message every 100 ms, for ever.
        "Trickle" => Box::pin(stream::unfold(incoming, |incoming| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok(msg(1)), incoming))
        })),
        // Never answers.
        "Never" => std::future::pending().await,
        // Answers the headers, then nothing, and reads nothing.
        "Mute" => Box::pin(stream::pending()),
        "Fail" => return Err(Status::not_found("no such thing")),
        "Panic" => panic!("on purpose"),
        // Two tasks: one ends with the stream, one stays as long as the test holds it.
        "Spawn" => {
            let scope = scope::current().expect("inside a handler");
            let child = scope.clone();
            scope.spawn(async move {
                assert_eq!(scope::current().map(|s| s.stream()), Some(child.stream()));
                std::future::pending::<()>().await;
            });
            scope.detach_spawn(async {
                drop(HOLD.lock().await);
            });
            std::future::pending().await
        }
        _ => return Err(Status::unimplemented("")),
    };
    Ok(Response::new(out))
}

/// Held by the test of detached tasks.
pub(super) static HOLD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(super) fn routes() -> Routes {
    let service = tower::service_fn(|request: http::Request<axum::body::Body>| async move {
        let method = request.uri().path().rsplit('/').next().unwrap_or("").to_owned();
        let handler = tower::service_fn(move |request: Request<Streaming<Msg>>| {
            handle(method.clone(), request)
        });
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Msg, Msg>::default());
        Ok::<_, Infallible>(grpc.streaming(handler, request).await)
    });
    axum::Router::new().route_service("/t.T/{method}", service).into()
}

/// A server on loopback that ends with the test.
pub(super) struct Running {
    pub(super) registry: Arc<Registry>,
    pub(super) address: SocketAddr,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) task: tokio::task::JoinHandle<crate::error::Result<()>>,
}

pub(super) async fn start(config: ServeConfig) -> Running {
    start_with(Registry::default(), config).await
}

pub(super) async fn start_with(registry: Registry, config: ServeConfig) -> Running {
    let registry = Arc::new(registry);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { _ = stopped.await };
    let task = tokio::spawn(serve(registry.clone(), routes(), listener, config, shutdown));
    Running { registry, address, stop: Some(stop), task }
}

impl Running {
    /// A client whose calls are followed in a registry of their own.
    pub(super) async fn client(&self) -> Client {
        let uri = format!("http://{}", self.address);
        let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();
        let registry = Arc::new(Registry::default());
        let channel = GrpcClient::new(registry.clone(), channel).peer(self.address.to_string());
        Client { registry, channel }
    }

    /// A client that does what it is told, frame by frame.
    pub(super) async fn raw(&self) -> h2::client::SendRequest<Bytes> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        raw(socket).await
    }

    /// Waits until the streams look as they should.
    pub(super) async fn until(&self, what: impl Fn(&[Seen], &[Seen]) -> bool) {
        until(&self.registry, what).await;
    }

    /// The stream that ended last.
    pub(super) async fn ended(&self) -> Seen {
        self.until(|live, ended| live.is_empty() && !ended.is_empty()).await;
        self.registry.streams.snapshot(clock::now()).ended.remove(0)
    }
}

pub(super) async fn until(registry: &Registry, what: impl Fn(&[Seen], &[Seen]) -> bool) {
    for _ in 0..5_000 {
        let now = registry.streams.snapshot(clock::now());
        if what(&now.live, &now.ended) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let now = registry.streams.snapshot(clock::now());
    panic!("never came: {:#?} {:#?}", now.live, now.ended.first());
}

pub(super) struct Client {
    pub(super) registry: Arc<Registry>,
    pub(super) channel: GrpcClient<Channel>,
}

impl Client {
    pub(super) async fn call(
        &self,
        method: &'static str,
        request: Request<impl Stream<Item = Msg> + Send + 'static>,
    ) -> Result<Streaming<Msg>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<Msg, Msg>::default();
        let path = PathAndQuery::from_static(method);
        let request: Request<_> = request;
        grpc.streaming(request, path, codec).await.map(Response::into_inner)
    }
}

pub(super) async fn raw<I>(io: I) -> h2::client::SendRequest<Bytes>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (send, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    send
}

/// The headers of a call.
pub(super) fn head(method: &str) -> http::Request<()> {
    http::Request::post(format!("http://test/t.T/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// One message with its prefix.
pub(super) fn frame(len: usize) -> Bytes {
    let body = prost::Message::encode_to_vec(&msg(len));
    let mut bytes = vec![0];
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes.into()
}

/// What tonic's generated clients ask of a channel; compiling is the test.
const _: fn(GrpcClient<Channel>) = |client| drop(takes(client));

fn takes(
    client: GrpcClient<Channel>,
) -> impl tonic::client::GrpcService<tonic::body::Body, ResponseBody = StreamBody<tonic::body::Body>>
{
    client
}
