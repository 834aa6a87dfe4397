//! Every call, over a snapshot whose figures are known.

use std::sync::Arc;

use prost::Message as _;
use tonic::{Code, Request};

use super::service::Channelz;
use crate::model::{
    Calls, ConnectionTotals, Endpoint, EndpointId, Http2, Side, Snapshot, TcpInfo, TcpInfoMore,
    Timestamp, Transport, sample,
};
use crate::pb::channelz::channelz_server::Channelz as _;
use crate::pb::channelz::{self as pb, address, channel_connectivity_state::State};

const SECOND: u64 = 1_000_000_000;

/// Two servers, of which the first has three sockets, one of them closed; and
/// two channels, of which the first is connected.
fn shot() -> Snapshot {
    let mut shot = sample::empty();
    let endpoint = |id, side, name: Option<&str>| Endpoint {
        id: EndpointId(id),
        side,
        name: name.map(Into::into),
        calls: Calls { started: 9, succeeded: 5, failed: 3, last_started_ago_ns: Some(2 * SECOND) },
    };
    shot.endpoints = vec![
        endpoint(1, Side::Server, Some("127.0.0.1:50051")),
        endpoint(2, Side::Client, Some("localhost:50052")),
        endpoint(3, Side::Server, None),
        endpoint(4, Side::Client, Some("localhost:50053")),
    ];
    for (id, of, side) in
        [(1, 1, Side::Server), (2, 1, Side::Server), (3, 1, Side::Server), (4, 2, Side::Client)]
    {
        let mut connection = sample::connection(id);
        connection.side = side;
        connection.endpoint = Some(EndpointId(of));
        connection.streams_total = 12;
        connection.totals = ConnectionTotals {
            streams_succeeded: 7,
            streams_failed: 4,
            last_stream_ago_ns: Some(3 * SECOND),
            messages_sent: 100,
            messages_received: 200,
            last_sent_ago_ns: Some(SECOND),
            last_received_ago_ns: None,
        };
        connection.http2 = Some(Http2 {
            send_window: -5,
            recv_window: 1 << 20,
            pings_sent: 6,
            ..Http2::default()
        });
        connection.tcp = Some(TcpInfo {
            state: 1,
            unacked: 17,
            rtt_ns: 35_000,
            last_ack_ago_ns: 20_000_000,
            notsent_bytes: 4_321,
            send_window: Some(65_536),
            more: TcpInfoMore { congestion_window: 10, ..TcpInfoMore::default() },
            ..TcpInfo::default()
        });
        connection.closed = id == 2;
        connection.tls = id == 3;
        shot.connections.push(connection);
    }
    shot
}

fn service() -> (Snapshot, Channelz) {
    let shot = shot();
    let answer = shot.clone();
    (shot, Channelz::new(Arc::new(move || Ok(answer.clone()))))
}

fn servers(start_server_id: i64, max_results: i64) -> Request<pb::GetServersRequest> {
    Request::new(pb::GetServersRequest { start_server_id, max_results })
}

#[tokio::test]
async fn servers_lead_to_their_open_sockets() {
    let (_, service) = service();
    let all = service.get_servers(servers(0, 0)).await.unwrap().into_inner();
    assert!(all.end && all.server.len() == 2);
    let first = &all.server[0];
    let data = first.data.as_ref().unwrap();
    assert_eq!((data.calls_started, data.calls_succeeded, data.calls_failed), (9, 5, 3));
    let server_id = first.r#ref.as_ref().unwrap().server_id;
    let request = Request::new(pb::GetServerRequest { server_id });
    let one = service.get_server(request).await.unwrap().into_inner().server.unwrap();
    assert_eq!(&one, first);

    let ask = |start_socket_id, max_results| {
        Request::new(pb::GetServerSocketsRequest { server_id, start_socket_id, max_results })
    };
    let sockets = service.get_server_sockets(ask(0, 0)).await.unwrap().into_inner();
    assert!(sockets.end && sockets.socket_ref.len() == 2, "{sockets:?}");
    let page = service.get_server_sockets(ask(0, 1)).await.unwrap().into_inner();
    assert_eq!((page.end, &page.socket_ref[..]), (false, &sockets.socket_ref[..1]));
    let next = page.socket_ref[0].socket_id + 1;
    let page = service.get_server_sockets(ask(next, 1)).await.unwrap().into_inner();
    assert_eq!((page.end, &page.socket_ref[..]), (true, &sockets.socket_ref[1..]));

    let listener = first.listen_socket[0].socket_id;
    let request = Request::new(pb::GetSocketRequest { socket_id: listener });
    let socket = service.get_socket(request).await.unwrap().into_inner().socket.unwrap();
    let Some(address::Address::TcpipAddress(local)) = socket.local.unwrap().address else {
        panic!("no address")
    };
    assert_eq!((&local.ip_address[..], local.port), (&[127, 0, 0, 1][..], 50_051));
    assert_eq!((socket.remote, all.server[1].listen_socket.len()), (None, 0));
}

#[tokio::test]
async fn sockets_tell_windows_times_and_what_the_kernel_says() {
    let (shot, service) = service();
    let get = |socket_id| service.get_socket(Request::new(pb::GetSocketRequest { socket_id }));
    let socket = get(8).await.unwrap().into_inner().socket.unwrap();
    let data = socket.data.unwrap();
    assert_eq!(
        (data.local_flow_control_window, data.remote_flow_control_window),
        (Some(-5), Some(1 << 20))
    );
    assert_eq!((data.streams_started, data.streams_succeeded, data.streams_failed), (12, 7, 4));
    assert_eq!((data.messages_sent, data.messages_received, data.keep_alives_sent), (100, 200, 6));
    let ago =
        |seconds| Some(prost_types::Timestamp::from(shot.taken_at.minus_ns(seconds * SECOND)));
    assert_eq!(data.last_message_sent_timestamp, ago(1));
    assert_eq!(data.last_message_received_timestamp, None);
    assert_eq!(data.last_remote_stream_created_timestamp, ago(3));
    assert_eq!(data.last_local_stream_created_timestamp, None);
    let named = |name: &str| data.option.iter().find(|option| option.name == name).unwrap();
    let info = named("TCP_INFO").additional.as_ref().unwrap();
    assert_eq!(info.type_url, "type.googleapis.com/grpc.channelz.v1.SocketOptionTcpInfo");
    let info = pb::SocketOptionTcpInfo::decode(&info.value[..]).unwrap();
    assert_eq!((info.tcpi_unacked, info.tcpi_rtt, info.tcpi_last_ack_recv), (17, 35, 20));
    assert_eq!((info.tcpi_state, info.tcpi_snd_cwnd), (1, 10));
    assert_eq!(named("tcpi_notsent_bytes").value, "4321");
    assert_eq!(named("tcpi_snd_wnd").value, "65536");
    assert!(data.option.iter().all(|option| option.name != "tcpi_rcv_wnd"));
    assert!(socket.security.is_none());
    assert!(get(24).await.unwrap().into_inner().socket.unwrap().security.is_some());

    let client = get(32).await.unwrap().into_inner().socket.unwrap().data.unwrap();
    assert_eq!(client.last_local_stream_created_timestamp, ago(3));
    assert_eq!(client.last_remote_stream_created_timestamp, None);
}

#[tokio::test]
async fn channels_lead_to_their_sockets() {
    let (_, service) = service();
    let request = pb::GetTopChannelsRequest { start_channel_id: 0, max_results: 0 };
    let all = service.get_top_channels(Request::new(request)).await.unwrap().into_inner();
    assert!(all.end);
    let states = all.channel.iter().map(|channel| {
        let data = channel.data.as_ref().unwrap();
        (&data.target[..], data.state.as_ref().unwrap().state())
    });
    assert_eq!(
        states.collect::<Vec<_>>(),
        [("localhost:50052", State::Ready), ("localhost:50053", State::Unknown)]
    );
    let first = &all.channel[0];
    let channel_id = first.r#ref.as_ref().unwrap().channel_id;
    let request = Request::new(pb::GetChannelRequest { channel_id });
    let one = service.get_channel(request).await.unwrap().into_inner().channel.unwrap();
    assert_eq!(&one, first);
    let subchannel_id = first.subchannel_ref[0].subchannel_id;
    let request = Request::new(pb::GetSubchannelRequest { subchannel_id });
    let below = service.get_subchannel(request).await.unwrap().into_inner().subchannel.unwrap();
    assert_eq!((below.data.as_ref(), below.socket_ref.len()), (first.data.as_ref(), 1));
    assert_eq!(below.socket_ref[0].socket_id, 32);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_nonsense_is_refused() {
    let (_, service) = service();
    // Of another kind, of a closed connection, of nobody.
    for id in [0, 8, 999, -1, i64::MIN, i64::MAX] {
        let request = Request::new(pb::GetServerRequest { server_id: id });
        assert_eq!(service.get_server(request).await.unwrap_err().code(), Code::NotFound);
        let request = Request::new(pb::GetChannelRequest { channel_id: id });
        assert_eq!(service.get_channel(request).await.unwrap_err().code(), Code::NotFound);
        let request = Request::new(pb::GetSubchannelRequest { subchannel_id: id });
        assert_eq!(service.get_subchannel(request).await.unwrap_err().code(), Code::NotFound);
        let request = pb::GetServerSocketsRequest { server_id: id, ..Default::default() };
        let refused = service.get_server_sockets(Request::new(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    for id in [0, 16, 10, 999, -8, i64::MAX] {
        let request = Request::new(pb::GetSocketRequest { socket_id: id });
        assert_eq!(service.get_socket(request).await.unwrap_err().code(), Code::NotFound, "{id}");
    }
    for (start, most) in [(0, -1), (-1, 0)] {
        let refused = service.get_servers(servers(start, most)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let beyond = service.get_servers(servers(i64::MAX, 1)).await.unwrap().into_inner();
    assert!(beyond.end && beyond.server.is_empty());
}

#[test]
fn addresses_keep_their_kind() {
    use super::convert::{address as of, listens_by};
    let kind = |text, transport| of(text, transport).address.unwrap();
    let v6 = kind("[::1]:80", Transport::Tcp);
    assert!(matches!(v6, address::Address::TcpipAddress(ip) if ip.ip_address.len() == 16));
    let path = kind("/run/a.sock", listens_by("/run/a.sock"));
    assert!(matches!(path, address::Address::UdsAddress(uds) if uds.filename == "/run/a.sock"));
    let peer = kind("unix:pid=7", Transport::Unix);
    assert!(matches!(peer, address::Address::OtherAddress(other) if other.name == "unix:pid=7"));
}

#[test]
fn the_clock_of_an_answer_is_that_of_its_snapshot() {
    let mut shot = sample::empty();
    shot.taken_at = Timestamp::now();
    let then = super::convert::instant(&shot, Some(1)).unwrap();
    assert_eq!(then, shot.taken_at.minus_ns(1).into());
}
