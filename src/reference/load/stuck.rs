//! Calls that get stuck, by the client's fault or the Lab's.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tonic::{Request, Status};

use super::traffic::{open_echo, payload, read_all};
use super::{CallResult, Caller, Ending, Wire};
use crate::pb::echo::EchoRequest;
use crate::pb::lab::lab_client::LabClient;
use crate::pb::lab::{
    Chunk, CycleRequest, FloodRequest, HoldRequest, MemoryRequest, StuckRequest, TrickleRequest,
};
use crate::pb::testing::test_service_client::TestServiceClient;
use crate::pb::testing::{
    ResponseParameters, StreamingInputCallRequest, StreamingOutputCallRequest,
};
use crate::reference::lab::HOLD_MS;

/// How long a fault that may last is asked to last.
pub(super) const LONG: Duration = Duration::from_secs(120);
/// How long all workers are left alone after one of them was taken.
const WORKER_LEFT_ALONE: Duration = Duration::from_secs(7);
/// Between two calls that each leave something behind.
const LEAVE_EVERY: Duration = Duration::from_secs(5);
/// How long that lasts: with the pause above, a dozen a caller at one time.
const LEFT_FOR: Duration = Duration::from_secs(60);

pub(super) fn ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Asks for far more than fits the window, reads one message and stops reading.
pub async fn unread_stream(caller: Caller) -> CallResult {
    let mut client = TestServiceClient::new(caller.channel.clone());
    let request = StreamingOutputCallRequest {
        response_parameters: vec![ResponseParameters { size: 65_536, ..Default::default() }; 1_024],
        ..Default::default()
    };
    let mut responses = client.streaming_output_call(request).await?.into_inner();
    responses.message().await?;
    caller.stats.sent(1);
    caller.stats.received(1);
    caller.stop.cancelled().await;
    drop(responses); // held until here, unread
    Ok(Ending::Abandoned)
}

/// Sends three messages and then neither another nor the end.
pub async fn silent_upload(caller: Caller) -> CallResult {
    let mut client = TestServiceClient::new(caller.channel.clone());
    let request = StreamingInputCallRequest { payload: payload(1_024), ..Default::default() };
    let stats = caller.stats.clone();
    let three = stream::repeat(request).take(3).inspect(move |_| stats.sent(1));
    let call = client.streaming_input_call(three.chain(stream::pending()));
    until_stopped(&caller, call).await
}

/// Opens a stream, lets it talk, and drops it after a few milliseconds.
pub async fn cancel_storm(caller: Caller) -> CallResult {
    let (requests, responses) = open_echo(&caller).await?;
    if requests.send(EchoRequest { message: "soon gone".into() }).await.is_ok() {
        caller.stats.sent(1);
    }
    // Spread over 1 to 20 ms without a random number generator.
    let pause = 1 + (u64::from(caller.index) * 7 + caller.stats.calls_started() * 3) % 20;
    caller.pause(Duration::from_millis(pause)).await;
    drop((requests, responses));
    Ok(Ending::Abandoned)
}

/// A worker sleeps, then everybody has a rest.
pub async fn block_thread(caller: Caller) -> CallResult {
    let request = StuckRequest { hold_ms: ms(caller.hold) };
    let ending = until_stopped(&caller, lab(&caller).block_thread(request)).await?;
    caller.pause(WORKER_LEFT_ALONE).await;
    Ok(ending)
}

/// A worker computes, then everybody has a rest.
pub async fn busy_loop(caller: Caller) -> CallResult {
    let request = StuckRequest { hold_ms: ms(caller.hold) };
    let ending = until_stopped(&caller, lab(&caller).busy_loop(request)).await?;
    caller.pause(WORKER_LEFT_ALONE).await;
    Ok(ending)
}

/// All callers want one mutex, and whoever has it keeps it.
pub async fn hold_mutex(caller: Caller) -> CallResult {
    let request = HoldRequest { hold_ms: ms(LONG), mutex: "the-one".into() };
    until_stopped(&caller, lab(&caller).hold_mutex(request)).await
}

/// Callers 0 and 1 are a pair, 2 and 3 another; each pair has two mutexes and
/// takes them in opposite orders.
pub async fn lock_cycle(caller: Caller) -> CallResult {
    let pair = caller.index / 2;
    let (a, b) = (format!("cycle-{pair}-a"), format!("cycle-{pair}-b"));
    let (first, second) = if caller.index.is_multiple_of(2) { (a, b) } else { (b, a) };
    let request = CycleRequest { hold_ms: ms(LONG), first, second };
    until_stopped(&caller, lab(&caller).lock_cycle(request)).await
}

/// The handler waits for a message that nobody sends.
pub async fn silent_channel(caller: Caller) -> CallResult {
    let request = StuckRequest { hold_ms: ms(LONG) };
    until_stopped(&caller, lab(&caller).wait_on_silent_channel(request)).await
}

/// Sends as fast as it may to a handler that does not read.
pub async fn never_read(caller: Caller) -> CallResult {
    let chunk = Chunk { data: Bytes::from_static(&[0; 16_384]) };
    let stats = caller.stats.clone();
    let endless = stream::repeat(chunk).inspect(move |_| stats.sent(1));
    let mut request = Request::new(endless);
    request.metadata_mut().insert(HOLD_MS, ms(LONG).into());
    until_stopped(&caller, lab(&caller).never_read(request)).await
}

/// The server floods, the client reads one message and no more.
pub async fn flood(caller: Caller) -> CallResult {
    let request = FloodRequest { hold_ms: ms(LONG), message_bytes: 16_384, ..Default::default() };
    let mut chunks = lab(&caller).flood(request).await?.into_inner();
    chunks.message().await?;
    caller.stats.received(1);
    caller.stop.cancelled().await;
    drop(chunks); // held until here, unread
    Ok(Ending::Abandoned)
}

/// One message that is larger than the stream's window, and no reader for it.
pub async fn huge_message(caller: Caller) -> CallResult {
    let (hold_ms, every_ms) = (ms(LONG), ms(Duration::from_secs(60)));
    let request = TrickleRequest { hold_ms, every_ms, message_bytes: 3_000_000 };
    let chunks = lab(&caller).slow_trickle(request).await?.into_inner();
    caller.stop.cancelled().await;
    drop(chunks); // held until here, unread
    Ok(Ending::Abandoned)
}

/// Messages far smaller than their frames' and buffers' cost, and no reader.
pub async fn tiny_messages(caller: Caller) -> CallResult {
    unread(caller, FloodRequest { hold_ms: ms(LONG), message_bytes: 20, ..Default::default() })
        .await
}

/// Three that take the connection's window between them; the fourth reads.
pub async fn window_hogs(caller: Caller) -> CallResult {
    if caller.index % 4 == 3 {
        return trickle(caller, Duration::from_millis(100)).await;
    }
    let request = FloodRequest { hold_ms: ms(LONG), message_bytes: 16_384, ..Default::default() };
    unread(caller, request).await
}

async fn unread(caller: Caller, request: FloodRequest) -> CallResult {
    let chunks = lab(&caller).flood(request).await?.into_inner();
    caller.stop.cancelled().await;
    drop(chunks); // held until here, unread
    Ok(Ending::Abandoned)
}

/// The last one sends to a server that reads; the others, to one that does not,
/// until no window is left on their common connection.
pub async fn starved_upload(caller: Caller) -> CallResult {
    if caller.index < 17 { never_read(caller).await } else { super::traffic::upload(caller).await }
}

/// No answer, ever.
pub async fn never_answer(caller: Caller) -> CallResult {
    let request = StuckRequest { hold_ms: ms(LONG) };
    until_stopped(&caller, lab(&caller).never_answer(request)).await
}

/// Wants the headers before it sends, of a server that wants a message before
/// it answers.
pub async fn both_wait(caller: Caller) -> CallResult {
    let mut request = Request::new(stream::pending::<Chunk>());
    request.metadata_mut().insert(HOLD_MS, ms(LONG).into());
    until_stopped(&caller, lab(&caller).answer_first_message(request)).await
}

/// Drops an upload whose window is used up: the reset must not wait for it.
pub async fn dropped_upload(caller: Caller) -> CallResult {
    tokio::select! {
        ending = never_read(caller.clone()) => return ending,
        _ = caller.pause(Duration::from_millis(500)) => {}
    }
    caller.pause(LEFT_FOR).await;
    Ok(Ending::Abandoned)
}

/// Cancels a call that has no answer yet; the handler is dropped with it.
pub async fn cancelled_unary(caller: Caller) -> CallResult {
    let mut client = lab(&caller);
    tokio::select! {
        reply = client.never_answer(StuckRequest { hold_ms: ms(LONG) }) => {
            reply?;
            return Ok(Ending::Complete);
        }
        _ = caller.pause(Duration::from_millis(300)) => {}
    }
    Ok(Ending::Abandoned)
}

/// Cancels a call whose requests the server has put away.
pub async fn kept_requests(caller: Caller) -> CallResult {
    let chunk = Chunk { data: Bytes::from_static(b"kept") };
    let mut request = Request::new(stream::iter([chunk]).chain(stream::pending()));
    request.metadata_mut().insert(HOLD_MS, ms(LEFT_FOR).into());
    let mut chunks = lab(&caller).keep_requests(request).await?.into_inner();
    chunks.message().await?;
    caller.stats.received(1);
    drop(chunks);
    caller.pause(LEFT_FOR).await;
    Ok(Ending::Abandoned)
}

/// The first four stay; the others want in where no more than four may be.
pub async fn slot_queue(caller: Caller) -> CallResult {
    if caller.index < 4 {
        return slow_trickle(caller).await;
    }
    caller.pause(Duration::from_millis(300)).await;
    super::traffic::unary(caller).await
}

/// Reads a stream that is slow and well.
pub async fn slow_trickle(caller: Caller) -> CallResult {
    trickle(caller, Duration::from_secs(1)).await
}

async fn trickle(caller: Caller, every: Duration) -> CallResult {
    let request = TrickleRequest { hold_ms: ms(LONG), every_ms: ms(every), message_bytes: 0 };
    let chunks = lab(&caller).slow_trickle(request).await?.into_inner();
    read_all(&caller, chunks, Duration::ZERO).await
}

/// Starts a call that spawns a task, takes one message, and leaves.
pub async fn leave_task_behind(caller: Caller) -> CallResult {
    let request = StuckRequest { hold_ms: ms(LEFT_FOR) };
    let mut chunks = lab(&caller).leave_task_behind(request).await?.into_inner();
    chunks.message().await?;
    caller.stats.received(1);
    drop(chunks);
    caller.pause(LEAVE_EVERY).await;
    Ok(Ending::Abandoned)
}

/// Starts a call that does not listen to its cancellation, and cancels it.
pub async fn ignore_cancellation(caller: Caller) -> CallResult {
    let request = StuckRequest { hold_ms: ms(LEFT_FOR) };
    let mut client = lab(&caller);
    tokio::select! {
        reply = client.ignore_cancellation(request) => {
            reply?;
            return Ok(Ending::Complete);
        }
        _ = caller.pause(Duration::from_millis(500)) => {}
    }
    caller.pause(LEAVE_EVERY).await;
    Ok(Ending::Abandoned)
}

/// Has the server take 64 MiB.
pub async fn exhaust_memory(caller: Caller) -> CallResult {
    let request = MemoryRequest { hold_ms: ms(LONG), bytes: 64 << 20 };
    until_stopped(&caller, lab(&caller).exhaust_memory(request)).await
}

pub(super) fn lab(caller: &Caller) -> LabClient<Wire> {
    LabClient::new(caller.channel.clone())
}

/// Waits for the response, or cancels the call when it is time to stop.
pub(super) async fn until_stopped<T>(
    caller: &Caller,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> CallResult {
    tokio::select! {
        response = call => {
            response?;
            caller.stats.received(1);
            Ok(Ending::Complete)
        }
        () = caller.stop.cancelled() => Ok(Ending::Abandoned),
    }
}
