//! Streams that do not move though they should: the verdicts on them, alike
//! ones as one finding.

use std::collections::BTreeMap;

use super::verdict::{Judge, STILL_NS};
use super::{LISTED, waits, words};
use crate::model::{
    Confidence, Finding, FindingKind, Severity, Side, Snapshot, Stream, Verdict, VerdictKind,
    human_duration,
};

/// A deadline or a cancellation takes a moment to be acted upon.
const GRACE_NS: u64 = STILL_NS;

/// Streams of one method and side, longest first.
fn groups(
    snapshot: &Snapshot,
    wanted: impl Fn(&Stream) -> bool,
    age: impl Fn(&Stream) -> u64,
) -> impl Iterator<Item = ((Side, &str), Vec<&Stream>)> {
    let mut groups: BTreeMap<(Side, &str), Vec<&Stream>> = BTreeMap::new();
    for stream in snapshot.streams.iter().filter(|stream| wanted(stream)) {
        groups.entry((stream.side, &stream.method)).or_default().push(stream);
    }
    groups.into_iter().map(move |(key, mut streams)| {
        streams.sort_by_key(|stream| std::cmp::Reverse(age(stream)));
        (key, streams)
    })
}

fn finding(
    kind: FindingKind,
    what: &str,
    (side, method): (Side, &str),
    streams: &[&Stream],
    since_ns: u64,
) -> Finding {
    let mut connections: Vec<_> = streams.iter().filter_map(|stream| stream.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    connections.truncate(LISTED);
    Finding {
        id: format!("{}:{what}:{}:{method}", kind.as_str(), side.as_str()),
        kind,
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        title: String::new(),
        evidence: Vec::new(),
        place: None,
        method: Some(method.to_owned()),
        since_ns,
        count: streams.len() as u64,
        tasks: streams.iter().filter_map(|stream| stream.task).take(LISTED).collect(),
        streams: streams.iter().map(|stream| stream.id).take(LISTED).collect(),
        connections,
        worker: None,
        edges: Vec::new(),
    }
}

fn peers(streams: &[&Stream]) -> String {
    let mut peers: Vec<&str> = streams.iter().filter_map(|stream| stream.peer.as_deref()).collect();
    peers.sort_unstable();
    peers.dedup();
    match peers[..] {
        [] => "a peer of unknown address".to_owned(),
        [one] => one.to_owned(),
        [first, ..] => format!("{} peers ({first}, ...)", peers.len()),
    }
}

/// What the handler of a stream does now, where that is known.
fn handler(snapshot: &Snapshot, stream: &Stream) -> Option<String> {
    let task = stream.task.filter(|_| stream.side == Side::Server)?;
    waits::doing(snapshot, task).map(|doing| format!("Its handler: {doing}."))
}

/// One finding for each verdict that is an alarm, side and method.
pub fn stuck(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let judge = Judge::new(snapshot);
    type Key<'a> = (VerdictKind, Side, &'a str);
    let mut groups: BTreeMap<Key<'_>, Vec<(u64, &Stream)>> = BTreeMap::new();
    for stream in &snapshot.streams {
        let (kind, since_ns) = judge.kind(stream);
        // Cancelled streams have a finding of their own.
        if kind.is_alarm() && kind != VerdictKind::CancelledButRunning {
            groups.entry((kind, stream.side, &stream.method)).or_default().push((since_ns, stream));
        }
    }
    for ((kind, side, method), mut streams) in groups {
        streams.sort_by_key(|(since_ns, stream)| (std::cmp::Reverse(*since_ns), stream.id));
        let (since_ns, worst) = streams[0];
        let verdict = judge.verdict(worst);
        let streams: Vec<&Stream> = streams.into_iter().map(|(_, stream)| stream).collect();
        let mut evidence = vec![format!("Stream {}: {}", worst.id, uncapped(&verdict.evidence))];
        if !verdict.evidence.contains(" task ")
            && let Some(handler) = handler(snapshot, worst)
        {
            evidence.push(handler);
        }
        evidence.extend(not_told_apart(&verdict));
        evidence.push(format!("The other end is {}.", peers(&streams)));
        let found =
            finding(FindingKind::StalledStream, kind.as_str(), (side, method), &streams, since_ns);
        let mut tasks = found.tasks;
        if let Some(task) = verdict.task {
            tasks.retain(|other| *other != task);
            tasks.insert(0, task);
            tasks.truncate(LISTED);
        }
        let place = verdict
            .task
            .and_then(|task| waits::find(snapshot, task))
            .and_then(|task| waits::at(task))
            .map(ToString::to_string);
        findings.push(Finding {
            severity: severity(&verdict),
            confidence: verdict.confidence,
            title: format!(
                "{} of {} {}, {}",
                words::count(streams.len() as u64, "stream"),
                words::method(method),
                doing(kind, side, streams.len() == 1, &verdict),
                words::since(since_ns)
            ),
            evidence,
            place,
            tasks,
            ..found
        });
    }
}

/// What suits neither a warning nor silence: an answer that may be a long poll.
fn severity(verdict: &Verdict) -> Severity {
    match (verdict.kind, verdict.confidence) {
        (VerdictKind::HandlerWaiting, Confidence::Suspected) => Severity::Info,
        _ => Severity::Warning,
    }
}

fn uncapped(sentence: &str) -> String {
    let mut rest = sentence.chars();
    match rest.next() {
        Some(first) => first.to_lowercase().chain(rest).collect(),
        None => String::new(),
    }
}

fn not_told_apart(verdict: &Verdict) -> Option<String> {
    let by = verdict.told_apart_by.as_deref()?;
    let or: Vec<String> = verdict.or.iter().map(|kind| kind.as_str().replace('_', " ")).collect();
    Some(format!("From here it could as well be {}; what would tell: {by}.", or.join(" or ")))
}

/// `wait on client reads`: what streams of this verdict do, in the list.
fn doing(kind: VerdictKind, side: Side, one: bool, verdict: &Verdict) -> String {
    let peer = match side {
        Side::Server => "client",
        Side::Client => "server",
    };
    let s = if one { "s" } else { "" };
    let have = if one { "has" } else { "have" };
    match kind {
        // Which of its reasons it is cannot be told.
        VerdictKind::PeerNotReading if verdict.confidence == Confidence::Suspected => {
            "cannot send: the peer does not take it".to_owned()
        }
        VerdictKind::PeerNotReading => format!("wait{s} on {peer} reads"),
        VerdictKind::PeerFrozen => format!("wait{s} on a {peer} that stands still"),
        VerdictKind::Network => format!("wait{s} on the network: no ACK comes"),
        VerdictKind::ConnectionFlowControl => match verdict.hog {
            Some(hog) => format!("wait{s} on the connection's window, which stream {hog} uses up"),
            None => format!("wait{s} on the connection's window"),
        },
        VerdictKind::TcpBackpressure => format!("wait{s} on a socket that takes no more"),
        VerdictKind::HandlerNotReading => match side {
            Side::Server => format!("{have} messages that our handler does not read"),
            Side::Client => format!("{have} messages that our caller does not read"),
        },
        VerdictKind::HandlerWaiting => match verdict.confidence {
            Confidence::Suspected => format!("wait{s} for our handler's answer"),
            _ => format!("wait{s} for our handler, which waits for something else"),
        },
        VerdictKind::WorkerBlocked => format!("wait{s} for a worker of ours that is blocked"),
        VerdictKind::QueuedForSlot => format!("wait{s} for a stream slot of the {peer}"),
        VerdictKind::RateLimited => format!("wait{s} for a rate limit of ours"),
        VerdictKind::Leaked => {
            format!("{have} outlived {} transport", if one { "its" } else { "their" })
        }
        VerdictKind::CancelledButRunning => {
            format!("{have} been cancelled and go{} on", if one { "es" } else { "" })
        }
        VerdictKind::Unknown
        | VerdictKind::Healthy
        | VerdictKind::IdleByDesign
        | VerdictKind::WaitingForPeer => format!("do{} not move", if one { "es" } else { "" }),
    }
}

/// Deadlines that have passed without effect.
pub fn past_deadline(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let late = |stream: &Stream| {
        let left = stream.deadline.map_or(0, |deadline| deadline.remaining_ns);
        left.min(0).unsigned_abs()
    };
    for (key, streams) in groups(snapshot, |stream| late(stream) >= GRACE_NS, late) {
        let worst = streams[0];
        let asked = worst.deadline.map_or(0, |deadline| deadline.timeout_ns);
        findings.push(Finding {
            confidence: Confidence::Proven,
            title: format!(
                "{} of {} {} past the deadline, up to {}",
                words::count(streams.len() as u64, "stream"),
                words::method(key.1),
                if streams.len() == 1 { "runs on" } else { "run on" },
                human_duration(late(worst))
            ),
            evidence: std::iter::once(format!(
                "Stream {} was given {} by its caller and has lasted {}. tonic enforces a \
                 deadline up to the response headers only; `Profiler::serve` enforces it to the end.",
                worst.id,
                human_duration(asked),
                human_duration(worst.age_ns)
            ))
            .chain(handler(snapshot, worst))
            .collect(),
            ..finding(FindingKind::DeadlinePassed, "late", key, &streams, late(worst))
        });
    }
}

/// Cancelled streams whose handler goes on.
pub fn cancelled(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let since = |stream: &Stream| stream.cancelled_ago_ns.unwrap_or(0);
    for (key, streams) in groups(snapshot, |stream| since(stream) >= GRACE_NS, since) {
        let worst = streams[0];
        findings.push(Finding {
            confidence: Confidence::Proven,
            title: format!(
                "{} of {} cancelled, but still running, {}",
                words::count(streams.len() as u64, "stream"),
                words::method(key.1),
                words::since(since(worst))
            ),
            evidence: std::iter::once(format!(
                "Stream {} was cancelled {} ago ({}) and its handler has not been dropped.",
                worst.id,
                human_duration(since(worst)),
                worst.cancel_reason.as_deref().unwrap_or("no reason is known")
            ))
            .chain(handler(snapshot, worst))
            .collect(),
            ..finding(FindingKind::CancelledButRunning, "cancelled", key, &streams, since(worst))
        });
    }
}
