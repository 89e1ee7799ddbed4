"""FastAPI: as Starlette, with the paths of included routers, and in place of its own tracing."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

from tracekit.instrumentation._http_server import REQUEST_KEY, ServerSettings
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation.asgi import FASTAPI_KEY, AsgiServer
from tracekit.instrumentation.starlette import ROUTING, name_for

__all__ = ["FastApiInstrumentor"]

Call = Callable[..., Awaitable[Any]]


class FastApiInstrumentor(ReplacingInstrumentor):
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

    def patches(self) -> Sequence[Replacing]:
        telemetry = "fastapi.telemetry._asgi"
        return (
            Replacing("fastapi.applications", "FastAPI.__call__", self._call),
            Replacing("fastapi.routing", "APIRoute.handle", _route, optional=True),
            Replacing(telemetry, "NativeTelemetry.__call__", _native, optional=True),
            *ROUTING,
        )

    def _call(self, original: Call, owners: Sequence[object]) -> Call:
        run = self._server.run

        # As :meth:`AsgiServer.around`.
        async def call(app: Any, scope: Any, receive: Any, send: Any) -> None:
            if not owners:
                await original(app, scope, receive, send)
                return
            serve: Any = MethodType(original, app)
            native = getattr(app, "_native_telemetry", None)
            if native is not None and _twin_of(native) is not None:
                serve = functools.partial(_with_native, serve)
            await run(serve, scope, receive, send)

        return call


def _route(original: Call, owners: Sequence[object]) -> Call:
    def handle(route: Any, scope: Any, receive: Any, send: Any) -> Awaitable[Any]:
        if owners:
            name_for(_effective(route, scope), scope)
        return original(route, scope, receive, send)

    return handle


def _effective(route: Any, scope: Any) -> Any:
    """Return what has the path of a route with the prefixes of the routers it is included in."""
    try:
        # Older versions copy the routes of an included router, each with its whole path.
        included = scope.get("fastapi", {}).get("effective_route_context")
        if included is not None and included.original_route is route:
            return included
    except Exception:
        report("the path of a route")
    return route


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


def _with_native(serve: Call, scope: Any, receive: Any, send: Any) -> Awaitable[Any]:
    if scope.get(FASTAPI_KEY, ()) is None and scope.get(REQUEST_KEY) is not None:
        del scope[FASTAPI_KEY]
    return serve(scope, receive, send)


def _native(original: Call, owners: Sequence[object]) -> Call:
    async def call(native: Any, *args: Any, **kwargs: Any) -> Any:
        if owners and kwargs.get("scope", {}).get(REQUEST_KEY) is not None:
            twin = _twins.get(native)  # None for a twin itself
            if twin is not None:
                return await twin(*args, **kwargs)
        return await original(native, *args, **kwargs)

    return call


plugin: type[LibraryInstrumentor] = FastApiInstrumentor
