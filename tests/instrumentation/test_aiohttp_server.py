"""aiohttp's own server, with applications and without."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web, web_app, web_protocol, web_response, web_urldispatcher, web_ws
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from websockets.sync.client import connect

from http_servers import PATIENCE_S, Client, Spans, aiohttp_server, attached
from instrumentation.http_server_contract import FrameworkContract, Handled, Oops, Site
from tracekit.instrumentation.aiohttp_server import plugin

REPLY = {"X-Reply": "yes"}
SEES_MIDDLEWARES = hasattr(web_app, "_cached_build_middleware")  # since 3.10


@web.middleware
async def answer(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except Handled:
        pass
    return web.Response(text="handled", status=500)


def site_app(site: Site) -> web.Application:
    app = web.Application(middlewares=[answer])

    def plain(name: str) -> Any:
        async def view(request: web.Request) -> web.Response:
            return web.Response(body=getattr(site, name)(), headers=REPLY)

        return view

    def streamed(name: str) -> Any:
        async def view(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers=REPLY)
            await response.prepare(request)
            chunks = getattr(site, name)()
            try:
                while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                    await response.write(chunk)
            finally:
                chunks.close()
            return response

        return view

    async def handled(request: web.Request) -> web.Response:
        raise Handled("handled")

    async def meet(request: web.Request) -> web.Response:
        return web.Response(body=await asyncio.to_thread(site.meet))

    async def unavailable(request: web.Request) -> web.Response:
        raise web.HTTPServiceUnavailable

    app.router.add_route("*", r"/items/{number:\d+}", plain("item"))
    app.router.add_get("/handled", handled)
    app.router.add_get("/meet", meet)
    app.router.add_get("/unavailable", unavailable)
    for name in ("boom", "context", "baggage"):
        app.router.add_get(f"/{name}", plain(name))
    for name in ("stream", "endless", "half"):
        app.router.add_get(f"/{name}", streamed(name))
    return app


class TestAiohttp(FrameworkContract):
    plugin = plugin
    contrib_class = "AioHttpServerInstrumentor"
    unknown_method = "PURGE"
    item_route = "/items/{number}"
    route_of = staticmethod(lambda path: "/items/{number}" if path.startswith("/items") else path)

    def make_app(self, site: Site) -> Any:
        return site_app(site)

    def test_an_exception_that_the_program_answers_is_recorded(
        self, start: Any, spans: Spans
    ) -> None:
        if not SEES_MIDDLEWARES:
            pytest.skip("this version of aiohttp has no place to see what a middleware answers")
        super().test_an_exception_that_the_program_answers_is_recorded(start, spans)

    def patched(self) -> list[tuple[Any, str]]:
        return [
            (web_protocol.RequestHandler, "_handle_request"),
            (web_response.StreamResponse, "_start"),
            (web_response.StreamResponse, "write"),
            (web_urldispatcher.UrlMappingMatchInfo, "add_app"),
            (web_urldispatcher.View, "_iter"),
            *([(web_app, "_cached_build_middleware")] if SEES_MIDDLEWARES else []),
            *((web_ws.WebSocketResponse, name) for name in ("receive", "send_str", "send_bytes")),
        ]

    around: Context | None = None
    left: list[Any] | None = None

    @contextlib.contextmanager
    def serve(self, app: Any) -> Iterator[Client]:
        with contextlib.ExitStack() as stack:
            if self.around is not None:
                stack.enter_context(attached(self.around))
            if self.left is not None:
                stack.enter_context(noting_what_is_left(self.left))
            yield stack.enter_context(aiohttp_server(app))

    def within(self, context: Context) -> Callable[[Any], Any]:
        self.around = context  # connections inherit what is current where their server starts
        return lambda app: app

    def leaving(self, left: list[Any]) -> Callable[[Any], Any]:
        self.left = left
        return lambda app: app

    @staticmethod
    def path_of(source: Any) -> Any:
        return source.path


@contextlib.contextmanager
def noting_what_is_left(left: list[Any]) -> Iterator[None]:
    """Note the current span right around what handles each request."""
    handler: Any = web_protocol.RequestHandler
    inner = handler._handle_request

    async def handle_request(*args: Any) -> Any:
        try:
            return await inner(*args)
        finally:
            left.append(trace.get_current_span())

    handler._handle_request = handle_request
    try:
        yield
    finally:
        handler._handle_request = inner


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def provider(spans: Spans) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = plugin()
    instrumentor.instrument(tracer_provider=provider)
    yield provider
    instrumentor.uninstrument()


def failure(span: ReadableSpan) -> tuple[Any, Any, list[Any]]:
    """Return the error type, the status code and the messages of the exceptions of a span."""
    attributes = span.attributes or {}
    messages = [(event.attributes or {})["exception.message"] for event in span.events]
    return attributes.get("error.type"), attributes.get("http.response.status_code"), messages


def app_of(*routes: Any, middlewares: Any = ()) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.add_routes(routes)
    return app


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def fail(request: web.Request) -> web.Response:
    raise Oops("view")


class Views(web.View):
    async def get(self) -> web.Response:
        raise Oops("class")


# Names.


def test_the_name_has_the_whole_path_of_nested_applications(
    provider: TracerProvider, spans: Spans
) -> None:
    inner, middle, outer = app_of(web.get(r"/{number:\d+}", hello)), app_of(), app_of()
    middle.add_subapp("/inner", inner)
    outer.add_subapp("/outer", middle)
    with aiohttp_server(outer) as client:
        client.ask("/outer/inner/3")
        (span,) = spans.server()
    assert span.name == "GET /outer/inner/{number}"


def test_a_method_that_is_not_allowed_has_no_route(provider: TracerProvider, spans: Spans) -> None:
    with aiohttp_server(app_of(web.get("/x", hello))) as client:
        assert client.ask("/x", method="POST").status == 405
        (span,) = spans.server()
    assert (span.name, failure(span)) == ("POST", (None, 405, []))


def test_the_name_is_known_before_the_first_line_of_the_view(
    provider: TracerProvider, spans: Spans
) -> None:
    names: list[Any] = []

    async def view(request: web.Request) -> web.Response:
        names.append(trace.get_current_span().name)  # type: ignore[attr-defined]
        return web.Response()

    with aiohttp_server(app_of(web.get("/x", view))) as client:
        client.ask("/x")
    assert names == ["GET /x"]


def test_static_files_are_named_for_their_prefix(
    provider: TracerProvider, spans: Spans, tmp_path: Any
) -> None:
    (tmp_path / "f.txt").write_bytes(b"x" * 100_000)
    with aiohttp_server(app_of(web.static("/static", tmp_path))) as client:
        assert len(client.ask("/static/f.txt").body) == 100_000
        (span,) = spans.server()
    assert (span.name, failure(span)) == ("GET /static", (None, 200, []))
    assert "tracekit.abandoned" not in (span.attributes or {})


# Exceptions, in every layer.


@web.middleware
async def fail_before(request: web.Request, handler: Any) -> Any:
    raise Oops("middleware")


@web.middleware
async def fail_after(request: web.Request, handler: Any) -> Any:
    await handler(request)
    raise Oops("after")


@web.middleware
async def answer_all(request: web.Request, handler: Any) -> Any:
    try:
        response = await handler(request)
    except Oops:
        response = None
    # An empty response of older versions is false.
    return web.Response(text="sorry", status=500) if response is None else response


@web.middleware
async def refuse_all(request: web.Request, handler: Any) -> Any:
    try:
        return await handler(request)
    except Oops:
        return web.Response(status=400)


@web.middleware
async def raise_instead(request: web.Request, handler: Any) -> Any:
    try:
        return await handler(request)
    except Oops as error:
        raise web.HTTPBadGateway from error


async def fail_preparing(request: web.Request, response: web.StreamResponse) -> None:
    raise Oops("signal")


needs_chains = pytest.mark.skipif(
    not SEES_MIDDLEWARES,
    reason="this version of aiohttp has no place to see what a middleware answers",
)


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (lambda: app_of(web.get("/", fail)), (500, ["view"])),
        (lambda: app_of(web.view("/", Views)), (500, ["class"])),
        (lambda: app_of(web.get("/", hello), middlewares=[fail_before]), (500, ["middleware"])),
        (lambda: app_of(web.get("/", hello), middlewares=[fail_after]), (500, ["after"])),
        pytest.param(
            lambda: app_of(web.get("/", fail), middlewares=[answer_all]),
            (500, ["view"]),
            marks=needs_chains,
        ),
        (lambda: app_of(web.view("/", Views), middlewares=[answer_all]), (500, ["class"])),
        (lambda: app_of(web.get("/", fail), middlewares=[refuse_all]), (400, [])),
        (lambda: app_of(web.get("/", fail), middlewares=[raise_instead]), (502, ["view"])),
    ],
)
def test_an_exception_is_recorded_once_whoever_answers_it(
    provider: TracerProvider, spans: Spans, app: Any, expected: Any
) -> None:
    with aiohttp_server(app()) as client:
        client.ask("/")
        (span,) = spans.server()
    assert failure(span)[1:] == expected


def test_an_exception_in_a_signal_is_recorded(provider: TracerProvider, spans: Spans) -> None:
    app = app_of(web.get("/", hello))
    app.on_response_prepare.append(fail_preparing)
    with aiohttp_server(app) as client:
        client.ask("/")
        (span,) = spans.server()
    assert span.status.status_code is StatusCode.ERROR


def test_a_handler_that_answers_nothing_is_a_server_error(
    provider: TracerProvider, spans: Spans
) -> None:
    async def nothing(request: web.Request) -> None:
        return None

    with aiohttp_server(app_of(web.get("/", nothing))) as client:
        client.ask("/")  # which older versions answer by closing the connection
        (span,) = spans.server()
    assert failure(span)[:2] in [("500", 500), ("RuntimeError", 500)]
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("cls", [web.HTTPFound, web.HTTPNotFound, web.HTTPForbidden])
def test_an_exception_that_stands_for_a_status_is_no_failure(
    provider: TracerProvider, spans: Spans, cls: Any
) -> None:
    async def view(request: web.Request) -> web.Response:
        raise cls("/") if cls is web.HTTPFound else cls

    with aiohttp_server(app_of(web.get("/x", view), middlewares=[answer_all])) as client:
        client.ask("/x")
        (span,) = spans.server()
    assert failure(span) == (None, cls.status_code, [])


# Who goes away.


@pytest.mark.parametrize("cancels", [False, True])
def test_a_client_that_leaves_before_the_answer_is_no_error(
    provider: TracerProvider, spans: Spans, cancels: bool
) -> None:
    left: list[str] = []
    arrived = threading.Event()

    async def view(request: web.Request) -> web.Response:
        arrived.set()
        try:
            with provider.get_tracer("program").start_as_current_span("work"):
                await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            left.append("cancelled")
            raise
        return web.Response(text="late")

    app = app_of(web.get("/x", view))
    with aiohttp_server(app, handler_cancellation=cancels) as client:
        with client.open("/x"):
            assert arrived.wait(PATIENCE_S)
        (span,) = spans.server()
    assert (span.name, span.status.status_code) == ("GET /x", StatusCode.UNSET)
    assert (span.attributes or {})["tracekit.abandoned"] is True
    assert left == (["cancelled"] if cancels else [])
    assert spans.named("work")[0].parent == span.context


def test_a_request_that_cannot_be_read_is_a_bad_one(provider: TracerProvider, spans: Spans) -> None:
    with aiohttp_server(app_of()) as client:
        assert client.ask("/", headers=[("Content-Length", "many")]).status == 400
        (span,) = spans.server()
    assert (span.attributes or {})["http.response.status_code"] == 400


def test_requests_of_one_connection_are_spans_of_their_own(
    provider: TracerProvider, spans: Spans
) -> None:
    async def main(port: int) -> None:
        async with aiohttp.ClientSession() as session:
            for number in range(3):
                async with session.get(f"http://127.0.0.1:{port}/{number}") as response:
                    await response.read()

    with aiohttp_server(app_of(web.get("/{number}", hello))) as client:
        asyncio.run(main(client.port))
        found = spans.server(3)
    assert {span.name for span in found} == {"GET /{number}"}
    assert len({span.context.trace_id for span in found}) == 3


def test_a_handler_without_an_application_is_traced(provider: TracerProvider, spans: Spans) -> None:
    async def main() -> None:
        async def handler(request: web.BaseRequest) -> web.Response:
            provider.get_tracer("program").start_span("work").end()
            return web.Response(text="low")

        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/") as response,
        ):
            assert await response.text() == "low"
        await runner.cleanup()

    asyncio.run(main())
    (span,) = spans.server()
    assert span.name == "GET"
    assert spans.named("work")[0].parent == span.context


# WebSockets.


def websocket_app(provider: TracerProvider, fails: bool = False) -> web.Application:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        provider.get_tracer("program").start_span("work").end()
        async for message in socket:
            if message.type is web.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
            if fails:
                raise Oops("in the middle")
        return socket

    return app_of(web.get("/ws/{room}", echo))


def test_a_websocket_is_a_handshake_and_a_connection(
    provider: TracerProvider, spans: Spans
) -> None:
    with aiohttp_server(websocket_app(provider)) as client:
        with connect(f"ws://127.0.0.1:{client.port}/ws/lobby", proxy=None) as connection:
            (handshake,) = spans.server()
            connection.send("häh")
            assert connection.recv() == "häh"
            connection.send(b"123")
            assert connection.recv() == b"123"
        (life,) = spans.named("websocket /ws/{room}")
    assert (handshake.name, handshake.kind) == ("GET /ws/{room}", SpanKind.SERVER)
    assert (handshake.attributes or {})["http.response.status_code"] == 101
    assert life.parent == handshake.context
    assert spans.named("work")[0].parent == life.context
    attributes = life.attributes or {}
    assert [attributes[f"tracekit.websocket.{name}"] for name in COUNTS] == [2, 7, 2, 7, 1000]
    assert life.status.status_code is StatusCode.UNSET
    assert len(spans.all()) == 3


COUNTS = ("received_messages", "received_bytes", "sent_messages", "sent_bytes", "close_code")


def test_an_exception_within_a_connection_is_recorded_on_it(
    provider: TracerProvider, spans: Spans
) -> None:
    with (
        aiohttp_server(websocket_app(provider, fails=True)) as client,
        connect(f"ws://127.0.0.1:{client.port}/ws/lobby", proxy=None) as connection,
    ):
        connection.send("x")
        connection.recv()
        (life,) = spans.named("websocket /ws/{room}")
    assert [(e.attributes or {})["exception.message"] for e in life.events] == ["in the middle"]
    assert spans.server()[0].status.status_code is StatusCode.UNSET


def test_a_handshake_that_is_none_is_a_bad_request(provider: TracerProvider, spans: Spans) -> None:
    with aiohttp_server(websocket_app(provider)) as client:
        assert client.ask("/ws/lobby").status == 400
        (span,) = spans.server()
    assert (span.name, failure(span)) == ("GET /ws/{room}", (None, 400, []))


def test_an_application_made_before_is_traced(spans: Spans) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = plugin()
    with aiohttp_server(app_of(web.get("/", hello), middlewares=[answer_all])) as client:
        client.ask("/")
        instrumentor.instrument(tracer_provider=provider)
        client.ask("/")
        instrumentor.uninstrument()
        assert client.ask("/").body == b"hello"
        spans.server()
    assert [span.name for span in spans.all()] == ["GET /"]
