"""Reading the parent out of the context that a sampler is given."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceState, get_current_span

from tracekit._ot_state import OtState, with_threshold

__all__ = ["followed_trace_state", "parent_span_context", "parent_trace_state"]


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


def followed_trace_state(parent: SpanContext) -> TraceState:
    """Return the trace state of a span that follows its parent's decision.

    A threshold that contradicts the parent's flag was not the one that decided, and goes.
    Source: https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/#general-requirements
    """
    state = parent.trace_state
    if "ot" not in state:
        return state
    ot = OtState.of(state)
    is_sampled = bool(parent.trace_flags.sampled)
    if ot.threshold is None or ot.keeps(parent.trace_id) is is_sampled:
        return state
    return with_threshold(state, None)
