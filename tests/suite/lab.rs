//! Every fault starts, has its bound, and ends when the server drains.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use taskprof::pb::lab::lab_client::LabClient;
use taskprof::pb::lab::{
    Chunk, CycleRequest, FloodRequest, HoldRequest, MemoryRequest, StuckReply, StuckRequest,
    TrickleRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::reference::{InProcess, connect, soon, start};

type Fault = BoxFuture<'static, Result<StuckReply, Status>>;

/// Every unary fault, asked to last `hold_ms`, each on its own connection:
/// one that blocks its thread takes its connection's other calls along.
async fn unary_faults(server: &InProcess, hold_ms: u64) -> Vec<(&'static str, Fault)> {
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(LabClient::new(connect(server.address).await));
    }
    let mut clients = clients.into_iter();
    let mut client = move || clients.next().expect("one for each");
    let stuck = StuckRequest { hold_ms };
    let cycle = |first: &str, second: &str| CycleRequest {
        hold_ms,
        first: first.into(),
        second: second.into(),
    };
    let never_read = {
        let mut request = Request::new(stream::repeat(Chunk { data: vec![0; 8192].into() }));
        request.metadata_mut().insert("x-taskprof-hold-ms", hold_ms.into());
        request
    };
    macro_rules! fault {
        ($method:ident, $request:expr) => {{
            let (mut client, request) = (client(), $request);
            let call = async move { client.$method(request).await.map(|it| it.into_inner()) };
            (stringify!($method), call.boxed())
        }};
    }
    vec![
        fault!(block_thread, stuck),
        fault!(busy_loop, stuck),
        fault!(hold_mutex, HoldRequest { hold_ms, mutex: "m".into() }),
        fault!(lock_cycle, cycle("a", "b")),
        fault!(lock_cycle, cycle("b", "a")),
        fault!(wait_on_silent_channel, stuck),
        fault!(never_read, never_read),
        fault!(ignore_cancellation, stuck),
        fault!(exhaust_memory, MemoryRequest { hold_ms, bytes: 2 << 20 }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn every_unary_fault_lasts_as_long_as_asked() {
    let server = start(true).await;
    let hold = Duration::from_millis(400);
    let calls = unary_faults(&server, 400).await.into_iter().map(|(name, call)| async move {
        let reply = soon(name, call).await.unwrap_or_else(|status| panic!("{name}: {status}"));
        let released = name == "lock_cycle" && reply.ended_by == "released";
        assert!(reply.ended_by == "bound" || released, "{name}: {reply:?}");
        // The second half of a cycle is released when the first gives up.
        assert!(released || reply.held_ms >= hold.as_millis() as u64, "{name}: {reply:?}");
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn every_unary_fault_ends_with_the_server() {
    let server = start(true).await;
    let mut calls: Vec<_> = unary_faults(&server, 600_000)
        .await
        .into_iter()
        .map(|(name, call)| (name, tokio::spawn(call)))
        .collect();
    for (name, call) in &mut calls {
        let early = tokio::time::timeout(Duration::from_millis(100), call).await;
        assert!(early.is_err(), "{name} is not stuck: {early:?}");
    }
    soon("the drain", server.shutdown.begin()).await;
    for (name, call) in calls {
        let reply = soon(name, call).await.expect("no panic");
        let reply = reply.unwrap_or_else(|status| panic!("{name}: {status}"));
        assert!(matches!(&*reply.ended_by, "drain" | "released"), "{name}: {reply:?}");
    }
}

async fn client() -> (InProcess, LabClient<Channel>) {
    let server = start(true).await;
    let client = LabClient::new(server.channel.clone());
    (server, client)
}

#[tokio::test]
async fn a_flood_has_a_bound_in_bytes() {
    let (_server, mut client) = client().await;
    let request = FloodRequest { message_bytes: 1_000, total_bytes: 10_000, ..Default::default() };
    let chunks = client.flood(request).await.expect("a call").into_inner();
    let sizes: Vec<usize> =
        soon("the flood", chunks.map(|chunk| chunk.expect("a chunk").data.len()).collect()).await;
    assert_eq!(sizes, [1_000; 10]);

    let request = FloodRequest { message_bytes: u32::MAX, ..Default::default() };
    let status = client.flood(request).await.expect_err("too large");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn memory_is_taken_up_to_what_was_asked() {
    let (_server, mut client) = client().await;
    let request = MemoryRequest { hold_ms: 1_000, bytes: (2 << 20) + 1 };
    let reply = soon("the reply", client.exhaust_memory(request)).await.expect("a reply");
    assert_eq!(reply.into_inner().bytes, (2 << 20) + 1);
}

#[tokio::test]
async fn floods_and_trickles_have_a_bound_in_time_and_end_with_the_server() {
    let (server, mut client) = client().await;
    let began = Instant::now();
    let request = TrickleRequest { hold_ms: 350, every_ms: 100, ..Default::default() };
    let drops = client.slow_trickle(request).await.expect("a call").into_inner();
    let drops: Vec<Bytes> =
        soon("the trickle", drops.map(|chunk| chunk.expect("a drop").data).collect()).await;
    assert!((2..=4).contains(&drops.len()), "{drops:?}");
    assert!(began.elapsed() >= Duration::from_millis(350));

    let request = TrickleRequest { hold_ms: 600_000, every_ms: 60_000, ..Default::default() };
    let mut drops = client.slow_trickle(request).await.expect("a call").into_inner();
    assert!(soon("a drop", drops.message()).await.expect("a drop").is_some());
    server.shutdown.begin().await;
    let status = soon("the end", drops.message()).await.expect_err("a status");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_task_is_left_behind_and_ends_at_its_bound() {
    let (server, mut client) = client().await;
    let request = StuckRequest { hold_ms: 1_000 };
    let mut chunks = client.leave_task_behind(request).await.expect("a call").into_inner();
    assert!(soon("its message", chunks.message()).await.expect("a message").is_some());
    drop(chunks);
    // The server has seen the reset once it answers a later call.
    LabClient::new(server.channel.clone())
        .block_thread(StuckRequest { hold_ms: 1 })
        .await
        .expect("an answer");
    let drain = server.shutdown.drain();
    assert_eq!(drain.tasks(), 1, "the task outlives its call");
    soon("the bound", async {
        while drain.tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!drain.has_begun());
}

#[tokio::test]
async fn a_cancelled_call_goes_on_and_ends_with_the_server() {
    let (server, mut client) = client().await;
    let call = client.ignore_cancellation(StuckRequest { hold_ms: 600_000 });
    assert!(tokio::time::timeout(Duration::from_millis(200), call).await.is_err());
    client.block_thread(StuckRequest { hold_ms: 1 }).await.expect("an answer");
    assert_eq!(server.shutdown.drain().tasks(), 1, "the task goes on");
    soon("the drain", server.shutdown.begin()).await;
    assert_eq!(server.shutdown.drain().tasks(), 0);
}

#[tokio::test]
async fn headers_wait_for_the_first_message_and_end_with_the_server() {
    let (server, mut client) = client().await;
    let first = Chunk { data: vec![7].into() };
    let requests = stream::iter([first.clone()]).chain(stream::pending());
    let call = soon("the headers", client.answer_first_message(requests)).await.expect("a call");
    let chunks: Vec<_> = soon("the end", call.into_inner().collect()).await;
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].as_ref().expect("a chunk"), &first);

    let mut request = Request::new(stream::pending::<Chunk>());
    request.metadata_mut().insert("x-taskprof-hold-ms", 600_000.into());
    let mut call = tokio::spawn(async move { client.answer_first_message(request).await });
    let early = tokio::time::timeout(Duration::from_millis(100), &mut call).await;
    assert!(early.is_err(), "headers before a message: {early:?}");
    soon("the drain", server.shutdown.begin()).await;
    let status = soon("the end", call).await.expect("no panic").expect_err("a status");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (_server, mut client) = client().await;
    let same = CycleRequest { first: "a".into(), second: "a".into(), hold_ms: 1 };
    let status = client.lock_cycle(same).await.expect_err("one mutex is no cycle");
    assert_eq!(status.code(), Code::InvalidArgument);
    let long = HoldRequest { mutex: "x".repeat(1_000), hold_ms: 1 };
    let status = client.hold_mutex(long).await.expect_err("too long a name");
    assert_eq!(status.code(), Code::InvalidArgument);
    let huge = MemoryRequest { bytes: u64::MAX, hold_ms: 1 };
    let status = client.exhaust_memory(huge).await.expect_err("more than the bound");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let mut request = Request::new(stream::empty::<Chunk>());
    request.metadata_mut().insert("x-taskprof-hold-ms", "soon".parse().expect("ascii"));
    let status = client.never_read(request).await.expect_err("not a number");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_faults_there_is_no_lab() {
    let server = start(false).await;
    let status = LabClient::new(server.channel)
        .block_thread(StuckRequest { hold_ms: 1 })
        .await
        .expect_err("not served");
    assert_eq!(status.code(), Code::Unimplemented);
}
