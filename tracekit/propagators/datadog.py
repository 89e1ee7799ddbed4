"""Datadog: the `x-datadog-…` headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.context import Context, get_value, set_value
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext

from tracekit.propagators._headers import Headers
from tracekit.propagators._refusal import RefusedError
from tracekit.propagators._remote import with_remote_span
from tracekit.propagators._span_headers import SpanHeadersPropagator

__all__ = ["DatadogPropagator", "plugin"]

_TRACE_ID = "x-datadog-trace-id"
_PARENT_ID = "x-datadog-parent-id"
_PRIORITY = "x-datadog-sampling-priority"
_TAGS = "x-datadog-tags"
_ORIGIN = "x-datadog-origin"

_LOW_64_BITS = 2**64 - 1
# The upper half of a trace id of 128 bits; the lower half travels in decimal.
_UPPER_HALF = "_dd.p.tid"
# Limit of Datadog's own tracers (DD_TRACE_X_DATADOG_TAGS_MAX_LENGTH).
_MAX_TAGS = 512
_MAX_ORIGIN = 128

_DECIMAL = re.compile("[0-9]{1,20}").fullmatch
_HEX_64 = re.compile("[0-9a-f]{16}").fullmatch
_PRIORITY_TEXT = re.compile("-?[0-9]{1,3}").fullmatch
_TAG = re.compile(r"_dd\.p\.[\x21-\x2b\x2d-\x3c\x3e-\x7e]+=[\x20-\x2b\x2d-\x7e]+").fullmatch
_PRINTABLE = re.compile(r"[\x20-\x7e]+").fullmatch

_RECEIVED_KEY = "tracekit-datadog-received"


class _Received(NamedTuple):
    """What a caller said beside the ids, to be said to the next one in the same trace."""

    trace_id: int
    priority: int | None
    tags: tuple[str, ...]
    origin: str | None


class DatadogPropagator(SpanHeadersPropagator):
    """Write and read ids in decimal, the sampling priority, the propagated tags and the origin.

    Source: https://docs.datadoghq.com/tracing/trace_collection/trace_context_propagation/
    """

    @property
    def fields(self) -> set[str]:
        return {_TRACE_ID, _PARENT_ID, _PRIORITY, _TAGS, _ORIGIN}

    def _written(
        self, span_context: SpanContext, context: Context | None
    ) -> Iterable[tuple[str, str]]:
        received = _received(context, span_context.trace_id)
        yield _TRACE_ID, str(span_context.trace_id & _LOW_64_BITS)
        yield _PARENT_ID, str(span_context.span_id)
        yield _PRIORITY, str(_priority(received, span_context.trace_flags & 1))
        tags = _tags_text(received, span_context.trace_id >> 64)
        if tags:
            yield _TAGS, tags
        if received and received.origin:
            yield _ORIGIN, received.origin

    def _read(self, headers: Headers[Any], context: Context) -> Context:
        trace_text = headers.first(_TRACE_ID, "X-Datadog-Trace-Id")
        parent_text = headers.first(_PARENT_ID, "X-Datadog-Parent-Id")
        if trace_text is None and parent_text is None:
            return context
        tags = _read_tags(headers.first(_TAGS, "X-Datadog-Tags"))
        trace_id = _upper_half(tags) | _decimal(trace_text, "datadog_trace_id")
        span_id = _decimal(parent_text, "datadog_parent_id")
        priority = _read_priority(headers.first(_PRIORITY, "X-Datadog-Sampling-Priority"))
        origin = headers.first(_ORIGIN, "X-Datadog-Origin")
        if origin is not None and (len(origin) > _MAX_ORIGIN or not _PRINTABLE(origin)):
            origin = None
        received = _Received(trace_id, priority, tags, origin)
        # No priority: the decision is ours. As with B3, that must not drop the trace unasked.
        sampled = priority is None or priority > 0
        context = with_remote_span(context, trace_id, span_id, sampled)
        return set_value(_RECEIVED_KEY, received, context)


def _received(context: Context | None, trace_id: int) -> _Received | None:
    received = get_value(_RECEIVED_KEY, context)
    if isinstance(received, _Received) and received.trace_id == trace_id:
        return received
    return None


def _priority(received: _Received | None, sampled: int) -> int:
    # Priorities beside 0 and 1 say who decided (2 and -1: a user). They stand as long as we
    # have not decided otherwise.
    if received and received.priority is not None and (received.priority > 0) == bool(sampled):
        return received.priority
    return sampled


def _decimal(text: str | None, reason: str) -> int:
    if text is None or len(text) > 20 or not _DECIMAL(text):
        raise RefusedError(reason)
    number = int(text)
    if not 0 < number <= _LOW_64_BITS:
        raise RefusedError(reason)
    return number


def _read_priority(text: str | None) -> int | None:
    if text is None:
        return None
    if len(text) > 4 or not _PRIORITY_TEXT(text):
        raise RefusedError("datadog_sampling_priority")
    return int(text)


def _read_tags(text: str | None) -> tuple[str, ...]:
    # Tags are an extra: what is wrong with them leaves the rest as it is.
    if text is None or len(text) > _MAX_TAGS:
        return ()
    return tuple(tag for tag in text.split(",") if _TAG(tag))


def _upper_half(tags: tuple[str, ...]) -> int:
    for tag in tags:
        name, _, value = tag.partition("=")
        if name == _UPPER_HALF and _HEX_64(value):
            return int(value, 16) << 64
    return 0


def _tags_text(received: _Received | None, upper_half: int) -> str:
    tags = [f"{_UPPER_HALF}={upper_half:016x}"] if upper_half else []
    if received:
        tags += [tag for tag in received.tags if not tag.startswith(_UPPER_HALF + "=")]
    text = ",".join(tags)
    return text if len(text) <= _MAX_TAGS else tags[0]


plugin: type[TextMapPropagator] = DatadogPropagator
