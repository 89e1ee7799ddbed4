"""The steps of a call of an AWS service, the same for botocore and for aiobotocore.

1. part of another call, or suppressed? then it is not watched
2. the span starts, with everything a sampler may want to know
3. what the call sends gets the context of the call, where it has a place for it
4. the library does its work, with the span current: its requests are attempts of this call
5. response or exception is recorded, and the span ends

An instrumentation calls :meth:`CallSteps.begin` before the library's own code, and ``succeed``
or ``fail`` of what it returns after it; none of them raises.
https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/

Whatever is the same for each call of an operation is found out once and kept beside the client:
between two steps the library runs tens of thousands of instructions, so all of this runs with
cold caches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind, Tracer

from tracekit import semconv
from tracekit._otel_context import (
    NO_CONTEXT,
    PLAIN_SPANS,
    OnlySpan,
    attach,
    current_context,
    detach,
    with_span,
)
from tracekit.instrumentation._aws_requests import RequestHeaders
from tracekit.instrumentation._aws_services import RECEIVE, Carry, carrier_of, links_from, told_of
from tracekit.instrumentation._caller import caller_from
from tracekit.instrumentation._carry import is_suppressed
from tracekit.instrumentation._http import Headers, is_cancellation, record_failure
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import HttpClientSettings, destination_of
from tracekit.instrumentation._messages import headers_for
from tracekit.instrumentation._patch import quiet, report

__all__ = ["Call", "CallSteps", "complete"]

TimeoutsOf = Callable[[Any], Mapping[str, float]]

# What returns the kind of an operation by its name, in the instance dictionary of a client.
_KIND_OF = "_tracekit_operations"
# One lookup less on the path of each call.
_NOWHERE: Mapping[str, Any] = {}
_CLIENT = SpanKind.CLIENT
HTTP_RESPONSE_STATUS_CODE = semconv.HTTP_RESPONSE_STATUS_CODE
AWS_REQUEST_ID = semconv.AWS_REQUEST_ID


class _Kind:
    """What is the same for each call of one operation of a client.

    Attributes:
        attributes: What is known of it beforehand.
        last: The line of the program that called last, and the attributes of both.
        tell: Adds what the parameters tell; None where they tell nothing.
        carry: Puts the context into the parameters; None where they have no place for it.
        receives: Whether the answer is messages, each with the context of its sender.
        session: What the client sends its requests with.
        timeouts: The limits that were configured for these, by attribute name.
    """

    __slots__ = ("attributes", "carry", "last", "name", "receives", "session", "tell", "timeouts")

    def __init__(
        self,
        service: str,
        operation: str,
        place: Mapping[str, Any],
        session: Any,
        timeouts: Mapping[str, float],
    ) -> None:
        self.session = session
        self.timeouts = timeouts
        self.name = f"{service}.{operation}"
        told, self.tell = told_of(service, operation)
        self.attributes: Mapping[str, Any] = {
            semconv.RPC_SYSTEM_NAME: "aws-api",
            semconv.RPC_METHOD: f"{service}/{operation}",
            **place,
            **told,
        }
        region = place.get(semconv.CLOUD_REGION)
        if region and (service, operation) == ("Lambda", "Invoke"):
            self.attributes = {**self.attributes, semconv.FAAS_INVOKED_REGION: region}
        self.last: tuple[Mapping[str, Any], dict[str, Any]] = (self.attributes, {})
        self.carry: Carry | None = carrier_of(service, operation)
        self.receives = (service, operation) == RECEIVE

    def asked_from(self, place: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of a call that the program makes there, and keep them."""
        attributes = {**self.attributes, **place}
        self.last = place, attributes
        return attributes


class _Kinds(dict[str, _Kind]):
    """The operations of one client, each found out about when it is first called."""

    __slots__ = ("_place", "_service", "_session", "_timeouts")

    def __init__(self, client: Any, timeouts_of: TimeoutsOf) -> None:
        super().__init__()
        # The library's is a class of its own, which is slower to join.
        self._service = str.__str__(client._service_model.service_id)
        self._place = _place_of(client.meta.region_name, client.meta.endpoint_url)
        self._session = getattr(getattr(client, "_endpoint", None), "http_session", client)
        self._timeouts = timeouts_of(self._session)

    def __missing__(self, operation: str) -> _Kind:
        kind = self[operation] = _Kind(
            self._service, operation, self._place, self._session, self._timeouts
        )
        return kind


def _place_of(region: str | None, endpoint: str | None) -> Mapping[str, Any]:
    """Return the attributes that say where a client's calls go."""
    place: dict[str, Any] = {}
    if region:
        place[semconv.CLOUD_REGION] = region
    parts = urlsplit(endpoint or "")
    if parts.hostname:
        place[semconv.SERVER_ADDRESS] = parts.hostname
        place[semconv.SERVER_PORT] = parts.port or (80 if parts.scheme == "http" else 443)
    return place


class CallSteps:
    """What the calls of one instrumented library have in common, and the requests for them."""

    __slots__ = ("_begin_attempt", "_caller", "_injects", "_start_span", "_timeouts_of")

    def __init__(
        self,
        library: str,
        tracer: Tracer,
        timeouts_of: TimeoutsOf,
        *,
        inject: bool | None = None,
        code_location: bool | None = None,
        **options: Any,
    ) -> None:
        """Read settings from the environment, overridden by options.

        Args:
            timeouts_of: Returns the limits that a library's HTTP session was made with.
            inject: Whether messages carry the context of the call that sends them, in place of
                ``TRACEKIT_BOTOCORE_INJECT``.
            code_location: Whether the program's line is recorded of the call, in place of
                ``TRACEKIT_CODE_LOCATION``.
            options: Those of :meth:`HttpClientSettings.read`, for the requests.
        """
        if inject is None:
            text = os.environ.get("TRACEKIT_BOTOCORE_INJECT", "").strip().lower()
            inject = text != "false"
        self._injects = inject
        settings = HttpClientSettings.read(library, os.environ, **options)
        self._caller = caller_from(os.environ, code_location)
        self._start_span = tracer.start_span
        self._timeouts_of = timeouts_of
        attempts = HttpClientSteps(tracer, settings, _headers_of, RequestHeaders())
        self._begin_attempt = attempts.begin

    def begin(self, client: Any, operation_name: str, params: Any) -> Call | None:
        """Start the span of a call and make it current; None when it is not to be watched."""
        outer = current_exchange()
        if type(outer) is Call and not outer.closed:
            return None  # made by the library, for the call that it is inside of
        try:
            parent = current_context()
            is_lone = type(parent) is OnlySpan or parent is NO_CONTEXT
            if not is_lone and is_suppressed(parent):
                return None
            kind_of = vars(client).get(_KIND_OF)
            if kind_of is None:
                # Bound: a lookup in a dictionary that is more than one has no short form.
                kind_of = vars(client)[_KIND_OF] = _Kinds(client, self._timeouts_of).__getitem__
            kind, caller = kind_of(operation_name), self._caller
            # Neither this frame nor that of the patched function is the program's.
            place = _NOWHERE if caller is None else caller.attributes(3)
            last = kind.last
            attributes = last[1] if last[0] is place else kind.asked_from(place)
            if kind.tell is not None and isinstance(params, dict):
                attributes = attributes.copy()
                kind.tell(params, attributes)
            span = self._start_span(kind.name, parent, _CLIENT, attributes)
            context: Any
            if is_lone:  # with_span(), without its frame
                context = OnlySpan()
                context.span = span
            else:
                context = with_span(parent, span)
            token = attach(context)
            # Behind that: its attempts are below the span of the call.
            call = Call(kind.session)
            call.timeouts = kind.timeouts
            call.kind = kind
            call.span = span
            call.token = token
            call.params = params if kind.carry is None else self._carrying(call, params)
            return call
        except Exception:
            report("the beginning of a call")
            return None

    def _carrying(self, call: Call, params: Any) -> Any:
        """Return the parameters with the context of the call, for what it sends."""
        carry = call.kind.carry
        if carry is None or not self._injects or not isinstance(params, dict):
            return params
        try:
            return carry(params, headers_for(call.parent))
        except Exception:
            report("the injection of trace headers")
            return params

    def begin_attempt(self, exchange: Sending, request: Any, carrier: Any) -> Attempt | None:
        """Start the span of a request; None when it is not to be watched."""
        try:
            url = request.url
            return self._begin_attempt(
                exchange,
                request,
                request.method,
                url,
                destination_of(url),
                carrier,
                exchange.timeouts,
            )
        except Exception:
            report("what is known of a request")
            return None

    def sending(self, session: Any) -> Sending:
        """Begin what no call asked for, such as a request for credentials; the caller closes it."""
        exchange = Sending(session)
        exchange.timeouts = self._timeouts_of(session)
        return exchange


class Sending(Exchange):
    """What makes requests by a session, which is its owner.

    Attributes:
        timeouts: The limits that this was made with.
    """

    __slots__ = ("timeouts",)

    timeouts: Mapping[str, float]


class Call(Sending):
    """A call that is under way: all requests that its client makes meanwhile are its attempts.

    Attributes:
        params: What the library is to be called with.
    """

    __slots__ = ("kind", "params", "span", "token")

    kind: _Kind
    params: Any
    span: Any
    token: Any

    def succeed(self, response: Any, told: dict[str, Any] | None = None) -> None:
        """Record a response, or what is told in its place, and end the span."""
        span = self.span
        if told is None:
            try:
                told = _answered(response)
                if self.kind.receives:
                    for link in links_from(response):
                        span.add_link(link.context)
            except Exception:
                report("the reading of a response")
                told = {}
        self.close()
        try:
            detach(self.token)
        except (ValueError, RuntimeError):  # a coroutine that garbage collection closes
            pass
        try:
            if type(span) in PLAIN_SPANS:
                span.end(None, told)
            else:
                span.set_attributes(told)
                span.end()
        except Exception:
            report("the end of a span")

    def fail(self, error: BaseException) -> None:
        """Record the exception that goes on to the program, and end the span."""
        if not is_cancellation(error):
            record_failure(self.span, error)
        self.succeed(None, _told_by_error(error) or {})


def _answered(response: Any) -> dict[str, Any]:
    """Return what the metadata of a response tell."""
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    if not isinstance(metadata, dict):
        return {}
    # Written out: a table of these takes three times as long, at each call.
    told: dict[str, Any] = {}
    if status := metadata.get("HTTPStatusCode"):
        told[HTTP_RESPONSE_STATUS_CODE] = status
    if request_id := metadata.get("RequestId"):
        told[AWS_REQUEST_ID] = request_id
    if host_id := metadata.get("HostId"):
        told[semconv.AWS_EXTENDED_REQUEST_ID] = host_id
    if resends := metadata.get("RetryAttempts"):
        told[semconv.HTTP_REQUEST_RESEND_COUNT] = resends
    if len(response) > 1:  # than its metadata
        if message_id := response.get("MessageId"):
            told[semconv.MESSAGING_MESSAGE_ID] = message_id
        if messages := response.get("Messages"):
            told[semconv.MESSAGING_BATCH_MESSAGE_COUNT] = len(messages)
    return told


@quiet
def _told_by_error(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    told = _answered(response)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    if isinstance(code, str) and code:
        told[semconv.ERROR_TYPE] = code
    return told


# The requests of a call


def _headers_of(message: Any) -> Headers:
    return message.headers.items()  # type: ignore[no-any-return]


def complete(attempt: Attempt, response: Any, version: str) -> None:
    """Record the response of an attempt that had not ended when its headers were read."""
    try:
        status = response.status_code
    except Exception:
        report("the reading of a response")
        attempt.leave()
        attempt.end()
        return
    attempt.succeed(response, status, version)
    attempt.end()
