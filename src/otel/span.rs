//! A stream that has ended as a span, by OpenTelemetry's semantic conventions
//! for RPC.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks,
};

use super::notes::{Note, Told};
use crate::model::{
    EndedStream, Side, Stream, StreamEvent, StreamEventKind, Timestamp, TraceContext, code_name,
};

const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;

/// Makes spans.
#[derive(Debug)]
pub struct Maker {
    ids: RandomIdGenerator,
    propagator: TraceContextPropagator,
    scope: InstrumentationScope,
}

impl Default for Maker {
    fn default() -> Self {
        Self {
            ids: RandomIdGenerator::default(),
            propagator: TraceContextPropagator::new(),
            scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

impl Maker {
    /// The span of a stream; ages count back from `at`. None where the caller
    /// has decided that its trace is not sampled.
    pub fn span(&self, at: Timestamp, ended: EndedStream, told: Told) -> Option<SpanData> {
        let parent = ended.trace.as_ref().and_then(|trace| self.parent(trace));
        let (trace_id, flags, state, parent_span_id) = match &parent {
            Some(parent) if !parent.is_sampled() => return None,
            Some(parent) => (
                parent.trace_id(),
                parent.trace_flags(),
                parent.trace_state().clone(),
                parent.span_id(),
            ),
            None => {
                (self.ids.new_trace_id(), TraceFlags::SAMPLED, TraceState::NONE, SpanId::INVALID)
            }
        };
        let stream = &ended.stream;
        let end_time = at.minus_ns(stream.ended_ago_ns.unwrap_or(0));
        let start_time = at.minus_ns(stream.age_ns);
        Some(SpanData {
            span_context: SpanContext::new(trace_id, self.ids.new_span_id(), flags, false, state),
            parent_span_id,
            parent_span_is_remote: parent.is_some(),
            span_kind: match stream.side {
                Side::Server => SpanKind::Server,
                Side::Client => SpanKind::Client,
            },
            name: stream.method.trim_start_matches('/').to_owned().into(),
            start_time,
            end_time: end_time.max(start_time),
            attributes: attributes(&ended),
            dropped_attributes_count: 0,
            events: events(at, stream, told),
            links: SpanLinks::default(),
            status: status(stream),
            instrumentation_scope: self.scope.clone(),
        })
    }

    fn parent(&self, trace: &TraceContext) -> Option<SpanContext> {
        let mut headers = HashMap::from([("traceparent".to_owned(), trace.parent.to_string())]);
        if let Some(state) = &trace.state {
            headers.insert("tracestate".to_owned(), state.to_string());
        }
        let context = self.propagator.extract_with_context(&Context::new(), &headers);
        let parent = context.span().span_context().clone();
        parent.is_valid().then_some(parent)
    }
}

/// The code that it ended with. Without trailers there is none: then a peer
/// that reset it has cancelled it, and anything else is unknown.
fn code(stream: &Stream) -> i32 {
    match &stream.status {
        Some(status) => status.code,
        None if stream.cancelled_ago_ns.is_some() => CANCELLED,
        None => UNKNOWN,
    }
}

/// A server is to blame for its own failures only; a client's call has failed
/// with any status but OK.
fn status(stream: &Stream) -> Status {
    let code = code(stream);
    let failed = match stream.side {
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        Side::Server => matches!(code, 2 | 4 | 12 | 13 | 14 | 15),
        Side::Client => code != 0,
    };
    if !failed {
        return Status::Unset;
    }
    let message = stream.status.as_ref().map(|status| status.message.to_string());
    let message = message.filter(|message| !message.is_empty());
    let reason = || stream.cancel_reason.as_ref().map(ToString::to_string);
    Status::error(message.or_else(reason).unwrap_or_else(|| code_name(code).to_owned()))
}

fn attributes(ended: &EndedStream) -> Vec<KeyValue> {
    let stream = &ended.stream;
    let mut list = vec![
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.grpc.status_code", i64::from(code(stream))),
    ];
    if let Some((service, method)) = stream.method.trim_start_matches('/').rsplit_once('/') {
        list.push(KeyValue::new("rpc.service", service.to_owned()));
        list.push(KeyValue::new("rpc.method", method.to_owned()));
    }
    let server = match stream.side {
        Side::Server => ended.local.as_deref().or(ended.endpoint.as_deref()),
        Side::Client => ended.endpoint.as_deref().or(stream.peer.as_deref()),
    };
    if let Some(server) = server {
        address(&mut list, "server.address", "server.port", server);
    }
    if let Some(peer) = stream.peer.as_deref()
        && peer.parse::<SocketAddr>().is_ok()
    {
        address(&mut list, "network.peer.address", "network.peer.port", peer);
        list.push(KeyValue::new("network.transport", "tcp"));
    }
    list.extend([
        KeyValue::new("taskprof.stream", stream.id.to_string()),
        KeyValue::new("taskprof.messages_sent", signed(stream.sent.messages)),
        KeyValue::new("taskprof.messages_received", signed(stream.received.messages)),
        KeyValue::new("taskprof.bytes_sent", signed(stream.sent.bytes)),
        KeyValue::new("taskprof.bytes_received", signed(stream.received.bytes)),
    ]);
    if let Some(wire) = stream.wire.as_ref().filter(|wire| wire.stream_id != 0) {
        list.push(KeyValue::new("taskprof.http2_stream", i64::from(wire.stream_id)));
    }
    if let Some(reason) = &stream.cancel_reason {
        list.push(KeyValue::new("taskprof.cancel_reason", reason.to_string()));
    }
    let metadata = stream.metadata.iter().map(|(key, value)| {
        KeyValue::new(format!("rpc.grpc.request.metadata.{key}"), value.to_string())
    });
    list.extend(metadata);
    list
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `HOST:PORT` in its two parts; a path, or a name without a port, is one.
fn address(list: &mut Vec<KeyValue>, host: &'static str, port: &'static str, text: &str) {
    let parts = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    match parts {
        Some((name, number)) => {
            let number: u16 = number;
            let name = name.trim_start_matches('[').trim_end_matches(']');
            list.push(KeyValue::new(host, name.to_owned()));
            list.push(KeyValue::new(port, i64::from(number)));
        }
        None => list.push(KeyValue::new(host, text.to_owned())),
    }
}

/// What the ring of a stream holds is its end; how many events went before is
/// known of messages, each of which was one.
fn events(at: Timestamp, stream: &Stream, told: Told) -> SpanEvents {
    let is_message =
        |event: &&StreamEvent| matches!(event.kind, StreamEventKind::Send | StreamEventKind::Recv);
    let kept = stream.events.iter().filter(is_message).count() as u64;
    let messages = stream.sent.messages.saturating_add(stream.received.messages);
    let mut events: Vec<Event> = stream.events.iter().map(|event| happened(at, event)).collect();
    events.extend(told.notes.iter().flat_map(verdict));
    events.sort_by_key(|event| event.timestamp);
    let dropped = messages.saturating_sub(kept).saturating_add(told.dropped.into());
    let mut list = SpanEvents::default();
    list.events = events;
    list.dropped_count = u32::try_from(dropped).unwrap_or(u32::MAX);
    list
}

fn happened(at: Timestamp, event: &StreamEvent) -> Event {
    let (name, unit) = match event.kind {
        StreamEventKind::Send => ("send", Some("taskprof.bytes")),
        StreamEventKind::Recv => ("receive", Some("taskprof.bytes")),
        StreamEventKind::WindowReceived => ("window update received", Some("taskprof.increment")),
        StreamEventKind::WindowSent => ("window update sent", Some("taskprof.increment")),
        StreamEventKind::WindowClosed => ("window closed", None),
        StreamEventKind::EndSent => ("end sent", None),
        StreamEventKind::EndReceived => ("end received", None),
        StreamEventKind::Reset => ("reset", Some("taskprof.http2_error")),
    };
    let attributes = unit.map(|unit| KeyValue::new(unit, i64::from(event.bytes)));
    Event::new(name, at.minus_ns(event.ago_ns), attributes.into_iter().collect(), 0)
}

/// When it came to a standstill, and what was said of it; or that it is over.
fn verdict(note: &Note) -> impl Iterator<Item = Event> {
    let verdict = &note.verdict;
    let who = serde_json::to_value(verdict.who).ok();
    let who = who.as_ref().and_then(|who| who.as_str()).unwrap_or("unknown").to_owned();
    let attributes = vec![
        KeyValue::new("taskprof.verdict", verdict.kind.as_str()),
        KeyValue::new("taskprof.who", who),
        KeyValue::new("taskprof.evidence", verdict.evidence.clone()),
    ];
    let stall = verdict.kind.is_alarm().then(|| Event::new("stall", note.since, Vec::new(), 0));
    // Never before the standstill that it is about.
    let at = note.at.max(note.since + Duration::from_nanos(1));
    stall.into_iter().chain([Event::new("verdict", at, attributes, 0)])
}
