//! Every row of the table and every case it was made for, from both sides.

use std::sync::Arc;

use VerdictKind::*;

use super::Judge;
use crate::model::sample::{self, SECOND, held, waiting};
use crate::model::{
    BodyState, Confidence, Connection, ConnectionId, Heartbeat, HeldKind, Holder, Http2,
    Http2State, Pause, Phase, Side, Snapshot, Stream, StreamEvent, StreamEventKind, StreamId,
    StreamKind, StreamWire, Task, TaskId, TcpInfo, Traffic, Verdict, VerdictKind, WaitKind, Who,
    WireReset,
};

const MS: u64 = 1_000_000;
const WINDOW: i64 = 65_535;

/// A connection on which all is well: a PING was answered half a second ago.
fn link(side: Side) -> Connection {
    let mut connection = sample::connection(1);
    connection.side = side;
    connection.http2 = Some(Http2 {
        send_window: WINDOW,
        recv_window: WINDOW,
        peer_initial_window: WINDOW as u32,
        local_initial_window: WINDOW as u32,
        open_streams: 3,
        ping_rtt_ns: Some(MS),
        ping_answered_ago_ns: Some(SECOND / 2),
        last_received_ago_ns: Some(SECOND / 2),
        ..Http2::default()
    });
    connection.tcp = Some(TcpInfo {
        state: 1,
        send_window: Some(64_000),
        recv_window: Some(64_000),
        send_mss: 1_460,
        rtt_ns: MS,
        last_ack_ago_ns: SECOND / 2,
        ..TcpInfo::default()
    });
    connection.counters.as_mut().unwrap().last_read_ago_ns = Some(SECOND / 2);
    connection
}

/// A bidi stream of ten seconds, silent for three, that waits for its peer.
pub fn stream(id: u64, side: Side) -> Stream {
    let mut stream = sample::stream(id, &Arc::from("/feed.v1.Feed/Watch"));
    let traffic = Traffic {
        messages: 3,
        bytes: 300,
        last_ago_ns: Some(3 * SECOND),
        ended: false,
        body: BodyState::Pending,
        body_ns: 3 * SECOND,
    };
    (stream.side, stream.received, stream.sent) = (side, traffic, traffic);
    (stream.age_ns, stream.phase_ns) = (10 * SECOND, 3 * SECOND);
    stream.wire = Some(StreamWire {
        stream_id: id as u32 * 2 + 1,
        opened: true,
        send_window: WINDOW - 300,
        recv_window: WINDOW,
        data_sent: 300,
        data_received: 300,
        last_received_ago_ns: Some(3 * SECOND),
        last_sent_ago_ns: Some(3 * SECOND),
        ..StreamWire::default()
    });
    stream
}

struct Case {
    snapshot: Snapshot,
}

impl Case {
    fn new(streams: impl IntoIterator<Item = Stream>) -> Self {
        let mut snapshot = sample::empty();
        snapshot.streams.extend(streams);
        let side = snapshot.streams[0].side;
        snapshot.connections = vec![link(side)];
        snapshot.runtimes = vec![sample::runtime()];
        Self { snapshot }
    }

    fn tcp(mut self, change: impl FnOnce(&mut TcpInfo)) -> Self {
        change(self.snapshot.connections[0].tcp.as_mut().unwrap());
        self
    }

    /// Changes the figures of HTTP/2; from here on nothing came for 3 s.
    fn http2(mut self, change: impl FnOnce(&mut Http2)) -> Self {
        change(self.snapshot.connections[0].http2.as_mut().unwrap());
        self
    }

    fn connection(mut self, change: impl FnOnce(&mut Connection)) -> Self {
        change(&mut self.snapshot.connections[0]);
        self
    }

    /// Nothing has come from the peer for so long.
    fn silent(self, ns: u64) -> Self {
        self.connection(|connection| {
            connection.counters.as_mut().unwrap().last_read_ago_ns = Some(ns);
            if let Some(http2) = &mut connection.http2 {
                http2.last_received_ago_ns = Some(ns);
                http2.ping_answered_ago_ns = Some(ns);
            }
        })
    }

    fn tasks(mut self, tasks: impl IntoIterator<Item = Task>) -> Self {
        self.snapshot.tasks.extend(tasks);
        self
    }

    fn verdict(&self) -> Verdict {
        let judge = Judge::new(&self.snapshot);
        let stream = &self.snapshot.streams[0];
        let verdict = judge.verdict(stream);
        assert_eq!(judge.kind(stream), (verdict.kind, verdict.since_ns));
        assert!(verdict.evidence.ends_with('.'), "{}", verdict.evidence);
        assert_eq!(verdict.or.is_empty(), verdict.told_apart_by.is_none(), "{verdict:?}");
        verdict
    }

    fn is(&self, kind: VerdictKind, who: Who, confidence: Confidence, says: &[&str]) -> Verdict {
        let verdict = self.verdict();
        let told = (verdict.kind, verdict.who, verdict.confidence);
        assert_eq!(told, (kind, who, confidence), "{verdict:#?}");
        for part in says {
            assert!(verdict.evidence.contains(part), "{part:?} in {:?}", verdict.evidence);
        }
        verdict
    }
}

fn both(test: impl Fn(Side)) {
    [Side::Server, Side::Client].into_iter().for_each(test);
}

/// The body was handed over three seconds ago and not asked for again.
fn send_blocked(id: u64, side: Side) -> Stream {
    let mut stream = stream(id, side);
    (stream.sent.body, stream.phase) = (BodyState::Taken, Phase::AwaitSend);
    stream
}

/// Its own window is used up as well.
fn unread_by_peer(id: u64, side: Side) -> Stream {
    let mut stream = send_blocked(id, side);
    let wire = stream.wire.as_mut().unwrap();
    (wire.send_window, wire.send_window_closed_ns) = (0, Some(3 * SECOND));
    wire.data_sent = WINDOW as u64;
    stream.sent.bytes = WINDOW as u64 + 20_000;
    stream
}

/// Bytes have come that our side does not read.
fn unread_by_us(id: u64, side: Side) -> Stream {
    let mut stream = stream(id, side);
    (stream.received.body, stream.phase) = (BodyState::Taken, Phase::Handler);
    stream.sent.body = BodyState::NeverPolled;
    let wire = stream.wire.as_mut().unwrap();
    (wire.data_received, wire.recv_window) = (WINDOW as u64, 300);
    stream
}

fn unary(id: u64, side: Side) -> Stream {
    let mut call = stream(id, side);
    call.kind = StreamKind::Unary;
    match side {
        Side::Server => {
            (call.phase, call.state) = (Phase::Handler, Http2State::HalfClosedRemote);
            (call.received.body, call.received.ended) = (BodyState::End, true);
            (call.sent.messages, call.sent.bytes) = (0, 0);
            call.sent.body = BodyState::NeverPolled;
            call.wire.as_mut().unwrap().data_sent = 0;
            call.wire.as_mut().unwrap().end_received = true;
        }
        Side::Client => {
            (call.phase, call.state) = (Phase::AwaitHeaders, Http2State::HalfClosedLocal);
            (call.sent.body, call.sent.ended) = (BodyState::End, true);
            (call.received.messages, call.received.bytes) = (0, 0);
            call.received.body = BodyState::NeverPolled;
            call.wire.as_mut().unwrap().data_received = 0;
            call.wire.as_mut().unwrap().end_sent = true;
        }
    }
    call
}

#[test]
fn case_1_the_peer_stops_reading() {
    both(|side| {
        let reader = if side == Side::Server { "client" } else { "server" };
        let verdict = Case::new([unread_by_peer(1, side)]).is(
            PeerNotReading,
            Who::Peer,
            Confidence::Proven,
            &[reader, "used up for 3.0s", "19 KiB wait here", "answered 500ms ago"],
        );
        assert_eq!(verdict.since_ns, 3 * SECOND);
        // Nothing has been heard since: a frozen process looks the same.
        let verdict = Case::new([unread_by_peer(1, side)]).silent(4 * SECOND).is(
            PeerNotReading,
            Who::Peer,
            Confidence::Likely,
            &[],
        );
        assert_eq!(verdict.or, [PeerFrozen, Network]);
        assert!(verdict.told_apart_by.unwrap().contains("PING"));
        // One is on its way: half a second later more is known.
        let case = Case::new([unread_by_peer(1, side)]).silent(4 * SECOND);
        let case = case.http2(|http2| http2.ping_outstanding_ns = Some(SECOND / 2));
        assert_eq!(case.verdict().kind, Healthy, "not decided yet");
    });
}

/// What its connection and its window look like is older than it is.
#[test]
fn one_that_has_just_begun_is_not_judged() {
    both(|side| {
        let mut young = unread_by_peer(1, side);
        young.age_ns = 0;
        young.wire.as_mut().unwrap().opened = false;
        young.sent.body = BodyState::End;
        let verdict = Case::new([young]).silent(4 * SECOND).verdict();
        assert_eq!((verdict.kind, verdict.since_ns), (Healthy, 0));
    });
}

#[test]
fn case_1b_a_huge_message_lies_in_the_buffer_and_the_body_looks_idle() {
    both(|side| {
        let mut stream = unread_by_peer(1, side);
        stream.sent.body = BodyState::Pending;
        stream.sent.bytes = 3 << 20;
        Case::new([stream]).is(PeerNotReading, Who::Peer, Confidence::Proven, &["2.9 MiB wait"]);
    });
}

#[test]
fn case_2_the_connections_window_is_eaten_and_the_hog_is_named() {
    both(|side| {
        let victim = send_blocked(1, side);
        let mut fellow = send_blocked(8, side);
        (fellow.wire.as_mut().unwrap().send_window, fellow.wire.as_mut().unwrap().data_sent) =
            (WINDOW - 33_000, 33_000);
        let case = Case::new([victim, fellow, unread_by_peer(9, side)]).http2(|http2| {
            (http2.send_window, http2.send_window_closed_ns) = (0, Some(2 * SECOND));
        });
        let verdict = case.is(
            ConnectionFlowControl,
            Who::Peer,
            Confidence::Proven,
            &["63 KiB of stream 9 (Feed/Watch)", "used up for 2.0s"],
        );
        assert_eq!(verdict.hog, Some(StreamId(9)));
        let judge = Judge::new(&case.snapshot);
        assert_eq!(judge.kind(&case.snapshot.streams[2]).0, PeerNotReading);
        let mut little = case.snapshot.streams[1].clone();
        (little.wire.as_mut().unwrap().send_window, little.wire.as_mut().unwrap().data_sent) =
            (WINDOW - 20_000, 20_000);
        let little = judge.verdict(&little);
        assert_eq!((little.kind, little.or), (ConnectionFlowControl, vec![PeerNotReading]));
        let fellow = judge.verdict(&case.snapshot.streams[1]);
        assert_eq!(fellow.kind, PeerNotReading, "half a window is more than a reader leaves");
        assert!(fellow.evidence.contains("32 KiB of it are unread there"), "{}", fellow.evidence);
    });
}

#[test]
fn case_3_a_path_that_stops_behind_the_next_hop_is_told_with_its_twin() {
    both(|side| {
        let late = |http2: &mut Http2| http2.ping_outstanding_ns = Some(2 * SECOND);
        let case = Case::new([unread_by_peer(1, side)]).silent(3 * SECOND).http2(late);
        let verdict =
            case.is(PeerFrozen, Who::Peer, Confidence::Likely, &["PING for 2.0s", "proxy"]);
        assert_eq!(verdict.or, [Network]);
    });
}

#[test]
fn case_4_a_peer_that_stops_sending_is_waited_for() {
    both(|side| {
        let verdict = Case::new([stream(1, side)]).is(
            WaitingForPeer,
            Who::Peer,
            Confidence::Likely,
            &["after 3 of its messages", "heard of 500ms ago"],
        );
        assert!(verdict.or.is_empty());
        // Without any sign of life a dead peer looks the same.
        let verdict = Case::new([stream(1, side)])
            .connection(|connection| connection.http2 = None)
            .silent(20 * SECOND)
            .is(WaitingForPeer, Who::Peer, Confidence::Suspected, &[]);
        assert_eq!(verdict.or, [PeerFrozen, Network]);
    });
}

#[test]
fn case_5_our_side_does_not_read() {
    both(|side| {
        let says = if side == Side::Server { "our handler" } else { "our caller" };
        let stream = unread_by_us(1, side);
        Case::new([stream]).is(
            HandlerNotReading,
            Who::Us,
            Confidence::Proven,
            &[says, "63 KiB", "for 3.0s"],
        );
        // Never polled at all, and but one message came.
        let mut stream = unread_by_us(1, side);
        (stream.received.body, stream.received.messages) = (BodyState::NeverPolled, 0);
        stream.received.bytes = 0;
        stream.received.body_ns = 9 * SECOND;
        let wire = stream.wire.as_mut().unwrap();
        (wire.data_received, wire.recv_window) = (20, WINDOW - 20);
        let verdict =
            Case::new([stream]).is(HandlerNotReading, Who::Us, Confidence::Proven, &["20 B"]);
        assert_eq!(verdict.since_ns, 3 * SECOND, "since the message came");
    });
}

#[test]
fn case_5b_its_neighbour_starves_and_our_hog_is_named() {
    both(|side| {
        let case = Case::new([stream(1, side), unread_by_us(9, side)]).http2(|http2| {
            (http2.recv_window, http2.recv_window_closed_ns) = (0, Some(5 * SECOND));
        });
        let verdict = case.is(
            ConnectionFlowControl,
            Who::Us,
            Confidence::Likely,
            &["63 KiB of stream 9", "for 3.0s"],
        );
        assert_eq!(verdict.hog, Some(StreamId(9)));
    });
}

#[test]
fn case_6a_a_handler_that_blocks_its_thread_is_told_with_the_line() {
    let mut call = unary(2, Side::Server);
    call.task = Some(TaskId(40));
    let mut case = Case::new([call]);
    case.snapshot.blocked = vec![sample::blocked()];
    let says = ["in one poll for 3.2s", "src/billing.rs:88"];
    let verdict = case.is(WorkerBlocked, Who::Us, Confidence::Proven, &says);
    assert_eq!(verdict.task, Some(TaskId(40)));
    // The same joined by the stream alone, and by the connection's own task.
    case.snapshot.streams[0].task = None;
    case.is(WorkerBlocked, Who::Us, Confidence::Proven, &says);
    (case.snapshot.blocked[0].stream, case.snapshot.connections[0].task) = (None, Some(TaskId(40)));
    case.is(WorkerBlocked, Who::Us, Confidence::Proven, &["drives its connection", says[1]]);
    // A tenth of a second is no standstill.
    case.snapshot.blocked[0].blocked_ns = 300 * MS;
    assert!(!case.verdict().kind.is_alarm());
}

#[test]
fn a_neighbour_frozen_behind_a_blocked_worker_is_told_by_what_lies_unread() {
    both(|side| {
        let mut case = Case::new([stream(7, side)]).silent(3 * SECOND);
        case.snapshot.blocked = vec![sample::blocked()];
        assert_eq!(case.verdict().kind, WaitingForPeer, "nothing says that it is concerned");
        let case = case.tcp(|tcp| tcp.unread_bytes = 512);
        assert_eq!(case.verdict().kind, WaitingForPeer, "that came just now");
        let case = case.tcp(|tcp| tcp.last_data_received_ago_ns = 2 * SECOND);
        case.is(WorkerBlocked, Who::Us, Confidence::Likely, &["behind task 40", "billing.rs:88"]);
        // Without any blocked worker: our transport does not read, nobody knows why.
        let mut case = case;
        case.snapshot.blocked.clear();
        case.is(WorkerBlocked, Who::Us, Confidence::Suspected, &["512 B lie in our own kernel"]);
    });
    let mut case = Case::new([stream(7, Side::Server)]);
    let second = crate::model::Blocked { worker: 0, blocked_ns: 2 * SECOND, ..sample::blocked() };
    case.snapshot.blocked = vec![sample::blocked(), second];
    let verdict =
        case.is(WorkerBlocked, Who::Us, Confidence::Proven, &["No worker of its runtime is free"]);
    assert_eq!(verdict.since_ns, 2 * SECOND);
}

/// A unary call whose handler waits for this.
fn handler(kind: WaitKind, resource: &str) -> (Stream, Task) {
    let mut call = unary(1, Side::Server);
    call.task = Some(TaskId(17));
    let mut task = waiting(17, "ledger::post", ("ledger", 204), kind, resource);
    (task.state_ns, task.stream) = (3 * SECOND, Some(StreamId(1)));
    task.wait.as_mut().unwrap().wait_ns = 3 * SECOND;
    (call, task)
}

#[test]
fn case_6b_a_handler_behind_a_lock_is_told_with_its_holder() {
    let (call, mut task) = handler(WaitKind::Mutex, "0x7f10");
    let holder = Holder {
        task: TaskId(23),
        local: Some("accounts".into()),
        location: Some(sample::place("src/audit.rs", 77)),
    };
    task.wait.as_mut().unwrap().about_mut().holders.push(holder);
    let holder = waiting(23, "audit::write", ("audit", 77), WaitKind::Sleep, "");
    let case = Case::new([call]).tasks([task, holder]);
    let verdict = case.is(
        HandlerWaiting,
        Who::Us,
        Confidence::Likely,
        &["mutex lock", "src/ledger.rs:204", "task 23 holds it", "`accounts`", "a sleep"],
    );
    assert_eq!(verdict.task, Some(TaskId(17)));
    // The holder is in a poll that does not return.
    let mut case = case;
    case.snapshot.blocked =
        vec![crate::model::Blocked { task: Some(TaskId(23)), stream: None, ..sample::blocked() }];
    case.is(HandlerWaiting, Who::Us, Confidence::Proven, &["task 23 holds it and has been in one"]);
    // A writer beside the reader of a bidi stream counts as well.
    case.snapshot.blocked.clear();
    (case.snapshot.streams[0], case.snapshot.streams[0].task) = (stream(1, Side::Server), None);
    assert_eq!(case.verdict().kind, HandlerWaiting);
}

#[test]
fn it_is_told_when_a_wait_will_have_lasted_long_enough() {
    let (call, mut task) = handler(WaitKind::Mutex, "mutex 0x7f10");
    let ripens = |call: &Stream, task: &Task| {
        let case = Case::new([call.clone()]).tasks([task.clone()]);
        (case.verdict().kind, Judge::new(&case.snapshot).ripens_in())
    };
    assert_eq!(ripens(&call, &task), (HandlerWaiting, None), "it has ripened");
    task.state_ns = 900 * MS;
    task.wait.as_mut().unwrap().wait_ns = 900 * MS;
    assert_eq!(ripens(&call, &task), (Healthy, Some(100 * MS)));
    // A sleep ends by itself, and is never held against anybody.
    let mut sleeps = task.clone();
    sleeps.wait.as_mut().unwrap().kind = WaitKind::Sleep;
    assert_eq!(ripens(&call, &sleeps), (Healthy, None));
    // The stream itself has not stood still for long enough.
    let young = Stream { phase_ns: 700 * MS, ..call };
    assert_eq!(ripens(&young, &task), (Healthy, Some(300 * MS)));
}

#[test]
fn case_6c_a_channel_that_nobody_else_writes_is_told() {
    let (call, mut task) = handler(WaitKind::MpscRecv, "0x7f40");
    task.wait.as_mut().unwrap().senders = Some(1);
    let mut sleep = sample::branch("lab::over", ("lab", 3), WaitKind::Sleep, "", false);
    sleep.wait.as_mut().unwrap().deadline_in_ns = Some(60 * SECOND as i64);
    task.branches = [sleep].into();
    let quiet = Case::new([call.clone()]).tasks([task.clone()]);
    assert_eq!(quiet.verdict().kind, Healthy, "somebody else may send: a slow answer");
    task.holds = [held(HeldKind::MpscSender, "0x7f40", "sender", "wait", ("lab", 9), false)].into();
    let says = ["chan receive", "src/ledger.rs:204", "only sender itself"];
    Case::new([call]).tasks([task]).is(HandlerWaiting, Who::Us, Confidence::Likely, &says);
}

#[test]
fn two_handlers_in_a_lock_cycle_are_proven() {
    let mut case = Case::new([unary(1, Side::Server)]).tasks(sample::stuck_server().tasks);
    case.snapshot.streams[0].task = Some(TaskId(17));
    let says = ["0x7f10", "task 23 holds it", "task 23 waits for a mutex"];
    case.is(HandlerWaiting, Who::Us, Confidence::Proven, &says);
}

#[test]
fn case_6d_an_answer_owed_for_long_is_suspected_and_a_long_poll_is_not() {
    let mut call = unary(1, Side::Server);
    assert_eq!(Case::new([call.clone()]).verdict().kind, Healthy, "three seconds are work");
    (call.age_ns, call.phase_ns) = (60 * SECOND, 11 * SECOND);
    let case = Case::new([call.clone()]);
    case.is(HandlerWaiting, Who::Us, Confidence::Suspected, &["owed for 11s"]);
    call.idle_expected = true;
    assert_eq!(Case::new([call]).verdict().kind, IdleByDesign);
    let mut call = unary(1, Side::Client);
    (call.age_ns, call.phase_ns) = (60 * SECOND, 50 * SECOND);
    assert_eq!(Case::new([call]).verdict().kind, WaitingForPeer, "the server owes");
}

#[test]
fn case_7a_a_stopped_process_on_an_idle_stream_is_frozen() {
    both(|side| {
        let case = Case::new([stream(1, side)])
            .silent(5 * SECOND)
            .http2(|http2| http2.ping_outstanding_ns = Some(2 * SECOND));
        let says = ["PING for 2.0s", "every byte of ours is acknowledged"];
        case.is(PeerFrozen, Who::Peer, Confidence::Likely, &says);
        // A frame that came after the PING went out: it lives.
        let case = case.silent(SECOND);
        assert_eq!(case.verdict().kind, WaitingForPeer);
    });
}

#[test]
fn case_7b_and_7c_a_blackhole_idle_and_flooding_is_the_network() {
    both(|side| {
        for stream in [stream(1, side), unread_by_peer(1, side)] {
            let case = Case::new([stream])
                .silent(5 * SECOND)
                .http2(|http2| http2.ping_outstanding_ns = Some(2 * SECOND))
                .tcp(|tcp| {
                    (tcp.unacked, tcp.retransmits, tcp.backoff) = (3, 4, 4);
                    tcp.last_ack_ago_ns = 5 * SECOND;
                });
            let says = ["No ACK has come for 5.0s", "3 segments", "4 retransmissions"];
            case.is(Network, Who::Network, Confidence::Likely, &says);
        }
        // Idle, and without keepalive: nothing can tell.
        let case = Case::new([stream(1, side)]).silent(10 * SECOND);
        assert_eq!(case.verdict().or, [PeerFrozen, Network]);
        // One lost packet after a rest is the network's ordinary business.
        let case = Case::new([stream(1, side)]).tcp(|tcp| {
            (tcp.unacked, tcp.retransmits, tcp.last_ack_ago_ns) = (1, 1, 5 * SECOND);
        });
        assert_eq!(case.verdict().kind, WaitingForPeer);
    });
}

#[test]
fn case_7f_a_process_that_does_not_read_its_socket_is_frozen() {
    both(|side| {
        let case = Case::new([send_blocked(1, side)])
            .silent(5 * SECOND)
            .connection(|connection| {
                connection.counters.as_mut().unwrap().write_blocked_ns = 4 * SECOND;
            })
            .tcp(|tcp| (tcp.send_window, tcp.notsent_bytes) = (Some(0), 84_000));
        let says = ["not read its socket for 4.0s", "82 KiB are queued", "window is 0 B"];
        case.is(PeerFrozen, Who::Peer, Confidence::Likely, &says);
        // With a window the reason is not known closer.
        let case = case.tcp(|tcp| tcp.send_window = Some(64_000));
        let verdict = case.is(TcpBackpressure, Who::Unknown, Confidence::Likely, &["82 KiB"]);
        assert_eq!(verdict.or, [Network, PeerFrozen]);
        // A unix socket has no TCP_INFO.
        let case = case.connection(|connection| connection.tcp = None);
        assert_eq!(case.verdict().kind, TcpBackpressure);
    });
}

#[test]
fn case_8_as_many_streams_as_the_peer_allows_are_open() {
    let mut call = unary(1, Side::Client);
    (call.phase, call.sent.body) = (Phase::Starting, BodyState::NeverPolled);
    call.wire = Some(StreamWire::default());
    let full = |http2: &mut Http2| (http2.peer_max_streams, http2.open_streams) = (Some(100), 100);
    let case = Case::new([call.clone()]).http2(full);
    let says = ["100 streams are open", "allows 100"];
    case.is(QueuedForSlot, Who::Peer, Confidence::Likely, &says);
    // Nothing of it is joined to the wire, but its connection is known.
    call.wire = None;
    assert_eq!(Case::new([call.clone()]).http2(full).verdict().kind, QueuedForSlot);
    let verdict = Case::new([call.clone()]).verdict();
    assert_eq!((verdict.kind, verdict.or), (Unknown, vec![QueuedForSlot, Network]));
    call.age_ns = SECOND / 2;
    assert_eq!(Case::new([call]).http2(full).verdict().kind, Healthy, "it has just begun");
}

#[test]
fn case_8b_a_stream_that_outlives_its_reset_or_connection_has_leaked() {
    both(|side| {
        // A caller may take its time to notice.
        let (long, says) = match side {
            Side::Server => (2 * SECOND, "reset it (CANCEL) 2.0s ago"),
            Side::Client => (12 * SECOND, "reset it (CANCEL) 12s ago"),
        };
        let reset = |by_peer, code, ago_ns| {
            let mut stream = stream(1, side);
            stream.age_ns = 60 * SECOND;
            let wire = stream.wire.as_mut().unwrap();
            wire.reset = Some(WireReset { by_peer, code, ago_ns });
            Case::new([stream])
        };
        reset(true, 8, long).is(Leaked, Who::Us, Confidence::Proven, &[says]);
        assert_eq!(reset(false, 2, long).verdict().kind, Leaked);
        assert_ne!(reset(false, 2, long / 3).verdict().kind, Leaked);
        let mut answered = reset(true, 0, long);
        answered.snapshot.streams[0].wire.as_mut().unwrap().end_received = true;
        assert_ne!(answered.verdict().kind, Leaked, "NO_ERROR only stops our request");
        let mut stream = stream(1, side);
        stream.age_ns = 60 * SECOND;
        let case = Case::new([stream]).connection(|connection| {
            connection.closed = true;
            let counters = connection.counters.as_mut().unwrap();
            (counters.last_read_ago_ns, counters.last_write_ago_ns) =
                (Some(long), Some(20 * SECOND));
        });
        let verdict = case.is(Leaked, Who::Us, Confidence::Proven, &["connection is closed"]);
        assert_eq!(verdict.since_ns, long);
    });
}

fn ended(ago: u64, live_tasks: u32) -> Stream {
    let mut stream = stream(1, Side::Server);
    (stream.phase, stream.received.body) = (Phase::Ended, BodyState::End);
    (stream.ended_ago_ns, stream.live_tasks) = (Some(ago), live_tasks);
    stream
}

#[test]
fn case_9_tasks_left_behind_by_an_ended_stream_have_leaked() {
    let case = Case::new([ended(4 * SECOND, 2)]);
    case.is(Leaked, Who::Us, Confidence::Proven, &["ended 4.0s ago", "2 tasks"]);
    assert_eq!(Case::new([ended(SECOND, 2)]).verdict().kind, Healthy, "it tidies up");
    assert_eq!(Case::new([ended(4 * SECOND, 0)]).verdict().kind, Healthy);
    // 9b: a task keeps the `Streaming` of a call that was cancelled.
    let mut kept = ended(4 * SECOND, 1);
    (kept.cancelled_ago_ns, kept.sent.messages) = (Some(4 * SECOND), 0);
    kept.received.body = BodyState::Pending;
    Case::new([kept]).is(Leaked, Who::Us, Confidence::Proven, &["messages are still held"]);
}

#[test]
fn case_9c_a_cancelled_call_that_goes_on_is_told() {
    both(|side| {
        let mut call = unary(1, side);
        call.cancelled_ago_ns = Some(2 * SECOND);
        call.cancel_reason = Some("reset by the peer".into());
        let says = ["2.0s ago (reset by the peer)", "not been dropped"];
        Case::new([call]).is(CancelledButRunning, Who::Us, Confidence::Proven, &says);
    });
    // Its handler was dropped before it could answer, a task of it goes on.
    let mut call = ended(4 * SECOND, 1);
    (call.cancelled_ago_ns, call.sent.messages) = (Some(4 * SECOND), 0);
    let verdict = Case::new([call]).is(CancelledButRunning, Who::Us, Confidence::Likely, &[]);
    assert_eq!(verdict.or, [Leaked]);
}

#[test]
fn a_limit_of_ours_is_told() {
    let mut stream = stream(1, Side::Server);
    stream.throttled_ns = Some(2 * SECOND);
    Case::new([stream]).is(RateLimited, Who::Us, Confidence::Proven, &["token for 2.0s"]);
}

#[test]
fn an_application_that_leaves_its_heartbeat_unanswered_is_told_from_a_frozen_one() {
    both(|side| {
        let beat = Heartbeat {
            interval_ns: SECOND,
            outstanding_ns: Some(2 * SECOND),
            rtt_ns: Some(MS),
            answered_ago_ns: Some(3 * SECOND),
        };
        let case = Case::new([stream(1, side)]);
        let case = case.connection(|connection| connection.heartbeat = Some(beat));
        let closed = Case::new([stream(1, side)]).connection(|connection| {
            connection.heartbeat = case.snapshot.connections[0].heartbeat.clone();
            connection.http2.as_mut().unwrap().recv_window = 0;
        });
        assert_eq!(closed.verdict().kind, WaitingForPeer, "its answer may not come either");
        let says = ["heartbeat for 2.0s", "heard of 500ms ago"];
        case.is(PeerNotReading, Who::Peer, Confidence::Likely, &says);
        // Nothing was heard since: where PINGs are sent they will tell.
        let case = case.silent(5 * SECOND);
        assert_eq!(case.verdict().kind, WaitingForPeer);
        let case = case.http2(|http2| http2.ping_answered_ago_ns = None);
        let verdict = case.is(PeerFrozen, Who::Peer, Confidence::Suspected, &["nothing else"]);
        assert_eq!(verdict.or, [PeerNotReading, Network]);
    });
}

#[test]
fn without_windows_it_says_less_surely_and_names_the_others() {
    both(|side| {
        let mut stream = send_blocked(1, side);
        stream.wire = None;
        let mut case = Case::new([stream]).connection(|connection| {
            (connection.http2, connection.tcp) = (None, None);
        });
        let verdict =
            case.is(PeerNotReading, Who::Peer, Confidence::Suspected, &["the socket takes"]);
        assert_eq!(verdict.or, [ConnectionFlowControl, PeerFrozen, Network]);
        case.snapshot.connections.clear();
        assert_eq!(
            case.verdict().or,
            [ConnectionFlowControl, PeerFrozen, TcpBackpressure, Network]
        );
        // A reader of frames that has lost its place is worth as much.
        let case = Case::new([unread_by_peer(1, side)]).http2(|http2| http2.lost = true);
        assert_eq!(case.verdict().confidence, Confidence::Suspected);
    });
}

#[test]
fn windows_that_are_open_and_a_stream_that_does_not_go_is_unknown() {
    let mut case = Case::new([send_blocked(1, Side::Server)]);
    let counters = |case: &mut Case, ago| {
        case.snapshot.connections[0].counters.as_mut().unwrap().last_write_ago_ns = Some(ago);
    };
    counters(&mut case, SECOND / 2);
    assert_eq!(case.verdict().kind, Healthy, "a narrow path that others use as well");
    counters(&mut case, 3 * SECOND);
    let verdict = case.verdict();
    assert_eq!((verdict.kind, verdict.who), (Unknown, Who::Unknown));
    assert_eq!(verdict.or, [WorkerBlocked, TcpBackpressure]);
}

#[test]
fn healthy_traffic_is_never_an_alarm() {
    both(|side| {
        let hour = 3_600 * SECOND;
        // Idle streams, whoever waits.
        for (phase, body) in [
            (Phase::AwaitRecv, BodyState::Pending),
            (Phase::AwaitProduce, BodyState::Pending),
            (Phase::Handler, BodyState::Taken),
            (Phase::AwaitHeaders, BodyState::NeverPolled),
        ] {
            let mut idle = stream(1, side);
            (idle.age_ns, idle.phase, idle.phase_ns) = (2 * hour, phase, hour);
            (idle.received.body, idle.received.body_ns) = (body, hour);
            for ago in [SECOND / 10, hour] {
                let verdict = Case::new([idle.clone()]).silent(ago).verdict();
                assert!(!verdict.kind.is_alarm(), "{phase:?} {verdict:#?}");
            }
        }
        // A burst has just filled every window.
        let mut burst = unread_by_peer(1, side);
        burst.sent.body_ns = 300 * MS;
        burst.wire.as_mut().unwrap().send_window_closed_ns = Some(300 * MS);
        assert_eq!(Case::new([burst]).verdict().kind, Healthy);
        // A window used up with nothing more to send keeps nobody waiting.
        let mut even = unread_by_peer(1, side);
        (even.sent.body, even.phase) = (BodyState::Pending, Phase::AwaitRecv);
        even.sent.bytes = even.wire.as_ref().unwrap().data_sent;
        assert_eq!(Case::new([even]).verdict().kind, WaitingForPeer);
    });
}

#[test]
fn slow_consumers_on_either_side_are_healthy() {
    both(|side| {
        let event = |kind, ago_ns| StreamEvent { kind, ago_ns, bytes: 32_768 };
        let mut theirs = unread_by_peer(1, side);
        theirs.events = vec![
            event(StreamEventKind::WindowClosed, 9 * SECOND),
            event(StreamEventKind::WindowReceived, 6 * SECOND),
            event(StreamEventKind::WindowClosed, 3 * SECOND),
        ];
        let verdict = Case::new([theirs.clone()]).verdict();
        assert_eq!(verdict.kind, Healthy, "{}", verdict.evidence);
        // Three times as long is not what it did before.
        theirs.events[1].ago_ns = 8 * SECOND;
        assert_eq!(Case::new([theirs]).verdict().kind, PeerNotReading);

        let mut ours = unread_by_us(1, side);
        ours.events = [9, 6, 3].map(|ago| event(StreamEventKind::Recv, ago * SECOND)).into();
        assert_eq!(Case::new([ours]).verdict().kind, Healthy);
        let mut ours = unread_by_us(1, side);
        ours.task = Some(TaskId(5));
        let mut task = waiting(5, "feed::pace", ("feed", 9), WaitKind::Sleep, "");
        task.wait.as_mut().unwrap().deadline_in_ns = Some(2 * SECOND as i64);
        assert_eq!(Case::new([ours]).tasks([task]).verdict().kind, Healthy, "it sleeps and wakes");
    });
}

#[test]
fn a_method_declared_to_be_silent_is_idle_by_design() {
    both(|side| {
        let mut idle = stream(1, side);
        idle.idle_expected = true;
        Case::new([idle]).is(IdleByDesign, Who::Nobody, Confidence::Likely, &["declared"]);
    });
}

#[test]
fn time_in_which_the_whole_process_was_stopped_does_not_count() {
    both(|side| {
        let mut case = Case::new([unread_by_peer(1, side)]);
        case.snapshot.pauses = vec![Pause { paused_ns: 10 * SECOND, ended_ago_ns: SECOND / 2 }];
        assert!(!case.verdict().kind.is_alarm());
        case.snapshot.pauses[0].ended_ago_ns = 2 * SECOND;
        assert_eq!(case.verdict().kind, PeerNotReading);
    });
}

#[test]
fn who_spoke_last_is_said() {
    let mut stream = stream(1, Side::Server);
    stream.received.last_ago_ns = Some(2 * SECOND);
    let verdict = Case::new([stream.clone()]).verdict();
    assert!(verdict.evidence.contains("the client spoke last, 2.0s ago"), "{}", verdict.evidence);
    stream.sent.last_ago_ns = Some(SECOND);
    let verdict = Case::new([stream]).verdict();
    assert!(verdict.evidence.contains("we spoke last, 1.0s ago"), "{}", verdict.evidence);
}

#[test]
fn connections_of_other_ids_are_not_mixed_up() {
    let mut stream = unread_by_peer(1, Side::Server);
    stream.connection = Some(ConnectionId(77));
    let verdict = Case::new([stream]).verdict();
    assert_eq!((verdict.kind, verdict.confidence), (PeerNotReading, Confidence::Likely));
}
