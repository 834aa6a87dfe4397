//! What a verdict rests on, before it is put into words.

use crate::model::{Blocked, Confidence, VerdictKind, Who, WireReset};

use super::Hog;
use super::handler::Knot;
use super::link::Link;

/// What was seen. Each has one kind of verdict and one sentence.
#[derive(Clone, Copy)]
pub enum Cause<'s> {
    /// It has ended, and left nothing behind.
    Over,
    /// It moves, or has not stood still for long.
    Moves,
    /// Its window closes and opens again, slowly.
    Slow { gap_ns: u64 },
    /// Our side reads, slowly.
    SlowReads { gap_ns: u64 },
    /// Its window is closed, and a PING is on its way that will say more.
    PingAwaited,
    /// Our handler works, as far as is known.
    Works,
    /// We have nothing to send.
    NothingToSay,
    /// The method is declared to be silent.
    Silent,
    /// The peer has to speak; when it last showed that it lives.
    PeerToSpeak { alive: Option<u64> },
    /// Its own task is in a poll that does not return.
    OwnPoll(&'s Blocked),
    /// The task of its connection is.
    LinkPoll(&'s Blocked),
    /// Every worker of its runtime is; the shortest.
    AllWorkers(&'s Blocked),
    /// A worker is, and what the connection's task leaves undone fits it.
    BehindPoll(&'s Blocked),
    /// It was cancelled, its handler was not dropped.
    Cancelled,
    /// It has ended, tasks of it have not, or its request is still held.
    LeftBehind { held: bool },
    /// RST_STREAM has passed.
    WasReset(&'s WireReset),
    /// Its connection is closed.
    TransportGone,
    /// A limit of ours.
    Throttled,
    /// As many streams as the peer allows are open.
    NoSlot { open: u64, most: u32 },
    /// The transport has not begun with it.
    NotDispatched,
    /// The kernel sends again and again, no ACK comes.
    Lossy(&'s Link<'s>),
    /// The peer's kernel has no room left: its process does not read.
    SocketUnread(&'s Link<'s>),
    /// Our kernel has bytes that our transport does not read.
    OwnSocketUnread(&'s Link<'s>),
    /// No answer to a PING.
    PingLate { link: &'s Link<'s>, blocked: bool },
    /// The application heartbeat is not answered; whether its transport has
    /// been heard of since.
    BeatLate { link: &'s Link<'s>, late_ns: u64, alive: bool },
    /// Our kernel takes no more bytes.
    SocketFull(&'s Link<'s>),
    /// The stream's own window is used up.
    WindowClosed { closed_ns: u64 },
    /// The connection's window is used up, and this stream is one of those
    /// that have.
    Hogs { bytes: u64 },
    /// The connection's window is used up by others.
    LinkWindowClosed { hog: Option<Hog> },
    /// Windows are open, the socket takes bytes, and nothing goes.
    Unsent { link: Option<&'s Link<'s>> },
    /// Not taken, and no windows are known.
    NotTaken { counted: bool },
    /// Bytes came that our side does not read.
    Unread { bytes: u64 },
    /// Our unread streams have used up what the peer may send.
    Starved { hog: Option<Hog> },
    /// A task of it waits for a lock, or for what cannot come.
    Knot(Knot<'s>),
    /// The answer is owed for long.
    Owes,
}

impl Cause<'_> {
    /// The kind of verdict.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Over
            | Self::Moves
            | Self::Slow { .. }
            | Self::SlowReads { .. }
            | Self::PingAwaited
            | Self::Works
            | Self::NothingToSay => VerdictKind::Healthy,
            Self::Silent => VerdictKind::IdleByDesign,
            Self::PeerToSpeak { .. } => VerdictKind::WaitingForPeer,
            Self::OwnPoll(_)
            | Self::LinkPoll(_)
            | Self::AllWorkers(_)
            | Self::BehindPoll(_)
            | Self::OwnSocketUnread(_) => VerdictKind::WorkerBlocked,
            Self::Cancelled => VerdictKind::CancelledButRunning,
            Self::LeftBehind { .. } | Self::WasReset(_) | Self::TransportGone => {
                VerdictKind::Leaked
            }
            Self::Throttled => VerdictKind::RateLimited,
            Self::NoSlot { .. } => VerdictKind::QueuedForSlot,
            Self::NotDispatched | Self::Unsent { .. } => VerdictKind::Unknown,
            Self::Lossy(_) => VerdictKind::Network,
            Self::SocketUnread(_) | Self::PingLate { .. } | Self::BeatLate { alive: false, .. } => {
                VerdictKind::PeerFrozen
            }
            Self::SocketFull(_) => VerdictKind::TcpBackpressure,
            Self::WindowClosed { .. }
            | Self::Hogs { .. }
            | Self::NotTaken { .. }
            | Self::BeatLate { .. } => VerdictKind::PeerNotReading,
            Self::LinkWindowClosed { .. } | Self::Starved { .. } => {
                VerdictKind::ConnectionFlowControl
            }
            Self::Unread { .. } => VerdictKind::HandlerNotReading,
            Self::Knot(_) | Self::Owes => VerdictKind::HandlerWaiting,
        }
    }

    /// On whose side it is.
    pub fn who(&self) -> Who {
        match self.kind() {
            VerdictKind::Healthy | VerdictKind::IdleByDesign => Who::Nobody,
            VerdictKind::WaitingForPeer
            | VerdictKind::PeerNotReading
            | VerdictKind::PeerFrozen
            | VerdictKind::QueuedForSlot => Who::Peer,
            VerdictKind::Network => Who::Network,
            VerdictKind::ConnectionFlowControl => match self {
                Self::Starved { .. } => Who::Us,
                _ => Who::Peer,
            },
            VerdictKind::HandlerNotReading
            | VerdictKind::HandlerWaiting
            | VerdictKind::WorkerBlocked
            | VerdictKind::RateLimited
            | VerdictKind::Leaked
            | VerdictKind::CancelledButRunning => Who::Us,
            VerdictKind::TcpBackpressure | VerdictKind::Unknown => Who::Unknown,
        }
    }
}

/// A cause, and how sure it is.
#[derive(Clone, Copy)]
pub struct Ruling<'s> {
    pub cause: Cause<'s>,
    pub since_ns: u64,
    pub confidence: Confidence,
    /// What would look the same from here.
    pub or: &'static [VerdictKind],
    /// What would tell those apart; empty if nothing has to.
    pub told_apart_by: &'static str,
}

impl<'s> Ruling<'s> {
    fn new(cause: Cause<'s>, since_ns: u64, confidence: Confidence) -> Self {
        Self { cause, since_ns, confidence, or: &[], told_apart_by: "" }
    }

    pub fn proven(cause: Cause<'s>, since_ns: u64) -> Self {
        Self::new(cause, since_ns, Confidence::Proven)
    }

    pub fn likely(cause: Cause<'s>, since_ns: u64) -> Self {
        Self::new(cause, since_ns, Confidence::Likely)
    }

    pub fn suspected(cause: Cause<'s>, since_ns: u64) -> Self {
        Self::new(cause, since_ns, Confidence::Suspected)
    }

    /// Names what else it may be.
    pub fn or(self, or: &'static [VerdictKind], told_apart_by: &'static str) -> Self {
        Self { or, told_apart_by, ..self }
    }
}
