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

from opentelemetry.propagators.textmap import Setter
from opentelemetry.trace import Tracer

from tracekit import semconv
from tracekit.instrumentation._aws_services import RECEIVE, Carry, carrier_of, links_from, told_of
from tracekit.instrumentation._caller import caller_from
from tracekit.instrumentation._http import Headers
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import HttpClientSettings, destination_of
from tracekit.instrumentation._messages import headers_for
from tracekit.instrumentation._operation import Operation, begin
from tracekit.instrumentation._patch import quiet, report

__all__ = ["Call", "CallSteps", "complete"]

TimeoutsOf = Callable[[Any], Mapping[str, float]]

# What returns the kind of an operation by its name, in the instance dictionary of a client.
_KIND_OF = "_tracekit_operations"
# One lookup less on the path of each call.
_NOWHERE: Mapping[str, Any] = {}
HTTP_RESPONSE_STATUS_CODE = semconv.HTTP_RESPONSE_STATUS_CODE
AWS_REQUEST_ID = semconv.AWS_REQUEST_ID


class _Kind:
    """What is the same for each call of one operation of a client.

    Attributes:
        attributes: What is known of it beforehand.
        tell: Adds what the parameters tell; None where they tell nothing.
        carry: Puts the context into the parameters; None where they have no place for it.
        receives: Whether the answer is messages, each with the context of its sender.
        session: What the client sends its requests with.
        timeouts: The limits that were configured for these, by attribute name.
    """

    __slots__ = ("attributes", "carry", "name", "receives", "session", "tell", "timeouts")

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
        self.carry: Carry | None = carrier_of(service, operation)
        self.receives = (service, operation) == RECEIVE


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

    __slots__ = ("_attempts", "_caller", "_injects", "_start_span", "_timeouts_of")

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
        self._attempts = HttpClientSteps(tracer, settings, _headers_of, _RequestHeaders())

    def begin(self, client: Any, operation_name: str, params: Any) -> Call | None:
        """Start the span of a call and make it current; None when it is not to be watched."""
        outer = current_exchange()
        if type(outer) is Call and not outer.closed:
            return None  # made by the library, for the call that it is inside of
        try:
            kind_of = vars(client).get(_KIND_OF)
            if kind_of is None:
                # Bound: a lookup in a dictionary that is more than one has no short form.
                kind_of = vars(client)[_KIND_OF] = _Kinds(client, self._timeouts_of).__getitem__
            kind, caller = kind_of(operation_name), self._caller
            # Neither this frame nor that of the patched function is the program's.
            place = _NOWHERE if caller is None else caller.attributes(3)
            attributes = {**kind.attributes, **place}
            if kind.tell is not None and isinstance(params, dict):
                kind.tell(params, attributes)
        except Exception:
            report("what is known of a call")
            return None
        # Without a system: that it is part of another is told by the exchange, and a context
        # that holds a span only is made, asked and injected faster.
        operation = begin(self._start_span, "", kind.name, attributes)
        if operation is None:
            return None
        call = Call(kind.session)
        call.operation = operation
        call.kind = kind
        call.params = params if kind.carry is None else self._carrying(call, params)
        return call

    def _carrying(self, call: Call, params: Any) -> Any:
        """Return the parameters with the context of the call, for what it sends."""
        carry = call.kind.carry
        if carry is None or not self._injects or not isinstance(params, dict):
            return params
        try:
            return carry(params, headers_for(call.operation.context))
        except Exception:
            report("the injection of trace headers")
            return params

    def begin_attempt(self, exchange: Exchange, session: Any, request: Any) -> Attempt | None:
        """Start the span of a request that `session` sends; None when it is not to be watched."""
        try:
            url = request.url
            # What a client's session was made with is known since the first of its calls.
            if type(exchange) is Call:
                limits = exchange.kind.timeouts
            else:
                limits = self._timeouts_of(session)
            return self._attempts.begin(
                exchange, request, request.method, url, destination_of(url), request.headers, limits
            )
        except Exception:
            report("what is known of a request")
            return None


class Call(Exchange):
    """A call that is under way: all requests that its client makes meanwhile are its attempts.

    Attributes:
        params: What the library is to be called with.
    """

    __slots__ = ("kind", "operation", "params")

    operation: Operation
    kind: _Kind
    params: Any

    def succeed(self, response: Any) -> None:
        """Record a response, and end the span."""
        self.close()
        try:
            told = _answered(response)
            if self.kind.receives:
                for link in links_from(response):
                    self.operation.span.add_link(link.context)
        except Exception:
            report("the reading of a response")
            told = {}
        self.operation.succeed(told)

    def fail(self, error: BaseException) -> None:
        """Record the exception that goes on to the program, and end the span."""
        self.close()
        self.operation.fail(error, _told_by_error(error))


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


class _RequestHeaders(Setter[Any]):
    """Writes a trace header to those of a request, as their own method would, in fewer calls.

    The library's dictionary makes a key of each name anew; those of trace headers are kept.
    """

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {}

    def set(self, carrier: Any, key: str, value: str) -> None:
        try:
            carrier._dict[self._keys[key]] = value
        except (AttributeError, LookupError, TypeError):
            carrier[key] = value
            self._learn(carrier, key)

    def _learn(self, carrier: Any, key: str) -> None:
        raw = getattr(carrier, "_dict", None)
        # Other headers, such as somebody's own, may have one that is made otherwise.
        if type(carrier).__module__ == "botocore.awsrequest" and isinstance(raw, dict):
            self._keys.update((key, made) for made in raw if str(made) == key)


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
