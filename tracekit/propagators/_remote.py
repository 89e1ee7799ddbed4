"""Puts the span context that a caller sent into a Context."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceState

from tracekit._otel_context import SPAN_KEY, span_context, with_span

__all__ = ["KNOWN_FLAGS", "SPAN_KEY", "remote_span_context", "with_remote_span"]

KNOWN_FLAGS = 3
"""The flags that Trace Context Level 2 knows: sampled 01, random 02. Others are sent as 0.

Source: https://www.w3.org/TR/trace-context-2/#trace-flags
"""


def remote_span_context(
    trace_id: int, span_id: int, flags: int, trace_state: TraceState | None = None
) -> SpanContext:
    """Make the span context of a caller from ids that were found valid."""
    return span_context(trace_id, span_id, True, flags & KNOWN_FLAGS, trace_state)


def with_remote_span(context: Context, trace_id: int, span_id: int, sampled: bool) -> Context:
    """Return the context with a remote parent."""
    return with_span(context, NonRecordingSpan(remote_span_context(trace_id, span_id, sampled)))
