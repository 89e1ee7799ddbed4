"""Puts the span context that a caller sent into a Context."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

__all__ = ["FLAGS", "SPAN_KEY", "remote_span_context", "with_remote_span"]

# OpenTelemetry keeps the name of this key to itself, but a Context shows it to everybody.
# Writing the Context once under it costs half of what set_span_in_context does.
SPAN_KEY = next(iter(set_span_in_context(INVALID_SPAN, Context())))

# The flags that Trace Context Level 2 knows, indexed by their bits: sampled 01, random 02.
# https://www.w3.org/TR/trace-context-2/#trace-flags
FLAGS = tuple(TraceFlags(bits) for bits in range(4))


# A SpanContext is a tuple; made as one, it costs half of what its constructor does. Should a
# version of opentelemetry-api lay it out in another way, the constructor it is.
_LAYOUT_KNOWN = tuple(SpanContext(1, 2, True, FLAGS[3], DEFAULT_TRACE_STATE)) == (
    (1, 2, True, 3, DEFAULT_TRACE_STATE, True)
)
_new_tuple = tuple.__new__


def remote_span_context(
    trace_id: int, span_id: int, flags: int, trace_state: TraceState = DEFAULT_TRACE_STATE
) -> SpanContext:
    """Make the span context of a caller from ids that were found valid."""
    if _LAYOUT_KNOWN:
        return _new_tuple(
            SpanContext, (trace_id, span_id, True, FLAGS[flags & 3], trace_state, True)
        )
    return SpanContext(trace_id, span_id, True, FLAGS[flags & 3], trace_state)


def with_remote_span(context: Context, trace_id: int, span_id: int, sampled: bool) -> Context:
    """Return the context with a remote parent."""
    span = NonRecordingSpan(remote_span_context(trace_id, span_id, sampled))
    return set_span_in_context(span, context)
