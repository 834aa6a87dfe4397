//! Spans and notes, from streams whose figures are known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use opentelemetry::Value;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

use super::export::Exporters;
use super::notes::{Note, Notes, Told};
use super::span::Maker;
use super::{OtelConfig, Streams, start};
use crate::error::{ErrorKind, Result};
use crate::model::{
    Confidence, EndedStream, Side, Snapshot, StreamEvent, StreamEventKind, StreamStatus, Timestamp,
    TraceContext, Verdict, VerdictKind, Who, sample,
};

const SECOND: u64 = 1_000_000_000;
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn ended(side: Side, code: i32) -> EndedStream {
    let mut stream = sample::stream(7, &"/pkg.Feed/Watch".into());
    stream.side = side;
    stream.age_ns = 10 * SECOND;
    stream.ended_ago_ns = Some(SECOND);
    stream.peer = Some("192.0.2.9:4711".into());
    stream.status = Some(StreamStatus::new(code, "why"));
    (stream.sent.messages, stream.received.messages) = (5, 3);
    stream.events =
        vec![StreamEvent { kind: StreamEventKind::Send, ago_ns: 2 * SECOND, bytes: 12 }];
    let (local, endpoint) = (Some("[::1]:50051".into()), Some("feed.example:443".into()));
    EndedStream { stream, trace: None, local, endpoint }
}

fn of<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|one| one.key.as_str() == key).map(|one| &one.value)
}

fn text(value: &str) -> Value {
    value.to_owned().into()
}

#[test]
fn a_stream_is_a_span_from_its_begin_to_its_end() {
    let (maker, at) = (Maker::default(), Timestamp::now());
    let span = maker.span(at, ended(Side::Server, 0), Told::default()).unwrap();
    assert_eq!((&*span.name, &span.span_kind), ("pkg.Feed/Watch", &SpanKind::Server));
    assert_eq!((span.start_time, span.end_time), (at.minus_ns(10 * SECOND), at.minus_ns(SECOND)));
    assert_eq!(of(&span, "rpc.service"), Some(&text("pkg.Feed")));
    assert_eq!(of(&span, "rpc.method"), Some(&text("Watch")));
    assert_eq!(of(&span, "rpc.grpc.status_code"), Some(&0_i64.into()));
    assert_eq!(of(&span, "server.address"), Some(&text("::1")));
    assert_eq!(of(&span, "server.port"), Some(&50_051_i64.into()));
    assert_eq!(of(&span, "network.peer.address"), Some(&text("192.0.2.9")));
    // Of eight messages one is in the ring.
    assert_eq!((span.events.len(), span.events.dropped_count), (1, 7));
    assert_eq!((&*span.events[0].name, span.status), ("send", Status::Unset));
    let span = maker.span(at, ended(Side::Client, 5), Told::default()).unwrap();
    assert_eq!((&span.status, span.span_kind.clone()), (&Status::error("why"), SpanKind::Client));
    assert_eq!(of(&span, "server.address"), Some(&text("feed.example")));
    let span = maker.span(at, ended(Side::Server, 5), Told::default()).unwrap();
    assert_eq!(span.status, Status::Unset, "not the server's failure");
    let span = maker.span(at, ended(Side::Server, 13), Told::default()).unwrap();
    assert_eq!(span.status, Status::error("why"));
}

#[test]
fn the_callers_trace_is_gone_on_with() {
    let maker = Maker::default();
    let with = |parent: &str| {
        let mut ended = ended(Side::Server, 0);
        ended.trace = Some(TraceContext { parent: parent.into(), state: Some("a=b".into()) });
        maker.span(Timestamp::now(), ended, Told::default())
    };
    let span = with(PARENT).unwrap();
    assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(span.span_context.trace_state().get("a"), Some("b"));
    assert!(span.parent_span_is_remote && span.span_context.is_valid());
    assert!(with(&PARENT.replace("-01", "-00")).is_none(), "not sampled");
    for nonsense in ["", "00-xyz-1-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"] {
        let span = with(nonsense).unwrap();
        assert!(!span.parent_span_is_remote && span.span_context.is_valid(), "{nonsense}");
    }
}

#[test]
fn verdicts_are_events_at_their_time() {
    let at = Timestamp::now();
    let verdict = |kind, since_ns| Verdict {
        kind,
        who: Who::Peer,
        since_ns,
        confidence: Confidence::Proven,
        evidence: "it does not read".into(),
        or: Vec::new(),
        told_apart_by: None,
        hog: None,
        task: None,
    };
    let note = |kind, seen: u64, since: u64| Note {
        at: at.minus_ns(seen * SECOND),
        since: at.minus_ns(since * SECOND),
        verdict: verdict(kind, (since - seen) * SECOND),
    };
    let told = Told {
        notes: vec![note(VerdictKind::PeerNotReading, 6, 8), note(VerdictKind::Healthy, 3, 3)],
        dropped: 2,
    };
    let span = Maker::default().span(at, ended(Side::Server, 0), told).unwrap();
    let names: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["stall", "verdict", "verdict", "send"]);
    assert_eq!(span.events[0].timestamp, at.minus_ns(8 * SECOND));
    let said = |event: usize| span.events[event].attributes[0].value.to_string();
    assert_eq!((said(1), said(2)), ("peer_not_reading".into(), "healthy".into()));
    assert_eq!(span.events.dropped_count, 9);
}

#[test]
fn notes_are_taken_of_alarms_and_of_their_end() {
    let mut notes = Notes::default();
    let mut shot = sample::busy_server();
    let judged = |shot: &crate::model::Snapshot| crate::analyze::Judge::new(shot).stuck();
    let stuck = judged(&shot);
    let (&id, &kind) = stuck.iter().next().expect("one of them is stuck");
    notes.look(&shot);
    notes.look(&shot);
    for stream in &mut shot.streams {
        // Young enough to be healthy whatever else is said of it.
        (stream.age_ns, stream.phase_ns) = (1, 1);
        (stream.cancelled_ago_ns, stream.throttled_ns, stream.wire) = (None, None, None);
    }
    shot.blocked.clear();
    shot.workers.clear();
    shot.connections.clear();
    let healthy = !judged(&shot).contains_key(&id);
    notes.look(&shot);
    let told = notes.take(id);
    assert_eq!(told.notes[0].verdict.kind, kind);
    assert_eq!(told.notes.len(), 1 + usize::from(healthy), "{told:?}");
    assert_eq!(notes.take(id), Told::default());
}

#[tokio::test]
async fn addresses_that_are_none_are_refused() {
    for url in ["", "127.0.0.1:4317", "https://collector:4317", "http://", "ftp://x"] {
        for config in [OtelConfig::new().otlp(url), OtelConfig::new().zipkin(url)] {
            let error = Exporters::new(&config, "x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}: {error}");
        }
    }
    let both = OtelConfig::new().otlp("http://127.0.0.1:4317").zipkin("http://127.0.0.1:9411");
    Exporters::new(&both, "x").unwrap();
}

/// Streams whose first look panics; tells of each look, and of what was caught.
struct Panicking {
    looked: AtomicBool,
    tell: Sender<&'static str>,
}

impl Streams for Panicking {
    fn snapshot(&self) -> Result<Snapshot> {
        let first = !self.looked.swap(true, Ordering::SeqCst);
        let _ = self.tell.send("look");
        assert!(!first, "the first look");
        Ok(sample::busy_server())
    }

    fn ended(&self, _: usize) -> (Timestamp, Vec<EndedStream>) {
        (Timestamp::now(), Vec::new())
    }

    fn exported(&self, _: u64, _: u64) {}

    fn panicked(&self) {
        let _ = self.tell.send("panic");
    }
}

#[test]
fn a_look_that_panics_is_counted_and_not_the_last() {
    let (tell, told) = channel();
    let streams = Arc::new(Panicking { looked: AtomicBool::new(false), tell });
    // It is not connected to before there are spans.
    let config = OtelConfig::new().otlp("http://127.0.0.1:9");
    let exporting = start(&config, "x", streams).unwrap();
    for expected in ["look", "panic", "look"] {
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(expected));
    }
    drop(exporting);
}
