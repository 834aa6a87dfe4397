"""A gRPC client in another language (C-core, through Python) against the
reference server: the Echo service, gRPC's public interop cases, health and
reflection. Prints one line a case and ends with `N passed, N failed`.

Usage: client.py HOST:PORT PROTO_FOLDER [--calls]

With --calls a line follows for each call of the case: what came back besides
the messages, without what differs from one run to the next.
"""

import queue
import sys
import tempfile
import time
import traceback
from types import SimpleNamespace

import grpc
import grpc_tools.protoc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

ADDRESS, PROTO = sys.argv[1], sys.argv[2]


def load(*files):
    """Compiles .proto files. Not through generated modules: ours lie in a
    folder named grpc, which Python would mistake for the package."""
    with tempfile.NamedTemporaryFile() as out:
        arguments = ["protoc", f"-I{PROTO}", "--include_imports", f"-o{out.name}", *files]
        assert grpc_tools.protoc.main(arguments) == 0, "protoc failed"
        file_set = descriptor_pb2.FileDescriptorSet.FromString(out.read())
    pool = descriptor_pool.DescriptorPool()
    for file in file_set.file:
        pool.Add(file)
    return pool


POOL = load("grpc/examples/echo/echo.proto", "grpc/testing/test.proto")


def message(name):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


class Stub:
    """The methods of a service as callables of a channel."""

    def __init__(self, channel, name):
        for method in POOL.FindServiceByName(name).methods:
            kind = f"{word(method.client_streaming)}_{word(method.server_streaming)}"
            reply = message_factory.GetMessageClass(method.output_type)
            call = getattr(channel, kind)(
                f"/{name}/{method.name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=reply.FromString,
            )
            setattr(self, method.name, call)


def word(streaming):
    return "stream" if streaming else "unary"


echo_pb2 = SimpleNamespace(EchoRequest=message("grpc.examples.echo.EchoRequest"))
echo_grpc = SimpleNamespace(EchoStub=lambda c: Stub(c, "grpc.examples.echo.Echo"))
empty_pb2 = SimpleNamespace(Empty=message("grpc.testing.Empty"))
messages = SimpleNamespace(
    **{
        name: message(f"grpc.testing.{name}")
        for name in (
            "EchoStatus",
            "Payload",
            "ResponseParameters",
            "SimpleRequest",
            "StreamingInputCallRequest",
            "StreamingOutputCallRequest",
        )
    }
)
test_grpc = SimpleNamespace(TestServiceStub=lambda c: Stub(c, "grpc.testing.TestService"))

TIMEOUT = 10
CASES = []


def case(function):
    CASES.append(function)
    return function


def expect_code(call, code):
    try:
        result = call()
        if hasattr(result, "__next__"):
            list(result)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} instead of {code}: {error.details()}"
        return error
    raise AssertionError(f"no error where {code} was expected")


def payload(size):
    return messages.Payload(body=b"\0" * size)


@case
def echo_four_kinds(channel):
    stub = echo_grpc.EchoStub(channel)
    ask = lambda text: echo_pb2.EchoRequest(message=text)
    assert stub.UnaryEcho(ask("one"), timeout=TIMEOUT).message == "one"
    many = [reply.message for reply in stub.ServerStreamingEcho(ask("s"), timeout=TIMEOUT)]
    assert many and all("s" in text for text in many), many
    last = stub.ClientStreamingEcho(iter([ask("a"), ask("b")]), timeout=TIMEOUT)
    assert last.message == "b", last
    both = stub.BidirectionalStreamingEcho(iter([ask("x"), ask("y")]), timeout=TIMEOUT)
    assert [reply.message for reply in both] == ["x", "y"]


@case
def empty_unary(channel):
    stub = test_grpc.TestServiceStub(channel)
    assert stub.EmptyCall(empty_pb2.Empty(), timeout=TIMEOUT) == empty_pb2.Empty()


@case
def large_unary(channel):
    stub = test_grpc.TestServiceStub(channel)
    request = messages.SimpleRequest(response_size=314159, payload=payload(271828))
    assert len(stub.UnaryCall(request, timeout=TIMEOUT).payload.body) == 314159


@case
def client_streaming(channel):
    stub = test_grpc.TestServiceStub(channel)
    sizes = (27182, 8, 1828, 45904)
    parts = (messages.StreamingInputCallRequest(payload=payload(size)) for size in sizes)
    assert stub.StreamingInputCall(parts, timeout=TIMEOUT).aggregated_payload_size == 74922


@case
def server_streaming(channel):
    stub = test_grpc.TestServiceStub(channel)
    sizes = [31415, 9, 2653, 58979]
    request = messages.StreamingOutputCallRequest(
        response_parameters=[messages.ResponseParameters(size=size) for size in sizes]
    )
    got = [len(r.payload.body) for r in stub.StreamingOutputCall(request, timeout=TIMEOUT)]
    assert got == sizes, got


class PingPong:
    """Requests that are fed one by one while the replies are read."""

    def __init__(self):
        self.queue = queue.Queue()

    def send(self, request):
        self.queue.put(request)

    def close(self):
        self.queue.put(None)

    def __iter__(self):
        return iter(self.queue.get, None)


def duplex_request(size, sent):
    return messages.StreamingOutputCallRequest(
        response_parameters=[messages.ResponseParameters(size=size)], payload=payload(sent)
    )


@case
def ping_pong(channel):
    stub = test_grpc.TestServiceStub(channel)
    requests = PingPong()
    replies = stub.FullDuplexCall(iter(requests), timeout=TIMEOUT)
    for size, sent in zip((31415, 9, 2653, 58979), (27182, 8, 1828, 45904)):
        requests.send(duplex_request(size, sent))
        assert len(next(replies).payload.body) == size
    requests.close()
    assert list(replies) == []


@case
def empty_stream(channel):
    stub = test_grpc.TestServiceStub(channel)
    assert list(stub.FullDuplexCall(iter(()), timeout=TIMEOUT)) == []


@case
def custom_metadata(channel):
    stub = test_grpc.TestServiceStub(channel)
    metadata = (
        ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
        ("x-grpc-test-echo-trailing-bin", b"\x0a\x0b\x0a\x0b\x0a\x0b"),
    )
    request = messages.SimpleRequest(response_size=10, payload=payload(10))
    _, call = stub.UnaryCall.with_call(request, metadata=metadata, timeout=TIMEOUT)
    assert metadata[0] in [tuple(pair) for pair in call.initial_metadata()]
    assert metadata[1] in [tuple(pair) for pair in call.trailing_metadata()]
    requests = PingPong()
    duplex = stub.FullDuplexCall(iter(requests), metadata=metadata, timeout=TIMEOUT)
    requests.send(duplex_request(1, 1))
    next(duplex)
    requests.close()
    assert list(duplex) == []
    assert metadata[0] in [tuple(pair) for pair in duplex.initial_metadata()]
    assert metadata[1] in [tuple(pair) for pair in duplex.trailing_metadata()]


@case
def status_code_and_message(channel):
    stub = test_grpc.TestServiceStub(channel)
    status = messages.EchoStatus(code=2, message="test status message")
    error = expect_code(
        lambda: stub.UnaryCall(messages.SimpleRequest(response_status=status), timeout=TIMEOUT),
        grpc.StatusCode.UNKNOWN,
    )
    assert error.details() == "test status message"
    request = messages.StreamingOutputCallRequest(response_status=status)
    error = expect_code(
        lambda: stub.FullDuplexCall(iter([request]), timeout=TIMEOUT), grpc.StatusCode.UNKNOWN
    )
    assert error.details() == "test status message"


@case
def special_status_message(channel):
    stub = test_grpc.TestServiceStub(channel)
    text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    status = messages.EchoStatus(code=2, message=text)
    error = expect_code(
        lambda: stub.UnaryCall(messages.SimpleRequest(response_status=status), timeout=TIMEOUT),
        grpc.StatusCode.UNKNOWN,
    )
    assert error.details() == text, repr(error.details())


@case
def unimplemented_method_and_service(channel):
    stub = test_grpc.TestServiceStub(channel)
    expect_code(
        lambda: stub.UnimplementedCall(empty_pb2.Empty(), timeout=TIMEOUT),
        grpc.StatusCode.UNIMPLEMENTED,
    )
    nowhere = channel.unary_unary(
        "/grpc.testing.UnimplementedService/UnimplementedCall",
        request_serializer=lambda message: b"",
        response_deserializer=lambda data: data,
    )
    expect_code(lambda: nowhere(None, timeout=TIMEOUT), grpc.StatusCode.UNIMPLEMENTED)


@case
def cancel_after_begin(channel):
    stub = test_grpc.TestServiceStub(channel)
    requests = PingPong()
    call = stub.StreamingInputCall.future(iter(requests), timeout=TIMEOUT)
    call.cancel()
    requests.close()
    assert call.code() == grpc.StatusCode.CANCELLED


@case
def cancel_after_first_response(channel):
    stub = test_grpc.TestServiceStub(channel)
    requests = PingPong()
    call = stub.FullDuplexCall(iter(requests), timeout=TIMEOUT)
    requests.send(duplex_request(31415, 27182))
    assert len(next(call).payload.body) == 31415
    call.cancel()
    requests.close()
    assert call.code() == grpc.StatusCode.CANCELLED


@case
def timeout_on_sleeping_server(channel):
    stub = test_grpc.TestServiceStub(channel)
    requests = PingPong()
    began = time.monotonic()
    call = stub.FullDuplexCall(iter(requests), timeout=0.05)
    requests.send(messages.StreamingOutputCallRequest(payload=payload(27182)))
    expect_code(lambda: call, grpc.StatusCode.DEADLINE_EXCEEDED)
    requests.close()
    assert time.monotonic() - began < 5


@case
def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "grpc.examples.echo.Echo"):
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING, service


@case
def reflection_v1alpha(channel):
    services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    wanted = {"grpc.examples.echo.Echo", "grpc.testing.TestService", "grpc.health.v1.Health"}
    assert wanted <= services, services


@case
def reflection_v1(channel):
    # The v1 service has the messages of v1alpha under another name.
    info = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    replies = info(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=TIMEOUT)
    names = {s.name for reply in replies for s in reply.list_services_response.service}
    assert "grpc.testing.TestService" in names, names


class Calls(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Remembers every call that is made."""

    def __init__(self):
        self.made = []

    def note(self, continuation, details, request):
        call = continuation(details, request)
        self.made.append((details.method, call))
        return call

    intercept_unary_unary = intercept_unary_stream = note
    intercept_stream_unary = intercept_stream_stream = note

    def tell(self):
        for method, call in self.made:
            code = call.code()  # waits until it is over
            line = f"      {method} {code.name}"
            # Of a call that we gave up, what had come by then is chance.
            if code not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
                line += f" {call.details()!r} {metadata_of(call.initial_metadata())}"
                line += f" {metadata_of(call.trailing_metadata())}"
            print(line)
        self.made.clear()


def metadata_of(pairs):
    return sorted(tuple(pair) for pair in pairs or () if pair[0] != "date")


def main():
    passed = failed = 0
    calls = Calls()
    with grpc.insecure_channel(ADDRESS) as channel:
        grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
        if "--calls" in sys.argv:
            channel = grpc.intercept_channel(channel, calls)
        for function in CASES:
            try:
                function(channel)
                passed += 1
                print(f"ok    {function.__name__}")
                calls.tell()
            except Exception:
                failed += 1
                print(f"FAIL  {function.__name__}\n{traceback.format_exc()}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
