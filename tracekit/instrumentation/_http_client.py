"""The steps of an HTTP client call, the same for every library, sync and async.

One call of the program is an :class:`Exchange`: one attempt, or several when the library
follows a redirect, answers a challenge or retries. Each :class:`Attempt` is a CLIENT span:

1. suppressed or excluded? then it is not watched
2. the span starts, with everything a sampler may want to know
3. trace headers are written, for hosts that may have them
4. the library makes its request, with the span current
5. response or exception is recorded
6. the span ends when the response's headers are read (or its body, on request)

An instrumentation calls ``HttpClientSteps.begin`` before its library's own code, and ``succeed``
or ``fail`` of the attempt that it gets after it; none of them raises. Siblings, not children: the
attempts of an exchange all have the parent that was current when it began.
https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span

All of this runs with cold caches, between the library's own code and the kernel, where a call
costs three times what it costs in a loop: hence few calls and few objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.propagators.textmap import Setter, default_setter
from opentelemetry.trace import SpanKind, Tracer

from tracekit._otel_context import (
    NO_CONTEXT,
    PLAIN_SPANS,
    SPAN_KEY,
    OnlySpan,
    attach,
    with_span,
)
from tracekit._otel_propagate import TEXTMAP
from tracekit.instrumentation._caller import called_at, frame_at
from tracekit.instrumentation._http import Headers, is_suppressed
from tracekit.instrumentation._http_attempt import Attempt, Exchange, current_exchange
from tracekit.instrumentation._http_client_attributes import Destination, HttpClientSettings
from tracekit.instrumentation._patch import report

__all__ = [
    "Attempt",
    "Exchange",
    "HttpClientSteps",
    "current_exchange",
]

_CLIENT = SpanKind.CLIENT
_UNKNOWN: Sequence[Any] = ()
_UNTOLD: tuple[Any, Any, Any] = (None, None, None)


class HttpClientSteps:
    """What the attempts of one instrumented library have in common.

    Attributes:
        headers_of: Lists the headers of the library's own request or response; asked when some
            are captured.
        setter: Writes a trace header to a carrier; as to any mapping, unless the library's own
            way is dear.
        plain_methods: Methods of requests that are watched, propagated and told of alike.
        find_caller: Finds the program's line, past so many frames of what is known to be between;
            None where that is not asked for, or where this is not what the program called.
        packed: The class of headers that keep how each is spelled beside its value, in ``_store``;
            None where a library's are read as any others. See the rationale.
        is_terse: Whether the head of a response is all that is recorded of it.
        shows_requests: Whether a hook or a captured header needs the library's own request.
    """

    __slots__ = (
        "find_caller",
        "headers_of",
        "inside",
        "is_terse",
        "packed",
        "plain_methods",
        "setter",
        "settings",
        "shows_requests",
        "start_span",
    )

    def __init__(
        self,
        tracer: Tracer,
        settings: HttpClientSettings,
        headers_of: Callable[[Any], Headers],
        setter: Setter[Any] = default_setter,
        inside: int = 0,
    ) -> None:
        """Prepare for attempts.

        Args:
            inside: How many frames lie between the program and :meth:`begin` at least, both
                ends included; 0 where the program's line is said by another span.
        """
        caller = settings.caller if inside else None
        self.find_caller = None if caller is None else caller.attributes
        self.inside = inside
        self.start_span = tracer.start_span
        self.settings = settings
        self.headers_of = headers_of
        self.packed: type | None = None
        self.setter = setter
        self.plain_methods = settings.known_methods if settings.is_plain else frozenset[str]()
        self.is_terse = settings.is_terse
        self.shows_requests = settings.shows_requests

    def begin(  # noqa: PLR0912, PLR0915 - a part of its own is one more frame for all requests
        self,
        exchange: Exchange,
        native: Any,
        method: str,
        url: str,
        destination: Destination,
        carrier: Any,
        timeouts: Mapping[str, float],
    ) -> Attempt | None:
        """Start the span of a request and make it current; None when that is not to be watched.

        Args:
            native: The library's own request; may be None unless steps show requests.
            url: Absolute, as it is, secrets included.
            carrier: Where trace headers are written; None when the library has no place for them.
            timeouts: Configured limits in seconds by attribute name.
        """
        # Filled here: a constructor would be one more frame, which is handed all of this.
        attempt = Attempt()
        attempt.steps = self
        attempt.exchange = exchange
        attempt.native = native
        attempt.method = method
        attempt.url = url
        attempt.destination = destination
        attempt.carrier = carrier
        attempt.timeouts = timeouts
        attempt.is_over = False
        attempt.noted = attempt.noted_at = None
        attempt.peer = _UNKNOWN
        attempt.pool_wait_ns = attempt.handed_over_ns = 0
        parent: Any = exchange.parent
        try:
            # Nearly all requests. A context of a span only is not asked for its length or a value,
            # which would fill it; one without a span or baggage propagates nothing but this span.
            if (
                exchange.sends
                or method not in self.plain_methods
                or not (parent is NO_CONTEXT or type(parent) is OnlySpan)
            ):
                return self._begin_otherwise(attempt, exchange, parent)
            exchange.sends = 1
            limits, last, attributes = destination.told.get(method, _UNTOLD)
            find_caller, place = self.find_caller, None
            # Below a span that is recorded so is this one, as a rule; of a root it is hoped.
            if find_caller is not None and (
                parent is NO_CONTEXT
                or type(parent.span) in PLAIN_SPANS  # type: ignore[attr-defined]
                or parent.span.is_recording()  # type: ignore[attr-defined]
            ):
                if last is not None:
                    # Caller.attributes(), for the line that sent the last such request.
                    try:
                        frame = frame_at(last.depth)
                        if (
                            frame.f_lasti == last.at
                            and frame.f_code is last.code
                            and called_at(last.depth - 1) is last.called
                        ):
                            place = last
                    except ValueError:  # the stack is not so deep
                        pass
                if place is None:
                    place = find_caller(self.inside)
                exchange.place = place
            # Destination.told_of(), written out like all of this.
            if limits is not timeouts or last is not place:
                attributes = destination.told_of(method, timeouts, place)
            attempt.span = span = self.start_span(method, parent, _CLIENT, attributes)
            if place is None and find_caller is not None and span.is_recording():
                exchange.place = place = find_caller(self.inside)
                span.set_attributes(place)
            # with_span() and inject(): where there is no baggage, the host does not matter.
            context: Any = OnlySpan()
            context.span = span
            attempt.context = context
            if carrier is not None:
                try:
                    textmap = TEXTMAP._HTTP_TEXT_FORMAT
                    # Most write one header, which is told in fewer steps than it is written.
                    try:
                        header = textmap.traceparent_of(span)
                    except AttributeError:  # not one of ours
                        header = None
                    if header is None:
                        textmap.inject(carrier, context, self.setter)
                    elif type(carrier) is dict:
                        carrier["traceparent"] = header
                    elif type(carrier) is self.packed:
                        carrier._store["traceparent"] = "traceparent", header  # type: ignore[attr-defined]
                    else:
                        self.setter.set(carrier, "traceparent", header)
                    exchange.injected = context
                except Exception:
                    report("the injection of trace headers")
            attempt.token = attach(context)
            attempt.under_way = True
            exchange.attempt = attempt
            return attempt
        except Exception:
            report("the beginning of an HTTP span")
            return None

    def _begin_otherwise(self, attempt: Attempt, exchange: Exchange, parent: Any) -> Attempt | None:
        """Do what :meth:`begin` does, for a request that is sent again, or is told of otherwise."""
        sends = exchange.sends
        exchange.sends = sends + 1
        exchange.attempt = None
        if is_suppressed(parent) or self.settings.is_excluded(attempt.url):
            attempt.refuse()
            return None
        method, outer = attempt.method, parent.get(SPAN_KEY)
        find_caller: Any = self.find_caller
        if (
            find_caller is not None
            and exchange.place is None
            and (outer is None or outer.is_recording())
        ):
            exchange.place = find_caller(self.inside + 1)
        if sends == 0 and method in self.plain_methods:
            told = attempt.destination.told_of(method, attempt.timeouts, exchange.place)
            attempt.span = span = self.start_span(method, parent, _CLIENT, told)
        else:
            span = attempt.start(sends)
        if find_caller is not None and exchange.place is None and span.is_recording():
            exchange.place = place = find_caller(self.inside + 1)
            span.set_attributes(place)
        attempt.context = context = with_span(parent, span)
        attempt.inject(context)
        attempt.token = attach(context)
        attempt.under_way = True
        exchange.attempt = attempt
        return attempt
