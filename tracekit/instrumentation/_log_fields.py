"""The ids of the current span as log records have them."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import INVALID_SPAN, SpanContext, get_current_span

from tracekit._otel_context import OnlySpan, current_context

__all__ = ["NO_IDS", "Ids", "current_ids"]

Ids = tuple[str, str, bool]
"""Trace id and span id in hexadecimal, and whether the trace is sampled."""

NO_IDS: Ids = ("0", "0", False)
"""Outside of any span: a format that names the ids must find some."""

# Replaced as one object, so that threads never see halves of two.
_last: tuple[object, Ids] = (None, NO_IDS)


def current_ids() -> Ids:
    """Return the ids of the current span, or NO_IDS; the same object for the same span.

    Raises:
        Nothing: saying so would make another record.
    Cost: on the path of every log record. Records come in runs under one span, and hexadecimal
    costs as much as all the rest.
    """
    global _last
    context: Any = current_context()
    # As get_current_span() finds it, four calls later.
    span = context.span if type(context) is OnlySpan else get_current_span(context)
    if span is INVALID_SPAN:
        return NO_IDS
    try:
        span_context = span.get_span_context()
        # Equal and not identical: a span of ours makes its context anew for whoever asks.
        if _last[0] == span_context:
            return _last[1]
        ids = _ids_of(span_context)
    except Exception:  # of a span that is not ours
        return NO_IDS
    _last = (span_context, ids)
    return ids


def _ids_of(span_context: SpanContext) -> Ids:
    if not span_context.is_valid:
        return NO_IDS
    return (
        f"{span_context.trace_id:032x}",
        f"{span_context.span_id:016x}",
        span_context.trace_flags.sampled,
    )
