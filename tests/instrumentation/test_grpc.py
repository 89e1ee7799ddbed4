"""grpc and grpc.aio in front of real servers of both kinds."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import AbstractContextManager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import _server
from grpc._cython import cygrpc
from opentelemetry import propagate
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.grpc_server import SERVICE, Answers, aio_server, sync_server
from instrumentation.http_client_contract import run
from instrumentation.redis_contract import entries
from instrumentation.rpc_contract import Outcome, RpcContract, settled, two
from tracekit.instrumentation._grpc_told import told_of
from tracekit.instrumentation.grpc import GrpcInstrumentor
from tracekit.propagators._composite import CompositePropagator
from tracekit.propagators.tracecontext import TraceContextPropagator
from tracekit.propagators.xray import XRayPropagator

KINDS = {
    "Count": "unary_stream",
    "CountAndFail": "unary_stream",
    "Endless": "unary_stream",
    "AddUp": "stream_unary",
    "Echo": "stream_stream",
}


@pytest.fixture(autouse=True)
def quiet_handlers(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the server's own report of handlers that raise out of the output."""
    caplog.set_level(logging.CRITICAL, logger="grpc._server")


class SyncClient(RpcContract):
    plugin = GrpcInstrumentor

    def call(
        self,
        port: int,
        method: str,
        requests: Sequence[bytes] = (b"1",),
        *,
        timeout: float | None = None,
        metadata: Any = None,
        take: int | None = None,
    ) -> Outcome:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return self.call_on(channel, method, requests, timeout, metadata, take)

    def call_on(
        self,
        channel: grpc.Channel,
        method: str,
        requests: Sequence[bytes] = (b"1",),
        timeout: float | None = None,
        metadata: Any = None,
        take: int | None = None,
    ) -> Outcome:
        kind = KINDS.get(method, "unary_unary")
        callable_ = getattr(channel, kind)(f"/{SERVICE}/{method}")
        request = iter(requests) if kind.startswith("stream") else requests[0]
        try:
            answer = callable_(request, timeout=timeout, metadata=metadata)
            if not kind.endswith("stream"):
                return Outcome([answer])
            if take is None:
                return Outcome(list(answer))
            taken = [next(answer) for _ in range(take)]
            del answer
            # The channel must not be what ends the call.
            threading.Event().wait(0.05)
            return Outcome(taken)
        except grpc.RpcError as error:
            return Outcome([], error.code().name)


class AioClient(RpcContract):
    plugin = GrpcInstrumentor
    knows_target = hasattr(cygrpc.AioChannel, "target")

    def call(self, port: int, method: str, requests: Any = (b"1",), **options: Any) -> Outcome:
        return asyncio.run(self._call(port, method, requests, **options))

    async def _call(
        self,
        port: int,
        method: str,
        requests: Sequence[bytes],
        timeout: float | None = None,
        metadata: Any = None,
        take: int | None = None,
    ) -> Outcome:
        kind = KINDS.get(method, "unary_unary")
        request = iter(requests) if kind.startswith("stream") else requests[0]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = getattr(channel, kind)(f"/{SERVICE}/{method}")(
                request, timeout=timeout, metadata=metadata
            )
            try:
                if not kind.endswith("stream"):
                    return Outcome([await call])
                taken: list[bytes] = []
                async for answer in call:
                    taken.append(answer)
                    if len(taken) == take:
                        break
                if take is not None:
                    call.cancel()
                return Outcome(taken)
            except grpc.RpcError as error:
                return Outcome([], error.code().name)


class SyncServer(RpcContract):
    def server(self, answers: Answers) -> AbstractContextManager[int]:
        return sync_server(answers)


class AioServer(RpcContract):
    def server(self, answers: Answers) -> AbstractContextManager[int]:
        return aio_server(answers)


class TestSyncClientAndServer(SyncClient, SyncServer): ...


class TestAioClientAndServer(AioClient, AioServer): ...


class TestAioClientOfSyncServer(AioClient, SyncServer): ...


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def port(answers: Answers) -> Iterator[int]:
    """A synchronous server that was made before the library was instrumented."""
    with sync_server(answers) as port:
        yield port


CALLS = SyncClient()


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("dns:///api.example.com:443", "api.example.com"),
        ("api.example.com:443", "api.example.com"),
        ("ipv4:10.0.0.1:50051", "10.0.0.1"),
        ("unix:/run/orders.sock", "localhost"),
        ("unix-abstract:orders", "localhost"),
    ],
)
def test_hosts_are_those_that_targets_lead_to(target: str, host: str) -> None:
    assert told_of((), "/shop.Orders/Get", target, None).host == host


def test_a_channel_and_a_server_made_before_are_watched(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        callable_ = channel.unary_unary(f"/{SERVICE}/Get")
        instrument(GrpcInstrumentor)
        assert callable_(b"x") == b"x"
        assert len(settled(spans, 2)) == 2


def test_an_answer_with_its_call_is_one_span(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(GrpcInstrumentor)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer, call = channel.unary_unary(f"/{SERVICE}/Get").with_call(b"x")
        assert (answer, call.code()) == (b"x", grpc.StatusCode.OK)
    assert two(spans)[0].attributes["rpc.status_code"] == "OK"


@pytest.mark.parametrize("way", ["__call__", "with_call"])
def test_an_error_that_is_raised_is_recorded(
    instrument: Instrument, spans: Spans, port: int, way: str
) -> None:
    instrument(GrpcInstrumentor)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = getattr(channel.unary_unary(f"/{SERVICE}/Abort"), way)
        with pytest.raises(grpc.RpcError) as raised:
            call(b"NOT_FOUND")
    (event,) = two(spans)[0].events
    told = dict(event.attributes or {})
    assert told["exception.type"] == "grpc._channel._InactiveRpcError"
    assert told["exception.message"] == str(raised.value)
    assert "_end_unary_response_blocking" in str(told["exception.stacktrace"])


def test_a_request_that_cannot_be_written_fails_the_call(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(GrpcInstrumentor)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/Get", request_serializer=bytes.fromhex)
        with pytest.raises(grpc.RpcError):
            call("no number")
    span = spans.one()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["rpc.status_code"] == "INTERNAL"


def test_calls_of_one_callable_say_what_each_was_given(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/Get")
        first = instrument(GrpcInstrumentor)
        for timeout in (5, 7, None, 7):
            call(b"x", timeout=timeout)
        clients = [span for span in settled(spans, 8) if span.kind is SpanKind.CLIENT]
        told = [(span.attributes or {}).get("tracekit.timeout.total_s") for span in clients]
        assert told == [5, 7, None, 7]
        first.uninstrument()
        instrument(GrpcInstrumentor, excluded_services=SERVICE)
        call(b"x", timeout=7)
        assert len(settled(spans, 8)) == 8


def test_a_future_ends_with_its_result(instrument: Instrument, spans: Spans, port: int) -> None:
    instrument(GrpcInstrumentor)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        future = channel.unary_unary(f"/{SERVICE}/Get").future(b"x")
        assert future.result(10) == b"x"
        assert two(spans)[0].attributes["rpc.status_code"] == "OK"


def test_a_future_that_is_cancelled_is_no_error(
    instrument: Instrument, spans: Spans, answers: Answers, port: int
) -> None:
    instrument(GrpcInstrumentor)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        future = channel.unary_unary(f"/{SERVICE}/Wait").future(b"x")
        future.cancel()
        (client,) = settled(spans, 1)
        assert client.status.status_code is StatusCode.UNSET
        assert client.attributes["rpc.status_code"] == "CANCELLED"
        answers.release.set()


def test_a_cancelled_task_is_no_error(
    instrument: Instrument, spans: Spans, answers: Answers
) -> None:
    instrument(GrpcInstrumentor)

    async def wait(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/Wait")(b"x")
            await asyncio.wait_for(call, 0.1)

    with aio_server(answers) as port, pytest.raises(asyncio.TimeoutError):
        asyncio.run(wait(port))
    client, server = two(spans)
    assert {client.status.status_code, server.status.status_code} == {StatusCode.UNSET}


def test_a_dropped_asynchronous_stream_is_ended_with_its_channel(
    instrument: Instrument, spans: Spans, answers: Answers
) -> None:
    instrument(GrpcInstrumentor)

    async def take_one(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream(f"/{SERVICE}/Endless")(b"x")
            await call.read()
            del call

    with aio_server(answers) as port:
        asyncio.run(take_one(port))
        client, _ = two(spans)
    assert client.attributes["rpc.status_code"] == "CANCELLED"


def test_headers_of_any_spelling_are_metadata_in_lower_case(
    instrument: Instrument,
    spans: Spans,
    answers: Answers,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instrument(GrpcInstrumentor)
    several = CompositePropagator([XRayPropagator(), TraceContextPropagator()])
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", several)
    CALLS.call(port, "Get", metadata=iter([("tenant", "acme")]))
    two(spans)
    assert {"tenant", "x-amzn-trace-id", "traceparent"} <= answers.metadata[0].keys()


def test_requests_are_taken_from_the_programs_iterator_below_the_span(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(GrpcInstrumentor)

    def requests() -> Iterator[bytes]:
        with spans.tracer.start_as_current_span("made"):
            yield b"1"

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.stream_unary(f"/{SERVICE}/AddUp")(requests())
    client, _ = two(spans)
    (made,) = [span for span in spans.ended if span.name == "made"]
    assert made.parent is not None
    assert made.parent.span_id == client.context.span_id


class Retry(grpc.UnaryUnaryClientInterceptor):
    """Asks again when the first answer is a failure, and notes what is current."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        outcome = continuation(details, request)
        return continuation(details, b"OUT_OF_RANGE") if outcome.exception() else outcome


def test_each_attempt_of_an_interceptor_is_a_span(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(GrpcInstrumentor)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
        channel = grpc.intercept_channel(plain, Retry())
        assert CALLS.call_on(channel, "Abort", [b"UNAVAILABLE"]).code == "OUT_OF_RANGE"
        clients = [span for span in settled(spans, 4) if span.kind is SpanKind.CLIENT]
    codes = [(span.attributes or {})["rpc.status_code"] for span in clients]
    assert codes == ["UNAVAILABLE", "OUT_OF_RANGE"]


class Refuse(grpc.ServerInterceptor):
    """Lets nobody in."""

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        def refuse(request: bytes, context: Any) -> bytes:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(refuse)


def test_a_call_that_an_interceptor_refuses_has_a_server_span(
    instrument: Instrument, spans: Spans, answers: Answers
) -> None:
    instrument(GrpcInstrumentor)
    with sync_server(answers, interceptors=(Refuse(),)) as port:
        assert CALLS.call(port, "Get").code == "UNAUTHENTICATED"
        _, server = two(spans)
    assert server.attributes["rpc.status_code"] == "UNAUTHENTICATED"


class RefuseAsynchronously(grpc.aio.ServerInterceptor):
    """Lets nobody in."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        async def refuse(request: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(refuse)


def test_a_call_that_an_asynchronous_interceptor_refuses_has_a_server_span(
    instrument: Instrument, spans: Spans, answers: Answers
) -> None:
    instrument(GrpcInstrumentor)
    with aio_server(answers, interceptors=(RefuseAsynchronously(),)) as port:
        assert CALLS.call(port, "Get").code == "UNAUTHENTICATED"
        _, server = two(spans)
    assert server.attributes["rpc.status_code"] == "UNAUTHENTICATED"


class LetIn(grpc.aio.ServerInterceptor):
    """Lets everybody in."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        return await continuation(details)


@pytest.mark.parametrize(("method", "name"), [("Get", "shop.Orders/Get"), ("Nonsense", "grpc")])
def test_behind_an_asynchronous_interceptor_each_call_has_a_span(
    instrument: Instrument, spans: Spans, answers: Answers, method: str, name: str
) -> None:
    instrument(GrpcInstrumentor)
    with aio_server(answers, interceptors=(LetIn(),)) as port:
        CALLS.call(port, method)
        CALLS.call(port, method)
        servers = [each for each in settled(spans, 4) if each.kind is SpanKind.SERVER]
    assert [server.name for server in servers] == [name, name]


class Changing(grpc.GenericRpcHandler):
    """Answers every method, each time with the next of several functions."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def service(self, details: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self.answers.pop(0))


def _constant(answer: bytes) -> Any:
    async def behavior(_request: bytes, _context: Any) -> bytes:
        return answer

    return behavior


def test_a_handler_that_finds_another_function_each_time_is_asked_each_time(
    instrument: Instrument, spans: Spans, answers: Answers
) -> None:
    instrument(GrpcInstrumentor)
    changing = Changing(*map(_constant, (b"one", b"two", b"three")))
    with aio_server(answers, handlers=[changing]) as port:
        taken = [CALLS.call(port, name).answers for name in ("Get", "Get", "Find")]
        servers = [each for each in settled(spans, 6) if each.kind is SpanKind.SERVER]
    assert taken == [[b"one"], [b"two"], [b"three"]]
    assert [server.name for server in servers] == [
        "shop.Orders/Get",
        "shop.Orders/Get",
        "shop.Orders/Find",
    ]


def test_a_synchronous_handler_of_an_asynchronous_server_is_watched(
    instrument: Instrument, spans: Spans, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="tracekit")
    answers.aio_handlers = answers.handlers  # type: ignore[method-assign]
    instrument(GrpcInstrumentor)
    with aio_server(answers) as port:
        assert CALLS.call(port, "Get").answers == [b"1"]
        assert CALLS.call(port, "Count", [b"2"]).answers == [b"0", b"1"]
        assert len(settled(spans, 4)) == 4
    assert not [record for record in caplog.records if record.name.startswith("tracekit")]


class Elsewhere:
    """The context of a call in a version of the library that keeps what is private elsewhere."""

    def __init__(self, *given: Any) -> None:
        self.kept_elsewhere = _Context(*given)

    def __getattr__(self, name: str) -> Any:
        if name in ("_rpc_event", "_state"):
            raise AttributeError(name)
        return getattr(self.kept_elsewhere, name)


_Context: Any = _server._Context


@pytest.mark.parametrize(("method", "code"), [("Get", "OK"), ("SetCode", "INTERNAL")])
def test_a_context_that_keeps_its_state_elsewhere_is_asked(
    instrument: Instrument,
    spans: Spans,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    code: str,
) -> None:
    instrument(GrpcInstrumentor)
    monkeypatch.setattr("grpc._server._Context", Elsewhere)
    CALLS.call(port, method, [b"INTERNAL"])
    _, server = two(spans)
    assert server.attributes["rpc.status_code"] == code
    assert server.attributes["network.peer.address"] == "127.0.0.1"


def test_registered_methods_of_an_asynchronous_server_are_watched_until_uninstrumented(
    instrument: Instrument, spans: Spans, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(grpc.aio.Server, "add_registered_method_handlers"):
        pytest.skip("asynchronous servers of this version of grpcio register no methods")

    def register(server: Any, _generic: Any) -> None:
        server.add_registered_method_handlers(SERVICE, answers.aio_handlers())

    instrumentor = instrument(GrpcInstrumentor)
    # As generated code does, with nothing behind it that is asked.
    monkeypatch.setattr("grpc.aio._server.Server.add_generic_rpc_handlers", register)
    with aio_server(answers) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/Get", _registered_method=True)
        assert call(b"x") == b"x"
        _, server = two(spans)
        monkeypatch.undo()
        instrumentor.uninstrument()
        assert call(b"x") == b"x"
    assert server.name == "shop.Orders/Get"
    assert len(spans.watched) == 2


def test_registered_methods_are_watched(
    instrument: Instrument, spans: Spans, answers: Answers
) -> None:
    instrument(GrpcInstrumentor)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    if not hasattr(server, "add_registered_method_handlers"):
        pytest.skip("this version of grpcio registers no methods")
    server.add_registered_method_handlers(SERVICE, answers.handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/Get", _registered_method=True)
            assert call(b"x") == b"x"
            client, served = two(spans)
    finally:
        server.stop(0).wait(10)
    assert client.name == served.name == "shop.Orders/Get"


def test_uninstrumented_library_is_as_it_was_byte_for_byte(instrument: Instrument) -> None:
    before = entries(GrpcInstrumentor)
    instrumentor = instrument(GrpcInstrumentor)
    assert any(entries(GrpcInstrumentor)[place] is not before[place] for place in before)
    instrumentor.uninstrument()
    after = entries(GrpcInstrumentor)
    assert after.keys() == before.keys()
    assert all(after[place] is before[place] for place in before)


def test_uninstrumented_library_makes_no_spans(
    instrument: Instrument, spans: Spans, answers: Answers
) -> None:
    instrumentor = instrument(GrpcInstrumentor)
    with aio_server(answers) as port:
        instrumentor.uninstrument()
        assert CALLS.call(port, "Get").answers == [b"1"]
    assert spans.ended == []


def test_channels_of_contrib_make_no_second_span(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    contrib = GrpcInstrumentorClient()
    contrib.instrument(tracer_provider=spans.provider)
    try:
        instrumentor = instrument(GrpcInstrumentor)
        CALLS.call(port, "Get")
    finally:
        contrib.uninstrument()
    reason = "already instrumented by opentelemetry-instrumentation-grpc"
    assert instrumentor.status.reason == reason
    assert spans.ended == []  # contrib takes the global provider, which there is none of


@pytest.mark.parametrize("order", ["before", "after"])
def test_order_of_import_and_instrumentation_does_not_matter(order: str) -> None:
    steps = ["plugin().instrument(tracer_provider=spans.provider)", "import grpc, grpc.aio"]
    program = [
        "from instrumentation.conftest import Spans",
        "from tracekit.instrumentation.grpc import plugin",
        "spans = Spans()",
        *(steps if order == "before" else reversed(steps)),
        "from instrumentation.grpc_server import Answers, sync_server",
        "from instrumentation.rpc_contract import settled",
        "with sync_server(Answers()) as port, grpc.insecure_channel(f'127.0.0.1:{port}') as c:",
        "    c.unary_unary('/shop.Orders/Get')(b'x')",
        "    print(len(settled(spans, 2)))",
    ]
    assert run("\n".join(program)) == "2"
