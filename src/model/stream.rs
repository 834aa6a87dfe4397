//! gRPC streams (calls) and the connections that carry them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ConnectionId, EndpointId, Heartbeat, Http2, StreamEvent, StreamId, StreamWire, TaskId, TcpInfo,
};

/// Which end of the stream this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// We answer the call.
    Server,
    /// We made the call.
    Client,
}

impl Side {
    /// The word used in JSON and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// The kind of method. Without the service's descriptors it is unknown: the
/// wire does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // gRPC's own four names
pub enum StreamKind {
    Unary,
    ClientStreaming,
    ServerStreaming,
    Bidi,
    Unknown,
}

/// Stream state in the sense of RFC 9113, section 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Http2State {
    /// Both sides may send.
    Open,
    /// We have sent our END_STREAM; the peer may still send.
    HalfClosedLocal,
    /// The peer has sent its END_STREAM; we may still send.
    HalfClosedRemote,
    /// Both are done.
    Closed,
    /// Ended by RST_STREAM, a lost connection or a dropped body.
    Reset,
}

/// What a stream is in now, as the bodies and the handler show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Accepted or sent; nobody has polled it yet.
    Starting,
    /// The handler works or waits on something that is not this stream.
    Handler,
    /// Waits for the next message (or the end) from the peer.
    AwaitRecv,
    /// Client: waits for the response headers.
    AwaitHeaders,
    /// Has handed over what it had; the transport has not asked for more:
    /// the peer or the network does not take it.
    AwaitSend,
    /// The transport asks for the next outgoing message; there is none yet.
    AwaitProduce,
    /// Both bodies are at their end.
    Ended,
}

impl Phase {
    /// The word used in JSON and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Handler => "handler",
            Self::AwaitRecv => "await_recv",
            Self::AwaitHeaders => "await_headers",
            Self::AwaitSend => "await_send",
            Self::AwaitProduce => "await_produce",
            Self::Ended => "ended",
        }
    }
}

/// Where the body of one direction stands.
///
/// ```text
///                   poll: Pending
///   NeverPolled ──────────────────▶ Pending ◀──┐
///        │                             │       │ poll: Pending
///        │ poll: Ready(frame)          ▼       │
///        └──────────────────────────▶ Taken ───┘  (Taken: a frame was handed over,
///        │                             │           nobody has asked for the next)
///        ├── end of stream ──▶ End     │
///        ├── error ──────────▶ Error   ├──▶ from Pending and Taken alike
///        └── dropped before ─▶ Dropped ┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum BodyState {
    /// Nobody has asked for a frame.
    #[default]
    NeverPolled = 0,
    /// Somebody waits for a frame.
    Pending = 1,
    /// A frame was handed over; nobody has asked for the next.
    Taken = 2,
    /// The end was seen.
    End = 3,
    /// It failed.
    Error = 4,
    /// It was dropped before its end.
    Dropped = 5,
}

impl BodyState {
    /// Nothing more will come of it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::End | Self::Error | Self::Dropped)
    }
}

/// Traffic in one direction. Messages are counted by their five-byte gRPC
/// prefix, bytes are those of the HTTP/2 body, prefix included. What is received,
/// and who begins to wait, has the time of the last look at the clock in the
/// same poll: times are exact to the length of a poll, or to 20 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Traffic {
    /// Whole messages.
    pub messages: u64,
    /// Body bytes.
    pub bytes: u64,
    /// How long ago the last bytes passed; absent before the first.
    pub last_ago_ns: Option<u64>,
    /// This direction has ended.
    pub ended: bool,
    /// Where its body stands.
    pub body: BodyState,
    /// For how long.
    pub body_ns: u64,
}

/// The deadline that the caller set with `grpc-timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Deadline {
    /// What the caller asked for.
    pub timeout_ns: u64,
    /// What is left; negative once it has passed.
    pub remaining_ns: i64,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct StreamStatus {
    /// gRPC status code, 0 to 16.
    pub code: i32,
    /// Its name, such as `DEADLINE_EXCEEDED`.
    pub name: Arc<str>,
    /// `grpc-message`, cut at 200 bytes.
    pub message: Arc<str>,
}

impl StreamStatus {
    /// A status with its standard name.
    pub fn new(code: i32, message: &str) -> Self {
        let mut end = message.len().min(200);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Self { code, name: code_name(code).into(), message: message[..end].into() }
    }
}

/// The name of a gRPC status code, as the gRPC specification writes it.
pub fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        2 => "UNKNOWN",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// One gRPC stream (one call).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Stream {
    /// Which.
    pub id: StreamId,
    /// Which end we are.
    pub side: Side,
    /// `/pkg.Service/Method`.
    pub method: Arc<str>,
    /// Kind of the method.
    pub kind: StreamKind,
    /// The other end's address, where known.
    pub peer: Option<Arc<str>>,
    /// Its connection, where known.
    pub connection: Option<ConnectionId>,
    /// The task that polls the handler, or that awaits the response.
    pub task: Option<TaskId>,
    /// HTTP/2 state.
    pub state: Http2State,
    /// What it is in now.
    pub phase: Phase,
    /// For how long.
    pub phase_ns: u64,
    /// Time since it began.
    pub age_ns: u64,
    /// From the peer to us.
    pub received: Traffic,
    /// From us to the peer.
    pub sent: Traffic,
    /// The caller's deadline.
    pub deadline: Option<Deadline>,
    /// How long ago it was cancelled: reset by the peer, dropped, timed out.
    pub cancelled_ago_ns: Option<u64>,
    /// Why it was cancelled, in a few words.
    pub cancel_reason: Option<Arc<str>>,
    /// Final status, once known.
    pub status: Option<StreamStatus>,
    /// How long ago it ended; absent while it lives.
    pub ended_ago_ns: Option<u64>,
    /// Live tasks that it caused, the one of `task` included.
    pub live_tasks: u32,
    /// Each Send and Recv is logged as a tracing event.
    pub logged: bool,
    /// For how long a limit of ours has kept it waiting for a token.
    pub throttled_ns: Option<u64>,
    /// Its method was declared to be silent for long by design.
    pub idle_expected: bool,
    /// What its frames show, where the socket is tapped and the two were joined.
    pub wire: Option<StreamWire>,
    /// The last things that happened to it, oldest first; a bounded number.
    pub events: Vec<StreamEvent>,
    /// Request metadata, only the keys on the allow-list.
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
}

/// The trace that a caller's request belongs to (W3C Trace Context), as it was
/// sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// `traceparent`.
    pub parent: Box<str>,
    /// `tracestate`.
    pub state: Option<Box<str>>,
}

/// A stream that has ended, with what else its span tells.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedStream {
    /// The stream.
    pub stream: Stream,
    /// What the caller sent.
    pub trace: Option<TraceContext>,
    /// Our address, of its connection.
    pub local: Option<Arc<str>>,
    /// The name of its server or channel.
    pub endpoint: Option<Arc<str>>,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Transport {
    Tcp,
    Unix,
    Unknown,
}

/// Bytes through a socket; only where the accept loop or connector is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ConnectionCounters {
    /// Bytes read from the socket.
    pub read_bytes: u64,
    /// Bytes the kernel took.
    pub written_bytes: u64,
    /// How long ago the last read brought bytes.
    pub last_read_ago_ns: Option<u64>,
    /// How long ago the kernel last took bytes.
    pub last_write_ago_ns: Option<u64>,
    /// For how long the socket has refused bytes we want to write; 0 if it does not.
    pub write_blocked_ns: u64,
}

/// Calls, counted where they begin and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Calls {
    /// Begun.
    pub started: u64,
    /// Ended with status OK.
    pub succeeded: u64,
    /// Ended with any other status, or with none.
    pub failed: u64,
    /// How long ago the last one began.
    pub last_started_ago_ns: Option<u64>,
}

/// A gRPC server of this process, or a channel of a client in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Endpoint {
    /// Which.
    pub id: EndpointId,
    /// A server, or a client's channel.
    pub side: Side,
    /// Where a server listens; what a channel was told to connect to. Absent
    /// for a server whose accept loop is not ours.
    pub name: Option<Arc<str>>,
    /// Its calls.
    pub calls: Calls,
}

/// What the calls of a connection add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ConnectionTotals {
    /// Streams that ended with the server's END_STREAM.
    pub streams_succeeded: u64,
    /// Streams that ended without it.
    pub streams_failed: u64,
    /// How long ago the last stream began.
    pub last_stream_ago_ns: Option<u64>,
    /// Messages handed to the transport.
    pub messages_sent: u64,
    /// Messages handed to the application.
    pub messages_received: u64,
    /// How long ago bytes of a message were last handed to the transport.
    pub last_sent_ago_ns: Option<u64>,
    /// How long ago bytes of a message were last handed to the application.
    pub last_received_ago_ns: Option<u64>,
}

/// One transport connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Connection {
    /// Which.
    pub id: ConnectionId,
    /// Which end we are.
    pub side: Side,
    /// What carries it.
    pub transport: Transport,
    /// Our address.
    pub local: Option<Arc<str>>,
    /// The other end's address.
    pub peer: Option<Arc<str>>,
    /// Time since it was accepted, opened or first seen.
    pub age_ns: u64,
    /// Streams alive on it.
    pub streams: u64,
    /// Streams ever started on it.
    pub streams_total: u64,
    /// The task that drives it, where that is known.
    pub task: Option<TaskId>,
    /// Its end was seen: what still lists it are streams that live on.
    pub closed: bool,
    /// Bytes were encrypted by TLS between the tap and the socket.
    pub tls: bool,
    /// The server or channel it belongs to.
    #[serde(default)]
    pub endpoint: Option<EndpointId>,
    /// What its calls add up to, the live ones included.
    #[serde(default)]
    pub totals: ConnectionTotals,
    /// Socket counters.
    pub counters: Option<ConnectionCounters>,
    /// What its frames show, where the socket is tapped.
    pub http2: Option<Http2>,
    /// What the kernel says, where it is TCP and tapped.
    pub tcp: Option<TcpInfo>,
    /// The application heartbeat, where one runs.
    pub heartbeat: Option<Heartbeat>,
}
