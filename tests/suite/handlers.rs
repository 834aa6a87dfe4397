//! What handlers spawn, and what waits behind one that blocks: through the
//! real endpoints, of a runtime whose numbers are known.

use std::pin::Pin;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures_util::Stream;
use serde_json::Value;
use taskprof::Profiler;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::echo::echo_server::{Echo, EchoServer};
use taskprof::pb::echo::{EchoRequest, EchoResponse};
use taskprof::pb::lab::StuckRequest;
use taskprof::pb::lab::lab_client::LabClient;
use tokio::runtime::{Builder, Runtime};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::reference::{connect, soon};
use super::server::{Answer, DEADLINE, Server};

/// A runtime with one worker and the profiler on it.
pub fn watched() -> (Profiler, Runtime) {
    let profiler =
        Profiler::builder().http("127.0.0.1:0").await_chains(false).start().expect("a profiler");
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    let runtime = profiler.runtime(builder).build().expect("a runtime");
    (profiler, runtime)
}

fn json(profiler: &Profiler, path: &str) -> Value {
    let answer = Answer::to(profiler.http_addr().expect("an address"), path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

pub fn wait_for(
    profiler: &Profiler,
    path: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let began = Instant::now();
    loop {
        let json = json(profiler, path);
        if wanted(&json) {
            return json;
        }
        assert!(began.elapsed() < DEADLINE, "no {what} at {path}:\n{json:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Its unary method spawns as any application would, and answers then.
struct Spawns;

type Responses = Pin<Box<dyn Stream<Item = Result<EchoResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Spawns {
    async fn unary_echo(
        &self,
        request: Request<EchoRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        tokio::spawn(async {
            // The child of a child, when the handler is long gone.
            tokio::task::yield_now().await;
            tokio::spawn(std::future::pending::<()>());
            std::future::pending::<()>().await;
        });
        Ok(Response::new(EchoResponse { message: request.into_inner().message }))
    }

    type ServerStreamingEchoStream = Responses;

    async fn server_streaming_echo(
        &self,
        _: Request<EchoRequest>,
    ) -> Result<Response<Responses>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn client_streaming_echo(
        &self,
        _: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    type BidirectionalStreamingEchoStream = Responses;

    async fn bidirectional_streaming_echo(
        &self,
        _: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Responses>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

#[test]
fn children_of_a_handler_carry_its_method_and_peer() {
    let (profiler, runtime) = watched();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let profiler = profiler.clone();
        let routes = Routes::new(EchoServer::new(Spawns));
        tokio::spawn(async move { profiler.serve(routes, listener).await });
        address
    });
    // The client is none of the runtime's.
    let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _channel = client.block_on(async {
        let channel = connect(address).await;
        let request = EchoRequest { message: "hello".into() };
        let answer = EchoClient::new(channel.clone()).unary_echo(request).await;
        assert_eq!(answer.expect("an answer").into_inner().message, "hello");
        channel
    });
    let connection = json(&profiler, "/debug/connections");
    let peer = &connection["connections"][0]["peer"];
    assert!(peer.is_string(), "{connection:#}");
    let of_this_file = |json: &Value| -> Vec<Value> {
        let tasks = json["tasks"].as_array().expect("tasks").iter();
        let here =
            |task: &&Value| task["spawned_at"]["file"] == file!() && !task["method"].is_null();
        tasks.filter(here).cloned().collect()
    };
    let tasks = wait_for(&profiler, "/debug/tasks?group=none", "two children", |json| {
        of_this_file(json).len() == 2
    });
    for task in of_this_file(&tasks) {
        assert_eq!(task["method"], "/grpc.examples.echo.Echo/UnaryEcho", "{task:#}");
        assert_eq!(task["peer"], *peer, "{task:#}");
    }
}

/// Tasks of the reference server that outlive their stream say who left them,
/// and where they were spawned: not in the scope that spawned them.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_left_behind_is_on_its_streams_record() {
    let server = Server::with_faults(&[]);
    let channel = connect(server.grpc).await;
    let mut client = LabClient::new(channel.clone());
    let request = StuckRequest { hold_ms: 60_000 };
    let mut chunks =
        soon("a call", client.leave_task_behind(request)).await.expect("a call").into_inner();
    soon("a chunk", chunks.message()).await.expect("a chunk");
    drop(chunks);
    let streams = server.wait_for("/debug/streams", "a task behind a stream", |json| {
        let streams = json["streams"].as_array().into_iter().flatten();
        let mut ended = streams.filter(|stream| !stream["ended_ago_ns"].is_null());
        ended.any(|stream| stream["live_tasks"] == 1)
    });
    let tasks = server.json("/debug/tasks?group=none&limit=1000");
    let left: Vec<&Value> = tasks["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .filter(|task| task["method"] == "/taskprof.lab.v1.Lab/LeaveTaskBehind")
        .collect();
    assert_eq!(left.len(), 1, "{streams:#}\n{tasks:#}");
    assert_eq!(left[0]["spawned_at"]["file"], "src/reference/lab/cancel.rs", "{:#}", left[0]);
    assert!(left[0]["peer"].is_string(), "{:#}", left[0]);
}

/// Spawned on the worker itself while it is blocked: into its own queue.
const LOCAL: u64 = 7;
/// Spawned by another thread meanwhile: into the queue of all workers.
const GLOBAL: u64 = 5;

#[test]
fn what_waits_behind_a_blocked_worker_is_counted_live() {
    let (profiler, runtime) = watched();
    let (release, released) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let blocked = runtime.spawn(async move {
        let queued: Vec<_> = (0..LOCAL).map(|_| tokio::spawn(async {})).collect();
        tell.send(()).expect("the test waits");
        released.recv().expect("the test releases it");
        queued
    });
    told.recv_timeout(DEADLINE).expect("it runs");
    let remote: Vec<_> = (0..GLOBAL).map(|_| runtime.spawn(async {})).collect();
    let seen = wait_for(&profiler, "/debug/workers", "blocked worker", |json| {
        // Counted again at every look, and so after the last spawn as well.
        json["blocked"][0]["ongoing"] == true && json["blocked"][0]["queued_global"] == GLOBAL
    });
    let one = &seen["blocked"][0];
    // tokio does not count the last one spawned: it has a slot of its own.
    assert_eq!(one["queued_local"], LOCAL - 1, "{one:#}");
    assert_eq!(seen["runtimes"][0]["global_queue_depth"], GLOBAL, "{seen:#}");
    assert_eq!(seen["workers"][0]["local_queue_depth"], LOCAL - 1, "{seen:#}");
    assert_eq!(seen["workers"][0]["state"], "polling", "{seen:#}");
    assert_eq!(seen["runtimes"][0]["alive_tasks"], 1 + LOCAL + GLOBAL, "{seen:#}");

    release.send(()).expect("it waits");
    runtime.block_on(async {
        for task in blocked.await.expect("the blocker").into_iter().chain(remote) {
            task.await.expect("it ran");
        }
    });
    let after = wait_for(&profiler, "/debug/workers", "parked worker", |json| {
        json["workers"][0]["state"] == "parked" && json["runtimes"][0]["alive_tasks"] == 0
    });
    assert_eq!(after["runtimes"][0]["global_queue_depth"], 0, "{after:#}");
    assert_eq!(after["workers"][0]["local_queue_depth"], 0, "{after:#}");
}

/// How long a poll takes its worker.
const BUSY: Duration = Duration::from_millis(200);
/// Times that the worker goes to sleep in between.
const ROUNDS: u64 = 5;

#[test]
fn parks_polls_and_busy_time_are_those_of_the_runtime() {
    let (profiler, runtime) = watched();
    let parked = |what: &str, since: u64| {
        wait_for(&profiler, "/debug/workers", what, |json| {
            let worker = &json["workers"][0];
            worker["state"] == "parked" && worker["parks"].as_u64() > Some(since)
        })
    };
    let number = |json: &Value, of: &str, field: &str| {
        json[of][0][field].as_u64().unwrap_or_else(|| panic!("no {of}[0].{field} in {json:#}"))
    };
    // A runtime is listed once it has done something.
    runtime.block_on(runtime.spawn(async {})).expect("it ran");
    let before = parked("first park", 0);
    let began = Instant::now();
    let mut last = before.clone();
    for round in 0..ROUNDS {
        let parks = number(&last, "workers", "parks");
        let task = runtime.spawn(async { std::thread::sleep(BUSY / ROUNDS as u32) });
        runtime.block_on(task).expect("it ran");
        last = parked(&format!("park {round}"), parks);
    }
    let took = began.elapsed().as_nanos() as u64;
    for of in ["workers", "runtimes"] {
        let grown = |field| number(&last, of, field) - number(&before, of, field);
        assert!(grown("parks") >= ROUNDS, "{of}: {last:#}");
        let busy = grown("busy_ns");
        assert!(busy >= BUSY.as_nanos() as u64 && busy <= took, "{of}: {busy} ns in {took} ns");
        assert_eq!(grown("polls"), ROUNDS, "{of}: {last:#}");
    }
    let spawned = number(&last, "runtimes", "spawned_tasks");
    assert_eq!(spawned - number(&before, "runtimes", "spawned_tasks"), ROUNDS, "{last:#}");
}
