"""Telling whether a span processor listens: what it does not override does nothing."""

from __future__ import annotations

from typing import Any

from tracekit.interfaces import SpanProcessor

__all__ = ["listens"]


def listens(processor: Any, name: str) -> bool:
    """Whether the processor has that method, and not from ``SpanProcessor``, ours or the SDK's.

    A span is told of only where somebody listens, so that the others need not pay for it.
    """
    if not callable(getattr(processor, name, None)):
        return False
    if name in getattr(processor, "__dict__", ()):  # set on the object, as mocks do
        return True
    for cls in type(processor).__mro__:
        if name in vars(cls):
            return cls is not SpanProcessor and not (
                cls.__name__ == "SpanProcessor" and cls.__module__ == "opentelemetry.sdk.trace"
            )
    return True
