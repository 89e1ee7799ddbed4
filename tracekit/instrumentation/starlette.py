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
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet
from tracekit.instrumentation.asgi import AsgiServer

__all__ = ["ROUTING", "StarletteInstrumentor"]


class StarletteInstrumentor(LibraryInstrumentor):
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

    def patches(self) -> Sequence[Patch]:
        return (Patch("starlette.applications", "Starlette.__call__", self._call), *ROUTING)

    def _call(
        self, wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return self._server.run(wrapped, *args, **kwargs)


def _route(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if args:
        _name(instance, args[0])
    return wrapped(*args, **kwargs)


def _mount(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if args:
        request = _name(instance, args[0])
        if request is not None:
            # The mounted application adds its own routes; one that has none keeps this one.
            request.route_prefix += instance.path_format.removesuffix("/{path}")
    return wrapped(*args, **kwargs)


@quiet
def _name(route: Any, scope: Any) -> ServerRequest | None:
    request: ServerRequest | None = scope.get(REQUEST_KEY)
    if request is not None:
        request.matched(request.route_prefix + route.path_format)
    return request


def _look_up(
    wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Note the exception that a handler is looked for, and found.

    An unhandled one comes by later. BaseHTTPMiddleware runs what it wraps in another task, where
    the exception is handled; out here, where the response comes by, there is only the response.
    """
    found = wrapped(*args, **kwargs)
    request = current_request()
    if found is not None and request is not None and args:
        request.suspect = args[-1]
    return found


def _run_in_background(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[Any]:
    request = current_request()
    span = None if request is None else _start_background(request, instance)
    if request is None or span is None:
        return wrapped(*args, **kwargs)  # type: ignore[no-any-return]
    return _background(wrapped(*args, **kwargs), request, span)


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
    Patch("starlette.routing", "Route.handle", _route),
    Patch("starlette.routing", "WebSocketRoute.handle", _route),
    Patch("starlette.routing", "Mount.handle", _mount),
    Patch("starlette.background", "BackgroundTask.__call__", _run_in_background),
    Patch("starlette._exception_handler", "_lookup_exception_handler", _look_up, optional=True),
    # Where versions before 0.28 have it.
    Patch(
        "starlette.middleware.exceptions",
        "ExceptionMiddleware._lookup_exception_handler",
        _look_up,
        optional=True,
    ),
)
"""What follows a request inside of Starlette and of whatever is built on it."""

plugin: type[LibraryInstrumentor] = StarletteInstrumentor
