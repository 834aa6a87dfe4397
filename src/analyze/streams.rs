//! gRPC streams that are stuck, late or unwanted.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{NAMED, SECOND, Seen, counted};
use crate::model::{
    Confidence, Finding, FindingKind, Phase, Severity, Side, Snapshot, Stream, human_duration,
};

/// A transport that has not taken bytes for this long is not just slow.
const NOT_TAKEN_NS: u64 = SECOND;
/// A deadline and a cancellation need a moment to be noticed.
const NOTICED_NS: u64 = SECOND;

/// What a group of streams has in common.
struct Group<'a> {
    kind: FindingKind,
    severity: Severity,
    confidence: Confidence,
    side: Side,
    method: &'a str,
    /// For how long each is in trouble.
    streams: Vec<(u64, &'a Stream)>,
}

/// Streams of one method and side in one trouble, longest first.
fn by_method(
    snapshot: &Snapshot,
    trouble: impl Fn(&Stream) -> Option<u64>,
) -> BTreeMap<(Side, &str), Vec<(u64, &Stream)>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for stream in &snapshot.streams {
        if let Some(ns) = trouble(stream) {
            groups.entry((stream.side, &*stream.method)).or_default().push((ns, stream));
        }
    }
    for streams in groups.values_mut() {
        streams.sort_by_key(|&(ns, stream)| (Reverse(ns), stream.id));
    }
    groups
}

impl Group<'_> {
    fn finding(&self, title: String, evidence: Vec<String>) -> Finding {
        let named = || self.streams.iter().take(NAMED).map(|(_, stream)| *stream);
        let mut connections: Vec<_> =
            self.streams.iter().filter_map(|(_, stream)| stream.connection).collect();
        connections.sort_unstable();
        connections.dedup();
        connections.truncate(NAMED);
        Finding {
            id: format!("{}:{}:{}", self.kind.as_str(), self.side.as_str(), self.method),
            kind: self.kind,
            severity: self.severity,
            confidence: self.confidence,
            title,
            evidence,
            place: None,
            method: Some(self.method.to_owned()),
            since_ns: self.streams.first().map_or(0, |(ns, _)| *ns),
            count: self.streams.len() as u64,
            tasks: named().filter_map(|stream| stream.task).collect(),
            streams: named().map(|stream| stream.id).collect(),
            connections,
            worker: None,
        }
    }
}

/// Streams whose bytes the transport does not take. One that waits for its
/// peer to send, or for its handler to produce, may be idle and well.
pub fn stalled(snapshot: &Snapshot, seen: &mut Seen) {
    seen.checked(FindingKind::StalledStream, snapshot.streams.len(), None);
    let stuck = |stream: &Stream| {
        (stream.phase == Phase::AwaitSend && stream.phase_ns > NOT_TAKEN_NS)
            .then_some(stream.phase_ns)
    };
    for ((side, method), streams) in by_method(snapshot, stuck) {
        let longest = human_duration(streams[0].0);
        let many = counted(streams.len(), "stream");
        let mut evidence = vec![format!(
            "{many} of {method} handed over a message and the transport has asked for no more for up to {longest}: \
             the peer or the network does not take it."
        )];
        let peers: std::collections::BTreeSet<_> =
            streams.iter().filter_map(|(_, stream)| stream.peer.as_deref()).collect();
        match peers.len() {
            0 => {}
            1 => evidence.push(format!(
                "All of them go to {}.",
                peers.iter().next().copied().unwrap_or_default()
            )),
            many => evidence.push(format!("They go to {many} peers.")),
        }
        let refused = snapshot.connections.iter().any(|connection| {
            connection.counters.is_some_and(|counters| counters.write_blocked_ns > NOT_TAKEN_NS)
                && streams.iter().any(|(_, stream)| stream.connection == Some(connection.id))
        });
        evidence.push(if refused {
            "A socket under them refuses bytes as well: the peer's host or the network does not read.".to_owned()
        } else {
            "No socket under them is known to refuse bytes: an HTTP/2 window of the peer is the likely cause, \
             for a reader that has stopped reading."
                .to_owned()
        });
        let group = Group {
            kind: FindingKind::StalledStream,
            severity: Severity::Warning,
            confidence: Confidence::Likely,
            side,
            method,
            streams,
        };
        seen.findings.push(group.finding(
            format!("{many} of {method}: the peer takes nothing, for up to {longest}"),
            evidence,
        ));
    }
}

/// Streams that run on behind their deadline.
pub fn late(snapshot: &Snapshot, seen: &mut Seen) {
    let with_deadline = snapshot.streams.iter().filter(|stream| stream.deadline.is_some()).count();
    seen.checked(FindingKind::DeadlinePassed, with_deadline, None);
    let late = |stream: &Stream| {
        let over = stream
            .deadline
            .filter(|deadline| deadline.remaining_ns < 0)?
            .remaining_ns
            .unsigned_abs();
        (over > NOTICED_NS && stream.phase != Phase::Ended).then_some(over)
    };
    for ((side, method), streams) in by_method(snapshot, late) {
        let longest = human_duration(streams[0].0);
        let many = counted(streams.len(), "stream");
        let evidence = vec![
            format!("{many} of {method} still live up to {longest} after the deadline that the caller set."),
            match side {
                Side::Server => "The caller has most likely given up; the handler works for nobody. A deadline is \
                                 enforced over a whole stream only if the server does so."
                    .to_owned(),
                Side::Client => "We set that deadline and still hold the call: nothing has ended it.".to_owned(),
            },
        ];
        let group = Group {
            kind: FindingKind::DeadlinePassed,
            severity: Severity::Warning,
            confidence: Confidence::Proven,
            side,
            method,
            streams,
        };
        seen.findings.push(group.finding(
            format!("{many} of {method} past the deadline, by up to {longest}"),
            evidence,
        ));
    }
}

/// Streams that nobody wants any more and that go on.
pub fn cancelled(snapshot: &Snapshot, seen: &mut Seen) {
    let all = snapshot
        .streams
        .iter()
        .chain(&snapshot.ended_streams)
        .filter(|stream| stream.cancelled_ago_ns.is_some());
    seen.checked(FindingKind::CancelledButRunning, all.count(), None);
    let running = |stream: &Stream| {
        // The server's task that polls the handler; tasks it left behind are leaks.
        let ns = stream.cancelled_ago_ns.filter(|&ns| ns > NOTICED_NS)?;
        (stream.side == Side::Server
            && stream.phase != Phase::Ended
            && stream.ended_ago_ns.is_none())
        .then_some(ns)
    };
    for ((side, method), streams) in by_method(snapshot, running) {
        let longest = human_duration(streams[0].0);
        let many = counted(streams.len(), "stream");
        let mut evidence = vec![format!(
            "{many} of {method} were cancelled up to {longest} ago and their handlers still run."
        )];
        if let Some(reason) = streams.iter().find_map(|(_, stream)| stream.cancel_reason.as_deref())
        {
            evidence.push(format!("The oldest known reason: {reason}."));
        }
        let group = Group {
            kind: FindingKind::CancelledButRunning,
            severity: Severity::Warning,
            confidence: Confidence::Proven,
            side,
            method,
            streams,
        };
        seen.findings.push(group.finding(
            format!("{many} of {method} cancelled and still running, for up to {longest}"),
            evidence,
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::analyze::analyze;
    use crate::model::sample::{self, SECOND};
    use crate::model::{Deadline, FindingKind, Phase, Snapshot, Stream};

    fn with(change: impl Fn(&mut Stream)) -> Snapshot {
        let method: Arc<str> = "/feed.v1.Feed/Watch".into();
        let mut snapshot = sample::empty();
        for id in 1..=212 {
            let mut stream = sample::stream(id, &method);
            change(&mut stream);
            snapshot.streams.push(stream);
        }
        snapshot.connections.push(sample::connection(1));
        snapshot
    }

    fn kinds(snapshot: &Snapshot) -> Vec<(FindingKind, u64)> {
        analyze(snapshot).findings.iter().map(|finding| (finding.kind, finding.count)).collect()
    }

    /// Every trouble, and beside it the healthy stream that looks like it.
    #[test]
    fn troubles_and_their_healthy_twins() {
        let late = |remaining_ns| Some(Deadline { timeout_ns: SECOND, remaining_ns });
        type Change = Box<dyn Fn(&mut Stream)>;
        let phase = |phase, phase_ns| -> Change {
            Box::new(move |stream| (stream.phase, stream.phase_ns) = (phase, phase_ns))
        };
        let cases: Vec<(&str, Change, Option<FindingKind>)> = vec![
            ("idle", Box::new(|_| {}), None),
            ("idle for a day", phase(Phase::AwaitRecv, 86_400 * SECOND), None),
            ("nothing to say for a day", phase(Phase::AwaitProduce, 86_400 * SECOND), None),
            ("long handler", phase(Phase::Handler, 86_400 * SECOND), None),
            ("client waits for headers", phase(Phase::AwaitHeaders, 600 * SECOND), None),
            ("not taken", phase(Phase::AwaitSend, 2 * SECOND), Some(FindingKind::StalledStream)),
            ("just handed over", phase(Phase::AwaitSend, SECOND / 2), None),
            (
                "late",
                Box::new(move |stream| stream.deadline = late(-2 * SECOND as i64)),
                Some(FindingKind::DeadlinePassed),
            ),
            (
                "hardly late",
                Box::new(move |stream| stream.deadline = late(-(SECOND as i64) / 2)),
                None,
            ),
            ("in time", Box::new(move |stream| stream.deadline = late(1)), None),
            (
                "cancelled",
                Box::new(|stream| stream.cancelled_ago_ns = Some(2 * SECOND)),
                Some(FindingKind::CancelledButRunning),
            ),
            ("just cancelled", Box::new(|stream| stream.cancelled_ago_ns = Some(SECOND / 2)), None),
            (
                "cancelled and ended",
                Box::new(|stream| {
                    stream.cancelled_ago_ns = Some(2 * SECOND);
                    stream.phase = Phase::Ended;
                }),
                None,
            ),
        ];
        for (name, change, expected) in cases {
            let expected: Vec<_> = expected.into_iter().map(|kind| (kind, 212)).collect();
            assert_eq!(kinds(&with(change)), expected, "{name}");
        }
    }

    #[test]
    fn alike_streams_are_one_finding_that_names_a_hundred() {
        let report = analyze(&with(|stream| {
            (stream.phase, stream.phase_ns) = (Phase::AwaitSend, (stream.id.0 + 1) * SECOND)
        }));
        let finding = &report.findings[0];
        assert!(
            finding.title.starts_with("212 streams of /feed.v1.Feed/Watch"),
            "{}",
            finding.title
        );
        assert_eq!((finding.count, finding.streams.len()), (212, 100));
        assert_eq!(finding.streams[0].0, 212, "the longest first");
        assert_eq!(finding.since_ns, 213 * SECOND);
    }

    #[test]
    fn a_socket_that_refuses_bytes_is_told_apart() {
        let mut snapshot =
            with(|stream| (stream.phase, stream.phase_ns) = (Phase::AwaitSend, 5 * SECOND));
        assert!(analyze(&snapshot).findings[0].evidence.join(" ").contains("HTTP/2 window"));
        snapshot.connections[0].counters.as_mut().unwrap().write_blocked_ns = 5 * SECOND;
        assert!(
            analyze(&snapshot).findings[0].evidence.join(" ").contains("socket under them refuses")
        );
    }
}
