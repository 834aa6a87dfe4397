//! How many a snapshot has of each group.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::model::{Connection, Phase, Side, Snapshot, Stream, VerdictKind};
use crate::render::json::{Head, TaskGroup};
use crate::render::select::{GroupSort, group_tasks, task_filter};

/// What a comparison needs of a snapshot, which may then go: two of 100,000
/// tasks are much to have in memory at once.
#[derive(Debug)]
pub struct Census {
    pub(super) head: Head,
    pub(super) tasks: Counted<TaskGroup>,
    pub(super) streams: Counted<StreamGroup>,
    pub(super) connections: Counted<ConnectionGroup>,
}

/// All of one kind.
#[derive(Debug)]
pub(super) struct Counted<G> {
    /// Who they are.
    pub ids: HashSet<u64>,
    /// How many are in each group.
    pub groups: Vec<(u64, G)>,
}

/// Streams that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct StreamGroup {
    /// Which end of them the process is.
    pub side: Side,
    /// `/pkg.Service/Method`.
    pub method: Arc<str>,
    /// What they are in.
    pub phase: Phase,
    /// What holds them up.
    pub verdict: VerdictKind,
}

/// Connections that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ConnectionGroup {
    /// Which end of them the process is.
    pub side: Side,
    /// The server's address, where known.
    pub server: Option<Arc<str>>,
    /// The client's host, where known; its port is another each time.
    pub client: Option<Arc<str>>,
    /// They are at their end, and streams of them live on.
    pub closed: bool,
}

impl Census {
    /// Counts. Verdicts are judged by others.
    pub fn of(snapshot: &Snapshot, verdict: impl Fn(&Stream) -> VerdictKind) -> Self {
        // An empty filter is always understood.
        let groups = task_filter("")
            .map(|all| group_tasks(snapshot, &all, GroupSort::Count, None, usize::MAX).groups);
        let groups = groups.unwrap_or_default().into_iter();
        Self {
            head: Head::of(snapshot),
            tasks: Counted {
                ids: snapshot.tasks.iter().map(|task| task.id.0).collect(),
                groups: groups.map(|group| (group.count, group)).collect(),
            },
            streams: count(
                &snapshot.streams,
                |stream| stream.id.0,
                |stream| StreamGroup {
                    side: stream.side,
                    method: Arc::clone(&stream.method),
                    phase: stream.phase,
                    verdict: verdict(stream),
                },
            ),
            connections: count(&snapshot.connections, |connection| connection.id.0, group_of),
        }
    }
}

fn count<T, G: Ord>(all: &[T], id: impl Fn(&T) -> u64, group: impl Fn(&T) -> G) -> Counted<G> {
    let mut groups: BTreeMap<G, u64> = BTreeMap::new();
    for one in all {
        *groups.entry(group(one)).or_default() += 1;
    }
    Counted {
        ids: all.iter().map(id).collect(),
        groups: groups.into_iter().map(|(group, count)| (count, group)).collect(),
    }
}

fn group_of(connection: &Connection) -> ConnectionGroup {
    let (server, client) = match connection.side {
        Side::Server => (&connection.local, &connection.peer),
        Side::Client => (&connection.peer, &connection.local),
    };
    ConnectionGroup {
        side: connection.side,
        server: server.clone(),
        client: client.as_ref().map(host),
        closed: connection.closed,
    }
}

/// An address without its port; whatever else it is, such as a path, as it is.
fn host(address: &Arc<str>) -> Arc<str> {
    match address.parse::<SocketAddr>() {
        Ok(socket) => socket.ip().to_string().into(),
        Err(_) => Arc::clone(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    #[test]
    fn everything_is_counted_once() {
        let snapshot = sample::busy_server();
        let census = Census::of(&snapshot, |_| VerdictKind::Healthy);
        let sum = |counts: Vec<u64>| counts.iter().sum::<u64>() as usize;
        let tasks = census.tasks.groups.iter().map(|(count, _)| *count).collect();
        assert_eq!(
            (sum(tasks), census.tasks.ids.len()),
            (snapshot.tasks.len(), snapshot.tasks.len())
        );
        let streams = census.streams.groups.iter().map(|(count, _)| *count).collect();
        assert_eq!(sum(streams), snapshot.streams.len());
        let connections = census.connections.groups.iter().map(|(count, _)| *count).collect();
        assert_eq!(sum(connections), snapshot.connections.len());
    }

    #[test]
    fn a_clients_port_makes_no_difference() {
        for (address, told) in
            [("10.0.0.1:4711", "10.0.0.1"), ("[::1]:80", "::1"), ("/run/x", "/run/x")]
        {
            assert_eq!(&*host(&address.into()), told);
        }
    }
}
