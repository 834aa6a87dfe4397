//! The cases of gRPC's public interop description, by its names, and what the
//! reference server serves besides: each with nobody watching, and with each
//! way to watch, which changes nothing.

use std::time::{Duration, Instant};

use futures_util::stream;
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use taskprof::pb::echo::EchoRequest;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::testing::test_service_client::TestServiceClient;
use taskprof::pb::testing::unimplemented_service_client::UnimplementedServiceClient;
use taskprof::pb::testing::{
    BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest,
    StreamingInputCallRequest, StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service as _, ServiceExt as _};

use super::reference::{AnyChannel, By, soon, start_watched};

const REQUESTS: [usize; 4] = [27_182, 8, 1_828, 45_904];
const RESPONSES: [i32; 4] = [31_415, 9, 2_653, 58_979];

async fn client(watched: By) -> TestServiceClient<AnyChannel> {
    TestServiceClient::new(start_watched(false, watched).await.channel)
}

fn payload(size: usize) -> Option<Payload> {
    Some(Payload { body: vec![0; size].into(), ..Default::default() })
}

fn wants(sizes: &[i32]) -> StreamingOutputCallRequest {
    let parameters = |size: &i32| ResponseParameters { size: *size, ..Default::default() };
    StreamingOutputCallRequest {
        response_parameters: sizes.iter().map(parameters).collect(),
        ..Default::default()
    }
}

fn size_of(response: StreamingOutputCallResponse) -> usize {
    response.payload.expect("a payload").body.len()
}

async fn sizes(mut responses: Streaming<StreamingOutputCallResponse>) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(response) = soon("a response", responses.message()).await.expect("a response") {
        sizes.push(size_of(response));
    }
    sizes
}

async fn empty_unary(watched: By) {
    let response = client(watched).await.empty_call(Empty {}).await.expect("an answer");
    assert_eq!(response.into_inner(), Empty {});
}

async fn large_unary(watched: By) {
    let request =
        SimpleRequest { response_size: 314_159, payload: payload(271_828), ..Default::default() };
    let response = client(watched).await.unary_call(request).await.expect("an answer").into_inner();
    assert_eq!(response.payload.expect("a payload").body, vec![0; 314_159]);
}

async fn sizes_that_make_no_sense_are_refused(watched: By) {
    let mut client = client(watched).await;
    for response_size in [-1, i32::MAX] {
        let request = SimpleRequest { response_size, ..Default::default() };
        let status = client.unary_call(request).await.expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}

async fn client_compressed_and_server_compressed_unary(watched: By) {
    let plain = client(watched).await;
    let expect = |value| SimpleRequest {
        expect_compressed: Some(BoolValue { value }),
        response_compressed: Some(BoolValue { value }),
        response_size: 314_159,
        payload: payload(271_828),
        ..Default::default()
    };
    let status = plain.clone().unary_call(expect(true)).await.expect_err("the probe is refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut gzip = plain.send_compressed(Gzip).accept_compressed(Gzip);
    let response = gzip.unary_call(expect(true)).await.expect("an answer");
    assert_eq!(response.metadata().get("grpc-encoding").expect("an encoding"), "gzip");
    assert_eq!(response.into_inner().payload.expect("a payload").body.len(), 314_159);
}

/// One request as bytes, its message not compressed, whatever its header says.
fn plain_frame(method: &str, message: &impl Message) -> http::Request<Body> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a small one").to_be_bytes();
    http::Request::post(format!("/grpc.testing.TestService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", "gzip")
        .body(Body::new(Full::from([&[0], &length[..], &message[..]].concat())))
        .expect("a request")
}

async fn a_plain_message_is_plain_whatever_the_header_says(watched: By) {
    let mut server = start_watched(false, watched).await;
    let code = async |channel: &mut AnyChannel, value| {
        let request =
            SimpleRequest { expect_compressed: Some(BoolValue { value }), ..Default::default() };
        let channel = channel.ready().await.expect("a channel");
        let response = soon("an answer", channel.call(plain_frame("UnaryCall", &request))).await;
        let response = response.expect("an answer");
        let in_head = response.headers().get("grpc-status").cloned();
        let body = soon("the end", response.into_body().collect()).await.expect("a body");
        let status = in_head.or_else(|| body.trailers()?.get("grpc-status").cloned());
        status.expect("a status").to_str().expect("digits").to_owned()
    };
    assert_eq!(code(&mut server.channel, true).await, "3");
    assert_eq!(code(&mut server.channel, false).await, "0");
}

async fn client_compressed_streaming(watched: By) {
    let requests = |first| {
        let expects = |value, size| StreamingInputCallRequest {
            expect_compressed: Some(BoolValue { value }),
            payload: payload(size),
        };
        stream::iter([expects(first, 27_182), expects(false, 45_904)])
    };
    let plain = client(watched).await;
    let probe = plain.clone().streaming_input_call(requests(true)).await;
    assert_eq!(probe.expect_err("the probe is refused").code(), Code::InvalidArgument);
    let size = plain.clone().streaming_input_call(requests(false)).await.expect("an answer");
    assert_eq!(size.into_inner().aggregated_payload_size, 73_086);
    let mut gzip = plain.send_compressed(Gzip);
    let size = gzip.streaming_input_call(requests(true)).await.expect("an answer");
    assert_eq!(size.into_inner().aggregated_payload_size, 73_086);
}

/// The flags of the messages in a body.
fn flags(mut bytes: &[u8]) -> Vec<u8> {
    let mut flags = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = bytes {
        flags.push(*flag);
        bytes = &rest[u32::from_be_bytes([*a, *b, *c, *d]) as usize..];
    }
    flags
}

/// Whether the responses of a stream are compressed is tonic's to say, by what
/// the client accepts.
async fn server_compressed_streaming(watched: By) {
    let mut channel = start_watched(false, watched).await.channel;
    for (accepted, answered) in [("gzip", [1, 1]), ("identity", [0, 0])] {
        let mut request = plain_frame("StreamingOutputCall", &wants(&[31_415, 58_979]));
        request.headers_mut().insert("grpc-accept-encoding", accepted.parse().expect("a value"));
        let channel = channel.ready().await.expect("a channel");
        let response = soon("an answer", channel.call(request)).await.expect("an answer");
        let body = soon("the end", response.into_body().collect()).await.expect("a body");
        assert_eq!(flags(&body.to_bytes()), answered, "{accepted}");
    }
}

async fn a_cacheable_answer_says_for_how_long(watched: By) {
    let mut client = client(watched).await;
    let request = || SimpleRequest { response_size: 9, ..Default::default() };
    let response = client.cacheable_unary_call(request()).await.expect("an answer");
    assert_eq!(response.metadata().get("cache-control").expect("a header"), "max-age=60, public");
    assert_eq!(response.into_inner().payload.expect("a payload").body.len(), 9);
    let other = client.unary_call(request()).await.expect("an answer");
    assert!(other.metadata().get("cache-control").is_none());
}

async fn client_streaming(watched: By) {
    let requests =
        stream::iter(REQUESTS.map(|size| StreamingInputCallRequest {
            payload: payload(size),
            ..Default::default()
        }));
    let response = client(watched).await.streaming_input_call(requests).await.expect("an answer");
    assert_eq!(response.into_inner().aggregated_payload_size, 74_922);
}

async fn server_streaming(watched: By) {
    let responses =
        client(watched).await.streaming_output_call(wants(&RESPONSES)).await.expect("a call");
    assert_eq!(sizes(responses.into_inner()).await, RESPONSES.map(|size| size as usize));
}

async fn responses_keep_their_interval(watched: By) {
    let mut request = wants(&[1, 1, 1]);
    for parameters in &mut request.response_parameters {
        parameters.interval_us = 50_000;
    }
    let began = Instant::now();
    let responses = client(watched).await.streaming_output_call(request).await.expect("a call");
    assert_eq!(sizes(responses.into_inner()).await, [1, 1, 1]);
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
}

async fn ping_pong(watched: By) {
    let (sender, mut receiver) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut client = client(watched).await;
    let mut responses = client.full_duplex_call(requests).await.expect("a call").into_inner();
    for (request, response) in REQUESTS.into_iter().zip(RESPONSES) {
        let mut message = wants(&[response]);
        message.payload = payload(request);
        sender.send(message).await.expect("the call is open");
        let got = soon("a pong", responses.message()).await.expect("a response").expect("no end");
        assert_eq!(size_of(got), response as usize);
    }
    drop(sender);
    assert!(soon("the end", responses.message()).await.expect("a clean end").is_none());
}

async fn half_duplex_answers_after_the_last_request(watched: By) {
    let (sender, mut receiver) = mpsc::channel(4);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut client = client(watched).await;
    let mut responses = client.half_duplex_call(requests).await.expect("a call").into_inner();
    for size in RESPONSES {
        sender.send(wants(&[size])).await.expect("the call is open");
    }
    let early = tokio::time::timeout(Duration::from_millis(100), responses.message()).await;
    assert!(early.is_err(), "answered before the end of the requests: {early:?}");
    drop(sender);
    assert_eq!(sizes(responses).await, RESPONSES.map(|size| size as usize));
}

async fn empty_stream(watched: By) {
    let none = stream::empty::<StreamingOutputCallRequest>();
    let responses = client(watched).await.full_duplex_call(none).await.expect("a call");
    assert!(sizes(responses.into_inner()).await.is_empty());
}

async fn asks_for_status(watched: By, message: &str) {
    let mut client = client(watched).await;
    let wanted = || Some(EchoStatus { code: 2, message: message.into() });
    let unary = SimpleRequest { response_status: wanted(), ..Default::default() };
    let status = client.unary_call(unary).await.expect_err("the status asked for");
    assert_eq!((status.code(), status.message()), (Code::Unknown, message));

    let duplex = StreamingOutputCallRequest { response_status: wanted(), ..Default::default() };
    let mut responses = client
        .full_duplex_call(stream::iter([duplex]))
        .await
        .expect("headers before the status")
        .into_inner();
    let status = responses.message().await.expect_err("the status asked for");
    assert_eq!((status.code(), status.message()), (Code::Unknown, message));
}

async fn status_code_and_message(watched: By) {
    asks_for_status(watched, "test status message").await;
}

async fn special_status_message(watched: By) {
    asks_for_status(watched, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")
        .await;
}

async fn unimplemented_method_and_service(watched: By) {
    let server = start_watched(false, watched).await;
    let mut client = TestServiceClient::new(server.channel.clone());
    let status = client.unimplemented_call(Empty {}).await.expect_err("not implemented");
    assert_eq!(status.code(), Code::Unimplemented);
    let mut client = UnimplementedServiceClient::new(server.channel);
    let status = client.unimplemented_call(Empty {}).await.expect_err("not there");
    assert_eq!(status.code(), Code::Unimplemented);
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    let initial = "test_initial_metadata_value".parse().expect("ascii");
    metadata.insert("x-grpc-test-echo-initial", initial);
    let trailing = MetadataValue::from_bytes(&[0xab, 0xab, 0xab]);
    metadata.insert_bin("x-grpc-test-echo-trailing-bin", trailing);
    request
}

async fn custom_metadata(watched: By) {
    let mut client = client(watched).await;
    let has_trailing = |metadata: &tonic::metadata::MetadataMap| {
        let value = metadata.get_bin("x-grpc-test-echo-trailing-bin").expect("in the trailers");
        assert_eq!(value.to_bytes().expect("base64").as_ref(), [0xab, 0xab, 0xab]);
    };
    let initial = "x-grpc-test-echo-initial";

    let request = with_metadata(SimpleRequest { response_size: 1, ..Default::default() });
    let response = client.unary_call(request).await.expect("an answer");
    assert_eq!(response.metadata().get(initial).expect("initial"), "test_initial_metadata_value");
    // tonic's client merges a unary response's trailers into its metadata.
    has_trailing(response.metadata());

    let response =
        client.full_duplex_call(with_metadata(stream::iter([wants(&[1])]))).await.expect("a call");
    assert_eq!(response.metadata().get(initial).expect("initial"), "test_initial_metadata_value");
    assert!(response.metadata().get_bin("x-grpc-test-echo-trailing-bin").is_none());
    let mut responses = response.into_inner();
    while responses.message().await.expect("a response").is_some() {}
    has_trailing(&responses.trailers().await.expect("an end").expect("trailers"));
}

async fn cancel_after_begin(watched: By) {
    let mut client = client(watched).await;
    let call = client.streaming_input_call(stream::pending::<StreamingInputCallRequest>());
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err());
    client.empty_call(Empty {}).await.expect("the connection lives on");
}

async fn cancel_after_first_response(watched: By) {
    let mut client = client(watched).await;
    let (sender, mut receiver) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut responses = client.full_duplex_call(requests).await.expect("a call").into_inner();
    sender.send(wants(&[31_415])).await.expect("the call is open");
    assert!(soon("a response", responses.message()).await.expect("a response").is_some());
    // Both halves: h2 keeps a call whose requests somebody can still send.
    drop((sender, responses));
    client.empty_call(Empty {}).await.expect("the connection lives on");
}

async fn timeout_on_sleeping_server(watched: By) {
    let mut message = wants(&[31_415]);
    // Far longer than anything here is waited for.
    message.response_parameters[0].interval_us = 600_000_000;
    let mut request = Request::new(stream::iter([message]));
    request.set_timeout(Duration::from_millis(1));
    let mut client = client(watched).await;
    let outcome = async {
        let mut responses = client.full_duplex_call(request).await?.into_inner();
        // tonic's client enforces its deadline up to the headers only.
        let rest = tokio::time::timeout(Duration::from_millis(200), responses.message()).await;
        rest.unwrap_or(Err(Status::deadline_exceeded("ours")))
    };
    let status = soon("the deadline", outcome).await.expect_err("a deadline");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
}

async fn echo_in_all_four_kinds(watched: By) {
    let mut client = EchoClient::new(start_watched(false, watched).await.channel);
    let say = |message: &str| EchoRequest { message: message.into() };
    let unary = client.unary_echo(say("one")).await.expect("an answer").into_inner();
    assert_eq!(unary.message, "one");

    let call = client.server_streaming_echo(say("many")).await.expect("a call");
    let mut responses = call.into_inner();
    let mut count = 0;
    while let Some(response) = responses.message().await.expect("a response") {
        assert_eq!(response.message, "many");
        count += 1;
    }
    assert_eq!(count, 10);

    let call = client.client_streaming_echo(stream::iter([say("first"), say("last")])).await;
    assert_eq!(call.expect("an answer").into_inner().message, "last");

    let call = client.bidirectional_streaming_echo(stream::iter([say("a"), say("b")])).await;
    let mut responses = call.expect("a call").into_inner();
    for wanted in [Some("a"), Some("b"), None] {
        let response = soon("an echo", responses.message()).await.expect("an echo");
        assert_eq!(response.map(|response| response.message).as_deref(), wanted);
    }
}

async fn reflection_lists_what_is_served_in_both_versions(watched: By) {
    use tonic_reflection::pb::{v1, v1alpha};

    for faults in [false, true] {
        let server = start_watched(faults, watched).await;
        let request = v1::ServerReflectionRequest {
            message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            )),
            ..Default::default()
        };
        let mut client =
            v1::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
        let call = client.server_reflection_info(stream::iter([request])).await;
        let response = call.expect("a call").into_inner().message().await;
        let response = response.expect("a response").expect("a message").message_response;
        let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
            response
        else {
            panic!("no list: {response:?}")
        };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        for name in ["grpc.examples.echo.Echo", "grpc.testing.TestService", "grpc.health.v1.Health"]
        {
            assert!(names.iter().any(|listed| listed == name), "{name} in {names:?}");
        }
        let lab = names.iter().any(|name| name == "taskprof.lab.v1.Lab");
        assert_eq!(lab, faults, "{names:?}");

        let request = v1alpha::ServerReflectionRequest {
            message_request: Some(
                v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                    "grpc.testing.TestService".into(),
                ),
            ),
            ..Default::default()
        };
        let mut client =
            v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel);
        let call = client.server_reflection_info(stream::iter([request])).await;
        let response = call.expect("a call").into_inner().message().await;
        let response = response.expect("a response").expect("a message").message_response;
        assert!(
            matches!(
                response,
                Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(
                    _
                ))
            ),
            "{response:?}"
        );
    }
}

async fn a_drain_ends_streams_and_turns_health_off(watched: By) {
    let server = start_watched(false, watched).await;
    let mut health = HealthClient::new(server.channel.clone());
    // The empty name is the server as a whole: what most probes ask for.
    let names = ["", "grpc.examples.echo.Echo", "grpc.testing.TestService"];
    for service in names.map(str::to_owned) {
        let answer = health.check(HealthCheckRequest { service }).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }

    let mut echo = EchoClient::new(server.channel.clone());
    let bidi = echo.bidirectional_streaming_echo(stream::pending()).await.expect("a call");
    let mut bidi = bidi.into_inner();
    let mut interop = TestServiceClient::new(server.channel);
    let duplex = interop.full_duplex_call(stream::pending()).await.expect("a call");
    let mut duplex = duplex.into_inner();

    soon("the drain", server.shutdown.begin()).await;
    let status = soon("the echo's end", bidi.message()).await.expect_err("a status");
    assert_eq!(status.code(), Code::Unavailable);
    let status = soon("the duplex call's end", duplex.message()).await.expect_err("a status");
    assert_eq!(status.code(), Code::Unavailable);
    for service in names.map(str::to_owned) {
        let answer = health.check(HealthCheckRequest { service }).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::NotServing);
    }
    let service = "taskprof.lab.v1.Lab".to_owned();
    let unserved = health.check(HealthCheckRequest { service }).await.expect_err("no such service");
    assert_eq!(unserved.code(), Code::NotFound);
}

/// Every case, under each way to watch.
macro_rules! each {
    ($($by:ident as $module:ident),* => $cases:tt) => {
        $(each!(@ $by $module $cases);)*
    };
    (@ $by:ident $module:ident { $($case:ident,)* }) => {
        mod $module {
            use super::super::reference::By;
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(By::$by).await;
                }
            )*
        }
    };
}

each! {
    Nobody as unwatched, Layer as layer, Server as served, Client as client_side,
    Both as both_sides => {
        empty_unary,
        large_unary,
        sizes_that_make_no_sense_are_refused,
        client_compressed_and_server_compressed_unary,
        a_plain_message_is_plain_whatever_the_header_says,
        client_compressed_streaming,
        server_compressed_streaming,
        a_cacheable_answer_says_for_how_long,
        client_streaming,
        server_streaming,
        responses_keep_their_interval,
        ping_pong,
        half_duplex_answers_after_the_last_request,
        empty_stream,
        status_code_and_message,
        special_status_message,
        unimplemented_method_and_service,
        custom_metadata,
        cancel_after_begin,
        cancel_after_first_response,
        timeout_on_sleeping_server,
        echo_in_all_four_kinds,
        reflection_lists_what_is_served_in_both_versions,
        a_drain_ends_streams_and_turns_health_off,
    }
}
