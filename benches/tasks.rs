//! What the hooks cost a task: CPU time of a spawn and of a yield, memory of a
//! live task, growth after millions.
//!
//! `cargo bench --bench tasks`. Plain tokio and taskprof (debug server on,
//! nobody asks it) take turns, each in a process of its own, and ratios are of
//! neighbours.

mod common;

use std::hint::black_box;
use std::task::Poll;

use common::{
    again, either, grouped, headline, median, no_huge_pages, own_cpu_ns, resident, role, settle,
    spread, verdict,
};
use taskprof::Profiler;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const SPAWNS: u32 = 1_000_000;
const YIELDS: u32 = 5_000_000;
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
        Some((kind, what)) => {
            // One would hide what the tasks on it need.
            no_huge_pages();
            let (_profiler, runtime) = runtime(&kind);
            settle();
            let figure = runtime.block_on(async move {
                let work = async move {
                    match what[0].as_str() {
                        "spawn" => spawn().await,
                        "beside" => beside().await,
                        "join" => joins().await,
                        "yield" => yields().await,
                        "self-wake" => self_wakes().await,
                        "live" => live(what[1].parse().expect("tasks")).await,
                        "churn" => churn().await,
                        other => panic!("no bench {other}"),
                    }
                };
                tokio::spawn(work).await.expect("bench task")
            });
            println!("{figure}");
        }
    }
}

fn runtime(kind: &str) -> (Option<Profiler>, Runtime) {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    match kind {
        "plain" => (None, builder.build().expect("runtime")),
        "taskprof" => {
            let profiler = Profiler::builder().http("127.0.0.1:0").start().expect("profiler");
            let runtime = profiler.runtime(builder).build().expect("runtime");
            (Some(profiler), runtime)
        }
        other => panic!("no kind {other}"),
    }
}

async fn spawn_and_end(tasks: u32) {
    for n in 0..tasks {
        let task = tokio::spawn(async move { black_box(n) });
        // The one worker gets its turn, so that the queue stays short.
        if n % 64 == 63 {
            task.await.expect("task");
        }
    }
}

/// CPU nanoseconds for spawn, run and end of a task, all threads together.
async fn spawn() -> f64 {
    let spawns = either(SPAWNS, SPAWNS / 10);
    spawn_and_end(spawns / 2).await;
    let began = own_cpu_ns();
    spawn_and_end(spawns).await;
    (own_cpu_ns() - began) as f64 / f64::from(spawns)
}

/// The same where each task is awaited before the next is spawned.
async fn joins() -> f64 {
    let spawns = either(SPAWNS, SPAWNS / 10);
    let turn = async |count| {
        for n in 0..count {
            tokio::spawn(async move { black_box(n) }).await.expect("task");
        }
    };
    turn(spawns / 2).await;
    let began = own_cpu_ns();
    turn(spawns).await;
    (own_cpu_ns() - began) as f64 / f64::from(spawns)
}

/// CPU nanoseconds for a poll of a task that wakes itself: nothing else.
async fn self_wakes() -> f64 {
    let polls = either(YIELDS, YIELDS / 10);
    let turn = async |count: u32| {
        let mut left = count;
        std::future::poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    };
    turn(polls / 2).await;
    let began = own_cpu_ns();
    turn(polls).await;
    (own_cpu_ns() - began) as f64 / f64::from(polls)
}

/// CPU nanoseconds for a `yield_now`: one poll, and a look at the I/O driver.
async fn yields() -> f64 {
    let yields = either(YIELDS, YIELDS / 10);
    let turn = async |count| {
        for _ in 0..count {
            tokio::task::yield_now().await;
        }
    };
    turn(yields / 2).await;
    let began = own_cpu_ns();
    turn(yields).await;
    (own_cpu_ns() - began) as f64 / f64::from(yields)
}

/// Tasks that wait for good.
fn hold(count: usize) -> Vec<JoinHandle<()>> {
    static NEVER: Notify = Notify::const_new();
    (0..count).map(|_| tokio::spawn(NEVER.notified())).collect()
}

/// As `spawn`, beside tasks that stay: of a million spawned every twentieth.
async fn beside() -> f64 {
    for _ in 0..BESIDE {
        hold(1);
        spawn_and_end(19).await;
    }
    spawn().await
}

/// Resident bytes that a live task adds.
async fn live(count: usize) -> f64 {
    // These fill what earlier work has freed and the allocator kept, which
    // would else be found as memory that tasks do not need.
    hold(10_000);
    tokio::task::yield_now().await;
    let before = resident();
    hold(count);
    tokio::task::yield_now().await;
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

fn report() {
    let rounds = either(9, 2);
    let figure =
        |kind: &str, what: &[&str]| -> f64 { again(kind, what).parse().expect("a figure") };
    headline(&format!("tasks: one worker, {rounds} rounds in turn, one process each"));
    println!();
    println!("{:36} {:>9} {:>9} {:>7}  {:15} goal", "", "plain", "taskprof", "ratio", "spread");
    for (what, name) in [
        ("spawn", "spawn, run, end by 64: CPU ns"),
        ("beside", "the same beside 50,000 live tasks"),
        ("join", "spawn and await, one by one: CPU ns"),
        ("yield", "yield_now: CPU ns"),
        ("self-wake", "poll of a task that wakes itself"),
    ] {
        let (mut plain, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            // Turn about, so that a drift of the machine favours neither.
            let (bare, with) = if round % 2 == 0 {
                let bare = figure("plain", &[what]);
                (bare, figure("taskprof", &[what]))
            } else {
                let with = figure("taskprof", &[what]);
                (figure("plain", &[what]), with)
            };
            ratios.push(with / bare);
            plain.push(bare);
            ours.push(with);
        }
        let (low, high) = spread(&ratios);
        let ratio = median(ratios);
        println!(
            "{name:36} {:>9.1} {:>9.1} {ratio:>7.3}  {low:.3} to {high:.3}  at most {MOST_TIME:.2}: {}",
            median(plain),
            median(ours),
            verdict(ratio <= MOST_TIME)
        );
    }
    let memories = either(3, 1);
    for count in LIVE {
        let size = count.to_string();
        let live = |kind| median((0..memories).map(|_| figure(kind, &["live", &size])).collect());
        let (plain, ours) = (live("plain"), live("taskprof"));
        println!(
            "{:36} {plain:>9.0} {ours:>9.0} {:>+7.0}  {:15} at most +{MOST_BYTES:.0}: {}",
            format!("{} live tasks: bytes each", grouped(count as u64)),
            ours - plain,
            "",
            verdict(ours - plain <= MOST_BYTES)
        );
    }
    let churn = |kind| median((0..memories).map(|_| figure(kind, &["churn"])).collect());
    let (plain, ours) = (churn("plain"), churn("taskprof"));
    println!(
        "{:36} {:>9.0} {:>9.0} {:>7}  {:15} no more than some pages: {}",
        "growth over 2,000,000 tasks: KiB",
        plain / 1024.0,
        ours / 1024.0,
        "",
        "",
        verdict(ours <= NO_GROWTH)
    );
}
