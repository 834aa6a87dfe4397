//! What it costs to judge every stream: a sweep over 10,000 of them.
//!
//! `cargo bench --bench verdict`. The snapshot is made by hand: 100 streams on
//! each of 100 connections, with windows, events and TCP figures, in all the
//! ways to be stuck that a sweep meets. A sweep builds the indexes, as each
//! answer does, and takes the kind of every verdict; the words are told for
//! one page of 200.

mod common;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use common::{either, headline, median, spread, verdict};
use taskprof::Judge;
use taskprof::model::{
    BodyState, Connection, ConnectionCounters, ConnectionId, ConnectionTotals, Counters, Coverage,
    History, Http2, Http2State, Phase, Process, Side, Snapshot, Stream, StreamEvent,
    StreamEventKind, StreamId, StreamKind, StreamWire, TcpInfo, Traffic, Transport,
};

const STREAMS: u64 = 10_000;
const A_CONNECTION: u64 = 100;
/// Rows of a page, told in words.
const PAGE: usize = 200;
const SECOND: u64 = 1_000_000_000;
/// Milliseconds for a sweep.
const MOST: f64 = 10.0;

fn main() {
    headline("verdicts");
    let snapshot = snapshot();
    let sweeps: Vec<f64> = (0..either(200, 30)).map(|_| timed(|| sweep(&snapshot))).collect();
    let (low, high) = spread(&sweeps);
    let middle = median(sweeps);
    println!(
        "a sweep over {STREAMS} streams: {middle:.2} ms ({low:.2} to {high:.2}); \
         goal {MOST} ms: {}",
        verdict(middle <= MOST)
    );
    let pages: Vec<f64> = (0..either(200, 30)).map(|_| timed(|| page(&snapshot))).collect();
    println!("a page of {PAGE} in words, indexes included: {:.2} ms", median(pages));
}

/// Milliseconds.
fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e3
}

fn sweep(snapshot: &Snapshot) {
    let judge = Judge::new(snapshot);
    let alarms = snapshot.streams.iter().filter(|stream| judge.kind(stream).0.is_alarm()).count();
    assert!(black_box(alarms) > STREAMS as usize / 4, "{alarms} of them are stuck");
}

fn page(snapshot: &Snapshot) {
    let judge = Judge::new(snapshot);
    for stream in snapshot.streams.iter().take(PAGE) {
        black_box(judge.verdict(stream));
    }
}

fn snapshot() -> Snapshot {
    let method: Arc<str> = "/feed.v1.Feed/Watch".into();
    Snapshot {
        schema: 1,
        taken_at: SystemTime::UNIX_EPOCH.into(),
        process: Process {
            name: "bench".into(),
            pid: 1,
            boot_id: "0".into(),
            build_id: None,
            executable: "/bench".into(),
            uptime_ns: 3_600 * SECOND,
        },
        coverage: Coverage::default(),
        counters: Counters::default(),
        blocked_threshold_ns: SECOND / 10,
        runtimes: Vec::new(),
        workers: Vec::new(),
        blocked: Vec::new(),
        pauses: Vec::new(),
        endpoints: Vec::new(),
        connections: (0..STREAMS / A_CONNECTION).map(connection).collect(),
        streams: (0..STREAMS).map(|id| stream(id, &method)).collect(),
        ended_streams: Vec::new(),
        history: History::default(),
        tasks: Vec::new(),
    }
}

fn connection(id: u64) -> Connection {
    let send_window = if id.is_multiple_of(3) { 0 } else { 65_535 };
    Connection {
        id: ConnectionId(id),
        side: Side::Server,
        transport: Transport::Tcp,
        local: None,
        peer: None,
        age_ns: 60 * SECOND,
        streams: A_CONNECTION,
        streams_total: A_CONNECTION,
        task: None,
        closed: false,
        tls: false,
        endpoint: None,
        totals: ConnectionTotals::default(),
        counters: Some(ConnectionCounters {
            read_bytes: 1,
            written_bytes: 1,
            last_read_ago_ns: Some(SECOND),
            last_write_ago_ns: Some(SECOND),
            write_blocked_ns: if id.is_multiple_of(7) { 3 * SECOND } else { 0 },
        }),
        http2: Some(Http2 {
            send_window,
            recv_window: 65_535,
            send_window_closed_ns: (send_window == 0).then_some(3 * SECOND),
            peer_initial_window: 65_535,
            local_initial_window: 65_535,
            open_streams: A_CONNECTION,
            ping_answered_ago_ns: Some(SECOND),
            last_received_ago_ns: Some(SECOND),
            ..Http2::default()
        }),
        tcp: Some(TcpInfo { send_window: Some(65_535), send_mss: 1_460, ..TcpInfo::default() }),
        heartbeat: None,
    }
}

fn stream(id: u64, method: &Arc<str>) -> Stream {
    let body = if id.is_multiple_of(2) { BodyState::Taken } else { BodyState::Pending };
    let closed = id.is_multiple_of(4);
    let traffic = |body| Traffic {
        messages: 10,
        bytes: 65_535,
        last_ago_ns: Some(3 * SECOND),
        ended: false,
        body,
        body_ns: 3 * SECOND,
    };
    let event = |ago_ns| StreamEvent { kind: StreamEventKind::Send, ago_ns, bytes: 1_024 };
    Stream {
        id: StreamId(id),
        side: Side::Server,
        method: Arc::clone(method),
        kind: StreamKind::Bidi,
        peer: None,
        connection: Some(ConnectionId(id / A_CONNECTION)),
        task: None,
        state: Http2State::Open,
        phase: if body == BodyState::Taken { Phase::AwaitSend } else { Phase::AwaitRecv },
        phase_ns: 3 * SECOND,
        age_ns: 60 * SECOND,
        received: traffic(BodyState::Pending),
        sent: traffic(body),
        deadline: None,
        cancelled_ago_ns: None,
        cancel_reason: None,
        status: None,
        ended_ago_ns: None,
        live_tasks: 1,
        logged: false,
        throttled_ns: None,
        idle_expected: false,
        wire: Some(StreamWire {
            stream_id: id as u32,
            opened: true,
            send_window: if closed { 0 } else { 65_535 },
            recv_window: 65_535,
            data_sent: 65_535,
            data_received: 65_535,
            send_window_closed_ns: closed.then_some(3 * SECOND),
            ..StreamWire::default()
        }),
        events: (0..16).map(|at| event((20 - at) * SECOND)).collect(),
        metadata: BTreeMap::new(),
    }
}
