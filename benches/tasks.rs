//! What the hooks cost a task: time of a spawn and of a yield, memory of a
//! live task, growth after a million.
//!
//! `cargo bench --bench tasks`. Each figure comes from a process of its own;
//! plain tokio and taskprof take turns, and ratios are of neighbours.

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{again, median, print_ratio, resident, role};
use taskprof::Profiler;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

const ROUNDS: usize = 9;
const SPAWNS: u32 = 400_000;
const YIELDS: u32 = 4_000_000;
const LIVE: usize = 100_000;

fn main() {
    match role() {
        None => report(),
        Some((kind, what)) => {
            let (_profiler, runtime) = runtime(&kind);
            let figure = runtime.block_on(async move {
                let work = async move {
                    match what[0].as_str() {
                        "spawn" => spawn().await,
                        "yield" => yields().await,
                        "live" => live().await,
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

/// Nanoseconds for a spawn, run and end of a task.
async fn spawn() -> f64 {
    let mut per_task = 0.0;
    for _warm_then_count in 0..2 {
        let began = Instant::now();
        for n in 0..SPAWNS {
            let task = tokio::spawn(async move { black_box(n) });
            // The one worker gets its turn, so that the queue stays short.
            if n % 64 == 63 {
                task.await.expect("task");
            }
        }
        per_task = began.elapsed().as_nanos() as f64 / f64::from(SPAWNS);
    }
    per_task
}

/// Nanoseconds for a yield: one poll.
async fn yields() -> f64 {
    let mut per_yield = 0.0;
    for _warm_then_count in 0..2 {
        let began = Instant::now();
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        per_yield = began.elapsed().as_nanos() as f64 / f64::from(YIELDS);
    }
    per_yield
}

/// Resident bytes that a live task adds.
async fn live() -> f64 {
    static GO: Notify = Notify::const_new();
    let hold = |count: usize| (0..count).map(|_| tokio::spawn(GO.notified())).collect::<Vec<_>>();
    let warm = hold(1_000);
    tokio::task::yield_now().await;
    let before = resident();
    let tasks = hold(LIVE);
    tokio::task::yield_now().await;
    let bytes = (resident() - before) as f64 / LIVE as f64;
    for task in warm.into_iter().chain(tasks) {
        task.abort();
    }
    bytes
}

/// Resident bytes that a million tasks leave behind.
async fn churn() -> f64 {
    let round = || async {
        for n in 0..1_000_000 {
            let task = tokio::spawn(async move { black_box(n) });
            if n % 64 == 63 {
                task.await.expect("task");
            }
        }
    };
    // The first million touches each page of the index once; growth is what
    // the next ones add.
    round().await;
    let before = resident();
    round().await;
    round().await;
    resident() as f64 - before as f64
}

fn report() {
    let figure =
        |kind: &str, what: &str| -> f64 { again(kind, &[what]).parse().expect("a figure") };
    println!("one worker, {ROUNDS} rounds in turn, ratio taskprof / plain: median (least to most)");
    for (what, goal) in [("spawn", "1.10"), ("yield", "1.10")] {
        let mut plain = Vec::new();
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let bare = figure("plain", what);
            ratios.push(figure("taskprof", what) / bare);
            plain.push(bare);
        }
        print_ratio(&format!("{what} (plain: {:.0} ns)", median(plain)), &ratios, goal);
    }
    let live = |kind| median((0..3).map(|_| figure(kind, "live")).collect());
    let (plain, ours) = (live("plain"), live("taskprof"));
    println!(
        "  {LIVE} live tasks: {:.0} bytes a task more (plain {plain:.0}, taskprof {ours:.0}), goal 128",
        ours - plain
    );
    let churn = median((0..3).map(|_| figure("taskprof", "churn")).collect());
    println!("  growth over two million further tasks: {:.0} KiB, goal 0", churn / 1024.0);
}
