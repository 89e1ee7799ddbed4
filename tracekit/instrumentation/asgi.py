"""ASGI applications: one SERVER span a request, from the call to the last byte of the body.

There is nothing to patch in an interface: wrap the application by hand in :class:`ASGIMiddleware`,
or instrument the framework it is written with. WebSockets are in _websocket.py; the lifespan
scope is not traced.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MethodType
from typing import Any

from opentelemetry import trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Tracer, TracerProvider

from tracekit import semconv
from tracekit._version import __version__
from tracekit.instrumentation._forwarded import NOT_FORWARDED, Forwarded, forwarded
from tracekit.instrumentation._http_server import (
    REQUEST_KEY,
    HttpServer,
    ServerRequest,
    ServerSettings,
    adopt_route,
    detach_request,
    name_route,
    note_exception,
)
from tracekit.instrumentation._http_server_attributes import Address, body_measures
from tracekit.instrumentation._patch import (
    InstrumentationStatus,
    LibraryInstrumentor,
    Patch,
    report,
)
from tracekit.instrumentation._traceresponse import Answer, with_answer
from tracekit.instrumentation._websocket import WebSocket

__all__ = [
    "FASTAPI_KEY",
    "ASGIMiddleware",
    "AsgiInstrumentor",
    "AsgiServer",
    "name_route",
    "note_exception",
]

Scope = Any
Message = Any
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Call = Callable[..., Awaitable[Any]]

# Recent FastAPI, and a middleware of recent Starlette, trace requests themselves. Each looks for
# its key in the scope before it does; two SERVER spans for one request are what nobody wants.
FASTAPI_KEY = "fastapi.telemetry"
_STARLETTE_KEY = "starlette.opentelemetry"

_KINDS = frozenset(("http", "websocket"))
_HOST, _AUTHORITY, _USER_AGENT = b"host", b":authority", b"user-agent"
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto")
_UNKNOWN: Address = (None, None)


@functools.lru_cache(maxsize=256)
def _header_name(key: str) -> bytes:
    return key.lower().encode("latin-1")


class _ScopeGetter(Getter[list[tuple[bytes, bytes]]]):
    """Read headers from the list of pairs that ASGI keeps, names in lower case."""

    def get(self, carrier: list[tuple[bytes, bytes]], key: str) -> list[str] | None:
        name = _header_name(key)
        found = [value.decode("latin-1") for header, value in carrier if header == name]
        return found or None

    def keys(self, carrier: list[tuple[bytes, bytes]]) -> list[str]:
        return list(dict.fromkeys(header.decode("latin-1") for header, _ in carrier))


class AsgiServer:
    """Trace the requests of ASGI applications."""

    def __init__(self, tracer: Tracer, settings: ServerSettings) -> None:
        self._server = HttpServer(tracer, settings, _ScopeGetter(), _header_name)

    def run(self, app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return what `app` returns, with a span around it where one is wanted."""
        try:
            kind = scope["type"]
            passed_on = kind not in _KINDS or REQUEST_KEY in scope
        except (KeyError, TypeError):  # of no server's: what is wrong with it is the app's to say
            return app(scope, receive, send)
        if passed_on:
            return app(scope, receive, send)
        # One or the other is seldom there, and makes no difference where it says nothing.
        if (FASTAPI_KEY in scope or _STARLETTE_KEY in scope) and _is_traced(scope):
            return app(scope, receive, send)
        try:  # and not `quiet`: one frame less for each request
            request = _start(self._server, scope)
        except Exception:
            report("the beginning of a request")
            request = None
        scope[REQUEST_KEY] = request
        scope.setdefault(FASTAPI_KEY, None)
        scope.setdefault(_STARLETTE_KEY, True)
        if request is None:
            return app(scope, receive, send)
        if scope.get("root_path"):
            request.route_prefix = _application_root(scope)
        if kind == "http":
            return _serve(app, scope, receive, send, request)
        return WebSocket(request, self._server.tracer, receive, send).serve(app, scope)

    def around(self, original: Call, owners: Sequence[object]) -> Call:
        """Return what takes the place of an application's ``__call__``; see `Replacing`.

        A coroutine function as that is: servers and frameworks ask whether it is one.
        """
        run = self.run

        async def call(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
            if owners:
                await run(MethodType(original, app), scope, receive, send)
            else:
                await original(app, scope, receive, send)

        return call


class ASGIMiddleware:
    """Trace the requests that pass through an ASGI application.

    Options are those of `instrument()`: ``excluded_urls``, ``server_request_hook``,
    ``server_response_hook``, ``capture_request_headers``, ``capture_response_headers``,
    ``sanitize_headers``, ``known_methods``, ``links``, ``traceresponse``, ``trust``.
    """

    def __init__(
        self, app: AsgiApp, *, tracer_provider: TracerProvider | None = None, **options: Any
    ) -> None:
        self.app = app
        tracer = trace.get_tracer(
            "tracekit.instrumentation.asgi",
            __version__,
            tracer_provider,
            schema_url=semconv.SCHEMA_URL,
        )
        self._server = AsgiServer(tracer, ServerSettings.read("asgi", options))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._server.run(self.app, scope, receive, send)


async def _serve(
    app: AsgiApp, scope: Scope, receive: Receive, send: Send, request: ServerRequest
) -> None:
    response = _Response(request, scope, send)
    # There is nothing to note of a request that is not recorded; its context matters all the same.
    is_recorded = request.span.is_recording()
    tokens = request.attach()
    try:
        await app(scope, receive, response.send if is_recorded else send)
    except BaseException as exception:
        response.broke_off(exception)
        raise
    finally:
        response.is_over()
        detach_request(tokens)


class _Response:
    """What the application sends for one request; the span ends behind the last of it."""

    __slots__ = (
        "_bytes",
        "_chunks",
        "_first_ns",
        "_has_trailers",
        "_is_gone",
        "_request",
        "_scope",
        "_send",
    )

    def __init__(self, request: ServerRequest, scope: Scope, send: Send) -> None:
        self._request = request
        self._scope = scope
        self._send = send
        self._chunks = 0
        self._bytes = 0
        self._first_ns = 0
        self._has_trailers = False
        self._is_gone = False

    async def send(self, message: Message) -> None:
        """Pass any message on, unknown ones and extensions too, and note what was sent."""
        try:
            kind = message.get("type")
        except AttributeError:  # it is no message: the server says so
            kind = ""
        if kind == "http.response.start":
            message = self._started(message)
        try:
            await self._send(message)
        except (
            OSError
        ):  # https://asgi.readthedocs.io/en/latest/specs/www.html#disconnect-receive-event
            self._is_gone = True
            raise
        try:
            if kind == "http.response.body":
                self._sent(message)
            elif kind != "http.response.start" and _is_last(kind, message, self._has_trailers):
                self._request.end(self._measures())
        except Exception:
            report("what is noted of a response")

    def broke_off(self, exception: BaseException) -> None:
        """Tell a failure of the application from a client that went away."""
        if self._request.is_ended:
            return  # it failed in what it does behind the response
        if not (self._is_gone and isinstance(exception, OSError)) and not _is_departure(exception):
            self._request.fail(exception)
        else:
            self._is_gone = True

    def is_over(self) -> None:
        """End a span whose response never came to its end."""
        request = self._request
        if request.is_ended:
            return
        if request.failed:
            request.end(self._measures())
        else:
            request.abandon(self._measures())

    def _started(self, message: Message) -> Message:
        """Note what the response starts with; return the message to send."""
        self._has_trailers = bool(message.get("trailers"))
        request = self._request
        try:  # and not `quiet`: one frame less for each request
            if not request.route:
                adopt_route(request, self._scope)
            told = request.responded(message["status"], message.get("headers", ()))
            return _answered(message, told) if told else message
        except Exception:
            report("the reading of a response")
            return message

    def _sent(self, message: Message) -> None:
        body = message.get("body")
        is_last = not message.get("more_body") and not self._has_trailers
        if body is not None and (size := len(body)):  # many send an empty part at the end
            if not self._chunks and not is_last:
                self._first_ns = self._request.elapsed_ns()
            self._chunks += 1
            self._bytes += size
        if is_last:
            self._request.end(self._measures() if self._chunks > 1 else None)

    def _measures(self) -> dict[str, Any] | None:
        return body_measures(self._chunks, self._bytes, self._first_ns)


def _is_last(kind: str, message: Message, has_trailers: bool) -> bool:
    """Say whether an extension's message completes the response.

    https://asgi.readthedocs.io/en/latest/extensions.html
    """
    if kind == "http.response.trailers":
        return not message.get("more_trailers")
    if kind == "http.response.zerocopysend":
        return not message.get("more_body") and not has_trailers
    return kind == "http.response.pathsend" and not has_trailers


def _is_departure(exception: BaseException) -> bool:
    """Say whether an exception only tells that the client is gone or the server stops.

    By name: asyncio and trio are not to be imported for it, nor is Starlette.
    """
    name = type(exception).__name__
    if isinstance(exception, Exception):
        return name in ("ClientDisconnect", "ClientDisconnected")
    return name in ("CancelledError", "Cancelled", "GeneratorExit")


def _is_traced(scope: Scope) -> bool:
    """Say whether the framework traces this request itself, around us."""
    native = scope.get(FASTAPI_KEY)
    return getattr(native, "span", None) is not None or bool(scope.get(_STARLETTE_KEY))


def _application_root(scope: Scope) -> str:
    """Return the part of the path in front of the application, which belongs to its routes."""
    root: str = scope["root_path"]
    return root.rstrip("/") if scope["path"].startswith(root) else ""


def _answered(message: Message, told: Answer) -> Message:
    """Return the message with more headers; its own list may be the program's for all requests."""
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told]
    return {**message, "headers": with_answer(message.get("headers", ()), pairs)}


def _start(server: HttpServer, scope: Scope) -> ServerRequest | None:
    carrier = scope.get("headers", ())
    # In one go for all that is asked for; the first of several headers counts.
    headers: dict[bytes, bytes] = dict(reversed([*carrier]))
    peer, own = scope.get("client"), scope.get("server")
    is_websocket = scope["type"] == "websocket"
    host, user_agent = headers.get(_AUTHORITY) or headers.get(_HOST), headers.get(_USER_AGENT)
    return server.start(
        scope,
        carrier,
        headers,
        # The handshake of a WebSocket is a GET; over HTTP/2 it is a CONNECT, which ASGI hides.
        "GET" if is_websocket else scope["method"],
        scope.get("scheme") or ("ws" if is_websocket else "http"),
        scope["path"],
        scope.get("query_string", b"").decode("latin-1"),
        scope.get("http_version"),
        (peer[0], peer[1]) if peer else _UNKNOWN,
        (own[0], own[1]) if own else _UNKNOWN,
        None if host is None else host.decode("latin-1"),
        None if user_agent is None else user_agent.decode("latin-1"),
        NOT_FORWARDED if headers.keys().isdisjoint(_FORWARDED) else _forwarded(headers),
    )


def _forwarded(headers: Mapping[bytes, bytes]) -> Forwarded:
    said = [headers[name].decode("latin-1") if name in headers else None for name in _FORWARDED]
    standard, x_for, x_host, x_proto = said
    return forwarded(standard, x_for, x_host, x_proto)


class AsgiInstrumentor(LibraryInstrumentor):
    """Have nothing to patch: ASGI applications are wrapped by hand or through their framework."""

    name = "asgi"
    contrib = ("asgi",)

    def patches(self) -> Sequence[Patch]:
        return ()

    @property
    def status(self) -> InstrumentationStatus:
        reason = f"nothing to patch: wrap applications in {__name__}.{ASGIMiddleware.__name__}"
        return InstrumentationStatus(self.name, None, self.supported, False, reason)


plugin: type[LibraryInstrumentor] = AsgiInstrumentor
