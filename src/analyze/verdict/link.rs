//! What a connection's own figures say, worked out once for all its streams.

use super::{Hog, STILL_NS};
use crate::model::{Connection, Heartbeat, Http2, Snapshot, Stream, StreamWire, TcpInfo};

/// The path as a whole stands still, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Segments are sent again and no ACK comes.
    Lossy(u64),
    /// The peer's kernel answers, and has no room for more.
    SocketUnread(u64),
    /// Bytes lie in our own kernel.
    OwnSocketUnread(u64),
    /// A PING is not answered.
    PingLate(u64),
}

/// One connection.
pub struct Link<'a> {
    pub connection: &'a Connection,
    /// For how long the socket has refused our bytes.
    pub write_blocked_ns: u64,
    pub path: Option<Path>,
    /// For how long the application heartbeat has been late.
    pub beat_late: Option<u64>,
    /// The stream of which the peer has read least of what we sent.
    pub send_hog: Option<Hog>,
    /// The stream of which our side has read least of what came.
    pub recv_hog: Option<Hog>,
}

impl<'a> Link<'a> {
    pub fn new(connection: &'a Connection, snapshot: &Snapshot) -> Self {
        let write_blocked_ns = connection.counters.map_or(0, |counters| counters.write_blocked_ns);
        let mut link = Self {
            connection,
            write_blocked_ns,
            path: None,
            beat_late: None,
            send_hog: None,
            recv_hog: None,
        };
        // Nothing that comes from outside can be judged by a process that has
        // just been woken: what is late may lie in its own socket.
        let asleep = snapshot.pauses.iter().any(|pause| pause.ended_ago_ns < STILL_NS);
        if !asleep {
            link.path = link.path();
            link.beat_late = connection.heartbeat.as_ref().and_then(late);
        }
        link
    }

    /// Counts one stream of this connection among its hogs.
    pub fn weigh(&mut self, stream: &Stream) {
        let Some(wire) = stream.wire.as_ref() else { return };
        let unread = wire.data_received.saturating_sub(stream.received.bytes);
        raise(&mut self.recv_hog, stream, unread);
        let out = self.out_bytes(stream);
        raise(&mut self.send_hog, stream, out);
    }

    /// Bytes of a stream that the kernel took and for which the peer has not
    /// enlarged its window again: not read, or not yet accounted for.
    pub fn out_bytes(&self, stream: &Stream) -> u64 {
        let Some(wire) = stream.wire.as_ref() else { return 0 };
        let initial = self.http2().map_or(0, |http2| i64::from(http2.peer_initial_window));
        let out = initial.saturating_sub(wire.send_window).max(0) as u64;
        out.min(wire.data_sent)
    }

    /// Its frames' figures, if the reader of frames has kept its place.
    pub fn http2(&self) -> Option<&'a Http2> {
        self.connection.http2.as_ref().filter(|http2| !http2.lost)
    }

    /// The figures of its streams cannot be believed.
    pub fn lost(&self) -> bool {
        self.connection.http2.as_ref().is_some_and(|http2| http2.lost)
    }

    pub fn send_closed_ns(&self) -> u64 {
        self.http2().and_then(|http2| http2.send_window_closed_ns).unwrap_or(0)
    }

    /// How long ago our transport last got bytes.
    pub fn read_ago_ns(&self) -> Option<u64> {
        let read = self.connection.counters.and_then(|counters| counters.last_read_ago_ns);
        read.or_else(|| self.http2().and_then(|http2| http2.last_received_ago_ns))
    }

    /// How long ago the kernel last took bytes of ours.
    pub fn written_ago_ns(&self) -> Option<u64> {
        self.connection.counters.and_then(|counters| counters.last_write_ago_ns)
    }

    /// How long ago bytes last passed, either way.
    pub fn silent_ns(&self) -> Option<u64> {
        let counters = self.connection.counters?;
        match (counters.last_read_ago_ns, counters.last_write_ago_ns) {
            (Some(read), Some(write)) => Some(read.min(write)),
            (read, write) => read.or(write),
        }
    }

    /// How long ago the peer's transport last showed that it lives.
    pub fn alive_ago_ns(&self) -> Option<u64> {
        let http2 = self.http2();
        [
            http2.and_then(|http2| http2.last_received_ago_ns),
            http2.and_then(|http2| http2.ping_answered_ago_ns),
            self.connection.heartbeat.as_ref().and_then(|beat| beat.answered_ago_ns),
            self.connection.counters.and_then(|counters| counters.last_read_ago_ns),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn path(&self) -> Option<Path> {
        let tcp = self.connection.tcp.as_ref();
        if let Some(tcp) = tcp {
            if let Some(ns) = lossy(tcp) {
                return Some(Path::Lossy(ns));
            }
            let full = tcp.send_window.is_some_and(|window| window <= tcp.send_mss);
            let queued_ns = if tcp.notsent_bytes > 0 { tcp.last_data_sent_ago_ns } else { 0 };
            let ns = self.write_blocked_ns.max(queued_ns);
            if full && ns >= STILL_NS && self.alive_ago_ns().is_none_or(|ago| ago >= STILL_NS) {
                return Some(Path::SocketUnread(ns));
            }
            // What came just now may be about to be read.
            let lain = self.read_ago_ns().unwrap_or(0).min(tcp.last_data_received_ago_ns);
            if tcp.unread_bytes > 0 && lain >= STILL_NS && self.write_blocked_ns < STILL_NS {
                return Some(Path::OwnSocketUnread(lain));
            }
        }
        let http2 = self.http2()?;
        let ns = http2.ping_outstanding_ns?;
        let usual = http2.ping_rtt_ns.unwrap_or(0).saturating_mul(4);
        // A frame that came after the PING was sent: it lives, and is slow.
        let heard = self.alive_ago_ns().is_some_and(|ago| ago < ns);
        (ns >= STILL_NS.max(usual) && !heard).then_some(Path::PingLate(ns))
    }
}

/// The wire's figures, where they can be believed.
pub fn wire<'s>(stream: &'s Stream, link: Option<&Link<'_>>) -> Option<&'s StreamWire> {
    stream.wire.as_ref().filter(|_| link.is_none_or(|link| !link.lost()))
}

/// For how long nothing has passed either way.
pub fn quiet_ns(stream: &Stream) -> u64 {
    let last = |ago: Option<u64>| ago.unwrap_or(stream.age_ns);
    last(stream.received.last_ago_ns).min(last(stream.sent.last_ago_ns)).min(stream.age_ns)
}

fn raise(hog: &mut Option<Hog>, stream: &Stream, bytes: u64) {
    if bytes > hog.map_or(0, |(_, most)| most) {
        *hog = Some((stream.id, bytes));
    }
}

/// No ACK for a second though the kernel sends again: once may be any lost
/// packet, and what was idle before has an old ACK. A peer whose window is
/// closed is probed in the same way, but it answers, or is the next row's.
fn lossy(tcp: &TcpInfo) -> Option<u64> {
    let waiting = tcp.unacked > 0 || tcp.notsent_bytes > 0;
    let again = tcp.retransmits >= 2 || tcp.backoff >= 2 || tcp.probes >= 2;
    let open = tcp.send_window.is_none_or(|window| window > tcp.send_mss);
    // Keepalive probes of the kernel are sent when nothing waits.
    let probed = !waiting && tcp.probes >= 2;
    ((waiting && again && open || probed) && tcp.last_ack_ago_ns > STILL_NS)
        .then_some(tcp.last_ack_ago_ns)
}

/// For how long a heartbeat has been without an answer, beyond what is usual.
fn late(beat: &Heartbeat) -> Option<u64> {
    let usual = beat.rtt_ns.unwrap_or(0).saturating_mul(4);
    beat.outstanding_ns.filter(|&ns| ns >= STILL_NS.max(usual))
}
