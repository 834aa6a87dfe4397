//! Ids of the protocol: positive, and never shared by two entities, whatever
//! their kinds. Ours are counted for each kind, so the kind goes into the
//! lower bits; order is kept, which paging needs.

use crate::model::{ConnectionId, EndpointId};

const KINDS: u64 = 8;
const CONNECTION: u64 = 0;
const LISTENER: u64 = 1;
const SERVER: u64 = 2;
const CHANNEL: u64 = 3;
const SUBCHANNEL: u64 = 4;

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// A socket that carries a connection.
    Connection(ConnectionId),
    /// The socket that a server listens on.
    Listener(EndpointId),
    /// A server.
    Server(EndpointId),
    /// A channel.
    Channel(EndpointId),
    /// The address that it connects to.
    Subchannel(EndpointId),
}

impl Entity {
    /// Its id. The first 2^60 of each kind can be told, which no process sees
    /// the end of.
    pub fn id(self) -> i64 {
        let (number, kind) = match self {
            Self::Connection(id) => (id.0, CONNECTION),
            Self::Listener(id) => (id.0, LISTENER),
            Self::Server(id) => (id.0, SERVER),
            Self::Channel(id) => (id.0, CHANNEL),
            Self::Subchannel(id) => (id.0, SUBCHANNEL),
        };
        i64::try_from(number.saturating_mul(KINDS) | kind).unwrap_or(i64::MAX)
    }

    /// The inverse; `None` for what is nobody's id.
    pub fn of(id: i64) -> Option<Self> {
        let id = u64::try_from(id).ok()?;
        let (number, kind) = (id / KINDS, id % KINDS);
        Some(match kind {
            CONNECTION => Self::Connection(ConnectionId(number)),
            LISTENER => Self::Listener(EndpointId(number)),
            SERVER => Self::Server(EndpointId(number)),
            CHANNEL => Self::Channel(EndpointId(number)),
            SUBCHANNEL => Self::Subchannel(EndpointId(number)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_nobody_elses_and_lead_back() {
        let mut seen = HashSet::new();
        for number in 1..50 {
            let endpoint = EndpointId(number);
            for entity in [
                Entity::Connection(ConnectionId(number)),
                Entity::Listener(endpoint),
                Entity::Server(endpoint),
                Entity::Channel(endpoint),
                Entity::Subchannel(endpoint),
            ] {
                assert!(entity.id() > 0 && seen.insert(entity.id()), "{entity:?}");
                assert_eq!(Entity::of(entity.id()), Some(entity));
            }
        }
        for nobody in [-1, 5, 7, i64::MIN, i64::MAX] {
            assert_eq!(Entity::of(nobody), None, "{nobody}");
        }
    }
}
