"""One call of an HTTP client, and the requests that it sends: what is known, and how each ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from tracekit import semconv
from tracekit._otel_context import PLAIN_SPANS, attach, current_context, detach
from tracekit.instrumentation._http import is_suppressed, suppressed_http
from tracekit.instrumentation._http_client_attributes import (
    Destination,
    Place,
    old_request_attributes,
    old_response_attributes,
    record_exception,
)
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._traceresponse import NEVER, hear

if TYPE_CHECKING:
    from tracekit.instrumentation._http_client import HttpClientSteps

__all__ = [
    "Attempt",
    "Exchange",
    "current_exchange",
]

# Waits below are the cost of asking, not of waiting.
_NOTABLE_WAIT_NS = 1_000_000
_CLIENT = SpanKind.CLIENT
_ERROR = Status(StatusCode.ERROR)

# One lookup less on the path of each request.
HTTP_RESPONSE_STATUS_CODE = semconv.HTTP_RESPONSE_STATUS_CODE
NETWORK_PEER_ADDRESS = semconv.NETWORK_PEER_ADDRESS
NETWORK_PEER_PORT = semconv.NETWORK_PEER_PORT
NETWORK_PROTOCOL_VERSION = semconv.NETWORK_PROTOCOL_VERSION


class Exchange:
    """One call of the program, and the attempts that a library makes to serve it.

    Attributes:
        attempt: The last one that began.
        place: Whence the program called, once that is known.
        injected: What trace headers were written of, if any were.
        refused: Whether the last request was not to be watched, by anybody further down either.
    """

    # Slots, filled at once: what a class has for all, and an instance for itself, CPython looks
    # up in both each time. So with an Attempt.
    __slots__ = (
        "_token",
        "attempt",
        "closed",
        "in_hooks",
        "injected",
        "owner",
        "parent",
        "place",
        "refused",
        "sends",
    )

    attempt: Attempt | None
    injected: Context | None
    place: Place | None

    def __init__(self, owner: object) -> None:
        """Begin for `owner`, the session or client that was called; ends with :meth:`close`."""
        self.owner = owner
        self.parent = current_context()
        self.attempt = self.injected = self.place = None
        self.sends = 0
        self.closed = self.in_hooks = self.refused = False
        self._token = _enter(self)

    def speaks(self) -> bool:
        """Tell whether what a library further down sends now is watched from here, or refused."""
        if self.closed or self.in_hooks:
            return False
        attempt = self.attempt
        return self.refused or (
            attempt is not None and (attempt.under_way or attempt.noted is not None)
        )

    def close(self, *_outcome: object) -> None:
        # A thread that was started meanwhile may have copied the variable: it reads `closed`.
        self.closed = True
        self.attempt = None  # which leads back here
        try:
            _restore(self._token)
        except ValueError:  # as in Attempt.leave
            pass


_exchange: ContextVar[Exchange | None] = ContextVar("tracekit-http-exchange", default=None)
# Bound once: of a name that was imported, a method would be looked up and bound at each call.
current_exchange = _exchange.get
_enter, _restore = _exchange.set, _exchange.reset


class Attempt:
    """One request on its way and the span that stands for it; ``HttpClientSteps.begin`` makes it.

    Attributes:
        under_way: Whether the answer is still out; False again from the moment headers are read.
        is_over: Whether the span has ended.
        noted: Response or exception that a lower layer saw; if it asks again after that, it
            retries.
        noted_at: When it saw that, in Unix nanoseconds.
        peer: Address and port at the other end of the socket; empty when unknown.
        headers: What a lower layer is handed for those of the request, in their place.
        handed_over_ns: When it was, by the clock that measures waits; 0 before.

    Concurrency: used by the thread or task that makes the request; the end of a streamed body
    may come from another.
    """

    __slots__ = (
        "carrier",
        "context",
        "destination",
        "exchange",
        "handed_over_ns",
        "headers",
        "is_over",
        "method",
        "native",
        "noted",
        "noted_at",
        "peer",
        "pool_wait_ns",
        "span",
        "steps",
        "timeouts",
        "token",
        "under_way",
        "url",
    )

    steps: HttpClientSteps
    exchange: Exchange
    native: Any
    method: str
    url: str
    destination: Destination
    carrier: Any
    timeouts: Mapping[str, float]
    span: Span
    context: Context
    token: Any
    under_way: bool
    is_over: bool
    noted: Any
    noted_at: int | None
    peer: Sequence[Any]
    handed_over_ns: int
    headers: Any
    pool_wait_ns: int

    def refuse(self) -> None:
        """Take back what an attempt before this one may have left in the request's headers."""
        self.exchange.refused = True
        self._withdraw_headers()

    def again(self, carrier: Any) -> Attempt | None:
        """Begin the next attempt to send the same request; None when it is not to be watched."""
        return self.steps.begin(
            self.exchange,
            self.native,
            self.method,
            self.url,
            self.destination,
            carrier,
            self.timeouts,
        )

    def start(self, sends: int) -> Span:
        """Start the span of a request that is not the usual one, and return it."""
        steps = self.steps
        name, attributes = self._told(self.method, sends)
        self.span = span = steps.start_span(name, self.exchange.parent, _CLIENT, attributes)
        if steps.settings.request_hook is not None:
            self._call_request_hook()
        return span

    def _told(self, method: str, sends: int) -> tuple[str, Mapping[str, Any]]:
        """Return the name of the span, and its attributes where they are not the usual ones."""
        settings = self.steps.settings
        method, original = settings.method(method)
        attributes = dict(self.destination.told_of(method, self.timeouts, self.exchange.place))
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

    def inject(self, context: Context) -> None:
        """Write trace headers for hosts that may have them, and take others back."""
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
        self.context = suppressed_http(self.context)
        self.token = attach(self.context)
        self.under_way = True

    def is_silenced(self) -> bool:
        """Tell whether :meth:`silence` was called."""
        return is_suppressed(self.context)

    def leave(self) -> None:
        """Make current what was before; safe to call twice."""
        if self.under_way:
            self.under_way = False
            # The API's detach logs an error when a coroutine is closed in another context than
            # it ran in, as garbage collection does; nothing is left to restore there.
            try:
                detach(self.token)
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

    def succeed_plainly(
        self, response: Any, status: int, version: str, peer: Sequence[Any] | None
    ) -> None:
        """Do what :meth:`succeed` does, where nothing but the head of a response is asked for.

        Written out: each call that is saved here is one less for nearly all requests.
        """
        if self.under_way:
            self.under_way = False
            try:
                detach(self.token)
            except (ValueError, RuntimeError):  # as in leave()
                pass
        if self.is_over:
            return
        self.is_over = True
        try:
            span: Any = self.span
            if version and peer is not None and len(peer) > 1:
                head = {
                    HTTP_RESPONSE_STATUS_CODE: status,
                    NETWORK_PROTOCOL_VERSION: version,
                    NETWORK_PEER_ADDRESS: peer[0],
                    NETWORK_PEER_PORT: peer[1],
                }
            else:
                head = _head(status, version, peer)
            if self.pool_wait_ns >= _NOTABLE_WAIT_NS:
                head[semconv.POOL_WAIT] = self.pool_wait_ns / 1e9
            # One of ours, of a trace that no tail sampler holds.
            if type(span) in PLAIN_SPANS and span._anchor[3] is None:
                span.end(None, head)
                return
            span.set_attributes(head)
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
            attributes = _head(status, version, self.peer)
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


def _head(status: int, version: str, peer: Sequence[Any] | None) -> dict[str, Any]:
    """Return the attributes that the head of a response always has."""
    head: dict[str, Any] = {HTTP_RESPONSE_STATUS_CODE: status}
    if version:
        head[NETWORK_PROTOCOL_VERSION] = version
    if peer:
        head[NETWORK_PEER_ADDRESS], head[NETWORK_PEER_PORT] = peer[0], peer[1]
    return head
