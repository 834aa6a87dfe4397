//! Which side of a stream is stuck, and why.

use serde::{Deserialize, Serialize};

use super::{Confidence, StreamId, TaskId};

/// What holds a stream up. A closed set: programs may match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// It moves, or has not stood still long enough to say more.
    Healthy,
    /// It is silent, and its method is declared to be silent for long.
    IdleByDesign,
    /// Nothing is missing on our side: the peer has to speak next.
    WaitingForPeer,
    /// The peer's transport answers, its application does not read this stream.
    PeerNotReading,
    /// The peer's process stands still: its kernel answers, it does not.
    PeerFrozen,
    /// What we send is not acknowledged: packets are lost, or the path is cut.
    Network,
    /// The connection's window is used up by other streams.
    ConnectionFlowControl,
    /// The socket takes no more bytes, for no reason that can be told closer.
    TcpBackpressure,
    /// The peer has sent; our handler (or our caller) does not read.
    HandlerNotReading,
    /// Our handler waits for something that is not this stream.
    HandlerWaiting,
    /// A worker of ours is blocked with this stream's task on it, or with its
    /// connection's.
    WorkerBlocked,
    /// The peer allows no more concurrent streams on the connection.
    QueuedForSlot,
    /// A limit of ours delays it.
    RateLimited,
    /// Its transport is gone, our objects live on.
    Leaked,
    /// It was cancelled; its handler goes on.
    CancelledButRunning,
    /// It does not move, and the signals do not say why.
    Unknown,
}

impl VerdictKind {
    /// All of them, in the order above.
    pub const ALL: [Self; 16] = [
        Self::Healthy,
        Self::IdleByDesign,
        Self::WaitingForPeer,
        Self::PeerNotReading,
        Self::PeerFrozen,
        Self::Network,
        Self::ConnectionFlowControl,
        Self::TcpBackpressure,
        Self::HandlerNotReading,
        Self::HandlerWaiting,
        Self::WorkerBlocked,
        Self::QueuedForSlot,
        Self::RateLimited,
        Self::Leaked,
        Self::CancelledButRunning,
        Self::Unknown,
    ];

    /// The word used in JSON, in labels and in filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::IdleByDesign => "idle_by_design",
            Self::WaitingForPeer => "waiting_for_peer",
            Self::PeerNotReading => "peer_not_reading",
            Self::PeerFrozen => "peer_frozen",
            Self::Network => "network",
            Self::ConnectionFlowControl => "connection_flow_control",
            Self::TcpBackpressure => "tcp_backpressure",
            Self::HandlerNotReading => "handler_not_reading",
            Self::HandlerWaiting => "handler_waiting",
            Self::WorkerBlocked => "worker_blocked",
            Self::QueuedForSlot => "queued_for_slot",
            Self::RateLimited => "rate_limited",
            Self::Leaked => "leaked",
            Self::CancelledButRunning => "cancelled_but_running",
            Self::Unknown => "unknown",
        }
    }

    /// Whether somebody should look at it. The healthy ones, and those that
    /// merely wait for a peer that may have nothing to say, are no alarm.
    pub fn is_alarm(self) -> bool {
        !matches!(self, Self::Healthy | Self::IdleByDesign | Self::WaitingForPeer)
    }
}

/// On whose side the cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Nobody: it moves, or is meant to be silent.
    Nobody,
    /// This process.
    Us,
    /// The other end's application or process.
    Peer,
    /// What lies between.
    Network,
    /// It cannot be told.
    Unknown,
}

/// The verdict on one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Verdict {
    /// What holds it up.
    pub kind: VerdictKind,
    /// On whose side that is.
    pub who: Who,
    /// For how long.
    pub since_ns: u64,
    /// How sure that is.
    pub confidence: Confidence,
    /// The reason in one sentence, with its figures.
    pub evidence: String,
    /// What else would look the same from here; empty if nothing does.
    pub or: Vec<VerdictKind>,
    /// What would tell those apart.
    pub told_apart_by: Option<String>,
    /// The stream that uses up what this one lacks.
    pub hog: Option<StreamId>,
    /// The task of ours that is to blame, or that waits.
    pub task: Option<TaskId>,
}
