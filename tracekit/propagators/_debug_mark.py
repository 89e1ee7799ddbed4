"""Remembers that a caller forced its trace (B3 and Jaeger: debug), to say so to the next one."""

from __future__ import annotations

from opentelemetry.context import Context, get_value, set_value

__all__ = ["is_debug", "with_debug"]

_DEBUG_KEY = "tracekit-debug-trace"


def with_debug(context: Context, trace_id: int) -> Context:
    """Mark a trace as forced."""
    return set_value(_DEBUG_KEY, trace_id, context)


def is_debug(context: Context | None, trace_id: int) -> bool:
    """Tell whether this very trace was forced; one begun afresh in the same context was not."""
    return get_value(_DEBUG_KEY, context) == trace_id
