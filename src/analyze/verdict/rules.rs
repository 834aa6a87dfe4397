//! The questions about our own side: polls, ends, slots, handlers.

use super::super::waits;
use super::cause::{Cause, Ruling};
use super::link::{Link, quiet_ns, wire};
use super::{Judge, OWED_NS, STILL_NS};
use crate::model::{Blocked, BodyState, Http2State, Phase, Side, Stream, StreamKind, VerdictKind};

/// Tidying up after a stream is no leak.
const GRACE_NS: u64 = 2_000_000_000;

/// Bytes that have lain in the kernel for so long would have been read by a
/// transport that runs.
const LAIN_NS: u64 = 100_000_000;
impl Judge<'_> {
    /// A stream that has ended may have left tasks behind.
    pub(super) fn ended<'s>(&'s self, stream: &Stream, ago: u64) -> Ruling<'s> {
        // A request body that nobody has dropped: whoever has it lives on.
        let held = stream.side == Side::Server && !stream.received.body.is_final();
        if (stream.live_tasks == 0 && !held) || ago < GRACE_NS {
            return Ruling::proven(Cause::Over, ago);
        }
        // Cancelled before it could answer: what goes on is the work itself.
        let unanswered = stream.cancelled_ago_ns.is_some()
            && stream.side == Side::Server
            && stream.sent.messages == 0;
        if unanswered && !held {
            return Ruling::likely(Cause::Cancelled, stream.cancelled_ago_ns.unwrap_or(ago))
                .or(&[VerdictKind::Leaked], "the stacks of its tasks");
        }
        Ruling::proven(Cause::LeftBehind { held }, ago)
    }

    /// A worker of ours does not come back from a poll.
    pub(super) fn blocked<'s>(
        &'s self,
        stream: &'s Stream,
        link: Option<&'s Link<'s>>,
    ) -> Option<Ruling<'s>> {
        if self.blocks.is_empty() {
            return None;
        }
        let long = |blocked: &&Blocked| self.long(blocked.blocked_ns);
        if let Some(blocked) = self.blocks.of_stream(stream).filter(long) {
            return Some(Ruling::proven(Cause::OwnPoll(blocked), blocked.blocked_ns));
        }
        let quiet_ns = quiet_ns(stream);
        if !self.long(quiet_ns) {
            return None;
        }
        let task = link.and_then(|link| link.connection.task);
        if let Some(blocked) = task.and_then(|task| self.blocks.of_task(task)).filter(long) {
            return Some(Ruling::proven(Cause::LinkPoll(blocked), blocked.blocked_ns));
        }
        if let Some(blocked) = self.blocks.all_workers(self.snapshot, stream).filter(long) {
            let since = blocked.blocked_ns.min(quiet_ns);
            return Some(Ruling::proven(Cause::AllWorkers(blocked), since));
        }
        // The connection's task may be queued behind that poll, where tokio
        // does not show it: what it leaves undone does.
        let blocked = self.blocks.longest().filter(long)?;
        let unread = link.is_some_and(|link| self.kernel_unread(link));
        let unpolled = stream.side == Side::Server && stream.phase == Phase::Starting;
        let unsent = stream.sent.body == BodyState::Taken
            && self.long(stream.sent.body_ns)
            && wire(stream, link).is_some_and(|wire| wire.send_window > 0)
            && link.is_some_and(|link| {
                link.write_blocked_ns == 0
                    && link.http2().is_some_and(|http2| http2.send_window > 0)
            });
        (unread || unpolled || unsent).then(|| {
            let since = blocked.blocked_ns.min(quiet_ns);
            Ruling::likely(Cause::BehindPoll(blocked), since)
        })
    }

    /// Whether bytes lie in the kernel while our transport reads nothing. The
    /// last of them must not have come just now.
    fn kernel_unread(&self, link: &Link<'_>) -> bool {
        let Some(tcp) = &link.connection.tcp else { return false };
        tcp.unread_bytes > 0
            && tcp.last_data_received_ago_ns >= LAIN_NS
            && link.read_ago_ns().is_some_and(|quiet| self.long(quiet))
    }

    /// Its end has been seen, and it lives on.
    pub(super) fn over<'s>(
        &'s self,
        stream: &'s Stream,
        link: Option<&'s Link<'s>>,
    ) -> Option<Ruling<'s>> {
        if let Some(ago) = stream.cancelled_ago_ns.filter(|&ago| self.long(ago)) {
            return Some(Ruling::proven(Cause::Cancelled, ago));
        }
        let wire = wire(stream, link);
        if let Some(reset) = wire.and_then(|wire| wire.reset.as_ref()) {
            // NO_ERROR after a complete answer only says: send no more.
            let answered = reset.code == 0 && wire.is_some_and(|wire| wire.end_received);
            if !answered && self.long(reset.ago_ns) && reset.ago_ns >= unnoticed_ns(stream) {
                return Some(Ruling::proven(Cause::WasReset(reset), reset.ago_ns));
            }
        }
        let link = link.filter(|link| link.connection.closed)?;
        let since = link.silent_ns().unwrap_or(stream.phase_ns).min(stream.age_ns);
        (self.long(since) && since >= unnoticed_ns(stream))
            .then(|| Ruling::proven(Cause::TransportGone, since))
    }

    /// It has not got as far as the wire.
    pub(super) fn not_begun<'s>(
        &'s self,
        stream: &'s Stream,
        link: Option<&'s Link<'s>>,
    ) -> Option<Ruling<'s>> {
        if let Some(ns) = stream.throttled_ns.filter(|&ns| self.long(ns)) {
            return Some(Ruling::proven(Cause::Throttled, ns));
        }
        let wire = wire(stream, link);
        let waits = match wire {
            Some(wire) => !wire.opened,
            None => stream.phase == Phase::Starting,
        };
        if stream.side != Side::Client || !waits || !self.long(stream.age_ns) {
            return None;
        }
        let link = link.filter(|link| !link.connection.closed);
        if let Some(http2) = link.and_then(Link::http2)
            && let Some(most) = http2.peer_max_streams
            && http2.open_streams >= u64::from(most)
        {
            let cause = Cause::NoSlot { open: http2.open_streams, most };
            return Some(Ruling::likely(cause, stream.age_ns));
        }
        if let Some(ruling) = link.and_then(|link| self.link_ruling(stream, link)) {
            return Some(ruling);
        }
        if let Some(link) = link.filter(|link| self.long(link.write_blocked_ns)) {
            return Some(self.socket_full(stream, link));
        }
        Some(Ruling::suspected(Cause::NotDispatched, stream.age_ns).or(
            &[VerdictKind::QueuedForSlot, VerdictKind::Network],
            "the connection's own figures, where the socket is tapped",
        ))
    }

    /// Our handler owes something, and waits for something else.
    pub(super) fn owing<'s>(&'s self, stream: &'s Stream) -> Option<Ruling<'s>> {
        if stream.side != Side::Server || !self.long(stream.phase_ns) {
            return None;
        }
        if let Some(ruling) = self.locked(stream) {
            return Some(ruling);
        }
        let owes = matches!(stream.kind, StreamKind::Unary | StreamKind::ClientStreaming)
            && (stream.state == Http2State::HalfClosedRemote || stream.received.ended)
            && stream.sent.messages == 0;
        if !owes || stream.phase == Phase::AwaitSend {
            return None;
        }
        if stream.idle_expected {
            return Some(Ruling::likely(Cause::Silent, stream.phase_ns));
        }
        if stream.phase_ns >= OWED_NS && self.awake(stream.phase_ns) >= OWED_NS {
            return Some(Ruling::suspected(Cause::Owes, stream.phase_ns).or(
                &[VerdictKind::IdleByDesign],
                "a declaration that this method is silent for long by design",
            ));
        }
        Some(Ruling::likely(Cause::Works, stream.phase_ns))
    }

    /// A task of this stream waits for a lock, or for what cannot come.
    pub(super) fn locked<'s>(&'s self, stream: &'s Stream) -> Option<Ruling<'s>> {
        if stream.side != Side::Server || self.snapshot.tasks.is_empty() {
            return None;
        }
        let (knot, confidence) = self.tasks().knot(self.snapshot, stream, |ns| self.long(ns))?;
        let since = knot.task.waited_ns().min(stream.age_ns);
        Some(Ruling { confidence, ..Ruling::likely(Cause::Knot(knot), since) })
    }

    /// For how long a task of this stream has waited in such a way, if that is
    /// not long enough yet for [`locked`](Self::locked).
    pub(super) fn locked_for(&self, stream: &Stream) -> Option<u64> {
        if self.snapshot.tasks.is_empty() || self.locked(stream).is_some() {
            return None;
        }
        let (knot, _) = self.tasks().knot(self.snapshot, stream, |_| true)?;
        Some(knot.task.waited_ns())
    }

    /// Its handler sleeps, and will wake soon.
    pub(super) fn paces(&self, stream: &Stream) -> bool {
        stream
            .task
            .and_then(|task| waits::find(self.snapshot, task))
            .and_then(|task| task.wait.as_ref())
            .and_then(|wait| wait.deadline_in_ns)
            .is_some_and(|due| (0..OWED_NS as i64).contains(&due))
    }

    /// The application heartbeat is late. Only what was heard since makes that
    /// the application's doing: a dead path is as silent.
    fn beat<'s>(&self, link: &'s Link<'s>) -> Option<Ruling<'s>> {
        let late_ns = link.beat_late.filter(|&ns| self.long(ns))?;
        // Flow control holds a heartbeat up as it does any message.
        if link.http2().is_some_and(|http2| http2.send_window <= 0 || http2.recv_window <= 0) {
            return None;
        }
        let alive = link.alive_ago_ns().is_some_and(|ago| ago < late_ns);
        let cause = Cause::BeatLate { link, late_ns, alive };
        if alive {
            return Some(Ruling::likely(cause, late_ns));
        }
        // A PING is on its way, or will be: it says more, and sooner.
        let pings = link.http2().is_some_and(|http2| {
            http2.ping_outstanding_ns.is_some() || http2.ping_answered_ago_ns.is_some()
        });
        (!pings).then(|| {
            Ruling::suspected(cause, late_ns).or(
                &[VerdictKind::PeerNotReading, VerdictKind::Network],
                "a PING, which the peer's transport answers without its application",
            )
        })
    }

    /// Nothing is wrong that could be seen.
    pub(super) fn at_rest<'s>(
        &'s self,
        stream: &'s Stream,
        link: Option<&'s Link<'s>>,
    ) -> Ruling<'s> {
        let waits = match stream.side {
            _ if stream.phase == Phase::AwaitRecv => true,
            Side::Client => matches!(stream.phase, Phase::AwaitHeaders | Phase::AwaitProduce),
            Side::Server => false,
        };
        let ns = stream.phase_ns.min(stream.age_ns);
        if !self.long(ns) {
            return Ruling::proven(Cause::Moves, ns);
        }
        if stream.idle_expected {
            return Ruling::likely(Cause::Silent, ns);
        }
        if waits {
            if let Some(ruling) = link.and_then(|link| self.beat(link)) {
                return ruling;
            }
            let alive = link.and_then(Link::alive_ago_ns);
            return match alive.filter(|&ago| ago < ns) {
                Some(_) => Ruling::likely(Cause::PeerToSpeak { alive }, ns),
                None => Ruling::suspected(Cause::PeerToSpeak { alive }, ns).or(
                    &[VerdictKind::PeerFrozen, VerdictKind::Network],
                    "a keepalive PING or a heartbeat: without one a silent peer and a dead one \
                     look the same",
                ),
            };
        }
        match stream.phase {
            Phase::AwaitProduce => Ruling::likely(Cause::NothingToSay, ns),
            Phase::Handler | Phase::Starting => Ruling::suspected(Cause::Works, ns),
            _ => Ruling::likely(Cause::Moves, ns),
        }
    }
}

/// For how long a stream may be over without leaking. A caller learns of it
/// when it next asks for a message, which may be a while.
fn unnoticed_ns(stream: &Stream) -> u64 {
    match stream.side {
        Side::Client => OWED_NS,
        Side::Server => STILL_NS,
    }
}
