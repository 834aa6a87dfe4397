//! Servers and channels: who a call belongs to, beside its connection.
//!
//! A call costs one addition when it begins and one when it ends. As with
//! connections, an endpoint is listed for as long as anybody holds it: the
//! server that accepts, the layer, the channel, a connection of theirs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::clock;
use crate::model::{Calls, Endpoint, EndpointId, Side};

#[derive(Debug, Default)]
struct Table {
    next: u64,
    live: BTreeMap<u64, Weak<EndpointCell>>,
}

/// All servers and channels there are.
#[derive(Debug, Default)]
pub struct Endpoints {
    table: Arc<Mutex<Table>>,
}

/// One server, or one channel.
#[derive(Debug)]
pub struct EndpointCell {
    id: EndpointId,
    side: Side,
    name: OnceLock<Arc<str>>,
    started: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_started: AtomicU64,
    table: Weak<Mutex<Table>>,
}

impl Endpoints {
    /// Registers one; `name` is where it listens, or what it connects to.
    pub fn open(&self, side: Side, name: Option<Arc<str>>) -> Arc<EndpointCell> {
        let mut table = lock(&self.table);
        table.next += 1;
        let cell = Arc::new(EndpointCell {
            id: EndpointId(table.next),
            side,
            name: name.map_or_else(OnceLock::new, OnceLock::from),
            started: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_started: AtomicU64::new(0),
            table: Arc::downgrade(&self.table),
        });
        table.live.insert(cell.id.0, Arc::downgrade(&cell));
        cell
    }

    /// All of them, by id. `now` is in ticks.
    pub fn snapshot(&self, now: u64) -> Vec<Endpoint> {
        // Not freed under the lock, which the last holder takes again.
        let cells: Vec<_> = lock(&self.table).live.values().filter_map(Weak::upgrade).collect();
        cells.iter().map(|cell| cell.to_model(now)).collect()
    }
}

impl EndpointCell {
    /// Which.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Where it listens, or what it connects to.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.get()
    }

    /// Names it, unless it has a name.
    pub fn named(&self, name: &Arc<str>) {
        _ = self.name.set(name.clone());
    }

    /// A call begins; `now` is in ticks.
    pub(super) fn call_began(&self, now: u64) {
        self.started.fetch_add(1, Relaxed);
        self.last_started.store(now, Relaxed);
    }

    /// A call is over.
    pub(super) fn call_ended(&self, ok: bool) {
        let counter = if ok { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    fn to_model(&self, now: u64) -> Endpoint {
        let last = self.last_started.load(Relaxed);
        // Ends before beginnings: no more calls have ended than began.
        let (succeeded, failed) = (self.succeeded.load(Relaxed), self.failed.load(Relaxed));
        Endpoint {
            id: self.id,
            side: self.side,
            name: self.name.get().cloned(),
            calls: Calls {
                started: self.started.load(Relaxed),
                succeeded,
                failed,
                last_started_ago_ns: (last != 0).then(|| clock::delta_ns(last, now)),
            },
        }
    }
}

impl Drop for EndpointCell {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            lock(&table).live.remove(&self.id.0);
        }
    }
}

/// The table is consistent after every statement.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_how_they_ended() {
        let endpoints = Endpoints::default();
        let server = endpoints.open(Side::Server, Some("127.0.0.1:1".into()));
        let channel = endpoints.open(Side::Client, None);
        server.call_began(clock::now());
        server.call_began(clock::now());
        server.call_ended(true);
        server.call_ended(false);
        let listed = endpoints.snapshot(clock::now());
        assert_eq!(
            listed.iter().map(|one| one.id).collect::<Vec<_>>(),
            [server.id(), channel.id()]
        );
        let calls = listed[0].calls;
        assert_eq!((calls.started, calls.succeeded, calls.failed), (2, 1, 1));
        assert!(calls.last_started_ago_ns.is_some());
        assert_eq!(listed[1].calls, Calls::default());
        drop(server);
        assert_eq!(endpoints.snapshot(clock::now()).len(), 1);
    }
}
