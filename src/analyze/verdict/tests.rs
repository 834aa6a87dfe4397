//! Any combination of signals has a verdict, and keeps its promises.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::Judge;
use crate::model::sample;
use crate::model::{
    Blocked, BodyState, Confidence, Connection, ConnectionCounters, ConnectionId, Goaway,
    Heartbeat, Http2, Http2State, Pause, Phase, Side, Snapshot, Stream, StreamEvent,
    StreamEventKind, StreamId, StreamKind, StreamWire, Task, TaskId, TcpInfo, Traffic, VerdictKind,
    WaitKind, Who, WireReset,
};

/// Any time, the ones that decide more often than others.
fn ns() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(999_999_999),
        Just(1_000_000_000),
        0..5_000_000_000u64,
        0..100_000_000_000u64,
        Just(u64::MAX),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..200_000u64, Just(u64::MAX)]
}

fn window() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), -70_000..70_000i64, Just(i64::MIN), Just(i64::MAX)]
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    (0..all.len()).prop_map(move |at| all[at])
}

fn traffic() -> impl Strategy<Value = Traffic> {
    use BodyState::*;
    let body = one_of(&[NeverPolled, Pending, Taken, End, Error, Dropped]);
    (size(), size(), option::of(ns()), any::<bool>(), body, ns()).prop_map(
        |(messages, bytes, last_ago_ns, ended, body, body_ns)| Traffic {
            messages,
            bytes,
            last_ago_ns,
            ended,
            body,
            body_ns,
        },
    )
}

fn wire() -> impl Strategy<Value = StreamWire> {
    let reset = (any::<bool>(), 0..20u32, ns()).prop_map(|(by_peer, code, ago_ns)| WireReset {
        by_peer,
        code,
        ago_ns,
    });
    (
        (any::<bool>(), window(), window(), size(), size()),
        (option::of(ns()), option::of(ns()), option::of(ns()), option::of(ns())),
        (any::<bool>(), any::<bool>(), option::weighted(0.1, reset)),
    )
        .prop_map(
            |((opened, send_window, recv_window, data_sent, data_received), ago, end)| StreamWire {
                stream_id: 1,
                opened,
                send_window,
                recv_window,
                data_sent,
                data_received,
                last_received_ago_ns: ago.0,
                last_sent_ago_ns: ago.1,
                window_update_ago_ns: ago.2,
                send_window_closed_ns: ago.3,
                end_sent: end.0,
                end_received: end.1,
                reset: end.2,
            },
        )
}

fn event() -> impl Strategy<Value = StreamEvent> {
    use StreamEventKind::*;
    let kinds = one_of(&[
        Send,
        Recv,
        WindowReceived,
        WindowSent,
        WindowClosed,
        EndSent,
        EndReceived,
        Reset,
    ]);
    (kinds, ns(), any::<u32>()).prop_map(|(kind, ago_ns, bytes)| StreamEvent {
        kind,
        ago_ns,
        bytes,
    })
}

fn stream() -> impl Strategy<Value = Stream> {
    use {Http2State as H, Phase as P, StreamKind as K};
    let phases = one_of(&[
        P::Starting,
        P::Handler,
        P::AwaitRecv,
        P::AwaitHeaders,
        P::AwaitSend,
        P::AwaitProduce,
        P::Ended,
    ]);
    let states = one_of(&[H::Open, H::HalfClosedLocal, H::HalfClosedRemote, H::Closed, H::Reset]);
    let kinds = one_of(&[K::Unary, K::ClientStreaming, K::ServerStreaming, K::Bidi, K::Unknown]);
    (
        (one_of(&[Side::Server, Side::Client]), kinds, states, phases),
        (ns(), ns(), traffic(), traffic()),
        (option::weighted(0.1, ns()), option::weighted(0.1, ns()), option::weighted(0.1, ns())),
        (0..3u32, any::<bool>(), option::weighted(0.8, wire()), vec(event(), 0..6)),
        (option::of(0..4u64), option::of(0..3u64)),
    )
        .prop_map(|(what, times, rare, more, ids)| {
            let mut stream = sample::stream(0, &Arc::from("/feed.v1.Feed/Watch"));
            (stream.side, stream.kind, stream.state, stream.phase) = what;
            (stream.age_ns, stream.phase_ns, stream.received, stream.sent) = times;
            (stream.cancelled_ago_ns, stream.throttled_ns, stream.ended_ago_ns) = rare;
            (stream.live_tasks, stream.idle_expected, stream.wire, stream.events) = more;
            (stream.task, stream.connection) = (ids.0.map(TaskId), ids.1.map(ConnectionId));
            stream
        })
}

fn http2() -> impl Strategy<Value = Http2> {
    let goaway = (any::<bool>(), 0..20u32, ns()).prop_map(|(by_peer, code, ago_ns)| Goaway {
        by_peer,
        code,
        last_stream_id: 1,
        ago_ns,
    });
    (
        (window(), window(), option::of(ns()), option::of(ns())),
        (any::<u32>(), any::<u32>(), option::of(0..3u32), 0..4u64),
        (option::of(ns()), option::of(ns()), option::of(ns()), option::of(ns())),
        (option::of(goaway), any::<bool>()),
    )
        .prop_map(|(windows, limits, ping, (goaway, lost))| Http2 {
            send_window: windows.0,
            recv_window: windows.1,
            send_window_closed_ns: windows.2,
            recv_window_closed_ns: windows.3,
            peer_initial_window: limits.0,
            local_initial_window: limits.1,
            peer_max_streams: limits.2,
            open_streams: limits.3,
            ping_outstanding_ns: ping.0,
            ping_rtt_ns: ping.1,
            ping_answered_ago_ns: ping.2,
            last_received_ago_ns: ping.3,
            goaway,
            lost,
            ..Http2::default()
        })
}

fn tcp() -> impl Strategy<Value = TcpInfo> {
    (
        (0..5u8, 0..5u8, 0..5u8, 0..5u32, prop_oneof![Just(0), any::<u32>()]),
        (ns(), ns(), option::of(prop_oneof![Just(0), any::<u32>()]), any::<u32>()),
    )
        .prop_map(|(again, rest)| TcpInfo {
            retransmits: again.0,
            probes: again.1,
            backoff: again.2,
            unacked: again.3,
            notsent_bytes: again.4,
            last_ack_ago_ns: rest.0,
            last_data_sent_ago_ns: rest.1,
            send_window: rest.2,
            send_mss: 1_460,
            unread_bytes: rest.3,
            ..TcpInfo::default()
        })
}

fn connection() -> impl Strategy<Value = Connection> {
    let counters = (option::of(ns()), option::of(ns()), ns()).prop_map(
        |(last_read_ago_ns, last_write_ago_ns, write_blocked_ns)| ConnectionCounters {
            read_bytes: 1,
            written_bytes: 1,
            last_read_ago_ns,
            last_write_ago_ns,
            write_blocked_ns,
        },
    );
    let beat = (option::of(ns()), option::of(ns()), option::of(ns())).prop_map(
        |(outstanding_ns, rtt_ns, answered_ago_ns)| Heartbeat {
            interval_ns: 1,
            outstanding_ns,
            rtt_ns,
            answered_ago_ns,
        },
    );
    (
        (option::of(counters), option::of(http2()), option::of(tcp()), option::of(beat)),
        (prop::bool::weighted(0.1), option::of(0..4u64)),
    )
        .prop_map(|((counters, http2, tcp, heartbeat), (closed, task))| Connection {
            counters,
            http2,
            tcp,
            heartbeat,
            closed,
            task: task.map(TaskId),
            ..sample::connection(0)
        })
}

fn task() -> impl Strategy<Value = Task> {
    (one_of(&WaitKind::ALL), option::of(0..4u64), option::of(0..4u64), ns(), 0..3u32).prop_map(
        |(kind, joins, stream, wait_ns, senders)| {
            let mut task = sample::waiting(0, "a::b", ("a", 1), kind, "r");
            (task.stream, task.state_ns) = (stream.map(StreamId), wait_ns);
            let wait = task.wait.as_mut().expect("it waits");
            (wait.wait_ns, wait.senders) = (wait_ns, Some(senders));
            wait.about_mut().task = joins.map(TaskId);
            task
        },
    )
}

fn blocked() -> impl Strategy<Value = Blocked> {
    (any::<bool>(), ns(), option::of(0..4u64), option::of(0..4u64)).prop_map(
        |(ongoing, blocked_ns, task, stream)| Blocked {
            ongoing,
            blocked_ns,
            task: task.map(TaskId),
            stream: stream.map(StreamId),
            ..sample::blocked()
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let pause =
        (ns(), ns()).prop_map(|(paused_ns, ended_ago_ns)| Pause { paused_ns, ended_ago_ns });
    (
        (vec(stream(), 1..4), vec(connection(), 0..3), vec(task(), 0..4)),
        (vec(blocked(), 0..2), vec(pause, 0..2)),
    )
        .prop_map(|((streams, connections, tasks), (blocked, pauses))| {
            let mut snapshot = sample::empty();
            snapshot.runtimes = vec![sample::runtime()];
            (snapshot.blocked, snapshot.pauses) = (blocked, pauses);
            for (id, mut one) in (0..).zip(streams) {
                one.id = StreamId(id);
                snapshot.streams.push(one);
            }
            for (id, mut one) in (0..).zip(connections) {
                one.id = ConnectionId(id);
                snapshot.connections.push(one);
            }
            for (id, mut one) in (0..).zip(tasks) {
                one.id = TaskId(id);
                snapshot.tasks.push(one);
            }
            snapshot
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_signals_have_a_verdict(snapshot in snapshot()) {
        let judge = Judge::new(&snapshot);
        for stream in &snapshot.streams {
            let verdict = judge.verdict(stream);
            prop_assert_eq!(judge.kind(stream), (verdict.kind, verdict.since_ns));
            prop_assert!(verdict.since_ns <= stream.age_ns);
            prop_assert!(verdict.evidence.len() > 10 && verdict.evidence.ends_with('.'));
            prop_assert_eq!(verdict.or.is_empty(), verdict.told_apart_by.is_none());
            prop_assert!(!verdict.or.contains(&verdict.kind));
            prop_assert!(verdict.or.is_empty() || verdict.confidence != Confidence::Proven);
            prop_assert_eq!(
                verdict.who == Who::Nobody,
                matches!(verdict.kind, VerdictKind::Healthy | VerdictKind::IdleByDesign)
            );
            // The young are not judged, whatever their connection looks like.
            if stream.age_ns < super::STILL_NS && stream.ended_ago_ns.is_none()
                && verdict.kind.is_alarm()
            {
                let own = stream.cancelled_ago_ns.is_some()
                    || stream.throttled_ns.is_some()
                    || snapshot.blocked.iter().any(|blocked| blocked.ongoing)
                    || stream.wire.as_ref().is_some_and(|wire| wire.reset.is_some());
                prop_assert!(own, "{:?}", verdict);
            }
        }
        let _ = crate::analyze::analyze(&snapshot);
    }
}
