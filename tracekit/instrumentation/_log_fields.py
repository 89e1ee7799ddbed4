"""What log records say of the current span."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, get_current_span

from tracekit._otel_context import NO_CONTEXT, OnlySpan, current_context

__all__ = ["NO_FIELDS", "Fields", "current_fields", "take_outside_from"]

Fields = tuple[str, str, bool, str]
"""Trace id and span id in hexadecimal, whether the trace is sampled, and the service's name, which
is empty unless somebody asked for it."""

NO_FIELDS: Fields = ("0", "0", False, "")
"""Outside of any span: a format that names the fields must find some."""


def _nameless() -> Fields:
    return NO_FIELDS


_outside: Callable[[], Fields] = _nameless

# Records come in runs. Replaced as one object, so that threads never see halves of two.
_last: tuple[object, Fields] = (None, NO_FIELDS)


def take_outside_from(outside: Callable[[], Fields] | None) -> None:
    """Let somebody say what records have outside of spans, and so the service's name within."""
    global _outside
    _outside = outside or _nameless


def current_fields() -> Fields:
    """Return what a record that is made now says; within a span the same object for each.

    Raises:
        Nothing: saying so would make another record.
    Cost: on the path of every log record. Hexadecimal costs as much as all the rest, and tasks
    that take turns log each under a span of its own: what was made is kept beside that span.
    """
    context: Any = current_context()
    if type(context) is not OnlySpan:
        return _outside() if context is NO_CONTEXT else _fields_within(context)
    try:
        fields: Fields = context.log_fields
    except AttributeError:  # the first record here
        context.log_fields = fields = _fields_of(context.span)
    return fields


def _fields_within(context: Context) -> Fields:
    """Return what records say in a context that holds more than a span, or none."""
    span = get_current_span(context)
    return _outside() if span is INVALID_SPAN else _fields_of(span)


def _fields_of(span: Span) -> Fields:
    global _last
    try:
        span_context = span.get_span_context()
        last = _last
        # Equal and not identical: a span of ours makes its context anew for whoever asks.
        if last[0] == span_context:
            return last[1]
        if not span_context.is_valid:
            return _outside()
        trace_id, span_id = f"{span_context.trace_id:032x}", f"{span_context.span_id:016x}"
        fields = (trace_id, span_id, span_context.trace_flags.sampled, _outside()[3])
    except Exception:  # of a span that is not ours
        return _outside()
    _last = (span_context, fields)
    return fields
