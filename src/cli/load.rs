//! `taskprof load`: traffic, a progress bar, one summary.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tonic::Code;

use super::args::LoadArgs;
use super::style::{faint, say, strong};
use super::{Failure, Outcome, advice, log, signals};
use crate::error::ErrorKind;
use crate::model::{code_name, human_duration};
use crate::pb;
use crate::profiler::Profiler;
use crate::reference;
use crate::reference::load::{self, Dial, Plan, SCENARIOS, Scenario, Stats};

/// Runs a scenario, or lists them.
pub fn run(args: &LoadArgs) -> Outcome {
    if args.scenario == "list" {
        list();
        return Ok(());
    }
    let scenario = load::find(&args.scenario).map_err(|near| unknown(&args.scenario, &near))?;
    let stop = signals::stop_token(Some(Duration::from_secs(args.seconds)))?;
    let profiler = profiler(args)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.thread_name("load").enable_all();
    let runtime = match &profiler {
        Some(profiler) => profiler.runtime(builder).build(),
        None => builder.build(),
    }
    .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
    let plan = Plan {
        target: args.grpc,
        streams: args.streams.unwrap_or(scenario.streams),
        connections: args.connections,
        hold: args.hold,
        dial: Dial {
            keepalive: args.keepalive,
            stream_window: args.stream_window,
            connection_window: args.connection_window,
            heartbeat: args.heartbeat,
            profiler: profiler.clone(),
        },
        stop,
    };
    let stats = Arc::new(Stats::default());
    let began = Instant::now();
    let outcome = runtime.block_on(async {
        let progress = tokio::spawn(progress(stats.clone(), args.seconds));
        let outcome = load::run(scenario, plan.clone(), stats.clone()).await;
        progress.abort();
        let _ = progress.await; // the bar clears itself when dropped
        outcome
    });
    if let Some(profiler) = &profiler {
        profiler.shutdown();
    }
    outcome?;
    summary(scenario, &plan, &stats, began.elapsed());
    if stats.calls_complete() + stats.calls_abandoned() == 0 && stats.calls_started() > 0 {
        let why = stats.last_error().unwrap_or_else(|| "none ended in time".into());
        let unserved = stats.calls_failed().iter().any(|(code, _)| *code == Code::Unimplemented);
        let advice =
            if unserved && scenario.faults { "; the server must run with --faults" } else { "" };
        return Err(Failure::failed(format!("no call succeeded: {why}{advice}")));
    }
    Ok(())
}

/// The client's own debug server, where one is asked for.
fn profiler(args: &LoadArgs) -> Result<Option<Profiler>, Failure> {
    if args.http.is_none() && args.unix.is_none() {
        return Ok(None);
    }
    log::install(false)?;
    let mut builder = Profiler::builder()
        .descriptors(pb::FILE_DESCRIPTOR_SET)
        .descriptors(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .idle_methods(reference::IDLE_METHODS);
    if let Some(http) = args.http {
        builder = builder.http(http).control(http.ip().is_loopback());
    }
    if let Some(path) = &args.unix {
        builder = builder.unix(path);
    }
    let profiler = builder.start().map_err(|error| match error.kind() {
        ErrorKind::Unsafe => Failure::usage(
            "other machines could reach --http, and load knows no token: give a loopback address \
             or a Unix socket (--unix PATH)",
        ),
        _ => advice::on_bind(error, args.unix.as_deref()),
    })?;
    if let Some(http) = profiler.http_addr() {
        say(format_args!("http    listening on {http}"));
    }
    if let Some(path) = &args.unix {
        say(format_args!("http    listening on unix:{}", path.display()));
    }
    Ok(Some(profiler))
}

fn list() {
    let width = SCENARIOS.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    for Scenario { name, about, faults, .. } in SCENARIOS {
        let needs = if *faults { faint(" (needs a server with --faults)") } else { String::new() };
        say(format_args!("{}  {about}{needs}", strong(format_args!("{name:width$}"))));
    }
}

fn unknown(name: &str, near: &[&str]) -> Failure {
    let hint =
        if near.is_empty() { String::new() } else { format!("did you mean {}? ", near.join(", ")) };
    Failure::usage(format!(
        "no scenario is called {name:?}; {hint}`--scenario list` shows them all"
    ))
}

/// Updates a bar on stderr until it is aborted; nothing where no terminal is.
async fn progress(stats: Arc<Stats>, seconds: u64) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = ProgressBar::new(seconds * 10).with_style(
        ProgressStyle::with_template("{wide_bar:.cyan/dim} {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let clear = ClearOnDrop(bar);
    let began = Instant::now();
    loop {
        tick.tick().await;
        let (sent, received) = stats.messages();
        clear.0.set_position((began.elapsed().as_millis() / 100).try_into().unwrap_or(u64::MAX));
        clear.0.set_message(format!(
            "{} calls, {} messages",
            stats.calls_started(),
            sent + received
        ));
    }
}

/// The bar leaves no trace above the summary, however its task ends.
struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn summary(scenario: &Scenario, plan: &Plan, stats: &Stats, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    let (sent, received) = stats.messages();
    let failed = stats.calls_failed();
    let failures: u64 = failed.iter().map(|(_, count)| count).sum();
    say(format_args!(
        "{} on {} for {seconds:.1} s: {} streams over {} connections",
        strong(scenario.name),
        plan.target,
        plan.streams,
        plan.connections.min(plan.streams),
    ));
    say(format_args!(
        "calls     {} started, {} complete, {} abandoned, {failures} failed",
        stats.calls_started(),
        stats.calls_complete(),
        stats.calls_abandoned(),
    ));
    say(format_args!(
        "messages  {sent} sent, {received} received, {:.0} a second",
        (sent + received) as f64 / seconds
    ));
    let quantile = |q| stats.latencies.quantile_ns(q).map(human_duration);
    if let (Some(p50), Some(p99)) = (quantile(0.5), quantile(0.99)) {
        say(format_args!("latency   p50 {p50}, p99 {p99} of {}", stats.latencies.count()));
    }
    for (code, count) in failed {
        say(format_args!("errors    {count} x {}", code_name(code.into())));
    }
    if let Some(error) = stats.last_error() {
        say(format_args!("          the last one: {error}"));
    }
}
