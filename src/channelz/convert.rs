//! Servers and channels as the protocol has them.

use std::net::{IpAddr, SocketAddr};

use prost_types::Timestamp;

use super::ids::Entity;
use crate::model::{Connection, Endpoint, Snapshot, Transport};
use crate::pb::channelz::address::{Address as Kind, OtherAddress, TcpIpAddress, UdsAddress};
use crate::pb::channelz::channel_connectivity_state::State;
use crate::pb::channelz::{
    Address, Channel, ChannelConnectivityState, ChannelData, ChannelRef, Server, ServerData,
    ServerRef, SocketRef, Subchannel, SubchannelRef,
};

/// A count; the wire has no unsigned one.
pub fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The instant so long before the snapshot; `None` for never.
pub fn instant(shot: &Snapshot, ago_ns: Option<u64>) -> Option<Timestamp> {
    ago_ns.map(|ago| Timestamp::from(shot.taken_at.minus_ns(ago)))
}

/// An address as it is printed by its transport.
pub fn address(text: &str, transport: Transport) -> Address {
    let other = |text: &str| Kind::OtherAddress(OtherAddress { name: text.into(), value: None });
    let kind = match (transport, text.parse::<SocketAddr>()) {
        (Transport::Unix, _) if text.starts_with('/') => {
            Kind::UdsAddress(UdsAddress { filename: text.into() })
        }
        (_, Ok(address)) => Kind::TcpipAddress(TcpIpAddress {
            ip_address: match address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            port: address.port().into(),
        }),
        (_, Err(_)) => other(text),
    };
    Address { address: Some(kind) }
}

/// The transport of a server's listening socket, which its name tells.
pub fn listens_by(name: &str) -> Transport {
    if name.starts_with('/') { Transport::Unix } else { Transport::Tcp }
}

fn name(endpoint: &Endpoint) -> String {
    endpoint.name.as_deref().unwrap_or_default().to_owned()
}

/// The sockets of an endpoint that are open, by id.
pub fn sockets<'a>(
    shot: &'a Snapshot,
    endpoint: &Endpoint,
) -> impl Iterator<Item = &'a Connection> + use<'a> {
    let id = endpoint.id;
    shot.connections
        .iter()
        .filter(move |connection| connection.endpoint == Some(id) && !connection.closed)
}

/// The reference to a connection.
pub fn socket_ref(connection: &Connection) -> SocketRef {
    let end =
        |address: &Option<std::sync::Arc<str>>| address.as_deref().unwrap_or("unknown").to_owned();
    SocketRef {
        socket_id: Entity::Connection(connection.id).id(),
        name: format!("{} -> {}", end(&connection.local), end(&connection.peer)),
    }
}

/// The reference to the socket that a server listens on, where that is known.
pub fn listener_ref(server: &Endpoint) -> Option<SocketRef> {
    let name = server.name.as_deref()?.to_owned();
    Some(SocketRef { socket_id: Entity::Listener(server.id).id(), name })
}

/// A server.
pub fn server(shot: &Snapshot, server: &Endpoint) -> Server {
    let calls = server.calls;
    Server {
        r#ref: Some(ServerRef { server_id: Entity::Server(server.id).id(), name: name(server) }),
        data: Some(ServerData {
            trace: None,
            calls_started: count(calls.started),
            calls_succeeded: count(calls.succeeded),
            calls_failed: count(calls.failed),
            last_call_started_timestamp: instant(shot, calls.last_started_ago_ns),
        }),
        listen_socket: listener_ref(server).into_iter().collect(),
    }
}

/// What channel and subchannel have in common.
///
/// A channel whose sockets are not tapped is in a state that nobody tells us.
fn data(shot: &Snapshot, channel: &Endpoint) -> ChannelData {
    let calls = channel.calls;
    let mut theirs = shot.connections.iter().filter(|one| one.endpoint == Some(channel.id));
    let state = match theirs.next() {
        None => State::Unknown,
        Some(_) if sockets(shot, channel).next().is_some() => State::Ready,
        Some(_) => State::Idle,
    };
    ChannelData {
        state: Some(ChannelConnectivityState { state: state.into() }),
        target: name(channel),
        trace: None,
        calls_started: count(calls.started),
        calls_succeeded: count(calls.succeeded),
        calls_failed: count(calls.failed),
        last_call_started_timestamp: instant(shot, calls.last_started_ago_ns),
    }
}

/// A channel.
pub fn channel(shot: &Snapshot, channel: &Endpoint) -> Channel {
    let (channel_id, name) = (Entity::Channel(channel.id).id(), name(channel));
    Channel {
        r#ref: Some(ChannelRef { channel_id, name: name.clone() }),
        data: Some(data(shot, channel)),
        channel_ref: Vec::new(),
        subchannel_ref: vec![SubchannelRef {
            subchannel_id: Entity::Subchannel(channel.id).id(),
            name,
        }],
        socket_ref: Vec::new(),
    }
}

/// What it connects to.
pub fn subchannel(shot: &Snapshot, channel: &Endpoint) -> Subchannel {
    Subchannel {
        r#ref: Some(SubchannelRef {
            subchannel_id: Entity::Subchannel(channel.id).id(),
            name: name(channel),
        }),
        data: Some(data(shot, channel)),
        channel_ref: Vec::new(),
        subchannel_ref: Vec::new(),
        socket_ref: sockets(shot, channel).map(socket_ref).collect(),
    }
}
