"""Real servers on loopback, a client that sends any bytes, and spans that can be waited for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import uvicorn
import werkzeug.serving
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

PATIENCE_S = 10


class Spans(SpanExporter):
    """Ended spans, in the order of their ends."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] = []
        self._changed = threading.Condition()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._changed:
            self._ended.extend(spans)
            self._changed.notify_all()
        return SpanExportResult.SUCCESS

    def all(self) -> list[ReadableSpan]:
        with self._changed:
            return list(self._ended)

    def named(self, name: str, count: int = 1) -> list[ReadableSpan]:
        return self.wait(lambda span: span.name == name, count)

    def server(self, count: int = 1) -> list[ReadableSpan]:
        """Wait for SERVER spans: a client has its answer before the server is done with it."""
        return self.wait(lambda span: span.kind is SpanKind.SERVER, count)

    def wait(self, wanted: Callable[[ReadableSpan], bool], count: int) -> list[ReadableSpan]:
        def found() -> list[ReadableSpan]:
            return [span for span in self._ended if wanted(span)]

        with self._changed:
            arrived = self._changed.wait_for(lambda: len(found()) >= count, PATIENCE_S)
            assert arrived, f"only {[span.name for span in self._ended]} have ended"
            return found()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """Speak HTTP/1.1 to a server, one connection a request."""

    port: int

    def ask(
        self,
        target: str = "/items/7",
        method: str = "GET",
        headers: Sequence[tuple[str, str | bytes]] = (),
    ) -> Answer:
        with self.open(target, method, headers) as connection:
            received = bytearray()
            while part := connection.recv(65536):
                received += part
        return _parse(bytes(received))

    @contextlib.contextmanager
    def open(
        self, target: str, method: str = "GET", headers: Sequence[tuple[str, str | bytes]] = ()
    ) -> Iterator[socket.socket]:
        """Send a request and leave reading the answer, or not, to the caller."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            connection.sendall(_request(target, method, self.port, headers))
            yield connection


def read_until(connection: socket.socket, mark: bytes) -> None:
    received = b""
    while mark not in received:
        part = connection.recv(65536)
        assert part, f"no {mark!r} in {received!r}"
        received += part


def _request(
    target: str, method: str, port: int, headers: Sequence[tuple[str, str | bytes]]
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
    if not any(name.lower() == "host" for name, _ in headers):
        lines.append(f"Host: 127.0.0.1:{port}".encode())
    for name, value in headers:
        raw = value if isinstance(value, bytes) else value.encode("latin-1")
        lines.append(name.encode() + b": " + raw)
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def _parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    headers = {name.lower(): value for name, _, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = _dechunked(body)
    return Answer(int(status.split()[1]) if head else 0, headers, body)


def _dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


@contextlib.contextmanager
def werkzeug_server(app: Any) -> Iterator[Client]:
    server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True  # type: ignore[attr-defined]
    with _running(server):
        yield Client(server.server_port)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Write nothing."""


@contextlib.contextmanager
def wsgiref_server(app: Any) -> Iterator[Client]:
    server = make_server("127.0.0.1", 0, app, handler_class=_QuietHandler)
    with _running(server):
        yield Client(server.server_port)


@contextlib.contextmanager
def _running(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.is_ready.set()

    async def main_loop(self) -> None:
        """Wait for the end itself, where uvicorn looks ten times a second whether it came."""
        await self.on_tick(0)
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close as uvicorn does, without the tenth of a second that it gives to what is not there.

        A connection that is still open, or a request that goes on, is given all the time that
        uvicorn gives it.
        """
        for server in self.servers:
            server.close()
        if tasks := self.server_state.tasks:
            await asyncio.wait(tasks, timeout=self.config.timeout_graceful_shutdown)
        if tasks or self.server_state.connections:
            await super().shutdown(sockets)
        else:
            await self.lifespan.shutdown()

    def stop(self) -> None:
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._stop.set)


@contextlib.contextmanager
def uvicorn_server(app: Any) -> Iterator[Client]:
    config = uvicorn.Config(
        app,
        log_config=None,
        ws="websockets-sansio",
        proxy_headers=False,  # uvicorn would put the forwarded client where the peer is
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=2_000_000,
        http="h11",
        loop="asyncio",
    )
    server = _Uvicorn(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        assert server.is_ready.wait(PATIENCE_S)
        try:
            yield Client(listening.getsockname()[1])
        finally:
            server.stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@contextlib.contextmanager
def aiohttp_server(app: Any, **options: Any) -> Iterator[Client]:
    """Serve an application of aiohttp's from an event loop in a thread."""
    from aiohttp import web

    started = threading.Event()
    port = 0

    async def serve() -> None:
        nonlocal port, loop, stop
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        if "shutdown_timeout" in inspect.signature(web.BaseRunner.__init__).parameters:
            options["shutdown_timeout"] = 0.5
        options.setdefault("max_field_size", 2_000_000)
        runner = web.AppRunner(app, access_log=None, **options)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        started.set()
        await stop.wait()
        await runner.cleanup()

    loop: Any = None
    stop: Any = None
    run_in_context = contextvars.copy_context().run
    thread = threading.Thread(target=run_in_context, args=(asyncio.run, serve()), daemon=True)
    thread.start()
    assert started.wait(PATIENCE_S)
    try:
        yield Client(port)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@contextlib.contextmanager
def attached(context: otel_context.Context) -> Iterator[None]:
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


def within_wsgi(app: Any, context: otel_context.Context) -> Any:
    """Run `app` where `context` is current."""

    def outer(environ: Any, start_response: Any) -> Any:
        with attached(context):
            return list(app(environ, start_response))

    return outer


def within_asgi(app: Any, context: otel_context.Context) -> Any:
    """Run `app` where `context` is current."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        with attached(context):
            await app(scope, receive, send)

    return outer


def leaving_wsgi(app: Any, left: list[Any]) -> Any:
    """Note which span is current when a request has been served."""

    def outer(environ: Any, start_response: Any) -> Any:
        body = app(environ, start_response)
        left.append(trace.get_current_span())
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()
            left.append(trace.get_current_span())

    return outer


def leaving_asgi(app: Any, left: list[Any]) -> Any:
    """Note which span is current when a request has been served."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        finally:
            left.append(trace.get_current_span())

    return outer
