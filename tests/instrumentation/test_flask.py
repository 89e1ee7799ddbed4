"""Flask, served by werkzeug."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from http_servers import Spans, werkzeug_server
from instrumentation.http_server_contract import FrameworkContract, Handled, Oops, Site
from tracekit.instrumentation.flask import plugin

ITEM = "/items/<int:number>"


def reply(body: Any) -> flask.Response:
    return flask.Response(body, headers={"X-Reply": "yes"})


def flask_app(site: Site) -> flask.Flask:
    app = flask.Flask("site")

    @app.route("/items/<int:number>", methods=["GET", "POST", "DELETE"])
    def item(number: int) -> flask.Response:
        return reply(site.item())

    @app.get("/handled")
    def handled() -> flask.Response:
        raise Handled("handled")

    @app.errorhandler(Handled)
    def answer(error: Handled) -> tuple[str, int]:
        return "handled", 500

    @app.get("/unavailable")
    def unavailable() -> flask.Response:
        flask.abort(503)

    for name in ("boom", "context", "baggage", "meet", "stream", "endless", "half"):
        view = getattr(site, name)
        app.add_url_rule(f"/{name}", name, lambda view=view: reply(view()))
    return app


class TestFlask(FrameworkContract):
    plugin = plugin
    contrib_class = "FlaskInstrumentor"
    item_route = ITEM
    route_of = staticmethod(
        lambda path: "/items/<int:number>" if path.startswith("/items") else path
    )

    def make_app(self, site: Site) -> Any:
        return flask_app(site)

    def patched(self) -> list[tuple[Any, str]]:
        names = ("__call__", "wsgi_app", "handle_exception", "handle_user_exception")
        return [*((flask.Flask, n) for n in names), (flask.ctx.RequestContext, "match_request")]


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


@pytest.fixture
def app(provider: TracerProvider) -> flask.Flask:
    return flask.Flask("app")


def failure(span: ReadableSpan) -> tuple[Any, Any, list[Any]]:
    """Return the error type, the status code and the messages of the exceptions of a span."""
    attributes = span.attributes or {}
    messages = [(event.attributes or {})["exception.message"] for event in span.events]
    return attributes.get("error.type"), attributes["http.response.status_code"], messages


def test_the_span_of_a_test_client_ends_with_the_call(app: flask.Flask, spans: Spans) -> None:
    app.add_url_rule("/", view_func=lambda: "ok")
    app.test_client().get("/")
    assert [span.name for span in spans.all()] == ["GET /"]


def test_a_test_client_below_a_span_is_in_its_trace(
    app: flask.Flask, spans: Spans, provider: TracerProvider
) -> None:
    app.add_url_rule("/", view_func=lambda: "ok")
    with provider.get_tracer("test").start_as_current_span("test") as test:
        app.test_client().get("/")
    (server,) = spans.server()
    assert server.parent is not None
    assert server.parent.span_id == test.get_span_context().span_id


def test_a_view_of_a_blueprint_has_its_whole_rule(app: flask.Flask, spans: Spans) -> None:
    inner, outer = flask.Blueprint("inner", "app"), flask.Blueprint("outer", "app")
    inner.add_url_rule("/items/<number>", view_func=lambda number: number)
    outer.register_blueprint(inner, url_prefix="/v1")
    app.register_blueprint(outer, url_prefix="/api")
    app.test_client().get("/api/v1/items/3")
    assert spans.server()[0].name == "GET /api/v1/items/<number>"


def test_the_name_is_known_before_the_first_line_of_the_program(
    app: flask.Flask, spans: Spans
) -> None:
    names: list[Any] = []
    app.before_request(lambda: names.append(trace.get_current_span().name))  # type: ignore[attr-defined]
    app.add_url_rule("/items/<number>", view_func=lambda number: number)
    app.test_client().get("/items/3")
    assert names == ["GET /items/<number>"]


def test_a_mounted_application_is_one_span_with_the_mount_in_its_route(
    app: flask.Flask, spans: Spans
) -> None:
    other = flask.Flask("other")
    other.add_url_rule("/items/<number>", view_func=lambda number: number)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/api": other})  # type: ignore[method-assign]
    with werkzeug_server(app) as client:
        assert client.ask("/api/items/3").body == b"3"
    (span,) = spans.server()
    assert span.name == "GET /api/items/<number>"
    assert (span.attributes or {})["url.path"] == "/api/items/3"


def test_applications_below_a_plain_dispatcher_are_traced(app: flask.Flask, spans: Spans) -> None:
    app.add_url_rule("/hello", view_func=lambda: "hello")
    with werkzeug_server(DispatcherMiddleware(app.wsgi_app, {"/api": app.wsgi_app})) as client:
        client.ask("/hello")
        client.ask("/api/hello")
    assert [span.name for span in spans.server(2)] == ["GET /hello", "GET /api/hello"]


def test_middleware_of_the_user_is_inside_the_span(
    app: flask.Flask, spans: Spans, provider: TracerProvider
) -> None:
    inner = app.wsgi_app

    def middleware(environ: Any, start_response: Any) -> Any:
        with provider.get_tracer("program").start_as_current_span("middleware"):
            return inner(environ, start_response)

    app.wsgi_app = middleware  # type: ignore[method-assign]
    app.add_url_rule("/", view_func=lambda: "ok")
    app.test_client().get("/")
    (server,), (own,) = spans.server(), spans.named("middleware")
    assert own.parent is not None
    assert own.parent.span_id == server.context.span_id


def test_a_subclass_that_overrides_everything_is_traced(
    provider: TracerProvider, spans: Spans
) -> None:
    class Own(flask.Flask):
        def wsgi_app(self, environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            return [b"own"]

    assert Own("own").test_client().get("/").data == b"own"
    assert [span.name for span in spans.server()] == ["GET"]


@pytest.mark.parametrize("place", ["before_request", "after_request"])
def test_an_exception_around_the_view_is_recorded(
    app: flask.Flask, spans: Spans, place: str
) -> None:
    def fail(*args: Any) -> Any:
        raise Oops(place)

    getattr(app, place)(fail)
    app.add_url_rule("/", view_func=lambda: "ok")
    assert app.test_client().get("/").status_code == 500
    (span,) = spans.server()
    assert failure(span)[1:] == (500, [place])


def test_an_exception_in_an_error_handler_is_the_one_recorded(
    app: flask.Flask, spans: Spans
) -> None:
    @app.get("/")
    def view() -> str:
        raise Handled("first")

    @app.errorhandler(Handled)
    def answer(error: Handled) -> str:
        raise Oops("second")

    app.test_client().get("/")
    assert failure(spans.server()[0])[1:] == (500, ["second"])


def test_an_exception_in_teardown_is_recorded(app: flask.Flask, spans: Spans) -> None:
    @app.teardown_request
    def teardown(error: Any) -> None:
        raise Oops("teardown")

    app.add_url_rule("/", view_func=lambda: "ok")
    with pytest.raises(Oops):
        app.test_client().get("/")
    assert failure(spans.server()[0])[1:] == (500, ["teardown"])


def test_an_exception_answered_below_500_is_none_of_ours(app: flask.Flask, spans: Spans) -> None:
    @app.get("/")
    def view() -> str:
        raise Handled("asked too much")

    app.register_error_handler(Handled, lambda error: ("no", 400))
    app.test_client().get("/")
    (span,) = spans.server()
    assert failure(span) == (None, 400, [])
    assert span.status.status_code is StatusCode.UNSET


def test_an_exception_that_the_program_lets_through_stays_its_own(
    app: flask.Flask, spans: Spans
) -> None:
    error = Oops("same")

    @app.get("/")
    def view() -> str:
        raise error

    app.testing = True
    with pytest.raises(Oops) as caught:
        app.test_client().get("/")
    assert caught.value is error
    assert failure(spans.server()[0])[1:] == (500, ["same"])


def test_a_stream_with_the_requests_context_has_both_contexts(
    app: flask.Flask, spans: Spans, provider: TracerProvider
) -> None:
    @app.get("/<name>")
    def view(name: str) -> flask.Response:
        def chunks() -> Iterator[str]:
            for _ in range(3):
                with provider.get_tracer("program").start_as_current_span("chunk"):
                    yield flask.request.path

        return flask.Response(flask.stream_with_context(chunks()))

    with werkzeug_server(app) as client:
        assert client.ask("/x").body == b"/x/x/x"
    (server,) = spans.server()
    parents = {span.parent and span.parent.span_id for span in spans.named("chunk", 3)}
    assert parents == {server.context.span_id}


def test_an_async_view_has_the_right_parent(
    app: flask.Flask, spans: Spans, provider: TracerProvider
) -> None:
    @app.get("/")
    async def view() -> str:
        provider.get_tracer("program").start_span("work").end()
        return "ok"

    app.test_client().get("/")
    (server,), (work,) = spans.server(), spans.named("work")
    assert work.parent is not None
    assert work.parent.span_id == server.context.span_id


def test_a_file_is_sent_whole(app: flask.Flask, spans: Spans, tmp_path: Any) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(b"x" * 100_000)
    app.add_url_rule("/", view_func=lambda: flask.send_file(file))
    with werkzeug_server(app) as client:
        assert len(client.ask("/").body) == 100_000
    (span,) = spans.server()
    assert "tracekit.abandoned" not in (span.attributes or {})


def test_an_application_called_from_a_view_has_its_own_span(app: flask.Flask, spans: Spans) -> None:
    inner = flask.Flask("inner")
    inner.add_url_rule("/inner", view_func=lambda: "inner")
    app.add_url_rule("/", view_func=lambda: inner.test_client().get("/inner").data)
    app.test_client().get("/")
    below, above = spans.server(2)
    assert (below.name, above.name) == ("GET /inner", "GET /")
    assert below.parent is not None
    assert below.parent.span_id == above.context.span_id


def test_outside_of_a_request_nothing_happens(app: flask.Flask, spans: Spans) -> None:
    app.add_url_rule("/", view_func=lambda: "ok")
    with app.test_request_context("/"), contextlib.suppress(Exception):
        app.handle_exception(Oops("by hand"))
    assert spans.all() == []
