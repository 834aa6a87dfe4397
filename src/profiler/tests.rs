//! Real runtimes with the hooks in them, seen through snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};

use super::Profiler;
use crate::instrument::runtime::Hooks;
use crate::model::{FindingKind, Reason, Side, Snapshot, Task, TaskId, TaskState, WorkerState};
use crate::registry::streams::Begin;
use crate::serve::Want;

/// What the hooks see. Await chains are read from all of the process's memory,
/// in which other tests have runtimes too; `tests/suite/dump_own.rs` is for them.
fn profiler() -> Profiler {
    Profiler::builder()
        .blocked_threshold(Duration::from_millis(50))
        .await_chains(false)
        .start()
        .unwrap()
}

fn multi_thread(workers: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all();
    builder
}

/// Takes snapshots until one is as wanted; only a failing test waits long.
fn until(profiler: &Profiler, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let snapshot = profiler.snapshot(Want::ALL).unwrap();
        if wanted(&snapshot) {
            return snapshot;
        }
        assert!(Instant::now() < deadline, "no {what}: {snapshot:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn task(snapshot: &Snapshot, id: tokio::task::Id) -> Option<&Task> {
    let id: TaskId = id.to_string().parse().unwrap();
    snapshot.tasks.iter().find(|task| task.id == id)
}

#[test]
fn tasks_are_seen_with_their_place_parent_and_state() {
    let profiler = profiler();
    let runtime = profiler.runtime(multi_thread(2)).build().unwrap();
    let hold = Arc::new(Notify::new());
    let (child, line) = runtime.block_on(async {
        let hold = hold.clone();
        let parent = tokio::spawn(async move {
            let child = tokio::spawn(async move { hold.notified().await });
            (tokio::task::id(), child, line!() - 1)
        });
        let (parent, child, line) = parent.await.unwrap();
        ((parent, child), line)
    });
    let (parent, child) = child;
    let snapshot = until(&profiler, "idle child", |snapshot| {
        task(snapshot, child.id()).is_some_and(|task| task.state == TaskState::Idle)
    });
    let seen = task(&snapshot, child.id()).unwrap();
    assert_eq!(seen.parent.unwrap().to_string(), parent.to_string());
    let place = seen.spawned_at.as_ref().unwrap();
    assert_eq!((&*place.file, place.line), (file!(), line));
    assert_eq!(seen.polls, 1);
    assert!(seen.busy_ns > 0 && seen.busy_ns <= seen.age_ns);
    assert!(task(&snapshot, parent).is_none(), "it has ended");
    assert_eq!(snapshot.coverage.alive, snapshot.coverage.listed);

    hold.notify_one();
    runtime.block_on(child).unwrap();
    let after = until(&profiler, "end", |snapshot| snapshot.tasks.is_empty());
    assert_eq!((after.counters.tasks_spawned, after.counters.tasks_ended), (2, 2));
}

#[test]
fn the_applications_own_hooks_run_as_well() {
    let profiler = profiler();
    let counts: Arc<[AtomicU64; 6]> = Arc::default();
    let count = |n: usize| {
        let counts = counts.clone();
        move || {
            counts[n].fetch_add(1, Ordering::Relaxed);
        }
    };
    let (spawn, before, after, end) = (count(0), count(1), count(2), count(3));
    let hooks = Hooks::new()
        .on_task_spawn(move |_| spawn())
        .on_before_task_poll(move |_| before())
        .on_after_task_poll(move |_| after())
        .on_task_terminate(move |_| end())
        .on_thread_park(count(4))
        .on_thread_unpark(count(5));
    let runtime = profiler.runtime_with("mine", multi_thread(1), hooks).build().unwrap();
    runtime.block_on(async {
        let task = tokio::spawn(async {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
        task.await.unwrap();
    });
    let snapshot = until(&profiler, "end", |snapshot| snapshot.counters.tasks_ended == 1);
    assert_eq!(&*snapshot.runtimes[0].name, "mine");
    drop(runtime);
    let counted: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    // The worker itself is a closure on the blocking pool, which ends as well.
    assert!(counted[0] == 1 && (1..=2).contains(&counted[3]), "{counted:?}");
    assert!(counted[1] >= 3 && counted[1] == counted[2], "{counted:?}");
    assert!(counted[4] >= 1 && counted[5] >= 1, "{counted:?}");
}

#[test]
fn a_blocked_poll_is_told_while_it_lasts_and_block_in_place_is_not() {
    let profiler = profiler();
    let runtime = profiler.runtime(multi_thread(2)).build().unwrap();
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let blocked = runtime.spawn(async move { held.recv().is_ok() });
    until(&profiler, "blocked worker", |snapshot| !snapshot.blocked.is_empty());
    // It is told at once, and has a stack once names can be read.
    let snapshot = until(&profiler, "its stack", |snapshot| snapshot.blocked[0].stack.is_some());
    let episode = &snapshot.blocked[0];
    assert!(episode.ongoing && episode.blocked_ns >= 50_000_000);
    assert_eq!(episode.task.unwrap().to_string(), blocked.id().to_string());
    let frames = &episode.stack.as_ref().unwrap().frames;
    let own = |name: &str| name.contains("a_blocked_poll_is_told_while_it_lasts");
    assert!(frames.iter().any(|frame| own(&frame.function_full)), "{frames:#?}");
    assert!(snapshot.workers.iter().any(|worker| worker.blocked));
    let running = task(&snapshot, blocked.id()).unwrap();
    assert_eq!(running.state, TaskState::Running);
    assert!(running.stack.is_some(), "a running task has the stack of its thread");
    let_go.send(()).unwrap();
    assert!(runtime.block_on(blocked).unwrap());
    let after = until(&profiler, "end of it", |snapshot| !snapshot.blocked[0].ongoing);
    assert_eq!(after.counters.blocked_polls, 1);

    // The worker is another thread's while this one blocks.
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = oneshot::channel();
    let in_place = runtime.spawn(async move {
        tokio::task::block_in_place(|| {
            entered.send(()).unwrap();
            held.recv().is_ok()
        })
    });
    runtime.block_on(inside).unwrap();
    let passed = Instant::now();
    until(&profiler, "four thresholds", |_| passed.elapsed() > Duration::from_millis(200));
    let snapshot = profiler.snapshot(Want::ALL).unwrap();
    assert_eq!(snapshot.counters.blocked_polls, 1, "{:#?}", snapshot.blocked);
    let_go.send(()).unwrap();
    assert!(runtime.block_on(in_place).unwrap());
}

#[test]
fn several_runtimes_of_both_flavors_are_told_apart_and_forgotten() {
    let profiler = profiler();
    let one = profiler.runtime_with("one", multi_thread(1), Hooks::new()).build().unwrap();
    let mut current = Builder::new_current_thread();
    current.enable_all();
    let two = profiler.runtime_with("two", current, Hooks::new()).build().unwrap();
    let on_one = one.spawn(std::future::pending::<()>());
    let on_two = two.spawn(std::future::pending::<()>());
    two.block_on(tokio::task::yield_now());
    let snapshot = until(&profiler, "both", |snapshot| {
        snapshot.tasks.len() == 2 && snapshot.runtimes.len() == 2
    });
    let runtime_of = |id| {
        let id = task(&snapshot, id).unwrap().runtime;
        let runtime = snapshot.runtimes.iter().find(|runtime| runtime.id == id).unwrap();
        runtime.name.to_string()
    };
    assert_eq!((runtime_of(on_one.id()), runtime_of(on_two.id())), ("one".into(), "two".into()));
    drop(one);
    let after = until(&profiler, "the first runtime's end", |snapshot| {
        snapshot.runtimes.iter().all(|runtime| &*runtime.name != "one")
    });
    assert_eq!(after.tasks.len(), 1, "its tasks went with it");
}

/// Tasks that go from worker to worker: each is listed while it lives, once, and
/// has the polls that it had.
#[test]
fn no_task_is_lost_between_workers() {
    const PARENTS: u64 = 400;
    const STAY: u64 = 5;
    let profiler = profiler();
    let runtime = profiler.runtime(multi_thread(4)).build().unwrap();
    let hold = Arc::new(Notify::new());
    let yields = |times: u64| async move {
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    };
    let parents: Vec<_> = (0..PARENTS)
        .map(|n| {
            let hold = hold.clone();
            runtime.spawn(async move {
                let passing: Vec<_> = (0..20).map(|m| tokio::spawn(yields((n + m) % 4))).collect();
                let staying: Vec<_> = (0..STAY)
                    .map(|m| {
                        let hold = hold.clone();
                        tokio::spawn(async move {
                            let notified = hold.notified();
                            yields(m).await;
                            notified.await;
                        })
                    })
                    .collect();
                for task in passing {
                    task.await.unwrap();
                }
                staying
            })
        })
        .collect();
    let mut staying = Vec::new();
    for parent in parents {
        staying.extend(runtime.block_on(parent).unwrap());
        let seen = profiler.snapshot(Want::ALL).unwrap().tasks;
        assert!(seen.windows(2).all(|two| two[0].id < two[1].id), "a task is told twice");
    }
    let snapshot = until(&profiler, "all that stay", |snapshot| {
        snapshot.tasks.len() as u64 == PARENTS * STAY
            && snapshot.tasks.iter().all(|task| task.state == TaskState::Idle)
    });
    for (n, task_of) in staying.iter().enumerate() {
        let seen = task(&snapshot, task_of.id()).expect("it stays");
        assert_eq!(seen.polls, n as u64 % STAY + 1);
    }
    hold.notify_waiters();
    for task in staying {
        runtime.block_on(task).unwrap();
    }
    let after = until(&profiler, "end", |snapshot| snapshot.tasks.is_empty());
    let all = PARENTS * (1 + 20 + STAY);
    assert_eq!((after.counters.tasks_spawned, after.counters.tasks_ended), (all, all));
}

/// A poll begins where the one before it ended, as far as nothing but tokio ran
/// in between: what else took time there is not charged to the next task.
mod charged {
    use super::*;

    const ROUNDS: u64 = 40;
    const WORK: Duration = Duration::from_millis(4);

    /// Is woken in each round, and does nothing.
    async fn light(woken: Arc<Notify>) {
        loop {
            woken.notified().await;
        }
    }

    /// All that is still there has done next to nothing.
    #[track_caller]
    fn is_nothing(profiler: &Profiler, tasks: usize) {
        let snapshot = until(profiler, "end of it", |snapshot| {
            snapshot.tasks.len() == tasks
                && snapshot.tasks.iter().all(|task| task.state == TaskState::Idle)
                && snapshot.tasks.iter().any(|task| task.polls > ROUNDS)
        });
        let busy: u64 = snapshot.tasks.iter().map(|task| task.busy_ns).sum();
        let most = (WORK * ROUNDS as u32 / 2).as_nanos();
        assert!(u128::from(busy) < most, "{busy} ns: {:#?}", snapshot.tasks);
    }

    #[test]
    fn not_another_tasks_last_poll() {
        let profiler = profiler();
        let runtime = profiler.runtime(multi_thread(1)).build().unwrap();
        let woken = Arc::new(Notify::new());
        runtime.spawn(light(woken.clone()));
        runtime.spawn(async move {
            for yields in 0..ROUNDS {
                let woken = woken.clone();
                let work = tokio::spawn(async move {
                    for _ in 0..yields % 3 {
                        tokio::task::yield_now().await;
                    }
                    std::thread::sleep(WORK);
                    woken.notify_one();
                });
                work.await.unwrap();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
        is_nothing(&profiler, 2);
    }

    #[test]
    fn not_the_root_beside_the_tasks() {
        let profiler = profiler();
        let mut builder = Builder::new_current_thread();
        builder.enable_all();
        let runtime = profiler.runtime(builder).build().unwrap();
        let woken = Arc::new(Notify::new());
        runtime.spawn(light(woken.clone()));
        runtime.spawn(light(woken.clone()));
        runtime.block_on(async {
            for _ in 0..2 * ROUNDS + 2 {
                tokio::task::yield_now().await;
                woken.notify_one();
                std::thread::sleep(WORK);
            }
            tokio::task::yield_now().await;
        });
        is_nothing(&profiler, 2);
    }

    #[test]
    fn not_the_applications_own_hook() {
        let profiler = profiler();
        let hooks = Hooks::new().on_before_task_poll(|_| std::thread::sleep(WORK));
        let runtime = profiler.runtime_with("hooked", multi_thread(1), hooks).build().unwrap();
        let woken = Arc::new(Notify::new());
        runtime.spawn(light(woken.clone()));
        runtime.spawn(async move {
            for _ in 0..ROUNDS {
                woken.notify_one();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
        is_nothing(&profiler, 2);
    }
}

/// However a runtime ends and whatever is spawned on it meanwhile and later: no
/// task of it is told to live.
#[test]
fn no_task_outlives_its_runtime() {
    /// Spawns others while it is dropped.
    struct Heir(tokio::runtime::Handle, u8);
    impl Drop for Heir {
        fn drop(&mut self) {
            if let Some(left) = self.1.checked_sub(1) {
                let heir = Heir(self.0.clone(), left);
                self.0.spawn(async move {
                    std::future::pending::<()>().await;
                    drop(heir);
                });
            }
        }
    }
    let profiler = profiler();
    let ends: [fn(tokio::runtime::Runtime); 3] =
        [drop, tokio::runtime::Runtime::shutdown_background, |runtime| {
            runtime.shutdown_timeout(Duration::from_secs(20))
        }];
    let flavors = [multi_thread, |_| {
        let mut builder = Builder::new_current_thread();
        builder.enable_all();
        builder
    }];
    let mut spawned = 0;
    for end in ends {
        for flavor in flavors {
            let runtime = profiler.runtime(flavor(2)).build().unwrap();
            let handle = runtime.handle().clone();
            for _ in 0..10 {
                let heir = Heir(handle.clone(), 3);
                runtime.spawn(async move {
                    std::future::pending::<()>().await;
                    drop(heir);
                });
            }
            runtime.block_on(async { tokio::task::yield_now().await });
            let closure = runtime.spawn_blocking(|| ());
            runtime.block_on(closure).unwrap();
            end(runtime);
            drop(handle.spawn(std::future::pending::<()>()));
            spawned += 10 * 4 + 1;
        }
    }
    let after = until(&profiler, "end of all", |snapshot| {
        snapshot.tasks.is_empty() && snapshot.counters.tasks_ended == spawned
    });
    assert_eq!(after.counters.tasks_spawned, spawned);
    // Worker threads are such closures to tokio: two of three runtimes.
    assert_eq!(after.counters.blocking_ended, 6 + 6, "and nothing else is taken for a closure");
}

#[test]
fn what_has_no_hooks_is_named() {
    let profiler = profiler();
    let runtime = multi_thread(1).build().unwrap();
    profiler.watch("foreign", runtime.handle());
    let _task = runtime.spawn(std::future::pending::<()>());
    let snapshot = until(&profiler, "count", |snapshot| snapshot.coverage.alive == 1);
    assert_eq!(snapshot.coverage.listed, 0);
    let reason = snapshot.coverage.missing.iter().find(|m| m.reason == Reason::NoHook).unwrap();
    assert_eq!(reason.count, 1);
    assert!(reason.detail.contains("LocalSet"));
    assert!(snapshot.workers.iter().all(|worker| worker.state == WorkerState::Unknown));
}

#[test]
fn blocking_closures_are_counted_not_listed() {
    let profiler = profiler();
    let runtime = profiler.runtime(multi_thread(1)).build().unwrap();
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let closure = runtime.spawn_blocking(move || held.recv().is_ok());
    let snapshot = until(&profiler, "closure", |snapshot| {
        snapshot.coverage.missing.iter().any(|m| m.reason == Reason::BlockingPool && m.count == 1)
    });
    assert!(snapshot.tasks.is_empty());
    let_go.send(()).unwrap();
    assert!(runtime.block_on(closure).unwrap());
    let after = until(&profiler, "its end", |snapshot| snapshot.counters.blocking_ended == 1);
    assert_eq!(after.counters.tasks_ended, 0);
}

#[test]
fn bad_settings_are_refused_before_anything_starts() {
    use crate::error::ErrorKind;
    let kind = |builder: super::Builder| builder.start().unwrap_err().kind();
    assert_eq!(kind(Profiler::builder().http("nonsense")), ErrorKind::InvalidInput);
    assert_eq!(kind(Profiler::builder().http("0.0.0.0:0")), ErrorKind::Unsafe);
    assert_eq!(
        kind(Profiler::builder().http("127.0.0.1:0").token("short")),
        ErrorKind::InvalidInput
    );
    let brief = Duration::from_millis(1);
    assert_eq!(kind(Profiler::builder().blocked_threshold(brief)), ErrorKind::InvalidInput);
    let one = Profiler::builder().http("127.0.0.1:0").start().unwrap();
    let taken = one.http_addr().unwrap();
    assert!(taken.ip().is_loopback());
    assert_eq!(kind(Profiler::builder().http(taken)), ErrorKind::Bind);
}

#[test]
fn who_waits_behind_a_blocked_worker_is_counted() {
    let profiler = profiler();
    let runtime = profiler.runtime(multi_thread(1)).build().unwrap();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let blocked = runtime.spawn(async move {
        // The last one goes to a place of its own, which is in no queue.
        for _ in 0..21 {
            tokio::spawn(async {});
        }
        wait.recv().ok();
    });
    let seen = |snapshot: &Snapshot| snapshot.blocked.iter().any(|blocked| blocked.ongoing);
    until(&profiler, "blocked worker", seen);
    for _ in 0..7 {
        runtime.spawn(async {});
    }
    let told = until(&profiler, "both queues", |snapshot| {
        let mut blocked = snapshot.blocked.iter().filter(|blocked| blocked.ongoing);
        blocked.any(|blocked| blocked.queued_local == Some(20) && blocked.queued_global == 7)
    });
    let finding = crate::analyze::analyze(&told);
    let finding = finding.findings.iter().find(|it| it.kind == FindingKind::BlockedWorker);
    let text = finding.unwrap().evidence.join(" ");
    assert!(text.contains("20") && text.contains('7'), "{text}");
    let figures = &told.runtimes[0];
    assert_eq!((figures.workers, figures.global_queue_depth), (1, 7));
    assert_eq!(figures.alive_tasks, 1 + 21 + 7);
    let busy = figures.busy_ns;

    go_on.send(()).unwrap();
    runtime.block_on(blocked).unwrap();
    let after = until(&profiler, "rest", |snapshot| {
        snapshot.runtimes[0].alive_tasks == 0 && snapshot.workers[0].parks > 0
    });
    let figures = &after.runtimes[0];
    assert_eq!(figures.global_queue_depth, 0);
    assert_eq!(figures.spawned_tasks, Some(1 + 21 + 7));
    assert!(figures.busy_ns > busy && figures.parks > 0, "{figures:#?}");
    // tokio counts what runs from that place with the poll before it.
    assert!(figures.polls.is_none_or(|polls| polls >= 28), "{figures:#?}");
}

#[test]
fn servers_end_side_by_side() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("debug.sock");
    let profiler =
        Profiler::builder().await_chains(false).http("127.0.0.1:0").unix(&path).start().unwrap();
    // Each waits for the rest of this for as long as it waits for anything.
    let half = b"GET /healthz HTTP/1.1\r\nHost: local";
    let mut tcp = std::net::TcpStream::connect(profiler.http_addr().unwrap()).unwrap();
    let mut unix = std::os::unix::net::UnixStream::connect(&path).unwrap();
    tcp.write_all(half).unwrap();
    unix.write_all(half).unwrap();
    // Both are accepted once a later request on the same listener is answered.
    let whole = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let mut later = std::net::TcpStream::connect(profiler.http_addr().unwrap()).unwrap();
    later.write_all(whole).unwrap();
    std::io::Read::read_to_end(&mut later, &mut Vec::new()).unwrap();
    let mut later = std::os::unix::net::UnixStream::connect(&path).unwrap();
    later.write_all(whole).unwrap();
    std::io::Read::read_to_end(&mut later, &mut Vec::new()).unwrap();
    let begun = Instant::now();
    profiler.shutdown();
    assert!(begun.elapsed() < Duration::from_millis(1_400), "{:?}", begun.elapsed());
    drop((tcp, unix));
}

#[cfg(feature = "console")]
#[test]
fn one_that_is_dropped_ends_its_servers_side_by_side() {
    use std::io::Write as _;

    use console_api::instrument::InstrumentRequest;
    use console_api::instrument::instrument_client::InstrumentClient;

    let local = "127.0.0.1:0";
    let profiler =
        Profiler::builder().await_chains(false).http(local).console(local).start().unwrap();
    // Nothing drives this runtime once the first update is there: its client
    // takes no leave, which is waited for, as is the rest of the request.
    let client = Builder::new_current_thread().enable_all().build().unwrap();
    let console = format!("http://{}", profiler.console_addr().unwrap());
    let _updates = client.block_on(async {
        let mut client = InstrumentClient::connect(console).await.unwrap();
        let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
        updates.message().await.unwrap().unwrap();
        (client, updates)
    });
    let mut half = std::net::TcpStream::connect(profiler.http_addr().unwrap()).unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap();
    let mut later = std::net::TcpStream::connect(profiler.http_addr().unwrap()).unwrap();
    later.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    std::io::Read::read_to_end(&mut later, &mut Vec::new()).unwrap();
    let begun = Instant::now();
    drop(profiler);
    assert!(begun.elapsed() < Duration::from_millis(1_300), "{:?}", begun.elapsed());
}

#[test]
fn one_that_is_dropped_while_it_warms_up_reads_no_further() {
    let profiler = Profiler::builder().start().unwrap();
    // The thread holds them until it ends.
    let awaits = profiler.shared.core.awaits.clone();
    drop(profiler);
    let begun = Instant::now();
    while Arc::strong_count(&awaits) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it still reads");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (_, why) = awaits.read(&[], Instant::now()).unwrap_err();
    assert_eq!(why, "reading was stopped");
}

/// What `coverage` says is missing for a reason; none if it does not speak of it.
fn missing(snapshot: &Snapshot, reason: Reason) -> Option<u64> {
    let all = snapshot.coverage.missing.iter().filter(|missing| missing.reason == reason);
    all.map(|missing| missing.count).reduce(|a, b| a + b)
}

#[test]
fn a_full_task_table_costs_the_program_nothing_and_each_missing_task_has_one_reason() {
    const ROOM: usize = 10;
    let profiler = Profiler::builder().await_chains(false).max_tasks(ROOM).start().unwrap();
    let runtime = profiler.runtime(multi_thread(2)).build().unwrap();
    let spawn = |n: usize| -> Vec<_> {
        let _inside = runtime.enter();
        (0..n).map(|_| tokio::spawn(std::future::pending::<()>())).collect()
    };
    let tasks = spawn(ROOM + 7);
    let full =
        until(&profiler, "full table", |snapshot| snapshot.coverage.alive == ROOM as u64 + 7);
    assert_eq!((full.coverage.listed, full.coverage.dropped), (ROOM as u64, 7));
    assert_eq!(missing(&full, Reason::RegistryFull), Some(7));
    assert_eq!(missing(&full, Reason::NoHook), Some(0));

    // Closures are counted while tasks that are not held live, and when they end.
    let closures = |n: u64| {
        for _ in 0..n {
            runtime.block_on(runtime.spawn_blocking(|| ())).unwrap();
        }
    };
    let blocking_ended = |n: u64| move |snapshot: &Snapshot| snapshot.counters.blocking_ended == n;
    closures(5);
    until(&profiler, "five closures", blocking_ended(5));
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    until(&profiler, "end", |snapshot| snapshot.coverage.alive == 0);
    closures(1);
    until(&profiler, "six closures and no task", blocking_ended(6));
    // Beside a runtime whose tasks are missing for another reason.
    let other = multi_thread(1).build().unwrap();
    profiler.watch("other", other.handle());
    for _ in 0..5 {
        other.spawn(std::future::pending::<()>());
    }
    spawn(3);
    let after = until(&profiler, "tasks of both", |snapshot| snapshot.coverage.alive == 8);
    assert_eq!((after.coverage.listed, after.coverage.dropped), (3, 7));
    assert_eq!(missing(&after, Reason::RegistryFull), Some(0), "they have ended");
    assert_eq!(missing(&after, Reason::NoHook), Some(5));
    let report = crate::analyze::analyze(&after);
    let told = report.findings.iter().find(|finding| finding.kind == FindingKind::RegistryFull);
    assert_eq!(told.unwrap().severity, crate::model::Severity::Info, "it is history");
}

#[test]
fn a_full_stream_table_is_told_for_as_long_as_a_stream_is_not_listed() {
    let profiler = Profiler::builder().await_chains(false).max_streams(2).start().unwrap();
    let streams = &profiler.shared.core.registry.streams;
    let begun: Vec<_> = (0..3)
        .map(|_| {
            streams.begin(Begin {
                side: Side::Server,
                path: "/a.B/C",
                connection: None,
                endpoint: None,
                span: None,
                peer: None,
                timeout: None,
                metadata: std::collections::BTreeMap::new(),
            })
        })
        .collect();
    let full = profiler.snapshot(Want::ALL).unwrap();
    assert_eq!((full.streams.len(), full.coverage.dropped), (2, 1));
    assert_eq!(missing(&full, Reason::StreamsFull), Some(1));
    begun.iter().for_each(|stream| streams.end(stream, None));
    let after = profiler.snapshot(Want::ALL).unwrap();
    assert_eq!((after.coverage.dropped, after.counters.streams_dropped), (1, 1));
    assert_eq!(missing(&after, Reason::StreamsFull), Some(0));
}
