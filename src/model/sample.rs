//! Snapshots built by hand, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// One second.
pub const SECOND: u64 = 1_000_000_000;

/// 2026-11-22T10:00:00Z
pub fn taken_at() -> Timestamp {
    (UNIX_EPOCH + Duration::from_secs(1_795_341_600)).into()
}

pub fn process() -> Process {
    Process {
        name: "billing-grpc".into(),
        pid: 4121,
        boot_id: "00c0ffee00c0ffee".into(),
        build_id: Some("a1b2c3d4e5f60718".into()),
        executable: "/usr/bin/billing-grpc".into(),
        uptime_ns: 3_600 * SECOND,
    }
}

/// A process in which nothing runs.
pub fn empty() -> Snapshot {
    Snapshot {
        schema: SCHEMA_VERSION,
        taken_at: taken_at(),
        process: process(),
        coverage: Coverage::default(),
        counters: Counters::default(),
        blocked_threshold_ns: SECOND / 10,
        runtimes: Vec::new(),
        workers: Vec::new(),
        blocked: Vec::new(),
        pauses: Vec::new(),
        endpoints: Vec::new(),
        connections: Vec::new(),
        streams: Vec::new(),
        ended_streams: Vec::new(),
        history: History::default(),
        tasks: Vec::new(),
    }
}

pub fn place(file: &str, line: u32) -> Location {
    Location { file: file.into(), line, column: 5 }
}

/// A frame of the program's own code; its short name is the last two segments.
pub fn frame(function: &str, location: Location, kind: FrameKind, address: u64) -> Frame {
    let short = function.rsplitn(3, "::").take(2).collect::<Vec<_>>();
    Frame {
        function: short.into_iter().rev().collect::<Vec<_>>().join("::").into(),
        function_full: function.into(),
        location: Some(location),
        kind,
        inlined: false,
        address,
    }
}

/// A suspended task, half an hour old and idle for 41 seconds.
pub fn task(id: u64, spawned_at: &Arc<Location>) -> Task {
    Task {
        id: TaskId(id),
        parent: None,
        runtime: RuntimeId(0),
        spawned_at: Some(Arc::clone(spawned_at)),
        method: None,
        peer: None,
        stream: None,
        state: TaskState::Idle,
        worker: None,
        state_ns: 41 * SECOND,
        age_ns: 1_800 * SECOND,
        polls: 12,
        busy_ns: 3_000_000,
        longest_poll_ns: 1_000_000,
        stack: None,
        wait: None,
        unhooked: false,
        wakers: None,
        joinable: None,
        branches: Box::default(),
        holds: Box::default(),
    }
}

/// A task whose stack has this many frames, `deep::f0` innermost.
pub fn deep_task(frames: usize) -> Task {
    let frames = (0..frames)
        .map(|n| {
            frame(
                &format!("deep::f{n}"),
                place("src/deep.rs", n as u32 + 1),
                FrameKind::User,
                0x1000 + n as u64,
            )
        })
        .collect();
    let mut task = task(1, &Arc::new(place("src/deep.rs", 1)));
    task.stack = Some(Arc::new(Stack {
        source: StackSource::Await,
        frames,
        truncated: None,
        or_one_of: Vec::new(),
    }));
    task
}

/// A task in `function` (at `src/{file}.rs:{line}`) that waits for this.
pub fn waiting(id: u64, function: &str, at: (&str, u32), kind: WaitKind, resource: &str) -> Task {
    let file = format!("src/{}.rs", at.0);
    let mut task = task(id, &Arc::new(place("src/main.rs", 30)));
    let inner = match kind {
        WaitKind::Mutex => "tokio::sync::mutex::Mutex<T>::lock",
        WaitKind::Sleep => "tokio::time::sleep::Sleep",
        WaitKind::Oneshot => "tokio::sync::oneshot::Receiver<T>",
        _ => "tokio::sync::mpsc::chan::Rx<T, S>::recv",
    };
    task.stack = Some(chain([
        frame(inner, place("tokio-1.54.1/src/sync/mod.rs", 430), FrameKind::Runtime, 0),
        frame(function, place(&file, at.1), FrameKind::User, 0),
    ]));
    task.wait = Some(wait(kind, resource));
    task
}

/// An await chain.
pub fn chain<const N: usize>(frames: [Frame; N]) -> Arc<Stack> {
    Arc::new(Stack {
        source: StackSource::Await,
        frames: frames.into(),
        truncated: None,
        or_one_of: Vec::new(),
    })
}

/// Made of an address or of any other name; none without a name.
pub fn resource(name: &str) -> Option<Resource> {
    let bytes = name.bytes().fold(0, |all: u64, byte| (all << 8) | u64::from(byte));
    name.parse().ok().or_else(|| Resource::at(bytes))
}

/// A wait that has lasted for 41 seconds.
pub fn wait(kind: WaitKind, resource: &str) -> Wait {
    Wait {
        queue: Some(1),
        wait_ns: 41 * SECOND,
        lower_bound: false,
        ..Wait::new(kind, self::resource(resource))
    }
}

/// A guard or a channel's end in a local of `function`.
pub fn held(
    kind: HeldKind,
    resource: &str,
    local: &str,
    function: &str,
    at: (&str, u32),
    dormant: bool,
) -> Held {
    Held {
        kind,
        resource: self::resource(resource).expect("held"),
        local: Some(local.into()),
        function: Some(function.into()),
        location: Some(place(&format!("src/{}.rs", at.0), at.1)),
        dormant,
        perhaps_dropped: false,
        within: None,
        backlog: None,
    }
}

/// A branch of a task that waits for this in `function`.
pub fn branch(
    function: &str,
    at: (&str, u32),
    kind: WaitKind,
    resource: &str,
    dormant: bool,
) -> Branch {
    let file = format!("src/{}.rs", at.0);
    Branch {
        stack: chain([frame(function, place(&file, at.1), FrameKind::User, 0)]),
        wait: Some(wait(kind, resource)),
        dormant,
    }
}

/// Two tasks in a deadlock, one behind them, a futurelock, and a receiver with
/// a timeout in a `select!`.
pub fn stuck_server() -> Snapshot {
    let mut snapshot = empty();
    let post: Arc<str> = "/billing.v1.Ledger/Post".into();
    let mut a = waiting(17, "ledger::post", ("ledger", 204), WaitKind::Mutex, "0x7f10");
    a.method = Some(Arc::clone(&post));
    a.holds = [held(HeldKind::Mutex, "0x7f20", "accounts", "post", ("ledger", 204), false)].into();
    let mut b = waiting(23, "audit::write", ("audit", 77), WaitKind::Mutex, "0x7f20");
    b.state_ns = 43 * SECOND;
    let journal = held(HeldKind::Mutex, "0x7f10", "journal", "write", ("audit", 77), false);
    b.holds = [journal].into();
    for (task, holder, local, at) in [
        (&mut a, 23, "journal", ("src/audit.rs", 77)),
        (&mut b, 17, "accounts", ("src/ledger.rs", 204)),
    ] {
        let wait = task.wait.as_mut().expect("it waits");
        wait.queue = Some(2);
        wait.about_mut().holders.push(Holder {
            task: TaskId(holder),
            local: Some(local.into()),
            location: Some(place(at.0, at.1)),
        });
    }
    let mut behind = waiting(24, "audit::write", ("audit", 71), WaitKind::Mutex, "0x7f10");
    behind.method = Some(post);
    behind.parent = Some(TaskId(23));
    let mut future = waiting(31, "cache::refresh", ("cache", 52), WaitKind::Mutex, "0x7f30");
    future.branches =
        [branch("cache::load", ("cache", 19), WaitKind::Mutex, "0x7f30", true)].into();
    let mut either = waiting(32, "feed::watch", ("feed", 112), WaitKind::MpscRecv, "0x7f40");
    let mut sleep = branch("feed::watch", ("feed", 112), WaitKind::Sleep, "", false);
    sleep.wait.as_mut().expect("it waits").deadline_in_ns = Some(19 * SECOND as i64);
    either.branches = [sleep].into();
    snapshot.tasks = vec![a, b, behind, future, either];
    snapshot.coverage =
        Coverage { alive: 5, listed: 5, with_stack: 5, running: 0, ..Coverage::default() };
    snapshot.runtimes = vec![runtime()];
    snapshot
}

/// A healthy bidi stream, idle for 41 seconds.
pub fn stream(id: u64, method: &Arc<str>) -> Stream {
    let traffic = Traffic {
        messages: 3,
        bytes: 300,
        last_ago_ns: Some(41 * SECOND),
        ended: false,
        body: BodyState::Pending,
        body_ns: 41 * SECOND,
    };
    Stream {
        id: StreamId(id),
        side: Side::Server,
        method: Arc::clone(method),
        kind: StreamKind::Bidi,
        peer: Some("127.0.0.1:33562".into()),
        connection: Some(ConnectionId(1)),
        task: None,
        state: Http2State::Open,
        phase: Phase::AwaitRecv,
        phase_ns: 41 * SECOND,
        age_ns: 1_800 * SECOND,
        received: traffic,
        sent: traffic,
        deadline: None,
        cancelled_ago_ns: None,
        cancel_reason: None,
        status: None,
        ended_ago_ns: None,
        live_tasks: 0,
        logged: false,
        throttled_ns: None,
        idle_expected: false,
        wire: None,
        events: Vec::new(),
        metadata: BTreeMap::new(),
    }
}

/// A connection with one stream.
pub fn connection(id: u64) -> Connection {
    Connection {
        id: ConnectionId(id),
        side: Side::Server,
        transport: Transport::Tcp,
        local: Some("127.0.0.1:50051".into()),
        peer: Some("127.0.0.1:33562".into()),
        age_ns: 1_800 * SECOND,
        streams: 1,
        streams_total: 1,
        counters: Some(ConnectionCounters {
            read_bytes: 1_000,
            written_bytes: 2_000,
            last_read_ago_ns: Some(SECOND),
            last_write_ago_ns: Some(SECOND),
            write_blocked_ns: 0,
        }),
        task: None,
        closed: false,
        tls: false,
        endpoint: None,
        totals: ConnectionTotals::default(),
        http2: None,
        tcp: None,
        heartbeat: None,
    }
}

/// A runtime with two workers.
pub fn runtime() -> Runtime {
    Runtime {
        id: RuntimeId(0),
        name: "main".into(),
        flavor: Flavor::MultiThread,
        workers: 2,
        alive_tasks: 6,
        global_queue_depth: 0,
        spawned_tasks: Some(100),
        blocking_threads: Some(1),
        idle_blocking_threads: Some(1),
        blocking_queue_depth: Some(0),
        polls: Some(5_000),
        busy_ns: 9 * SECOND,
        parks: 400,
        steals: Some(3),
        budget_forced_yields: Some(0),
        mean_poll_ns: Some(1_800),
    }
}

/// A parked worker.
pub fn worker(index: u32) -> Worker {
    Worker {
        runtime: RuntimeId(0),
        index,
        tid: Some(4_130 + index),
        thread: Some("tokio-rt-worker".into()),
        state: WorkerState::Parked,
        state_ns: SECOND,
        task: None,
        method: None,
        polls: Some(2_500),
        busy_ns: 4 * SECOND,
        parks: 200,
        local_queue_depth: Some(0),
        blocked: false,
        stack: None,
    }
}

/// A native stack inside `charge_card`, in `thread::sleep`.
pub fn native_stack() -> Arc<Stack> {
    let frames = vec![
        frame(
            "clock_nanosleep",
            place("sysdeps/unix/sysv/linux/clock_nanosleep.c", 48),
            FrameKind::Runtime,
            0x7f00,
        ),
        frame(
            "std::thread::sleep",
            place("/rustc/abc/library/std/src/thread/mod.rs", 900),
            FrameKind::Runtime,
            0x4a31f0,
        ),
        frame("billing::charge_card", place("src/billing.rs", 88), FrameKind::User, 0x4a3200),
        frame(
            "<billing::Card as billing::Charge>::charge::{{closure}}",
            place("src/billing.rs", 61),
            FrameKind::User,
            0x4a3300,
        ),
    ];
    Arc::new(Stack { source: StackSource::Native, frames, truncated: None, or_one_of: Vec::new() })
}

/// A poll of task 40 that has lasted for 3.2 s on worker 1.
pub fn blocked() -> Blocked {
    Blocked {
        id: 7,
        runtime: RuntimeId(0),
        worker: 1,
        tid: 4_131,
        task: Some(TaskId(40)),
        spawned_at: Some(Arc::new(place("src/main.rs", 30))),
        method: Some("/billing.v1.Billing/Charge".into()),
        peer: Some("127.0.0.1:33562".into()),
        stream: Some(StreamId(2)),
        ongoing: true,
        blocked_ns: 3_200_000_000,
        ended_ago_ns: 0,
        queued_local: Some(60),
        queued_global: 1,
        stack: Some(native_stack()),
        stack_missing: None,
    }
}

/// A server with four idle watchers, a child task and a blocked worker.
pub fn busy_server() -> Snapshot {
    let feed = Arc::new(place("src/feed.rs", 112));
    let accept = Arc::new(place("src/main.rs", 30));
    let watch: Arc<str> = "/feed.v1.Feed/Watch".into();
    let charge: Arc<str> = "/billing.v1.Billing/Charge".into();
    let mut snapshot = empty();
    for id in 10..14 {
        let mut watcher = task(id, &feed);
        watcher.method = Some(Arc::clone(&watch));
        watcher.parent = Some(TaskId(3));
        watcher.stream = Some(StreamId(1));
        watcher.peer = Some("127.0.0.1:33562".into());
        snapshot.tasks.push(watcher);
    }
    let mut child = task(20, &feed);
    child.parent = Some(TaskId(10));
    child.state = TaskState::Scheduled;
    child.state_ns = 20_000;
    child.age_ns = 20_000;
    child.polls = 0;
    snapshot.tasks.push(child);
    let mut charging = task(40, &accept);
    charging.method = Some(Arc::clone(&charge));
    charging.stream = Some(StreamId(2));
    charging.state = TaskState::Running;
    charging.worker = Some(1);
    charging.state_ns = 3_200_000_000;
    charging.busy_ns = 3_200_000_000;
    charging.longest_poll_ns = 3_200_000_000;
    charging.stack = Some(native_stack());
    snapshot.tasks.push(charging);

    let mut watching = stream(1, &watch);
    watching.task = Some(TaskId(10));
    watching.live_tasks = 4;
    let mut charged = stream(2, &charge);
    charged.kind = StreamKind::Unary;
    charged.phase = Phase::Handler;
    charged.phase_ns = 3_200_000_000;
    charged.task = Some(TaskId(40));
    charged.live_tasks = 1;
    charged.deadline = Some(Deadline { timeout_ns: 30 * SECOND, remaining_ns: 26_800_000_000 });
    charged.metadata.insert("x-request-id".into(), "r-1".into());
    snapshot.streams = vec![watching, charged];
    let mut ended = stream(0, &watch);
    ended.phase = Phase::Ended;
    ended.state = Http2State::Closed;
    ended.ended_ago_ns = Some(5 * SECOND);
    ended.status = Some(StreamStatus::new(0, ""));
    snapshot.ended_streams = vec![ended];
    snapshot.connections = vec![connection(1)];
    snapshot.runtimes = vec![runtime()];
    let mut polling = worker(1);
    polling.state = WorkerState::Polling;
    polling.state_ns = 3_200_000_000;
    polling.task = Some(TaskId(40));
    polling.method = Some(charge);
    polling.blocked = true;
    polling.stack = Some(native_stack());
    snapshot.workers = vec![worker(0), polling];
    snapshot.blocked = vec![blocked()];
    snapshot.coverage = Coverage {
        alive: 6,
        listed: 6,
        with_stack: 1,
        running: 1,
        missing: vec![Missing {
            reason: Reason::NoAwaitChain,
            count: 5,
            detail: "5 suspended tasks: their await chains are not read".to_owned(),
        }],
        dropped: 0,
    };
    snapshot.counters = Counters {
        tasks_spawned: 100,
        tasks_ended: 94,
        streams_started: 3,
        streams_ended: 1,
        ..Counters::default()
    };
    snapshot
}

/// This many tasks over a few places, half of them with one shared stack.
pub fn crowd(tasks: u64) -> Snapshot {
    let mut snapshot = empty();
    let places: Vec<_> =
        (0..20).map(|line| Arc::new(place("src/crowd.rs", line * 7 + 1))).collect();
    let methods: Vec<Arc<str>> =
        (0..5).map(|n| format!("/crowd.v1.Crowd/Method{n}").into()).collect();
    let stack = native_stack();
    for id in 1..=tasks {
        let mut one = task(id, &places[(id % 20) as usize]);
        one.method = Some(Arc::clone(&methods[(id % 5) as usize]));
        one.age_ns = (tasks - id) * 1_000 + SECOND;
        one.state_ns = one.age_ns / 2;
        if id % 2 == 0 {
            one.stack = Some(Arc::clone(&stack));
        }
        snapshot.tasks.push(one);
    }
    snapshot.coverage.alive = tasks;
    snapshot.coverage.listed = tasks;
    snapshot
}

/// Two samples of two threads.
pub fn cpu_profile() -> CpuProfile {
    let sample = |task: Option<u64>, thread: &str, count| CpuSample {
        stack: native_stack(),
        task: task.map(TaskId),
        spawned_at: task.map(|_| Arc::new(place("src/main.rs", 30))),
        method: task.map(|_| "/billing.v1.Billing/Charge".into()),
        thread: thread.into(),
        count,
    };
    CpuProfile {
        started_at: taken_at(),
        duration_ns: SECOND,
        period_ns: 10_000_000,
        samples: vec![sample(Some(40), "tokio-rt-worker", 90), sample(None, "main", 2)],
        lost: 1,
        threads_missed: 0,
        untold: 0,
    }
}
