"""One process that serves or sends requests when told to on its input.

``python -m benchmarks.http_worker SUBJECT bare|opentelemetry|tracekit PORT``
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["main", "new_loop"]

_Requests = Callable[[int], None]


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that is closed when the process ends: before what it stands on is."""
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def _flask(_port: int) -> _Requests:
    import flask
    from werkzeug.test import EnvironBuilder

    app = flask.Flask("shop")

    @app.get("/items/<int:item>")
    def show(item: int) -> str:
        return str(item)

    environ = EnvironBuilder("/items/7", base_url="http://shop.example/").get_environ()
    return _wsgi_requests(app, environ)


def _wsgi_requests(app: Any, environ: dict[str, Any]) -> _Requests:
    def serve(count: int) -> None:
        for _ in range(count):
            answer: Any = app({**environ, "wsgi.input": io.BytesIO()}, _start_response)
            b"".join(answer)
            answer.close()

    return serve


def _wsgi(_port: int) -> _Requests:
    from werkzeug.test import EnvironBuilder

    def app(_environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return _Body((b"7",))

    environ = EnvironBuilder("/items/7", base_url="http://shop.example/").get_environ()
    return _wsgi_requests(_wrapped("wsgi", app), environ)


class _Body(tuple[bytes, ...]):
    """A body that a server closes."""

    def close(self) -> None:
        """Have nothing to close."""


def _django(_port: int) -> _Requests:
    import types

    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.test.client import RequestFactory
    from django.urls import path

    def show(_request: Any, item: int) -> Any:
        return HttpResponse(str(item))

    urls: Any = types.ModuleType("urls")
    urls.urlpatterns = [path("items/<int:item>", show)]
    settings.ROOT_URLCONF = urls
    django.setup(set_prefix=False)
    environ = RequestFactory().get("/items/7", headers={"host": "shop.example"}).environ
    return _wsgi_requests(WSGIHandler(), environ)


def _configure_django() -> None:
    """Set what OpenTelemetry's instrumentation reads and changes, so before it is put on."""
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["*"],
        LOGGING_CONFIG=None,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    )


def _start_response(*_answer: Any) -> Any:
    return bytes


def _fastapi(_port: int) -> _Requests:
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/items/{item}")
    async def show(item: int) -> str:
        return str(item)

    def serve(count: int) -> None:
        loop.run_until_complete(_call(app, count))

    loop = new_loop()
    return serve


def _asgi(_port: int) -> _Requests:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"7"})

    watched, loop = _wrapped("asgi", app), new_loop()
    return lambda count: loop.run_until_complete(_call(watched, count))


async def _call(app: Any, count: int) -> None:
    for _ in range(count):
        await app(_asgi_scope(), _receive, _send)


def _asgi_scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/items/7",
        "raw_path": b"/items/7",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"shop.example"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_message: Any) -> None:
    return


def _requests(port: int) -> _Requests:
    import requests

    url = f"http://127.0.0.1:{port}/items/7"

    def send(count: int) -> None:
        for _ in range(count):
            requests.get(url, timeout=10)

    return send


def _httpx(port: int) -> _Requests:
    import httpx

    url, client = f"http://127.0.0.1:{port}/items/7", httpx.Client(trust_env=False)

    def send(count: int) -> None:
        for _ in range(count):
            client.get(url)

    return send


def _httpx_async(port: int) -> _Requests:
    import httpx

    url, loop = f"http://127.0.0.1:{port}/items/7", new_loop()

    async def send(count: int) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(count):
                await client.get(url)

    return lambda count: loop.run_until_complete(send(count))


def _urllib3(port: int) -> _Requests:
    import urllib3

    url, manager = f"http://127.0.0.1:{port}/items/7", urllib3.PoolManager()

    def send(count: int) -> None:
        for _ in range(count):
            manager.request("GET", url)

    return send


def _urllib(port: int) -> _Requests:
    from urllib.request import urlopen

    url = f"http://127.0.0.1:{port}/items/7"

    def send(count: int) -> None:
        for _ in range(count):
            with urlopen(url) as response:
                response.read()

    return send


def _aiohttp_client(port: int) -> _Requests:
    import aiohttp

    url, loop = f"http://127.0.0.1:{port}/items/7", new_loop()

    async def fetch(count: int) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(count):
                async with session.get(url) as response:
                    await response.read()

    return lambda count: loop.run_until_complete(fetch(count))


def _aiohttp_server(_port: int) -> _Requests:
    """Feed requests to the protocol that the server makes for a connection; no socket."""
    from aiohttp import web

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info["item"])

    raw = b"GET /items/7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: benchmark\r\n\r\n"
    loop = new_loop()
    app = web.Application()
    app.router.add_get("/items/{item}", show)
    runner = web.AppRunner(app, access_log=None)
    loop.run_until_complete(runner.setup())

    async def serve(count: int) -> None:
        assert runner.server is not None
        protocol, transport = runner.server(), _Answered(loop)
        protocol.connection_made(transport)
        for _ in range(count):
            transport.answered = loop.create_future()
            protocol.data_received(raw)
            await transport.answered
        protocol.connection_lost(None)

    return lambda count: loop.run_until_complete(serve(count))


class _Answered(asyncio.Transport):
    """A connection whose other end only waits for the answer."""

    answered: asyncio.Future[None]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 80)})
        self._loop = loop

    def write(self, data: Any) -> None:
        # Right behind what the server does once it has written.
        if not self.answered.done():
            self._loop.call_soon(self.answered.set_result, None)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Have nothing to close."""


def _starlette(_port: int) -> _Requests:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def show(request: Any) -> Any:
        return PlainTextResponse(request.path_params["item"])

    app = Starlette(routes=[Route("/items/{item}", show)])
    loop = new_loop()
    return lambda count: loop.run_until_complete(_call(app, count))


SUBJECTS = {
    "aiohttp_client": _aiohttp_client,
    "aiohttp_server": _aiohttp_server,
    "asgi": _asgi,
    "django": _django,
    "flask": _flask,
    "fastapi": _fastapi,
    "starlette": _starlette,
    "requests": _requests,
    "httpx": _httpx,
    "httpx_async": _httpx_async,
    "urllib3": _urllib3,
    "urllib": _urllib,
    "wsgi": _wsgi,
}
BEFORE = {"django": _configure_django}
# OpenTelemetry's instrumentor, behind its package where that is called otherwise.
CONTRIB = {
    "aiohttp_client": "AioHttpClientInstrumentor",
    "aiohttp_server": "AioHttpServerInstrumentor",
    "django": "DjangoInstrumentor",
    "flask": "FlaskInstrumentor",
    "fastapi": "FastAPIInstrumentor",
    "starlette": "StarletteInstrumentor",
    "requests": "RequestsInstrumentor",
    "httpx": "HTTPXClientInstrumentor",
    "httpx_async": "httpx.HTTPXClientInstrumentor",
    "urllib3": "URLLib3Instrumentor",
    "urllib": "URLLibInstrumentor",
}
# What tracekit calls it, where that is another name.
OURS = {"httpx_async": "httpx", "urllib": "http_client"}
# What of ours wraps an application by hand; OpenTelemetry's has the same name for both.
MIDDLEWARE = {"asgi": "ASGIMiddleware", "wsgi": "WSGIMiddleware"}
# What is watched as well, by the name of its own subject.
BESIDE = dict[str, str]()
# What an application is wrapped in, once it is known whose that is.
_middleware = dict[str, Callable[[Any], Any]]()


def _wrap_in(package: str, subject: str, name: str) -> None:
    _middleware[subject] = getattr(importlib.import_module(f"{package}.{subject}"), name)


def _wrapped(kind: str, app: Any) -> Any:
    return _middleware[kind](app) if kind in _middleware else app


def _bare_start() -> None:
    """Have nothing to prepare."""


def _bare(_subject: str) -> tuple[Callable[[], object], Callable[[], int]]:
    return lambda: None, lambda: 0


def _opentelemetry(subject: str) -> tuple[Callable[[], object], Callable[[], int]]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from benchmarks.sides import Discard

    exporter, provider = Discard(), TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    instrument_contrib(subject)
    return provider.force_flush, lambda: exporter.received


def _tracekit(subject: str) -> tuple[Callable[[], object], Callable[[], int]]:
    import tracekit
    from benchmarks.sides import Discard

    exporter = Discard()
    provider = tracekit.configure("shop", exporters=[exporter])
    instrument_ours(subject)
    return provider.force_flush, lambda: exporter.received


def instrument_contrib(subject: str) -> None:
    """Have OpenTelemetry's instrumentation watch what the subject calls."""
    if subject in MIDDLEWARE:
        _wrap_in("opentelemetry.instrumentation", subject, "OpenTelemetryMiddleware")
        return
    for each in _watched(subject):
        package, _, name = CONTRIB[each].rpartition(".")
        module = importlib.import_module(f"opentelemetry.instrumentation.{package or each}")
        getattr(module, name)().instrument()


def instrument_ours(subject: str) -> None:
    """Have tracekit watch what the subject calls."""
    import tracekit

    if subject in MIDDLEWARE:
        _wrap_in("tracekit.instrumentation", subject, MIDDLEWARE[subject])
        return
    tracekit.instrument(*(OURS.get(each, each) for each in _watched(subject)))


def _watched(subject: str) -> list[str]:
    return [subject, BESIDE[subject]] if subject in BESIDE else [subject]


TRACING = {"bare": _bare, "opentelemetry": _opentelemetry, "tracekit": _tracekit}


def main(subject: str, side: str, port: int) -> None:
    """Answer each number on the input with what that many requests cost."""
    BEFORE.get(subject, _bare_start)()
    settle, received = TRACING[side](subject)
    do = SUBJECTS[subject](port)
    for line in sys.stdin:
        count, before = int(line), received()
        began = time.process_time()
        do(count)
        settle()
        took = time.process_time() - began
        spans = (received() - before) / count
        if side != "bare" and not spans:
            raise SystemExit(f"{subject} with {side} made no span")
        print(json.dumps({"cpu_us": took / count * 1e6, "spans": spans}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
