"""The steps of an HTTP client call, the same for every library, sync and async.

One call of the program is an :class:`Exchange`: one attempt, or several when the library
follows a redirect, answers a challenge or retries. Each :class:`Attempt` is a CLIENT span:

1. suppressed or excluded? then it is not watched
2. the span starts, with everything a sampler may want to know
3. trace headers are written, for hosts that may have them
4. the library makes its request, with the span current
5. response or exception is recorded
6. the span ends when the response's headers are read (or its body, on request)

An instrumentation calls ``begin`` before its library's own code, from a step that it makes
quiet, and ``succeed`` or ``fail`` after it, which never raise. Siblings, not children: the
attempts of an exchange all have the parent that was current when it began.
https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from tracekit import semconv
from tracekit.instrumentation._http import is_suppressed, suppressed_http
from tracekit.instrumentation._http_client_attributes import (
    HttpClientSettings,
    ReceivedResponse,
    SentRequest,
    record_exception,
    request_attributes,
    response_attributes,
)
from tracekit.instrumentation._patch import quiet, report

__all__ = [
    "Attempt",
    "Exchange",
    "HttpClientSteps",
    "current_exchange",
    "watch_pool_wait",
    "watch_pool_wait_async",
]

# Waits below are the cost of asking, not of waiting.
_NOTABLE_WAIT_NS = 1_000_000
_ERROR = Status(StatusCode.ERROR)


class Attempt:
    """One request on its way and the span that stands for it.

    Concurrency: used by the thread or task that makes the request; the end of a streamed body
    may come from another.
    """

    __slots__ = (
        "_context",
        "_ended",
        "_token",
        "connection",
        "handed_over_ns",
        "noted",
        "noted_at",
        "pool_wait_ns",
        "request",
        "silenced",
        "span",
        "steps",
        "under_way",
    )

    under_way: bool
    """Whether the answer is still out; False from the moment headers are read."""
    noted: Callable[[], ReceivedResponse] | BaseException | None
    """What a lower layer saw; if it makes another request after that, it retries."""
    noted_at: int
    """When it saw that, in Unix nanoseconds."""
    connection: Any
    """What the lower layer sent the request over."""

    def __init__(
        self, steps: HttpClientSteps, span: Span, request: SentRequest, context: Context
    ) -> None:
        self.steps = steps
        self.span = span
        self.request = request
        self.handed_over_ns = time.perf_counter_ns()
        self.pool_wait_ns = 0
        self.silenced = False
        self.noted = None
        self.noted_at = 0
        self.connection = None
        self._ended = False
        self._context = context
        self._token: Any = otel_context.attach(context)
        self.under_way = True

    @quiet
    def silence(self) -> None:
        """Let HTTP libraries further down make no spans: this one speaks for them.

        Not done where the request may be served in this process: the server's span, and those
        of the requests that it makes itself, would be lost.
        """
        self.leave()
        self.silenced = True
        self._context = suppressed_http(self._context)
        self._token = otel_context.attach(self._context)
        self.under_way = True

    def leave(self) -> None:
        """Make current what was before; safe to call twice."""
        if self.under_way:
            self.under_way = False
            _detach(self._token)

    def succeed(self, response: ReceivedResponse) -> None:
        """Record a response and end the span, or leave the end to the response's body."""
        self.leave()
        if self._ended:
            return
        # Both lead to the response: a cycle once the response holds this attempt.
        self.noted = self.connection = None
        self._record(response)
        settings = self.steps.settings
        if settings.response_hook is not None:
            self._call_hook(response)
        if settings.ends_at_body:
            self._begin_body()
        else:
            self.end()

    def fail(self, exception: BaseException) -> None:
        """Record the exception that goes on to the program, and end the span."""
        self.leave()
        if self._ended:
            return
        noted, self.noted = self.noted, None
        if callable(noted):
            self._record(noted)
        record_exception(self.span, self.request, exception)
        self.end()

    def supersede(self) -> None:
        """End with what was noted, at its time, because the library tries again."""
        self.leave()
        noted, self.noted = self.noted, None
        if callable(noted):
            self._record(noted)
        elif noted is not None:
            record_exception(self.span, self.request, noted)
        self.end(self.noted_at)

    def end(self, at: int | None = None) -> None:
        """End the span now or at a time in Unix nanoseconds; safe to call twice."""
        if self._ended:
            return
        self._ended = True
        try:
            if self.pool_wait_ns >= _NOTABLE_WAIT_NS:
                self.span.set_attribute(semconv.POOL_WAIT, self.pool_wait_ns / 1e9)
            self.span.end(at)
        except Exception:
            report("the end of a span")

    @quiet
    def abandon_body(self) -> None:
        """End a span that waits for its body, which is not going to be read to its end."""
        if not self._ended:
            self.span.add_event(semconv.BODY_ABANDONED_EVENT)
            self.end()

    def fail_body(self, exception: BaseException) -> None:
        """End a span that waits for its body, whose reading failed."""
        if not self._ended:
            record_exception(self.span, self.request, exception)
            self.end()

    @quiet
    def _begin_body(self) -> None:
        self.span.add_event(semconv.BODY_STARTED_EVENT)

    def _record(self, response: ReceivedResponse | Callable[[], ReceivedResponse]) -> None:
        # try and not `quiet`: one frame less for each request of the program.
        try:
            span = self.span
            if callable(response):
                response = response()
            if span.is_recording():
                span.set_attributes(response_attributes(response, self.steps.settings))
                if response.status >= 400:
                    span.set_status(_ERROR)
        except Exception:
            report("the record of a response")

    @quiet
    def _call_hook(self, response: ReceivedResponse) -> None:
        hook = self.steps.settings.response_hook
        if hook is not None and self.span.is_recording():
            hook(self.span, self.request.native, response.native)


class Exchange:
    """One call of the program, and the attempts that a library makes to serve it."""

    __slots__ = ("_token", "attempt", "closed", "in_hooks", "injected", "owner", "parent", "sends")

    def __init__(self, owner: object) -> None:
        """Begin for `owner`, the session or client that was called; ends with :meth:`close`."""
        self.owner = owner
        self.parent = otel_context.get_current()
        self.attempt: Attempt | None = None
        self.sends = 0
        self.injected = False
        self.in_hooks = False
        self.closed = False
        self._token = current_exchange.set(self)

    def close(self) -> None:
        # A thread that was started meanwhile may have copied the variable: it reads `closed`.
        self.closed = True
        try:
            current_exchange.reset(self._token)
        except ValueError:  # as in _detach
            pass


current_exchange: ContextVar[Exchange | None] = ContextVar("tracekit-http-exchange", default=None)


class HttpClientSteps:
    """The steps of one instrumented library: its tracer and its settings."""

    __slots__ = ("settings", "tracer")

    def __init__(self, tracer: Tracer, settings: HttpClientSettings) -> None:
        self.tracer = tracer
        self.settings = settings

    def begin(self, exchange: Exchange, request: SentRequest) -> Attempt | None:
        """Start the next attempt of an exchange, or None when it is not to be watched.

        Called from a quiet step, which also gathers what is known of the request.
        """
        sends = exchange.sends
        exchange.sends = sends + 1
        exchange.attempt = None
        parent, settings = exchange.parent, self.settings
        if is_suppressed(parent) or (
            settings.excluded_urls is not None and settings.is_excluded(request.url)
        ):
            self._withdraw_headers(exchange, request)
            return None
        span = self._start_span(parent, request, sends)
        context = set_span_in_context(span, parent)
        if settings.request_hook is not None:
            self._call_hook(span, request)
        self._inject(exchange, request, context)
        exchange.attempt = attempt = Attempt(self, span, request, context)
        return attempt

    def _start_span(self, parent: Context, request: SentRequest, sends: int) -> Span:
        settings = self.settings
        method, original = request.method, None
        if method not in settings.known_methods:
            method, original = settings.method(method)
        attributes = request_attributes(request, method, settings)
        if original is not None:
            attributes[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = original
        if sends:
            attributes[semconv.HTTP_REQUEST_RESEND_COUNT] = sends
        return self.tracer.start_span(
            "HTTP" if method == semconv.METHOD_OTHER else method,
            parent,
            SpanKind.CLIENT,
            attributes,
        )

    def _inject(self, exchange: Exchange, request: SentRequest, context: Context) -> None:
        try:
            hosts = self.settings.propagation_hosts
            if hosts is not None and not hosts.allows(request.origin.host):
                self._withdraw_headers(exchange, request)
            elif request.carrier is not None:
                get_global_textmap().inject(request.carrier, context)
                exchange.injected = True
        except Exception:
            report("the injection of trace headers")

    def _withdraw_headers(self, exchange: Exchange, request: SentRequest) -> None:
        # A library copies the headers of a redirected request, ours among them, to the next
        # one; what the program set by itself is left alone.
        if exchange.injected and request.carrier is not None:
            for field in get_global_textmap().fields:
                request.carrier.pop(field, None)

    @quiet
    def _call_hook(self, span: Span, request: SentRequest) -> None:
        if self.settings.request_hook is not None and span.is_recording():
            self.settings.request_hook(span, request.native)


def watch_pool_wait(
    wrapped: Callable[..., Any], _pool: Any, args: Any, kwargs: Mapping[str, Any]
) -> Any:
    """Time a library's wait for a free connection, on behalf of the attempt that waits."""
    began = time.perf_counter_ns()
    try:
        return wrapped(*args, **kwargs)
    finally:
        _add_pool_wait(time.perf_counter_ns() - began)


async def watch_pool_wait_async(
    wrapped: Callable[..., Awaitable[Any]], _pool: Any, args: Any, kwargs: Mapping[str, Any]
) -> Any:
    """Do what :func:`watch_pool_wait` does, for a coroutine."""
    began = time.perf_counter_ns()
    try:
        return await wrapped(*args, **kwargs)
    finally:
        _add_pool_wait(time.perf_counter_ns() - began)


def _add_pool_wait(duration_ns: int) -> None:
    exchange = current_exchange.get()
    if exchange is not None and exchange.attempt is not None:
        exchange.attempt.pool_wait_ns += duration_ns


def _detach(token: Any) -> None:
    # The API's detach logs an error when a coroutine is closed in another context than it ran
    # in, as garbage collection does; nothing is left to restore there.
    if type(token) is not Token:
        otel_context.detach(token)
        return
    try:
        token.var.reset(token)
    except (ValueError, RuntimeError):
        pass
