"""Django behind WSGI, served by werkzeug, and behind ASGI, served by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
import django.core.handlers.exception
import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse
from django.test.client import AsyncClient, AsyncClientHandler, Client, ClientHandler
from django.urls import include, path, re_path
from django.utils.decorators import async_only_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin
from django.views import View
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import django_site
from http_servers import Spans, uvicorn_server, werkzeug_server
from instrumentation.http_server_contract import FrameworkContract, Handled, Oops, Site
from tracekit.instrumentation.django import plugin
from tracekit.instrumentation.wsgi import WSGIMiddleware

django_site.configure()

REPLY = {"X-Reply": "yes"}


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Leave Django's own account of failed requests out of the tests' output."""
    loggers = [logging.getLogger(name) for name in ("django.request", "asyncio")]
    for logger in loggers:
        logger.disabled = True
    yield
    for logger in loggers:
        logger.disabled = False


class AnsweringMiddleware(MiddlewareMixin):
    """Answer what a view raises with a 500 of its own; works sync and async."""

    def process_exception(self, request: Any, exception: Exception) -> Any:
        return HttpResponse("handled", status=500) if isinstance(exception, Handled) else None


@sync_only_middleware
def sync_middleware(get_response: Any) -> Any:
    return lambda request: get_response(request)


@async_only_middleware
def async_middleware(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        return await get_response(request)

    return middleware


def name_of(part: Any) -> str:
    """Return how settings refer to something of this module."""
    return f"{__name__}.{part.__name__}"


def reply(body: bytes, request: Any = None) -> HttpResponse:
    # Other servers than werkzeug's take the body of an answer to HEAD away.
    is_head = request is not None and request.method == "HEAD"
    return HttpResponse(b"" if is_head else body, headers=REPLY)


def sync_urls(site: Site) -> list[Any]:
    def plain(name: str) -> Any:
        return path(name, lambda request: reply(getattr(site, name)()))

    def streamed(name: str) -> Any:
        return path(name, lambda r: StreamingHttpResponse(getattr(site, name)(), headers=REPLY))

    def handled(request: Any) -> Any:
        raise Handled("handled")

    return [
        path("items/<int:number>", lambda request, number: reply(site.item(), request)),
        path("handled", handled),
        path("unavailable", lambda request: HttpResponse(status=503)),
        *map(plain, ("boom", "context", "baggage", "meet")),
        *map(streamed, ("stream", "endless", "half")),
    ]


def async_urls(site: Site) -> list[Any]:
    def plain(name: str) -> Any:
        async def view(request: Any) -> Any:
            return reply(getattr(site, name)())

        return path(name, view)

    def streamed(name: str) -> Any:
        async def view(request: Any) -> Any:
            chunks = getattr(site, name)()
            # Older versions iterate in a thread.
            body = asynchronous(chunks) if django.VERSION >= (4, 2) else chunks
            return StreamingHttpResponse(body, headers=REPLY)

        return path(name, view)

    async def item(request: Any, number: int) -> Any:
        return reply(site.item())

    async def meet(request: Any) -> Any:
        return reply(await asyncio.to_thread(site.meet))

    async def handled(request: Any) -> Any:
        raise Handled("handled")

    return [
        path("items/<int:number>", item),
        path("meet", meet),
        path("handled", handled),
        path("unavailable", lambda request: HttpResponse(status=503)),
        *map(plain, ("boom", "context", "baggage")),
        *map(streamed, ("stream", "endless", "half")),
    ]


async def asynchronous(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what a generator yields, which may block."""
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk
    finally:
        chunks.close()  # type: ignore[attr-defined]


class _DjangoContract(FrameworkContract):
    plugin = plugin
    contrib_class = "DjangoInstrumentor"
    item_route = "/items/<int:number>"
    route_of = staticmethod(
        lambda path: "/items/<int:number>" if path.startswith("/items") else path
    )
    handler: Callable[[], Any]
    urls: Callable[[Site], list[Any]]
    middleware: list[str]

    @pytest.fixture(autouse=True)
    def settings(self) -> Iterator[None]:
        with django_site.site([], MIDDLEWARE=self.middleware) as self.urlconf:
            yield

    def make_app(self, site: Site) -> Any:
        self.urlconf.urlpatterns = self.urls(site)
        return self.handler()

    def patched(self) -> list[tuple[Any, str]]:
        return [
            *((cls, "__call__") for cls in (WSGIHandler, ASGIHandler)),
            *((cls, "__call__") for cls in (ClientHandler, AsyncClientHandler)),
            (BaseHandler, "resolve_request"),
            (BaseHandler, "process_exception_by_middleware"),
            (django.core.handlers.exception, "response_for_exception"),
        ]


class TestWsgi(_DjangoContract):
    handler = WSGIHandler
    urls = staticmethod(sync_urls)
    middleware = [name_of(AnsweringMiddleware)]


class TestAsgi(_DjangoContract):
    is_async = True
    sees_departures = django.VERSION >= (5, 0)
    handler = ASGIHandler
    urls = staticmethod(async_urls)
    # From one to the other and back: Django changes threads between them.
    middleware = [name_of(sync_middleware), name_of(AnsweringMiddleware), name_of(async_middleware)]

    def test_requests_at_once_keep_their_own_parents(
        self, start: Any, site: Site, spans: Spans
    ) -> None:
        if django.VERSION < (4, 0):
            pytest.skip("this version of Django runs the synchronous middleware of one request")
        super().test_requests_at_once_keep_their_own_parents(start, site, spans)


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


@contextlib.contextmanager
def served(kind: str, urls: list[Any], **settings: Any) -> Iterator[Any]:
    """Serve a site behind WSGI or ASGI; yield its client."""
    with django_site.site(urls, **settings):
        made = WSGIHandler() if kind == "wsgi" else ASGIHandler()
        with (werkzeug_server if kind == "wsgi" else uvicorn_server)(made) as client:
            yield client


either = pytest.mark.parametrize("kind", ["wsgi", "asgi"])


def failure(span: ReadableSpan) -> tuple[Any, Any, list[Any]]:
    """Return the error type, the status code and the messages of the exceptions of a span."""
    attributes = span.attributes or {}
    messages = [(event.attributes or {})["exception.message"] for event in span.events]
    return attributes.get("error.type"), attributes.get("http.response.status_code"), messages


def hello(request: Any, **arguments: Any) -> HttpResponse:
    return HttpResponse("hello")


def fail(request: Any, **arguments: Any) -> HttpResponse:
    raise Oops("view")


# Names.


@either
@pytest.mark.parametrize(
    ("urls", "target", "route"),
    [
        ([path("", hello)], "/", "/"),
        (
            [path("a/<slug:s>/", include([path("b/<int:n>", hello)]))],
            "/a/x/b/3",
            "/a/<slug:s>/b/<int:n>",
        ),
        (
            [re_path(r"^api/", include([re_path(r"^items/(?P<pk>[^/.]+)/$", hello)]))],
            "/api/items/3/",
            "/api/items/(?P<pk>[^/.]+)/",
        ),
        ([re_path(r"^x\$\^y\Z", hello)], "/x$%5Ey", r"/x\$\^y"),
        ([path("view/<int:n>", View.as_view())], "/view/3", "/view/<int:n>"),
    ],
    ids=["root", "include", "regular expressions", "escapes", "405 of a class"],
)
def test_the_name_has_the_whole_route(
    provider: TracerProvider, spans: Spans, kind: str, urls: list[Any], target: str, route: str
) -> None:
    with served(kind, urls) as client:
        client.ask(target)
        (span,) = spans.server()
    assert (span.name, (span.attributes or {})["http.route"]) == (f"GET {route}", route)


def test_the_name_is_known_before_the_first_line_of_the_view(
    provider: TracerProvider, spans: Spans
) -> None:
    names: list[Any] = []

    def view(request: Any) -> HttpResponse:
        names.append(trace.get_current_span().name)  # type: ignore[attr-defined]
        return HttpResponse()

    with served("wsgi", [path("x", view)]) as client:
        client.ask("/x")
    assert names == ["GET /x"]


def test_where_the_site_is_mounted_belongs_to_the_route(
    provider: TracerProvider, spans: Spans
) -> None:
    with django_site.site([path("x/<int:n>", hello)]):
        app = DispatcherMiddleware(WSGIHandler(), {"/shop": WSGIHandler()})
        with werkzeug_server(app) as client:
            assert client.ask("/shop/x/3").body == b"hello"
    (span,) = spans.server()
    assert span.name == "GET /shop/x/<int:n>"
    assert (span.attributes or {})["url.path"] == "/shop/x/3"


def test_a_urlconf_that_middleware_chooses_names_the_span(
    provider: TracerProvider, spans: Spans
) -> None:
    with served("wsgi", [], MIDDLEWARE=[name_of(choosing_middleware)]) as client:
        client.ask("/chosen/3")
    assert spans.server()[0].name == "GET /chosen/<int:n>"


def choosing_middleware(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        request.urlconf = (path("chosen/<int:n>", hello),)
        return get_response(request)

    return middleware


# Exceptions, in every layer.


class FailingMiddleware(MiddlewareMixin):
    def process_request(self, request: Any) -> None:
        raise Oops("request")


class FailingAfterMiddleware(MiddlewareMixin):
    def process_response(self, request: Any, response: Any) -> Any:
        raise Oops("response")


class FailingViewMiddleware(MiddlewareMixin):
    def process_view(self, *args: Any) -> None:
        raise Oops("process_view")


class FailingExceptionMiddleware(MiddlewareMixin):
    def process_exception(self, request: Any, exception: Exception) -> None:
        raise ValueError("process_exception")


async def fail_async(request: Any) -> HttpResponse:
    raise Oops("async view")


def fail_rendering(request: Any) -> Any:
    response = SimpleTemplateResponse("no template")
    response.render = fail_to_render  # type: ignore[method-assign]
    return response


def fail_to_render() -> Any:
    raise Oops("render")


def own_500(request: Any) -> HttpResponse:
    return HttpResponse("own page", status=500)


@either
@pytest.mark.parametrize(
    ("view", "middleware", "messages"),
    [
        (fail, [], ["view"]),
        (fail_async, [], ["async view"]),
        (fail_rendering, [], ["render"]),
        (hello, [FailingMiddleware, AnsweringMiddleware], ["request"]),
        (hello, [AnsweringMiddleware, FailingMiddleware], ["request"]),
        (hello, [FailingAfterMiddleware], ["response"]),
        (hello, [sync_middleware, FailingViewMiddleware], ["process_view"]),
        (fail, [FailingExceptionMiddleware], ["process_exception"]),
    ],
)
def test_an_exception_is_recorded_once_whatever_layer_raises_it(
    provider: TracerProvider,
    spans: Spans,
    kind: str,
    view: Any,
    middleware: list[Any],
    messages: list[str],
) -> None:
    names = [name_of(layer) for layer in middleware]
    with served(kind, [path("", view)], MIDDLEWARE=names) as client:
        assert client.ask("/").status == 500
        (span,) = spans.server()
    assert failure(span)[1:] == (500, messages)
    assert span.status.status_code is StatusCode.ERROR


def test_an_error_page_of_the_program_keeps_the_exception(
    provider: TracerProvider, spans: Spans
) -> None:
    with django_site.site([path("", fail)]) as urls:
        urls.handler500 = own_500
        with werkzeug_server(WSGIHandler()) as client:
            assert client.ask("/").body == b"own page"
    assert failure(spans.server()[0])[1:] == (500, ["view"])


def not_found(request: Any) -> HttpResponse:
    raise Http404("no")


def denied(request: Any) -> HttpResponse:
    raise PermissionDenied("no")


@either
@pytest.mark.parametrize(("view", "status"), [(not_found, 404), (denied, 403)])
def test_an_exception_that_stands_for_a_status_is_no_failure(
    provider: TracerProvider, spans: Spans, kind: str, view: Any, status: int
) -> None:
    with served(kind, [path("x", view)]) as client:
        assert client.ask("/x").status == status
        (span,) = spans.server()
    assert (span.name, failure(span)) == ("GET /x", (None, status, []))
    assert span.status.status_code is StatusCode.UNSET


def test_an_exception_of_an_earlier_request_is_not_blamed(
    provider: TracerProvider, spans: Spans
) -> None:
    urls = [path("fail", fail), path("own", own_500)]
    with served("wsgi", urls) as client:
        client.ask("/fail")
        client.ask("/own")
        _, own = spans.server(2)
    assert failure(own) == ("500", 500, [])


# Settings and handlers, however they come.


@pytest.mark.parametrize("shape", [list, tuple])
def test_the_programs_settings_stay_as_they_are(
    provider: TracerProvider, spans: Spans, shape: Callable[[Any], Any]
) -> None:
    given = shape([name_of(sync_middleware)])
    with served("wsgi", [path("", hello)], MIDDLEWARE=given) as client:
        from django.conf import settings

        client.ask("/")
        assert settings.MIDDLEWARE is given
    assert [span.name for span in spans.all()] == ["GET /"]


@either
def test_a_handler_made_before_is_traced(spans: Spans, kind: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = plugin()
    with served(kind, [path("", hello)]) as client:
        client.ask("/")
        instrumentor.instrument(tracer_provider=provider)
        client.ask("/")
        instrumentor.uninstrument()
        client.ask("/")
        spans.server()
    assert [span.name for span in spans.all()] == ["GET /"]


def test_a_handler_that_is_wrapped_by_hand_too_is_one_span(
    provider: TracerProvider, spans: Spans
) -> None:
    with django_site.site([path("x", hello)]):
        app = WSGIMiddleware(WSGIHandler(), tracer_provider=provider)
        with werkzeug_server(app) as client:
            client.ask("/x")
    assert [span.name for span in spans.server()] == ["GET /x"]


@pytest.mark.parametrize("middleware", [sync_middleware, async_middleware])
@pytest.mark.parametrize("is_async", [False, True])
@either
def test_spans_of_views_and_middleware_have_the_right_parent(
    provider: TracerProvider, spans: Spans, kind: str, is_async: bool, middleware: Any
) -> None:
    tracer = provider.get_tracer("program")

    def sync_view(request: Any) -> HttpResponse:
        with tracer.start_as_current_span("view"):
            return HttpResponse()

    async def async_view(request: Any) -> HttpResponse:
        with tracer.start_as_current_span("view"):
            return await sync_to_async(hello)(request)

    view = async_view if is_async else sync_view
    with served(kind, [path("", view)], MIDDLEWARE=[name_of(middleware)]) as client:
        client.ask("/")
        (server,) = spans.server()
    assert spans.named("view")[0].parent == server.context


def test_a_server_still_sees_a_coroutine_function(provider: TracerProvider) -> None:
    assert inspect.iscoroutinefunction(ASGIHandler().__call__)


# Bodies.


def test_a_file_is_sent_whole(provider: TracerProvider, spans: Spans, tmp_path: Any) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    with served("wsgi", [path("f", lambda request: FileResponse(file.open("rb")))]) as client:
        assert client.ask("/f").body == b"x" * 100_000
    (span,) = spans.server()
    assert "tracekit.abandoned" not in (span.attributes or {})


def test_what_runs_when_the_request_is_finished_has_a_parent(
    provider: TracerProvider, spans: Spans
) -> None:
    from django.core.signals import request_finished

    def clean_up(**_: Any) -> None:
        provider.get_tracer("program").start_span("clean up").end()

    request_finished.connect(clean_up)
    try:
        with served("wsgi", [path("", hello)]) as client:
            client.ask("/")
            (server,) = spans.server()
            (span,) = spans.named("clean up")
    finally:
        request_finished.disconnect(clean_up)
    assert span.parent == server.context


# Test clients of Django, which call no server's interface.


def test_a_request_of_the_test_client_is_a_span(provider: TracerProvider, spans: Spans) -> None:
    with django_site.site([path("x/<int:n>", hello), path("fail", fail)]):
        client = Client(raise_request_exception=False)
        assert client.get("/x/3").content == b"hello"
        assert client.get("/fail").status_code == 500
    first, second = spans.server(2)
    assert (first.name, failure(first)) == ("GET /x/<int:n>", (None, 200, []))
    assert failure(second)[1:] == (500, ["view"])


def test_a_test_client_raises_what_the_view_raised(provider: TracerProvider, spans: Spans) -> None:
    with django_site.site([path("fail", fail)]), pytest.raises(Oops):
        Client().get("/fail")
    assert failure(spans.server()[0])[2] == ["view"]


def test_a_stream_in_a_test_client_lasts_until_it_is_read(
    provider: TracerProvider, spans: Spans
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        provider.get_tracer("program").start_span("chunk").end()
        yield b"two"

    with django_site.site([path("s", lambda request: StreamingHttpResponse(chunks()))]):
        response = Client().get("/s")
        assert spans.all() == []
        assert response.getvalue() == b"onetwo"
    (server,) = spans.server()
    assert spans.named("chunk")[0].parent == server.context


def test_a_request_of_the_async_test_client_is_a_span(
    provider: TracerProvider, spans: Spans
) -> None:
    with django_site.site([path("x/<int:n>", hello)]):
        response = asyncio.run(AsyncClient().get("/x/3"))  # type: ignore[arg-type]
    assert response.content == b"hello"
    (span,) = spans.server()
    assert (span.name, failure(span)) == ("GET /x/<int:n>", (None, 200, []))


# REST framework.


def rest_views() -> list[Any]:
    from rest_framework.exceptions import APIException, Throttled
    from rest_framework.routers import SimpleRouter
    from rest_framework.viewsets import ViewSet

    class Items(ViewSet):
        authentication_classes = permission_classes = throttle_classes = ()

        def retrieve(self, request: Any, pk: str) -> Any:
            if pk == "unavailable":
                raise APIException("no")
            if pk == "throttled":
                raise Throttled
            raise Oops(pk)

        def perform_content_negotiation(self, request: Any, force: bool = False) -> Any:
            from rest_framework.renderers import JSONRenderer

            return JSONRenderer(), "application/json"

    router = SimpleRouter()
    router.register("items", Items, basename="items")
    return [path("api/", include(router.urls))]


@either
@pytest.mark.parametrize(
    ("pk", "expected"),
    [
        ("broken", (500, ["broken"])),
        ("unavailable", (500, [])),
        ("throttled", (429, [])),
        ("handled", (500, ["handled"])),
    ],
)
def test_rest_framework_is_followed(
    provider: TracerProvider, spans: Spans, kind: str, pk: str, expected: Any
) -> None:
    pytest.importorskip("rest_framework")
    rest = {"UNAUTHENTICATED_USER": None, "EXCEPTION_HANDLER": name_of(answer_handled)}
    with served(kind, rest_views(), REST_FRAMEWORK=rest) as client:
        client.ask(f"/api/items/{pk}/")
        (span,) = spans.server()
    assert span.name == "GET /api/items/(?P<pk>[^/.]+)/"
    assert failure(span)[1:] == expected


def answer_handled(exception: Exception, context: Any) -> Any:
    from rest_framework.response import Response
    from rest_framework.views import exception_handler

    if str(exception) == "handled":
        return Response("sorry", status=500)
    return exception_handler(exception, context)
