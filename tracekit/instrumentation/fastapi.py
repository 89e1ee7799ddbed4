"""FastAPI: as Starlette, with the paths of included routers, and in place of its own tracing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tracekit.instrumentation._http_server import REQUEST_KEY, ServerRequest, ServerSettings
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet
from tracekit.instrumentation.asgi import FASTAPI_KEY, AsgiServer
from tracekit.instrumentation.starlette import ROUTING

__all__ = ["FastApiInstrumentor"]


class FastApiInstrumentor(LibraryInstrumentor):
    """Patch the class, so that applications made before are traced too, outside of all middleware.

    Options: ``excluded_urls``, ``server_request_hook``, ``server_response_hook``,
    ``capture_request_headers``, ``capture_response_headers``, ``sanitize_headers``,
    ``known_methods``, ``links``, ``traceresponse``, ``trust``.
    """

    name = "fastapi"
    distributions = ("fastapi",)
    supported = ">=0.95.2,<1"
    contrib = ("fastapi",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._server = AsgiServer(self.tracer, ServerSettings.read(self.name, options))

    def patches(self) -> Sequence[Patch]:
        return (
            Patch("fastapi.applications", "FastAPI.__call__", self._call),
            Patch("fastapi.routing", "APIRoute.handle", _route, optional=True),
            Patch("fastapi.telemetry._asgi", "NativeTelemetry.__call__", _native, optional=True),
            *ROUTING,
        )

    def _call(
        self, wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        native = getattr(instance, "_native_telemetry", None)
        if native is not None and _twin_of(native) is not None:
            wrapped = functools.partial(_with_native, wrapped)
        return self._server.run(wrapped, *args, **kwargs)


def _route(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if args:
        _name(instance, args[0])
    return wrapped(*args, **kwargs)


@quiet
def _name(route: Any, scope: Any) -> None:
    """Name the span for a route, whose path has prefixes where its router is included."""
    request: ServerRequest | None = scope.get(REQUEST_KEY)
    if request is None:
        return
    # Older versions copy the routes of an included router, each with its whole path.
    included = scope.get("fastapi", {}).get("effective_route_context")
    if included is not None and included.original_route is route:
        route = included
    request.matched(request.route_prefix + route.path_format)


# FastAPI's own telemetry gives way to ours (see asgi.py), but its metrics and logs, where somebody
# wants them, have to stay. For those a twin of it runs that is configured not to trace.
# Whether there is anything for it to do is asked at an application's first request.
_twins: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


@quiet
def _twin_of(native: Any) -> Any:
    try:
        return _twins[native]
    except KeyError:
        twin = type(native)({**native.config, "tracing": False})
        _twins[native] = twin if twin.enabled() else None
        return _twins[native]


def _with_native(wrapped: Callable[..., Any], scope: Any, receive: Any, send: Any) -> Any:
    if scope.get(FASTAPI_KEY, ()) is None and scope.get(REQUEST_KEY) is not None:
        del scope[FASTAPI_KEY]
    return wrapped(scope, receive, send)


def _native(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if kwargs.get("scope", {}).get(REQUEST_KEY) is not None:
        twin = _twins.get(instance)  # None for a twin itself
        if twin is not None:
            return twin(*args, **kwargs)
    return wrapped(*args, **kwargs)


plugin: type[LibraryInstrumentor] = FastApiInstrumentor
