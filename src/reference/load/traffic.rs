//! Healthy calls.

use std::time::{Duration, Instant};

use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::stuck::{LONG, lab, ms, until_stopped};
use super::{CallResult, Caller, Ending};
use crate::pb::echo::EchoRequest;
use crate::pb::echo::echo_client::EchoClient;
use crate::pb::lab::{FloodRequest, StuckRequest};
use crate::pb::testing::test_service_client::TestServiceClient;
use crate::pb::testing::{
    Payload, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
    StreamingOutputCallRequest,
};

/// Messages of one streaming call in one direction.
const MESSAGES: usize = 1_000;

/// Between two messages of a stream that watches.
const WATCH_EVERY: Duration = Duration::from_secs(3);

/// Between two calls of the mix: traffic to look at, not a benchmark.
const MIX_PAUSE: Duration = Duration::from_millis(20);

/// Between two messages of a stream that never ends.
const PACE: Duration = Duration::from_millis(5);

/// All kinds side by side, at a gentle pace.
pub async fn mix(caller: Caller) -> CallResult {
    caller.pause(MIX_PAUSE).await;
    match caller.index % 5 {
        0 => unary(caller).await,
        1 => bidi(caller, Duration::from_millis(50)).await,
        2 => server_stream(caller).await,
        3 => client_stream(caller).await,
        _ => watch(caller).await,
    }
}

/// One request, one response.
pub async fn unary(caller: Caller) -> CallResult {
    let mut client = TestServiceClient::new(caller.channel.clone());
    let began = Instant::now();
    let request =
        SimpleRequest { response_size: 1_024, payload: payload(256), ..Default::default() };
    client.unary_call(request).await?;
    caller.stats.latencies.record(began.elapsed());
    caller.stats.sent(1);
    caller.stats.received(1);
    Ok(Ending::Complete)
}

/// A message for a message, as fast as they go.
pub async fn ping_pong(caller: Caller) -> CallResult {
    bidi(caller, Duration::ZERO).await
}

/// A message now and then; idle by design in between.
pub async fn watch(caller: Caller) -> CallResult {
    bidi(caller, WATCH_EVERY).await
}

async fn bidi(caller: Caller, pause: Duration) -> CallResult {
    let (requests, mut responses) = open_echo(&caller).await?;
    while !caller.stop.is_cancelled() {
        let began = Instant::now();
        let request = EchoRequest { message: "ping".into() };
        if requests.send(request).await.is_err() {
            break; // the call has ended; the responses say how
        }
        caller.stats.sent(1);
        if responses.message().await?.is_none() {
            return Err(Status::internal("the server ended the stream by itself"));
        }
        caller.stats.received(1);
        caller.stats.latencies.record(began.elapsed());
        if !pause.is_zero() && !caller.pause(pause).await {
            break;
        }
    }
    drop(requests);
    while responses.message().await?.is_some() {}
    Ok(Ending::Complete)
}

/// A bidi echo call and the sender of its requests.
pub async fn open_echo(
    caller: &Caller,
) -> Result<(mpsc::Sender<EchoRequest>, Streaming<crate::pb::echo::EchoResponse>), Status> {
    let (sender, mut receiver) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut client = EchoClient::new(caller.channel.clone());
    let responses = client.bidirectional_streaming_echo(requests).await?.into_inner();
    Ok((sender, responses))
}

/// One request, many responses, all read.
pub async fn server_stream(caller: Caller) -> CallResult {
    let mut client = TestServiceClient::new(caller.channel.clone());
    let request = StreamingOutputCallRequest {
        response_parameters: vec![ResponseParameters { size: 512, ..Default::default() }; MESSAGES],
        ..Default::default()
    };
    let mut responses = client.streaming_output_call(request).await?.into_inner();
    caller.stats.sent(1);
    while responses.message().await?.is_some() {
        caller.stats.received(1);
    }
    Ok(Ending::Complete)
}

/// Many requests, one response.
pub async fn client_stream(caller: Caller) -> CallResult {
    let mut client = TestServiceClient::new(caller.channel.clone());
    let request = StreamingInputCallRequest { payload: payload(512), ..Default::default() };
    let stats = caller.stats.clone();
    let requests = stream::iter((0..MESSAGES).map(move |_| {
        stats.sent(1);
        request.clone()
    }));
    let response = client.streaming_input_call(Request::new(requests)).await?.into_inner();
    caller.stats.received(1);
    if response.aggregated_payload_size != (512 * MESSAGES) as i32 {
        return Err(Status::data_loss("the server did not count all bytes"));
    }
    Ok(Ending::Complete)
}

/// Two hundred messages in a row, then nothing for a while.
pub async fn bursts(caller: Caller) -> CallResult {
    let (requests, mut responses) = open_echo(&caller).await?;
    loop {
        for _ in 0..200 {
            let request = EchoRequest { message: "burst".into() };
            if requests.send(request).await.is_err() {
                break;
            }
            caller.stats.sent(1);
            if responses.message().await?.is_none() {
                return Err(Status::internal("the server ended the stream by itself"));
            }
            caller.stats.received(1);
        }
        if !caller.pause(Duration::from_secs(4)).await {
            break;
        }
    }
    drop(requests);
    while responses.message().await?.is_some() {}
    Ok(Ending::Complete)
}

/// A message larger than a stream's window, both ways.
pub async fn huge(caller: Caller) -> CallResult {
    const SIZE: usize = 3 << 20;
    let mut client = TestServiceClient::new(caller.channel.clone());
    let request =
        SimpleRequest { response_size: SIZE as i32, payload: payload(SIZE), ..Default::default() };
    client.unary_call(request).await?;
    caller.stats.sent(1);
    caller.stats.received(1);
    caller.pause(Duration::from_millis(500)).await;
    Ok(Ending::Complete)
}

/// Sends for as long as the traffic lasts, some three megabytes a second.
pub async fn upload(caller: Caller) -> CallResult {
    let mut client = TestServiceClient::new(caller.channel.clone());
    let request = StreamingInputCallRequest { payload: payload(16_384), ..Default::default() };
    let (stats, stop) = (caller.stats.clone(), caller.stop.clone());
    let requests = stream::unfold((), move |()| {
        let (request, stats, stop) = (request.clone(), stats.clone(), stop.clone());
        async move {
            tokio::select! {
                () = tokio::time::sleep(PACE) => {
                    stats.sent(1);
                    Some((request, ()))
                }
                () = stop.cancelled() => None,
            }
        }
    });
    client.streaming_input_call(Request::new(requests)).await?;
    caller.stats.received(1);
    Ok(Ending::Complete)
}

/// Reads for as long as the traffic lasts, some three megabytes a second.
pub async fn download(caller: Caller) -> CallResult {
    read_flood(caller, 16_384, PACE).await
}

/// Reads so slowly that the window is closed for most of the time.
pub async fn slow_reader(caller: Caller) -> CallResult {
    read_flood(caller, 65_536, Duration::from_millis(25)).await
}

async fn read_flood(caller: Caller, message_bytes: u32, pace: Duration) -> CallResult {
    let request = FloodRequest { hold_ms: ms(LONG), message_bytes, total_bytes: 4 << 30 };
    let chunks = lab(&caller).flood(request).await?.into_inner();
    read_all(&caller, chunks, pace).await
}

/// Reads a stream to its end, with a pause after each message.
pub async fn read_all<T>(
    caller: &Caller,
    mut messages: Streaming<T>,
    pace: Duration,
) -> CallResult {
    loop {
        tokio::select! {
            message = messages.message() => match message? {
                Some(_) => caller.stats.received(1),
                None => return Ok(Ending::Complete),
            },
            () = caller.stop.cancelled() => return Ok(Ending::Abandoned),
        }
        if !pace.is_zero() && !caller.pause(pace).await {
            return Ok(Ending::Abandoned);
        }
    }
}

/// Waits for an answer that takes its time, as it is meant to.
pub async fn long_poll(caller: Caller) -> CallResult {
    // Spread over 3 to 12 seconds.
    let hold_ms = 3_000 + u64::from(caller.index) % 4 * 3_000;
    until_stopped(&caller, lab(&caller).long_poll(StuckRequest { hold_ms })).await
}

/// Reads the news of a service that has none.
pub async fn health_watch(caller: Caller) -> CallResult {
    let mut client = HealthClient::new(caller.channel.clone());
    let request = HealthCheckRequest { service: String::new() };
    let updates = client.watch(request).await?.into_inner();
    read_all(&caller, updates, Duration::ZERO).await
}

pub fn payload(size: usize) -> Option<Payload> {
    Some(Payload { body: vec![0; size].into(), ..Default::default() })
}
