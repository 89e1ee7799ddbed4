"""WSGI applications wrapped by hand."""

from __future__ import annotations

import contextlib
import gc
import io
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode

from http_servers import Spans, werkzeug_server, wsgiref_server
from instrumentation.http_server_contract import Handled, HttpServerContract, Oops, Site
from tracekit.instrumentation.wsgi import WSGIMiddleware, plugin

PLAIN = [("Content-Type", "text/plain"), ("X-Reply", "yes")]


def plain_app(site: Site) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path in ("/stream", "/endless", "/half"):
            start_response("200 OK", PLAIN)
            return getattr(site, path[1:])()
        if path == "/unavailable":
            start_response("503 Service Unavailable", PLAIN)
            return [b""]
        handler = {
            "/items": site.item,
            "/boom": site.boom,
            "/context": site.context,
            "/baggage": site.baggage,
            "/meet": site.meet,
        }.get("/" + path.split("/")[1])
        if handler is None:
            start_response("404 Not Found", PLAIN)
            return [b"?"]
        body = handler()
        start_response("200 OK", [*PLAIN, ("Content-Length", str(len(body)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    return app


class TestWsgi(HttpServerContract):
    def make_app(self, site: Site) -> Any:
        return plain_app(site)

    @contextlib.contextmanager
    def watched(self, app: Any, provider: Any, **options: Any) -> Iterator[Any]:
        yield WSGIMiddleware(app, tracer_provider=provider, **options)


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def provider(spans: Spans) -> TracerProvider:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


def call(app: Any, **environ: Any) -> tuple[Any, list[Any]]:
    """Call an application as a server would; return the body and what was started."""
    started: list[Any] = []

    def start_response(*args: Any) -> Any:
        started.append(args)
        return written.append

    written: list[bytes] = []
    base = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    return app({**base, **environ}, start_response), started


def middleware(app: Any, provider: TracerProvider) -> WSGIMiddleware:
    return WSGIMiddleware(app, tracer_provider=provider)


def ok(body: Any) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    return app


def test_a_list_is_returned_as_it_is(provider: TracerProvider, spans: Spans) -> None:
    given = [b"a", b"b"]
    body, _ = call(middleware(ok(given), provider))
    assert body is given
    assert len(spans.server()) == 1


def test_a_sized_body_keeps_its_length(provider: TracerProvider) -> None:
    body, _ = call(middleware(ok({b"only": 1}.keys()), provider))
    assert len(body) == 1
    assert list(body) == [b"only"]


def test_the_server_still_recognises_its_file_wrapper(
    provider: TracerProvider, spans: Spans
) -> None:
    file = io.BytesIO(b"content")
    body, _ = call(
        middleware(ok(FileWrapper(file)), provider), **{"wsgi.file_wrapper": FileWrapper}
    )
    assert isinstance(body, FileWrapper)
    assert spans.all() == []
    body.close()
    assert file.closed
    assert len(spans.server()) == 1


def test_a_file_is_sent_by_a_real_server(provider: TracerProvider, spans: Spans) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"content"))

    with wsgiref_server(middleware(app, provider)) as client:
        assert client.ask("/").body == b"content"
    assert len(spans.server()) == 1


def test_the_length_of_a_single_chunk_becomes_a_header(provider: TracerProvider) -> None:
    with wsgiref_server(middleware(ok([b"content"]), provider)) as client:
        assert client.ask("/").headers["content-length"] == "7"


def test_a_body_may_be_read_in_another_thread(provider: TracerProvider, spans: Spans) -> None:
    tracer = provider.get_tracer("program")

    def chunks() -> Iterator[bytes]:
        for _ in range(2):
            with tracer.start_as_current_span("chunk"):
                pass
            yield b"x"

    body, _ = call(middleware(ok(chunks()), provider))
    thread = threading.Thread(target=lambda: list(body))
    thread.start()
    thread.join()
    (server,) = spans.server()
    parents = {span.parent and span.parent.span_id for span in spans.named("chunk", 2)}
    assert parents == {server.context.span_id}


def test_a_span_held_open_across_chunks_is_the_parent_between_them(
    provider: TracerProvider, spans: Spans
) -> None:
    tracer = provider.get_tracer("program")

    def chunks() -> Iterator[bytes]:
        with tracer.start_as_current_span("outer"):
            yield b"one"
            tracer.start_span("inner").end()
            yield b"two"

    body, _ = call(middleware(ok(chunks()), provider))
    for _ in body:
        assert not trace.get_current_span().get_span_context().is_valid
    (outer,), (inner,) = spans.named("outer"), spans.named("inner")
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_a_body_that_nobody_closes_ends_its_span(provider: TracerProvider, spans: Spans) -> None:
    body, _ = call(middleware(ok(iter([b"one", b"two"])), provider))
    next(iter(body))
    del body
    gc.collect()
    (span,) = spans.server()
    assert (span.attributes or {})["tracekit.abandoned"] is True


def test_what_runs_when_the_body_is_closed_has_a_parent(
    provider: TracerProvider, spans: Spans
) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter((b"one",))

        def close(self) -> None:
            provider.get_tracer("program").start_span("closing").end()

    body, _ = call(middleware(ok(Body()), provider))
    assert list(body) == [b"one"]
    body.close()
    (server,), (closing,) = spans.server(), spans.named("closing")
    assert closing.parent is not None
    assert closing.parent.span_id == server.context.span_id


def test_a_response_started_late_has_its_status(provider: TracerProvider, spans: Spans) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("202 Accepted", [])
        yield b"late"

    body, started = call(middleware(app, provider))
    assert started == []
    assert list(body) == [b"late"]
    (span,) = spans.server()
    assert (span.attributes or {})["http.response.status_code"] == 202


def test_a_response_started_again_counts_with_its_exception(
    provider: TracerProvider, spans: Spans
) -> None:
    import sys

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            raise Handled("late")
        except Handled:
            start_response("500 Internal Server Error", [], sys.exc_info())
        return [b"sorry"]

    _, started = call(middleware(app, provider))
    assert [len(arguments) for arguments in started] == [2, 3]
    (span,) = spans.server()
    assert (span.attributes or {})["http.response.status_code"] == 500
    assert [(e.attributes or {})["exception.message"] for e in span.events] == ["late"]


def test_write_is_the_servers_own(provider: TracerProvider) -> None:
    written: list[bytes] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])(b"old style")
        return []

    def start_response(*args: Any) -> Any:
        return written.append

    middleware(app, provider)({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, start_response)
    assert written == [b"old style"]


def test_an_error_in_flight_before_the_request_is_not_its_own(
    provider: TracerProvider, spans: Spans
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("502 Bad Gateway", [])
        return []

    try:
        raise Oops("elsewhere")
    except Oops:
        call(middleware(app, provider))
    (span,) = spans.server()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "502"
    assert span.events == ()


def test_the_path_is_text_again(provider: TracerProvider, spans: Spans) -> None:
    path = "/caf\u00e9".encode().decode("latin-1")
    call(middleware(ok([]), provider), SCRIPT_NAME="/shop", PATH_INFO=path)
    (span,) = spans.server()
    assert (span.attributes or {})["url.path"] == "/shop/caf\u00e9"


def test_the_plug_in_says_how_to_use_it() -> None:
    instrumentor = plugin()
    instrumentor.instrument()
    assert not instrumentor.status.active
    assert "WSGIMiddleware" in instrumentor.status.reason
    instrumentor.uninstrument()


def test_werkzeug_closes_an_abandoned_stream(provider: TracerProvider, spans: Spans) -> None:
    site = Site(provider)
    with werkzeug_server(middleware(plain_app(site), provider)) as client:
        with client.open("/endless") as connection:
            connection.recv(100)
        spans.server()
    assert site.stopped.is_set()
