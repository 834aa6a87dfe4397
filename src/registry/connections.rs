//! Connections: one shared cell each, which the socket wrapper and the
//! streams write and snapshots read.
//!
//! A cell takes itself off the list when its last holder lets go, so the list
//! is as long as there are connections and needs no bound of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::clock;
use super::endpoints::EndpointCell;
use super::heartbeat::Beats;
use super::streams::Direction;
use super::wire::Wire;
use crate::model::{
    Connection, ConnectionCounters, ConnectionId, ConnectionTotals, Side, Stream, TaskId, Transport,
};

/// The two ends of a TCP connection: ours, then the peer's.
type Pair = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    live: BTreeMap<u64, Weak<ConnectionCell>>,
    by_pair: HashMap<Pair, Weak<ConnectionCell>>,
}

/// All connections that are open, or whose streams are still alive.
#[derive(Debug, Default)]
pub struct Connections {
    table: Arc<Mutex<Table>>,
}

/// One connection's numbers.
#[derive(Debug)]
pub struct ConnectionCell {
    id: ConnectionId,
    side: Side,
    transport: Transport,
    local: Option<Arc<str>>,
    peer: Option<Arc<str>>,
    opened: u64,
    /// Only where the socket is tapped.
    wire: Option<Arc<Wire>>,
    tls: bool,
    /// The server or channel it belongs to.
    endpoint: OnceLock<Arc<EndpointCell>>,
    task: AtomicU64,
    closed: AtomicBool,
    streams: AtomicU64,
    streams_total: AtomicU64,
    streams_succeeded: AtomicU64,
    streams_failed: AtomicU64,
    last_stream: AtomicU64,
    /// Of streams that have ended; the live ones know their own.
    messages_sent: AtomicU64,
    messages_received: AtomicU64,
    last_sent: AtomicU64,
    last_received: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    last_read: AtomicU64,
    last_write: AtomicU64,
    write_blocked_since: AtomicU64,
    /// Its application heartbeat.
    pub heartbeat: Beats,
    pair: Option<Pair>,
    table: Weak<Mutex<Table>>,
}

/// What is known of a tapped connection when it begins.
#[derive(Debug)]
pub struct Open {
    /// Which end we are.
    pub side: Side,
    /// What carries it.
    pub transport: Transport,
    /// Our address.
    pub local: Option<Arc<str>>,
    /// The other end's.
    pub peer: Option<Arc<str>>,
    /// TLS lies between the tap and the socket.
    pub tls: bool,
}

impl Connections {
    /// Registers a connection whose socket is tapped, and makes what its frames
    /// are written to.
    pub fn open(&self, open: Open) -> (Arc<ConnectionCell>, Arc<Wire>) {
        let wire = Wire::new(open.side);
        let mut table = lock(&self.table);
        (self.insert(&mut table, open, Some(wire.clone()), None), wire)
    }

    /// The connection between two addresses, for streams whose accept loop is
    /// not ours. It is known for as long as a stream lives on it, and its age
    /// counts from the first of those.
    pub fn between(&self, side: Side, local: SocketAddr, peer: SocketAddr) -> Arc<ConnectionCell> {
        let mut table = lock(&self.table);
        if let Some(cell) = table.by_pair.get(&(local, peer)).and_then(Weak::upgrade) {
            return cell;
        }
        let (ours, theirs) = (local.to_string().into(), peer.to_string().into());
        let pair = Some((local, peer));
        let (local, peer) = (Some(ours), Some(theirs));
        let open = Open { side, transport: Transport::Tcp, local, peer, tls: false };
        self.insert(&mut table, open, None, pair)
    }

    fn insert(
        &self,
        table: &mut Table,
        open: Open,
        wire: Option<Arc<Wire>>,
        pair: Option<Pair>,
    ) -> Arc<ConnectionCell> {
        let Open { side, transport, local, peer, tls } = open;
        table.next += 1;
        let cell = Arc::new(ConnectionCell {
            id: ConnectionId(table.next),
            side,
            transport,
            local,
            peer,
            opened: clock::now(),
            wire,
            tls,
            endpoint: OnceLock::new(),
            task: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            streams: AtomicU64::new(0),
            streams_total: AtomicU64::new(0),
            streams_succeeded: AtomicU64::new(0),
            streams_failed: AtomicU64::new(0),
            last_stream: AtomicU64::new(0),
            messages_sent: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            last_sent: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            last_read: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
            heartbeat: Beats::default(),
            pair,
            table: Arc::downgrade(&self.table),
        });
        table.live.insert(cell.id.0, Arc::downgrade(&cell));
        if let Some(pair) = pair {
            table.by_pair.insert(pair, Arc::downgrade(&cell));
        }
        cell
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        lock(&self.table).live.len()
    }

    /// All connections, by id, with what their live streams, which are these,
    /// add to the totals. `now` is in ticks.
    ///
    /// A stream that ended after that list was made is in the totals twice,
    /// this once: messages are not worth a lock shared by all streams.
    pub fn snapshot(&self, now: u64, live: &[Stream]) -> Vec<Connection> {
        // Strong references first, so that no cell is freed under the lock:
        // its drop would take the same lock.
        let cells: Vec<_> = lock(&self.table).live.values().filter_map(Weak::upgrade).collect();
        let mut connections: Vec<_> = cells.iter().map(|cell| cell.to_model(now)).collect();
        for stream in live {
            let Some(id) = stream.connection else { continue };
            if let Ok(at) = connections.binary_search_by_key(&id, |connection| connection.id) {
                add(&mut connections[at].totals, stream);
            }
        }
        connections
    }
}

/// Adds a live stream's messages.
fn add(totals: &mut ConnectionTotals, stream: &Stream) {
    let sooner = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    totals.messages_sent += stream.sent.messages;
    totals.messages_received += stream.received.messages;
    totals.last_sent_ago_ns = sooner(totals.last_sent_ago_ns, stream.sent.last_ago_ns);
    totals.last_received_ago_ns = sooner(totals.last_received_ago_ns, stream.received.last_ago_ns);
}

impl ConnectionCell {
    /// Which.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Which end we are.
    pub fn side(&self) -> Side {
        self.side
    }

    /// What its frames show, if it is tapped.
    pub fn wire(&self) -> Option<&Arc<Wire>> {
        self.wire.as_ref()
    }

    /// The task that drives it.
    pub fn driven_by(&self, task: TaskId) {
        self.task.store(task.0, Relaxed);
    }

    /// The other end's address.
    pub fn peer(&self) -> Option<&Arc<str>> {
        self.peer.as_ref()
    }

    /// Our address.
    pub fn local(&self) -> Option<&Arc<str>> {
        self.local.as_ref()
    }

    /// The transport is gone; streams may still hold on to it.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Bytes came in; `now` is in ticks. One task reads and writes, so plain
    /// stores will do.
    pub fn read(&self, bytes: usize, now: u64) {
        self.read_bytes.store(self.read_bytes.load(Relaxed) + bytes as u64, Relaxed);
        self.last_read.store(now, Relaxed);
    }

    /// The kernel took bytes; `now` is in ticks.
    pub fn written(&self, bytes: usize, now: u64) {
        self.written_bytes.store(self.written_bytes.load(Relaxed) + bytes as u64, Relaxed);
        self.last_write.store(now, Relaxed);
        if self.write_blocked_since.load(Relaxed) != 0 {
            self.write_blocked_since.store(0, Relaxed);
        }
    }

    /// The kernel took none.
    pub fn write_blocked(&self) {
        if self.write_blocked_since.load(Relaxed) == 0 {
            self.write_blocked_since.store(clock::now(), Relaxed);
        }
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Relaxed)
    }

    pub(super) fn stream_began(&self, now: u64) {
        self.streams.fetch_add(1, Relaxed);
        self.streams_total.fetch_add(1, Relaxed);
        self.last_stream.store(now, Relaxed);
    }

    /// A stream is over, or is another connection's.
    pub(super) fn stream_left(&self) {
        self.streams.fetch_sub(1, Relaxed);
    }

    /// A stream is over, and what it sent and received is added up.
    pub(super) fn stream_ended(&self, succeeded: bool, sent: &Direction, received: &Direction) {
        self.stream_left();
        let counter = if succeeded { &self.streams_succeeded } else { &self.streams_failed };
        counter.fetch_add(1, Relaxed);
        self.messages_sent.fetch_add(sent.messages(), Relaxed);
        self.messages_received.fetch_add(received.messages(), Relaxed);
        self.last_sent.fetch_max(sent.last(), Relaxed);
        self.last_received.fetch_max(received.last(), Relaxed);
    }

    /// The server or channel it belongs to; the first said counts.
    pub fn belongs_to(&self, endpoint: &Arc<EndpointCell>) {
        _ = self.endpoint.set(endpoint.clone());
    }

    fn to_model(&self, now: u64) -> Connection {
        let ago = |ticks: u64| (ticks != 0).then(|| clock::delta_ns(ticks, now));
        let task = self.task.load(Relaxed);
        Connection {
            id: self.id,
            side: self.side,
            transport: self.transport,
            local: self.local.clone(),
            peer: self.peer.clone(),
            age_ns: clock::delta_ns(self.opened, now),
            streams: self.streams.load(Relaxed),
            streams_total: self.streams_total.load(Relaxed),
            endpoint: self.endpoint.get().map(|endpoint| endpoint.id()),
            totals: ConnectionTotals {
                streams_succeeded: self.streams_succeeded.load(Relaxed),
                streams_failed: self.streams_failed.load(Relaxed),
                last_stream_ago_ns: ago(self.last_stream.load(Relaxed)),
                messages_sent: self.messages_sent.load(Relaxed),
                messages_received: self.messages_received.load(Relaxed),
                last_sent_ago_ns: ago(self.last_sent.load(Relaxed)),
                last_received_ago_ns: ago(self.last_received.load(Relaxed)),
            },
            counters: self.wire.is_some().then(|| ConnectionCounters {
                read_bytes: self.read_bytes.load(Relaxed),
                written_bytes: self.written_bytes.load(Relaxed),
                last_read_ago_ns: ago(self.last_read.load(Relaxed)),
                last_write_ago_ns: ago(self.last_write.load(Relaxed)),
                write_blocked_ns: ago(self.write_blocked_since.load(Relaxed)).unwrap_or(0),
            }),
            task: (task != 0).then_some(TaskId(task)),
            closed: self.is_closed(),
            tls: self.tls,
            http2: self.wire.as_ref().map(|wire| wire.http2(now)),
            tcp: self.wire.as_ref().and_then(|wire| wire.tcp()),
            heartbeat: self.heartbeat.to_model(now),
        }
    }
}

impl Drop for ConnectionCell {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut table = lock(&table);
        table.live.remove(&self.id.0);
        if let Some(pair) = self.pair {
            // A new cell for the same pair may have taken the place already.
            if table.by_pair.get(&pair).is_some_and(|cell| cell.strong_count() == 0) {
                table.by_pair.remove(&pair);
            }
        }
    }
}

/// The table is consistent after every statement, so a poisoned lock is as good as new.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_until_its_last_holder_lets_go() {
        let connections = Connections::default();
        let (cell, _) = connections.open(Open {
            side: Side::Server,
            transport: Transport::Unix,
            local: None,
            peer: Some("unix".into()),
            tls: false,
        });
        cell.read(10, clock::now());
        cell.write_blocked();
        let now = clock::now() + 1_000_000;
        let seen = &connections.snapshot(now, &[])[0];
        let counters = seen.counters.unwrap();
        assert_eq!((counters.read_bytes, counters.written_bytes), (10, 0));
        assert!(counters.write_blocked_ns > 0 && counters.last_write_ago_ns.is_none());
        cell.written(3, clock::now());
        assert_eq!(connections.snapshot(now, &[])[0].counters.unwrap().write_blocked_ns, 0);
        drop(cell);
        assert_eq!(connections.len(), 0);
    }

    #[test]
    fn streams_between_the_same_addresses_share_a_connection() {
        let connections = Connections::default();
        let (a, b) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let first = connections.between(Side::Server, a, b);
        let same = connections.between(Side::Server, a, b);
        assert_eq!(first.id(), same.id());
        assert_eq!(connections.snapshot(clock::now(), &[])[0].counters, None);
        drop((first, same));
        assert_eq!(connections.len(), 0);
        assert!(lock(&connections.table).by_pair.is_empty());
        assert_eq!(connections.between(Side::Server, a, b).id(), ConnectionId(2));
    }
}
