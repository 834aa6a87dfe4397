//! What the hooks cost a task: CPU time of a spawn and of a yield, memory of a
//! live task, growth after millions; and what the profiler costs at rest.
//!
//! `cargo bench --bench tasks`. Plain tokio, tokio with hooks that do nothing,
//! with hooks that look at the clock once a poll, and taskprof (debug server on,
//! nobody asks it) are four runtimes of one process, with a worker each, which
//! take turns of a few milliseconds: what else the machine does meets all alike.
//! Ratios are of neighbours. That of the idle hooks is what no profiler that sees
//! all tasks can go below, and that of the clock what none can that knows since
//! when a poll lasts. Memory is measured in processes of their own.

mod common;

use std::hint::black_box;
use std::task::Poll;
use std::time::Duration;

use common::{
    again, either, grouped, headline, median, no_huge_pages, own_cpu_ns, resident, role, settle,
    thread_cpu_ns, verdict,
};
use taskprof::Profiler;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Kinds of runtime, plain tokio first.
const KINDS: [&str; 4] = ["plain", "no-op", "clock", "taskprof"];
/// Live tasks whose memory is measured, and those beside which others spawn.
const LIVE: [usize; 3] = [25_000, 100_000, 180_000];
const BESIDE: usize = 50_000;

/// CPU time against plain tokio.
const MOST_TIME: f64 = 1.10;
/// Bytes a live task.
const MOST_BYTES: f64 = 128.0;
/// Growth over two million tasks that counts as none: the allocator's own
/// arenas and the kernel's per-thread counters (64 pages) move by some pages.
const NO_GROWTH: f64 = 512.0 * 1024.0;

fn main() {
    match role() {
        None => report(),
        Some((role, what)) => {
            // One would hide what the tasks on it need.
            no_huge_pages();
            if role == "turns" {
                turns(&what[0]);
            } else {
                println!("{}", figure(&role, &what));
            }
        }
    }
}

fn runtime(kind: &str) -> (Option<Profiler>, Runtime) {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    match kind {
        "plain" => (None, builder.build().expect("runtime")),
        "no-op" | "clock" => {
            let clock = quanta::Clock::new();
            builder
                .on_task_spawn(|meta| _ = black_box(meta.id()))
                .on_after_task_poll(|meta| _ = black_box(meta.id()))
                .on_task_terminate(|meta| _ = black_box(meta.id()));
            match kind {
                "clock" => builder.on_before_task_poll(move |meta| {
                    _ = black_box((meta.id(), clock.raw()));
                }),
                _ => builder.on_before_task_poll(|meta| _ = black_box(meta.id())),
            };
            (None, builder.build().expect("runtime"))
        }
        "taskprof" => {
            let profiler = Profiler::builder().http("127.0.0.1:0").start().expect("profiler");
            let runtime = profiler.runtime(builder).build().expect("runtime");
            (Some(profiler), runtime)
        }
        other => panic!("no kind {other}"),
    }
}

/// Runs work as a task, on the one worker.
fn on_worker<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime.block_on(async move { tokio::spawn(work).await.expect("bench task") })
}

// ── time ─────────────────────────────────────────────────────────────────

/// Prints, for each turn, what one operation cost in each kind of runtime, in
/// nanoseconds of its worker's CPU time.
fn turns(what: &str) {
    let runtimes = KINDS.map(runtime);
    settle();
    if what == "beside" {
        for (_, runtime) in &runtimes {
            on_worker(runtime, crowd());
        }
    }
    let (operations, turns) = match what {
        "yield" => (5_000, either(1_000, 100)),
        "self-wake" => (20_000, either(1_000, 100)),
        _ => (6_400, either(1_000, 100)),
    };
    let turn = |kind: usize| {
        let what = what.to_owned();
        on_worker(&runtimes[kind].1, async move {
            let began = thread_cpu_ns();
            match what.as_str() {
                "spawn" | "beside" => spawn_and_end(operations).await,
                "join" => joins(operations).await,
                "yield" => yields(operations).await,
                "self-wake" => self_wakes(operations).await,
                other => panic!("no bench {other}"),
            }
            (thread_cpu_ns() - began) as f64 / f64::from(operations)
        })
    };
    for kind in 0..KINDS.len() {
        for _ in 0..turns / 10 {
            turn(kind);
        }
    }
    for round in 0..turns {
        let mut costs = [0.0; KINDS.len()];
        // A Williams square: in each four rounds each comes once in each place,
        // and follows each other once.
        for kind in [0, 1, 3, 2].map(|kind| (kind + round) % KINDS.len()) {
            costs[kind] = turn(kind);
        }
        println!("{}", costs.map(|cost| cost.to_string()).join(" "));
    }
}

/// Spawns tasks, which run and end.
async fn spawn_and_end(tasks: u32) {
    for n in 0..tasks {
        let task = tokio::spawn(async move { black_box(n) });
        // The one worker gets its turn, so that the queue stays short.
        if n % 64 == 63 {
            task.await.expect("task");
        }
    }
}

/// The same where each task is awaited before the next is spawned.
async fn joins(tasks: u32) {
    for n in 0..tasks {
        tokio::spawn(async move { black_box(n) }).await.expect("task");
    }
}

/// A task that wakes itself: its polls, and nothing else.
async fn self_wakes(polls: u32) {
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// `yield_now`: one poll, and a look at the I/O driver.
async fn yields(yields: u32) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
}

/// Tasks that stay: of a million spawned every twentieth.
async fn crowd() {
    for _ in 0..BESIDE {
        hold(1);
        spawn_and_end(19).await;
    }
}

// ── memory, and rest ─────────────────────────────────────────────────────

fn figure(kind: &str, what: &[String]) -> f64 {
    let (_profiler, runtime) = runtime(kind);
    settle();
    match what[0].as_str() {
        "live" => on_worker(&runtime, live(what[1].parse().expect("tasks"))),
        "churn" => on_worker(&runtime, churn()),
        "rest" => rest(),
        other => panic!("no bench {other}"),
    }
}

/// CPU milliseconds a second of a process that does nothing.
fn rest() -> f64 {
    let time = either(Duration::from_secs(5), Duration::from_secs(1));
    let began = own_cpu_ns();
    std::thread::sleep(time);
    (own_cpu_ns() - began) as f64 / 1e6 / time.as_secs_f64()
}

/// Tasks that wait for good.
fn hold(count: usize) -> Vec<JoinHandle<()>> {
    static NEVER: Notify = Notify::const_new();
    (0..count).map(|_| tokio::spawn(NEVER.notified())).collect()
}

/// Resident bytes that a live task adds.
async fn live(count: usize) -> f64 {
    // These fill what earlier work has freed and the allocator kept, which
    // would else be found as memory that tasks do not need.
    hold(10_000);
    tokio::task::yield_now().await;
    let before = resident();
    // In polls as short as they should be: the stack of a long one is captured,
    // and naming it takes memory that is not the tasks'.
    for _ in 0..count / 1_000 {
        hold(1_000);
        tokio::task::yield_now().await;
    }
    (resident() - before) as f64 / count as f64
}

/// Resident bytes that two million tasks leave behind.
async fn churn() -> f64 {
    // The first million makes the allocator's arenas what they will be; growth
    // is what the next ones add.
    spawn_and_end(1_000_000).await;
    let before = resident();
    spawn_and_end(2_000_000).await;
    resident() as f64 - before as f64
}

// ── report ───────────────────────────────────────────────────────────────

/// The costs of all turns of some processes, by kind.
fn played(what: &str, starts: usize) -> [Vec<f64>; KINDS.len()] {
    let mut costs = [const { Vec::new() }; KINDS.len()];
    for _ in 0..starts {
        for line in again("turns", &[what]).lines() {
            for (costs, cost) in costs.iter_mut().zip(line.split(' ')) {
                costs.push(cost.parse().expect("a figure"));
            }
        }
    }
    costs
}

/// Lower and upper quartile.
fn middle_half(figures: &[f64]) -> (f64, f64) {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 4], figures[figures.len() * 3 / 4])
}

fn report() {
    let starts = either(3, 1);
    headline(&format!("tasks: one worker each; CPU time in turns, {starts} processes a row"));
    println!();
    println!(
        "{:36} {:>8} {:>8} {:>7} {:>7} {:>7}  {:15} goal",
        "", "plain", "taskprof", "no-op", "clock", "ratio", "middle half"
    );
    for (what, name) in [
        ("spawn", "spawn, run, end by 64: CPU ns"),
        ("beside", "the same beside 50,000 live tasks"),
        ("join", "spawn and await, one by one: CPU ns"),
        ("yield", "yield_now: CPU ns"),
        ("self-wake", "poll of a task that wakes itself"),
    ] {
        let [plain, idle, clock, ours] = played(what, starts);
        let against_plain = |costs: &[f64]| -> Vec<f64> {
            costs.iter().zip(&plain).map(|(with, bare)| with / bare).collect()
        };
        let (floor, clock) = (median(against_plain(&idle)), median(against_plain(&clock)));
        let ratios = against_plain(&ours);
        let (low, high) = middle_half(&ratios);
        let ratio = median(ratios);
        println!(
            "{name:36} {:>8.1} {:>8.1} {floor:>7.3} {clock:>7.3} {ratio:>7.3}  {low:.3} to {high:.3}  at most {MOST_TIME:.2}: {}",
            median(plain.clone()),
            median(ours),
            verdict(ratio <= MOST_TIME)
        );
    }
    let starts = either(3, 1);
    let figure = |kind: &str, what: &[&str]| -> f64 {
        median((0..starts).map(|_| again(kind, what).parse().expect("a figure")).collect())
    };
    let row = |name: &str, plain: String, ours: String, more: String, goal: String| {
        println!("{name:36} {plain:>8} {ours:>8} {:7} {:7} {more:>7}  {:15} {goal}", "", "", "");
    };
    for count in LIVE {
        let size = count.to_string();
        let live = |kind| figure(kind, &["live", &size]);
        let (plain, ours) = (live("plain"), live("taskprof"));
        row(
            &format!("{} live tasks: bytes each", grouped(count as u64)),
            format!("{plain:.0}"),
            format!("{ours:.0}"),
            format!("{:+.0}", ours - plain),
            format!("at most +{MOST_BYTES:.0}: {}", verdict(ours - plain <= MOST_BYTES)),
        );
    }
    let (plain, ours) = (figure("plain", &["churn"]), figure("taskprof", &["churn"]));
    row(
        "growth over 2,000,000 tasks: KiB",
        format!("{:.0}", plain / 1024.0),
        format!("{:.0}", ours / 1024.0),
        String::new(),
        format!("no more than some pages: {}", verdict(ours <= NO_GROWTH)),
    );
    let (plain, ours) = (figure("plain", &["rest"]), figure("taskprof", &["rest"]));
    row(
        "at rest: CPU ms a second",
        format!("{plain:.2}"),
        format!("{ours:.2}"),
        format!("{:+.2}", ours - plain),
        String::new(),
    );
}
