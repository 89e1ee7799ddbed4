"""ASGI applications wrapped by hand, served by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from http_servers import Spans, uvicorn_server
from instrumentation.http_server_contract import HttpServerContract, Oops, Site
from tracekit.instrumentation.asgi import ASGIMiddleware, plugin

HEADERS = [(b"content-type", b"text/plain"), (b"x-reply", b"yes")]


async def respond(send: Any, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": body})


async def send_chunks(send: Any, chunks: Iterator[bytes]) -> None:
    """Send what a generator yields, which may block, until the client is gone."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def until_disconnect(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def stream(receive: Any, send: Any, chunks: Iterator[bytes]) -> None:
    sending = asyncio.ensure_future(send_chunks(send, chunks))
    leaving = asyncio.ensure_future(until_disconnect(receive))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            await sending
    finally:
        leaving.cancel()
        sending.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        chunks.close()  # type: ignore[attr-defined]


def plain_app(site: Site) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path in ("/stream", "/endless", "/half"):
            await stream(receive, send, getattr(site, path[1:])())
        elif path == "/unavailable":
            await respond(send, b"", 503)
        elif path == "/meet":
            await respond(send, await asyncio.to_thread(site.meet))
        elif path in ("/boom", "/context", "/baggage"):
            await respond(send, getattr(site, path[1:])())
        elif path.startswith("/items/"):
            await respond(send, site.item())
        else:
            await respond(send, b"?", 404)

    return app


class TestAsgi(HttpServerContract):
    is_async = True

    def make_app(self, site: Site) -> Any:
        return plain_app(site)

    @contextlib.contextmanager
    def watched(self, app: Any, provider: Any, **options: Any) -> Iterator[Any]:
        yield ASGIMiddleware(app, tracer_provider=provider, **options)


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def provider(spans: Spans) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


@pytest.fixture
def no_failed_detach(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    records = caplog.get_records("call")
    assert [r.getMessage() for r in records if r.name == "opentelemetry.context"] == []


def scope_of(kind: str = "http", **more: Any) -> dict[str, Any]:
    return {"type": kind, "method": "GET", "path": "/", "headers": [], **more}


async def call(app: Any, scope: Any) -> list[Any]:
    """Call an application as a server would; return the messages it sent."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_lifespan_is_not_traced(provider: TracerProvider, spans: Spans) -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scope = {"type": "lifespan"}
    asyncio.run(call(ASGIMiddleware(app, tracer_provider=provider), scope))
    assert scopes == [{"type": "lifespan"}]
    assert spans.all() == []


@pytest.mark.parametrize(
    "messages",
    [
        [
            {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
            {"type": "http.response.body", "body": b"x"},
            {"type": "http.response.trailers", "headers": [(b"a", b"b")], "more_trailers": True},
            {"type": "http.response.trailers", "headers": [(b"c", b"d")]},
        ],
        [
            {"type": "http.response.push", "path": "/style.css", "headers": []},
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.pathsend", "path": "/tmp/file"},
        ],
        [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
            {"type": "http.response.zerocopysend", "file": 4},
        ],
        [
            {"type": "http.response.start", "status": 204},
            {"type": "http.response.body", "body": None},
        ],
    ],
    ids=["trailers", "pathsend", "zerocopysend", "no body"],
)
def test_messages_pass_unharmed_and_the_last_ends_the_span(
    provider: TracerProvider, spans: Spans, messages: list[Any]
) -> None:
    ended_before_last: list[bool] = []
    ended: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            ended_before_last.append(bool(spans.all()))
            await send(message)
        ended.append(bool(spans.all()))

    sent = asyncio.run(call(ASGIMiddleware(app, tracer_provider=provider), scope_of()))
    assert all(a is b for a, b in zip(sent, messages, strict=True))
    assert (any(ended_before_last), ended) == (False, [True])
    assert "tracekit.abandoned" not in attributes_of(spans.server()[0])


def test_a_cancelled_request_ends_its_span_without_an_error(
    provider: TracerProvider, spans: Spans, no_failed_detach: None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        waiting.set_result(None)
        await asyncio.Event().wait()

    async def main() -> None:
        nonlocal waiting
        waiting = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            call(ASGIMiddleware(app, tracer_provider=provider), scope_of())  # type: ignore[arg-type]
        )
        await waiting
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    waiting: Any = None
    asyncio.run(main())
    (span,) = spans.server()
    assert attributes_of(span)["tracekit.abandoned"] is True
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())


def test_a_coroutine_dropped_in_another_context_is_quiet(
    provider: TracerProvider, spans: Spans, no_failed_detach: None
) -> None:
    import contextvars

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    async def send(message: Any) -> None:
        await Never()

    coroutine = ASGIMiddleware(app, tracer_provider=provider)(scope_of(), None, send)  # type: ignore[arg-type]
    contextvars.copy_context().run(coroutine.send, None)
    contextvars.copy_context().run(coroutine.close)
    gc.collect()
    assert attributes_of(spans.server()[0])["tracekit.abandoned"] is True


def test_a_client_that_is_gone_when_the_program_sends_is_no_error(
    provider: TracerProvider, spans: Spans
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        raise OSError("gone")

    async def main() -> None:
        with pytest.raises(OSError, match="gone"):
            await ASGIMiddleware(app, tracer_provider=provider)(scope_of(), None, send)  # type: ignore[arg-type]

    asyncio.run(main())
    (span,) = spans.server()
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())


def test_work_behind_the_response_does_not_stretch_the_span(
    provider: TracerProvider, spans: Spans
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")
        assert len(spans.all()) == 1
        provider.get_tracer("program").start_span("behind").end()
        raise Oops("behind")

    with pytest.raises(Oops):
        asyncio.run(call(ASGIMiddleware(app, tracer_provider=provider), scope_of()))
    (server,), (behind,) = spans.server(), spans.named("behind")
    assert behind.context.trace_id == server.context.trace_id
    assert (server.status.status_code, server.events) == (StatusCode.UNSET, ())


def test_where_the_framework_traces_by_itself_we_do_not(
    provider: TracerProvider, spans: Spans
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")

    scope = scope_of(**{"starlette.opentelemetry": True})
    asyncio.run(call(ASGIMiddleware(app, tracer_provider=provider), scope))
    assert spans.all() == []


@pytest.mark.parametrize("scope", [{}, {"type": []}, {"type": {}, "path": "/"}])
def test_a_scope_that_is_none_is_the_applications_to_refuse(
    provider: TracerProvider, spans: Spans, scope: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise Oops("no such scope")

    with pytest.raises(Oops):
        asyncio.run(ASGIMiddleware(app, tracer_provider=provider)(scope, void, void))
    assert spans.all() == []


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "message",
    [
        None,
        {},
        {"type": "http.response.body", "body": 5},
        {"type": "websocket.send", "text": 5},
        {"type": "websocket.http.response.start"},
        {"type": "websocket.accept", "headers": 5},
    ],
)
def test_a_message_that_is_none_is_the_servers_to_refuse(
    provider: TracerProvider, spans: Spans, kind: str, message: Any
) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() is message
        await send(message)

    async def receive() -> Any:
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(ASGIMiddleware(app, tracer_provider=provider)(scope_of(kind), receive, send))
    assert sent == [message]
    assert spans.all()


async def void(*_: Any) -> None:
    """Take everything, and say nothing."""


def test_a_scope_with_next_to_nothing_is_served(provider: TracerProvider, spans: Spans) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"ok")

    wrapped = ASGIMiddleware(app, tracer_provider=provider)
    assert len(asyncio.run(call(wrapped, {"type": "http"}))) == 2
    assert len(asyncio.run(call(wrapped, scope_of(server=("/run/app.sock", None))))) == 2
    (span,) = spans.server()
    assert attributes_of(span)["server.address"] == "/run/app.sock"


# WebSockets.


def chat(provider: TracerProvider, *, fails: bool = False) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/denied":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["path"] == "/broken":
            raise Oops("before")
        await send({"type": "websocket.accept"})
        provider.get_tracer("program").start_span("hello").end()
        while (message := await receive())["type"] == "websocket.receive":
            if fails:
                raise Oops("within")
            await send({"type": "websocket.send", "text": message["text"]})

    return ASGIMiddleware(app, tracer_provider=provider)


def test_a_websocket_is_a_handshake_and_a_connection(
    provider: TracerProvider, spans: Spans
) -> None:
    with uvicorn_server(chat(provider)) as client:
        with connect(f"ws://127.0.0.1:{client.port}/chat?token=s3cret", proxy=None) as connection:
            (handshake,) = spans.server()  # ended while the connection is open
            connection.send("h\u00e9llo")
            assert connection.recv() == "h\u00e9llo"
        (life,) = spans.named("websocket")
    (hello,) = spans.named("hello")
    expected = {"http.request.method": "GET", "url.scheme": "ws", "url.query": "token=REDACTED"}
    attributes = attributes_of(handshake)
    assert (handshake.name, attributes["http.response.status_code"]) == ("GET", 101)
    assert expected.items() <= attributes.items()
    assert handshake.parent is None
    assert (life.kind, life.parent) == (SpanKind.INTERNAL, handshake.context)
    assert hello.parent == life.context
    assert attributes_of(life) == {
        "tracekit.websocket.received_messages": 1,
        "tracekit.websocket.received_bytes": 6,
        "tracekit.websocket.sent_messages": 1,
        "tracekit.websocket.sent_bytes": 6,
        "tracekit.websocket.close_code": 1000,
    }


def test_a_denied_handshake_is_forbidden(provider: TracerProvider, spans: Spans) -> None:
    with uvicorn_server(chat(provider)) as client:
        with pytest.raises(InvalidStatus) as denied:
            connect(f"ws://127.0.0.1:{client.port}/denied", proxy=None)
        (span,) = spans.server()
    assert denied.value.response.status_code == 403
    assert attributes_of(span)["http.response.status_code"] == 403
    assert len(spans.all()) == 1


def test_a_handshake_that_fails_is_an_error(provider: TracerProvider, spans: Spans) -> None:
    with uvicorn_server(chat(provider)) as client:
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{client.port}/broken", proxy=None)
        (span,) = spans.server()
    assert span.status.status_code is StatusCode.ERROR
    assert len(span.events) == 1


def test_an_exception_within_a_connection_is_recorded_on_it(
    provider: TracerProvider, spans: Spans
) -> None:
    with (
        uvicorn_server(chat(provider, fails=True)) as client,
        connect(f"ws://127.0.0.1:{client.port}/chat", proxy=None) as connection,
    ):
        connection.send("hello")
        with pytest.raises(ConnectionClosed):
            connection.recv()
        (life,) = spans.named("websocket")
    (handshake,) = spans.server()
    assert life.status.status_code is StatusCode.ERROR
    assert [(e.attributes or {})["exception.message"] for e in life.events] == ["within"]
    assert handshake.status.status_code is StatusCode.UNSET


def test_a_denial_response_has_its_own_status(provider: TracerProvider, spans: Spans) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"who?"})

    with uvicorn_server(ASGIMiddleware(app, tracer_provider=provider)) as client:
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{client.port}/", proxy=None)
        (span,) = spans.server()
    assert attributes_of(span)["http.response.status_code"] == 401


def test_nothing_is_current_after_a_websocket(
    provider: TracerProvider, spans: Spans, no_failed_detach: None
) -> None:
    async def main() -> Any:
        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            pass

        await chat(provider)(scope_of("websocket"), receive, send)
        return trace.get_current_span()

    assert not asyncio.run(main()).get_span_context().is_valid
    assert len(spans.all()) == 3


def test_the_plug_in_says_how_to_use_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    instrumentor = plugin()
    instrumentor.instrument()
    assert "ASGIMiddleware" in instrumentor.status.reason
    assert caplog.records == []
    instrumentor.uninstrument()
