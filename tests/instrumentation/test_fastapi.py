"""FastAPI, served by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from websockets.sync.client import connect

from http_servers import Spans, uvicorn_server
from instrumentation.http_server_contract import FrameworkContract, Handled, Oops, Site
from tracekit.instrumentation.fastapi import plugin
from tracekit.instrumentation.starlette import plugin as starlette_plugin

REPLY = {"X-Reply": "yes"}


def site_app(site: Site) -> FastAPI:
    app = FastAPI()

    @app.api_route("/items/{number}", methods=["GET", "HEAD", "POST", "DELETE"])
    async def item(number: int) -> Response:
        return Response(site.item(), headers=REPLY)

    @app.get("/handled")
    async def handled() -> Response:
        raise Handled("handled")

    @app.exception_handler(Handled)
    async def answer(request: Any, error: Exception) -> Response:
        return PlainTextResponse("handled", 500)

    @app.get("/unavailable")
    async def unavailable() -> Response:
        raise HTTPException(503)

    def plain(name: str) -> None:
        # A plain function: FastAPI runs it in a thread.
        app.add_api_route(f"/{name}", lambda: Response(getattr(site, name)(), headers=REPLY))

    def streamed(name: str) -> None:
        app.add_api_route(f"/{name}", lambda: StreamingResponse(getattr(site, name)()))

    async def endless() -> AsyncIterator[bytes]:
        chunks = site.endless()
        try:
            for chunk in chunks:
                yield chunk
                await asyncio.sleep(0)
        finally:
            chunks.close()  # type: ignore[attr-defined]

    for name in ("boom", "context", "baggage", "meet"):
        plain(name)
    for name in ("stream", "half"):
        streamed(name)
    app.add_api_route("/endless", lambda: StreamingResponse(endless()))
    return app


class TestFastApi(FrameworkContract):
    plugin = plugin
    contrib_class = "FastAPIInstrumentor"
    is_async = True
    item_route = "/items/{number}"
    route_of = staticmethod(lambda path: "/items/{number}" if path.startswith("/items") else path)

    def make_app(self, site: Site) -> Any:
        return site_app(site)

    def patched(self) -> list[tuple[Any, str]]:
        return [(FastAPI, "__call__"), (fastapi.routing.APIRoute, "handle")]


@pytest.fixture
def spans() -> Spans:
    return Spans()


@contextlib.contextmanager
def instrumented(provider: Any, *plugins: Any) -> Iterator[None]:
    instrumentors = [cls() for cls in plugins]
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=provider)
    try:
        yield
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()


@pytest.fixture
def plain_provider(spans: Spans) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


@pytest.fixture
def provider(plain_provider: TracerProvider) -> Iterator[TracerProvider]:
    with instrumented(plain_provider, plugin):
        yield plain_provider


@pytest.fixture
def app(provider: TracerProvider) -> FastAPI:
    return FastAPI()


@pytest.mark.parametrize(
    "plugins", [(plugin, starlette_plugin), (starlette_plugin, plugin), (starlette_plugin,)]
)
def test_with_starlette_watched_too_it_is_one_span(
    plain_provider: TracerProvider, spans: Spans, plugins: tuple[Any, ...]
) -> None:
    app = FastAPI()
    app.add_api_route("/{number}", lambda number: number)
    with instrumented(plain_provider, *plugins), uvicorn_server(app) as client:
        client.ask("/3")
        client.ask("/4")
        assert [span.name for span in spans.server(2)] == ["GET /{number}"] * 2


def test_its_own_tracing_gives_way(plain_provider: TracerProvider, spans: Spans) -> None:
    app = FastAPI(**_telemetry(tracer_provider=plain_provider))
    app.add_api_route("/{number}", lambda number: number)
    with instrumented(plain_provider, plugin), uvicorn_server(app) as client:
        client.ask("/3")
        assert [span.name for span in spans.server()] == ["GET /{number}"]
    assert len(spans.all()) == 1


def test_below_its_own_tracing_starlette_adds_no_span(
    plain_provider: TracerProvider, spans: Spans
) -> None:
    app = FastAPI(**_telemetry(tracer_provider=plain_provider, operation_spans=False))
    app.add_api_route("/{number}", lambda number: number)
    with instrumented(plain_provider, starlette_plugin), uvicorn_server(app) as client:
        client.ask("/3")
        (span,) = spans.server()
    assert span.instrumentation_scope is not None
    assert (len(spans.all()), span.instrumentation_scope.name) == (1, "fastapi")


def test_its_own_metrics_stay(plain_provider: TracerProvider, spans: Spans) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    app = FastAPI(**_telemetry(tracer_provider=plain_provider, meter_provider=meters))
    app.add_api_route("/{number}", lambda number: number)
    with instrumented(plain_provider, plugin), uvicorn_server(app) as client:
        client.ask("/3")
        spans.server()
    data: Any = reader.get_metrics_data()
    names = {m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    meters.shutdown()
    assert "http.server.request.duration" in names
    assert len(spans.all()) == 1


def _telemetry(**settings: Any) -> dict[str, Any]:
    from inspect import signature

    if "telemetry" not in signature(FastAPI.__init__).parameters:
        pytest.skip("this FastAPI does not trace by itself")
    return {"telemetry": settings}


def test_included_routers_and_mounted_applications_have_the_whole_template(
    app: FastAPI, spans: Spans
) -> None:
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer/{tenant}")
    inner.add_api_route("/{number}", lambda number: number)
    outer.include_router(inner)
    app.include_router(outer, prefix="/api")
    mounted = FastAPI()
    mounted.include_router(inner)
    app.mount("/sub", mounted)
    with uvicorn_server(app) as client:
        for target in ("/api/outer/acme/inner/3", "/sub/inner/3", "/sub/nowhere"):
            client.ask(target)
        names = [span.name for span in spans.server(3)]
    assert names == [
        "GET /api/outer/{tenant}/inner/{number}",
        "GET /sub/inner/{number}",
        "GET /sub/{path}",
    ]


def test_a_mounted_starlette_or_the_other_way_round_is_one_span(
    app: FastAPI, spans: Spans, provider: TracerProvider
) -> None:
    inner = Starlette()
    inner.add_route("/{number}", lambda request: PlainTextResponse("ok"))
    app.mount("/sub", inner)
    outer = Starlette()
    outer.mount("/outer", app)
    with instrumented(provider, starlette_plugin), uvicorn_server(outer) as client:
        client.ask("/outer/sub/3")
        assert [span.name for span in spans.server()] == ["GET /outer/sub/{number}"]


def test_a_request_that_does_not_validate_is_no_failure(app: FastAPI, spans: Spans) -> None:
    @app.get("/items/{number}")
    def item(number: int) -> int:
        return number

    with uvicorn_server(app) as client:
        assert client.ask("/items/x").status == 422
    (span,) = spans.server()
    assert span.name == "GET /items/{number}"
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())


@pytest.mark.parametrize("is_async", [False, True])
def test_dependencies_and_endpoints_have_the_right_parent(
    app: FastAPI, spans: Spans, provider: TracerProvider, is_async: bool
) -> None:
    tracer = provider.get_tracer("program")

    def sync_dependency() -> Iterator[int]:
        tracer.start_span("before").end()
        yield 1
        tracer.start_span("after").end()

    async def async_dependency() -> AsyncIterator[int]:
        tracer.start_span("before").end()
        yield 1
        tracer.start_span("after").end()

    dependency = async_dependency if is_async else sync_dependency

    def sync_endpoint(value: Annotated[int, Depends(dependency)]) -> int:
        tracer.start_span("within").end()
        return value

    async def async_endpoint(value: Annotated[int, Depends(dependency)]) -> int:
        return sync_endpoint(value)

    # Postponed annotations of local functions cannot be resolved by name.
    for function in (sync_endpoint, async_endpoint):
        function.__annotations__ = {"value": Annotated[int, Depends(dependency)], "return": int}
    app.add_api_route("/", async_endpoint if is_async else sync_endpoint)
    with uvicorn_server(app) as client:
        assert client.ask("/").body == b"1"
        spans.named("after")
    (server,) = spans.server()
    for name in ("before", "within", "after"):
        assert spans.named(name)[0].parent == server.context


def test_an_exception_in_a_dependency_is_recorded(app: FastAPI, spans: Spans) -> None:
    def dependency() -> None:
        raise Oops("dependency")

    app.add_api_route("/", lambda: 1, dependencies=[Depends(dependency)])
    with uvicorn_server(app) as client:
        assert client.ask("/").status == 500
    (span,) = spans.server()
    assert [(e.attributes or {})["exception.message"] for e in span.events] == ["dependency"]


def test_middleware_between_keeps_name_exception_and_parent(
    app: FastAPI, spans: Spans, provider: TracerProvider
) -> None:
    tracer = provider.get_tracer("program")

    async def dispatch(request: Any, call_next: Any) -> Any:
        with tracer.start_as_current_span("middleware"):
            return await call_next(request)

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        tracer.start_span("work").end()
        raise Oops("item")

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    with uvicorn_server(app) as client:
        assert client.ask("/items/3").status == 500
    (server,), (middleware,) = spans.server(), spans.named("middleware")
    assert server.name == "GET /items/{number}"
    assert middleware.parent == server.context
    assert spans.named("work")[0].parent == middleware.context
    assert len(server.events) == 1


def test_background_tasks_are_spans_of_their_own(
    app: FastAPI, spans: Spans, provider: TracerProvider
) -> None:
    def send_mail() -> None:
        provider.get_tracer("program").start_span("smtp").end()

    def order(tasks: Any) -> str:
        tasks.add_task(send_mail)
        return "ordered"

    order.__annotations__ = {"tasks": BackgroundTasks}
    app.add_api_route("/order", order)
    with uvicorn_server(app) as client:
        client.ask("/order")
        (background,) = spans.named("background send_mail")
    (server,) = spans.server()
    assert (background.kind, background.parent) == (SpanKind.INTERNAL, server.context)
    assert spans.named("smtp")[0].parent == background.context


def test_a_websocket_of_an_included_router_is_named_for_its_route(
    app: FastAPI, spans: Spans
) -> None:
    async def room(websocket: Any, name: str) -> None:
        await websocket.accept()
        await websocket.send_text(name)
        await websocket.receive_text()  # the client leaves, which raises WebSocketDisconnect

    room.__annotations__ = {"websocket": fastapi.WebSocket, "name": str}
    router = APIRouter(prefix="/ws")
    router.add_api_websocket_route("/{name}", room)
    app.include_router(router)
    with uvicorn_server(app) as client:
        with connect(f"ws://127.0.0.1:{client.port}/ws/lobby", proxy=None) as connection:
            assert connection.recv() == "lobby"
        (life,) = spans.named("websocket /ws/{name}")
    assert spans.server()[0].name == "GET /ws/{name}"
    assert (life.status.status_code, life.events) == (StatusCode.UNSET, ())


def test_an_application_made_before_is_traced(plain_provider: TracerProvider, spans: Spans) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: trace.get_current_span().get_span_context().is_valid)
    with uvicorn_server(app) as client:
        assert client.ask("/").body == b"false"
        with instrumented(plain_provider, plugin):
            assert client.ask("/").body == b"true"
            spans.server()
        assert client.ask("/").body == b"false"


def test_what_runs_at_startup_and_shutdown_is_in_no_request(
    provider: TracerProvider, spans: Spans
) -> None:
    tracer = provider.get_tracer("program")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tracer.start_span("startup").end()
        yield
        tracer.start_span("shutdown").end()

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/", lambda: 1)
    with uvicorn_server(app) as client:
        client.ask("/")
    assert [(span.name, span.parent) for span in spans.all()] == [
        ("startup", None),
        ("GET /", None),
        ("shutdown", None),
    ]


def test_an_exception_behind_the_response_is_not_the_requests(app: FastAPI, spans: Spans) -> None:
    def task() -> None:
        raise Oops("later")

    def order(tasks: Any) -> str:
        tasks.add_task(task)
        return "ordered"

    order.__annotations__ = {"tasks": BackgroundTasks}
    app.add_api_route("/order", order)
    with uvicorn_server(app) as client:
        assert client.ask("/order").status == 200
        (background,) = spans.named("background task")
    assert background.status.status_code is StatusCode.ERROR
    assert spans.server()[0].status.status_code is StatusCode.UNSET
