"""The steps of one HTTP server request, the same for WSGI and ASGI.

1. Excluded or suppressed? Then the program runs as if we were not there.
2. Extract the remote context from the request's headers.
3. Start the SERVER span, with everything that a sampler may ask for.
4. Run the program with the span current; note route, status and exceptions as they come by.
5. End the span when the last byte of the body is sent, or nobody waits for it any more.

An adapter (wsgi.py, asgi.py) says where its interface keeps method, path, headers and status,
and knows when the body has ended.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer

from tracekit import semconv
from tracekit._otel_context import OnlySpan, attach, current_context, detach, with_span
from tracekit._url_secrets import redact_query
from tracekit.instrumentation._forwarded import NOT_FORWARDED, Forwarded, split_authority
from tracekit.instrumentation._http import (
    HttpSettings,
    is_suppressed,
    record_failure,
    truncated,
)
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._traceresponse import ALWAYS, NEVER, Answer, answer
from tracekit.instrumentation._trust import Trust, caller_of, trust_of

__all__ = [
    "REQUEST_KEY",
    "Headers",
    "HttpServer",
    "Incoming",
    "ServerRequest",
    "ServerSettings",
    "adopt_route",
    "body_measures",
    "current_request",
    "name_route",
    "note_exception",
]

# Under this key the scope or environ of a request holds its ServerRequest, or None where it was
# decided not to trace it. Whatever is mounted or wrapped inside finds the decision made.
REQUEST_KEY = "tracekit.server_request"

BODY_BYTES = "tracekit.response.body_bytes"
BODY_CHUNKS = "tracekit.response.body_chunks"
FIRST_BYTE = "tracekit.response.first_byte_s"  # from the start of the span
ABANDONED = "tracekit.abandoned"  # the response was not sent to its end

# One lookup less each on the path of a request.
CLIENT_ADDRESS = semconv.CLIENT_ADDRESS
HTTP_REQUEST_METHOD = semconv.HTTP_REQUEST_METHOD
HTTP_RESPONSE_STATUS_CODE = semconv.HTTP_RESPONSE_STATUS_CODE
HTTP_ROUTE = semconv.HTTP_ROUTE
NETWORK_PEER_ADDRESS = semconv.NETWORK_PEER_ADDRESS
NETWORK_PEER_PORT = semconv.NETWORK_PEER_PORT
NETWORK_PROTOCOL_VERSION = semconv.NETWORK_PROTOCOL_VERSION
SERVER_ADDRESS = semconv.SERVER_ADDRESS
SERVER_PORT = semconv.SERVER_PORT
URL_PATH = semconv.URL_PATH
URL_QUERY = semconv.URL_QUERY
URL_SCHEME = semconv.URL_SCHEME
USER_AGENT_ORIGINAL = semconv.USER_AGENT_ORIGINAL

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LONGEST_VALUE = 4096
_LONGEST_ADDRESS = 300

_OLD_NAMES = {
    semconv.HTTP_REQUEST_METHOD: semconv.OLD_HTTP_METHOD,
    semconv.URL_SCHEME: semconv.OLD_HTTP_SCHEME,
    semconv.SERVER_ADDRESS: semconv.OLD_NET_HOST_NAME,
    semconv.SERVER_PORT: semconv.OLD_NET_HOST_PORT,
    semconv.CLIENT_ADDRESS: semconv.OLD_HTTP_CLIENT_IP,
    semconv.NETWORK_PEER_ADDRESS: semconv.OLD_NET_PEER_IP,
    semconv.NETWORK_PEER_PORT: semconv.OLD_NET_PEER_PORT,
    semconv.NETWORK_PROTOCOL_VERSION: semconv.OLD_HTTP_FLAVOR,
    semconv.USER_AGENT_ORIGINAL: semconv.OLD_HTTP_USER_AGENT,
    semconv.HTTP_RESPONSE_STATUS_CODE: semconv.OLD_HTTP_STATUS_CODE,
}

Headers = Iterable[tuple["str | bytes", "str | bytes"]]


class Incoming(NamedTuple):
    """What a request says of itself before the program has seen it.

    Attributes:
        source: The scope or environ, for the propagators' getter and for hooks.
        own: Host and port that the server listens on, for requests without a Host.
    """

    source: Any
    carrier: Any
    method: str
    scheme: str
    path: str
    query: str
    version: str | None
    peer: tuple[str | None, int | None]
    own: tuple[str | None, int | None]
    host: str | None
    user_agent: str | None
    forwarded: Forwarded = NOT_FORWARDED


@dataclass(frozen=True)
class ServerSettings(HttpSettings):
    """What was configured for one server library.

    Attributes:
        server_request_hook: Called with the span and the scope or environ, right after start.
        server_response_hook: Called with the span, the status code and the headers.
        links: Returns the links of a span from the extracted context, such as one to a remote
            parent that was not trusted.
        trust: Whose context is continued; everybody's, where there is none.
    """

    server_request_hook: Callable[[Span, Any], None] | None = None
    server_response_hook: Callable[[Span, int, Any], None] | None = None
    links: Callable[[Context], Sequence[Link]] | None = None
    trust: Trust | None = None

    @classmethod
    def read(cls, library: str, options: Mapping[str, Any]) -> ServerSettings:
        """Read the environment of the process, overridden by `options`."""
        others = {**options}
        trust = trust_of(others.pop("trust", None), os.environ)
        return cls.from_environment(library, os.environ, "SERVER", trust=trust, **others)


_current: ContextVar[ServerRequest | None] = ContextVar("tracekit.server_request", default=None)


def current_request() -> ServerRequest | None:
    """Return the traced request that this code serves, also in its tasks and worker threads."""
    return _current.get()


def name_route(route: str) -> None:
    """Name the SERVER span of the current request for the template of its route.

    For a framework whose applications are wrapped by hand: call it with what the framework says
    of a request that was routed, such as ``/items/{id}``. Does nothing outside of a request that
    is traced, and never raises.
    """
    request = current_request()
    if request is not None:
        _name(request, route)


def note_exception(exception: BaseException) -> None:
    """Tell of an exception that a framework is about to answer; it counts if the answer is a 5xx.

    For a framework that sends its answer when the exception is not being handled any more.
    """
    request = current_request()
    if request is not None:
        request.suspect = exception


# Where frameworks that are wrapped by hand leave what matched: Litestar its template, Bottle a
# route that has one.
_LITESTAR_ROUTE, _BOTTLE_ROUTE = "path_template", "bottle.route"


@quiet
def adopt_route(request: ServerRequest, source: Mapping[str, Any]) -> None:
    """Name the span for the route that a framework left in its scope or environ, if one did."""
    route = source.get(_LITESTAR_ROUTE) or getattr(source.get(_BOTTLE_ROUTE), "rule", None)
    if route:
        request.matched(request.route_prefix + route)


@quiet
def _name(request: ServerRequest, route: str) -> None:
    request.matched(request.route_prefix + route)


class ServerRequest:
    """One request in flight and its SERVER span.

    What is called while the program goes on, `matched` and `responded`, lets the errors of a
    provider or a hook through: call them from steps that are quiet.
    Concurrency: one request is served by one task or thread after the other; ending it twice,
    from whatever thread, is harmless.
    """

    __slots__ = (
        "_handled_before",
        "_settings",
        "_started_ns",
        "body_length",
        "context",
        "failed",
        "is_ended",
        "method",
        "route",
        "route_prefix",
        "span",
        "status",
        "suspect",
        "tracer",
    )

    def __init__(
        self, span: Span, context: Context, method: str, tracer: Tracer, settings: ServerSettings
    ) -> None:
        self.span = span
        self.context = context
        self.method = method
        self.tracer = tracer
        self.route: str | None = None
        self.route_prefix = ""
        self.status = 0
        self.body_length = sys.maxsize  # no more bytes than this will follow the headers
        self.failed = False
        self.is_ended = False
        # An exception that the framework answers itself; it counts if the answer is a 5xx.
        self.suspect: BaseException | None = None
        self._settings = settings
        self._started_ns = time.perf_counter_ns()
        self._handled_before = id(sys.exc_info()[1])

    def attach(self, context: Context | None = None) -> tuple[Token[Any], Token[Any]]:
        """Make the request and its span current; give the result to :meth:`detach`."""
        return _current.set(self), attach(context or self.context)

    @staticmethod
    def detach(tokens: tuple[Token[Any], Token[Any]]) -> None:
        """Restore what was current before, if this is where it was attached.

        A coroutine that nobody finished is closed by the garbage collector wherever that runs.
        There is nothing to restore in such a place, and OpenTelemetry would log an error.
        """
        try:
            _current.reset(tokens[0])
        except ValueError:
            return
        detach(tokens[1])

    def matched(self, route: str) -> None:
        """Name the span for the template of the route that serves the request."""
        if route and route != self.route and not self.is_ended:
            self.route = route
            self.span.set_attribute(HTTP_ROUTE, route)
            self.span.update_name(f"{self.method} {route}")

    def responded(self, status: int, headers: Headers) -> Answer:
        """Note the status line, while the exception that it answers is still being handled.

        Returns:
            Headers to add, which tell the caller what is decided about the trace.
        """
        self.status = status
        if status >= 500:
            self._blame(status)
        self.suspect = None
        settings = self._settings
        if settings.response_headers is not None:
            self.span.set_attributes(settings.response_headers.attributes(headers))
        if settings.server_response_hook is not None:
            settings.server_response_hook(self.span, status, headers)
        # Asked here, not there: nearly all requests need no more.
        if getattr(self.span, "kept", None) is None and settings.traceresponse != ALWAYS:
            return ()
        return self.answer(status)

    def answer(self, status: int) -> Answer:
        """Return the headers that tell the caller what is decided about the trace."""
        span, mode = self.span, self._settings.traceresponse
        kept = getattr(span, "kept", None)
        if mode == NEVER or (kept is None and mode != ALWAYS):
            return ()
        if kept is False and status >= 500:
            # Otherwise written at the end of the span, which is too late for the headers.
            span.set_status(Status(StatusCode.ERROR))
            kept = getattr(span, "kept", None)
        return answer(span, kept, mode)

    def fail(self, exception: BaseException) -> None:
        """Record an exception that nobody answered; the first one is closest to the cause."""
        if not self.failed and not self.is_ended:
            exception = _sole(exception)
            self.failed = True
            self.status = self.status or 500  # what every server answers to it
            record_failure(self.span, exception)

    def abandon(self, attributes: Mapping[str, Any] | None = None) -> None:
        """End the span of a response that nobody waits for any more."""
        # The body of an answer to HEAD is not meant to be sent.
        self.end(attributes if self.method == "HEAD" else {**(attributes or {}), ABANDONED: True})

    @quiet
    def end(self, attributes: Mapping[str, Any] | None = None) -> None:
        """End the span, once."""
        if self.is_ended:
            return
        self.is_ended = True
        try:
            self._write_outcome(attributes)
        finally:
            self.suspect = None
            self.span.end()

    def elapsed_ns(self) -> int:
        return time.perf_counter_ns() - self._started_ns

    def _blame(self, status: int) -> None:
        # Error middleware answers from within its `except` block: the exception is at hand there
        # and, once the body is sent, too late. One that was being handled before the request
        # came in (by a program that calls the application itself) has no part in this.
        exception = self.suspect or sys.exc_info()[1]
        if (
            exception is not None
            and id(exception) != self._handled_before
            and not _is_answer(exception, status)
        ):
            self.fail(exception)

    def _write_outcome(self, attributes: Mapping[str, Any] | None) -> None:
        span, status = self.span, self.status
        if status:
            span.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
            if self._settings.writes_old_names:
                span.set_attribute(semconv.OLD_HTTP_STATUS_CODE, status)
        if status >= 500 and not self.failed:
            span.set_attribute(semconv.ERROR_TYPE, str(status))
            span.set_status(Status(StatusCode.ERROR))
        if attributes:
            span.set_attributes(attributes)


class HttpServer:
    """Start the SERVER spans of one library."""

    def __init__(self, tracer: Tracer, settings: ServerSettings, getter: Getter[Any]) -> None:
        self.tracer = tracer
        self.settings = settings
        self._getter = getter
        self._extract: Callable[..., Context] | None = None

    def start(self, incoming: Incoming) -> ServerRequest | None:
        """Start the span of a request, or return None if it is not to be traced."""
        settings = self.settings
        around = current_context()
        if is_suppressed(around) or (
            settings.excluded_urls is not None and settings.is_excluded(_url(incoming))
        ):
            return None
        context = self._remote_context(incoming, around)
        method, original = incoming.method, None
        if method not in settings.known_methods:
            method, original = settings.method(method)
        attributes = _attributes(incoming, method)
        if original is not None:
            attributes[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = original
        if settings.request_headers is not None:
            pairs = self._headers(incoming)
            attributes.update(settings.request_headers.attributes(pairs))
        if settings.writes_old_names:
            attributes.update(_old_names(incoming, attributes))
        links = None if settings.links is None else settings.links(context)
        # There is nothing to judge where nothing was sent, and in a context of a span only, which
        # no policy has touched, nothing to find.
        if context is not around and (settings.trust is not None or type(context) is not OnlySpan):
            context, more = caller_of(
                settings.trust, context, around, attributes, incoming.carrier, self._getter
            )
            links = (*(links or ()), *more)
        name = "HTTP" if method == semconv.METHOD_OTHER else method
        span = self.tracer.start_span(name, context, SpanKind.SERVER, attributes, links)
        request = ServerRequest(span, with_span(context, span), name, self.tracer, settings)
        if settings.server_request_hook is not None:
            _call_hook(settings.server_request_hook, span, incoming.source)
        return request

    def _remote_context(self, incoming: Incoming, around: Context) -> Context:
        extract = self._extract
        if extract is None:
            # Importing it reads OTEL_PROPAGATORS and scans entry points.
            from opentelemetry import propagate

            extract = self._extract = propagate.extract
        try:
            return extract(incoming.carrier, around, self._getter)
        except Exception:  # of a propagator: a request without a remote parent is still a request
            return around

    def _headers(self, incoming: Incoming) -> Headers:
        getter, carrier = self._getter, incoming.carrier
        return [
            (name, value)
            for name in getter.keys(carrier)
            for value in getter.get(carrier, name) or ()
        ]


@quiet
def _call_hook(hook: Callable[[Span, Any], None], span: Span, source: Any) -> None:
    hook(span, source)


def _attributes(incoming: Incoming, method: str) -> dict[str, Any]:
    """Return what is known before the program runs, so that samplers can decide on it."""
    _, _, _, scheme, path, query, version, peer, own, host, user_agent, proxied = incoming
    if proxied.scheme is not None:
        scheme = proxied.scheme
    attributes: dict[str, Any] = {
        HTTP_REQUEST_METHOD: method,
        URL_SCHEME: scheme,
        URL_PATH: path if len(path) <= _LONGEST_VALUE else truncated(path, _LONGEST_VALUE),
    }
    if query:
        attributes[URL_QUERY] = redact_query(query)
    address, port = split_authority(proxied.host or host or "")
    if address is None:
        address, port = own
    elif port is None:
        port = _DEFAULT_PORTS.get(scheme)
    if address:
        attributes[SERVER_ADDRESS] = address
        if port is not None:
            attributes[SERVER_PORT] = port
    address, port = peer
    if address and len(address) > _LONGEST_ADDRESS:  # a server took it from a header
        address = None
    if address:
        attributes[NETWORK_PEER_ADDRESS] = address
        if port is not None:
            attributes[NETWORK_PEER_PORT] = port
    address = proxied.client or address
    if address:
        attributes[CLIENT_ADDRESS] = address
    if version:
        attributes[NETWORK_PROTOCOL_VERSION] = version
    if user_agent:
        attributes[USER_AGENT_ORIGINAL] = truncated(user_agent, _LONGEST_VALUE)
    return attributes


def _old_names(incoming: Incoming, attributes: Mapping[str, Any]) -> dict[str, Any]:
    old = {_OLD_NAMES[name]: value for name, value in attributes.items() if name in _OLD_NAMES}
    query = attributes.get(URL_QUERY)
    path = attributes[URL_PATH]
    old[semconv.OLD_HTTP_TARGET] = f"{path}?{query}" if query else path
    if incoming.host:
        old[semconv.OLD_HTTP_HOST] = truncated(incoming.host, _LONGEST_VALUE)
    return old


def _url(incoming: Incoming) -> str:
    url = f"{incoming.scheme}://{incoming.host or incoming.own[0] or ''}{incoming.path}"
    return f"{url}?{incoming.query}" if incoming.query else url


def body_measures(chunks: int, size: int, first_ns: int) -> dict[str, Any] | None:
    """Return the attributes of a body that was sent in several chunks, None for any other."""
    if chunks < 2:
        return None
    return {BODY_BYTES: size, BODY_CHUNKS: chunks, FIRST_BYTE: first_ns / 1e9}


def _sole(exception: BaseException) -> BaseException:
    """Return the one exception of a group: frameworks that use task groups raise all in one."""
    members = getattr(exception, "exceptions", None)
    while isinstance(members, tuple) and len(members) == 1:
        exception = members[0]
        members = getattr(exception, "exceptions", None)
    return exception


def _is_answer(exception: BaseException, status: int) -> bool:
    """Say whether an exception only chose this response: ``HTTPException(503)``, ``abort(503)``."""
    code = getattr(exception, "status_code", None) or getattr(exception, "code", None)
    return bool(code == status)
