"""Telling whether a processor or an exporter listens: what it does not override does nothing."""

from __future__ import annotations

from typing import Any

from tracekit.interfaces import SpanExporter, SpanProcessor

__all__ = ["listens"]

_BASES = (SpanProcessor, SpanExporter)


def listens(part: Any, name: str) -> bool:
    """Whether a processor or an exporter has that method, and not from its base class.

    The base classes are ours and the SDK's, of the same names. A part is told of a thing only
    where it listens, so that the others need not pay for it.
    """
    if not callable(getattr(part, name, None)):
        return False
    if name in getattr(part, "__dict__", ()):  # set on the object, as mocks do
        return True
    for cls in type(part).__mro__:
        if name in vars(cls):
            return cls not in _BASES and not _is_base_of_sdk(cls)
    return True


def _is_base_of_sdk(cls: type) -> bool:
    is_named_so = any(cls.__name__ == base.__name__ for base in _BASES)
    return is_named_so and cls.__module__ in (
        "opentelemetry.sdk.trace",
        "opentelemetry.sdk.trace.export",
    )
