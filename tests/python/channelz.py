"""gRPC's channelz client in another language (grpcio-channelz over C-core)
against a process that is a server and its own client. Each of the seven calls
is compared with what the debug endpoints say of the same process. Prints one
line a case and ends with `N passed, N failed`.

Usage: channelz.py GRPC_HOST:PORT HTTP_HOST:PORT
"""

import ipaddress
import json
import queue
import sys
import time
import traceback
import urllib.request
from datetime import datetime

import grpc
from grpc_channelz.v1 import channelz_pb2 as pb
from grpc_channelz.v1 import channelz_pb2_grpc

GRPC, HTTP = sys.argv[1], sys.argv[2]
DEADLINE = 20

ask = channelz_pb2_grpc.ChannelzStub(grpc.insecure_channel(GRPC))


def snapshot():
    with urllib.request.urlopen(f"http://{HTTP}/debug/snapshot", timeout=DEADLINE) as answer:
        return json.load(answer)


def until(what, attempt):
    """The first answer that is true; not before long, or it fails."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        answer = attempt()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"never: {what}")


def settled(case):
    """Repeats a comparison that a snapshot from before the last call can fail:
    the debug server shares snapshots that are under way or have just been taken."""

    def attempt():
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return case()
            except (AssertionError, KeyError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    attempt.__name__ = case.__name__
    return attempt


def connection_of_its_own():
    """Channels to the same address share their connection otherwise."""
    return grpc.insecure_channel(GRPC, options=[("grpc.use_local_subchannel_pool", 1)])


def servers():
    return ask.GetServers(pb.GetServersRequest()).server


def channels():
    return ask.GetTopChannels(pb.GetTopChannelsRequest()).channel


def socket(ref):
    return ask.GetSocket(pb.GetSocketRequest(socket_id=ref.socket_id)).socket


def text(address):
    ip = address.tcpip_address
    return f"{ipaddress.ip_address(ip.ip_address)}:{ip.port}"


def endpoint(side):
    (one,) = [one for one in snapshot()["endpoints"] if one["side"] == side]
    return one


def seconds(timestamp):
    return timestamp.seconds + timestamp.nanos / 1e9


def calls(data):
    return data.calls_started, data.calls_succeeded, data.calls_failed


def pages_have_everything_once():
    (server,) = servers()
    all_sockets = []
    request = pb.GetServerSocketsRequest(server_id=server.ref.server_id, max_results=1)
    for _ in range(100):
        page = ask.GetServerSockets(request)
        assert len(page.socket_ref) == 1, page
        all_sockets += [ref.socket_id for ref in page.socket_ref]
        if page.end:
            break
        request.start_socket_id = all_sockets[-1] + 1
    assert len(all_sockets) >= 2 and all_sockets == sorted(set(all_sockets)), all_sockets
    request = pb.GetServerSocketsRequest(server_id=server.ref.server_id)
    whole = ask.GetServerSockets(request)
    assert whole.end and [ref.socket_id for ref in whole.socket_ref] == all_sockets
    beyond = ask.GetServers(pb.GetServersRequest(start_server_id=server.ref.server_id + 1))
    assert beyond.end and not beyond.server, beyond


def the_server_is_the_one_that_listens():
    (server,) = servers()
    one = ask.GetServer(pb.GetServerRequest(server_id=server.ref.server_id)).server
    assert one.ref == server.ref
    (listener,) = one.listen_socket
    listening = socket(listener)
    assert text(listening.local) == GRPC == endpoint("server")["name"], listening
    assert not listening.HasField("remote"), listening


def server_sockets():
    (server,) = servers()
    request = pb.GetServerSocketsRequest(server_id=server.ref.server_id)
    return {ref.socket_id for ref in ask.GetServerSockets(request).socket_ref}


def calls_are_counted_by_how_they_ended():
    others = server_sockets()
    before = servers()[0].data
    echo = connection_of_its_own()
    say = echo.unary_unary("/grpc.examples.echo.Echo/UnaryEcho")
    nothing = echo.unary_unary("/grpc.examples.echo.Echo/Nothing")
    for _ in range(3):
        assert say(b"\n\x02hi") == b"\n\x02hi"
    try:
        nothing(b"")
        raise AssertionError("it was answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    after = servers()[0].data
    # The question before, and the one that is being answered, are calls too.
    assert after.calls_started - before.calls_started == 5, (before, after)
    assert after.calls_failed - before.calls_failed == 1, (before, after)
    assert after.calls_succeeded - before.calls_succeeded == 4, (before, after)
    assert abs(seconds(after.last_call_started_timestamp) - time.time()) < 5, after

    @settled
    def the_same():
        told = endpoint("server")["calls"]
        assert told["started"] == after.calls_started, (told, after)
        assert told["failed"] == after.calls_failed, (told, after)

    the_same()
    echo.close()
    until("its socket goes", lambda: server_sockets() <= others)


def sockets():
    """Every socket of the process with what the debug endpoints say of it."""
    (server,) = servers()
    request = pb.GetServerSocketsRequest(server_id=server.ref.server_id)
    refs = list(ask.GetServerSockets(request).socket_ref)
    for channel in channels():
        for ref in channel.subchannel_ref:
            request = pb.GetSubchannelRequest(subchannel_id=ref.subchannel_id)
            refs += ask.GetSubchannel(request).subchannel.socket_ref
    taken = snapshot()
    at = datetime.fromisoformat(taken["taken_at"].split(".")[0].rstrip("Z") + "+00:00")
    told = {(one["local"], one["peer"]): one for one in taken["connections"]}
    for one in told.values():
        fraction = taken["taken_at"].rstrip("Z").partition(".")[2]
        one["at"] = at.timestamp() + float(f"0.{fraction}0")
    found = []
    for ref in refs:
        try:
            found.append(socket(ref))
        except grpc.RpcError as error:
            # Closed since it was listed.
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
    return [(one, told[text(one.local), text(one.remote)]) for one in found]


def quiet():
    """Without our own, which changes with each question."""
    all_sockets = sockets()
    last = max(seconds(one.data.last_remote_stream_created_timestamp) for one, _ in all_sockets)
    return [
        (one, told)
        for one, told in all_sockets
        if seconds(one.data.last_remote_stream_created_timestamp) < last
    ]


@settled
def sockets_say_what_the_debug_endpoints_say():
    found = quiet()
    sides = {told["side"] for _, told in found}
    assert sides == {"server", "client"}, found
    for one, told in found:
        data, totals, http2 = one.data, told["totals"], told["http2"]
        assert data.streams_started == told["streams_total"] > 0, (one, told)
        assert data.streams_succeeded == totals["streams_succeeded"], (one, told)
        assert data.streams_failed == totals["streams_failed"], (one, told)
        assert data.messages_sent == totals["messages_sent"] > 0, (one, told)
        assert data.messages_received == totals["messages_received"], (one, told)
        assert data.keep_alives_sent == http2["pings_sent"], (one, told)
        assert data.local_flow_control_window.value == http2["send_window"], (one, told)
        assert data.remote_flow_control_window.value == http2["recv_window"], (one, told)
        ago = told["at"] - seconds(data.last_message_sent_timestamp)
        assert abs(ago - totals["last_sent_ago_ns"] / 1e9) < 0.01, (ago, told)
        own, other = "last_local_stream_created", "last_remote_stream_created"
        if told["side"] == "server":
            own, other = other, own
        ago = told["at"] - seconds(getattr(data, f"{own}_timestamp"))
        assert abs(ago - totals["last_stream_ago_ns"] / 1e9) < 0.01, (ago, told)
        assert not data.HasField(f"{other}_timestamp"), one
        assert not one.HasField("security") and not told["tls"], one


def tcp_info(one):
    (option,) = [option for option in one.data.option if option.name == "TCP_INFO"]
    info = pb.SocketOptionTcpInfo()
    assert option.additional.Unpack(info), option
    return info


@settled
def the_kernel_is_asked_each_time():
    one, told = quiet()[0]
    info, tcp = tcp_info(one), told["tcp"]
    assert info.tcpi_state == tcp["state"] == 1, info
    assert info.tcpi_snd_mss == tcp["send_mss"] > 500, info
    assert info.tcpi_pmtu == tcp["more"]["path_mtu"] > 500, info
    assert info.tcpi_snd_cwnd == tcp["more"]["congestion_window"] > 0, info
    assert info.tcpi_rtt > 0 and info.tcpi_rto > 0, info
    named = {option.name: option.value for option in one.data.option}
    assert named["SIOCINQ"] == "0" and int(named["tcpi_notsent_bytes"]) == 0, named
    assert int(named["tcpi_bytes_acked"]) > 0, named
    later = until(
        "the kernel's clock goes on",
        lambda: tcp_info(socket(one.ref)).tcpi_last_data_recv > info.tcpi_last_data_recv,
    )
    assert later


def times_move_with_the_traffic():
    echo = connection_of_its_own()
    requests = queue.Queue()
    stream = echo.stream_stream("/grpc.examples.echo.Echo/BidirectionalStreamingEcho")
    answers = stream(iter(requests.get, None))
    requests.put(b"\n\x01a")
    next(answers)

    @settled
    def the_new_one():
        (one,) = [
            one
            for one, told in quiet()
            if told["side"] == "server"
            and (one.data.streams_started, one.data.streams_succeeded) == (1, 0)
        ]
        return one

    mine = the_new_one()
    assert mine.data.messages_sent == mine.data.messages_received == 1, mine
    requests.put(b"\n\x01b")
    next(answers)
    then = socket(mine.ref)
    assert then.data.messages_sent == then.data.messages_received == 2, then
    for name in ("last_message_sent", "last_message_received"):
        before, after = (getattr(one.data, f"{name}_timestamp") for one in (mine, then))
        assert seconds(after) > seconds(before), (before, after)
    began = [seconds(one.data.last_remote_stream_created_timestamp) for one in (mine, then)]
    assert abs(began[0] - began[1]) < 0.001, "the stream began once"
    requests.put(None)
    list(answers)
    ended = until(
        "the stream ends", lambda: (one := socket(mine.ref)).data.streams_succeeded and one
    )
    assert ended.data.messages_sent == 2 and ended.data.streams_failed == 0, ended
    echo.close()
    until("its socket goes", lambda: code_of(lambda: socket(mine.ref)) == "NOT_FOUND")


@settled
def channels_lead_to_their_sockets():
    (top,) = channels()
    one = ask.GetChannel(pb.GetChannelRequest(channel_id=top.ref.channel_id)).channel
    assert one.ref == top.ref and one.subchannel_ref == top.subchannel_ref, (one, top)
    assert calls(one.data) == calls(top.data), (one, top)
    told = endpoint("client")
    assert top.data.target == told["name"] == GRPC, (top, told)
    counted = told["calls"]
    assert calls(top.data) == (counted["started"], counted["succeeded"], counted["failed"])
    assert top.data.calls_succeeded > 0 and top.data.calls_failed > 0, top
    assert top.data.state.state == pb.ChannelConnectivityState.READY, top
    (ref,) = top.subchannel_ref
    request = pb.GetSubchannelRequest(subchannel_id=ref.subchannel_id)
    below = ask.GetSubchannel(request).subchannel
    assert below.ref == ref and calls(below.data) == calls(top.data), below
    (ref,) = below.socket_ref
    assert text(socket(ref).remote) == GRPC, ref


def code_of(call):
    try:
        call()
        return None
    except grpc.RpcError as error:
        return error.code().name


def what_is_not_there_is_not_found():
    (server,) = servers()
    for wrong in (0, 2**40, -1, 2**63 - 1, channels()[0].ref.channel_id):
        for call in (
            lambda: ask.GetServer(pb.GetServerRequest(server_id=wrong)),
            lambda: ask.GetServerSockets(pb.GetServerSocketsRequest(server_id=wrong)),
            lambda: ask.GetSubchannel(pb.GetSubchannelRequest(subchannel_id=wrong)),
            lambda: ask.GetSocket(pb.GetSocketRequest(socket_id=wrong)),
        ):
            assert code_of(call) == "NOT_FOUND", wrong
    wrong = server.ref.server_id
    call = lambda: ask.GetChannel(pb.GetChannelRequest(channel_id=wrong))
    assert code_of(call) == "NOT_FOUND"
    call = lambda: ask.GetServers(pb.GetServersRequest(max_results=-1))
    assert code_of(call) == "INVALID_ARGUMENT"


CASES = [
    the_server_is_the_one_that_listens,
    calls_are_counted_by_how_they_ended,
    pages_have_everything_once,
    sockets_say_what_the_debug_endpoints_say,
    the_kernel_is_asked_each_time,
    times_move_with_the_traffic,
    channels_lead_to_their_sockets,
    what_is_not_there_is_not_found,
]

failed = 0
for case in CASES:
    try:
        case()
        print(f"ok      {case.__name__}")
    except Exception:
        failed += 1
        print(f"FAILED  {case.__name__}\n{traceback.format_exc()}")
print(f"{len(CASES) - failed} passed, {failed} failed")
sys.exit(1 if failed else 0)
