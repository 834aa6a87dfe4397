//! What a dump costs: time, bytes, memory, and how long the program's own
//! runtime stands still meanwhile.
//!
//! `cargo bench --bench dump`. A server process holds 1,000 to 100,000 idle
//! tasks and a heartbeat on the same runtime; this process asks it over HTTP,
//! never so soon that the answer would come from the snapshot before.

mod common;

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Peer, either, forget_peak, grouped, headline, median, memory, obey, pace, verdict};
use prost::Message as _;
use serde_json::Value;
use taskprof::Profiler;
use taskprof::pb::profile::Profile;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

/// Tasks that wait, one heartbeat beside them.
const HEARTBEAT: u64 = 1;
/// The debug server hands a snapshot out for a second at most.
const FRESH: Duration = Duration::from_millis(1_100);

struct Request {
    name: &'static str,
    path: &'static str,
    /// Counts the tasks in an answer.
    count: fn(&[u8]) -> u64,
    /// The most milliseconds at 100,000 tasks.
    goal_ms: f64,
    /// Go 1.27.3 on 2 cores, goroutines for tasks: milliseconds at 1k, 10k, 100k.
    go_ms: Option<[f64; 3]>,
}

const REQUESTS: &[Request] = &[
    Request {
        name: "goroutine (debug=0)",
        path: "/debug/pprof/goroutine",
        count: in_profile,
        goal_ms: 100.0,
        go_ms: Some([4.0, 28.0, 224.0]),
    },
    Request {
        name: "goroutine?debug=1",
        path: "/debug/pprof/goroutine?debug=1",
        count: in_debug1,
        goal_ms: 1_000.0,
        go_ms: None,
    },
    Request {
        name: "goroutine?debug=2",
        path: "/debug/pprof/goroutine?debug=2",
        count: in_debug2,
        goal_ms: 1_000.0,
        go_ms: Some([8.0, 555.0, 9_200.0]),
    },
    Request {
        name: "tasks?group=stack",
        path: "/debug/tasks?group=stack",
        count: in_groups,
        goal_ms: 250.0,
        go_ms: None,
    },
    Request {
        name: "tasks?group=none",
        path: "/debug/tasks?group=none",
        count: in_list,
        goal_ms: 1_000.0,
        go_ms: None,
    },
    Request {
        name: "snapshot",
        path: "/debug/snapshot",
        count: in_list,
        goal_ms: 1_000.0,
        go_ms: None,
    },
];

/// What a Go program of so many goroutines pays, measured with its own net/http/pprof.
const GO_STALLS: &str = "Go 1.27.3, 2 cores, during debug=2: longest stall 7 ms at 1k goroutines, 140 ms at 10k, \
     1,750 to 3,500 ms at 100k, where the dump is also cut at 64 MiB in silence";

/// Goals at 100,000 tasks beside the times: how much longer the heartbeat's
/// longest gap may be than without a dump, and how long it may be at all with
/// [`BALLAST`] besides.
const MOST_GAP_MORE_MS: f64 = 5.0;
const MOST_GAP_MS: f64 = 15.0;
const MOST_MEMORY: f64 = 64.0 * 1024.0 * 1024.0;
const MOST_KEPT: f64 = 16.0 * 1024.0 * 1024.0;
const MOST_INDEX_MS: f64 = 500.0;

/// What the grouped profile may cost without await chains, in milliseconds.
const HOOKS_MOST_MS: f64 = 100.0;
/// The largest size, which the goals are for.
const MOST_TASKS: u64 = 100_000;

/// What a server of one of the rows keeps besides its tasks.
const BALLAST: usize = 1 << 30;

fn main() {
    match common::role() {
        None => report(),
        Some((role, args)) if role == "server" => {
            let chains = args[2].parse().expect("whether chains are read");
            server(args[0].parse().expect("tasks"), args[1].parse().expect("bytes"), chains);
        }
        Some((role, _)) => panic!("no role {role}"),
    }
}

// ── server ───────────────────────────────────────────────────────────────

/// The longest time between two beats, in nanoseconds, since it was last asked.
static GAP: AtomicU64 = AtomicU64::new(0);

async fn heartbeat() {
    let mut beat = interval(Duration::from_millis(1));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        beat.tick().await;
        let now = Instant::now();
        GAP.fetch_max((now - last).as_nanos() as u64, Relaxed);
        last = now;
    }
}

/// What a server's tasks wait for; each kind has a place of its own.
#[derive(Default)]
struct Held {
    senders: Vec<mpsc::Sender<u64>>,
    answers: Vec<oneshot::Sender<u64>>,
    change: Option<watch::Sender<u64>>,
}

fn idle(runtime: &Handle, tasks: usize) -> Held {
    let mut held = Held::default();
    let notify = Arc::new(Notify::new());
    let (change, changed) = watch::channel(0);
    held.change = Some(change);
    let _entered = runtime.enter();
    for n in 0..tasks {
        match n % 4 {
            0 => {
                let notify = notify.clone();
                tokio::spawn(async move { notify.notified().await });
            }
            1 => {
                let (send, mut receive) = mpsc::channel::<u64>(1);
                held.senders.push(send);
                tokio::spawn(async move { while receive.recv().await.is_some() {} });
            }
            2 => {
                let (answer, asked) = oneshot::channel::<u64>();
                held.answers.push(answer);
                tokio::spawn(async move { asked.await.ok() });
            }
            _ => {
                let mut changed = changed.clone();
                tokio::spawn(async move { changed.changed().await.ok() });
            }
        }
    }
    held
}

fn server(tasks: usize, ballast: usize, chains: bool) {
    let heap = || memory("self", "RssAnon");
    let (began, before) = (Instant::now(), heap());
    let profiler = Profiler::builder().http("127.0.0.1:0").await_chains(chains).start();
    let profiler = profiler.expect("profiler");
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    let runtime = profiler.runtime(builder).build().expect("runtime");
    common::settle();
    let indexed = began.elapsed().as_secs_f64() * 1e3;
    let kept = heap().saturating_sub(before);
    let _held = idle(runtime.handle(), tasks);
    let _ballast = vec![1_u8; ballast];
    runtime.spawn(heartbeat());
    let address = profiler.http_addr().expect("asked for");
    obey(&format!("{address} {indexed} {kept}"), |_| GAP.swap(0, Relaxed).to_string());
    profiler.shutdown();
    runtime.shutdown_background();
}

// ── counting ─────────────────────────────────────────────────────────────

fn in_profile(body: &[u8]) -> u64 {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut plain).expect("gzip");
    let profile = Profile::decode(&*plain).expect("a profile");
    let unit = |unit: i64| profile.string_table[unit as usize].as_str();
    let count = profile.sample_type.iter().position(|kind| unit(kind.unit) == "count");
    let count = count.expect("a sample type that counts");
    profile.sample.iter().map(|sample| sample.value[count] as u64).sum()
}

fn lines(body: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(body).expect("text").lines()
}

/// What the groups add up to, if that is what the head says.
fn in_debug1(body: &[u8]) -> u64 {
    let mut lines = lines(body);
    let head = lines.next().and_then(|line| line.strip_prefix("goroutine profile: total "));
    let said: u64 = head.and_then(|number| number.parse().ok()).expect("Go's head");
    let groups = lines.filter_map(|line| line.split_once(" @")?.0.parse::<u64>().ok());
    let listed = groups.sum();
    assert_eq!(said, listed, "the groups are all");
    listed
}

fn in_debug2(body: &[u8]) -> u64 {
    lines(body).filter(|line| line.starts_with("goroutine ") && line.ends_with(':')).count() as u64
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

fn in_list(body: &[u8]) -> u64 {
    json(body)["tasks"].as_array().expect("a list").len() as u64
}

fn in_groups(body: &[u8]) -> u64 {
    let answer = json(body);
    let groups = answer["groups"].as_array().expect("a list");
    groups.iter().map(|group| group["count"].as_u64().expect("a count")).sum()
}

// ── report ───────────────────────────────────────────────────────────────

fn get(address: &str, path: &str) -> Vec<u8> {
    let mut answer = ureq::get(format!("http://{address}{path}")).call().expect("an answer");
    answer.body_mut().with_config().limit(u64::MAX).read_to_vec().expect("a body")
}

/// What one request was found to cost.
struct Cost {
    ms: Vec<f64>,
    /// The heartbeat's longest gap during the dump, and during the same time
    /// without one.
    gap_ms: Vec<f64>,
    quiet_ms: Vec<f64>,
    bytes: usize,
    listed: u64,
    /// Peak of resident memory above that before the first dump of all.
    memory: Option<f64>,
}

fn measure(server: &mut Peer, request: &Request, rounds: usize, before: u64) -> Cost {
    let mut cost = Cost {
        ms: Vec::new(),
        gap_ms: Vec::new(),
        quiet_ms: Vec::new(),
        bytes: 0,
        listed: 0,
        memory: None,
    };
    let gap = |server: &mut Peer| server.ask("gap").parse::<f64>().expect("ns") / 1e6;
    let pid = server.pid();
    let address = address(server).to_owned();
    for _ in 0..rounds {
        std::thread::sleep(FRESH);
        let peaks = forget_peak(&pid);
        gap(server);
        let began = Instant::now();
        let body = get(&address, request.path);
        let took = began.elapsed();
        cost.gap_ms.push(gap(server));
        if peaks {
            let peak = memory(&pid, "VmHWM").saturating_sub(before) as f64;
            cost.memory = Some(cost.memory.unwrap_or(0.0).max(peak));
        }
        std::thread::sleep(took);
        cost.quiet_ms.push(gap(server));
        cost.ms.push(took.as_secs_f64() * 1e3);
        cost.bytes = body.len();
        cost.listed = (request.count)(&body);
    }
    cost
}

fn address(server: &Peer) -> &str {
    server.hello.split(' ').next().expect("an address")
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// What was aimed at, and whether it was reached.
type Goals = Vec<(String, bool)>;

fn report() {
    let sizes: &[u64] = either(&[1_000, 10_000, MOST_TASKS], &[1_000, 10_000]);
    let rounds = either(5, 2);
    headline(&format!(
        "dump: idle tasks in a server of two workers, median of {rounds} answers, each of a fresh snapshot"
    ));
    println!(
        "gap: longest pause of a 1 ms heartbeat on the watched runtime, with / without a dump"
    );
    println!("{GO_STALLS}");
    println!("pace: 64 MiB of new memory written in {:.1} ms", pace());
    let mut goals = Goals::new();
    for (index, &tasks) in sizes.iter().enumerate() {
        size(index, tasks, rounds, &mut goals);
    }
    if !common::quick() {
        ballast(rounds, &mut goals);
        hooks_alone(rounds, &mut goals);
    }
    println!();
    println!("pace: 64 MiB of new memory written in {:.1} ms", pace());
    if goals.is_empty() {
        println!("the goals are for 100,000 tasks, which the quick mode leaves out");
    }
    for (goal, met) in goals {
        println!("  {:6} {goal}", verdict(met));
    }
}

fn start(tasks: u64, ballast: usize, chains: bool) -> Peer {
    let args = [tasks.to_string(), ballast.to_string(), chains.to_string()];
    Peer::start(None, "server", &args.each_ref().map(String::as_str))
}

/// What the grouped profile costs where the hooks alone tell of tasks: spawn
/// places and states, no image of the memory.
fn hooks_alone(rounds: usize, goals: &mut Goals) {
    let mut server = start(MOST_TASKS, 0, false);
    let before = memory(&server.pid(), "VmRSS");
    let request = &REQUESTS[0];
    let cost = measure(&mut server, request, rounds, before);
    let (ms, gap, quiet) = (median(cost.ms), median(cost.gap_ms), median(cost.quiet_ms));
    println!();
    println!(
        "without await chains, {} tasks, {}: {ms:.1} ms, gap {gap:.1} / {quiet:.1} ms",
        grouped(cost.listed),
        request.name
    );
    let (name, most) = (request.name, HOOKS_MOST_MS);
    goals.push((
        format!("without await chains, {name}: {ms:.0} ms, at most {most:.0}"),
        ms <= most && cost.listed == MOST_TASKS + HEARTBEAT,
    ));
}

/// All requests at one number of tasks.
fn size(index: usize, tasks: u64, rounds: usize, goals: &mut Goals) {
    let expected = tasks + HEARTBEAT;
    let mut server = start(tasks, 0, true);
    let before = memory(&server.pid(), "VmRSS");
    println!();
    println!(
        "{:22} {:>9} {:>11} {:>9} {:>13} {:>8} {:>9}",
        format!("{} tasks", grouped(tasks)),
        "ms",
        "bytes",
        "listed",
        "gap ms",
        "memory",
        "Go: ms"
    );
    for request in REQUESTS {
        let cost = measure(&mut server, request, rounds, before);
        let (ms, gap, quiet) = (median(cost.ms), median(cost.gap_ms), median(cost.quiet_ms));
        println!(
            "{:22} {ms:>9.1} {:>11} {:>9} {:>13} {:>8} {:>9}",
            request.name,
            grouped(cost.bytes as u64),
            if cost.listed == expected { "all".into() } else { grouped(cost.listed) },
            format!("{gap:.1} / {quiet:.1}"),
            cost.memory.map_or("?".into(), |bytes| format!("+{:.0} MiB", mib(bytes))),
            request.go_ms.map_or("-".into(), |ms| grouped(ms[index] as u64)),
        );
        if tasks != MOST_TASKS {
            continue;
        }
        let (name, most) = (request.name, request.goal_ms);
        goals.push((format!("{name}: {ms:.0} ms, at most {most:.0}"), ms <= most));
        goals.push((
            format!("{name}: {} of {} tasks", grouped(cost.listed), grouped(expected)),
            cost.listed == expected,
        ));
        let more = gap - quiet;
        goals.push((
            format!("{name}: gap {more:.1} ms longer, at most {MOST_GAP_MORE_MS:.0}"),
            more <= MOST_GAP_MORE_MS,
        ));
        if let Some(bytes) = cost.memory {
            goals.push((
                format!("{name}: memory +{:.0} MiB, at most 64", mib(bytes)),
                bytes <= MOST_MEMORY,
            ));
        }
    }
    let kept = memory(&server.pid(), "VmRSS").saturating_sub(before) as f64;
    println!("{:22} {:>45} {:>8}", "kept after all these", "", format!("+{:.0} MiB", mib(kept)));
    if tasks == MOST_TASKS {
        goals.push((format!("kept: +{:.0} MiB, at most 16", mib(kept)), kept <= MOST_KEPT));
    }
    let said = |nth| server.hello.split(' ').nth(nth).and_then(|it| it.parse::<f64>().ok());
    let indexed = said(1).expect("milliseconds");
    let index = mib(said(2).expect("bytes"));
    println!("debug information read in {indexed:.0} ms, once, at the start; +{index:.0} MiB");
    if tasks == MOST_TASKS {
        goals.push((
            format!("debug information: {indexed:.0} ms, at most {MOST_INDEX_MS:.0}"),
            indexed <= MOST_INDEX_MS,
        ));
    }
}

/// The gap of a server with a large block of memory besides.
fn ballast(rounds: usize, goals: &mut Goals) {
    let mut server = start(MOST_TASKS, BALLAST, true);
    let before = memory(&server.pid(), "VmRSS");
    let request = REQUESTS.iter().find(|request| request.path.ends_with("group=stack"));
    let request = request.expect("one of the requests");
    println!();
    for (row, rounds) in [("the first", 1), ("later ones", rounds)] {
        let cost = measure(&mut server, request, rounds, before);
        let (gap, quiet) = (median(cost.gap_ms), median(cost.quiet_ms));
        println!("with a gigabyte besides, {row}: gap {gap:.1} ms / {quiet:.1} ms");
        goals.push((
            format!("with a gigabyte besides, {row}: gap {gap:.1} ms, at most {MOST_GAP_MS:.0}"),
            gap <= MOST_GAP_MS,
        ));
    }
}
