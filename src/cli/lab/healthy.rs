//! Traffic without a fault in it: whatever is said to be stuck is a lie.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::look;
use super::process::{Folder, Member, PING_EVERY};
use crate::cli::args::LabFormat;
use crate::cli::style::{say, strong};
use crate::cli::{Failure, Outcome};

/// Scenario, streams, connections: each a process of its own.
const TRAFFIC: &[(&str, &str, &str)] = &[
    ("mix", "20", "4"),
    ("watch", "16", "2"),
    ("health-watch", "4", "1"),
    ("bursts", "4", "2"),
    ("huge", "2", "2"),
    ("slow-reader", "2", "2"),
    ("slow-trickle", "4", "1"),
    ("long-poll", "8", "2"),
    ("upload", "1", "1"),
    ("download", "1", "1"),
    ("cancel-storm", "4", "1"),
];

/// Between two looks at all processes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// An alarm, with how often it was raised and what it said first.
struct Alarm {
    count: u64,
    evidence: String,
    json: serde_json::Value,
}

/// Runs it for that long.
pub async fn run(lasts: Duration, format: LabFormat, folder: &Folder) -> Outcome {
    let failed = |who: &str, why: String| Failure::failed(format!("{who}: {why}"));
    let cannot = |error| Failure::failed(format!("cannot start a process: {error}"));
    let common = ["--keepalive", PING_EVERY, "--http", "127.0.0.1:0"];
    let serve = ["serve", "--faults", "--grpc", "127.0.0.1:0", "--console", "off"];
    let mut server = Member::start(folder.path(), "server", &[&serve[..], &common].concat(), None)
        .map_err(cannot)?;
    let target = server.grpc().await.map_err(|why| failed("server", why))?.to_string();
    let seconds = (lasts.as_secs() + 60).to_string();
    let mut members = vec![("server", server)];
    for (scenario, streams, connections) in TRAFFIC {
        let load = ["load", "--scenario", scenario, "--grpc", &target, "--seconds", &seconds];
        let spread = ["--streams", streams, "--connections", connections];
        let arguments = [&load[..], &spread, &common, &["--heartbeat", PING_EVERY]].concat();
        let client = Member::start(folder.path(), scenario, &arguments, None).map_err(cannot)?;
        members.push((scenario, client));
    }

    let bar = bar(lasts);
    let began = Instant::now();
    let mut alarms: BTreeMap<String, Alarm> = BTreeMap::new();
    let (mut looks, mut judged) = (0_u64, 0_u64);
    while began.elapsed() < lasts {
        for (name, member) in &mut members {
            member.lives().map_err(|why| failed(name, why))?;
            let rows = match look::streams(&member.socket, None).await {
                Ok(rows) => rows,
                // It has hardly started.
                Err(_) if began.elapsed() < STARTUP => continue,
                Err(why) => return Err(failed(name, why)),
            };
            looks += 1;
            judged += rows.len() as u64;
            for row in rows.into_iter().filter(|row| row.verdict.kind.is_alarm()) {
                let kind = row.verdict.kind.as_str();
                let key = format!("{name}: {kind} of {}", row.stream.method);
                let first = || Alarm { count: 0, evidence: row.verdict.evidence, json: row.json };
                alarms.entry(key).or_insert_with(first).count += 1;
            }
        }
        bar.set_position(began.elapsed().as_secs());
        sleep(LOOK_EVERY).await;
    }
    bar.finish_and_clear();
    report(lasts, format, &alarms, looks, judged);
    if alarms.is_empty() {
        return Ok(());
    }
    let total: u64 = alarms.values().map(|alarm| alarm.count).sum();
    Err(Failure::failed(format!("{total} alarms in healthy traffic")))
}

/// A debug build reads its own debug information before it serves.
const STARTUP: Duration = Duration::from_secs(30);

fn report(
    lasts: Duration,
    format: LabFormat,
    alarms: &BTreeMap<String, Alarm>,
    looks: u64,
    judged: u64,
) {
    if format == LabFormat::Json {
        let list: Vec<_> = alarms
            .iter()
            .map(|(what, alarm)| json!({"what": what, "count": alarm.count, "first": alarm.json}))
            .collect();
        let seconds = lasts.as_secs();
        let all = json!({"seconds": seconds, "looks": looks, "verdicts": judged, "alarms": list});
        return say(format_args!("{all:#}"));
    }
    let minutes = lasts.as_secs_f64() / 60.0;
    let kinds = TRAFFIC.len();
    say(format_args!(
        "{minutes:.1} minutes of healthy traffic of {kinds} kinds: {judged} verdicts in {looks} \
         looks, {} kinds of alarms",
        strong(alarms.len())
    ));
    for (what, alarm) in alarms {
        say(format_args!("{} x {}: {}", alarm.count, strong(what), alarm.evidence));
    }
}

fn bar(lasts: Duration) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar:.cyan/dim} {elapsed} healthy traffic");
    ProgressBar::new(lasts.as_secs())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
