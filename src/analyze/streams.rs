//! Streams that do not move though they should.

use std::collections::BTreeMap;

use super::{LISTED, waits, words};
use crate::model::{
    Confidence, Finding, FindingKind, Http2State, Phase, Severity, Side, Snapshot, Stream,
    StreamKind, human_duration,
};

/// Shorter waits are the network's ordinary business.
const STALL_NS: u64 = 1_000_000_000;
/// An answer owed for longer is worth a look, though it may be a long poll.
const OWED_NS: u64 = 10_000_000_000;
/// A deadline or a cancellation takes a moment to be acted upon.
const GRACE_NS: u64 = 1_000_000_000;

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

/// What we have to send is not taken.
pub fn stalled(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let stuck = |stream: &Stream| stream.phase == Phase::AwaitSend && stream.phase_ns >= STALL_NS;
    for (key, streams) in groups(snapshot, stuck, |stream| stream.phase_ns) {
        let worst = streams[0];
        let since = worst.phase_ns;
        findings.push(Finding {
            title: format!(
                "{} of {} cannot send: the peer does not take it, {}",
                words::count(streams.len() as u64, "stream"),
                words::method(key.1),
                words::since(since)
            ),
            evidence: vec![
                format!(
                    "Stream {} has handed {} to the transport and was not asked for more {}.",
                    worst.id,
                    words::count(worst.sent.messages, "message"),
                    words::since(since)
                ),
                format!(
                    "The other end is {}. Its application does not read, it stands still, or the \
                     network does not deliver: the HTTP/2 windows would tell which.",
                    peers(&streams)
                ),
            ]
            .into_iter()
            .chain(handler(snapshot, worst))
            .collect(),
            ..finding(FindingKind::StalledStream, "send", key, &streams, since)
        });
    }
}

/// Everything was asked, nothing was answered yet.
pub fn owed(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    // Of these kinds only the answer can come next; a server stream may be
    // silent by design, and of an unknown kind nothing is known.
    let owes = |stream: &Stream| {
        matches!(stream.kind, StreamKind::Unary | StreamKind::ClientStreaming)
            && stream.phase != Phase::AwaitSend
            && stream.phase_ns >= OWED_NS
            && match stream.side {
                Side::Server => {
                    stream.state == Http2State::HalfClosedRemote && stream.sent.messages == 0
                }
                Side::Client => {
                    stream.state == Http2State::HalfClosedLocal && stream.received.messages == 0
                }
            }
    };
    for (key, streams) in groups(snapshot, owes, |stream| stream.phase_ns) {
        let worst = streams[0];
        let (who, what) = match key.0 {
            Side::Server => {
                ("our handler owes", "Its request has ended, its handler works or waits")
            }
            Side::Client => ("the server owes", "Our request has ended, its answer has not begun"),
        };
        findings.push(Finding {
            severity: Severity::Info,
            confidence: Confidence::Suspected,
            title: format!(
                "{} of {}: {who} the answer, {}",
                words::count(streams.len() as u64, "call"),
                words::method(key.1),
                words::since(worst.phase_ns)
            ),
            evidence: std::iter::once(format!(
                "Stream {}: {what} {}.",
                worst.id,
                words::since(worst.phase_ns)
            ))
            .chain(handler(snapshot, worst))
            .chain([
                "That is a lock, a channel or a dependency that does not come, or a long poll by \
                 design."
                    .to_owned(),
            ])
            .collect(),
            ..finding(FindingKind::StalledStream, "owed", key, &streams, worst.phase_ns)
        });
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
