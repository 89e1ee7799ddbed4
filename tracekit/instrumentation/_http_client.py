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

import contextvars
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from tracekit import semconv
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._http import (
    Headers,
    HttpSettings,
    error_type,
    is_suppressed,
    message_of,
    record_failure,
    suppressed_http,
)
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._url import HostList, Origin, redact_text, redact_url

__all__ = [
    "Attempt",
    "Exchange",
    "HttpClientSettings",
    "HttpClientSteps",
    "ReceivedResponse",
    "SentRequest",
    "current_exchange",
    "watch_pool_wait",
    "watch_pool_wait_async",
]

RequestHook = Callable[[Span, Any], None]
ResponseHook = Callable[[Span, Any, Any], None]

# Waits below are the cost of asking, not of waiting.
_NOTABLE_WAIT_NS = 1_000_000
_ERROR = Status(StatusCode.ERROR)


class SentRequest(NamedTuple):
    """What an instrumentation knows of a request before it is sent.

    Attributes:
        url: Absolute, as it is, secrets included.
        carrier: Where trace headers are written; None when the library has no place for them.
        headers: Read only when request headers are captured.
        timeouts: Configured limits in seconds by attribute name.
        native: The library's own request, for hooks.
    """

    method: str
    url: str
    origin: Origin
    carrier: Any
    headers: Callable[[], Headers]
    timeouts: Mapping[str, float]
    native: Any


class ReceivedResponse(NamedTuple):
    """What an instrumentation knows once the headers of a response are read.

    Attributes:
        version: ``1.1``, ``2``; empty when unknown.
        peer: Address and port at the other end of the socket; empty when unknown.
        headers: Read only when response headers are captured.
        native: The library's own response, for hooks.
    """

    status: int
    version: str
    peer: Sequence[Any]
    headers: Callable[[], Headers]
    native: Any


@dataclass(frozen=True)
class HttpClientSettings(HttpSettings):
    """What was configured for an HTTP client library."""

    propagation_hosts: HostList | None = None
    ends_at_body: bool = False
    request_hook: RequestHook | None = None
    response_hook: ResponseHook | None = None

    @classmethod
    def read(
        cls,
        library: str,
        environ: Mapping[str, str],
        *,
        propagation_hosts: str | Sequence[str] | None = None,
        span_ends: str | None = None,
        **options: Any,
    ) -> HttpClientSettings:
        """Read the environment, overridden by options.

        Args:
            propagation_hosts: Globs of hosts that trace headers are sent to, in place of
                ``TRACEKIT_PROPAGATION_HOSTS``; every host by default, none for an empty list.
            span_ends: ``headers`` or ``body``, in place of ``TRACEKIT_HTTP_CLIENT_SPAN_ENDS``.
            options: Those of :meth:`HttpSettings.from_environment`, ``request_hook(span,
                request)`` and ``response_hook(span, request, response)``.
        """
        hosts = propagation_hosts
        if hosts is None:
            hosts = environ.get("TRACEKIT_PROPAGATION_HOSTS") or None
        if isinstance(hosts, str):
            hosts = [host for host in hosts.split(",") if host.strip()]
        ends = span_ends or environ.get("TRACEKIT_HTTP_CLIENT_SPAN_ENDS") or "headers"
        if ends not in ("headers", "body"):
            raise InvalidValueError("TRACEKIT_HTTP_CLIENT_SPAN_ENDS", ends, "headers or body")
        return cls.from_environment(
            library,
            environ,
            propagation_hosts=None if hosts is None else HostList(hosts),
            ends_at_body=ends == "body",
            **options,
        )


class Attempt:
    """One request on its way and the span that stands for it.

    Concurrency: used by the thread or task that makes the request; the end of a streamed body
    may come from another.
    """

    __slots__ = (
        "_context",
        "_ended",
        "_noted",
        "_noted_at",
        "_token",
        "pool_wait_ns",
        "request",
        "span",
        "steps",
    )

    def __init__(
        self, steps: HttpClientSteps, span: Span, request: SentRequest, context: Context
    ) -> None:
        self.steps = steps
        self.span = span
        self.request = request
        self.pool_wait_ns = 0
        self._noted: ReceivedResponse | BaseException | None = None
        self._noted_at = 0
        self._ended = False
        self._context = context
        self._token: Any = otel_context.attach(context)

    @property
    def under_way(self) -> bool:
        """Whether the answer is still out; False from the moment headers are read."""
        return self._token is not None

    @quiet
    def silence(self) -> None:
        """Let HTTP libraries further down make no spans: this one speaks for them.

        Not done where the request may be served in this process: the server's span, and those
        of the requests that it makes itself, would be lost.
        """
        self.leave()
        self._context = suppressed_http(self._context)
        self._token = otel_context.attach(self._context)

    def leave(self) -> None:
        """Make current what was before; safe to call twice."""
        token, self._token = self._token, None
        if token is not None:
            _detach(token)

    def succeed(self, response: ReceivedResponse) -> None:
        """Record a response and end the span, or leave the end to the response's body."""
        self.leave()
        if self._ended:
            return
        self._noted = None  # holds the response: a cycle once the response holds this attempt
        self._record(response)
        if self.steps.settings.response_hook is not None:
            self._call_hook(response)
        if self.steps.settings.ends_at_body:
            self._begin_body()
        else:
            self.end()

    def fail(self, exception: BaseException) -> None:
        """Record the exception that goes on to the program, and end the span."""
        self.leave()
        if self._ended:
            return
        noted, self._noted = self._noted, None
        if isinstance(noted, ReceivedResponse):
            self._record(noted)
        self._record_exception(exception)
        self.end()

    @property
    def noted(self) -> ReceivedResponse | BaseException | None:
        """What a lower layer saw; if it makes another request after that, it retries."""
        return self._noted

    def note(self, outcome: ReceivedResponse | BaseException | None) -> None:
        """Keep what a lower layer saw: either the result, or the reason for a retry."""
        self._noted = outcome
        self._noted_at = time.time_ns()

    def supersede(self) -> None:
        """End with what was noted, at its time, because the library tries again."""
        self.leave()
        noted, self._noted = self._noted, None
        if isinstance(noted, ReceivedResponse):
            self._record(noted)
        elif noted is not None:
            self._record_exception(noted)
        self.end(self._noted_at)

    @quiet
    def end(self, at: int | None = None) -> None:
        """End the span now or at a time in Unix nanoseconds; safe to call twice."""
        if self._ended:
            return
        self._ended = True
        if self.pool_wait_ns >= _NOTABLE_WAIT_NS:
            self.span.set_attribute(semconv.POOL_WAIT, self.pool_wait_ns / 1e9)
        self.span.end(at)

    @quiet
    def abandon_body(self) -> None:
        """End a span that waits for its body, which is not going to be read to its end."""
        if not self._ended:
            self.span.add_event(semconv.BODY_ABANDONED_EVENT)
            self.end()

    def fail_body(self, exception: BaseException) -> None:
        """End a span that waits for its body, whose reading failed."""
        if not self._ended:
            self._record_exception(exception)
            self.end()

    @quiet
    def _begin_body(self) -> None:
        self.span.add_event(semconv.BODY_STARTED_EVENT)

    @quiet
    def _record(self, response: ReceivedResponse) -> None:
        span = self.span
        if not span.is_recording():
            return
        span.set_attributes(_response_attributes(response, self.steps.settings))
        if response.status >= 400:
            span.set_status(_ERROR)

    @quiet
    def _call_hook(self, response: ReceivedResponse) -> None:
        hook = self.steps.settings.response_hook
        if hook is not None and self.span.is_recording():
            hook(self.span, self.request.native, response.native)

    def _record_exception(self, exception: BaseException) -> None:
        if _is_cancellation(exception):
            return
        if _has_secrets(self.request.url):
            _record_redacted(self.span, exception)
        else:
            record_failure(self.span, exception)


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
        _detach(self._token)


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
        exchange.attempt = None
        sends, exchange.sends = exchange.sends, exchange.sends + 1
        parent = exchange.parent
        settings = self.settings
        if is_suppressed(parent) or settings.is_excluded(request.url):
            self._withdraw_headers(exchange, request)
            return None
        span = self._start_span(parent, request, sends)
        context = set_span_in_context(span, parent)
        if settings.request_hook is not None:
            self._call_hook(span, request)
        self._inject(exchange, request, context)
        exchange.attempt = Attempt(self, span, request, context)
        return exchange.attempt

    def _start_span(self, parent: Context, request: SentRequest, sends: int) -> Span:
        method, original = self.settings.method(request.method)
        name = "HTTP" if method == semconv.METHOD_OTHER else method
        attributes = _request_attributes(request, method, original, self.settings)
        if sends:
            attributes[semconv.HTTP_REQUEST_RESEND_COUNT] = sends
        return self.tracer.start_span(
            name, context=parent, kind=SpanKind.CLIENT, attributes=attributes
        )

    @quiet
    def _inject(self, exchange: Exchange, request: SentRequest, context: Context) -> None:
        hosts = self.settings.propagation_hosts
        if hosts is not None and not hosts.allows(request.origin.host):
            self._withdraw_headers(exchange, request)
        elif request.carrier is not None:
            get_global_textmap().inject(request.carrier, context)
            exchange.injected = True

    @quiet
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


def _request_attributes(
    request: SentRequest, method: str, original: str | None, settings: HttpClientSettings
) -> dict[str, Any]:
    origin = request.origin
    url = redact_url(request.url)
    attributes: dict[str, Any] = {
        semconv.HTTP_REQUEST_METHOD: method,
        semconv.SERVER_ADDRESS: origin.host,
        semconv.URL_FULL: url,
    }
    if origin.port is not None:
        attributes[semconv.SERVER_PORT] = origin.port
    if original is not None:
        attributes[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = original
    attributes.update(request.timeouts)
    if settings.request_headers is not None:
        attributes.update(settings.request_headers.attributes(request.headers()))
    if settings.writes_old_names:
        attributes.update(_old_request_attributes(attributes, origin))
    return attributes


def _old_request_attributes(new: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    old = {
        semconv.OLD_HTTP_METHOD: new[semconv.HTTP_REQUEST_METHOD],
        semconv.OLD_HTTP_URL: new[semconv.URL_FULL],
        semconv.OLD_HTTP_SCHEME: origin.scheme,
        semconv.OLD_NET_PEER_NAME: origin.host,
    }
    if origin.port is not None:
        old[semconv.OLD_NET_PEER_PORT] = origin.port
    return old


def _response_attributes(
    response: ReceivedResponse, settings: HttpClientSettings
) -> dict[str, Any]:
    attributes: dict[str, Any] = {semconv.HTTP_RESPONSE_STATUS_CODE: response.status}
    if response.version:
        attributes[semconv.NETWORK_PROTOCOL_VERSION] = response.version
    if response.peer:
        attributes[semconv.NETWORK_PEER_ADDRESS] = response.peer[0]
        attributes[semconv.NETWORK_PEER_PORT] = response.peer[1]
    if response.status >= 400:
        attributes[semconv.ERROR_TYPE] = str(response.status)
    if settings.response_headers is not None:
        attributes.update(settings.response_headers.attributes(response.headers()))
    if settings.writes_old_names:
        attributes[semconv.OLD_HTTP_STATUS_CODE] = response.status
        if response.version:
            attributes[semconv.OLD_HTTP_FLAVOR] = response.version
    return attributes


def _is_cancellation(exception: BaseException) -> bool:
    """Tell control flow from failure: the caller stopped waiting, nothing went wrong.

    asyncio's and trio's cancellation, GeneratorExit, KeyboardInterrupt and SystemExit are no
    Exception; neither is gevent's Timeout, which is a failure.
    """
    return not isinstance(exception, Exception) and type(exception).__name__ != "Timeout"


def _has_secrets(url: str) -> bool:
    return ("?" in url or "@" in url or "#" in url) and redact_url(url) != url


@quiet
def _record_redacted(span: Span, exception: BaseException) -> None:
    """Record an exception whose message may quote a URL with secrets, as most of them do."""
    message = redact_text(message_of(exception))
    trace = redact_text("".join(traceback.format_exception(exception)))
    span.set_attribute(semconv.ERROR_TYPE, error_type(exception))
    span.record_exception(
        exception,
        {semconv.EXCEPTION_MESSAGE: message, semconv.EXCEPTION_STACKTRACE: trace},
    )
    span.set_status(Status(StatusCode.ERROR, message))


def _detach(token: Any) -> None:
    # The API's detach logs an error when a coroutine is closed in another context than it ran
    # in, as garbage collection does; nothing is left to restore there.
    if not isinstance(token, contextvars.Token):
        otel_context.detach(token)
        return
    try:
        token.var.reset(token)
    except (ValueError, RuntimeError):
        pass
