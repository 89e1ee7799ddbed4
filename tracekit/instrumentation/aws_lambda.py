"""AWS Lambda: one span for each invocation, exported before the environment is frozen.

What is patched is the function of AWS's runtime interface client that calls the handler, so it
does not matter where ``instrument()`` is called: in the module of the handler, or before by a
wrapper script. With another runtime, :func:`traced_handler` decorates the handler.

Nothing runs between two invocations, and an environment may never be thawed: what was not
exported when the handler returns is late or lost. So spans are flushed then, for no longer than
the invocation has time left.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Tracer, TracerProvider

from tracekit import semconv
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._aws_events import Invocation, invocation_of
from tracekit.instrumentation._messages import (
    links_to,
    lone_sender_of,
    reading,
    sender_of,
)
from tracekit.instrumentation._operation import Operation, begin_work
from tracekit.instrumentation._patch import LibraryInstrumentor, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["AwsLambdaInstrumentor", "traced_handler"]

Handler = Callable[[Any, Any], Any]

_MARK = "_tracekit_handler"
# What the runtime needs to send the answer, and a network that is slow to say no.
_MARGIN_MS = 100
_DEFAULT_FLUSH_MS = 5000
_TIME_LEFT = "get_remaining_time_in_millis"
_X_RAY, _X_RAY_HEADER = "_X_AMZN_TRACE_ID", "X-Amzn-Trace-Id"
_X_RAY_HEADER_LOWER = _X_RAY_HEADER.lower()
FAAS_COLDSTART = semconv.FAAS_COLDSTART
FAAS_INVOCATION_ID = semconv.FAAS_INVOCATION_ID


class _LambdaContext(Protocol):
    """What AWS passes a handler beside the event.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    function_name: str
    aws_request_id: str
    invoked_function_arn: str
    client_context: Any

    def get_remaining_time_in_millis(self) -> int: ...


class AwsLambdaInstrumentor(ReplacingInstrumentor):
    """Watch a function of AWS Lambda.

    Option ``flush_timeout_ms``: how long an invocation is kept for its spans at most, in place of
    ``OTEL_INSTRUMENTATION_AWS_LAMBDA_FLUSH_TIMEOUT``.
    """

    name = "aws_lambda"
    contrib = ("aws-lambda",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._read(**options)

    def _read(self, *, flush_timeout_ms: int | None = None) -> None:
        self._flush_ms = _flush_timeout(os.environ, flush_timeout_ms)

    def _start(self, tracer_provider: TracerProvider | None, options: Mapping[str, Any]) -> None:
        self._provider = tracer_provider
        super()._start(tracer_provider, options)

    def patches(self) -> Sequence[Replacing]:
        place = ("awslambdaric.bootstrap", "handle_event_request")
        return (Replacing(*place, self._handle_event_request),)

    def _handle_event_request(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        invocations = _Invocations(self.tracer, self._provider, self._flush_ms)
        # A function has one handler, which is handed over at each invocation.
        last: tuple[Handler, Handler] | None = None

        def handle_event_request(
            runtime: Any, request_handler: Handler, *args: Any, **kwargs: Any
        ) -> Any:
            nonlocal last
            if not owners:
                return original(runtime, request_handler, *args, **kwargs)
            if last is None or last[0] is not request_handler:
                is_watched = hasattr(request_handler, _MARK)
                watched = request_handler if is_watched else invocations.watched(request_handler)
                last = (request_handler, watched)
            return original(runtime, last[1], *args, **kwargs)

        return handle_event_request


def traced_handler(handler: Handler) -> Handler:
    """Decorate the handler of a function: a span for each invocation, exported before it returns.

    Spans go to the provider that is the global one when the handler is called.
    """
    tracer = trace.get_tracer("tracekit.instrumentation.aws_lambda", schema_url=semconv.SCHEMA_URL)
    flush_ms = _flush_timeout(os.environ, None)
    return _Invocations(tracer, None, flush_ms).watched(handler)


def _flush_timeout(environ: Mapping[str, str], given: int | None) -> int:
    variable = "OTEL_INSTRUMENTATION_AWS_LAMBDA_FLUSH_TIMEOUT"
    if given is not None:
        return given
    text = environ.get(variable, "").strip()
    if text and not text.isdecimal():
        raise InvalidValueError(variable, text, "milliseconds")
    return int(text) if text else _DEFAULT_FLUSH_MS


class _Invocations:
    """The invocations of one environment, one after the other."""

    def __init__(self, tracer: Tracer, provider: TracerProvider | None, flush_ms: int) -> None:
        self._start_span = tracer.start_span
        self._provider = provider
        # The last one that was invoked: each time the same, but for its version.
        self._function: tuple[str, Mapping[str, Any]] = ("", {})
        self._flush_ms = flush_ms
        # One that was kept warm was initialized long before it is asked anything.
        on_demand = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand") == "on-demand"
        self._is_cold = on_demand

    def watched(self, handler: Handler) -> Handler:
        """Return a handler that does the same below a span."""

        @functools.wraps(handler)
        def handle(event: Any, lambda_context: _LambdaContext) -> Any:
            try:
                invocation = invocation_of(event)
            except Exception:
                report("the reading of an event")
                invocation = Invocation(kind=SpanKind.SERVER)
            operation = self._begin(invocation, lambda_context)
            if operation is None:
                return handler(event, lambda_context)
            try:
                result = handler(event, lambda_context)
            except BaseException as error:
                operation.fail(error)
                self._flush(lambda_context)
                raise
            _succeed(operation, invocation, result)
            self._flush(lambda_context)
            return result

        setattr(handle, _MARK, True)
        return handle

    def _begin(self, invocation: Invocation, lambda_context: _LambdaContext) -> Operation | None:
        was_cold, self._is_cold = self._is_cold, False
        try:
            name = invocation.name or getattr(lambda_context, "function_name", "") or "lambda"
            arn = getattr(lambda_context, "invoked_function_arn", None) or ""
            if arn != self._function[0]:
                self._function = arn, _function_at(arn)
            attributes = {FAAS_COLDSTART: was_cold, **self._function[1], **invocation.attributes}
            request = getattr(lambda_context, "aws_request_id", None)
            if request and isinstance(request, str):
                attributes[FAAS_INVOCATION_ID] = request
            senders = invocation.senders
            links = links_to(map(sender_of, senders)) if len(senders) > 0 else None
            headers = _carrier(invocation.headers, lambda_context)
            parent = lone_sender_of(headers)
            if parent is None:
                parent = sender_of(headers)
        except Exception:
            report("what is known of an invocation")
            return None
        return begin_work(self._start_span, name, attributes, invocation.kind, parent, links)

    def _flush(self, lambda_context: _LambdaContext) -> None:
        try:
            flush = getattr(self._provider or trace.get_tracer_provider(), "force_flush", None)
            if flush is None:
                return
            limit, left = self._flush_ms, getattr(lambda_context, _TIME_LEFT, None)
            if left is not None:
                limit = min(limit, left() - _MARGIN_MS)
            if limit > 0:
                flush(limit)
        except Exception:
            report("the flush of an invocation")


def _carrier(sent: dict[str, str], lambda_context: _LambdaContext) -> dict[str, str]:
    """Return the headers of who asked: of AWS itself, of another function's call, of the event.

    What AWS says of its own trace is in the form of X-Ray, which only the propagator of that
    name reads.
    """
    reads = reading().reads  # None where nobody says
    asks = reads is None or _X_RAY_HEADER in reads or _X_RAY_HEADER_LOWER in reads
    x_ray = os.environ.get(_X_RAY) if asks else None
    w3c = getattr(lambda_context, "w3c", None)
    said = w3c() if w3c is not None and callable(w3c) else None
    custom = getattr(getattr(lambda_context, "client_context", None), "custom", None)
    if x_ray is None and not said and not custom:
        return sent
    carrier: dict[str, str] = {_X_RAY_HEADER: x_ray} if x_ray else {}
    for headers in (said, custom):
        if isinstance(headers, dict):
            carrier.update((k, v) for k, v in headers.items() if isinstance(v, str))
    carrier.update(sent)
    return carrier


def _function_at(arn: str) -> Mapping[str, Any]:
    """Return what an ARN tells of a function, without the alias or version it was called by."""
    parts = arn.split(":")
    known = {
        semconv.CLOUD_RESOURCE_ID: ":".join(parts[:7]),
        semconv.CLOUD_ACCOUNT_ID: parts[4] if len(parts) > 4 else "",
    }
    return {name: value for name, value in known.items() if value}


def _succeed(operation: Operation, invocation: Invocation, result: Any) -> None:
    """End the span of an invocation that returned, with the status of a response."""
    status = result.get("statusCode") if invocation.is_http and isinstance(result, dict) else None
    code = status if type(status) is int or status is None else _number(status)
    if code is None:
        operation.succeed()
    elif code < 500:
        operation.succeed({semconv.HTTP_RESPONSE_STATUS_CODE: code})
    else:
        operation.fail_with(str(code), "", {semconv.HTTP_RESPONSE_STATUS_CODE: code})


def _number(status: Any) -> int | None:
    try:
        return int(status)
    except (TypeError, ValueError):
        return None


plugin: type[LibraryInstrumentor] = AwsLambdaInstrumentor
