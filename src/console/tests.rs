//! Paging on built snapshots, and the server through console-api's own client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, UNIX_EPOCH};

use console_api::instrument::instrument_client::InstrumentClient;
use console_api::instrument::{
    InstrumentRequest, PauseRequest, ResumeRequest, StateRequest, TaskDetailsRequest, Temporality,
    Update,
};
use proptest::prelude::*;
use prost::Message;
use tonic::transport::Channel;

use super::ledger::{Ledger, PAGE_BYTES};
use super::*;
use crate::model::{
    Counters, Coverage, Location, Process, RuntimeId, SCHEMA_VERSION, StreamId, Task, TaskId,
    TaskState, Timestamp,
};

const SECOND: u64 = 1_000_000_000;

fn snapshot(at_s: u64, tasks: Vec<Task>) -> Snapshot {
    let process = Process {
        name: "built".into(),
        pid: 1,
        boot_id: "boot".into(),
        build_id: None,
        executable: "/built".into(),
        uptime_ns: at_s * SECOND,
    };
    Snapshot {
        schema: SCHEMA_VERSION,
        taken_at: Timestamp::from(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + at_s)),
        process,
        coverage: Coverage::default(),
        counters: Counters::default(),
        blocked_threshold_ns: 100_000_000,
        runtimes: Vec::new(),
        workers: Vec::new(),
        blocked: Vec::new(),
        pauses: Vec::new(),
        endpoints: Vec::new(),
        connections: Vec::new(),
        streams: Vec::new(),
        ended_streams: Vec::new(),
        history: crate::model::History::default(),
        tasks,
    }
}

/// An idle task spawned at second 0 and polled 3 times, seen at second `at_s`.
fn idle(id: u64, at_s: u64) -> Task {
    Task {
        id: TaskId(id),
        parent: (id > 1).then_some(TaskId(1)),
        runtime: RuntimeId(0),
        spawned_at: Some(Arc::new(Location {
            file: "/home/me/.cargo/registry/src/index/hyper-util-0.1.21/src/rt/tokio.rs".into(),
            line: 97,
            column: 9,
        })),
        method: Some("/grpc.examples.echo.Echo/BidirectionalStreamingEcho".into()),
        peer: Some("127.0.0.1:40000".into()),
        stream: Some(StreamId(id)),
        state: TaskState::Idle,
        worker: None,
        state_ns: SECOND / 2,
        age_ns: at_s * SECOND,
        polls: 3,
        busy_ns: 5_000_000,
        longest_poll_ns: 4_000_000,
        stack: None,
        wait: None,
        unhooked: false,
        wakers: None,
        joinable: None,
        branches: Box::default(),
        holds: Box::default(),
    }
}

fn sweep(ledger: &mut Ledger, snapshot: &Snapshot, limit: usize) -> Vec<Update> {
    let mut updates = Vec::new();
    loop {
        let page = ledger.page(snapshot, limit);
        updates.push(page.update);
        if page.last {
            return updates;
        }
    }
}

/// A client that keeps what the real one keeps.
#[derive(Default)]
struct Screen {
    tasks: BTreeMap<u64, console_api::tasks::Stats>,
    introductions: HashMap<u64, u64>,
    described: bool,
    dropped: u64,
}

impl Screen {
    fn update(&mut self, update: Update) {
        self.described |= update.new_metadata.is_some();
        assert!(self.described, "tasks are understood by their description, so that comes first");
        let mut update = update.task_update.unwrap();
        self.dropped += update.dropped_events;
        for task in update.new_tasks {
            let id = task.id.unwrap().id;
            *self.introductions.entry(id).or_default() += 1;
            let stats = update.stats_update.remove(&id).expect("a task comes with its stats");
            self.tasks.insert(id, stats);
        }
        for (id, stats) in update.stats_update {
            *self.tasks.get_mut(&id).expect("stats of a task that was introduced") = stats;
        }
    }

    fn alive(&self) -> Vec<u64> {
        let alive = self.tasks.iter().filter(|(_, stats)| stats.dropped_at.is_none());
        alive.map(|(id, _)| *id).collect()
    }
}

#[test]
fn a_late_client_at_100k_tasks_gets_them_all_in_small_messages() {
    let snapshot = snapshot(60, (1..=100_000).map(|id| idle(id, 60)).collect());
    let mut ledger = Ledger::default();
    let mut screen = Screen::default();
    let updates = sweep(&mut ledger, &snapshot, PAGE_BYTES);
    assert!(updates.len() > 4, "they do not fit in fewer than {} messages", updates.len());
    for update in updates {
        assert!(update.encoded_len() <= PAGE_BYTES, "{} bytes", update.encoded_len());
        screen.update(update);
    }
    assert_eq!(screen.alive(), (1..=100_000).collect::<Vec<_>>());
    assert!(screen.introductions.values().all(|times| *times == 1));

    // With nothing new the next round is the time and nothing else.
    let again = sweep(&mut ledger, &snapshot, PAGE_BYTES);
    assert_eq!(again.len(), 1);
    assert!(again[0].encoded_len() < 64, "{} bytes", again[0].encoded_len());
}

/// As the real client does, which takes 4 MiB a message, from a server as it
/// is outside of tests.
#[tokio::test]
async fn a_late_client_at_100k_tasks_reads_them_all_over_its_socket() {
    let crowd = || Ok(snapshot(60, (1..=100_000).map(|id| idle(id, 60)).collect()));
    let config = ConsoleConfig::new("127.0.0.1:0".parse().unwrap());
    let server = start(config, Arc::new(crowd)).unwrap();
    let mut client = client(&server).await;
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    let mut screen = Screen::default();
    while screen.tasks.len() < 100_000 {
        screen.update(soon(updates.message()).await.unwrap().unwrap());
    }
    assert_eq!(screen.alive(), (1..=100_000).collect::<Vec<_>>());
    assert!(screen.introductions.values().all(|times| *times == 1));
}

#[test]
fn hostile_names_do_not_break_the_bound() {
    let mut huge = idle(1, 60);
    huge.method = Some("/x".repeat(1 << 20).into());
    huge.peer = huge.method.clone();
    let tasks = (1..=2_000).map(|id| Task { id: TaskId(id), ..huge.clone() }).collect();
    for update in sweep(&mut Ledger::default(), &snapshot(60, tasks), PAGE_BYTES) {
        assert!(update.encoded_len() <= PAGE_BYTES, "{} bytes", update.encoded_len());
    }
}

#[test]
fn only_what_changed_is_told_again() {
    let mut ledger = Ledger::default();
    let mut screen = Screen::default();
    let running = |at_s, since_s, polls| Task {
        state: TaskState::Running,
        state_ns: (at_s - since_s) * SECOND,
        busy_ns: SECOND + (at_s - since_s) * SECOND,
        polls,
        ..idle(2, at_s)
    };
    let mut changed = |screen: &mut Screen, tasks, at_s| {
        let updates = sweep(&mut ledger, &snapshot(at_s, tasks), PAGE_BYTES);
        let ids = updates.iter().flat_map(|u| u.task_update.as_ref().unwrap().stats_update.keys());
        let mut ids: Vec<u64> = ids.copied().collect();
        ids.sort_unstable();
        updates.into_iter().for_each(|update| screen.update(update));
        ids
    };
    assert_eq!(
        changed(&mut screen, vec![idle(1, 10), running(10, 9, 4), idle(3, 10)], 10),
        [1, 2, 3]
    );
    // The same poll goes on: the client counts on by itself.
    assert_eq!(
        changed(&mut screen, vec![idle(1, 11), running(11, 9, 4), idle(3, 11)], 11),
        [0u64; 0]
    );
    // Another poll; an end; a birth.
    assert_eq!(
        changed(&mut screen, vec![idle(1, 12), running(12, 11, 5), idle(4, 12)], 12),
        [2, 3, 4]
    );

    let poll = screen.tasks[&2].poll_stats.unwrap();
    assert_eq!((poll.polls, poll.busy_time.unwrap().seconds), (5, 1));
    assert_eq!(poll.last_poll_started.unwrap().seconds, 1_700_000_011);
    assert_eq!(screen.tasks[&3].dropped_at.unwrap().seconds, 1_700_000_012);
    assert_eq!(screen.tasks[&3].created_at.unwrap().seconds, 1_700_000_000);
    assert_eq!(screen.alive(), [1, 2, 4]);
    // Told once, then forgotten.
    assert_eq!(changed(&mut screen, vec![idle(1, 13), idle(4, 13)], 13), [2]);
}

#[test]
fn a_task_whose_method_comes_later_is_introduced_again() {
    let mut ledger = Ledger::default();
    let mut screen = Screen::default();
    let bare = Task { method: None, stream: None, ..idle(1, 5) };
    for (at_s, task) in [(5, bare), (6, idle(1, 6)), (7, idle(1, 7))] {
        for update in sweep(&mut ledger, &snapshot(at_s, vec![task]), PAGE_BYTES) {
            screen.update(update);
        }
    }
    assert_eq!(screen.introductions[&1], 2);
}

#[test]
fn setting_the_clock_does_not_make_tasks_older() {
    let mut ledger = Ledger::default();
    let mut screen = Screen::default();
    for (clock_s, age_s) in [(100, 100), (101, 101), (3_702, 102)] {
        let task = Task { age_ns: age_s * SECOND, ..idle(1, 0) };
        for update in sweep(&mut ledger, &snapshot(clock_s, vec![task]), PAGE_BYTES) {
            screen.update(update);
        }
    }
    let created = screen.tasks[&1].created_at.unwrap().seconds;
    assert_eq!(created, 1_700_000_000 + 3_702 - 102);
}

#[test]
fn tasks_that_the_registry_could_not_hold_are_counted_once() {
    let mut ledger = Ledger::default();
    let mut screen = Screen::default();
    for dropped in [7, 7, 9] {
        let mut snapshot = snapshot(1, vec![idle(1, 1)]);
        snapshot.counters.tasks_dropped = dropped;
        for update in sweep(&mut ledger, &snapshot, PAGE_BYTES) {
            screen.update(update);
        }
    }
    assert_eq!(screen.dropped, 9);
}

proptest! {
    /// Whatever is born, ends or moves between two pages, a client that has
    /// been told a whole snapshot at the end knows just the tasks of that one.
    #[test]
    fn pages_of_changing_snapshots_add_up(
        rounds in prop::collection::vec(
            (prop::collection::btree_map(1u64..40, 0u64..3, 0..30), 0usize..6), 1..8),
        limit in 0usize..4_000,
    ) {
        let mut ledger = Ledger::default();
        let mut screen = Screen::default();
        let mut newest = snapshot(100, Vec::new());
        for (second, (tasks, pages)) in rounds.into_iter().enumerate() {
            let at_s = 100 + second as u64;
            let tasks = tasks.into_iter().map(|(id, polls)| Task { polls, ..idle(id, at_s) });
            newest = snapshot(at_s, tasks.collect());
            for _ in 0..pages {
                screen.update(ledger.page(&newest, limit).update);
            }
        }
        for _ in 0..2 {
            sweep(&mut ledger, &newest, limit).into_iter().for_each(|update| screen.update(update));
        }
        let ids: Vec<u64> = newest.tasks.iter().map(|task| task.id.0).collect();
        prop_assert_eq!(screen.alive(), ids);
        for task in &newest.tasks {
            let poll = screen.tasks[&task.id.0].poll_stats.unwrap();
            prop_assert_eq!(poll.polls, task.polls);
        }
    }
}

/// A server on built snapshots, and how many it has asked for.
fn serve(make: impl Fn(u64) -> Result<Snapshot> + Send + Sync + 'static) -> ConsoleServer {
    let asked = AtomicU64::new(0);
    let config = ConsoleConfig {
        interval: Duration::from_millis(20),
        max_clients: 2,
        ..ConsoleConfig::new("127.0.0.1:0".parse().unwrap())
    };
    start(config, Arc::new(move || make(asked.fetch_add(1, Relaxed)))).unwrap()
}

async fn client(server: &ConsoleServer) -> InstrumentClient<Channel> {
    InstrumentClient::connect(format!("http://{}", server.local_addr())).await.unwrap()
}

/// The test's own deadline, far above what anything here takes.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it came in time")
}

#[tokio::test]
async fn a_client_follows_births_and_ends() {
    let server = serve(|n| Ok(snapshot(10 + n, vec![idle(1, 10 + n), idle(2 + n, 10)])));
    let mut client = client(&server).await;
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    let mut screen = Screen::default();
    while screen.introductions.len() < 4 {
        screen.update(soon(updates.message()).await.unwrap().unwrap());
    }
    assert_eq!(screen.alive().len(), 2);
    assert!(screen.alive().contains(&1));
}

#[tokio::test]
async fn nothing_is_taken_while_nobody_watches() {
    let server = serve(|_| Ok(snapshot(10, vec![idle(1, 10)])));
    let mut client = client(&server).await;
    let state = client.watch_state(StateRequest {}).await.unwrap();
    assert_eq!(server.stats().snapshots, 0);
    let updates = client.watch_updates(InstrumentRequest {}).await.unwrap();
    let mut updates = updates.into_inner();
    soon(updates.message()).await.unwrap().unwrap();
    assert!(server.stats().snapshots > 0);
    drop((updates, state));
    // Once the last one has left, the count comes to rest.
    soon(async {
        while server.stats().clients > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let rest = server.stats().snapshots;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(server.stats().snapshots, rest);
    })
    .await;
}

#[tokio::test]
async fn clients_beyond_the_bound_are_told_so_and_places_come_back() {
    let server = serve(|_| Ok(snapshot(10, Vec::new())));
    let mut client = client(&server).await;
    let first = client.watch_updates(InstrumentRequest {}).await.unwrap();
    let _second = client.watch_updates(InstrumentRequest {}).await.unwrap();
    let refused = client.watch_updates(InstrumentRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!((server.stats().clients, server.stats().refused), (2, 1));
    drop(first);
    soon(async {
        while client.watch_updates(InstrumentRequest {}).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn pausing_stops_snapshots_for_all_and_says_so() {
    let server = serve(|n| Ok(snapshot(10 + n, vec![idle(1, 10 + n)])));
    let mut client = client(&server).await;
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    let mut states = client.watch_state(StateRequest {}).await.unwrap().into_inner();
    let state = soon(states.message()).await.unwrap().unwrap();
    assert_eq!(state.temporality(), Temporality::Live);
    soon(updates.message()).await.unwrap().unwrap();

    client.pause(PauseRequest {}).await.unwrap();
    let state = soon(states.message()).await.unwrap().unwrap();
    assert_eq!(state.temporality(), Temporality::Paused);
    // At most one was on its way.
    let before = server.stats().snapshots;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(server.stats().snapshots <= before + 1);

    client.resume(ResumeRequest {}).await.unwrap();
    let state = soon(states.message()).await.unwrap().unwrap();
    assert_eq!(state.temporality(), Temporality::Live);
    soon(async {
        while server.stats().snapshots < before + 3 {
            updates.message().await.unwrap().unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn details_end_with_their_task() {
    let server = serve(|n| {
        let tasks = if n < 3 { vec![idle(1, 10), idle(2, 10)] } else { vec![idle(1, 10)] };
        Ok(snapshot(10 + n, tasks))
    });
    let mut client = client(&server).await;
    let request = |id: u64| TaskDetailsRequest { id: Some(id.into()) };
    let mut details = client.watch_task_details(request(2)).await.unwrap().into_inner();
    let first = soon(details.message()).await.unwrap().unwrap();
    assert_eq!(first.task_id.unwrap().id, 2);
    soon(async { while details.message().await.unwrap().is_some() {} }).await;

    let mut gone = client.watch_task_details(request(99)).await.unwrap().into_inner();
    assert_eq!(soon(gone.message()).await.unwrap_err().code(), tonic::Code::NotFound);
    let none = client.watch_task_details(TaskDetailsRequest { id: None }).await.unwrap_err();
    assert_eq!(none.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn failures_and_panics_of_the_source_are_survived() {
    let server = serve(|n| match n {
        0 => Err(Error::new(ErrorKind::Timeout, "too slow")),
        1 => panic!("a bug in the source"),
        _ => Ok(snapshot(10, vec![idle(1, 10)])),
    });
    let mut client = client(&server).await;
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    let update = soon(updates.message()).await.unwrap().unwrap();
    assert_eq!(update.task_update.unwrap().new_tasks.len(), 1);
    assert_eq!(server.stats().failures, 2);
}

#[tokio::test]
async fn snapshots_are_taken_one_at_a_time_and_shared() {
    let busy = Mutex::new(());
    let server = serve(move |n| {
        let _alone = busy.try_lock().expect("one at a time");
        std::thread::sleep(Duration::from_millis(30));
        Ok(snapshot(10 + n, vec![idle(1, 10 + n)]))
    });
    let (mut one, mut two) = (client(&server).await, client(&server).await);
    let mut first = one.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    let mut second = two.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    for _ in 0..5 {
        soon(first.message()).await.unwrap().unwrap();
        soon(second.message()).await.unwrap().unwrap();
    }
    let stats = server.stats();
    assert_eq!(stats.failures, 0);
    assert!(stats.snapshots < 10, "{} for 2 x 5 updates", stats.snapshots);
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_the_newest_afterwards() {
    // 20,000 tasks are several megabytes: far more than the transport buffers.
    let server = serve(|n| {
        let tasks = (1..=20_000).map(|id| Task { polls: n + 1, ..idle(id, 10 + n) });
        Ok(snapshot(10 + n, tasks.collect()))
    });
    let mut client = client(&server).await;
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    soon(async {
        while server.stats().snapshots < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut screen = Screen::default();
    let oldest = |screen: &Screen| {
        let polls = screen.tasks.values().map(|stats| stats.poll_stats.unwrap().polls);
        polls.min().unwrap_or(0)
    };
    while screen.tasks.len() < 20_000 || oldest(&screen) < 10 {
        screen.update(soon(updates.message()).await.unwrap().unwrap());
    }
    // It went from what the transport had buffered to the newest at once.
    assert!(server.stats().skipped > 0, "{:?}", server.stats());
}

#[tokio::test]
async fn shutdown_closes_streams_within_a_second() {
    let server = serve(|_| Ok(snapshot(10, vec![idle(1, 10)])));
    let mut client = client(&server).await;
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    let mut states = client.watch_state(StateRequest {}).await.unwrap().into_inner();
    soon(updates.message()).await.unwrap().unwrap();
    let began = Instant::now();
    tokio::task::spawn_blocking(|| drop(server)).await.unwrap();
    soon(async { while let Ok(Some(_)) = updates.message().await {} }).await;
    soon(async { while let Ok(Some(_)) = states.message().await {} }).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn addresses_that_others_can_reach_are_refused_before_binding() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:6669", "[::ffff:192.0.2.1]:6669"] {
        let config = ConsoleConfig::new(addr.parse().unwrap());
        let error = start(config, Arc::new(|| Ok(snapshot(0, Vec::new())))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsafe, "{addr}: {error}");
    }
}

#[test]
fn an_address_in_use_has_its_own_line() {
    let server = serve(|_| Ok(snapshot(0, Vec::new())));
    let config = ConsoleConfig::new(server.local_addr());
    let error = start(config, Arc::new(|| Ok(snapshot(0, Vec::new())))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
    assert!(error.to_string().contains(&server.local_addr().to_string()), "{error}");
}

#[tokio::test]
async fn a_pause_does_not_outlive_the_clients_that_saw_it() {
    let server = serve(|n| Ok(snapshot(10 + n, vec![idle(1, 10 + n)])));
    let mut client = client(&server).await;
    let mut states = client.watch_state(StateRequest {}).await.unwrap().into_inner();
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    soon(updates.message()).await.unwrap().unwrap();
    client.pause(PauseRequest {}).await.unwrap();
    let mut next = async || soon(states.message()).await.unwrap().unwrap().temporality();
    assert_eq!(next().await, Temporality::Live);
    assert_eq!(next().await, Temporality::Paused);
    drop(updates);
    assert_eq!(next().await, Temporality::Live);
}

#[tokio::test]
async fn shutdown_waits_neither_for_a_snapshot_nor_for_a_client_that_does_not_read() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let hangs = serve(move |_| {
        // Ends with the test, when `release` is dropped.
        let _ = released.lock().unwrap().recv();
        Err(Error::new(ErrorKind::Timeout, "it hung"))
    });
    let full = serve(|n| Ok(snapshot(10 + n, (1..=40_000).map(|id| idle(id, 10)).collect())));
    let mut waiting = client(&hangs).await;
    let _waiting = waiting.watch_updates(InstrumentRequest {}).await.unwrap();
    let mut unread = client(&full).await;
    let mut unread = unread.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    soon(unread.message()).await.unwrap().unwrap();
    for server in [hangs, full] {
        let began = Instant::now();
        soon(tokio::task::spawn_blocking(|| drop(server))).await.unwrap();
        let took = began.elapsed();
        assert!(took < DRAIN + LAST_SNAPSHOT + Duration::from_millis(700), "{took:?}");
    }
    drop(release);
}
