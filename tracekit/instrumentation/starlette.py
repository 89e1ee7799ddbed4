"""Starlette: SERVER spans named for the whole route template, background tasks in their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span

from tracekit import semconv
from tracekit.instrumentation._http import record_failure
from tracekit.instrumentation._http_server import (
    REQUEST_KEY,
    ServerRequest,
    ServerSettings,
    current_request,
    detach_request,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation.asgi import AsgiServer

__all__ = ["ROUTING", "StarletteInstrumentor", "name_for"]

Call = Callable[..., Awaitable[Any]]


class StarletteInstrumentor(ReplacingInstrumentor):
    """Patch the class, so that applications made before are traced too, outside of all middleware.

    Options: ``excluded_urls``, ``server_request_hook``, ``server_response_hook``,
    ``capture_request_headers``, ``capture_response_headers``, ``sanitize_headers``,
    ``known_methods``, ``links``, ``traceresponse``, ``trust``.
    """

    name = "starlette"
    distributions = ("starlette",)
    supported = ">=0.27,<2"
    contrib = ("starlette",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._server = AsgiServer(self.tracer, ServerSettings.read(self.name, options))

    def patches(self) -> Sequence[Replacing]:
        call = Replacing("starlette.applications", "Starlette.__call__", self._server.around)
        return (call, *ROUTING)


# What a route does is the library's own coroutine: there is nothing to do behind it.
def _route(original: Call, owners: Sequence[object]) -> Call:
    def handle(route: Any, scope: Any, receive: Any, send: Any) -> Awaitable[Any]:
        if owners:
            name_for(route, scope)
        return original(route, scope, receive, send)

    return handle


def _mount(original: Call, owners: Sequence[object]) -> Call:
    def handle(mount: Any, scope: Any, receive: Any, send: Any) -> Awaitable[Any]:
        request = name_for(mount, scope) if owners else None
        if request is not None:
            # The mounted application adds its own routes; one that has none keeps this one.
            request.route_prefix += mount.path_format.removesuffix("/{path}")
        return original(mount, scope, receive, send)

    return handle


def name_for(route: Any, scope: Any) -> ServerRequest | None:
    """Name the span of a request for the route that is to serve it."""
    try:  # and not `quiet`: one frame less for each request
        request: ServerRequest | None = scope.get(REQUEST_KEY)
        if request is not None:
            request.matched(request.route_prefix + route.path_format)
    except Exception:
        report("the name of a route")
        return None
    return request


def _look_up(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    def look_up(holder: Any, exc: Any) -> Any:
        """Note the exception that a handler is looked for, and found.

        An unhandled one comes by later. BaseHTTPMiddleware runs what it wraps in another task,
        where the exception is handled; out here, where the response comes by, there is only the
        response.
        """
        found = original(holder, exc)
        request = current_request() if owners else None
        if found is not None and request is not None:
            request.suspect = exc
        return found

    return look_up


def _run_in_background(original: Call, owners: Sequence[object]) -> Call:
    async def run(task: Any) -> Any:
        request = current_request() if owners else None
        span = None if request is None else _start_background(request, task)
        if request is None or span is None:
            return await original(task)
        return await _background(original(task), request, span)

    return run


@quiet
def _start_background(request: ServerRequest, task: Any) -> Span:
    function = task.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", None)
    return request.tracer.start_span(
        f"background {name.rpartition('.')[2]}",
        attributes={semconv.CODE_FUNCTION_NAME: f"{module}.{name}" if module else name},
    )


async def _background(task: Awaitable[Any], request: ServerRequest, span: Span) -> Any:
    """Time a task that runs behind the response in a span of its own.

    A child of the SERVER span although that has ended: it stays in the trace of the request that
    caused it, and a link to its own parent would say nothing more.
    """
    tokens = request.attach(trace.set_span_in_context(span))
    try:
        return await task
    except Exception as exception:
        record_failure(span, exception)
        raise
    finally:
        detach_request(tokens)
        span.end()


ROUTING = (
    Replacing("starlette.routing", "Route.handle", _route),
    Replacing("starlette.routing", "WebSocketRoute.handle", _route),
    Replacing("starlette.routing", "Mount.handle", _mount),
    Replacing("starlette.background", "BackgroundTask.__call__", _run_in_background),
    Replacing("starlette._exception_handler", "_lookup_exception_handler", _look_up, optional=True),
    # Where versions before 0.28 have it.
    Replacing(
        "starlette.middleware.exceptions",
        "ExceptionMiddleware._lookup_exception_handler",
        _look_up,
        optional=True,
    ),
)
"""What follows a request inside of Starlette and of whatever is built on it."""

plugin: type[LibraryInstrumentor] = StarletteInstrumentor
