"""Starlette, served by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import starlette.background
import starlette.routing
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from websockets.sync.client import connect

from http_servers import Spans, uvicorn_server
from instrumentation.http_server_contract import FrameworkContract, Handled, Oops, Site
from tracekit.instrumentation.asgi import ASGIMiddleware
from tracekit.instrumentation.starlette import plugin

REPLY = {"X-Reply": "yes"}


def routes(site: Site) -> list[Any]:
    def plain(name: str) -> Route:
        # A plain function: Starlette runs it in a thread.
        return Route(f"/{name}", lambda request: Response(getattr(site, name)(), headers=REPLY))

    def streamed(name: str) -> Route:
        return Route(f"/{name}", lambda request: StreamingResponse(getattr(site, name)()))

    async def item(request: Any) -> Response:
        return Response(site.item(), headers=REPLY)

    async def handled(request: Any) -> Response:
        raise Handled("handled")

    async def unavailable(request: Any) -> Response:
        raise HTTPException(503)

    return [
        Route("/items/{number:int}", item, methods=["GET", "POST", "DELETE"]),
        Route("/handled", handled),
        Route("/unavailable", unavailable),
        *map(plain, ("boom", "context", "baggage", "meet")),
        *map(streamed, ("stream", "half")),
        Route("/endless", lambda request: StreamingResponse(_endless(site))),
    ]


async def _endless(site: Site) -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"." * 65536
            await asyncio.sleep(0)
    finally:
        site.stopped.set()


async def answer(request: Any, error: Exception) -> Response:
    return PlainTextResponse("handled", 500)


class TestStarlette(FrameworkContract):
    plugin = plugin
    contrib_class = "StarletteInstrumentor"
    is_async = True
    item_route = "/items/{number}"
    route_of = staticmethod(lambda path: "/items/{number}" if path.startswith("/items") else path)

    def make_app(self, site: Site) -> Any:
        return Starlette(routes=routes(site), exception_handlers={Handled: answer})

    def patched(self) -> list[tuple[Any, str]]:
        return [
            (Starlette, "__call__"),
            (starlette.routing.Route, "handle"),
            (starlette.routing.WebSocketRoute, "handle"),
            (starlette.routing.Mount, "handle"),
            (starlette.background.BackgroundTask, "__call__"),
        ]


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


async def hello(request: Any) -> Response:
    return PlainTextResponse("hello")


def failure(span: ReadableSpan) -> tuple[Any, Any, list[Any]]:
    """Return the error type, the status code and the messages of the exceptions of a span."""
    attributes = span.attributes or {}
    messages = [(event.attributes or {})["exception.message"] for event in span.events]
    return attributes.get("error.type"), attributes.get("http.response.status_code"), messages


@pytest.mark.parametrize(
    ("app", "target", "name"),
    [
        (
            Starlette(routes=[Mount("/api", routes=[Route("/items/{number}", hello)])]),
            "/api/items/3",
            "GET /api/items/{number}",
        ),
        (
            Starlette(
                routes=[
                    Mount(
                        "/a/{tenant}", Router([Mount("/b", routes=[Route("/{number:int}", hello)])])
                    )
                ]
            ),
            "/a/acme/b/3",
            "GET /a/{tenant}/b/{number}",
        ),
        (
            Starlette(
                routes=[Host("127.0.0.1", Router([Mount("/v1", Router([Route("/x", hello)]))]))]
            ),
            "/v1/x",
            "GET /v1/x",
        ),
        (
            Starlette(routes=[Mount("/sub", Starlette(routes=[Route("/{number}", hello)]))]),
            "/sub/3",
            "GET /sub/{number}",
        ),
        (Starlette(routes=[Mount("/raw", PlainTextResponse("raw"))]), "/raw/x", "GET /raw/{path}"),
        (Starlette(routes=[Mount("/sub", Router([]))]), "/nowhere", "GET"),
        (Starlette(routes=[Route("/x/", hello)]), "/x", "GET"),
        (Starlette(routes=[Route("/x", hello, methods=["POST"])]), "/x", "GET /x"),
    ],
    ids=["mount", "nested", "host", "application", "no router", "not found", "redirect", "405"],
)
def test_the_name_has_the_whole_template(
    provider: TracerProvider, spans: Spans, app: Any, target: str, name: str
) -> None:
    with uvicorn_server(app) as client:
        client.ask(target)
    (span,) = spans.server()
    assert span.name == name
    assert (span.attributes or {}).get("http.route") == name.partition(" ")[2] or name == "GET"


def test_an_application_that_is_wrapped_by_hand_too_is_one_span(
    provider: TracerProvider, spans: Spans
) -> None:
    app = ASGIMiddleware(Starlette(routes=[Route("/x", hello)]), tracer_provider=provider)
    with uvicorn_server(app) as client:
        client.ask("/x")
    assert [span.name for span in spans.server()] == ["GET /x"]


# Exceptions, in every layer.


async def fail(request: Any) -> Response:
    raise Oops("view")


class FailingMiddleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise Oops("middleware")


class PassingMiddleware(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


@pytest.mark.parametrize(
    ("app", "message", "body"),
    [
        (Starlette(routes=[Route("/", fail)]), "view", b"Internal Server Error"),
        (Starlette(routes=[Route("/", fail)], debug=True), "view", None),
        (
            Starlette(routes=[Route("/", fail)], exception_handlers={Exception: answer}),
            "view",
            b"handled",
        ),
        (
            Starlette(routes=[Route("/", fail)], exception_handlers={Oops: answer}),
            "view",
            b"handled",
        ),
        (
            Starlette(routes=[Route("/", hello)], middleware=[Middleware(FailingMiddleware)]),
            "middleware",
            b"Internal Server Error",
        ),
        (
            Starlette(routes=[Route("/", fail)], middleware=[Middleware(PassingMiddleware)]),
            "view",
            b"Internal Server Error",
        ),
        (
            Starlette(
                routes=[Route("/", fail)],
                middleware=[Middleware(PassingMiddleware)],
                exception_handlers={Oops: answer},
            ),
            "view",
            b"handled",
        ),
    ],
    ids=["none", "debug", "catch-all", "by class", "in middleware", "base", "base by class"],
)
def test_an_exception_is_recorded_once_whoever_answers_it(
    provider: TracerProvider, spans: Spans, app: Any, message: str, body: bytes | None
) -> None:
    with uvicorn_server(app) as client:
        answered = client.ask("/")
    assert answered.status == 500
    assert body is None or answered.body == body
    (span,) = spans.server()
    assert failure(span)[1:] == (500, [message])
    assert span.status.status_code is StatusCode.ERROR


def test_an_exception_answered_below_500_is_none_of_ours(
    provider: TracerProvider, spans: Spans
) -> None:
    async def refuse(request: Any, error: Exception) -> Response:
        return PlainTextResponse("no", 400)

    app = Starlette(routes=[Route("/", fail)], exception_handlers={Oops: refuse})
    with uvicorn_server(app) as client:
        assert client.ask("/").status == 400
    (span,) = spans.server()
    assert failure(span) == (None, 400, [])
    assert span.status.status_code is StatusCode.UNSET


# Behind the response.


def background_app(provider: TracerProvider, task: Any) -> Starlette:
    async def view(request: Any) -> Response:
        return PlainTextResponse("sent", background=task)

    return Starlette(routes=[Route("/", view)])


def test_background_tasks_are_spans_of_their_own(provider: TracerProvider, spans: Spans) -> None:
    def sync_task(name: str) -> None:
        provider.get_tracer("program").start_span(name).end()

    async def async_task() -> None:
        sync_task("in async")

    tasks = BackgroundTasks([BackgroundTask(sync_task, "in thread"), BackgroundTask(async_task)])
    with uvicorn_server(background_app(provider, tasks)) as client:
        client.ask("/")
        first, second = spans.wait(lambda span: span.name.startswith("background"), 2)
    (server,) = spans.server()
    assert (first.name, second.name) == ("background sync_task", "background async_task")
    assert first.kind is SpanKind.INTERNAL
    assert first.parent == second.parent == server.context
    assert spans.named("in thread")[0].parent == first.context
    assert spans.named("in async")[0].parent == second.context
    assert (server.end_time or 0) <= (first.start_time or 0)
    assert str((first.attributes or {})["code.function.name"]).endswith("sync_task")


def test_a_background_task_that_fails_is_not_the_requests_failure(
    provider: TracerProvider, spans: Spans
) -> None:
    async def task() -> None:
        raise Oops("later")

    with uvicorn_server(background_app(provider, BackgroundTask(task))) as client:
        assert client.ask("/").body == b"sent"
        (background,) = spans.named("background task")
    (server,) = spans.server()
    assert [(e.attributes or {})["exception.message"] for e in background.events] == ["later"]
    assert background.status.status_code is StatusCode.ERROR
    assert failure(server) == (None, 200, [])


def test_a_task_outside_of_a_request_is_not_traced(provider: TracerProvider, spans: Spans) -> None:
    ran: list[int] = []
    asyncio.run(BackgroundTask(ran.append, 1)())  # type: ignore[arg-type]
    assert ran == [1]
    assert spans.all() == []


def test_a_websocket_is_named_for_its_route(provider: TracerProvider, spans: Spans) -> None:
    async def echo(websocket: Any) -> None:
        await websocket.accept()
        provider.get_tracer("program").start_span("work").end()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    app = Starlette(routes=[Mount("/ws", routes=[WebSocketRoute("/{room}", echo)])])
    with uvicorn_server(app) as client:
        with connect(f"ws://127.0.0.1:{client.port}/ws/lobby", proxy=None) as connection:
            connection.send("x")
            connection.recv()
        (life,) = spans.named("websocket /ws/{room}")
    (handshake,) = spans.server()
    assert handshake.name == "GET /ws/{room}"
    assert life.parent == handshake.context
    assert spans.named("work")[0].parent == life.context
    assert life.status.status_code is StatusCode.UNSET


def test_what_runs_at_startup_and_shutdown_is_in_no_request(
    provider: TracerProvider, spans: Spans
) -> None:
    tracer = provider.get_tracer("program")

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        tracer.start_span("startup").end()
        yield
        tracer.start_span("shutdown").end()

    with uvicorn_server(Starlette(routes=[Route("/", hello)], lifespan=lifespan)) as client:
        client.ask("/")
    assert [(span.name, span.parent) for span in spans.all()] == [
        ("startup", None),
        ("GET /", None),
        ("shutdown", None),
    ]


def test_an_exception_within_a_websocket_is_on_its_connection(
    provider: TracerProvider, spans: Spans
) -> None:
    async def breaks(websocket: Any) -> None:
        await websocket.accept()
        await websocket.receive_text()
        raise Oops("in the middle")

    with (
        uvicorn_server(Starlette(routes=[WebSocketRoute("/ws/{room}", breaks)])) as client,
        connect(f"ws://127.0.0.1:{client.port}/ws/lobby", proxy=None) as connection,
    ):
        connection.send("x")
        (life,) = spans.named("websocket /ws/{room}")
    assert failure(life)[2] == ["in the middle"]
    assert spans.server()[0].status.status_code is StatusCode.UNSET
