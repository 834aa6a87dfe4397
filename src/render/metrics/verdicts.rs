//! Streams by verdict, and the windows of their connections.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::{METHODS, Out, seconds};
use crate::model::{Http2, Side, Snapshot, VerdictKind};

/// Streams by verdict; `verdicts` are those of the live streams, in order.
pub fn streams(out: &mut Out, snapshot: &Snapshot, verdicts: &[(VerdictKind, u64)]) {
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    for stream in &snapshot.streams {
        *sizes.entry(&stream.method).or_default() += 1;
    }
    let mut busiest: Vec<(&str, u64)> = sizes.into_iter().collect();
    busiest.sort_by_key(|&(method, count)| (Reverse(count), method));
    let named: HashSet<&str> =
        busiest.into_iter().take(METHODS).map(|(method, _)| method).collect();
    let mut counts: BTreeMap<(&str, Side, VerdictKind), u64> = BTreeMap::new();
    let mut longest: BTreeMap<(Side, VerdictKind), u64> = BTreeMap::new();
    for (stream, &(kind, since_ns)) in snapshot.streams.iter().zip(verdicts) {
        let method = &*stream.method;
        let method = if named.contains(method) { method } else { "other" };
        *counts.entry((method, stream.side, kind)).or_default() += 1;
        let most = longest.entry((stream.side, kind)).or_default();
        *most = since_ns.max(*most);
    }
    let name = "taskprof_stream_verdicts";
    out.family(
        name,
        "gauge",
        "Live gRPC streams by method, side and verdict; methods beyond the 50 busiest are other.",
    );
    for ((method, side, kind), count) in counts {
        let (side, kind) = (side.as_str(), kind.as_str());
        out.line(name, &[("method", &method), ("side", &side), ("verdict", &kind)], count);
    }
    let name = "taskprof_stream_longest_verdict_seconds";
    out.family(name, "gauge", "Longest time for which a verdict holds on a live gRPC stream.");
    for ((side, kind), since_ns) in longest {
        let (side, kind) = (side.as_str(), kind.as_str());
        out.line(name, &[("side", &side), ("verdict", &kind)], seconds(since_ns));
    }
}

/// A family of the tapped connections of one side: its figure of them all.
type Family = (&'static str, &'static str, fn(&[&Http2]) -> Option<f64>);

/// Windows and PINGs, over all tapped connections of a side. Absent where no
/// socket is tapped: a zero would say that a window is closed.
pub fn connections(out: &mut Out, snapshot: &Snapshot) {
    let of = |side: Side| -> Vec<&Http2> {
        let own = snapshot.connections.iter().filter(|connection| connection.side == side);
        own.filter_map(|connection| connection.http2.as_ref()).filter(|http2| !http2.lost).collect()
    };
    let sides = [(Side::Client, of(Side::Client)), (Side::Server, of(Side::Server))];
    if sides.iter().all(|(_, tapped)| tapped.is_empty()) {
        return;
    }
    let families: [Family; 6] = [
        ("taskprof_connections_tapped", "Connections whose frames are read.", |all| {
            Some(all.len() as f64)
        }),
        (
            "taskprof_connections_send_window_bytes",
            "Bytes that may still be sent, over all tapped connections.",
            |all| Some(all.iter().map(|http2| http2.send_window as f64).sum()),
        ),
        (
            "taskprof_connections_smallest_send_window_bytes",
            "Bytes that may still be sent on the tapped connection that has least.",
            |all| all.iter().map(|http2| http2.send_window).min().map(|window| window as f64),
        ),
        (
            "taskprof_connections_recv_window_bytes",
            "Bytes that peers may still send, over all tapped connections.",
            |all| Some(all.iter().map(|http2| http2.recv_window as f64).sum()),
        ),
        (
            "taskprof_connections_smallest_recv_window_bytes",
            "Bytes that the peer may still send on the tapped connection that has least.",
            |all| all.iter().map(|http2| http2.recv_window).min().map(|window| window as f64),
        ),
        (
            "taskprof_connections_longest_ping_outstanding_seconds",
            "Longest time for which a PING of ours has been without an answer; 0 if none is.",
            |all| {
                all.iter().map(|it| seconds(it.ping_outstanding_ns.unwrap_or(0))).reduce(f64::max)
            },
        ),
    ];
    for (name, help, figure) in families {
        out.family(name, "gauge", help);
        for (side, tapped) in &sides {
            if let Some(value) = figure(tapped).filter(|_| !tapped.is_empty()) {
                out.line(name, &[("side", &side.as_str())], value);
            }
        }
    }
}
