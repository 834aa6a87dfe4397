//! The questions about the path and its windows: is what we send taken, and
//! what comes read.

use super::cause::{Cause, Ruling};
use super::link::{Link, Path, quiet_ns, wire};
use super::{Judge, OWED_NS, STILL_NS};
use crate::model::{BodyState, Confidence, Phase, Stream, StreamEventKind, VerdictKind};

/// So much of a stream may be out, read or not, before its window tells.
const UNTOLD: u64 = 16 * 1024;

const BEYOND: &str = "the peer's own dump, or a capture of packets beyond the next hop";

impl Judge<'_> {
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

    pub(super) fn link_ruling<'s>(
        &'s self,
        stream: &'s Stream,
        link: &'s Link<'s>,
    ) -> Option<Ruling<'s>> {
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

    pub(super) fn socket_full<'s>(&'s self, stream: &Stream, link: &'s Link<'s>) -> Ruling<'s> {
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
