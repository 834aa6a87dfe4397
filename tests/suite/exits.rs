//! A server that is told to end does so in time, whoever is connected.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use console_api::instrument::InstrumentRequest;
use console_api::instrument::instrument_client::InstrumentClient;
use tokio::runtime;

use super::otel::echo;
use super::reference::connect;
use super::server::Server;

/// What `docs/endpoints.md` promises.
const PROMISED: Duration = Duration::from_secs(2);

#[test]
fn nobody_who_is_connected_holds_the_exit_up() {
    // The kernel takes the connections; what is sent over them is read by nobody.
    let receivers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [otlp, zipkin] = receivers
        .each_ref()
        .map(|receiver| format!("http://{}", receiver.local_addr().expect("its address")));
    let mut server = Server::with_faults(&["--otlp", &otlp, "--zipkin", &zipkin]);

    // A stream whose span is to leave.
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    echo(&runtime, &server, None);

    // From here on nothing drives this runtime: the console's client is
    // connected, and neither reads its updates nor takes part in a farewell.
    let _updates = runtime.block_on(async {
        let mut console = InstrumentClient::new(connect(server.console).await);
        let updates = console.watch_updates(InstrumentRequest {}).await.expect("updates");
        let mut updates = updates.into_inner();
        updates.message().await.expect("no status").expect("an update");
        (console, updates)
    });

    // An answer that is not read, and a request that does not come to its end.
    let asked = |request: String| {
        let mut socket = TcpStream::connect(server.http).expect("connect");
        socket.write_all(request.as_bytes()).expect("it takes the request");
        socket
    };
    let _unread = asked(format!("GET /debug/snapshot HTTP/1.1\r\nHost: {}\r\n\r\n", server.http));
    let _unsaid = asked("GET /healthz HTTP/1.1\r\nHost: local".to_owned());
    // Connections are accepted in their order: both are once this is answered.
    assert_eq!(server.get("/healthz").status, 200);

    let began = Instant::now();
    server.signal("TERM");
    let status = server.wait();
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < PROMISED, "{took:?}");
}
