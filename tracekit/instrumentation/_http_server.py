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
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer

from tracekit import semconv
from tracekit._otel_context import OnlySpan, attach, current_context, detach, with_span
from tracekit.instrumentation._forwarded import NOT_FORWARDED, Forwarded
from tracekit.instrumentation._http import HttpSettings, is_suppressed, record_failure
from tracekit.instrumentation._http_server_attributes import (
    Address,
    OwnAddress,
    old_names,
    server_attributes,
    whole_url,
)
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._traceresponse import ALWAYS, NEVER, Answer, answer
from tracekit.instrumentation._trust import Trust, caller_of, trust_of

__all__ = [
    "REQUEST_KEY",
    "Headers",
    "HttpServer",
    "ServerRequest",
    "ServerSettings",
    "adopt_route",
    "current_request",
    "detach_request",
    "enter_request",
    "leave_request",
    "name_route",
    "note_exception",
]

# Under this key the scope or environ of a request holds its ServerRequest, or None where it was
# decided not to trace it. Whatever is mounted or wrapped inside finds the decision made.
REQUEST_KEY = "tracekit.server_request"

ABANDONED = "tracekit.abandoned"  # the response was not sent to its end

# One lookup less each on the path of a request.
HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE = semconv.HTTP_RESPONSE_STATUS_CODE, semconv.HTTP_ROUTE
SERVER = SpanKind.SERVER
# Bound once: these too are on that path.
_now_ns, _exc_info, _ANY_LENGTH = time.perf_counter_ns, sys.exc_info, sys.maxsize

Headers = Iterable[tuple["str | bytes", "str | bytes"]]
_Names = tuple[tuple[str, Any], ...]
"""Headers as propagators name them, and as they are spelled in a library's."""


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

current_request = _current.get
"""Return the traced request that this code serves, also in its tasks and worker threads."""
enter_request, leave_request = _current.set, _current.reset
"""The steps of :meth:`ServerRequest.attach` and its undoing, for what runs in one place."""


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
        "_server",
        "_started_ns",
        "body_length",
        "context",
        "failed",
        "is_ended",
        "is_silent",
        "method",
        "route",
        "route_prefix",
        "span",
        "status",
        "suspect",
    )

    def __init__(
        self, span: Span, context: Context, method: str, server: HttpServer, is_silent: bool
    ) -> None:
        self.span = span
        self.context = context
        self.method = method
        self.route = self.route_prefix = ""
        self.status = 0
        self.body_length = _ANY_LENGTH  # no more bytes than this will follow the headers
        self.failed = self.is_ended = False
        # An exception that the framework answers itself; it counts if the answer is a 5xx.
        self.suspect: BaseException | None = None
        self._server = server
        # Neither are headers of the response looked at nor the caller to be told anything.
        self.is_silent = is_silent
        self._started_ns = _now_ns()
        self._handled_before = id(_exc_info()[1])

    @property
    def tracer(self) -> Tracer:
        return self._server.tracer

    def attach(self, context: Context | None = None) -> tuple[Token[Any], Token[Any]]:
        """Make the request and its span current; give the result to :func:`detach_request`."""
        return _current.set(self), attach(context or self.context)

    def matched(self, route: str) -> None:
        """Name the span for the template of the route that serves the request."""
        if not self.is_ended and route and route != self.route:
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
        if self.is_silent:
            return ()
        if self._server.hears:
            self._show(status, headers)
        return self.answer(status)

    def _show(self, status: int, headers: Headers) -> None:
        settings = self._server.settings
        if settings.response_headers is not None:
            self.span.set_attributes(settings.response_headers.attributes(headers))
        if settings.server_response_hook is not None:
            settings.server_response_hook(self.span, status, headers)

    def answer(self, status: int) -> Answer:
        """Return the headers that tell the caller what is decided about the trace."""
        span, mode = self.span, self._server.traceresponse
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

    def end(self, attributes: Mapping[str, Any] | None = None) -> None:
        """End the span, once."""
        if self.is_ended:
            return
        self.is_ended = True
        span, status = self.span, self.status
        try:  # and not `quiet`: one frame less for each request
            try:
                if status:
                    span.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
                    if status >= 500 or self._server.writes_old_names:
                        self._write_outcome(status)
                if attributes:
                    span.set_attributes(attributes)
            finally:
                self.suspect = None
                span.end()
        except Exception:
            report("the end of a request")

    def elapsed_ns(self) -> int:
        return _now_ns() - self._started_ns

    def _blame(self, status: int) -> None:
        # Error middleware answers from within its `except` block: the exception is at hand there
        # and, once the body is sent, too late. One that was being handled before the request
        # came in (by a program that calls the application itself) has no part in this.
        exception = self.suspect or _exc_info()[1]
        if (
            exception is not None
            and id(exception) != self._handled_before
            and not _is_answer(exception, status)
        ):
            self.fail(exception)

    def _write_outcome(self, status: int) -> None:
        span = self.span
        if self._server.writes_old_names:
            span.set_attribute(semconv.OLD_HTTP_STATUS_CODE, status)
        if status >= 500 and not self.failed:
            span.set_attribute(semconv.ERROR_TYPE, str(status))
            span.set_status(Status(StatusCode.ERROR))


def detach_request(tokens: tuple[Token[Any], Token[Any]]) -> None:
    """Restore what was current before a request was attached, if this is where it was.

    A coroutine that nobody finished is closed by the garbage collector wherever that runs.
    There is nothing to restore in such a place, and OpenTelemetry would log an error.
    """
    try:
        leave_request(tokens[0])
    except ValueError:
        return
    detach(tokens[1])


class HttpServer:
    """Start the SERVER spans of one library.

    Args:
        spelled: Returns a header's name as the library's headers have it.
    """

    __slots__ = (
        "_adds",
        "_asked",
        "_excludes",
        "_get_propagator",
        "_getter",
        "_is_silent",
        "_is_silent_to_callers",
        "_known_methods",
        "_links",
        "_request_hook",
        "_spelled",
        "_trust",
        "hears",
        "settings",
        "tracer",
        "traceresponse",
        "writes_old_names",
    )

    def __init__(
        self,
        tracer: Tracer,
        settings: ServerSettings,
        getter: Getter[Any],
        spelled: Callable[[str], Any],
    ) -> None:
        self.tracer = tracer
        self.settings = settings
        self._getter = getter
        self._spelled = spelled
        self._get_propagator: Callable[[], Any] | None = None
        # The last propagator, and all headers that it reads, where it says so.
        self._asked: tuple[Any, _Names | None] = (None, None)
        # Of the settings, what each request asks for: a slot is read in a fifth of the time that
        # an attribute takes above the default that a class has for it.
        self._known_methods = settings.known_methods
        self._excludes = settings.excluded_urls is not None
        self.writes_old_names = settings.writes_old_names
        self._adds = settings.request_headers is not None or settings.writes_old_names
        self._links, self._trust = settings.links, settings.trust
        self._request_hook = settings.server_request_hook
        self.traceresponse = mode = settings.traceresponse
        self.hears = (
            settings.response_headers is not None or settings.server_response_hook is not None
        )
        self._is_silent = not self.hears and mode != ALWAYS
        self._is_silent_to_callers = not self.hears and mode == NEVER

    def start(
        self,
        source: Any,
        carrier: Any,
        headers: Container[Any],
        method: str,
        scheme: str,
        path: str,
        query: str,
        version: str | None,
        peer: Address,
        own: OwnAddress,
        host: str | None,
        user_agent: str | None,
        proxied: Forwarded = NOT_FORWARDED,
    ) -> ServerRequest | None:
        """Start the span of a request, or return None if it is not to be traced.

        So many parameters, and no record of them: to make one and to read it takes as long as the
        attributes that are made of it.

        Args:
            source: The scope, environ or request, for hooks.
            carrier: What the getter reads headers from.
            headers: Tells whether a header is there, by its name as `spelled`.
            own: Host and port that the server listens on, for requests without a Host.
        """
        around = current_context()
        has_context = type(around) is OnlySpan or len(around) > 0
        if has_context and is_suppressed(around):
            return None
        if self._excludes and self.settings.is_excluded(
            whole_url(scheme, host or own[0] or "", path, query)
        ):
            return None
        context = self._remote_context(carrier, headers, around)
        original = None
        if method not in self._known_methods:
            method, original = self.settings.method(method)
        attributes = server_attributes(
            method, scheme, path, query, version, peer, own, host, user_agent, proxied
        )
        if self._adds or original is not None:
            self._add(attributes, original, carrier, host)
        links = None if self._links is None else self._links(context)
        # There is nothing to judge where nothing was sent, and in a context of a span only, which
        # no policy has touched, nothing to find.
        if context is not around and (self._trust is not None or type(context) is not OnlySpan):
            context, more = caller_of(
                self._trust, context, around, attributes, carrier, self._getter
            )
            links = (*(links or ()), *more)
        name = "HTTP" if method == semconv.METHOD_OTHER else method
        span = self.tracer.start_span(name, context, SERVER, attributes, links)
        is_silent = self._is_silent
        if has_context or context is not around:  # there may be a caller to be told
            is_silent = self._is_silent_to_callers
        request = ServerRequest(span, with_span(context, span), name, self, is_silent)
        if self._request_hook is not None:
            _call_hook(self._request_hook, span, source)
        return request

    def _add(
        self, attributes: dict[str, Any], original: str | None, carrier: Any, host: str | None
    ) -> None:
        """Add what few requests have or few programs want."""
        if original is not None:
            attributes[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = original
        wanted = self.settings.request_headers
        if wanted is not None:
            attributes.update(wanted.attributes(self._headers(carrier)))
        if self.writes_old_names:
            attributes.update(old_names(attributes, host))

    def _remote_context(self, carrier: Any, headers: Container[Any], around: Context) -> Context:
        if self._get_propagator is None:
            # Importing it reads OTEL_PROPAGATORS and scans entry points.
            from opentelemetry import propagate

            self._get_propagator = propagate.get_global_textmap
        propagator = self._get_propagator()
        known, names = self._asked
        if known is not propagator:
            names = self._ask(propagator)
        try:
            if names is None:
                found: Context = propagator.extract(carrier, around, self._getter)
                return found
            # One of ours: it is shown what it reads, and nothing where nothing is there.
            carried: dict[str, Any] = {}
            for name, spelled in names:
                if spelled in headers:
                    values = self._getter.get(carrier, name)
                    carried[name] = values[0] if values and len(values) == 1 else values
            return propagator.extract(carried, around) if carried else around
        except Exception:  # of a propagator: a request without a remote parent is still a request
            return around

    def _ask(self, propagator: Any) -> _Names | None:
        given = getattr(propagator, "reads", None)
        names = None
        if isinstance(given, tuple):
            names = tuple((name, self._spelled(name)) for name in given)
        self._asked = (propagator, names)
        return names

    def _headers(self, carrier: Any) -> Headers:
        getter = self._getter
        return [
            (name, value)
            for name in getter.keys(carrier)
            for value in getter.get(carrier, name) or ()
        ]


@quiet
def _call_hook(hook: Callable[[Span, Any], None], span: Span, source: Any) -> None:
    hook(span, source)


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
