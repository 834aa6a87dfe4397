//! Which side of a stream is stuck: the verdict on each, from a snapshot alone.
//!
//! The questions are asked in one order, and the first that is answered with
//! yes decides: what follows from certain knowledge before what is concluded,
//! our own faults before those of others, the whole connection before one
//! stream. A stream is judged once it has stood still for a second. What moves
//! slowly but steadily is healthy, and so is what merely waits: a false alarm
//! costs more than a silence.
//!
//! ```text
//!  a poll of ours does not return ─▶ worker_blocked
//!  its end was seen, it lives on ──▶ cancelled_but_running, leaked
//!  not begun ──────────────────────▶ rate_limited, queued_for_slot
//!  no ACK, or no PONG ─────────────▶ network, peer_frozen
//!  what we send is not taken ──────▶ tcp_backpressure, peer_not_reading,
//!                                    connection_flow_control
//!  what came is not read ──────────▶ handler_not_reading, connection_flow_control
//!  we owe something ───────────────▶ handler_waiting
//!  nothing of this ────────────────▶ waiting_for_peer, idle_by_design, healthy
//! ```

mod cause;
mod evidence;
mod flow;
mod handler;
mod link;
mod rules;

use std::cell::OnceCell;
use std::collections::HashMap;

use crate::model::{ConnectionId, Phase, Side, Snapshot, Stream, StreamId, Verdict, VerdictKind};

use cause::{Cause, Ruling};
use handler::{Blocks, Tasks};
use link::Link;

/// A stream that has stood still for less is not judged.
pub const STILL_NS: u64 = 1_000_000_000;
/// An answer owed for longer is worth a look, though it may be a long poll.
pub const OWED_NS: u64 = 10_000_000_000;

/// Judges the streams of one snapshot. Its indexes are built once.
pub struct Judge<'a> {
    snapshot: &'a Snapshot,
    links: HashMap<ConnectionId, Link<'a>>,
    blocks: Blocks<'a>,
    /// Read only when a verdict hangs on it.
    tasks: OnceCell<Tasks>,
}

impl<'a> Judge<'a> {
    /// Reads connections, blocked workers and who uses up each window.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let blocks = Blocks::of(snapshot);
        let mut links: HashMap<ConnectionId, Link<'a>> = snapshot
            .connections
            .iter()
            .map(|connection| (connection.id, Link::new(connection, snapshot)))
            .collect();
        for stream in &snapshot.streams {
            if let Some(link) = stream.connection.and_then(|id| links.get_mut(&id)) {
                link.weigh(stream);
            }
        }
        Self { snapshot, links, blocks, tasks: OnceCell::new() }
    }

    /// What holds a stream of this snapshot up, and for how long.
    pub fn kind(&self, stream: &Stream) -> (VerdictKind, u64) {
        let ruling = self.rule(stream);
        (ruling.cause.kind(), ruling.since_ns.min(stream.age_ns))
    }

    /// The same with the reason, in words.
    pub fn verdict(&self, stream: &Stream) -> Verdict {
        let ruling = self.rule(stream);
        evidence::verdict(self, stream, &ruling)
    }

    /// What a task of ours waits for would make the verdict on this stream
    /// surer: worth a snapshot with await chains.
    pub fn wants_tasks(&self, stream: &Stream) -> bool {
        stream.ended_ago_ns.is_none()
            && stream.side == Side::Server
            && self.long(stream.phase_ns)
            && self.blocks.of_stream(stream).is_none()
            && match self.kind(stream).0 {
                VerdictKind::Healthy => {
                    matches!(stream.phase, Phase::Handler | Phase::AwaitProduce)
                }
                VerdictKind::HandlerNotReading | VerdictKind::HandlerWaiting => true,
                _ => false,
            }
    }

    /// In how many nanoseconds from this snapshot on time alone may make some
    /// verdict another: a stream, or the task that one waits for, will then
    /// have stood still for long enough to be judged.
    pub fn ripens_in(&self) -> Option<u64> {
        let ripens = |stream| {
            let rest = |ns| STILL_NS.saturating_sub(self.awake(ns));
            match self.wants_tasks(stream) {
                true => self.locked_for(stream).map(rest),
                false => Some(rest(stream.phase_ns)).filter(|&rest| rest > 0),
            }
        };
        self.snapshot.streams.iter().filter_map(ripens).min()
    }

    /// The live streams that are stuck, by their verdicts.
    pub fn stuck(&self) -> HashMap<StreamId, VerdictKind> {
        let streams = self.snapshot.streams.iter().map(|stream| (stream.id, self.kind(stream).0));
        streams.filter(|(_, kind)| kind.is_alarm()).collect()
    }

    /// Of a connection, the stream whose bytes the peer has read least of, and
    /// the one that our side has; each with the bytes unread.
    pub fn hogs(&self, connection: ConnectionId) -> (Option<Hog>, Option<Hog>) {
        self.links.get(&connection).map_or((None, None), |link| (link.send_hog, link.recv_hog))
    }

    fn tasks(&self) -> &Tasks {
        self.tasks.get_or_init(|| Tasks::of(self.snapshot))
    }

    /// Time that something has lasted, without that in which the whole process
    /// was stopped: nobody could move then.
    fn awake(&self, ns: u64) -> u64 {
        let asleep: u64 = self
            .snapshot
            .pauses
            .iter()
            .map(|pause| pause.paused_ns.min(ns.saturating_sub(pause.ended_ago_ns)))
            .fold(0, u64::saturating_add);
        ns.saturating_sub(asleep)
    }

    fn long(&self, ns: u64) -> bool {
        ns >= STILL_NS && self.awake(ns) >= STILL_NS
    }

    fn rule<'s>(&'s self, stream: &'s Stream) -> Ruling<'s> {
        if let Some(ago) = stream.ended_ago_ns {
            return self.ended(stream, ago);
        }
        let link = stream.connection.and_then(|id| self.links.get(&id));
        let own = self.blocked(stream, link).or_else(|| self.over(stream, link));
        if let Some(ruling) = own {
            return ruling;
        }
        if !self.long(stream.age_ns) {
            return Ruling::proven(Cause::Moves, stream.phase_ns);
        }
        self.not_begun(stream, link)
            .or_else(|| self.path(stream, link))
            .or_else(|| self.not_taken(stream, link))
            .or_else(|| self.not_read(stream, link))
            .or_else(|| self.owing(stream))
            .unwrap_or_else(|| self.at_rest(stream, link))
    }
}

/// A stream and the bytes of it that nobody has read.
pub type Hog = (StreamId, u64);

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;
