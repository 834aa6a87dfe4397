//! The questions, in the order of the table.

use super::super::waits;
use super::cause::{Cause, Ruling};
use super::link::{Link, Path};
use super::{Judge, OWED_NS, STILL_NS};
use crate::model::{
    Blocked, BodyState, Confidence, Http2State, Phase, Side, Stream, StreamEventKind, StreamKind,
    StreamWire, VerdictKind,
};

/// Tidying up after a stream is no leak.
const GRACE_NS: u64 = 2_000_000_000;

/// Bytes that have lain in the kernel for so long would have been read by a
/// transport that runs.
const LAIN_NS: u64 = 100_000_000;
/// So much of a stream may be out, read or not, before its window tells.
const UNTOLD: u64 = 16 * 1024;

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

    /// The whole path stands still.
    pub(super) fn path<'s>(
        &'s self,
        stream: &'s Stream,
        link: Option<&'s Link<'s>>,
    ) -> Option<Ruling<'s>> {
        let link = link.filter(|link| !link.connection.closed)?;
        if !self.long(stream.age_ns) || !self.long(quiet_ns(stream)) {
            return None;
        }
        self.link_ruling(stream, link)
    }

    fn link_ruling<'s>(&'s self, stream: &'s Stream, link: &'s Link<'s>) -> Option<Ruling<'s>> {
        let blocked = self.send_blocked(stream, Some(link)).is_some();
        Some(match link.path? {
            Path::Lossy(ns) => Ruling::likely(Cause::Lossy(link), ns),
            Path::SocketUnread(ns) => {
                Ruling::likely(Cause::SocketUnread(link), ns).or(&[VerdictKind::Network], BEYOND)
            }
            Path::OwnSocketUnread(ns) => Ruling::suspected(Cause::OwnSocketUnread(link), ns)
                .or(&[VerdictKind::Unknown], "polls, which are seen with --cfg tokio_unstable"),
            Path::PingLate(ns) => {
                let cause = Cause::PingLate { link, blocked };
                // Nothing waits for an ACK, so its kernel, or that of what lies
                // between, has all that we sent.
                let acked = link.connection.tcp.as_ref().is_some_and(|tcp| tcp.unacked == 0);
                if acked {
                    Ruling::likely(cause, ns).or(&[VerdictKind::Network], BEYOND)
                } else {
                    Ruling::suspected(cause, ns).or(&[VerdictKind::Network], BEYOND)
                }
            }
        })
    }

    /// For how long what we have to send has not been taken.
    fn send_blocked(&self, stream: &Stream, link: Option<&Link<'_>>) -> Option<u64> {
        let wire = wire(stream, link);
        if wire.is_some_and(|wire| wire.end_sent) {
            return None;
        }
        let sent = &stream.sent;
        let handed = match sent.body {
            BodyState::Taken => Some(sent.body_ns),
            _ => (stream.phase == Phase::AwaitSend).then_some(stream.phase_ns),
        };
        // h2 takes a whole chunk once a byte of the window is free: what it has
        // not sent then lies in its buffer, and the body looks idle.
        let buffered = wire
            .filter(|wire| {
                !matches!(sent.body, BodyState::Dropped | BodyState::Error)
                    && (sent.bytes > wire.data_sent || sent.body == BodyState::End)
            })
            .map(|wire| {
                let closed = link
                    .map_or(0, |link| link.send_closed_ns().max(link.write_blocked_ns))
                    .max(wire.send_window_closed_ns.unwrap_or(0));
                let still = wire
                    .last_sent_ago_ns
                    .unwrap_or(stream.age_ns)
                    .min(sent.last_ago_ns.unwrap_or(0))
                    .min(if sent.body == BodyState::End { sent.body_ns } else { u64::MAX });
                closed.max(still)
            });
        handed.max(buffered).filter(|&ns| self.long(ns))
    }

    /// What we send is not taken.
    pub(super) fn not_taken<'s>(
        &'s self,
        stream: &'s Stream,
        link: Option<&'s Link<'s>>,
    ) -> Option<Ruling<'s>> {
        let blocked_ns = self.send_blocked(stream, link)?;
        if let Some(link) = link.filter(|link| self.long(link.write_blocked_ns)) {
            return Some(self.socket_full(stream, link));
        }
        let http2 = link.and_then(Link::http2);
        let Some(wire) = wire(stream, link) else {
            return Some(self.not_taken_unseen(stream, link, blocked_ns));
        };
        if wire.send_window <= 0 {
            let ns = wire.send_window_closed_ns.unwrap_or(blocked_ns);
            if let Some(gap_ns) = steady(stream, ns) {
                return Some(Ruling::likely(Cause::Slow { gap_ns }, ns));
            }
            if !self.long(ns) {
                return None;
            }
            return Some(self.window_ruling(Cause::WindowClosed { closed_ns: ns }, ns, link));
        }
        if let Some(http2) = http2.filter(|http2| http2.send_window <= 0) {
            let ns = http2.send_window_closed_ns.unwrap_or(blocked_ns);
            if !self.long(ns) {
                return None;
            }
            return Some(self.link_window(stream, link, u64::from(http2.peer_initial_window), ns));
        }
        // It goes, if slowly: a narrow path, shared with others.
        let gone = [wire.last_sent_ago_ns, link.and_then(Link::written_ago_ns)];
        if gone.into_iter().flatten().any(|ago| !self.long(ago)) {
            return None;
        }
        Some(Ruling::suspected(Cause::Unsent { link }, blocked_ns).or(
            &[VerdictKind::WorkerBlocked, VerdictKind::TcpBackpressure],
            "the polls of the connection's own task",
        ))
    }

    /// The connection's window is used up: by this stream as well, or by others.
    fn link_window<'s>(
        &'s self,
        stream: &Stream,
        link: Option<&'s Link<'s>>,
        initial: u64,
        ns: u64,
    ) -> Ruling<'s> {
        let most = link.and_then(|link| link.send_hog);
        let worst = most.map_or(0, |(_, bytes)| bytes);
        let out = link.map_or(0, |link| link.out_bytes(stream));
        // A peer that reads gives a window back by its half at the latest, and
        // one of which as much is out as of the worst is no better.
        let half = initial / 2;
        if out > 0 && (out >= half || (out >= worst / 3 && worst >= half / 2)) {
            return self.window_ruling(Cause::Hogs { bytes: out }, ns, link);
        }
        let hog = most.filter(|(id, _)| *id != stream.id);
        let ruling = self.window_ruling(Cause::LinkWindowClosed { hog }, ns, link);
        if out < UNTOLD || !ruling.or.is_empty() {
            return ruling;
        }
        Ruling { confidence: Confidence::Likely, ..ruling }.or(
            &[VerdictKind::PeerNotReading],
            "the peer's own page: it gives no window back before it has read much",
        )
    }

    /// A closed window is the peer's application's doing if its transport is
    /// known to live.
    fn window_ruling<'s>(&self, cause: Cause<'s>, ns: u64, link: Option<&Link<'_>>) -> Ruling<'s> {
        if link.and_then(Link::alive_ago_ns).is_some_and(|ago| ago < ns) {
            return Ruling::proven(cause, ns);
        }
        if link.and_then(Link::http2).is_some_and(|http2| http2.ping_outstanding_ns.is_some()) {
            return Ruling::suspected(Cause::PingAwaited, ns);
        }
        Ruling::likely(cause, ns).or(
            &[VerdictKind::PeerFrozen, VerdictKind::Network],
            "a PING that is answered while the window is closed",
        )
    }

    fn socket_full<'s>(&'s self, stream: &Stream, link: &'s Link<'s>) -> Ruling<'s> {
        let ns = link.write_blocked_ns.min(stream.age_ns);
        let ruling = Ruling::likely(Cause::SocketFull(link), ns);
        match link.connection.tcp {
            Some(_) => ruling.or(
                &[VerdictKind::Network, VerdictKind::PeerFrozen],
                "whether bytes_acked grows, and a PING",
            ),
            None => ruling.or(
                &[VerdictKind::PeerFrozen, VerdictKind::Network],
                "TCP_INFO, which this connection does not have",
            ),
        }
    }

    /// The same without windows: only that it is not taken is known.
    fn not_taken_unseen<'s>(
        &'s self,
        stream: &Stream,
        link: Option<&'s Link<'s>>,
        ns: u64,
    ) -> Ruling<'s> {
        // Where bytes are counted the socket is known to take them.
        let counted = link.is_some_and(|link| link.connection.counters.is_some());
        let others: &'static [VerdictKind] = if counted {
            &[VerdictKind::ConnectionFlowControl, VerdictKind::PeerFrozen, VerdictKind::Network]
        } else {
            &[
                VerdictKind::ConnectionFlowControl,
                VerdictKind::PeerFrozen,
                VerdictKind::TcpBackpressure,
                VerdictKind::Network,
            ]
        };
        if let Some(gap_ns) = steady(stream, ns) {
            return Ruling::suspected(Cause::Slow { gap_ns }, ns);
        }
        Ruling::suspected(Cause::NotTaken { counted }, ns)
            .or(others, "the HTTP/2 windows, which a tapped socket shows")
    }

    /// What came is not read by our side, or cannot come because of us.
    pub(super) fn not_read<'s>(
        &'s self,
        stream: &'s Stream,
        link: Option<&'s Link<'s>>,
    ) -> Option<Ruling<'s>> {
        let wire = wire(stream, link)?;
        let received = &stream.received;
        match received.body {
            BodyState::NeverPolled | BodyState::Taken => {
                let unread = wire.data_received.saturating_sub(received.bytes);
                let came = wire.last_received_ago_ns.unwrap_or(0).min(received.body_ns);
                // A sender that goes on sending hides when the first came; a
                // window half used up shows that it was not just now.
                let pressed = link.and_then(Link::http2).is_some_and(|http2| {
                    wire.recv_window.saturating_mul(2) <= i64::from(http2.local_initial_window)
                });
                let ns = if pressed { received.body_ns } else { came };
                if unread == 0 || !self.long(ns) {
                    return None;
                }
                if let Some(ruling) = self.locked(stream) {
                    return Some(ruling);
                }
                if let Some(gap_ns) = steady_reads(stream, received.body_ns) {
                    return Some(Ruling::likely(Cause::SlowReads { gap_ns }, ns));
                }
                if ns < OWED_NS && self.paces(stream) {
                    return Some(Ruling::likely(Cause::Works, ns));
                }
                Some(Ruling::proven(Cause::Unread { bytes: unread }, ns))
            }
            BodyState::Pending if !wire.end_received => {
                let link = link?;
                let http2 = link.http2()?;
                let closed = http2.recv_window_closed_ns.filter(|_| http2.recv_window <= 0)?;
                let ns = closed.min(received.body_ns);
                if !self.long(ns) {
                    return None;
                }
                let hog = link.recv_hog.filter(|(id, _)| *id != stream.id);
                Some(Ruling::likely(Cause::Starved { hog }, ns))
            }
            _ => None,
        }
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
    fn locked<'s>(&'s self, stream: &'s Stream) -> Option<Ruling<'s>> {
        if stream.side != Side::Server || self.snapshot.tasks.is_empty() {
            return None;
        }
        let (knot, confidence) = self.tasks().knot(self.snapshot, stream, |ns| self.long(ns))?;
        let since = knot.task.waited_ns().min(stream.age_ns);
        Some(Ruling { confidence, ..Ruling::likely(Cause::Knot(knot), since) })
    }

    /// Its handler sleeps, and will wake soon.
    fn paces(&self, stream: &Stream) -> bool {
        stream
            .task
            .and_then(|task| waits::find(self.snapshot, task))
            .and_then(|task| task.wait.as_deref())
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

const BEYOND: &str = "the peer's own dump, or a capture of packets beyond the next hop";

/// For how long a stream may be over without leaking. A caller learns of it
/// when it next asks for a message, which may be a while.
fn unnoticed_ns(stream: &Stream) -> u64 {
    match stream.side {
        Side::Client => OWED_NS,
        Side::Server => STILL_NS,
    }
}

/// The wire's figures, where they can be believed.
fn wire<'s>(stream: &'s Stream, link: Option<&Link<'_>>) -> Option<&'s StreamWire> {
    stream.wire.as_ref().filter(|_| link.is_none_or(|link| !link.lost()))
}

/// For how long nothing has passed either way.
fn quiet_ns(stream: &Stream) -> u64 {
    let last = |ago: Option<u64>| ago.unwrap_or(stream.age_ns);
    last(stream.received.last_ago_ns).min(last(stream.sent.last_ago_ns)).min(stream.age_ns)
}

/// A peer that has opened its window again after about as long before: slow,
/// not stuck. The longest such time.
fn steady(stream: &Stream, closed_ns: u64) -> Option<u64> {
    let mut closed: Option<u64> = None;
    let mut longest = 0;
    for event in &stream.events {
        match event.kind {
            StreamEventKind::WindowClosed => closed = closed.or(Some(event.ago_ns)),
            StreamEventKind::WindowReceived => {
                if let Some(since) = closed.take() {
                    longest = longest.max(since.saturating_sub(event.ago_ns));
                }
            }
            _ => {}
        }
    }
    as_before(longest, closed_ns)
}

/// A reader of ours that has come back after about as long before.
fn steady_reads(stream: &Stream, ns: u64) -> Option<u64> {
    let reads = stream.events.iter().filter(|event| event.kind == StreamEventKind::Recv);
    let ages: Vec<u64> = reads.map(|event| event.ago_ns).collect();
    let longest = ages.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).max()?;
    as_before(longest, ns)
}

fn as_before(longest: u64, ns: u64) -> Option<u64> {
    (longest >= STILL_NS / 2 && ns <= longest.saturating_mul(2)).then_some(longest)
}
