"""Litestar, Quart, Falcon, Bottle and Pyramid, each wrapped by hand in one line.

What their applications add for tracing is what docs/how-to/watch-an-application.md says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import bottle
import falcon
import falcon.asgi
import litestar
import pytest
import quart
from hypercorn.asyncio import serve
from hypercorn.config import Config
from litestar.response import Stream
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode
from websockets.sync.client import connect

from http_servers import Client, Spans, uvicorn_server, werkzeug_server
from instrumentation.http_server_contract import HttpServerContract, Oops, Site
from tracekit.instrumentation.asgi import ASGIMiddleware
from tracekit.instrumentation.wsgi import WSGIMiddleware, name_route, note_exception

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports pkg_resources, which says that it is deprecated
    from pyramid.config import Configurator
    from pyramid.events import ContextFound
    from pyramid.httpexceptions import HTTPServiceUnavailable
    from pyramid.response import Response as PyramidResponse

PLAIN = ("boom", "context", "baggage")
STREAMED = ("stream", "endless", "half")
REPLY = {"X-Reply": "yes"}


async def asynchronous(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what a generator yields, which may block."""
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk
    finally:
        chunks.close()  # type: ignore[attr-defined]


class _Wrapped(HttpServerContract):
    @contextlib.contextmanager
    def watched(self, app: Any, provider: Any, **options: Any) -> Iterator[Any]:
        wrapper = ASGIMiddleware if self.is_async else WSGIMiddleware
        yield wrapper(app, tracer_provider=provider, **options)

    @pytest.fixture(autouse=True)
    def quiet_log(self, caplog: pytest.LogCaptureFixture) -> None:
        for name in ("quart.app", "uvicorn.error", "falcon"):
            caplog.set_level("CRITICAL", logger=name)


# Litestar leaves the template in the scope.


def litestar_app(site: Site) -> Any:
    methods: Any = ["GET", "POST", "DELETE", "HEAD"]

    @litestar.route("/items/{number:int}", http_method=methods, status_code=200)
    async def item() -> litestar.Response[bytes]:
        return litestar.Response(site.item(), headers=REPLY, media_type="text/plain")

    @litestar.get("/meet")
    async def meet() -> bytes:
        return await asyncio.to_thread(site.meet)

    @litestar.get("/unavailable")
    async def unavailable() -> None:
        raise litestar.exceptions.HTTPException(status_code=503)

    def plain(name: str) -> Any:
        @litestar.get(f"/{name}", media_type="text/plain")
        async def view() -> bytes:
            return getattr(site, name)()  # type: ignore[no-any-return]

        return view

    def streamed(name: str) -> Any:
        @litestar.get(f"/{name}")
        async def view() -> Stream:
            return Stream(asynchronous(getattr(site, name)()))

        return view

    @litestar.websocket("/ws/{room:str}")
    async def echo(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    handlers = [item, meet, unavailable, echo, *map(plain, PLAIN), *map(streamed, STREAMED)]
    return litestar.Litestar(handlers, logging_config=None, openapi_config=None)


class TestLitestar(_Wrapped):
    is_async = True
    half_way_error = litestar.exceptions.LitestarException  # from the one that it caught
    item_route = "/items/{number}"
    route_of = staticmethod(lambda path: "/items/{number}" if path.startswith("/items") else path)

    def make_app(self, site: Site) -> Any:
        return litestar_app(site)


# Quart, one line for routes and one for exceptions.


def quart_app(site: Site) -> Any:
    app = quart.Quart("site")

    @app.before_request
    async def name_it() -> None:
        if quart.request.url_rule is not None:
            name_route(quart.request.url_rule.rule)

    quart.got_request_exception.connect(
        lambda _, exception, **more: note_exception(exception), app, weak=False
    )

    @app.route("/items/<int:number>", methods=["GET", "POST", "DELETE"])
    async def item(number: int) -> Any:
        return site.item(), 200, REPLY

    @app.get("/meet")
    async def meet() -> Any:
        return await asyncio.to_thread(site.meet)

    @app.get("/unavailable")
    async def unavailable() -> Any:
        quart.abort(503)

    def plain(name: str) -> None:
        async def view() -> Any:
            return getattr(site, name)(), 200, REPLY

        app.add_url_rule(f"/{name}", name, view)

    def streamed(name: str) -> None:
        async def view() -> Any:
            return asynchronous(getattr(site, name)()), 200, REPLY

        app.add_url_rule(f"/{name}", name, view)

    for name in PLAIN:
        plain(name)
    for name in STREAMED:
        streamed(name)
    return app


class TestQuart(_Wrapped):
    is_async = True
    item_route = "/items/<int:number>"
    route_of = staticmethod(
        lambda path: "/items/<int:number>" if path.startswith("/items") else path
    )

    def make_app(self, site: Site) -> Any:
        return quart_app(site)


# Falcon, a middleware for routes and an error handler for exceptions.


class _Names:
    def process_resource(self, req: Any, resp: Any, resource: Any, params: Any) -> None:
        name_route(req.uri_template)

    async def process_resource_async(self, req: Any, resp: Any, resource: Any, params: Any) -> None:
        name_route(req.uri_template)


def answer(req: Any, resp: Any, error: Exception, params: Any) -> None:
    note_exception(error)
    raise falcon.HTTPInternalServerError


async def answer_async(req: Any, resp: Any, error: Exception, params: Any, **_: Any) -> None:
    answer(req, resp, error, params)


def falcon_app(site: Site) -> Any:
    app = falcon.App(middleware=[_Names()])
    app.add_error_handler(Oops, answer)

    class Item:
        def on_get(self, req: Any, resp: Any, number: int) -> None:
            resp.data = b"" if req.method == "HEAD" else site.item()
            resp.set_headers(REPLY)

        on_post = on_delete = on_head = on_get

    class Unavailable:
        def on_get(self, req: Any, resp: Any) -> None:
            raise falcon.HTTPServiceUnavailable

    class Plain:
        def __init__(self, name: str) -> None:
            self.name = name

        def on_get(self, req: Any, resp: Any) -> None:
            resp.data = getattr(site, self.name)()

    class Streamed(Plain):
        def on_get(self, req: Any, resp: Any) -> None:
            resp.stream = getattr(site, self.name)()

    app.add_route("/items/{number:int}", Item())
    app.add_route("/unavailable", Unavailable())
    for name in (*PLAIN, "meet"):
        app.add_route(f"/{name}", Plain(name))
    for name in STREAMED:
        app.add_route(f"/{name}", Streamed(name))
    return app


def falcon_asgi_app(site: Site) -> Any:
    app = falcon.asgi.App(middleware=[_Names()])
    app.add_error_handler(Oops, answer_async)

    class Item:
        async def on_get(self, req: Any, resp: Any, number: int) -> None:
            resp.data = b"" if req.method == "HEAD" else site.item()
            resp.set_headers(REPLY)

        on_post = on_delete = on_head = on_get

    class Unavailable:
        async def on_get(self, req: Any, resp: Any) -> None:
            raise falcon.HTTPServiceUnavailable

    class Meet:
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.data = await asyncio.to_thread(site.meet)

    class Plain:
        def __init__(self, name: str) -> None:
            self.name = name

        async def on_get(self, req: Any, resp: Any) -> None:
            resp.data = getattr(site, self.name)()

    class Streamed(Plain):
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.stream = asynchronous(getattr(site, self.name)())

    app.add_route("/items/{number:int}", Item())
    app.add_route("/unavailable", Unavailable())
    app.add_route("/meet", Meet())
    for name in PLAIN:
        app.add_route(f"/{name}", Plain(name))
    for name in STREAMED:
        app.add_route(f"/{name}", Streamed(name))
    return app


class TestFalcon(_Wrapped):
    item_route = "/items/{number:int}"
    route_of = staticmethod(
        lambda path: "/items/{number:int}" if path.startswith("/items") else path
    )

    def make_app(self, site: Site) -> Any:
        return falcon_app(site)


class TestFalconAsgi(TestFalcon):
    is_async = True
    sees_departures = False

    def make_app(self, site: Site) -> Any:
        return falcon_asgi_app(site)


# Bottle leaves its route and the exception in the environ.


def bottle_app(site: Site) -> Any:
    app = bottle.Bottle()

    @app.route("/items/<number:int>", method=["GET", "POST", "DELETE", "OPTIONS"])
    def item(number: int) -> Any:
        return bottle.HTTPResponse(site.item(), headers=REPLY)

    @app.get("/unavailable")
    def unavailable() -> Any:
        bottle.abort(503)

    for name in (*PLAIN, *STREAMED, "meet"):
        app.route(f"/{name}", callback=getattr(site, name))
    return app


class TestBottle(_Wrapped):
    item_route = "/items/<number:int>"
    route_of = staticmethod(
        lambda path: "/items/<number:int>" if path.startswith("/items") else path
    )

    def make_app(self, site: Site) -> Any:
        return bottle_app(site)


# Pyramid, one subscriber for routes.


def name_found(event: Any) -> None:
    if event.request.matched_route is not None:
        name_route(event.request.matched_route.pattern)


def pyramid_app(site: Site) -> Any:
    config = Configurator()
    config.add_subscriber(name_found, ContextFound)

    def add(name: str, pattern: str, view: Any) -> None:
        config.add_route(name, pattern)
        config.add_view(view, route_name=name)

    def unavailable(request: Any) -> Any:
        raise HTTPServiceUnavailable

    def plain(name: str) -> Any:
        return lambda request: PyramidResponse(getattr(site, name)(), headers=REPLY)

    def streamed(name: str) -> Any:
        return lambda request: PyramidResponse(app_iter=getattr(site, name)())

    add("item", "/items/{number}", plain("item"))
    add("unavailable", "/unavailable", unavailable)
    for name in (*PLAIN, "meet"):
        add(name, f"/{name}", plain(name))
    for name in STREAMED:
        add(name, f"/{name}", streamed(name))
    return config.make_wsgi_app()


class TestPyramid(_Wrapped):
    item_route = "/items/{number}"
    route_of = staticmethod(lambda path: "/items/{number}" if path.startswith("/items") else path)

    def make_app(self, site: Site) -> Any:
        return pyramid_app(site)


# What the contract does not ask.


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def provider(spans: Spans) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


def test_a_websocket_of_litestar_is_named_for_its_route(
    provider: TracerProvider, spans: Spans
) -> None:
    app = ASGIMiddleware(litestar_app(Site(provider)), tracer_provider=provider)
    with uvicorn_server(app) as client:
        with connect(f"ws://127.0.0.1:{client.port}/ws/lobby", proxy=None) as connection:
            connection.send("x")
            assert connection.recv() == "x"
        (life,) = spans.named("websocket /ws/{room}")
    assert spans.server()[0].name == "GET /ws/{room}"
    assert life.status.status_code is StatusCode.UNSET


def test_outside_of_a_request_there_is_nothing_to_name() -> None:
    name_route("/x")
    note_exception(Oops())


def exceptions_of(span: ReadableSpan) -> list[Any]:
    return [(event.attributes or {})["exception.message"] for event in span.events]


def test_an_exception_answered_below_500_is_none_of_ours(
    provider: TracerProvider, spans: Spans
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        note_exception(Oops("no"))
        start_response("400 Bad Request", [])
        return [b""]

    with werkzeug_server(WSGIMiddleware(app, tracer_provider=provider)) as client:
        client.ask("/")
    (span,) = spans.server()
    assert (exceptions_of(span), span.status.status_code) == ([], StatusCode.UNSET)


@contextlib.contextmanager
def hypercorn_server(app: Any) -> Iterator[Client]:
    """Serve an application with Hypercorn from an event loop in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = Config()
        config.bind = [f"fd://{os.dup(listening.fileno())}"]  # it closes what it is given
        config.accesslog = config.errorlog = None
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        serving = serve(app, config, shutdown_trigger=stop.wait)
        thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
        thread.start()
        try:
            yield Client(listening.getsockname()[1])
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


def test_another_server_is_served_as_well(provider: TracerProvider, spans: Spans) -> None:
    app = ASGIMiddleware(quart_app(Site(provider)), tracer_provider=provider)
    with hypercorn_server(app) as client:
        assert client.ask("/items/7").body == b"item"
        (span,) = spans.server()
    attributes = span.attributes or {}
    assert span.name == "GET /items/<int:number>"
    assert (attributes["server.port"], attributes["network.peer.address"]) == (
        client.port,
        "127.0.0.1",
    )
