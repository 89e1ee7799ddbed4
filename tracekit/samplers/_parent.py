"""Reading the parent out of the context that a sampler is given."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceState, get_current_span

__all__ = ["parent_span_context", "parent_trace_state"]


def parent_span_context(context: Context | None) -> SpanContext | None:
    """Return the parent's span context, or None for a root span."""
    if context is not None and not context:
        return None
    span_context = get_current_span(context).get_span_context()
    return span_context if span_context.is_valid else None


def parent_trace_state(context: Context | None) -> TraceState | None:
    """Return the trace state that a sampler which adds nothing passes on."""
    parent = parent_span_context(context)
    return parent.trace_state if parent is not None else None
