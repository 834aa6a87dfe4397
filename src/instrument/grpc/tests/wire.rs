//! What frames and kernel show of real connections, from both ends.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tonic::Request;
use tonic::transport::Endpoint;

use super::lab::{Client, Running, head, msg, routes, start, until};
use crate::instrument::grpc::{
    Connect, Limits, MetadataKeys, ServeConfig, UnixConnector, serve, tcp,
};
use crate::model::{Connection, Http2State, StreamEventKind, StreamWire, Transport};
use crate::registry::{Registry, clock};

fn keys() -> MetadataKeys {
    MetadataKeys::new(["x-call"]).unwrap()
}

fn config() -> ServeConfig {
    ServeConfig { metadata: keys(), ..ServeConfig::default() }
}

fn connect(registry: &Arc<Registry>) -> Connect {
    Connect { registry: registry.clone(), limits: Limits::default(), metadata: keys() }
}

fn endpoint(server: &Running) -> Endpoint {
    super::super::endpoint(format!("http://{}", server.address)).unwrap()
}

async fn client(registry: &Arc<Registry>, endpoint: Endpoint) -> Client {
    let connector = tcp(&endpoint);
    let channel = connect(registry).now(endpoint, connector).await.unwrap();
    Client { registry: registry.clone(), channel }
}

fn numbered<S>(call: usize, messages: S) -> Request<S> {
    let mut request = Request::new(messages);
    request.metadata_mut().insert("x-call", call.to_string().parse().unwrap());
    request
}

/// Stream id by call, of those that have one.
fn ids(registry: &Registry) -> HashMap<String, u32> {
    let now = registry.streams.snapshot(clock::now());
    let streams = now.live.into_iter().chain(now.ended);
    let id = |wire: Option<StreamWire>| wire.filter(|wire| wire.opened).map(|w| w.stream_id);
    streams.filter_map(|seen| Some((seen.metadata["x-call"].to_string(), id(seen.wire)?))).collect()
}

/// Calls that have another id at the client, or none, and what the server has.
fn wrong(client: &Registry, server: &Registry) -> Vec<(String, u32)> {
    let (ours, mut theirs) = (ids(client), ids(server));
    theirs.retain(|call, id| ours.get(call) != Some(id));
    theirs.into_iter().collect()
}

/// The only connection.
fn connection(registry: &Registry) -> Connection {
    let mut all = registry.connections.snapshot(clock::now(), &[]);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_agree_which_stream_a_call_is() {
    const CALLS: usize = 900;
    let reset_burst = NonZeroU32::new(10_000).unwrap();
    let server = start(ServeConfig { max_concurrent_streams: 40, reset_burst, ..config() }).await;
    let registry = Arc::new(Registry::default());
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Arc::new(client(&registry, endpoint(&server)).await));
    }
    let tasks = TaskTracker::new();
    // More than the server takes at a time. All at once, they would have lost
    // their patience before a slow machine had come to them.
    let turns = Arc::new(Semaphore::new(200));
    for call in 0..CALLS {
        let client = clients[call % clients.len()].clone();
        let turns = turns.clone();
        tasks.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let method = ["/t.T/Echo", "/t.T/Fail", "/t.T/Flood", "/t.T/Never"][call % 4];
            let messages = stream::iter(vec![msg(call); call % 3]);
            // Some give up at once, before they are sent or answered.
            let patience = Duration::from_millis([0, 5, 50, 200][call / 4 % 4]);
            let calling = async {
                let mut answers = client.call(method, numbered(call, messages)).await?;
                answers.next().await.transpose()
            };
            _ = tokio::time::timeout(patience, calling).await;
        });
    }
    tasks.close();
    tasks.wait().await;
    until(&registry, |live, _| live.is_empty()).await;
    server.until(|live, _| live.is_empty()).await;
    // A call is over when its caller or its handler is. What the connections have
    // to write and read for it may come later, and until then its number may move.
    let settled = || {
        let all = registry.connections.snapshot(clock::now(), &[]).into_iter();
        let theirs = server.registry.connections.snapshot(clock::now(), &[]);
        all.chain(theirs).all(|one| one.http2.is_some_and(|http2| http2.open_streams == 0))
            && wrong(&registry, &server.registry).is_empty()
    };
    for _ in 0..5_000 {
        if settled() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let theirs = ids(&server.registry).len();
    assert!(theirs > CALLS / 9, "only {theirs} calls arrived");
    let wrong = wrong(&registry, &server.registry);
    let all = registry.streams.snapshot(clock::now()).ended;
    for (call, id) in &wrong {
        let mine = all.iter().find(|seen| *seen.metadata["x-call"] == **call);
        eprintln!("call {call} is {id} there: {mine:#?}");
    }
    assert!(wrong.is_empty(), "{} of {theirs} are wrong", wrong.len());
    // h2 closes a connection with many resets; the channel makes a new one.
    for connection in registry.connections.snapshot(clock::now(), &[]) {
        let http2 = connection.http2.unwrap();
        assert_eq!((http2.lost, http2.untracked, http2.open_streams), (false, 0, 0));
        assert_eq!(http2.peer_max_streams, Some(40));
    }
}

#[tokio::test]
async fn windows_are_those_that_the_peer_gave() {
    let server = start(ServeConfig { stream_window: 70_000, ..ServeConfig::default() }).await;
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut raw, driver) = h2::client::Builder::new()
        .initial_window_size(30_000)
        .initial_connection_window_size(100_000)
        .handshake::<_, bytes::Bytes>(socket)
        .await
        .unwrap();
    tokio::spawn(driver);
    let (answer, _request) = raw.send_request(head("Flood"), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    // Messages are not cut to fit: the last piece of DATA is.
    server
        .until(|live, _| {
            let wire = live.first().and_then(|seen| seen.wire.as_ref());
            // Our window is larger once the peer has acknowledged our SETTINGS.
            wire.is_some_and(|wire| (wire.send_window, wire.recv_window) == (0, 70_000))
        })
        .await;
    let seen = server.registry.streams.snapshot(clock::now()).live.remove(0);
    let wire = seen.wire.unwrap();
    assert_eq!((wire.stream_id, wire.data_sent, wire.recv_window), (1, 30_000, 70_000));
    assert!(wire.send_window_closed_ns.is_some() && wire.window_update_ago_ns.is_none());
    assert!(seen.events.iter().any(|event| event.kind == StreamEventKind::WindowClosed));
    assert!(seen.events.iter().any(|event| event.kind == StreamEventKind::Send));
    let http2 = connection(&server.registry).http2.unwrap();
    assert_eq!((http2.send_window, http2.open_streams), (70_000, 1));
    assert_eq!((http2.peer_initial_window, http2.local_initial_window), (30_000, 70_000));
    assert_eq!(http2.local_max_streams, Some(1_000));

    // The peer reads all it was sent: both windows open by that much, are used
    // up again, and the connection's is the first that is too small.
    let mut read = 0;
    while read < 30_000 {
        let data = body.data().await.unwrap().unwrap();
        read += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    server.until(|live, _| live[0].wire.as_ref().unwrap().data_sent == 60_000).await;
    let seen = server.registry.streams.snapshot(clock::now()).live.remove(0);
    let wire = seen.wire.unwrap();
    assert_eq!(wire.send_window, 0);
    assert!(wire.window_update_ago_ns.is_some());
    let updates = seen.events.iter().filter(|e| e.kind == StreamEventKind::WindowReceived);
    assert_eq!(updates.map(|event| event.bytes).sum::<u32>(), 30_000);
}

#[tokio::test]
async fn an_upload_that_nobody_reads_closes_the_window_that_we_gave() {
    let server = start(ServeConfig { stream_window: 80_000, ..config() }).await;
    let registry = Arc::new(Registry::default());
    let client = client(&registry, endpoint(&server)).await;
    let uploading = stream::repeat_with(|| msg(1_000));
    let _answers = client.call("/t.T/Mute", numbered(0, uploading)).await.unwrap();
    server.until(|live, _| live[0].wire.as_ref().unwrap().recv_window == 0).await;
    until(&registry, |live, _| live[0].wire.as_ref().unwrap().send_window == 0).await;
    let ours = registry.streams.snapshot(clock::now()).live.remove(0);
    let theirs = server.registry.streams.snapshot(clock::now()).live.remove(0);
    assert_eq!(ours.wire.unwrap().data_sent, 80_000);
    assert_eq!(theirs.wire.unwrap().data_received, 80_000);
    let (ours, theirs) = (connection(&registry), connection(&server.registry));
    assert_eq!(ours.id, registry.streams.snapshot(clock::now()).live[0].connection.unwrap());
    assert!(ours.task.is_some() && theirs.task.is_some());
    assert_eq!(ours.local, theirs.peer);
    let (http2, tcp) = (ours.http2.unwrap(), ours.tcp);
    assert_eq!(http2.send_window, theirs.http2.unwrap().recv_window);
    if cfg!(target_os = "linux") {
        let tcp = tcp.unwrap();
        assert_eq!((tcp.state, tcp.total_retransmits), (1, 0));
        assert!(tcp.bytes_acked > 0 && tcp.send_mss > 500, "{tcp:?}");
    }
}

#[tokio::test]
async fn a_call_above_the_peers_limit_waits_and_is_seen_to_wait() {
    let server = start(ServeConfig { max_concurrent_streams: 1, ..config() }).await;
    let registry = Arc::new(Registry::default());
    let client = Arc::new(client(&registry, endpoint(&server)).await);
    let call = |call| {
        let client = client.clone();
        tokio::spawn(async move {
            client.call("/t.T/Never", numbered(call, stream::pending())).await.err()
        })
    };
    let first = call(1);
    until(&registry, |live, _| live.iter().any(|s| s.wire.as_ref().is_some_and(|w| w.opened)))
        .await;
    let (second, third) = (call(2), call(3));
    until(&registry, |live, _| {
        let waits = live.iter().filter(|seen| seen.wire.as_ref().is_some_and(|w| !w.opened));
        waits.count() == 2
    })
    .await;
    let live = registry.streams.snapshot(clock::now()).live;
    assert!(live.iter().all(|seen| seen.connection == live[0].connection));
    let http2 = connection(&registry).http2.unwrap();
    assert_eq!((http2.open_streams, http2.peer_max_streams), (1, Some(1)));
    // Who gives up while waiting takes nobody's place.
    second.abort();
    until(&registry, |live, _| live.len() == 2).await;
    first.abort();
    server.until(|live, _| live.iter().any(|seen| &*seen.metadata["x-call"] == "3")).await;
    let theirs = ids(&server.registry);
    until(&registry, |_, _| ids(&registry).get("3") == theirs.get("3")).await;
    third.abort();
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_and_its_calls_are_told_apart() {
    let server = start(config()).await;
    let registry = Arc::new(Registry::default());
    let endpoint = endpoint(&server);
    let connector = tcp(&endpoint);
    let channel = connect(&registry).lazy(endpoint, connector);
    let client = Client { registry: registry.clone(), channel };
    let mut answers = client.call("/t.T/Mute", numbered(1, stream::pending())).await.unwrap();
    let before = connection(&registry).id;
    let address = server.address;
    drop(server.stop);
    server.task.abort();
    assert!(answers.message().await.is_err());
    drop(answers);
    until(&registry, |live, _| live.is_empty()).await;
    while registry.connections.len() != 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let theirs = Arc::new(Registry::default());
    tokio::spawn(serve(theirs.clone(), routes(), listener, config(), std::future::pending()));
    let again = client.call("/t.T/Mute", numbered(2, stream::pending())).await;
    // The first call may still meet the old connection's end.
    let again = match again {
        Ok(again) => again,
        Err(_) => client.call("/t.T/Mute", numbered(2, stream::pending())).await.unwrap(),
    };
    let live = registry.streams.snapshot(clock::now()).live.remove(0);
    assert!(live.connection.unwrap() > before);
    assert_eq!(live.wire.unwrap().stream_id, ids(&theirs)["2"]);
    drop(again);
}

#[tokio::test]
async fn unix_sockets_are_tapped_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grpc.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let theirs = Arc::new(Registry::default());
    tokio::spawn(serve(theirs.clone(), routes(), listener, config(), std::future::pending()));
    let registry = Arc::new(Registry::default());
    let endpoint = Endpoint::from_static("http://unix");
    let channel = connect(&registry).now(endpoint, UnixConnector::new(&path)).await.unwrap();
    let client = Client { registry: registry.clone(), channel };
    let (send, receive) = mpsc::channel(1);
    let requests = tokio_stream(receive);
    let mut answers = client.call("/t.T/Echo", numbered(1, requests)).await.unwrap();
    send.send(msg(10)).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap(), msg(10));
    let (ours, other) = (connection(&registry), connection(&theirs));
    assert_eq!((ours.transport, ours.tcp.is_none()), (Transport::Unix, true));
    assert_eq!((other.transport, other.http2.unwrap().open_streams), (Transport::Unix, 1));
    assert_eq!(ids(&registry), ids(&theirs));
    // An end that nobody has read up to is known all the same.
    drop(send);
    until(&theirs, |live, ended| {
        live.iter().chain(ended).any(|seen| seen.wire.as_ref().unwrap().end_received)
    })
    .await;
    assert!(answers.message().await.unwrap().is_none());
    until(&registry, |live, _| live.is_empty()).await;
    let ended = registry.streams.snapshot(clock::now()).ended.remove(0);
    assert_eq!(ended.state, Http2State::Closed);
}

fn tokio_stream<T: Send>(receive: mpsc::Receiver<T>) -> impl stream::Stream<Item = T> + Send {
    stream::unfold(receive, |mut receive| async { receive.recv().await.map(|m| (m, receive)) })
}

#[tokio::test]
async fn pings_are_timed() {
    let server =
        start(ServeConfig { keepalive_interval: Some(Duration::from_millis(20)), ..config() })
            .await;
    let registry = Arc::new(Registry::default());
    let _client = client(&registry, endpoint(&server)).await;
    loop {
        let seen = server.registry.connections.snapshot(clock::now(), &[]);
        let answered = seen.first().and_then(|seen| seen.http2.as_ref()?.ping_rtt_ns);
        if let Some(rtt) = answered {
            assert!(rtt < 5_000_000_000);
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn our_client_pings_though_no_call_is_under_way() {
    let server = start(ServeConfig { keepalive_interval: None, ..config() }).await;
    let registry = Arc::new(Registry::default());
    // All but the pace is as it comes.
    let endpoint = endpoint(&server).http2_keep_alive_interval(Duration::from_millis(20));
    let _client = client(&registry, endpoint).await;
    while connection(&registry).http2.is_none_or(|http2| http2.pings_sent < 3) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(registry.streams.snapshot(clock::now()).started, 0);
    let error = super::super::endpoint("no address".into()).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput);
}

/// Time stands still but for timers: who does not answer is found when the
/// documented interval and timeout are over, and not before.
#[tokio::test(start_paused = true)]
async fn our_client_gives_up_a_server_that_answers_no_ping() {
    use tokio::io::AsyncReadExt as _;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let begun = tokio::time::Instant::now();
    let read = tokio::spawn(async move {
        let (mut socket, _) = silent.accept().await.unwrap();
        let mut all = Vec::new();
        _ = socket.read_to_end(&mut all).await;
        all
    });
    let endpoint = super::super::endpoint(format!("http://{address}")).unwrap();
    let registry = Arc::new(Registry::default());
    let _client = client(&registry, endpoint).await;
    let sent = read.await.unwrap();
    // A PING without ACK (RFC 9113, section 6.7).
    assert!(sent.windows(5).any(|frame| frame == [0, 0, 8, 6, 0]), "{sent:?}");
    assert_eq!(begun.elapsed().as_secs(), 20 + 10);
}

#[tokio::test]
async fn what_is_no_http2_is_said_to_be_lost() {
    use tokio::io::AsyncWriteExt;
    let server = start(config()).await;
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // The connection ends by hyper's own judgement.
    let mut rest = Vec::new();
    _ = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest).await;
    while server.registry.connections.len() != 0 {
        tokio::task::yield_now().await;
    }
}
