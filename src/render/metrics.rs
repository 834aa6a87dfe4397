//! The figures for Prometheus. Base units, `_total` on what only grows, and
//! labels whose values are bounded: gRPC methods come from peers, so only the
//! busiest have a series of their own. What nobody observes is absent, not zero.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::json::StateCounts;
use crate::model::{Counters, FindingKind, Reason, Report, Snapshot, VerdictKind, Worker};
use out::Out;

mod out;
mod runtimes;
mod verdicts;

pub use out::Format;

/// Methods with a series of their own; the others are `other` together.
const METHODS: usize = 50;

/// What the debug server counts of itself.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // named as the metrics they become
pub struct ServerFigures {
    pub requests: u64,
    pub refused: u64,
    pub connections: u64,
    pub connections_refused: u64,
    pub write_timeouts: u64,
    pub event_streams: u64,
    pub panics: u64,
}

/// `/metrics` in one of its formats; `verdicts` are those of the live streams, in their order, with
/// how long each has held.
pub fn metrics(
    snapshot: &Snapshot,
    report: &Report,
    verdicts: &[(VerdictKind, u64)],
    server: &ServerFigures,
    format: Format,
) -> Vec<u8> {
    let mut out = Out::new(format);
    process(&mut out, snapshot);
    tasks(&mut out, snapshot);
    coverage(&mut out, snapshot);
    runtimes::runtimes(&mut out, snapshot);
    if !snapshot.is_from_outside() {
        counters(&mut out, snapshot);
        streams(&mut out, snapshot);
        verdicts::streams(&mut out, snapshot, verdicts);
        verdicts::connections(&mut out, snapshot);
    }
    findings(&mut out, report);
    own(&mut out, server);
    out.finish()
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn process(out: &mut Out, snapshot: &Snapshot) {
    out.family("taskprof_process_info", "gauge", "The process that is watched; always 1.");
    let process = &snapshot.process;
    out.line("taskprof_process_info", &[("name", &process.name), ("boot_id", &process.boot_id)], 1);
    out.one(
        "taskprof_uptime_seconds",
        "gauge",
        "Time since the profiler started.",
        seconds(process.uptime_ns),
    );
}

fn tasks(out: &mut Out, snapshot: &Snapshot) {
    let mut states = StateCounts::default();
    snapshot.tasks.iter().for_each(|task| states.add(task.state));
    let name = "taskprof_tasks";
    out.family(name, "gauge", "Live tasks that are listed, by state.");
    for (state, count) in [
        ("idle", states.idle),
        ("running", states.running),
        ("scheduled", states.scheduled),
        ("unknown", states.unknown),
    ] {
        out.line(name, &[("state", &state)], count);
    }
    let mut waits: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (task, kind) in snapshot.tasks.iter().filter_map(|task| Some((task, task.waits_for()?))) {
        let entry = waits.entry(kind.as_str()).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(task.waited_ns());
    }
    // Absent where no await chain was read: a zero would say that none waits.
    if !waits.is_empty() {
        let name = "taskprof_tasks_waiting";
        out.family(name, "gauge", "Live tasks by what they wait for.");
        for (wait, (count, _)) in &waits {
            out.line(name, &[("wait", wait)], count);
        }
        let name = "taskprof_longest_wait_seconds";
        out.family(name, "gauge", "The longest wait in progress, by what is waited for.");
        for (wait, (_, longest)) in &waits {
            out.line(name, &[("wait", wait)], seconds(*longest));
        }
    }
    let mut methods: BTreeMap<&str, u64> = BTreeMap::new();
    for task in &snapshot.tasks {
        *methods.entry(task.method.as_deref().unwrap_or("")).or_default() += 1;
    }
    by_method(
        out,
        "taskprof_method_tasks",
        "Live tasks by the gRPC method that caused them; none is empty.",
        methods,
    );
}

fn coverage(out: &mut Out, snapshot: &Snapshot) {
    let coverage = &snapshot.coverage;
    out.one(
        "taskprof_tasks_alive",
        "gauge",
        "Live tasks by the runtimes' own count.",
        coverage.alive,
    );
    out.one("taskprof_tasks_listed", "gauge", "Of those, listed.", coverage.listed);
    let mut reasons: BTreeMap<Reason, u64> = BTreeMap::new();
    for missing in &coverage.missing {
        *reasons.entry(missing.reason).or_default() += missing.count;
    }
    let name = "taskprof_coverage_missing";
    out.family(
        name,
        "gauge",
        "What is not in the answers, by reason; see coverage in any of them.",
    );
    for (reason, count) in reasons {
        out.line(name, &[("reason", &reason.as_str())], count);
    }
}

/// What is counted as it happens.
fn counters(out: &mut Out, snapshot: &Snapshot) {
    let counters = &snapshot.counters;
    if counters.tasks_spawned > 0 || snapshot.workers.iter().any(Worker::is_observed) {
        tasks_counted(out, counters);
    }
    out.one("taskprof_pauses_total", "counter", "Times the process stood still.", counters.pauses);
    out.one(
        "taskprof_profiler_panics_total",
        "counter",
        "Panics caught inside the profiler.",
        counters.profiler_panics,
    );
}

/// By the hooks.
fn tasks_counted(out: &mut Out, counters: &Counters) {
    out.one(
        "taskprof_tasks_spawned_total",
        "counter",
        "Tasks seen spawning.",
        counters.tasks_spawned,
    );
    out.one("taskprof_tasks_ended_total", "counter", "Tasks seen ending.", counters.tasks_ended);
    out.one(
        "taskprof_tasks_dropped_total",
        "counter",
        "Tasks not held for want of room.",
        counters.tasks_dropped,
    );
    out.one(
        "taskprof_blocking_ended_total",
        "counter",
        "Closures of spawn_blocking seen ending.",
        counters.blocking_ended,
    );
    out.one(
        "taskprof_blocked_polls_total",
        "counter",
        "Polls that the watchdog has seen last longer than the threshold.",
        counters.blocked_polls,
    );
}

fn by_method(out: &mut Out, name: &str, help: &str, methods: BTreeMap<&str, u64>) {
    let mut methods: Vec<_> = methods.into_iter().collect();
    methods.sort_by_key(|&(method, count)| (Reverse(count), method));
    let rest: u64 = methods.iter().skip(METHODS).map(|(_, count)| count).sum();
    out.family(name, "gauge", help);
    for (method, count) in methods.iter().take(METHODS) {
        out.line(name, &[("method", method)], count);
    }
    if rest > 0 {
        out.line(name, &[("method", &"other")], rest);
    }
}

fn streams(out: &mut Out, snapshot: &Snapshot) {
    let counters = &snapshot.counters;
    let mut phases: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    let mut methods: BTreeMap<&str, u64> = BTreeMap::new();
    for stream in &snapshot.streams {
        let entry = phases.entry((stream.side.as_str(), stream.phase.as_str())).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(stream.phase_ns);
        *methods.entry(&stream.method).or_default() += 1;
    }
    let name = "taskprof_streams";
    out.family(name, "gauge", "Live gRPC streams by side and phase.");
    for ((side, phase), (count, _)) in &phases {
        out.line(name, &[("side", side), ("phase", phase)], count);
    }
    let name = "taskprof_stream_longest_phase_seconds";
    out.family(name, "gauge", "Longest time that a live gRPC stream has been in its phase.");
    for ((side, phase), (_, longest)) in &phases {
        out.line(name, &[("side", side), ("phase", phase)], seconds(*longest));
    }
    by_method(out, "taskprof_method_streams", "Live gRPC streams by method.", methods);
    out.one(
        "taskprof_streams_started_total",
        "counter",
        "gRPC streams started.",
        counters.streams_started,
    );
    out.one(
        "taskprof_streams_ended_total",
        "counter",
        "gRPC streams ended.",
        counters.streams_ended,
    );
    out.one(
        "taskprof_streams_dropped_total",
        "counter",
        "gRPC streams not held for want of room.",
        counters.streams_dropped,
    );
    for (name, help, count) in [
        ("exported", "Spans that a receiver took, each receiver counted.", counters.spans_exported),
        ("failed", "Spans that a receiver refused or missed.", counters.spans_failed),
        ("dropped", "Streams whose spans found no room.", counters.spans_dropped),
    ] {
        out.one(&format!("taskprof_spans_{name}_total"), "counter", help, count);
    }
    out.one("taskprof_connections", "gauge", "Connections alive.", snapshot.connections.len());
}

fn findings(out: &mut Out, report: &Report) {
    let name = "taskprof_findings";
    out.family(name, "gauge", "Cases of what is wrong now, by kind; see /debug/findings.");
    // A zero says that it was looked for.
    let looked_for = report.checked.iter().filter(|check| check.unavailable.is_none());
    let mut kinds: BTreeMap<FindingKind, u64> = looked_for.map(|check| (check.kind, 0)).collect();
    for finding in &report.findings {
        *kinds.entry(finding.kind).or_default() += finding.count;
    }
    for (kind, count) in kinds {
        out.line(name, &[("kind", &kind.as_str())], count);
    }
}

fn own(out: &mut Out, server: &ServerFigures) {
    out.one(
        "taskprof_http_requests_total",
        "counter",
        "Requests to the debug server.",
        server.requests,
    );
    out.one(
        "taskprof_http_refused_total",
        "counter",
        "Requests refused for their host, origin, token or size.",
        server.refused,
    );
    out.one(
        "taskprof_http_connections",
        "gauge",
        "Connections to the debug server.",
        server.connections,
    );
    out.one(
        "taskprof_http_connections_refused_total",
        "counter",
        "Connections beyond the bound.",
        server.connections_refused,
    );
    out.one(
        "taskprof_http_write_timeouts_total",
        "counter",
        "Connections cut because the client did not read.",
        server.write_timeouts,
    );
    out.one("taskprof_http_event_streams", "gauge", "Event streams open.", server.event_streams);
    out.one(
        "taskprof_http_panics_total",
        "counter",
        "Panics caught in the debug server.",
        server.panics,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::{Judge, analyze};
    use crate::model::{Http2, Runtime, RuntimeId, Side, sample};

    fn text(snapshot: &Snapshot) -> String {
        in_format(snapshot, Format::Text)
    }

    fn in_format(snapshot: &Snapshot, format: Format) -> String {
        let judge = Judge::new(snapshot);
        let verdicts: Vec<_> = snapshot.streams.iter().map(|stream| judge.kind(stream)).collect();
        let own = ServerFigures::default();
        String::from_utf8(metrics(snapshot, &analyze(snapshot), &verdicts, &own, format)).unwrap()
    }

    #[test]
    fn every_sample_belongs_to_a_family_that_is_described_once() {
        let mut snapshot = sample::busy_server();
        snapshot.tasks.extend(sample::stuck_server().tasks);
        for (id, side, send_window) in [(1, Side::Server, 7), (2, Side::Server, -2)] {
            let mut connection = sample::connection(id);
            let ping_outstanding_ns = Some(id * sample::SECOND);
            (connection.side, connection.http2) =
                (side, Some(Http2 { send_window, ping_outstanding_ns, ..Http2::default() }));
            snapshot.connections.push(connection);
        }
        let text = text(&snapshot);
        let mut family = "";
        let mut families = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                assert!(families.insert(name), "{name} twice");
                family = name;
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next().unwrap(), family);
            }
        }
        assert!(text.contains("taskprof_findings{kind=\"blocked_worker\"} 1\n"));
        for line in [
            "taskprof_stream_verdicts{method=\"/billing.v1.Billing/Charge\",side=\"server\",\
             verdict=\"worker_blocked\"} 1\n",
            "taskprof_stream_longest_verdict_seconds{side=\"server\",verdict=\"worker_blocked\"} 3.2\n",
            "taskprof_connections_tapped{side=\"server\"} 2\n",
            "taskprof_connections_send_window_bytes{side=\"server\"} 5\n",
            "taskprof_connections_smallest_send_window_bytes{side=\"server\"} -2\n",
            "taskprof_connections_longest_ping_outstanding_seconds{side=\"server\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("taskprof_tasks_waiting{wait=\"mutex\"} 4\n"));
        assert!(text.contains("taskprof_longest_wait_seconds{wait=\"mutex\"} 41\n"));
        assert!(text.contains(
            "taskprof_worker_blocked_seconds{runtime=\"main\",runtime_id=\"0\",worker=\"1\"} 3.2\n"
        ));
    }

    #[test]
    fn openmetrics_names_a_counters_family_without_its_suffix() {
        let text = in_format(&sample::busy_server(), Format::OpenMetrics);
        for line in [
            "# TYPE taskprof_tasks_spawned counter",
            "# TYPE taskprof_worker_busy_seconds counter",
            "# TYPE taskprof_tasks gauge",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
        assert!(text.lines().any(|line| line.starts_with("taskprof_tasks_spawned_total ")));
        let types = text.lines().filter(|line| line.starts_with("# TYPE"));
        let mut types: Vec<&str> = types.filter_map(|line| line.split(' ').nth(2)).collect();
        types.sort_unstable();
        assert!(types.windows(2).all(|pair| pair[0] != pair[1]), "each once: {types:?}");
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn what_nobody_observes_is_absent_and_not_zero() {
        let mut snapshot = sample::busy_server();
        snapshot.counters = Counters::default();
        for worker in &mut snapshot.workers {
            worker.polls = None;
        }
        let text = text(&snapshot);
        for hooks in ["taskprof_worker_blocked", "taskprof_tasks_spawned", "taskprof_blocked_polls"]
        {
            assert!(!text.contains(hooks), "{hooks} in {text}");
        }
        assert!(!text.contains("taskprof_findings{kind=\"busy_task\"}"), "{text}");
        assert!(text.contains("taskprof_findings{kind=\"registry_full\"} 0\n"), "{text}");
        assert!(text.contains("taskprof_worker_busy_seconds_total{"), "tokio tells: {text}");
        snapshot.blocked_threshold_ns = 0;
        let outside = in_format(&snapshot, Format::Text);
        for inside in ["taskprof_streams", "taskprof_pauses", "taskprof_connections"] {
            assert!(!outside.contains(inside), "{inside} in {outside}");
        }
    }

    #[test]
    fn no_two_series_are_the_same_and_none_has_an_address_for_a_label() {
        let mut snapshot = sample::busy_server();
        let (second, stranger) = (RuntimeId(1), RuntimeId(1_000));
        snapshot.runtimes.push(Runtime { id: second, ..sample::runtime() });
        snapshot.workers.push(Worker { runtime: second, ..sample::worker(0) });
        let name = "multi_thread at 0x7f00".into();
        snapshot.runtimes.push(Runtime { id: stranger, name, workers: 0, ..sample::runtime() });
        snapshot.workers.push(Worker { runtime: stranger, ..sample::worker(0) });
        let text = text(&snapshot);
        let mut series: Vec<&str> =
            text.lines().filter_map(|line| line.rsplit_once(' ')).map(|it| it.0).collect();
        series.retain(|line| !line.starts_with('#'));
        series.sort_unstable();
        assert!(series.windows(2).all(|pair| pair[0] != pair[1]), "each once: {series:#?}");
        assert!(text.contains("taskprof_runtime_workers{runtime=\"main\",runtime_id=\"1\"} 2\n"));
        assert!(!text.contains("0x7f00"), "{text}");
    }

    #[test]
    fn methods_are_bounded_and_escaped() {
        let mut snapshot = sample::crowd(1_000);
        for (index, task) in snapshot.tasks.iter_mut().enumerate() {
            task.method = Some(format!("/x\"\n\\{index}").into());
        }
        for index in 0..200 {
            snapshot.streams.push(sample::stream(index, &format!("/s.S/{index}").into()));
        }
        let text = text(&snapshot);
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("taskprof_method_tasks{"), METHODS + 1);
        assert_eq!(series("taskprof_stream_verdicts{"), METHODS + 1);
        assert!(
            text.contains("{method=\"other\",side=\"server\",verdict=\"waiting_for_peer\"} 150")
        );
        assert!(text.contains("{method=\"other\"} 950\n"));
        assert!(text.contains("{method=\"/x\\\"\\n\\\\0\"} 1\n"));
    }
}
