"""The steps of an HTTP client call, the same for every library, sync and async.

One call of the program is an :class:`Exchange`: one attempt, or several when the library
follows a redirect, answers a challenge or retries. Each :class:`Attempt` is a CLIENT span:

1. suppressed or excluded? then it is not watched
2. the span starts, with everything a sampler may want to know
3. trace headers are written, for hosts that may have them
4. the library makes its request, with the span current
5. response or exception is recorded
6. the span ends when the response's headers are read (or its body, on request)

An instrumentation makes an attempt and calls ``begin`` before its library's own code, and
``succeed`` or ``fail`` after it; none of them raises. Siblings, not children: the attempts of
an exchange all have the parent that was current when it began.
https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span

All of this runs with cold caches, between the library's own code and the kernel, where a call
costs three times what it costs in a loop: hence few calls and few objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import Setter, default_setter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from tracekit import semconv
from tracekit._otel_context import OnlySpan, attach, current_context, detach, with_span
from tracekit.instrumentation._http import Headers, is_suppressed, suppressed_http
from tracekit.instrumentation._http_client_attributes import (
    Destination,
    HttpClientSettings,
    old_request_attributes,
    old_response_attributes,
    record_exception,
)
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._traceresponse import NEVER, hear

__all__ = [
    "Attempt",
    "Exchange",
    "HttpClientSteps",
    "current_exchange",
]

# Waits below are the cost of asking, not of waiting.
_NOTABLE_WAIT_NS = 1_000_000
_CLIENT = SpanKind.CLIENT
_ERROR = Status(StatusCode.ERROR)
SEEN = object()
"""Noted of an attempt that has ended, when what was seen is recorded."""

# One lookup less on the path of each request.
HTTP_RESPONSE_STATUS_CODE = semconv.HTTP_RESPONSE_STATUS_CODE
NETWORK_PEER_ADDRESS = semconv.NETWORK_PEER_ADDRESS
NETWORK_PEER_PORT = semconv.NETWORK_PEER_PORT
NETWORK_PROTOCOL_VERSION = semconv.NETWORK_PROTOCOL_VERSION


class HttpClientSteps:
    """What the attempts of one instrumented library have in common.

    Attributes:
        headers_of: Lists the headers of the library's own request or response; asked when some
            are captured.
        setter: Writes a trace header to a carrier; as to any mapping, unless the library's own
            way is dear.
        plain_methods: Methods of requests that are watched, propagated and told of alike.
        is_terse: Whether the head of a response is all that is recorded of it.
    """

    __slots__ = ("headers_of", "is_terse", "plain_methods", "setter", "settings", "start_span")

    def __init__(
        self,
        tracer: Tracer,
        settings: HttpClientSettings,
        headers_of: Callable[[Any], Headers],
        setter: Setter[Any] = default_setter,
    ) -> None:
        self.start_span = tracer.start_span
        self.settings = settings
        self.headers_of = headers_of
        self.setter = setter
        self.plain_methods = settings.known_methods if settings.is_plain else frozenset[str]()
        self.is_terse = settings.is_terse


class Exchange:
    """One call of the program, and the attempts that a library makes to serve it."""

    # Not in slots, as in Attempt.
    attempt: Attempt | None = None
    """The last one that began."""
    sends: int = 0
    injected: Context | None = None
    """What trace headers were written of, if any were."""
    in_hooks: bool = False
    closed: bool = False
    refused: bool = False
    """Whether the last request was not to be watched, by anybody further down either."""

    def __init__(self, owner: object) -> None:
        """Begin for `owner`, the session or client that was called; ends with :meth:`close`."""
        self.owner = owner
        self.parent = current_context()
        self._token = current_exchange.set(self)

    def speaks(self) -> bool:
        """Tell whether what a library further down sends now is watched from here, or refused."""
        if self.closed or self.in_hooks:
            return False
        attempt = self.attempt
        return self.refused or (
            attempt is not None and (attempt.under_way or attempt.noted is not None)
        )

    def close(self) -> None:
        # A thread that was started meanwhile may have copied the variable: it reads `closed`.
        self.closed = True
        self.attempt = None  # which leads back here
        try:
            current_exchange.reset(self._token)
        except ValueError:  # as in Attempt.leave
            pass


current_exchange: ContextVar[Exchange | None] = ContextVar("tracekit-http-exchange", default=None)


class Attempt:
    """One request on its way and the span that stands for it.

    Concurrency: used by the thread or task that makes the request; the end of a streamed body
    may come from another.
    """

    # Not in slots: what most attempts leave as it is here costs them nothing.
    span: Span
    under_way: bool = False
    """Whether the answer is still out; False again from the moment headers are read."""
    is_over: bool = False
    """Whether the span has ended."""
    noted: Any = None
    """Response or exception that a lower layer saw; if it asks again after that, it retries."""
    noted_at: int = 0
    """When it saw that, in Unix nanoseconds."""
    peer: Sequence[Any] = ()
    """Address and port at the other end of the socket; empty when unknown."""
    handed_over_ns: int = 0
    pool_wait_ns: int = 0
    silenced: bool = False

    def __init__(
        self,
        steps: HttpClientSteps,
        exchange: Exchange,
        native: Any,
        method: str,
        url: str,
        destination: Destination,
        carrier: Any,
        timeouts: Mapping[str, float],
    ) -> None:
        """Gather what an instrumentation knows of a request before it is sent.

        Args:
            native: The library's own request, for hooks.
            url: Absolute, as it is, secrets included.
            carrier: Where trace headers are written; None when the library has no place for them.
            timeouts: Configured limits in seconds by attribute name.
        """
        self.steps = steps
        self.exchange = exchange
        self.native = native
        self.method = method
        self.url = url
        self.destination = destination
        self.carrier = carrier
        self.timeouts = timeouts

    def begin(self) -> bool:
        """Start the span and make it current; False when this request is not to be watched."""
        exchange, steps, method = self.exchange, self.steps, self.method
        context: Context
        parent, sends = exchange.parent, exchange.sends
        exchange.sends = sends + 1
        exchange.attempt = None
        try:
            # A context of a span only is not asked, which would fill it.
            if type(parent) is not OnlySpan and parent and is_suppressed(parent):
                return self._refuse()
            if not sends and method in steps.plain_methods:
                attributes = self.destination.told_of(method, self.timeouts)
                self.span = span = steps.start_span(method, parent, _CLIENT, attributes)
                carrier = self.carrier
                if type(parent) is OnlySpan or not parent:
                    # with_span() and _inject(), written out for nearly all requests: where there
                    # is no baggage, the host does not matter.
                    context = only = OnlySpan()
                    only.span = span
                    if carrier is not None:
                        try:
                            get_global_textmap().inject(carrier, context, steps.setter)
                            exchange.injected = context
                        except Exception:
                            report("the injection of trace headers")
                else:
                    context = with_span(parent, span)
                    self._inject(context)
            else:
                if steps.settings.is_excluded(self.url):
                    return self._refuse()
                method, attributes = self._told(method, sends)
                self.span = span = steps.start_span(method, parent, _CLIENT, attributes)
                if steps.settings.request_hook is not None:
                    self._call_request_hook()
                context = with_span(parent, span)
                self._inject(context)
            self._context = context
            self._token = attach(context)
            self.under_way = True
            exchange.attempt = self
            return True
        except Exception:
            report("the beginning of an HTTP span")
            return False

    def _refuse(self) -> bool:
        self.exchange.refused = True
        self._withdraw_headers()
        return False

    def again(self, carrier: Any) -> Attempt:
        """Return the next attempt to send the same request, which has not begun."""
        return Attempt(
            self.steps,
            self.exchange,
            self.native,
            self.method,
            self.url,
            self.destination,
            carrier,
            self.timeouts,
        )

    def _told(self, method: str, sends: int) -> tuple[str, Mapping[str, Any]]:
        """Return the name of the span, and its attributes where they are not the usual ones."""
        settings = self.steps.settings
        method, original = settings.method(method)
        attributes = dict(self.destination.told_of(method, self.timeouts))
        if original is not None:
            attributes[semconv.HTTP_REQUEST_METHOD_ORIGINAL] = original
        if sends:
            attributes[semconv.HTTP_REQUEST_RESEND_COUNT] = sends
        if settings.request_headers is not None:
            headers = self.steps.headers_of(self.native)
            attributes.update(settings.request_headers.attributes(headers))
        if settings.writes_old_names:
            attributes.update(old_request_attributes(attributes, self.destination.origin))
        return "HTTP" if method == semconv.METHOD_OTHER else method, attributes

    def _inject(self, context: Context) -> None:
        try:
            hosts, host = self.steps.settings.hosts, self.destination.origin.host
            allowed = hosts.context_for(host, context)
            if allowed is not context:
                self._withdraw_headers()
        except Exception:
            report("the choice of hosts that get trace headers")
            return
        if allowed is not None and self.carrier is not None:
            self._write_headers(allowed)

    def _write_headers(self, context: Context) -> None:
        try:
            get_global_textmap().inject(self.carrier, context, self.steps.setter)
            self.exchange.injected = context
        except Exception:
            report("the injection of trace headers")

    def _withdraw_headers(self) -> None:
        # A library copies the headers of a redirected request, ours among them, to the next
        # one; what the program set by itself is left alone.
        sent = self.exchange.injected
        if sent is not None and self.carrier is not None:
            textmap = get_global_textmap()
            # Some formats have a header for each entry of baggage, so writing it says which.
            written: Any = {}
            textmap.inject(written, sent)
            for name in {*textmap.fields, *written}:
                self.carrier.pop(name, None)

    @quiet
    def _call_request_hook(self) -> None:
        hook = self.steps.settings.request_hook
        if hook is not None and self.span.is_recording():
            hook(self.span, self.native)

    @quiet
    def silence(self) -> None:
        """Let HTTP libraries further down make no spans: this one speaks for them.

        Not done where the request may be served in this process: the server's span, and those
        of the requests that it makes itself, would be lost.
        """
        self.leave()
        self.silenced = True
        self._context = suppressed_http(self._context)
        self._token = attach(self._context)
        self.under_way = True

    def leave(self) -> None:
        """Make current what was before; safe to call twice."""
        if self.under_way:
            self.under_way = False
            # The API's detach logs an error when a coroutine is closed in another context than
            # it ran in, as garbage collection does; nothing is left to restore there.
            try:
                detach(self._token)
            except (ValueError, RuntimeError):
                pass

    def succeed(self, response: Any, status: int, version: str) -> None:
        """Record a response and end the span, or leave the end to the response's body.

        Args:
            response: The library's own, for hooks and for headers that are captured.
            version: ``1.1``, ``2``; empty when unknown.
        """
        if self.under_way:
            self.leave()
        self.noted = None  # it leads to the response: a cycle once that holds this attempt
        if self.is_over:
            return
        self.record(response, status, version)
        settings = self.steps.settings
        if settings.response_hook is not None:
            self._call_response_hook(response)
        if settings.ends_at_body:
            self._begin_body()
        else:
            self.end()

    def succeed_plainly(self, response: Any, status: int, version: str) -> None:
        """Do what :meth:`succeed` does, where nothing but the head of a response is asked for.

        Written out: each call that is saved here is one less for nearly all requests.
        """
        self.noted = SEEN
        if self.under_way:
            self.under_way = False
            try:
                detach(self._token)
            except (ValueError, RuntimeError):  # as in leave()
                pass
        if self.is_over:
            return
        self.is_over = True
        try:
            span = self.span
            span.set_attributes(self._head(status, version))
            if self.pool_wait_ns >= _NOTABLE_WAIT_NS:
                span.set_attribute(semconv.POOL_WAIT, self.pool_wait_ns / 1e9)
            if getattr(span, "kept", None) is False:
                self._hear(response)
            span.end()
        except Exception:
            report("the record of a response")

    def fail(self, exception: BaseException) -> None:
        """Record the exception that goes on to the program, and end the span."""
        self.leave()
        self.noted = None
        if self.is_over:
            return
        record_exception(self.span, self.url, exception)
        self.end()

    def record(self, response: Any, status: int, version: str) -> None:
        """Record the head of a response, as :meth:`succeed` does, and go on."""
        # try and not `quiet`: one frame less for each request of the program.
        try:
            span, settings = self.span, self.steps.settings
            attributes = self._head(status, version)
            if status >= 400:
                attributes[semconv.ERROR_TYPE] = str(status)
                span.set_status(_ERROR)
            if settings.adds_to_responses:
                self._add_to_response(attributes, response, status, version)
            span.set_attributes(attributes)
            if getattr(span, "kept", None) is False:
                self._hear(response)
        except Exception:
            report("the record of a response")

    def _head(self, status: int, version: str) -> dict[str, Any]:
        """Return the attributes that the head of a response always has."""
        peer = self.peer
        if version and peer:  # written out: nearly all responses
            return {
                HTTP_RESPONSE_STATUS_CODE: status,
                NETWORK_PROTOCOL_VERSION: version,
                NETWORK_PEER_ADDRESS: peer[0],
                NETWORK_PEER_PORT: peer[1],
            }
        head: dict[str, Any] = {HTTP_RESPONSE_STATUS_CODE: status}
        if version:
            head[NETWORK_PROTOCOL_VERSION] = version
        if peer:
            head[NETWORK_PEER_ADDRESS], head[NETWORK_PEER_PORT] = peer[0], peer[1]
        return head

    def _hear(self, response: Any) -> None:
        """Follow the callee, where a tail sampler is at work and nothing else keeps the trace."""
        if self.steps.settings.traceresponse != NEVER:
            hear(self.span, getattr(response, "headers", None))

    def _add_to_response(
        self, attributes: dict[str, Any], response: Any, status: int, version: str
    ) -> None:
        settings = self.steps.settings
        if settings.response_headers is not None and self.span.is_recording():
            headers = self.steps.headers_of(response)
            attributes.update(settings.response_headers.attributes(headers))
        if settings.writes_old_names:
            attributes.update(old_response_attributes(status, version))

    def end(self, at: int | None = None) -> None:
        """End the span now or at a time in Unix nanoseconds; safe to call twice."""
        if self.is_over:
            return
        self.is_over = True
        try:
            if self.pool_wait_ns >= _NOTABLE_WAIT_NS:
                self.span.set_attribute(semconv.POOL_WAIT, self.pool_wait_ns / 1e9)
            self.span.end(at)
        except Exception:
            report("the end of a span")

    @quiet
    def abandon_body(self) -> None:
        """End a span that waits for its body, which is not going to be read to its end."""
        if not self.is_over:
            self.span.add_event(semconv.BODY_ABANDONED_EVENT)
            self.end()

    def fail_body(self, exception: BaseException) -> None:
        """End a span that waits for its body, whose reading failed."""
        if not self.is_over:
            record_exception(self.span, self.url, exception)
            self.end()

    @quiet
    def _begin_body(self) -> None:
        self.span.add_event(semconv.BODY_STARTED_EVENT)

    @quiet
    def _call_response_hook(self, native: Any) -> None:
        hook = self.steps.settings.response_hook
        if hook is not None and self.span.is_recording():
            hook(self.span, self.native, native)
