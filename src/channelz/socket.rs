//! Sockets as the protocol has them.

use prost::Message as _;
use prost_types::Any;

use super::convert::{address, count, instant, listener_ref, listens_by, socket_ref};
use crate::model::{Connection, Endpoint, Side, Snapshot, TcpInfo};
use crate::pb::channelz::security::{Model, Tls};
use crate::pb::channelz::{Security, Socket, SocketData, SocketOption, SocketOptionTcpInfo};

/// What `Any` calls the message.
const TCP_INFO: &str = "type.googleapis.com/grpc.channelz.v1.SocketOptionTcpInfo";

/// The socket of a connection.
pub fn connection(shot: &Snapshot, connection: &Connection) -> Socket {
    let end = |text: &Option<_>| text.as_deref().map(|text| address(text, connection.transport));
    let server = connection.side == Side::Server;
    let totals = connection.totals;
    let last_stream = instant(shot, totals.last_stream_ago_ns);
    let (local_stream, remote_stream) =
        if server { (None, last_stream) } else { (last_stream, None) };
    let http2 = connection.http2.as_ref().filter(|http2| !http2.lost);
    Socket {
        r#ref: Some(socket_ref(connection)),
        data: Some(SocketData {
            streams_started: count(connection.streams_total),
            streams_succeeded: count(totals.streams_succeeded),
            streams_failed: count(totals.streams_failed),
            messages_sent: count(totals.messages_sent),
            messages_received: count(totals.messages_received),
            keep_alives_sent: http2.map_or(0, |http2| count(http2.pings_sent)),
            last_local_stream_created_timestamp: local_stream,
            last_remote_stream_created_timestamp: remote_stream,
            last_message_sent_timestamp: instant(shot, totals.last_sent_ago_ns),
            last_message_received_timestamp: instant(shot, totals.last_received_ago_ns),
            // Granted to us is what we may send, and the other way round.
            local_flow_control_window: http2.map(|http2| http2.send_window),
            remote_flow_control_window: http2.map(|http2| http2.recv_window),
            option: connection.tcp.as_ref().map(options).unwrap_or_default(),
        }),
        local: end(&connection.local),
        remote: end(&connection.peer),
        security: connection.tls.then(|| Security { model: Some(Model::Tls(Tls::default())) }),
        remote_name: String::new(),
    }
}

/// The socket that a server listens on, where that is known.
pub fn listener(server: &Endpoint) -> Option<Socket> {
    let name = server.name.as_deref()?;
    Some(Socket {
        r#ref: listener_ref(server),
        data: Some(SocketData::default()),
        local: Some(address(name, listens_by(name))),
        ..Socket::default()
    })
}

/// What was read of the socket with the snapshot, and nothing else: the
/// structure, and beside it what the structure of the protocol has no room for.
fn options(tcp: &TcpInfo) -> Vec<SocketOption> {
    let additional = Any { type_url: TCP_INFO.into(), value: tcp_info(tcp).encode_to_vec() };
    let plain = |name: &str, value: u64| SocketOption {
        name: name.into(),
        value: value.to_string(),
        additional: None,
    };
    let mut options = vec![SocketOption {
        name: "TCP_INFO".into(),
        value: String::new(),
        additional: Some(additional),
    }];
    options.push(plain("SIOCINQ", tcp.unread_bytes.into()));
    options.push(plain("tcpi_notsent_bytes", tcp.notsent_bytes.into()));
    options.push(plain("tcpi_bytes_acked", tcp.bytes_acked));
    options.push(plain("tcpi_total_retrans", tcp.total_retransmits.into()));
    options.extend(tcp.send_window.map(|window| plain("tcpi_snd_wnd", window.into())));
    options.extend(tcp.recv_window.map(|window| plain("tcpi_rcv_wnd", window.into())));
    options
}

/// In the kernel's units: round trips and timeouts in microseconds, times since
/// something in milliseconds.
fn tcp_info(tcp: &TcpInfo) -> SocketOptionTcpInfo {
    let micros = |ns: u64| u32::try_from(ns / 1_000).unwrap_or(u32::MAX);
    let millis = |ns: u64| u32::try_from(ns / 1_000_000).unwrap_or(u32::MAX);
    let more = &tcp.more;
    SocketOptionTcpInfo {
        tcpi_state: tcp.state.into(),
        tcpi_ca_state: more.congestion_state.into(),
        tcpi_retransmits: tcp.retransmits.into(),
        tcpi_probes: tcp.probes.into(),
        tcpi_backoff: tcp.backoff.into(),
        tcpi_options: more.options.into(),
        tcpi_snd_wscale: more.send_window_scale.into(),
        tcpi_rcv_wscale: more.recv_window_scale.into(),
        tcpi_rto: micros(more.retransmit_timeout_ns),
        tcpi_ato: micros(more.ack_timeout_ns),
        tcpi_snd_mss: tcp.send_mss,
        tcpi_rcv_mss: more.recv_mss,
        tcpi_unacked: tcp.unacked,
        tcpi_sacked: more.sacked,
        tcpi_lost: more.lost,
        tcpi_retrans: more.retransmitting,
        tcpi_fackets: more.fackets,
        tcpi_last_data_sent: millis(tcp.last_data_sent_ago_ns),
        // Linux does not keep it: its own field is always 0.
        tcpi_last_ack_sent: 0,
        tcpi_last_data_recv: millis(tcp.last_data_received_ago_ns),
        tcpi_last_ack_recv: millis(tcp.last_ack_ago_ns),
        tcpi_pmtu: more.path_mtu,
        tcpi_rcv_ssthresh: more.recv_slow_start,
        tcpi_rtt: micros(tcp.rtt_ns),
        tcpi_rttvar: micros(more.rtt_variation_ns),
        tcpi_snd_ssthresh: more.send_slow_start,
        tcpi_snd_cwnd: more.congestion_window,
        tcpi_advmss: more.advertised_mss,
        tcpi_reordering: more.reordering,
    }
}
