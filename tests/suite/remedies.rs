//! The remedies against streams that hang or flood, on the reference server.

use std::io::{Read, Write};
use std::net::TcpStream;

use futures_util::stream;
use taskprof::pb::echo::EchoRequest;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::testing::test_service_client::TestServiceClient;
use taskprof::pb::testing::{ResponseParameters, StreamingOutputCallRequest};
use tonic::Code;

use super::reference::{connect, soon};
use super::server::{DEADLINE, Server};

/// What a client sends first (RFC 9113, section 3.4): the preface, and an
/// empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const PING: u8 = 6;
const ACK: u8 = 1;

/// The next frame's type, flags and payload; `None` once the server has closed.
fn frame(socket: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    if let Err(error) = socket.read_exact(&mut head) {
        let closed = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
        assert!(closed.contains(&error.kind()), "the server neither speaks nor closes: {error}");
        return None;
    }
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload).expect("the frame's payload");
    Some((head[3], head[4], payload))
}

/// The payload of the server's next PING.
fn ping(socket: &mut TcpStream) -> Option<Vec<u8>> {
    loop {
        let (kind, flags, payload) = frame(socket)?;
        if kind == PING && flags & ACK == 0 {
            return Some(payload);
        }
    }
}

#[test]
fn a_client_that_stops_answering_pings_is_closed() {
    let server = Server::start(&["serve", "--keepalive", "100ms", "--keepalive-timeout", "300ms"]);
    let mut socket = TcpStream::connect(server.grpc).expect("connect");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    socket.write_all(HELLO).expect("the preface");
    // As long as it answers it may stay, and is asked again and again.
    for _ in 0..5 {
        let payload = ping(&mut socket).expect("a PING");
        socket.write_all(&[&[0, 0, 8, PING, ACK, 0, 0, 0, 0], &payload[..]].concat()).expect("ACK");
    }
    let connections = server.json("/debug/connections");
    assert_eq!(connections["connections"].as_array().map(Vec::len), Some(1), "{connections:#}");
    // One more, which it leaves unanswered.
    ping(&mut socket).expect("a PING");
    while frame(&mut socket).is_some() {}
    server.wait_for("/debug/connections", "end of the connection", |json| {
        json["connections"].as_array().is_some_and(Vec::is_empty)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_for_too_long_is_told_so() {
    let server = Server::start(&["serve", "--recv-timeout", "200ms"]);
    let mut client = EchoClient::new(connect(server.grpc).await);
    let call = client.bidirectional_streaming_echo(stream::pending());
    let mut replies = soon("a call", call).await.expect("headers").into_inner();
    let status = soon("its end", replies.message()).await.expect_err("a status");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("the client has not sent a message for 200ms"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_for_too_long_is_given_up() {
    let server = Server::start(&["serve", "--send-timeout", "200ms"]);
    let mut client = TestServiceClient::new(connect(server.grpc).await);
    // More than its windows have room for, and it reads none.
    let response_parameters =
        vec![ResponseParameters { size: 1 << 20, ..ResponseParameters::default() }; 64];
    let request = StreamingOutputCallRequest { response_parameters, ..Default::default() };
    let _unread = soon("a call", client.streaming_output_call(request)).await.expect("headers");
    // No status reaches it: its windows are closed. It is reset.
    server.wait_for("/debug/streams", "end of the stream", |json| {
        json["streams"].as_array().is_some_and(|streams| {
            streams.iter().any(|stream| {
                let why = stream["cancel_reason"].as_str().unwrap_or_default();
                why.contains("the client has not taken a message for 200ms")
                    && stream["wire"]["reset"]["by_peer"] == false
            })
        })
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_methods_bucket_is_shared_by_all_connections() {
    let server = Server::start(&["serve", "--method-stream-rate", "1"]);
    let request = || EchoRequest { message: "hello".into() };
    let mut refused = None;
    // Calls come faster than one a second from any machine that works: the
    // first takes the token, and each has a connection of its own.
    for _ in 0..20 {
        let mut client = EchoClient::new(connect(server.grpc).await);
        if let Err(status) = soon("an answer", client.unary_echo(request())).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("more than one call a second");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("on this method"), "{status}");
    // Another method has its own bucket.
    let mut client = EchoClient::new(connect(server.grpc).await);
    soon("a call", client.server_streaming_echo(request())).await.expect("another method");
}
