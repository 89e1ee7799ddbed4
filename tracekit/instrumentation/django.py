"""Django: SERVER spans around all middleware, named for the whole route, sync and async.

Statements of its databases are spans too (:mod:`_django_db`).

The seam is the handler that a server calls, not an entry in ``MIDDLEWARE``: it is outside of every
middleware whatever the settings say and whenever they are read, handlers made before are traced
too, and it sees the response's last byte where a middleware sees its first.

Django turns exceptions into responses around each middleware. By the time that a response comes
by out here nothing is being handled any more, so an exception is noted where it is turned.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

from tracekit.instrumentation._db import OPTIONS, DatabaseSettings
from tracekit.instrumentation._django_db import database_patches
from tracekit.instrumentation._http_server import (
    REQUEST_KEY,
    ServerRequest,
    ServerSettings,
    current_request,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation.asgi import AsgiServer
from tracekit.instrumentation.wsgi import WsgiServer

__all__ = ["DjangoInstrumentor"]

Call = Callable[..., Any]


class DjangoInstrumentor(ReplacingInstrumentor):
    """Watch Django behind WSGI, behind ASGI and below its test clients; settings stay as they are.

    Options: ``excluded_urls``, ``server_request_hook``, ``server_response_hook``,
    ``capture_request_headers``, ``capture_response_headers``, ``sanitize_headers``,
    ``known_methods``, ``links``, ``traceresponse``, ``trust``; of its databases those of
    :meth:`DatabaseSettings.read`. Hooks are given the environ or the scope.
    """

    name = "django"
    distributions = ("django",)
    supported = ">=3.2,<7"
    contrib = ("django",)

    def configure(self, options: Mapping[str, Any]) -> None:
        of_database = {name: options[name] for name in OPTIONS & options.keys()}
        self._database = DatabaseSettings.read(**of_database)
        others = {name: value for name, value in options.items() if name not in OPTIONS}
        settings = ServerSettings.read(self.name, others)
        self._wsgi = WsgiServer(self.tracer, settings, _is_whole)
        self._asgi = AsgiServer(self.tracer, settings)

    def patches(self) -> Sequence[Replacing]:
        base, client = "django.core.handlers.base", "django.test.client"
        return (
            Replacing("django.core.handlers.wsgi", "WSGIHandler.__call__", self._serve_wsgi),
            Replacing("django.core.handlers.asgi", "ASGIHandler.__call__", self._asgi.around),
            Replacing(client, "ClientHandler.__call__", self._serve_client),
            Replacing(client, "AsyncClientHandler.__call__", self._serve_async_client),
            Replacing(base, "BaseHandler.resolve_request", _resolve),
            Replacing(base, "BaseHandler.process_exception_by_middleware", _process_exception),
            Replacing("django.core.handlers.exception", "response_for_exception", _answer),
            # What REST framework answers itself does not come by any of Django's.
            Replacing("rest_framework.views", "APIView.handle_exception", _answer, optional=True),
            *database_patches(self.tracer, self._database),
        )

    def _serve_wsgi(self, original: Call, owners: Sequence[object]) -> Call:
        def call(handler: Any, environ: Any, start_response: Any) -> Any:
            if not owners:
                return original(handler, environ, start_response)
            return self._wsgi.run(MethodType(original, handler), environ, start_response)

        return call

    def _serve_client(self, original: Call, owners: Sequence[object]) -> Call:
        def call(handler: Any, environ: Any) -> Any:
            if not owners:
                return original(handler, environ)
            answered: list[Any] = []

            def app(environ: Any, start_response: Any) -> Any:
                response = original(handler, environ)
                answered.append(response)
                start_response(f"{response.status_code} ", list(response.items()))
                return response.streaming_content if _is_sync_stream(response) else ()

            body = self._wsgi.run(app, environ, _no_server)
            if _is_sync_stream(answered[0]):
                answered[0].streaming_content = body
            return answered[0]

        return call

    def _serve_async_client(self, original: Call, owners: Sequence[object]) -> Call:
        async def call(handler: Any, scope: Any) -> Any:
            if not owners:
                return await original(handler, scope)
            answered: list[Any] = []
            query = scope.get("query_string", b"")
            if isinstance(query, str):  # no server would
                scope = {**scope, "query_string": query.encode("latin-1", "replace")}

            async def app(scope: Any, _: Any, send: Any) -> None:
                response = await original(handler, scope)
                answered.append(response)
                await send(_start_of(response))
                await send({"type": "http.response.body"})

            await self._asgi.run(app, scope, _nobody, _nobody)
            return answered[0]

        return call


def _is_whole(response: Any) -> bool:
    return getattr(response, "streaming", None) is False


def _is_sync_stream(response: Any) -> bool:
    return response.streaming and not getattr(response, "is_async", False)


def _start_of(response: Any) -> Mapping[str, Any]:
    headers = [(str(name).encode(), str(value).encode()) for name, value in response.items()]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


def _no_server(*_: Any) -> Callable[[bytes], None]:
    return lambda _: None


async def _nobody(*_: Any) -> Any:
    """Stand where a server would receive and send; below a test client there is none."""


def _resolve(original: Call, owners: Sequence[object]) -> Call:
    def resolve_request(handler: Any, request: Any) -> Any:
        match = original(handler, request)
        if owners:
            try:  # and not `quiet`: one frame less for each request
                _name(request, match)
            except Exception:
                report("the name of a route")
        return match

    return resolve_request


def _name(django_request: Any, match: Any) -> None:
    source = getattr(django_request, "scope", None) or django_request.META
    request: ServerRequest | None = source.get(REQUEST_KEY)
    if request is not None:
        # Where the application is mounted belongs to the route.
        prefix = django_request.META.get("SCRIPT_NAME", "").rstrip("/")
        request.matched(prefix + _template(match.route))


@functools.lru_cache(maxsize=1024)
def _template(route: str) -> str:
    """Return a route without the anchors that each ``re_path`` and router brings along.

    ``^api/^items/(?P<pk>[^/.]+)/$`` is ``/api/items/(?P<pk>[^/.]+)/``.
    """
    return "/" + re.sub(r"(?<![\[\\])\^|(?<!\\)\$$|\\[zZ]$", "", route).removeprefix("/")


def _process_exception(original: Call, owners: Sequence[object]) -> Call:
    def process_exception_by_middleware(handler: Any, exception: Any, request: Any) -> Any:
        if owners:
            _suspect(exception)
        return original(handler, exception, request)

    return process_exception_by_middleware


def _answer(original: Call, owners: Sequence[object]) -> Call:
    def answer(*args: Any, **kwargs: Any) -> Any:
        if owners and args:
            _suspect(args[-1])
        return original(*args, **kwargs)

    return answer


def _suspect(exception: Any) -> None:
    request = current_request()
    if request is not None:
        request.suspect = exception


plugin: type[LibraryInstrumentor] = DjangoInstrumentor
