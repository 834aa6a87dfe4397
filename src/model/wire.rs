//! What the HTTP/2 frames of a connection and the kernel's own figures show.
//!
//! Known only where the socket is tapped: with `Profiler::serve` on a server,
//! with `Profiler::connect` on a client. Windows are in the sense of RFC 9113,
//! section 6.9: they count what was handed to, or came from, the kernel.

use serde::{Deserialize, Serialize};

/// One stream as its frames show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct StreamWire {
    /// HTTP/2 stream id.
    pub stream_id: u32,
    /// Its first HEADERS frame has passed. A client's stream without one waits
    /// for a slot below the peer's SETTINGS_MAX_CONCURRENT_STREAMS.
    pub opened: bool,
    /// Bytes that we may still send by the stream's own window; it can be
    /// negative after the peer has shrunk its initial window.
    pub send_window: i64,
    /// Bytes that the peer may still send to us.
    pub recv_window: i64,
    /// DATA bytes that the kernel took from us, padding included.
    pub data_sent: u64,
    /// DATA bytes that came from the peer, padding included.
    pub data_received: u64,
    /// How long ago the last frame of this stream came from the peer.
    pub last_received_ago_ns: Option<u64>,
    /// How long ago the kernel took our last frame of this stream.
    pub last_sent_ago_ns: Option<u64>,
    /// How long ago the peer last enlarged this stream's window.
    pub window_update_ago_ns: Option<u64>,
    /// Since when the stream's own window has left us nothing to send with.
    pub send_window_closed_ns: Option<u64>,
    /// Our END_STREAM is out.
    pub end_sent: bool,
    /// The peer's END_STREAM has come, whether or not anybody has read up to it.
    pub end_received: bool,
    /// RST_STREAM, the first that passed.
    pub reset: Option<WireReset>,
}

/// One RST_STREAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct WireReset {
    /// The peer sent it; else we did.
    pub by_peer: bool,
    /// HTTP/2 error code (RFC 9113, section 7).
    pub code: u32,
    /// How long ago.
    pub ago_ns: u64,
}

/// One connection's HTTP/2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Http2 {
    /// Bytes that we may still send, over all streams.
    pub send_window: i64,
    /// Bytes that the peer may still send, over all streams.
    pub recv_window: i64,
    /// For how long the connection's window has left us nothing to send with.
    pub send_window_closed_ns: Option<u64>,
    /// The same for the peer: nobody on our side reads what it has sent.
    pub recv_window_closed_ns: Option<u64>,
    /// SETTINGS_INITIAL_WINDOW_SIZE of the peer: what its streams start with.
    pub peer_initial_window: u32,
    /// Ours.
    pub local_initial_window: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of the peer; absent if it sets none.
    pub peer_max_streams: Option<u32>,
    /// Ours.
    pub local_max_streams: Option<u32>,
    /// HTTP/2 streams open now, by the frames.
    pub open_streams: u64,
    /// For how long our PING has been without an answer.
    pub ping_outstanding_ns: Option<u64>,
    /// Round trip of the last answered PING.
    pub ping_rtt_ns: Option<u64>,
    /// How long ago a PING was last answered.
    pub ping_answered_ago_ns: Option<u64>,
    /// PINGs that we have sent, the answers to the peer's not counted.
    #[serde(default)]
    pub pings_sent: u64,
    /// How long ago any frame came from the peer.
    pub last_received_ago_ns: Option<u64>,
    /// GOAWAY, the last that passed.
    pub goaway: Option<Goaway>,
    /// RST_STREAM frames that came from the peer.
    pub resets_received: u64,
    /// RST_STREAM frames that we sent.
    pub resets_sent: u64,
    /// The reader of frames has lost its place, so that nothing here is true
    /// after that; the connection itself is not touched.
    pub lost: bool,
    /// Streams whose numbers were not kept for want of room.
    pub untracked: u64,
}

/// One GOAWAY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Goaway {
    /// The peer sent it; else we did.
    pub by_peer: bool,
    /// HTTP/2 error code.
    pub code: u32,
    /// The last stream that is still served.
    pub last_stream_id: u32,
    /// How long ago.
    pub ago_ns: u64,
}

/// What the kernel says of a TCP connection at the instant of the snapshot
/// (`struct tcp_info` of Linux's `tcp.h`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct TcpInfo {
    /// `TCP_ESTABLISHED` is 1.
    pub state: u8,
    /// Consecutive retransmissions of the same segment.
    pub retransmits: u8,
    /// Unanswered window or keepalive probes.
    pub probes: u8,
    /// Exponent of the back-off.
    pub backoff: u8,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Bytes in the send queue that were not sent yet.
    pub notsent_bytes: u32,
    /// Bytes that the peer has acknowledged, ever.
    pub bytes_acked: u64,
    /// Segments retransmitted, ever.
    pub total_retransmits: u32,
    /// Time since the last ACK came.
    pub last_ack_ago_ns: u64,
    /// Time since the last data came.
    pub last_data_received_ago_ns: u64,
    /// Time since data was last sent.
    pub last_data_sent_ago_ns: u64,
    /// Smoothed round trip.
    pub rtt_ns: u64,
    /// The peer's receive window, in bytes; absent on kernels that do not tell.
    pub send_window: Option<u32>,
    /// Our receive window, in bytes; absent on kernels that do not tell.
    pub recv_window: Option<u32>,
    /// Maximum segment size towards the peer.
    pub send_mss: u32,
    /// Bytes read from the kernel by nobody yet (SIOCINQ).
    pub unread_bytes: u32,
    /// The rest of the kernel's structure.
    #[serde(default)]
    pub more: TcpInfoMore,
}

/// Fields of `struct tcp_info` that no verdict rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct TcpInfoMore {
    /// State of the congestion control; `TCP_CA_Open` is 0.
    pub congestion_state: u8,
    /// `TCPI_OPT_*` that were negotiated, as bits.
    pub options: u8,
    /// Window scale of the peer.
    pub send_window_scale: u8,
    /// Ours.
    pub recv_window_scale: u8,
    /// Retransmission timeout.
    pub retransmit_timeout_ns: u64,
    /// Delay of our ACKs.
    pub ack_timeout_ns: u64,
    /// Maximum segment size that the peer is thought to use.
    pub recv_mss: u32,
    /// Segments acknowledged selectively.
    pub sacked: u32,
    /// Segments taken for lost.
    pub lost: u32,
    /// Segments in flight that are retransmissions.
    pub retransmitting: u32,
    /// Forward acknowledged segments; 0 on later kernels.
    pub fackets: u32,
    /// Path MTU.
    pub path_mtu: u32,
    /// Slow start threshold of our receive window, in bytes.
    pub recv_slow_start: u32,
    /// Mean deviation of the round trip.
    pub rtt_variation_ns: u64,
    /// Slow start threshold, in segments.
    pub send_slow_start: u32,
    /// Congestion window, in segments.
    pub congestion_window: u32,
    /// Maximum segment size that we advertise.
    pub advertised_mss: u32,
    /// Segments that may come out of order before one is taken for lost.
    pub reordering: u32,
}

/// An application heartbeat on a connection: a small call that the peer's own
/// tasks answer, where a PING is answered by its transport alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Heartbeat {
    /// How often one is due.
    pub interval_ns: u64,
    /// For how long the last one has been without an answer.
    pub outstanding_ns: Option<u64>,
    /// Round trip of the last answered one.
    pub rtt_ns: Option<u64>,
    /// How long ago one was last answered, or came from the peer.
    pub answered_ago_ns: Option<u64>,
}

/// One thing that happened to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct StreamEvent {
    /// What.
    pub kind: StreamEventKind,
    /// How long ago.
    pub ago_ns: u64,
    /// Bytes: of the message, of the DATA, or of the window's increment.
    pub bytes: u32,
}

/// What can happen to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StreamEventKind {
    /// A message was handed to the transport.
    Send,
    /// A message was handed to the application.
    Recv,
    /// The peer enlarged the stream's window.
    WindowReceived,
    /// We enlarged the stream's window.
    WindowSent,
    /// Its own window left us nothing more to send with.
    WindowClosed,
    /// Our END_STREAM or the end of what we send.
    EndSent,
    /// The peer's END_STREAM, or the end of what it sends.
    EndReceived,
    /// RST_STREAM, either way.
    Reset,
}
